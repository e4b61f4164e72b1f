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

      tip: a similar subcommand exists: 'create'

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
    error: egress: 'some' is not a policy
    hint: use "none" or "unrestricted"
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
    let run = TestEnvironment::fake().run(["exec", "nope", "--", "true"]);
    assert_eq!(run.code, Some(125), "{run}");
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
