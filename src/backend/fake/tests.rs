//! What only the fake has: faults, the log, the clock, and its own shell.

use std::time::{Duration, SystemTime};

use super::{Effect, FakeBackend, Fault, Verb};
use crate::sandbox::{
    Backend, Cancel, Capability, CloneSpec, Command, Error, Exit, Limits, Network, Output, Owner,
    Spec, exec,
};

async fn boxed() -> FakeBackend {
    let fake = FakeBackend::new();
    fake.create(&Spec::new("box"), &Cancel::new()).await.unwrap();
    fake
}

async fn sh(fake: &FakeBackend, script: &str) -> Output {
    exec(fake, "box", &Command::shell(script), &Cancel::new()).await.unwrap()
}

#[tokio::test]
async fn shell() {
    let fake = boxed().await;
    for (script, out, code) in [
        ("echo a; echo b >&2; false || echo c && echo d", "a\nc\nd\n", 0),
        ("X='1  2'; printf '[%s]' $X \"$X\" ''", "[1][2][1  2][]", 0),
        ("cd /tmp && echo 1 > f && echo 2 >> f && cat f && pwd", "1\n2\n/tmp\n", 0),
        ("false; echo $?; exit 7; echo never", "1\n", 7),
        ("mkdir -p /a/b && touch /a/b/c && ls /a/b && rm -rf /a && test ! -e /a", "c\n", 0),
        ("sh -c 'exit 3'; echo $?", "3\n", 0),
        ("export A=1; B=2 sh -c 'echo $A$B$C'", "12\n", 0),
        ("sh -c 'printf \"%s|\" \"$@\"' sh 'a b' c", "a b|c|", 0),
        ("nope", "", 127),
        ("/etc/passwd", "", 126),
        ("cat < /etc/hostname", "box\n", 0),
        ("echo x 2>/dev/null >/dev/null", "", 0),
        ("printf '\\001\\n%d' 5", "\u{1}\n5", 0),
    ] {
        let output = sh(&fake, script).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), out, "{script}");
        assert_eq!(output.exit, Exit::Code(code), "{script}: {output:?}");
    }
    let refused = sh(&fake, "ls | wc -l").await;
    assert_eq!(refused.exit, Exit::Code(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not know '|'"));
}

#[tokio::test]
async fn a_user_is_held_to_permissions() {
    let fake = boxed().await;
    let mut command = Command::shell("echo x > /root/f; echo x > /home/user/f && cat /home/user/f");
    command.user = Some("user".to_owned());
    let output = exec(&fake, "box", &command, &Cancel::new()).await.unwrap();
    assert_eq!(output.stdout, b"x\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/root/f: Permission denied"));
}

#[tokio::test]
async fn faults_hit_what_they_are_aimed_at() {
    let fake = boxed().await;
    let cancel = Cancel::new();
    let broken = Error::Transport { message: "the line went dead".to_owned() };
    fake.inject(Fault::new(Verb::Spawn, Effect::Error(broken)).with("second").nth(2));
    let run = async |word: &str| {
        exec(&fake, "box", &Command::argv(["echo", word]), &cancel).await.map(|output| output.exit)
    };
    assert!(run("first").await.is_ok());
    assert!(run("second").await.is_ok());
    assert!(matches!(run("second").await, Err(Error::Transport { .. })));
    assert!(run("second").await.is_ok());
    assert_eq!(fake.count(Verb::Spawn), 4);
    assert_eq!(fake.calls()[1].to_string(), "spawn box echo first");
}

#[tokio::test(start_paused = true)]
async fn a_hang_ends_with_its_cancel_token_and_leaves_nothing() {
    let fake = boxed().await;
    fake.inject(Fault::new(Verb::Create, Effect::Hang));
    fake.inject(Fault::new(Verb::Clone, Effect::Delay(Duration::from_secs(5))));
    let cancel = Cancel::new();
    let spec = Spec::new("twin");
    let made = fake.create(&spec, &cancel);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let state = fake.get("twin", &Cancel::new()).await.unwrap().state;
        assert_eq!(state.word(), "transitional");
        let busy = fake.delete("twin", &Cancel::new()).await;
        assert!(matches!(busy, Err(Error::Busy { .. })));
        cancel.cancel();
    };
    let (made, ()) = tokio::join!(made, stop);
    assert!(matches!(made, Err(Error::Cancelled)));
    let (copy, cancel) = (CloneSpec::new("copy"), Cancel::new());
    let made = fake.clone("box", &copy, &cancel);
    assert!(tokio::time::timeout(Duration::from_secs(1), made).await.is_err());
    let names: Vec<_> = fake.list(&Cancel::new()).await.unwrap();
    assert_eq!(names.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["box"]);
}

#[tokio::test]
async fn two_runs_of_the_same_calls_are_equal() {
    let run = async || {
        let fake = FakeBackend::builder().counter_clock().build();
        let cancel = Cancel::new();
        fake.create(&Spec::new("box"), &cancel).await.unwrap();
        sh(&fake, "echo x > /tmp/f; sleep 0").await;
        let clone = fake.clone("box", &CloneSpec::new("twin"), &cancel).await.unwrap();
        (clone, sh(&fake, "cat /etc/machine-id").await.stdout)
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test]
async fn limits_and_capabilities() {
    let cancel = Cancel::new();
    let fake = FakeBackend::builder().without(Capability::LimitMemory, "add memory").build();
    let mut spec = Spec::new("box");
    spec.limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    let refused = fake.create(&spec, &cancel).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }));
    assert_eq!(refused.hint().as_deref(), Some("add memory"));
    spec.limits = Limits { disk: Some(10), ..Limits::default() };
    fake.create(&spec, &cancel).await.unwrap();
    let output = sh(&fake, "echo 123 > /tmp/a && echo 12345678 > /tmp/b").await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
}

#[tokio::test]
async fn gc_takes_what_an_ended_run_owns() {
    let fake = FakeBackend::new();
    let cancel = Cancel::new();
    for run in ["dead", "alive"] {
        let mut spec = Spec::new(run);
        spec.owner = Some(Owner::new(run, "here"));
        fake.create(&spec, &cancel).await.unwrap();
    }
    fake.end_run("dead");
    assert_eq!(fake.gc(true, &cancel).await.unwrap().sandboxes, ["dead"]);
    // Nobody can ask this one whether it lives.
    let mut spec = Spec::new("lost");
    spec.owner = Some(Owner { until: Some(SystemTime::UNIX_EPOCH), ..Owner::new("c", "there") });
    fake.create(&spec, &cancel).await.unwrap();
    assert_eq!(fake.gc(true, &cancel).await.unwrap().sandboxes, ["dead", "lost"]);
    fake.delete("lost", &cancel).await.unwrap();
    assert_eq!(fake.gc(false, &cancel).await.unwrap().sandboxes, ["dead"]);
    let left = fake.list(&cancel).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].name, "alive");
}

#[tokio::test]
async fn without_ports_and_networks() {
    let hint = "there is no network here";
    let fake = FakeBackend::builder()
        .without(Capability::Networks, hint)
        .without(Capability::Publish, hint)
        .build();
    let cancel = Cancel::new();
    fake.create(&Spec::new("box"), &cancel).await.unwrap();
    let networks = vec![Network::new("r", "n")];
    let spec = Spec { networks: networks.clone(), ..Spec::new("other") };
    let clone = CloneSpec { networks, ..CloneSpec::new("other") };
    let refused = [
        fake.publish("box", 80, None, &cancel).await.map(drop),
        fake.create(&spec, &cancel).await.map(drop),
        Backend::clone(&fake, "box", &clone, &cancel).await.map(drop),
    ];
    let said = refused.map(|refused| {
        let error = refused.unwrap_err();
        format!("{error}; {}", error.hint().unwrap())
    });
    insta::assert_snapshot!(said.join("\n"), @r"
    publish is not supported by backend 'fake' here; there is no network here
    networks is not supported by backend 'fake' here; there is no network here
    networks is not supported by backend 'fake' here; there is no network here
    ");
    assert_eq!(fake.list(&cancel).await.unwrap().len(), 1);
}
