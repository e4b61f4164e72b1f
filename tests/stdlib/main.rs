//! The standard library in real sandboxes: each module's script in `cases`, in every language.
//!
//! Runs as whoever starts it. What an ordinary user can't do here is skipped with its reason.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../cli/environment.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod environment;
mod fixtures;
mod manual;

use std::io::Write;

use environment::{TestEnvironment, repository, skip};
use sandscript::lang;

/// Says what can't be tried as this user, whatever is installed.
fn left_out(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skip: {what}: {why}");
}

/// An environment, unless the backend lacks one of these capabilities for this user.
fn local(case: &str, capabilities: &[&str]) -> Option<TestEnvironment> {
    let environment = TestEnvironment::local()?;
    let lacks = capabilities.iter().find(|one| !environment.has(one));
    if let Some(lacks) = lacks {
        left_out(case, &format!("needs {lacks}"));
        return None;
    }
    Some(environment)
}

/// Whether a program is installed where the image `host` has it, too.
fn installed(program: &str) -> bool {
    let there = ["/usr/local/bin", "/usr/bin", "/usr/sbin"]
        .iter()
        .any(|folder| std::path::Path::new(folder).join(program).exists());
    if !there {
        skip(&format!("{program} is not installed"));
    }
    there
}

/// Runs a case in every language, with more arguments: each prints what `cases/NAME.expected` says.
/// `SANDSCRIPT_BLESS=1` writes what came out; read the difference before you keep it.
fn check(environment: &TestEnvironment, name: &str, more: &[&str]) {
    let cases = repository().join("tests/stdlib/cases");
    let expected = cases.join(format!("{name}.expected"));
    for language in lang::languages() {
        let file = format!("{name}.{}", language.extensions()[0]);
        let text = std::fs::read_to_string(cases.join(&file));
        environment.write(&file, &text.unwrap_or_else(|_| panic!("cases/{file} is missing")));
        let mut args = vec!["run", file.as_str(), "--timeout", "3m"];
        args.extend(more);
        let run = environment.run(&args);
        if std::env::var_os("SANDSCRIPT_BLESS").is_some() && run.code == Some(0) {
            std::fs::write(&expected, &run.stdout).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!((run.code, run.stdout), (Some(0), expected), "{file}: {}", run.stderr);
    }
}

#[test]
fn shell() {
    let Some(environment) = local("shell", &[]) else { return };
    check(&environment, "shell", &[]);
}

#[test]
fn assertions() {
    let Some(environment) = local("check", &[]) else { return };
    check(&environment, "check", &[]);
}

#[test]
fn retry() {
    let Some(environment) = local("retry", &[]) else { return };
    check(&environment, "retry", &[]);
}

#[test]
fn services_without_an_init_system() {
    if !["python3", "curl", "wget"].iter().all(|program| installed(program)) {
        return;
    }
    let Some(environment) = local("services", &[]) else { return };
    check(&environment, "services", &[]);
}

#[test]
fn users() {
    if !installed("useradd") {
        return;
    }
    let Some(environment) = local("users", &["users"]) else { return };
    check(&environment, "users", &[]);
}

#[test]
fn git() {
    if !installed("git") {
        return;
    }
    let Some(environment) = local("git", &[]) else { return };
    check(&environment, "git", &[]);
}

#[test]
fn python() {
    if !installed("python3") {
        return;
    }
    let Some(environment) = local("python", &[]) else { return };
    if !fixtures::wheel(&environment) {
        return;
    }
    check(&environment, "python", &[]);
}

#[test]
fn node() {
    if !["node", "npm"].iter().all(|program| installed(program)) {
        return;
    }
    let Some(environment) = local("node", &[]) else { return };
    check(&environment, "node", &[]);
}

#[test]
fn go() {
    if !installed("go") {
        return;
    }
    let Some(environment) = local("go", &[]) else { return };
    check(&environment, "go", &[]);
}

#[test]
fn rust() {
    let Some(environment) = local("rust", &["mounts"]) else { return };
    if !fixtures::toolchain(&environment) {
        return left_out("rust", "the toolchain that built this test is not this user's to read");
    }
    check(&environment, "rust", &[]);
}

#[test]
fn apt() {
    if !["apt-get", "dpkg-deb", "dpkg-scanpackages"].iter().all(|program| installed(program)) {
        return;
    }
    let Some(environment) = local("apt", &["tar-image"]) else { return };
    fixtures::debian_packages(&environment);
    fixtures::debian_root(&environment);
    check(&environment, "apt", &[]);
    check(&environment, "packages", &[]);
}

#[test]
fn dnf() {
    if !["dnf", "rpmbuild", "createrepo_c"].iter().all(|program| installed(program)) {
        return;
    }
    let Some(environment) = local("dnf", &[]) else { return };
    fixtures::rpm_packages(&environment);
    check(&environment, "dnf", &[]);
}

/// What std/apk does with an apk is in no test: none can be had. That it says so where there is no
/// apk is.
#[test]
fn apk_is_missed() {
    let Some(environment) = local("apk", &[]) else { return };
    check(&environment, "apk", &[]);
    left_out("apk", "no image with apk can be had: what std/apk does with one is not tested");
}
