//! Every way to be wrong on the command line, and what is said about it.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

#[test]
fn no_verb_shows_the_help() {
    let run = TestEnvironment::fake().run::<&str>([]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("Usage: sandscript [OPTIONS] <COMMAND>"), "{run}");
    assert!(run.stdout.is_empty());
}

#[test]
fn unknown_verb() {
    assert_snapshot!(TestEnvironment::fake().run(["creat"]), @"
    exit code 2
    -- stderr
    error: unrecognized subcommand 'creat'

      tip: some similar subcommands exist: 'remote', 'create'

    Usage: sandscript [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn unknown_option() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "a", "--memmory", "1G"]), @"
    exit code 2
    -- stderr
    error: unexpected argument '--memmory' found

      tip: a similar argument exists: '--memory'

    Usage: sandscript create --memory <SIZE> <NAME>

    For more information, try '--help'.
    ");
}

#[test]
fn bad_name() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "Web_1"]), @"
    exit code 2
    -- stderr
    error: name: 'Web_1' is not a sandbox name
    hint: use 1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending in '-'
    ");
}

#[test]
fn bad_size() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "a", "--memory", "lots"]), @r#"
    exit code 2
    -- stderr
    error: invalid value 'lots' for '--memory <SIZE>': 'lots' is not a size; write it as "512MiB", "2GB" or a number of bytes

    For more information, try '--help'.
    "#);
}

#[test]
fn bad_limit() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "a", "--memory", "1k"]), @r#"
    exit code 2
    -- stderr
    error: memory: 1024 bytes are too few
    hint: use "4MiB" or more
    "#);
}

#[test]
fn bad_mount() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "a", "--mount", "/tmp"]), @"
    exit code 2
    -- stderr
    error: invalid value '/tmp' for '--mount <SRC:DST[:ro]>': write it as SRC:DST or SRC:DST:ro; DST starts with '/'

    For more information, try '--help'.
    ");
}

#[test]
fn bad_policy() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "a", "--egress", "some"]), @r#"
    exit code 2
    -- stderr
    error: egress: there is no policy or preset 'some'
    hint: there are: agent, agents, ai, git, none, registries, unrestricted
    "#);
}

#[test]
fn unknown_backend() {
    let run = TestEnvironment::fake().run(["--backend", "locl", "list"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.starts_with("error: backend 'locl' not found\nhint: "), "{run}");
}

#[test]
fn missing_sandbox() {
    assert_snapshot!(TestEnvironment::fake().run(["show", "nope"]), @"
    exit code 1
    -- stderr
    error: sandbox 'nope' not found
    hint: 'sandscript list' shows what is there
    ");
}

#[test]
fn missing_sandbox_for_a_program() {
    assert_snapshot!(TestEnvironment::fake().run(["show", "nope", "--format", "json"]), @r#"
    exit code 1
    -- stdout
    {
      "error": {
        "code": "not_found",
        "exit": 1,
        "hint": "'sandscript list' shows what is there",
        "message": "sandbox 'nope' not found"
      }
    }
    -- stderr
    error: sandbox 'nope' not found
    hint: 'sandscript list' shows what is there
    "#);
}

#[test]
fn exec_has_codes_of_its_own() {
    let environment = TestEnvironment::fake();
    assert_eq!(environment.run(["exec", "nope", "--", "true"]).code, Some(125));
    assert_eq!(environment.run(["--verbose", "exec", "--nope", "a", "--", "true"]).code, Some(125));
    assert_eq!(environment.run(["exec"]).code, Some(125));
    assert_eq!(environment.run(["exec", "--help"]).code, Some(0));
    assert_eq!(environment.run(["show", "--nope", "exec"]).code, Some(2));
    environment.write("sandscript.toml", "backend = 7");
    assert_eq!(environment.run(["exec", "nope", "--", "true"]).code, Some(125));
    assert_snapshot!(environment.run(["list"]), @"
    exit code 2
    -- stderr
    error: $T/project/sandscript.toml:1:11: a string goes here, not integer 7
    ");
}

#[test]
fn delete_without_a_terminal_asks_for_yes() {
    assert_snapshot!(TestEnvironment::fake().run(["delete", "a"]), @"
    exit code 2
    -- stderr
    error: not asked whether to delete a
    hint: this is no terminal; add --yes to delete without a question
    ");
}

#[test]
fn bad_label() {
    assert_snapshot!(TestEnvironment::fake().run(["snapshot", "create", "a", "-x/y"]), @"
    exit code 2
    -- stderr
    error: unexpected argument '-x' found

      tip: to pass '-x' as a value, use '-- -x'

    Usage: sandscript snapshot create [OPTIONS] <NAME> <LABEL>

    For more information, try '--help'.
    ");
    assert_snapshot!(TestEnvironment::fake().run(["snapshot", "create", "a", "x/y"]), @"
    exit code 2
    -- stderr
    error: label: 'x/y' is not a snapshot label
    hint: use 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or a digit
    ");
}

#[test]
fn too_many_cpus() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "a", "--cpu", "1e30"]), @"
    exit code 2
    -- stderr
    error: cpu: 1000000000000000000000000000000 is not a number of CPUs
    hint: use a number from 0.01 to 10000
    ");
}

/// What an archive or a guest put into a message does not reach the terminal as a command to it.
#[test]
fn messages_do_not_move_the_cursor() {
    let environment = TestEnvironment::fake();
    environment.write("hostile.rhai", "throw \"a\\x1b[2Jb\\x07\"; // \x1b[31m");
    let run = environment.run(["run", "hostile.rhai"]);
    assert!(run.stderr.contains("ab"), "{run}");
    assert!(!run.stderr.contains(['\x1b', '\x07']), "{run:?}");
    let run = environment.run(["exec", "a\x1b[2Jb", "--", "true"]);
    assert!(!run.stderr.contains('\x1b'), "{run:?}");
}

#[test]
fn a_mark_of_the_encoding_is_no_text() {
    let environment = TestEnvironment::fake();
    for (name, text) in [("a.rhai", "\u{feff}print(1);\r\n"), ("a.lua", "\u{feff}print(1)\r\n")] {
        environment.write(name, text);
        assert_eq!(environment.ok(["run", name]), "1\n");
    }
}

#[test]
fn a_full_disk_behind_stdout() {
    let environment = TestEnvironment::fake();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = environment.command(["list", "--format", "json"]).stdout(full).spawn().unwrap();
    let run = environment.finish(child);
    assert_eq!(run.code, Some(70), "{run}");
    assert!(run.stderr.contains("written: No space left on device"), "{run}");
    // What a script prints is data, too; and so is what the program says of itself.
    environment.write("x.rhai", "print(1);");
    for args in [&["run", "x.rhai"][..], &["--help"], &["run", "--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = environment.finish(environment.command(args).stdout(full).spawn().unwrap());
        let message =
            "error: standard output can't be written: No space left on device (os error 28)\n";
        assert_eq!((run.code, run.stderr.as_str()), (Some(70), message), "{run}");
    }
    assert_snapshot!(environment.run(["run", "x.rhai", "--report", "junit=/dev/full"]), @"
    exit code 70
    -- stdout
    1
    -- stderr
    warning: the junit report is not complete: No space left on device (os error 28)
    ");
}

#[test]
fn numbers_below_nothing() {
    let environment = TestEnvironment::fake();
    let said = |flag: &str, value: &str| environment.run(["create", "a", flag, value]);
    assert_snapshot!(said("--memory", "-5"), @r#"
    exit code 2
    -- stderr
    error: invalid value '-5' for '--memory <SIZE>': '-5' is not a size; write it as "512MiB", "2GB" or a number of bytes

    For more information, try '--help'.
    "#);
    assert_snapshot!(said("--pids", "-5"), @"
    exit code 2
    -- stderr
    error: invalid value '-5' for '--pids <COUNT>': use a whole number, 1 or more

    For more information, try '--help'.
    ");
    assert_snapshot!(said("--cpu", "-1"), @"
    exit code 2
    -- stderr
    error: cpu: -1 is not a number of CPUs
    hint: use a number from 0.01 to 10000
    ");
}

#[test]
fn an_end_that_is_none() {
    let environment = TestEnvironment::fake();
    let said = |value: &str| environment.run(["snapshot", "create", "a", "b", "--expires", value]);
    assert_snapshot!(said("0s"), @"
    exit code 2
    -- stderr
    error: expires: what is kept for no time is not kept
    hint: give a time such as 2h or 7d, or leave it out
    ");
    assert_snapshot!(said("9999999999d"), @"
    exit code 2
    -- stderr
    error: expires: nothing is kept for a thousand years
    hint: give a time such as 2h or 7d, or leave it out
    ");
}

#[test]
fn too_few_files_may_be_open() {
    let Some(environment) = TestEnvironment::local() else { return };
    let mut command = environment.command(["create", "a"]);
    let program = command.get_program().to_owned();
    let limited = |most: &str| {
        let script = r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -lt 3 ] || eval "exec $fd<&-"; done
            ulimit -n "$1"; exec "$0" create a"#;
        let mut shell = environment.command(["-c", script]);
        shell.arg(&program).arg(most);
        let args: Vec<_> = shell.get_args().map(ToOwned::to_owned).collect();
        let env: Vec<_> = shell
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let mut shell = std::process::Command::new("bash");
        shell.args(args).env_clear().envs(env);
        let output = shell.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut made = false;
    for most in 9..40 {
        let (code, said) = limited(&most.to_string());
        made = code == Some(0);
        if made {
            break;
        }
        assert_eq!(code, Some(70), "{said}");
        assert!(said.to_lowercase().contains("too many open files"), "{most}: {said}");
        assert!(said.ends_with("hint: raise the limit: ulimit -n 1024\n"), "{most}: {said}");
    }
    if made {
        environment.ok(["delete", "a", "--yes"]);
    }
    assert!(command.output().unwrap().status.success());
}

#[test]
fn a_file_below_a_folder_that_is_missing() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", "sandbox().write(\"/nope/x/y\", \"1\");");
    let run = environment.run(["run", "x.rhai"]);
    assert!(run.stderr.ends_with("hint: there is no folder '/nope'\n"), "{run}");
    environment.write("x.rhai", "sandbox().read(\"/etc/nope\");");
    let run = environment.run(["run", "x.rhai"]);
    assert!(!run.stderr.contains("folder '"), "{run}");
}

#[test]
fn the_doctor_tries() {
    let Some(environment) = TestEnvironment::local() else { return };
    let answer = environment.ok(["doctor", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["works"], &answer["failed"]), (&true.into(), &serde_json::json!({})));
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
    let fake = TestEnvironment::fake();
    assert!(fake.ok(["doctor", "--format", "json"]).contains("\"works\": true"));
}

#[test]
fn a_store_that_can_be_none() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("file", "");
    let file = environment.path("project").join("file");
    for store in [file.clone(), file.join("below"), "/proc/none".into()] {
        let run = environment.run([
            "create".as_ref(),
            "web".as_ref(),
            "--store".as_ref(),
            store.as_os_str(),
        ]);
        assert_eq!(run.code, Some(2), "{run}");
        assert!(run.stderr.starts_with("error: store: "), "{run}");
        assert!(run.stderr.contains("can't be used: "), "{run}");
        assert!(run.stderr.ends_with("hint: name another folder with --store\n"), "{run}");
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"/tmp/\xff");
    let run = environment.run(["create".as_ref(), "web".as_ref(), "--store".as_ref(), odd]);
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.stderr.contains("its name is not UTF-8"), "{run}");
}

#[test]
fn a_user_id_that_the_guest_has_not() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "web"]);
    let run = environment.run(["exec", "web", "--user", "4000000", "--", "id"]);
    assert_eq!(run.code, Some(125), "{run}");
    let alone = environment.ok(["exec", "web", "--", "cat", "/proc/self/uid_map"]);
    let alone = alone.split_whitespace().last() == Some("1");
    let told = if alone { "this sandbox has root only" } else { "go from 0 to 6553" };
    assert!(run.stderr.contains(told), "{run}");
}

/// Process 1 itself says why it can't go on.
#[test]
fn a_mount_that_does_not_fit() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("folder/file", "");
    let create = |target: &str| environment.run(["create", "web", "--mount", target]);
    assert_snapshot!(create("folder:/etc/passwd"), @"
    exit code 2
    -- stderr
    error: mounts: target '/etc/passwd': Not a directory (os error 20)
    hint: a folder goes over a folder, and a file over a file
    ");
    if std::fs::symlink_metadata("/bin").unwrap().is_symlink() {
        let run = create("folder:/bin");
        assert_eq!(run.code, Some(2), "{run}");
        assert!(run.stderr.contains("target '/bin': "), "{run}");
        assert!(run.stderr.contains("a part of it is a link"), "{run}");
    }
    assert_snapshot!(create("folder:/proc"), @"
    exit code 2
    -- stderr
    error: mounts: target '/proc' belongs to the kernel
    hint: mount it elsewhere, below /mnt or /srv for example
    ");
}
