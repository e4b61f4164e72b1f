//! What the verbs answer where a single call is enough.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

#[test]
fn nothing_there() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["list"]), @"
    exit code 0
    -- stderr
    there are no sandboxes
    ");
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
    assert_snapshot!(environment.run(["gc"]), @"
    exit code 0
    -- stderr
    there is nothing to delete
    ");
    assert_snapshot!(environment.run(["delete", "a", "--yes", "--missing-ok"]), @"
    exit code 0
    -- stderr
    a was not there
    ");
}

#[test]
fn quiet_says_only_what_went_wrong() {
    let environment = TestEnvironment::fake();
    assert!(environment.run(["create", "a", "-q"]).stderr.is_empty());
    assert!(environment.run(["-q", "show", "nope"]).stderr.starts_with("error: "));
}

#[test]
fn a_sandbox_as_json() {
    let environment = TestEnvironment::fake();
    let answer = environment.ok([
        "create", "web", "--format", "json", "--memory", "64MiB", "--env", "A=b=c", "--label",
        "k=v",
    ]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["name"], "web");
    assert_eq!(answer["state"], "running");
    assert_eq!(answer["limits"]["memory"], 64 << 20);
    assert_eq!(answer["env"]["A"], "b=c");
    assert_eq!(answer["labels"]["k"], "v");
    assert_eq!(answer["owner"], serde_json::Value::Null);
    let created: jiff::Timestamp = answer["created"].as_str().unwrap().parse().unwrap();
    assert!(created.duration_since(jiff::Timestamp::now()).as_secs() < 60);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let environment = TestEnvironment::fake();
    let mut child = environment.command(["doctor"]).spawn().unwrap();
    drop(child.stdout.take());
    let run = environment.finish(child);
    // 0 when it had written all before the reader left.
    assert!(matches!(run.code, Some(141 | 0)), "{run}");
    assert!(run.stderr.is_empty(), "{run}");
}
