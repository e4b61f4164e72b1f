//! Making a sandbox: ready when it returns, nothing left when it does not.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sandscript::sandbox::{
    Cancel, Capability, Device, DeviceKind, Error, Kind, Limits, Owner, Policy, Restore,
    SnapshotSpec, Spec, State, StopOptions, WriteOptions,
};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::reader;

cases!["create";
    is_ready,
    bare_is_stopped,
    reports_what_was_set,
    hostname,
    names_are_checked_first,
    labels_are_checked_first,
    name_in_use,
    unknown_image,
    unknown_user,
    bad_spec,
    cancelled_before,
    cancelled_while_it_works,
    dropped_while_it_works,
    fingerprint,
    one_winner,
    devices_unsupported_is_said,
];

async fn is_ready(scope: Scope) -> CaseResult {
    for _ in 0..5 {
        let sandbox = scope.sandbox().await?;
        assert_eq!(sandbox.run("echo ready").await?, "ready");
        assert_eq!(sandbox.state().await?, State::Running);
    }
    Ok(())
}

async fn bare_is_stopped(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.bare = true).await?;
    assert_eq!(sandbox.state().await?, State::Stopped);
    fails!(sandbox.sh("true").await, Error::NotRunning { .. });
    sandbox.start().await?;
    assert_eq!(sandbox.run("echo ready").await?, "ready");
    Ok(())
}

async fn reports_what_was_set(scope: Scope) -> CaseResult {
    let before = SystemTime::now() - Duration::from_secs(5);
    let name = scope.name();
    let mut spec = Spec::new(&name);
    spec.hostname = Some("other-host".to_owned());
    spec.env = BTreeMap::from([("A".to_owned(), "ä\n1".to_owned())]);
    spec.user = Some("root".to_owned());
    spec.cwd = Some("/tmp".to_owned());
    spec.labels = BTreeMap::from([("team".to_owned(), "a b/ü\n".to_owned())]);
    spec.owner = Some(scope.rig.live.clone());
    spec.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
    let made = scope.backend().create(&spec, &scope.cancel).await?;
    let got = scope.backend().get(&name, &scope.cancel).await?;
    let all = scope.backend().list(&scope.cancel).await?;
    let listed = all.iter().find(|info| info.name == name).unwrap();
    assert!(all.is_sorted_by(|a, b| a.name < b.name), "the list is not by name");
    for info in [&made, &got, listed] {
        assert_eq!(info.name, name);
        assert_eq!(info.state, State::Running);
        assert_eq!(info.hostname, "other-host");
        assert_eq!(info.env, spec.env);
        assert_eq!(info.user, spec.user);
        assert_eq!(info.cwd, spec.cwd);
        assert_eq!(info.labels, spec.labels);
        assert_eq!(info.owner, spec.owner);
        assert_eq!(info.expires, spec.expires);
        assert_eq!(info.egress, Policy::None);
        assert_eq!(info.limits, Limits::default());
        assert_eq!(info.source, None);
        assert_eq!(info.image, scope.backend().capabilities().default_image);
        assert!(
            info.created >= before && info.created <= SystemTime::now() + Duration::from_secs(5)
        );
        assert!(!info.fingerprint.is_empty());
    }
    Ok(())
}

async fn hostname(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert_eq!(
        sandbox.run("hostname; cat /etc/hostname").await?,
        format!("{0}\n{0}", sandbox.name)
    );
    let named = scope.sandbox_of(|spec| spec.hostname = Some("web-1".to_owned())).await?;
    assert_eq!(named.run("hostname; cat /etc/hostname").await?, "web-1\nweb-1");
    Ok(())
}

async fn names_are_checked_first(scope: Scope) -> CaseResult {
    let backend = scope.backend();
    let cancel = &scope.cancel;
    let long = "a".repeat(64);
    let bad = [
        "", "A", "a_b", "a.b", "a b", "-a", "a-", "1a", "../a", "a/b", "/", ".", "..", "a\0",
        "a\n", "ä", "$(id)", "a;id", &long,
    ];
    for name in bad {
        let options = WriteOptions::default();
        fails!(backend.create(&Spec::new(name), cancel).await, Error::InvalidInput { .. });
        fails!(backend.get(name, cancel).await, Error::InvalidInput { .. });
        fails!(backend.start(name, cancel).await, Error::InvalidInput { .. });
        fails!(
            backend.stop(name, StopOptions::default(), cancel).await,
            Error::InvalidInput { .. }
        );
        fails!(backend.delete(name, cancel).await, Error::InvalidInput { .. });
        fails!(backend.keep(name, cancel).await, Error::InvalidInput { .. });
        fails!(backend.stat(name, "/", cancel).await, Error::InvalidInput { .. });
        fails!(backend.snapshots(name, cancel).await, Error::InvalidInput { .. });
        fails!(
            backend.write(name, "/f", reader("x"), &options, cancel).await,
            Error::InvalidInput { .. }
        );
        fails!(
            backend.ready(name, Duration::from_secs(1), cancel).await,
            Error::InvalidInput { .. }
        );
        let mut spec = Spec::new(scope.name());
        spec.hostname = Some(name.to_owned());
        fails!(backend.create(&spec, cancel).await, Error::InvalidInput { .. });
        assert!(!scope.exists(&spec.name).await?);
    }
    let names: Vec<_> = backend.list(cancel).await?.into_iter().map(|info| info.name).collect();
    assert!(!bad.iter().any(|name| names.contains(&(*name).to_owned())));
    Ok(())
}

async fn labels_are_checked_first(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let long = "a".repeat(64);
    for label in ["", ".", "..", "-a", "_a", "a/b", "../a", "a b", "a@b", "a\0", "ä", &long] {
        fails!(sandbox.snapshot(label).await, Error::InvalidInput { .. });
        fails!(sandbox.restore(label).await, Error::InvalidInput { .. });
        fails!(sandbox.delete_snapshot(label).await, Error::InvalidInput { .. });
        let restore = Restore { discard_newer: true };
        let backend = scope.backend();
        fails!(
            backend.restore(&sandbox.name, label, restore, &scope.cancel).await,
            Error::InvalidInput { .. }
        );
        let none =
            backend.snapshot("no-such-sandbox", &SnapshotSpec::new(label), &scope.cancel).await;
        fails!(none, Error::InvalidInput { .. });
    }
    assert!(sandbox.labels().await?.is_empty());
    Ok(())
}

async fn name_in_use(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/f", "mine").await?;
    for state in ["running", "stopped"] {
        let again = scope.backend().create(&Spec::new(&sandbox.name), &scope.cancel).await;
        fails!(&again, Error::AlreadyExists { kind: Kind::Sandbox, .. });
        let hint = again.unwrap_err().hint().unwrap_or_default();
        assert!(hint.contains(&sandbox.name), "{hint:?}");
        assert_eq!(sandbox.state().await?.word(), state);
        sandbox.stop().await?;
    }
    sandbox.start().await?;
    assert_eq!(sandbox.read_text("/root/f").await?, "mine");
    Ok(())
}

async fn unknown_image(scope: Scope) -> CaseResult {
    for image in ["no-such-image", "no/such/image", "/no/such/file.tar", ""] {
        let mut spec = Spec::new(scope.name());
        spec.image = Some(image.to_owned());
        fails!(
            scope.backend().create(&spec, &scope.cancel).await,
            Error::NotFound { kind: Kind::Image, .. }
                | Error::Unsupported { .. }
                | Error::InvalidInput { .. }
        );
        assert!(!scope.exists(&spec.name).await?, "image {image:?}");
        let fingerprint = scope.backend().fingerprint(image, None, &scope.cancel).await;
        fails!(
            fingerprint,
            Error::NotFound { kind: Kind::Image, .. }
                | Error::Unsupported { .. }
                | Error::InvalidInput { .. }
        );
    }
    Ok(())
}

async fn unknown_user(scope: Scope) -> CaseResult {
    let mut spec = Spec::new(scope.name());
    spec.user = Some("no-such-user".to_owned());
    let made = scope.backend().create(&spec, &scope.cancel).await;
    fails!(made, Error::NotFound { kind: Kind::User, .. });
    assert!(!scope.exists(&spec.name).await?);
    scope.backend().create(&Spec::new(&spec.name), &scope.cancel).await?;
    Ok(())
}

async fn bad_spec(scope: Scope) -> CaseResult {
    let change: [fn(&mut Spec); 7] = [
        |spec| spec.limits.cpu = Some(0.0),
        |spec| spec.limits.cpu = Some(f64::NAN),
        |spec| spec.limits.memory = Some(1),
        |spec| spec.limits.pids = Some(0),
        |spec| spec.cwd = Some("relative".to_owned()),
        |spec| drop(spec.env.insert("A=B".to_owned(), String::new())),
        |spec| drop(spec.env.insert("A".to_owned(), "\0".to_owned())),
    ];
    for change in change {
        let mut spec = Spec::new(scope.name());
        change(&mut spec);
        fails!(scope.backend().create(&spec, &scope.cancel).await, Error::InvalidInput { .. });
        assert!(!scope.exists(&spec.name).await?);
    }
    Ok(())
}

async fn cancelled_before(scope: Scope) -> CaseResult {
    let cancel = Cancel::new();
    cancel.cancel();
    let spec = Spec::new(scope.name());
    fails!(scope.backend().create(&spec, &cancel).await, Error::Cancelled);
    assert!(!scope.exists(&spec.name).await?);
    Ok(())
}

async fn cancelled_while_it_works(scope: Scope) -> CaseResult {
    let name = scope.name();
    for step in scope.moments(40) {
        let cancel = Cancel::new();
        let later = async {
            tokio::time::sleep(step).await;
            cancel.cancel();
        };
        let spec = Spec::new(&name);
        let (made, ()) = tokio::join!(scope.backend().create(&spec, &cancel), later);
        match made {
            Ok(_) => scope.at(&name).delete().await?,
            Err(Error::Cancelled) => {}
            Err(error) => panic!("after {step:?}: {error:?}"),
        }
        assert!(!scope.exists(&name).await?, "cancelled after {step:?}, it is still there");
    }
    let sandbox = scope.sandbox_of(|spec| spec.name = name.clone()).await?;
    sandbox.run("true").await?;
    Ok(())
}

async fn dropped_while_it_works(scope: Scope) -> CaseResult {
    let name = scope.name();
    for step in scope.moments(40) {
        let spec = Spec::new(&name);
        let make = scope.backend().create(&spec, &scope.cancel);
        let made = tokio::time::timeout(step, make).await;
        if let Ok(made) = made {
            made?;
            scope.at(&name).delete().await?;
        }
        crate::sandbox::eventually("the half made sandbox is gone", async || {
            Ok(!scope.exists(&name).await?)
        })
        .await?;
    }
    scope.sandbox_of(|spec| spec.name = name.clone()).await?.run("true").await?;
    Ok(())
}

async fn fingerprint(scope: Scope) -> CaseResult {
    let backend = scope.backend();
    let image = backend.capabilities().default_image.clone();
    let first = backend.fingerprint(&image, None, &scope.cancel).await?;
    let second = backend.fingerprint(&image, None, &scope.cancel).await?;
    assert_eq!(first, second);
    assert!(!first.is_empty() && first.chars().all(|c| c.is_ascii_graphic()), "{first:?}");
    assert_eq!(scope.sandbox().await?.info().await?.fingerprint, first);
    Ok(())
}

async fn one_winner(scope: Scope) -> CaseResult {
    let spec = Spec::new(scope.name());
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (rig, spec) = (scope.rig.clone(), spec.clone());
            tokio::spawn(async move { rig.backend.create(&spec, &Cancel::new()).await })
        })
        .collect();
    let mut won = 0;
    for done in tries {
        match done.await? {
            Ok(_) => won += 1,
            Err(Error::AlreadyExists { kind: Kind::Sandbox, .. } | Error::Busy { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(won, 1);
    scope.at(&spec.name).run("true").await?;
    let owner: Option<Owner> = scope.at(&spec.name).info().await?.owner;
    assert_eq!(owner, None);
    Ok(())
}

async fn devices_unsupported_is_said(scope: Scope) -> CaseResult {
    let card = Device { name: "card".into(), kind: DeviceKind::Gpu { pci: None } };
    for capability in [Capability::Devices, Capability::Nesting] {
        if scope.has(capability) {
            continue;
        }
        let mut spec = Spec::new(scope.name());
        match capability {
            Capability::Devices => spec.devices = vec![card.clone()],
            _ => spec.nesting = true,
        }
        let made = scope.backend().create(&spec, &scope.cancel).await;
        fails!(&made, Error::Unsupported { .. });
        assert!(made.unwrap_err().hint().is_some(), "{capability}");
        assert!(!scope.exists(&spec.name).await?);
    }
    Ok(())
}
