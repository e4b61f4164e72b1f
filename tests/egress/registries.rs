//! What a guest says about where its tools fetch from, before and after something ran in it.

use std::collections::BTreeMap;
use std::path::Path;

use sandscript::egress::{Asked, Asker, Catalog, Origin, Resolved};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Mount, Policy, Reader, SnapshotSpec, Spec, WriteOptions,
};

use sandscript::{Host, Source, run};

use crate::Test;
use crate::rig::{Rig, Sandbox};

pub const TESTS: &[Test] = &[
    ("attack_edit_of_what_tools_are_set_to", edit),
    ("a_package_manager_works_with_a_mirror_and_a_blocked_one_says_why", package_manager),
    ("npm_works_with_a_mirror", npm),
    ("apt_works_with_a_mirror_and_a_blocked_one_says_why", apt),
    ("cargo_works_with_a_mirror_that_sends_it_on", cargo),
];

const PIP: &str = "/etc/pip.conf";

fn write(rig: &Rig, name: &str, text: &'static str) {
    write_to(rig, name, PIP, text);
}

fn write_to(rig: &Rig, name: &str, path: &str, text: &'static str) {
    let options = WriteOptions { parents: true, ..WriteOptions::default() };
    let content: Reader = Box::new(text.as_bytes());
    rig.wait(rig.backend.write(name, path, content, &options, &Cancel::new())).unwrap();
}

fn resolve(rig: &Rig, asked: &Asked, origin: &Origin) -> Resolved {
    let cancel = Cancel::new();
    let (backend, env) = (rig.backend.as_ref(), BTreeMap::new());
    let place = "local".to_owned();
    let asker = Asker { backend, cancel: &cancel, owner: None, env, user: None, dry: false, place };
    rig.wait(Catalog::default().resolve(asked, &asker, origin)).unwrap()
}

/// The guest names another index in the files that are asked: in none of the ways in which a policy is
/// set does it get there.
fn edit(rig: &Rig) {
    let base = Sandbox { rig, name: rig.name() };
    let mut spec = Spec::new(&base.name);
    spec.labels = [("sandscript.kind".to_owned(), "base".to_owned())].into();
    rig.wait(rig.backend.create(&spec, &Cancel::new())).unwrap();
    write(rig, &base.name, "[global]\nindex-url = http://allowed.test/simple\n");
    let label = SnapshotSpec::new("done");
    rig.wait(rig.backend.snapshot(&base.name, &label, &Cancel::new())).unwrap();

    let registries = Asked::word("registries").unwrap();
    let origin = Origin::Base { sandbox: base.name.clone(), label: "done".into() };
    let found = resolve(rig, &registries, &origin);
    let texts: Vec<String> = found.policy.rules().map(ToString::to_string).collect();
    assert!(texts.contains(&"allowed.test:80".to_owned()), "{texts:?}");
    // As a cell gets it.
    let guest = rig.sandbox_of(found.policy.clone());
    let held = |guest: &Sandbox<'_>| {
        guest.reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
        guest.is_refused(&["get", "203.0.113.20:80", "denied.test"]);
    };
    held(&guest);
    write(rig, &guest.name, "[global]\nindex-url = http://denied.test/simple\n");
    held(&guest);
    guest.stop();
    guest.start();
    held(&guest);
    let own = Origin::Sandbox(guest.name.clone());
    guest.set(&resolve(rig, &registries, &own).policy);
    held(&guest);
    // Also where it is asked for a preset that it has no answer for.
    let clone = Sandbox { rig, name: rig.name() };
    let spec = CloneSpec::of("done", &clone.name);
    rig.wait(Backend::clone(rig.backend.as_ref(), &base.name, &spec, &Cancel::new())).unwrap();
    write(rig, &clone.name, "[global]\nindex-url = http://denied.test/simple\n");
    let found = resolve(rig, &Asked::word("agent").unwrap(), &Origin::Sandbox(clone.name.clone()));
    let texts: Vec<String> = found.policy.rules().map(ToString::to_string).collect();
    assert!(texts.contains(&"allowed.test:80".to_owned()), "{texts:?}");
    assert!(!texts.iter().any(|rule| rule.contains("denied")), "{texts:?}");
}

/// The base knows a mirror, as an image of somebody's company would.
const INSTALL: &str = r#"
let py = base("py", |b| {
    b.write("/etc/pip.conf", "[global]\nindex-url = http://mirror.test/simple\ntrusted-host = mirror.test\n");
    b.run("python3 -m venv /root/venv");
});
let pip = "/root/venv/bin/pip --no-cache-dir --disable-pip-version-check --retries 0 install hello";
matrix("open", #{ from: py, egress: "registries", axes: #{ n: [1] } }, |cell| {
    cell.sandbox.run(pip);
    cell.sandbox.run("/root/venv/bin/python -m hello");
});
matrix("blocked", #{ from: py, egress: ["allowed.test"], axes: #{ n: [1] } }, |cell| {
    cell.sandbox.run(pip);
});
matrix("allowed", #{ from: py, egress: #{ allow: ["allowed.test", "mirror.test"] }, axes: #{ n: [1] } }, |cell| {
    cell.sandbox.run(pip);
});
"#;

fn package_manager(rig: &Rig) {
    if !Path::new("/usr/lib/python3").exists() || !Path::new("/usr/bin/python3").exists() {
        assert!(std::env::var_os("CI").is_none(), "python3 is not installed");
        println!("skip: python3 is not installed");
        return;
    }
    let project = tempfile::tempdir().unwrap();
    let (result, reports) = rig.wait(async {
        let backend = rig.another_now().await;
        let host = Host::builder(backend).project(project.path()).build().unwrap();
        let outcome = run(&Source::new("install.rhai", INSTALL), &host).await;
        (outcome.result.map(drop), host.take_reports())
    });
    let tails = || reports.iter().flat_map(|report| &report.cells).map(|cell| cell.tail.as_str());
    let passed: Vec<bool> = reports.iter().map(|report| report.cells[0].outcome.ok()).collect();
    assert_eq!(passed, [true, false, true], "{result:?} {}", tails().collect::<String>());
    let blocked = &reports[1].cells[0].egress;
    assert!(blocked.said().unwrap().contains("refused: mirror.test"), "{blocked:?}");
    assert_eq!(
        blocked.remedy(None).unwrap(),
        "egress: #{ allow: [\"allowed.test\", \"mirror.test\"] }"
    );
    let carried = &reports[0].cells[0].egress.carried;
    assert!(
        carried.iter().any(|one| one.host == "mirror.test" && one.received > 500),
        "{carried:?}"
    );
    let cancel = Cancel::new();
    let left = rig.wait(rig.backend.list(&cancel)).unwrap();
    for info in left.iter().filter(|info| info.labels.contains_key("sandscript.base")) {
        rig.wait(rig.backend.delete(&info.name, &cancel)).unwrap();
    }
}

/// A base that somebody has set a tool up in, by these files.
fn base<'a>(rig: &'a Rig, spec: Spec, files: &[(&str, &'static str)]) -> (Sandbox<'a>, Origin) {
    let base = Sandbox { rig, name: rig.name() };
    let labels = [("sandscript.kind".to_owned(), "base".to_owned())].into();
    let spec = Spec { name: base.name.clone(), labels, ..spec };
    rig.wait(rig.backend.create(&spec, &Cancel::new())).unwrap();
    for (path, text) in files {
        write_to(rig, &base.name, path, text);
    }
    let label = SnapshotSpec::new("done");
    rig.wait(rig.backend.snapshot(&base.name, &label, &Cancel::new())).unwrap();
    let origin = Origin::Base { sandbox: base.name.clone(), label: "done".into() };
    (base, origin)
}

/// A clone of a base with this policy.
fn clone_of<'a>(base: &Sandbox<'a>, policy: Policy) -> Sandbox<'a> {
    let clone = Sandbox { rig: base.rig, name: base.rig.name() };
    let spec = CloneSpec { egress: Some(policy), ..CloneSpec::of("done", &clone.name) };
    let backend: &dyn Backend = base.rig.backend.as_ref();
    base.rig.wait(backend.clone(&base.name, &spec, &Cancel::new())).unwrap();
    clone
}

/// Who was refused something, by name and port.
fn refused(sandbox: &Sandbox<'_>) -> Vec<String> {
    sandbox.log().denied.iter().filter_map(|one| one.rule()).map(|rule| rule.to_string()).collect()
}

fn npm(rig: &Rig) {
    if !Path::new("/usr/bin/npm").exists() {
        assert!(std::env::var_os("CI").is_none(), "npm is not installed");
        println!("skip: npm is not installed");
        return;
    }
    let (base, origin) =
        base(rig, Spec::new("x"), &[("/root/.npmrc", "registry=http://mirror.test/npm/\n")]);
    let found = resolve(rig, &Asked::word("registries").unwrap(), &origin);
    let install = "cd /tmp && npm install --no-audit --no-fund --fetch-retries=0 hello 2>&1; \
                   node -e \"require('hello')\" 2>&1";
    let open = clone_of(&base, found.policy.clone());
    let said = open.sh(install);
    assert!(said.ends_with("I am hello"), "{said} {:?}", found.policy);
    let closed = clone_of(&base, Policy::allowlist(["allowed.test"]).unwrap());
    let said = closed.sh(install);
    assert!(!said.contains("I am hello"), "{said}");
    assert!(refused(&closed).contains(&"mirror.test".to_owned()), "{said}");
}

/// Of this machine's own settings nothing counts. Where a sandbox has one user id, apt can't be another.
const APT: &str = r#"
#clear Acquire::http;
Acquire::Retries "0";
Acquire::Languages "none";
Dir::Etc::SourceParts "/nowhere";
APT::Sandbox::User "root";
"#;

fn apt(rig: &Rig) {
    if !Path::new("/usr/bin/apt-get").exists() {
        println!("skip: apt is not installed");
        return;
    }
    let files = [
        ("/etc/apt/sources.list", "deb [trusted=yes] http://mirror.test/apt ./\n"),
        ("/etc/apt/apt.conf.d/zz-test", APT),
    ];
    let (base, origin) = base(rig, Spec::new("x"), &files);
    let found = resolve(rig, &Asked::word("registries").unwrap(), &origin);
    let texts: Vec<String> = found.policy.rules().map(ToString::to_string).collect();
    assert!(texts.contains(&"mirror.test:80".to_owned()), "{texts:?} {:?}", found.notes);
    let install = "export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/sbin:$PATH; \
                   (apt-get update && apt-get install -y sandscript-hello) 2>&1; /opt/hello/hello";
    let open = clone_of(&base, found.policy.clone());
    let said = open.sh(install);
    assert!(said.ends_with("I am hello"), "{said} {texts:?}");
    assert_eq!(refused(&open), [""; 0]);
    let closed = clone_of(&base, Policy::allowlist(["allowed.test"]).unwrap());
    let said = closed.sh(install);
    assert!(!said.contains("I am hello"), "{said}");
    assert_eq!(refused(&closed), ["mirror.test"], "{said}");
    // What it says is what helps.
    closed.allow("mirror.test");
    let said = closed.sh(install);
    assert!(said.ends_with("I am hello"), "{said}");
}

const CARGO: &str = r#"
[source.crates-io]
replace-with = "mirror"
[source.mirror]
registry = "sparse+http://mirror.test/index/"
[net]
retry = 0
"#;

/// The index names another host for the packages themselves: nothing but the index says it.
fn cargo(rig: &Rig) {
    let toolchain = std::env::var("SANDSCRIPT_TEST_TOOLCHAIN").unwrap_or_default();
    let source = Path::new(&toolchain);
    if !source.join("bin/cargo").exists() {
        println!("skip: there is no Rust toolchain that can be read");
        return;
    }
    let mount = Mount { source: source.to_owned(), target: "/opt/rust".into(), readonly: true };
    let env = [("PATH".to_owned(), "/opt/rust/bin:/usr/bin:/bin".to_owned())].into();
    let spec = Spec { mounts: vec![mount], env, ..Spec::new("x") };
    let (base, origin) = base(rig, spec, &[("/root/.cargo/config.toml", CARGO)]);
    let found = resolve(rig, &Asked::word("registries").unwrap(), &origin);
    let texts: Vec<String> = found.policy.rules().map(ToString::to_string).collect();
    for wanted in ["mirror.test:80", "crates.test:80"] {
        assert!(texts.contains(&wanted.to_owned()), "{texts:?} {:?}", found.notes);
    }
    assert!(!found.notes.iter().any(|note| note.contains("cargo")), "{:?}", found.notes);
    let build = "mkdir -p /tmp/p/src && cd /tmp/p && \
        printf '[package]\\nname = \"p\"\\nversion = \"0.0.0\"\\nedition = \"2021\"\\n[dependencies]\\nhello = \"1\"\\n' > Cargo.toml && \
        echo 'pub fn p() { assert_eq!(hello::HELLO, \"\"); }' > src/lib.rs && cargo check 2>&1 && echo built";
    let open = clone_of(&base, found.policy.clone());
    let said = open.sh(build);
    assert!(said.ends_with("built"), "{said} {texts:?} {:?}", refused(&open));
    let half = clone_of(&base, Policy::allowlist(["mirror.test"]).unwrap());
    let said = half.sh(build);
    assert!(!said.ends_with("built"), "{said}");
    assert_eq!(refused(&half), ["crates.test"]);
}
