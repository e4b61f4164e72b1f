//! A command arrives as it was given, and its end is reported as it was.

use std::time::{Duration, Instant};

use sandscript::sandbox::{Command, Error, Exit, Kind, WriteOptions};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::eventually;

cases!["exec";
    argv_exact,
    argv_long,
    argv_is_not_a_shell,
    exit_codes,
    signals_are_signals,
    missing_command,
    missing_interpreter [Programs],
    not_executable,
    bad_commands_are_refused,
    timeout,
    timeout_kills_the_tree [Programs],
    cancel_kills,
    cancel_kills_the_tree [Programs],
    cancelled_before,
    needs_a_running_sandbox,
];

async fn argv_exact(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let argv = [
        "printf",
        "%s\\0",
        "",
        " ",
        "a b",
        "  x  ",
        "*",
        "/*",
        "?",
        "[a-z]",
        "{a,b}",
        "~",
        "$HOME",
        "${HOME}",
        "$(id)",
        "`id`",
        "'",
        "\"",
        "\\",
        "\\n",
        "a\nb",
        "\n",
        "\t",
        "\r\n",
        ";",
        "&&",
        "|",
        ">",
        "<",
        "#",
        "!",
        "-n",
        "--",
        "--help",
        "%s",
        "=",
        "A=B",
        "ä€😀",
        "\u{202e}x",
        "\u{7f}\u{1b}[0m",
        "",
    ];
    let output = sandbox.exec(&Command::argv(argv)).await?;
    let mut expected = argv[2..].join("\0").into_bytes();
    expected.push(0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected));
    assert_eq!(output.exit, Exit::Code(0));
    Ok(())
}

async fn argv_long(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let long = "x".repeat(100_000);
    let output = sandbox.exec(&Command::argv(["printf", "%s", &long])).await?;
    assert!(output.stdout == long.as_bytes(), "{} bytes came back", output.stdout.len());
    let many: Vec<String> = (0..2000).map(|n| format!("argument {n}")).collect();
    let argv = ["printf", "%s\\n"].map(String::from).into_iter().chain(many.clone());
    let output = sandbox.exec(&Command::argv(argv)).await?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), many);
    Ok(())
}

async fn argv_is_not_a_shell(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let output = sandbox.exec(&Command::argv(["echo", "$HOME; exit 3"])).await?;
    assert_eq!(output.stdout, b"$HOME; exit 3\n");
    assert_eq!(sandbox.sh("echo $HOME; exit 3").await?.exit, Exit::Code(3));
    // A line with a space in it is one program's name, not two words.
    let odd = sandbox.exec(&Command::argv(["echo hello"])).await;
    fails!(odd, Error::NotFound { kind: Kind::Command, .. });
    Ok(())
}

async fn exit_codes(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for code in 0..=255 {
        let output = sandbox.sh(&format!("exit {code}")).await?;
        assert_eq!(output.exit, Exit::Code(code));
        assert_eq!(output.exit.ok(), code == 0);
    }
    assert_eq!(sandbox.exec(&Command::argv(["false"])).await?.exit, Exit::Code(1));
    Ok(())
}

async fn signals_are_signals(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for (name, number) in
        [("HUP", 1), ("INT", 2), ("ABRT", 6), ("KILL", 9), ("USR1", 10), ("SEGV", 11), ("TERM", 15)]
    {
        let output = sandbox.sh(&format!("kill -{name} $$; sleep 5")).await?;
        assert_eq!(output.exit, Exit::Signal(number), "{name}");
        assert_eq!(
            sandbox.sh(&format!("exit {}", 128 + number)).await?.exit,
            Exit::Code(128 + number)
        );
    }
    Ok(())
}

async fn missing_command(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for program in ["no-such-program", "/no/such/program", "/etc/no-such-program", "./nope"] {
        let done = sandbox.exec(&Command::argv([program, "x"])).await;
        fails!(&done, Error::NotFound { kind: Kind::Command, .. });
        let Err(Error::NotFound { name, .. }) = done else { unreachable!() };
        assert_eq!(name, program);
    }
    assert_eq!(sandbox.sh("no-such-program").await?.exit, Exit::Code(127));
    Ok(())
}

async fn missing_interpreter(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.write_with("/root/script", "#!/no/such/interpreter\n", &options).await?;
    let done = sandbox.exec(&Command::argv(["/root/script"])).await;
    fails!(done, Error::NotFound { kind: Kind::Command, .. });
    sandbox.write_with("/root/script", "#!/bin/sh\necho \"$0 $1\"\n", &options).await?;
    let output = sandbox.exec(&Command::argv(["/root/script", "a"])).await?;
    assert_eq!(output.stdout, b"/root/script a\n");
    Ok(())
}

async fn not_executable(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/plain", "#!/bin/sh\nexit 0\n").await?;
    fails!(sandbox.exec(&Command::argv(["/root/plain"])).await, Error::Permission { .. });
    fails!(sandbox.exec(&Command::argv(["/root"])).await, Error::Permission { .. });
    assert_eq!(sandbox.sh("/root/plain").await?.exit, Exit::Code(126));
    Ok(())
}

async fn bad_commands_are_refused(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut bad = vec![
        Command::argv(Vec::<String>::new()),
        Command::argv([""]),
        Command::argv(["echo", "a\0b"]),
        Command::shell("echo a\0b"),
    ];
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
        let mut command = Command::argv(["true"]);
        command.env.insert(name.to_owned(), value.to_owned());
        bad.push(command);
    }
    for cwd in ["relative", "", "/a\0b"] {
        let mut command = Command::argv(["true"]);
        command.cwd = Some(cwd.to_owned());
        bad.push(command);
    }
    for command in bad {
        fails!(sandbox.exec(&command).await, Error::InvalidInput { .. });
        fails!(sandbox.spawn(&command).await, Error::InvalidInput { .. });
    }
    Ok(())
}

async fn timeout(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let mut command = Command::shell("echo $$ > /root/pid; sleep 1000");
    command.timeout = Some(scope.begun());
    let started = Instant::now();
    fails!(sandbox.exec(&command).await, Error::Timeout { .. });
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    let pid = sandbox.run("cat /root/pid").await?;
    eventually("the command is killed", async || Ok(!sandbox.alive(&pid).await?)).await?;
    command = Command::shell("echo done");
    command.timeout = Some(Duration::from_secs(60));
    assert_eq!(sandbox.exec(&command).await?.stdout, b"done\n");
    Ok(())
}

/// Children, a new session, a double fork, and one that ignores what can be ignored.
const TREE: &str = "
    sleep 98761 &
    setsid sleep 98762 &
    (setsid sh -c 'setsid sleep 98763 & exit 0' &)
    (sh -c 'trap \"\" TERM HUP INT; sleep 98764' &)
    (nohup sh -c 'sleep 98765' >/dev/null 2>&1 &)
    sleep 98766";

async fn timeout_kills_the_tree(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("sleep 12345 > /dev/null 2>&1 &").await?;
    let mut command = Command::shell(TREE);
    command.timeout = Some(Duration::from_millis(1500));
    fails!(sandbox.exec(&command).await, Error::Timeout { .. });
    eventually("all of the tree is killed", async || Ok(sandbox.count("sleep 9876").await? == 0))
        .await?;
    assert_eq!(sandbox.count("sleep 12345").await?, 1, "another command's process was killed");
    Ok(())
}

async fn cancel_kills(scope: Scope) -> CaseResult {
    let mut sandbox = scope.sandbox().await?;
    sandbox.cancel = sandscript::sandbox::Cancel::new();
    let cancel = sandbox.cancel.clone();
    let command = Command::shell("echo $$ > /root/pid; sleep 1000");
    let started = Instant::now();
    let later = async {
        tokio::time::sleep(scope.begun()).await;
        cancel.cancel();
    };
    let (done, ()) = tokio::join!(sandbox.exec(&command), later);
    fails!(done, Error::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    let sandbox = scope.at(&sandbox.name);
    let pid = sandbox.run("cat /root/pid").await?;
    eventually("the command is killed", async || Ok(!sandbox.alive(&pid).await?)).await
}

async fn cancel_kills_the_tree(scope: Scope) -> CaseResult {
    let mut cancelled = scope.sandbox().await?;
    let sandbox = scope.at(&cancelled.name);
    cancelled.cancel = sandscript::sandbox::Cancel::new();
    let later = async {
        eventually("the tree stands", async || Ok(sandbox.count("sleep 9876").await? >= 6)).await?;
        cancelled.cancel.cancel();
        CaseResult::Ok(())
    };
    let command = Command::shell(TREE);
    let (done, stood) = tokio::join!(cancelled.exec(&command), later);
    stood?;
    fails!(done, Error::Cancelled);
    eventually("all of the tree is killed", async || Ok(sandbox.count("sleep 9876").await? == 0))
        .await
}

async fn cancelled_before(scope: Scope) -> CaseResult {
    let mut sandbox = scope.sandbox().await?;
    sandbox.cancel = sandscript::sandbox::Cancel::new();
    sandbox.cancel.cancel();
    fails!(sandbox.sh("echo x > /root/ran").await, Error::Cancelled);
    let sandbox = scope.at(&sandbox.name);
    fails!(sandbox.stat("/root/ran").await, Error::NotFound { .. });
    Ok(())
}

async fn needs_a_running_sandbox(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.stop().await?;
    fails!(sandbox.sh("true").await, Error::NotRunning { .. });
    fails!(
        scope.at("no-such-sandbox").sh("true").await,
        Error::NotFound { kind: Kind::Sandbox, .. }
    );
    fails!(scope.at("Not A Name").sh("true").await, Error::InvalidInput { .. });
    Ok(())
}
