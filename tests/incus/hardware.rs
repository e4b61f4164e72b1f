//! What a sandbox's machine is like: the pool of its disk, its card. And what the kernel under the server can't.

use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Error, Hardware, Policy, SnapshotSpec, Spec,
};

use crate::rig::Daemon;
use crate::{Home, open, open_elsewhere, sh, wait};

pub fn a_pool_of_its_own(daemon: &mut Daemon) {
    daemon.incus(&["storage", "create", "folders", "dir"]).unwrap();
    let pool_of = |daemon: &Daemon, name: &str| {
        daemon.incus(&["config", "device", "get", name, "root", "pool"]).unwrap().trim().to_owned()
    };
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let on = |name: &str, pool: &str| {
            let hardware = Hardware { pool: Some(pool.into()), ..Hardware::default() };
            Spec { hardware, ..Spec::new(name) }
        };
        let info = backend.create(&on("other", "folders"), &cancel).await.unwrap();
        assert_eq!(info.hardware.pool.as_deref(), Some("folders"));
        assert_eq!(pool_of(daemon, "other"), "folders");
        sh(&backend, "other", "echo before > /root/f").await;
        backend.snapshot("other", &SnapshotSpec::new("s"), &cancel).await.unwrap();
        sh(&backend, "other", "echo after > /root/f").await;
        backend.restore("other", "s", Default::default(), &cancel).await.unwrap();
        assert_eq!(sh(&backend, "other", "cat /root/f").await, "before");
        let spec = CloneSpec::of("s", "twin");
        Backend::clone(&backend, "other", &spec, &cancel).await.unwrap();
        assert_eq!(pool_of(daemon, "twin"), "folders");
        assert_eq!(sh(&backend, "twin", "cat /root/f").await, "before");
        // Each pool keeps the limits that it can.
        let mut spec = on("limited", "folders");
        spec.limits.disk = Some(64 << 20);
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        spec.hardware.pool = Some("default".into());
        backend.create(&spec, &cancel).await.unwrap();
        let error = backend.create(&on("lost", "nope"), &cancel).await.unwrap_err();
        insta::assert_snapshot!(error, @"pool: there is no storage pool 'nope' on the server");
        insta::assert_snapshot!(error.hint().unwrap(), @"its pools are default, folders");
        for name in ["other", "twin", "limited"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    daemon.incus(&["storage", "delete", "folders"]).unwrap();
}

pub fn a_card_of_its_own(daemon: &mut Daemon) {
    const MAC: &str = "00:16:3e:00:53:01";
    let shown = "cat /sys/class/net/eth0/address; ip -4 -o address show dev eth0 | tr -s ' ' | cut -d' ' -f4";
    let address = format!("{}.88/24", daemon.network);
    let with = |name: &str, address: Option<&str>, egress: Policy| {
        let hardware = Hardware {
            mac: Some(MAC.into()),
            address: address.map(str::to_owned),
            ..Hardware::default()
        };
        Spec { hardware, egress, ..Spec::new(name) }
    };
    let wanted = format!("{MAC}\n{address}");
    wait(async {
        let (backend, cancel) = (open_elsewhere(daemon, "small").await, Cancel::new());
        for egress in [Policy::Unrestricted, Policy::allowlist(["192.0.2.7"]).unwrap()] {
            let spec = with("carded", Some(&address), egress);
            let info = backend.create(&spec, &cancel).await.unwrap();
            assert_eq!(info.hardware, spec.hardware);
            assert_eq!(sh(&backend, "carded", shown).await, wanted);
            backend.snapshot("carded", &SnapshotSpec::new("s"), &cancel).await.unwrap();
            backend.restore("carded", "s", Default::default(), &cancel).await.unwrap();
            assert_eq!(sh(&backend, "carded", shown).await, wanted);
            // A clone has a card of its own.
            let spec = CloneSpec::of("s", "twin");
            let clone = Backend::clone(&backend, "carded", &spec, &cancel).await.unwrap();
            assert!(clone.hardware.is_plain(), "{:?}", clone.hardware);
            let twin = sh(&backend, "twin", shown).await;
            assert!(!twin.contains(MAC) && !twin.contains(&address), "{twin}");
            // What another one has can't be had.
            let error = backend.create(&with("late", None, Policy::Unrestricted), &cancel).await;
            let error = error.unwrap_err();
            assert!(error.to_string().starts_with("mac: the server refuses it: "), "{error}");
            for name in ["carded", "twin"] {
                backend.delete(name, &cancel).await.unwrap();
            }
        }
        for (address, words) in [
            ("192.0.2.7/24".to_owned(), "is not in it"),
            (format!("{}.1/24", daemon.network), "is the network's own"),
            (format!("{}.7/25", daemon.network), "is not in it"),
            ("fd00::7/64".to_owned(), "has no IPv6"),
        ] {
            let spec = with("wrong", Some(&address), Policy::Unrestricted);
            let error = backend.create(&spec, &cancel).await.unwrap_err();
            assert!(error.to_string().contains(words), "{address}: {error}");
            assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        }
    });
    // Where the server's machine is ours, a sandbox has a card under that one policy only.
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let spec = with("carded", Some(&address), Policy::None);
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        insta::assert_snapshot!(error, @"mac: a sandbox has no card here under the egress policy 'none'");
        let spec = with("carded", Some(&address), Policy::Unrestricted);
        backend.create(&spec, &cancel).await.unwrap();
        assert_eq!(sh(&backend, "carded", shown).await, wanted);
        for policy in [Policy::allowlist(["192.0.2.7"]).unwrap(), Policy::None] {
            backend.set_policy("carded", &policy, &cancel).await.unwrap();
            assert_eq!(sh(&backend, "carded", "ls /sys/class/net").await, "lo");
            assert!(backend.get("carded", &cancel).await.unwrap().hardware.is_plain());
        }
        backend.delete("carded", &cancel).await.unwrap();
    });
}

/// By `doctor`, with a server that is reached by HTTPS: what it finds is what the client finds.
pub fn network_acls_are_tried(daemon: &mut Daemon) {
    daemon.https().unwrap();
    let home = Home::new();
    let said = daemon.incus(&["config", "trust", "add", "doctor"]).unwrap();
    let token = said.lines().last().unwrap_or_default().to_owned();
    let run = |args: &[&str]| {
        let (code, out, err) = home.run(&[], args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };
    run(&["remote", "add", "nas", "--token", &token]);
    let found = run(&["doctor", "--host", "nas", "--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let check = &found["checks"][0];
    assert_eq!((&check["what"], &found["egress"]), (&"network ACLs".into(), &"guest".into()));
    // The same by the client.
    daemon.incus(&["network", "acl", "create", "mine"]).unwrap();
    let make = ["ipv4.address=198.19.255.241/29", "ipv6.address=none", "security.acls=mine"];
    let made = daemon.incus(&[&["network", "create", "tried"][..], &make].concat());
    assert_eq!(check["verdict"] == "good", made.is_ok(), "{check}: {made:?}");
    let _ = daemon.incus(&["network", "delete", "tried"]);
    daemon.incus(&["network", "acl", "delete", "mine"]).unwrap();
    let ours = || {
        let all = ["network", "network acl"].map(|kind| {
            let words: Vec<&str> = kind.split(' ').chain(["list", "--format", "csv"]).collect();
            daemon.incus(&words).unwrap()
        });
        let all = all.concat();
        // Bridges that the server does not manage are others'.
        let all = all.lines().filter(|line| !line.contains(",bridge,NO,"));
        let names = all.filter_map(|line| line.split(',').next());
        names.filter(|name| name.len() == 15).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ours(), [""; 0], "a try has left something");
    if made.is_err() {
        let hint = check["hint"].as_str().unwrap();
        assert!(hint.contains("inside the guest"), "{check}");
        return;
    }
    // A sandbox has one of its own for as long as it is there.
    let create = ["create", "walled", "--image", "small", "--allow", "192.0.2.7", "--host", "nas"];
    run(&create);
    assert_eq!(ours().len(), 2);
    run(&["delete", "walled", "--yes", "--host", "nas"]);
    assert_eq!(ours(), [""; 0]);
    // What a program that was killed has left goes with gc; what is being made does not.
    for (name, at) in [("ss0123456789abc", "000000000009 x"), ("ss0123456789abo", "999999999999 x")]
    {
        let of = format!("user.sandscript.fence={at}");
        daemon.incus(&["network", "acl", "create", name, &of]).unwrap();
    }
    run(&["gc", "--yes", "--host", "nas"]);
    assert_eq!(ours(), ["ss0123456789abo"]);
    daemon.incus(&["network", "acl", "delete", "ss0123456789abo"]).unwrap();
}

/// One that forbids what only helps: which process is the first, and which calls guests may not make.
pub fn a_project_that_is_restricted(daemon: &mut Daemon) {
    let features = ["images", "storage.volumes", "storage.buckets"];
    let features = features.map(|feature| format!("--config=features.{feature}=false"));
    let mut create = vec!["project", "create", "tight", "--config=restricted=true"];
    create.extend(features.iter().map(String::as_str));
    daemon.incus(&create).unwrap();
    let network = format!("network={}", daemon.name);
    for device in [&["root", "disk", "path=/", "pool=default"][..], &["eth0", "nic", &network]] {
        let add = ["--project", "tight", "profile", "device", "add", "default"];
        daemon.incus(&[&add, device].concat()).unwrap();
    }
    wait(async {
        let config = IncusConfig {
            socket: Some(daemon.socket()),
            image: Some("small".into()),
            project: Some("tight".into()),
            elsewhere: true,
            ..IncusConfig::default()
        };
        let (backend, cancel) = (IncusBackend::open(config).await.unwrap(), Cancel::new());
        backend.create(&Spec::new("kept"), &cancel).await.unwrap();
        sh(&backend, "kept", "echo 1 > /root/f").await;
        Backend::clone(&backend, "kept", &CloneSpec::new("twin"), &cancel).await.unwrap();
        assert_eq!(sh(&backend, "twin", "cat /root/f; hostname").await, "1\ntwin");
        let ids = "cat /etc/machine-id";
        assert_ne!(sh(&backend, "twin", ids).await, sh(&backend, "kept", ids).await);
        // This image has an init of its own, which starts no guard before the network.
        let rules = Policy::allowlist(["192.0.2.7"]).unwrap();
        let spec = Spec { egress: rules, ..Spec::new("ruled") };
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("its init is neither systemd nor OpenRC"), "{hint}");
        let error = backend.get("ruled", &cancel).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        for name in ["kept", "twin"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    daemon.incus(&["project", "delete", "tight"]).unwrap();
}
