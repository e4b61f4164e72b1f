//! A clone is a new machine.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sandscript::sandbox::{Cancel, Capability, CloneSpec, Error, Kind, Limits, State};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;

cases!["clone";
    from_a_label,
    from_the_current_state,
    from_the_current_state_while_it_writes [Programs],
    of_a_stopped_one,
    of_a_frozen_one [Freeze],
    source_goes_on,
    lives_without_its_source,
    is_another_machine,
    keeps_settings,
    takes_other_settings,
    hostname,
    leaves_no_snapshot,
    goes_its_own_way,
    of_a_clone,
    bare_is_stopped,
    name_in_use,
    missing_source,
    cancelled_while_it_works,
    many_at_once [Programs],
];

async fn from_a_label(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo 2 > /root/f").await?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    assert_eq!(clone.state().await?, State::Running);
    assert_eq!(clone.info().await?.source, Some(format!("{}/s", sandbox.name)));
    Ok(())
}

async fn from_the_current_state(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo 2 > /root/f").await?;
    let clone = scope.clone_of(&sandbox, None).await?;
    assert_eq!(clone.run("cat /root/f").await?, "2");
    assert_eq!(clone.info().await?.source.as_deref(), Some(sandbox.name.as_str()));
    Ok(())
}

async fn from_the_current_state_while_it_writes(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let script = "i=0; while :; do i=$((i+1)); echo $i > /root/n.tmp; mv /root/n.tmp /root/n; done";
    let _writer = sandbox.spawn(&sandscript::sandbox::Command::shell(script)).await?;
    crate::sandbox::eventually("it writes", async || Ok(sandbox.stat("/root/n").await.is_ok()))
        .await?;
    for _ in 0..5 {
        let clone = scope.clone_of(&sandbox, None).await?;
        let then: u64 = clone.run("cat /root/n").await?.parse()?;
        let now: u64 = sandbox.run("cat /root/n").await?.parse()?;
        assert!(then > 0 && then <= now);
        assert_eq!(
            clone.run("cat /root/n").await?.parse::<u64>()?,
            then,
            "the source writes into it"
        );
    }
    assert!(sandbox.labels().await?.is_empty(), "a temporary snapshot is left");
    Ok(())
}

async fn of_a_stopped_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo 2 > /root/f").await?;
    sandbox.stop().await?;
    for (label, expected) in [(Some("s"), "1"), (None, "2")] {
        let clone = scope.clone_of(&sandbox, label).await?;
        assert_eq!(clone.run("cat /root/f").await?, expected);
    }
    assert_eq!(sandbox.state().await?, State::Stopped);
    Ok(())
}

async fn of_a_frozen_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    sandbox.freeze().await?;
    let clone = scope.clone_of(&sandbox, None).await?;
    assert_eq!(clone.run("cat /root/f").await?, "1");
    assert_eq!(sandbox.state().await?, State::Frozen);
    Ok(())
}

async fn source_goes_on(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let pid = sandbox.background().await?;
    sandbox.snapshot("s").await?;
    for label in [Some("s"), None] {
        let clone = scope.clone_of(&sandbox, label).await?;
        assert!(sandbox.alive(&pid).await?, "cloning killed a process of the source");
        assert!(!clone.alive(&pid).await?);
        assert_eq!(sandbox.state().await?, State::Running);
    }
    Ok(())
}

async fn lives_without_its_source(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/d; echo 1 > /root/d/f").await?;
    sandbox.snapshot("s").await?;
    let (one, two) =
        (scope.clone_of(&sandbox, Some("s")).await?, scope.clone_of(&sandbox, None).await?);
    sandbox.delete().await?;
    for clone in [one, two] {
        assert_eq!(clone.run("cat /root/d/f").await?, "1");
        clone.stop().await?;
        clone.start().await?;
        clone.snapshot("own").await?;
        clone.run("rm -rf /root/d").await?;
        clone.restore("own").await?;
        assert_eq!(clone.run("cat /root/d/f").await?, "1");
    }
    scope.backend().gc(false, &scope.cancel).await?;
    Ok(())
}

async fn is_another_machine(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.snapshot("s").await?;
    let clones = [
        scope.clone_of(&sandbox, Some("s")).await?,
        scope.clone_of(&sandbox, Some("s")).await?,
        scope.clone_of(&sandbox, None).await?,
        scope.sandbox().await?,
    ];
    let mut ids = vec![sandbox.run("cat /etc/machine-id").await?];
    for clone in &clones {
        assert_eq!(
            clone.run("hostname; cat /etc/hostname").await?,
            format!("{0}\n{0}", clone.name)
        );
        ids.push(clone.run("cat /etc/machine-id").await?);
    }
    for id in &ids {
        assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()), "machine-id {id:?}");
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "two machines have one machine-id");
    Ok(())
}

fn supported(scope: &Scope) -> Limits {
    Limits {
        cpu: scope.has(Capability::LimitCpu).then_some(1.0),
        memory: scope.has(Capability::LimitMemory).then_some(256 << 20),
        pids: scope.has(Capability::LimitPids).then_some(100),
        disk: scope.has(Capability::LimitDisk).then_some(64 << 20),
        inodes: scope.has(Capability::LimitInodes).then_some(10_000),
    }
}

async fn keeps_settings(scope: Scope) -> CaseResult {
    let limits = supported(&scope);
    let sandbox = scope
        .sandbox_of(|spec| {
            spec.limits = limits.clone();
            spec.env = BTreeMap::from([
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "2".to_owned()),
            ]);
            spec.cwd = Some("/tmp".to_owned());
            spec.user = Some("root".to_owned());
            spec.labels = BTreeMap::from([("source".to_owned(), "label".to_owned())]);
            spec.owner = Some(scope.rig.live.clone());
            spec.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        })
        .await?;
    sandbox.snapshot("s").await?;
    let source = sandbox.info().await?;
    for label in [Some("s"), None] {
        let clone = scope.clone_of(&sandbox, label).await?;
        let info = clone.info().await?;
        assert_eq!(info.limits, limits);
        assert_eq!((&info.env, &info.cwd, &info.user), (&source.env, &source.cwd, &source.user));
        assert_eq!((&info.egress, &info.mounts), (&source.egress, &source.mounts));
        assert_eq!((&info.image, &info.fingerprint), (&source.image, &source.fingerprint));
        assert!(info.labels.is_empty(), "labels are not taken over");
        assert_eq!((&info.owner, info.expires), (&None, None));
        assert_eq!(clone.run("echo $A$B; pwd").await?, "12\n/tmp");
    }
    Ok(())
}

async fn takes_other_settings(scope: Scope) -> CaseResult {
    let sandbox = scope
        .sandbox_of(|spec| {
            spec.env = BTreeMap::from([
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "2".to_owned()),
            ]);
        })
        .await?;
    let mut spec = CloneSpec::new(scope.name());
    spec.limits = Some(supported(&scope));
    spec.env = BTreeMap::from([("B".to_owned(), "3".to_owned())]);
    spec.labels = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
    spec.owner = Some(scope.rig.live.clone());
    spec.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
    let made = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await?;
    let clone = scope.at(&spec.name);
    for info in [made, clone.info().await?] {
        assert_eq!(info.limits, supported(&scope));
        assert_eq!(info.labels, spec.labels);
        assert_eq!((&info.owner, info.expires), (&spec.owner, spec.expires));
        assert_eq!(
            info.env,
            BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "3".to_owned())])
        );
    }
    assert_eq!(clone.run("echo $A$B").await?, "13");
    assert_eq!(sandbox.run("echo $A$B").await?, "12");
    Ok(())
}

async fn hostname(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.hostname = Some("source-host".to_owned())).await?;
    let mut spec = CloneSpec::new(scope.name());
    spec.hostname = Some("clone-host".to_owned());
    let info = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await?;
    assert_eq!(info.hostname, "clone-host");
    assert_eq!(
        scope.at(&spec.name).run("hostname; cat /etc/hostname").await?,
        "clone-host\nclone-host"
    );
    assert_eq!(sandbox.run("hostname; cat /etc/hostname").await?, "source-host\nsource-host");
    spec = CloneSpec::new(scope.name());
    spec.hostname = Some("not a host".to_owned());
    let made = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await;
    fails!(made, Error::InvalidInput { .. });
    Ok(())
}

async fn leaves_no_snapshot(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for _ in 0..3 {
        let clone = scope.clone_of(&sandbox, None).await?;
        assert!(sandbox.labels().await?.is_empty() && clone.labels().await?.is_empty());
    }
    Ok(())
}

async fn goes_its_own_way(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo base > /root/f; mkdir -p /root/d; echo x > /root/d/x").await?;
    sandbox.snapshot("s").await?;
    let (one, two) =
        (scope.clone_of(&sandbox, Some("s")).await?, scope.clone_of(&sandbox, Some("s")).await?);
    one.run("echo one > /root/f; rm -rf /root/d").await?;
    two.run("echo two > /root/d/x").await?;
    sandbox.run("echo three >> /root/f").await?;
    assert_eq!(one.run("cat /root/f; ls /root").await?, "one\nf");
    assert_eq!(two.run("cat /root/f /root/d/x").await?, "base\ntwo");
    assert_eq!(sandbox.run("cat /root/f /root/d/x").await?, "base\nthree\nx");
    Ok(())
}

async fn of_a_clone(scope: Scope) -> CaseResult {
    let mut sandbox = scope.sandbox().await?;
    for generation in 0..8 {
        sandbox
            .run(&format!(
                "echo {generation} > /root/g{generation}; rm -rf /root/g{}",
                generation - 2
            ))
            .await?;
        let label = format!("g{generation}");
        sandbox.snapshot(&label).await?;
        let next = scope.clone_of(&sandbox, (generation % 2 == 0).then_some(&label)).await?;
        sandbox.delete().await?;
        sandbox = next;
    }
    assert_eq!(sandbox.run("ls /root").await?, "g6\ng7");
    Ok(())
}

async fn bare_is_stopped(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    let mut spec = CloneSpec::new(scope.name());
    spec.bare = true;
    let info = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await?;
    assert_eq!(info.state, State::Stopped);
    let clone = scope.at(&spec.name);
    clone.start().await?;
    assert_eq!(clone.run("cat /root/f; hostname").await?, format!("1\n{}", clone.name));
    Ok(())
}

async fn name_in_use(scope: Scope) -> CaseResult {
    let (sandbox, other) = (scope.sandbox().await?, scope.sandbox().await?);
    other.write("/root/f", "mine").await?;
    for name in [&other.name, &sandbox.name] {
        let made = scope.backend().clone(&sandbox.name, &CloneSpec::new(name), &scope.cancel).await;
        fails!(made, Error::AlreadyExists { kind: Kind::Sandbox, .. });
    }
    assert_eq!(other.read_text("/root/f").await?, "mine");
    for name in ["", "../x", "A"] {
        let made = scope.backend().clone(&sandbox.name, &CloneSpec::new(name), &scope.cancel).await;
        fails!(made, Error::InvalidInput { .. });
    }
    Ok(())
}

async fn missing_source(scope: Scope) -> CaseResult {
    let spec = CloneSpec::new(scope.name());
    let made = scope.backend().clone("no-such-sandbox", &spec, &scope.cancel).await;
    fails!(made, Error::NotFound { kind: Kind::Sandbox, .. });
    assert!(!scope.exists(&spec.name).await?);
    Ok(())
}

async fn cancelled_while_it_works(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo 1 > /root/f").await?;
    let name = scope.name();
    for step in scope.moments(30) {
        let cancel = Cancel::new();
        let later = async {
            tokio::time::sleep(step).await;
            cancel.cancel();
        };
        let spec = CloneSpec::new(&name);
        let (made, ()) = tokio::join!(scope.backend().clone(&sandbox.name, &spec, &cancel), later);
        match made {
            Ok(_) => scope.at(&name).delete().await?,
            Err(Error::Cancelled) => {}
            Err(error) => panic!("after {step:?}: {error:?}"),
        }
        assert!(!scope.exists(&name).await?, "cancelled after {step:?}, it is still there");
    }
    assert_eq!(sandbox.run("cat /root/f").await?, "1");
    assert!(sandbox.labels().await?.is_empty(), "a temporary snapshot is left");
    Ok(())
}

async fn many_at_once(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("echo base > /root/f").await?;
    sandbox.snapshot("s").await?;
    let mut clones = Vec::new();
    // A machine with an init system takes a second to boot.
    let count = if scope.has(Capability::Init) { 12 } else { 100 };
    for _ in 0..count {
        clones.push(scope.clone_of(&sandbox, Some("s")).await?);
    }
    for (index, clone) in clones.iter().enumerate() {
        assert_eq!(
            clone.run(&format!("echo {index} >> /root/f; cat /root/f")).await?,
            format!("base\n{index}")
        );
    }
    Ok(())
}
