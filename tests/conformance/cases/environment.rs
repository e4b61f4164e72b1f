//! A clean environment, the working directory, the login shell.

use std::collections::BTreeMap;

use sandscript::sandbox::{Command, Error};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::Sandbox;

cases!["environment";
    is_exactly_what_is_documented,
    nothing_of_the_host_gets_in [Programs],
    command_wins_over_spec,
    values_arrive_exactly,
    path_decides_what_runs,
    cwd_is_the_home,
    cwd_of_spec_and_command,
    cwd_that_is_no_directory,
    login_sources_the_profile,
    process_starts_clean [Programs],
];

async fn env(sandbox: &Sandbox, command: &Command) -> CaseResult<BTreeMap<String, String>> {
    let output = sandbox.exec(command).await?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

async fn is_exactly_what_is_documented(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut found = env(&sandbox, &Command::argv(["env"])).await?;
    let path = found.remove("PATH").unwrap_or_default();
    for dir in ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        assert!(path.split(':').any(|part| part == dir), "PATH={path}");
    }
    let expected = [
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/sh"),
        ("USER", "root"),
        ("container", "sandscript"),
    ];
    let shell = found.insert("SHELL".to_owned(), "/bin/sh".to_owned()).unwrap_or_default();
    assert!(shell.starts_with('/'), "SHELL={shell}");
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    assert_eq!(found, expected);
    Ok(())
}

async fn nothing_of_the_host_gets_in(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    // Cargo sets this for every test; it is in our own environment.
    let ours = std::env::vars().find(|(name, _)| name.starts_with("CARGO"));
    let all = sandbox
        .run("for f in /proc/[0-9]*/environ; do tr '\\0' '\\n' < $f 2>/dev/null; done; true")
        .await?;
    if let Some((name, _)) = ours {
        assert!(!all.contains(&name), "{name} of the host is in a process inside");
    }
    Ok(())
}

async fn command_wins_over_spec(scope: Scope) -> CaseResult {
    let sandbox = scope
        .sandbox_of(|spec| {
            for (name, value) in [("FROM_SPEC", "spec"), ("BOTH", "spec"), ("LANG", "de_DE")] {
                spec.env.insert(name.to_owned(), value.to_owned());
            }
        })
        .await?;
    let mut command = Command::argv(["env"]);
    command.env.insert("BOTH".to_owned(), "command".to_owned());
    command.env.insert("HOME".to_owned(), "/tmp".to_owned());
    let found = env(&sandbox, &command).await?;
    assert_eq!(found["FROM_SPEC"], "spec");
    assert_eq!(found["BOTH"], "command");
    assert_eq!(found["LANG"], "de_DE");
    assert_eq!(found["HOME"], "/tmp");
    let found = env(&sandbox, &Command::argv(["env"])).await?;
    assert_eq!(found["BOTH"], "spec", "a command's environment stayed behind");
    assert_eq!(sandbox.info().await?.env.len(), 3);
    Ok(())
}

async fn values_arrive_exactly(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let long = "x".repeat(50_000);
    for value in ["", " ", "a b", "a=b=c", "$HOME", "a\nb", "ä😀", "'\"\\", "*", &long] {
        let mut command = Command::shell("printf '%s|' \"$VALUE\"");
        command.env.insert("VALUE".to_owned(), value.to_owned());
        let output = sandbox.exec(&command).await?;
        assert_eq!(String::from_utf8(output.stdout)?, format!("{value}|"));
    }
    Ok(())
}

async fn path_decides_what_runs(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/bin").await?;
    sandbox.write("/root/bin/mine", "#!/bin/sh\necho mine\n").await?;
    sandbox.run("chmod 755 /root/bin/mine").await?;
    let mut command = Command::argv(["mine"]);
    fails!(sandbox.exec(&command).await, Error::NotFound { .. });
    command.env.insert("PATH".to_owned(), "/root/bin:/usr/bin:/bin".to_owned());
    assert_eq!(sandbox.exec(&command).await?.stdout, b"mine\n");
    Ok(())
}

async fn cwd_is_the_home(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert_eq!(sandbox.exec(&Command::argv(["pwd"])).await?.stdout, b"/root\n");
    assert_eq!(sandbox.run("pwd").await?, "/root");
    Ok(())
}

async fn cwd_of_spec_and_command(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.cwd = Some("/tmp".to_owned())).await?;
    assert_eq!(sandbox.run("pwd").await?, "/tmp");
    for dir in ["/root/a b/'c'", "/root/ä", "/"] {
        sandbox.mkdir(dir).await?;
        let mut command = Command::shell("pwd; echo here > found");
        command.cwd = Some(dir.to_owned());
        assert_eq!(String::from_utf8(sandbox.exec(&command).await?.stdout)?, format!("{dir}\n"));
        assert_eq!(sandbox.read_text(&format!("{dir}/found")).await?, "here\n");
    }
    assert_eq!(sandbox.run("pwd").await?, "/tmp");
    Ok(())
}

async fn cwd_that_is_no_directory(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::argv(["pwd"]);
    command.cwd = Some("/no/such/folder".to_owned());
    fails!(sandbox.exec(&command).await, Error::NotFound { .. });
    command.cwd = Some("/etc/hostname".to_owned());
    fails!(sandbox.exec(&command).await, Error::NotFound { .. } | Error::InvalidInput { .. });
    Ok(())
}

async fn login_sources_the_profile(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/.profile", "export FROM_PROFILE=yes\n").await?;
    for (login, expected) in [(true, "yes|a b|"), (false, "|a b|")] {
        let mut command =
            Command::argv(["sh", "-c", "printf '%s|' \"$FROM_PROFILE\" \"$1\"", "sh", "a b"]);
        command.login = login;
        let output = sandbox.exec(&command).await?;
        assert_eq!(String::from_utf8(output.stdout)?, expected);
        let mut command = Command::shell("printf '%s|a b|' \"$FROM_PROFILE\"; exit 5");
        command.login = login;
        let output = sandbox.exec(&command).await?;
        assert_eq!(String::from_utf8(output.stdout)?, expected);
        assert_eq!(output.exit, sandscript::sandbox::Exit::Code(5));
    }
    Ok(())
}

async fn process_starts_clean(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let fds = sandbox.exec(&Command::argv(["ls", "/proc/self/fd"])).await?;
    // The fourth is the directory that `ls` itself reads.
    assert_eq!(fds.stdout, b"0\n1\n2\n3\n", "a descriptor leaked in");
    let status = sandbox.exec(&Command::argv(["cat", "/proc/self/status"])).await?;
    let status = String::from_utf8(status.stdout)?;
    for field in ["SigBlk", "SigIgn"] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        let set = u64::from_str_radix(line.trim_start_matches(':').trim(), 16)?;
        // glibc's posix_spawn ignores 32 and 33, which are its own; no program can use them.
        assert_eq!(set & !(0b11 << 31), 0, "{field}{line}");
    }
    assert_eq!(sandbox.run("umask").await?, "0022");
    Ok(())
}
