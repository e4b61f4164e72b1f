//! Two clients that change one sandbox at the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{Backend, Cancel, Owner, Policy, Rule, Spec};

use crate::proxy::Proxy;
use crate::rig::Daemon;
use crate::{SOON, open_elsewhere, sh, wait};

/// Until the proxy holds a request.
async fn held(proxy: &Proxy) {
    let until = Instant::now() + SOON;
    while !proxy.is_holding() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(proxy.is_holding(), "{:?}", proxy.seen.lock().unwrap());
}

/// Each allows something: all of it holds, in what is written down and in the guest.
pub fn two_clients_change_one_policy(daemon: &mut Daemon) {
    wait(async {
        let clients =
            [open_elsewhere(daemon, "small").await, open_elsewhere(daemon, "small").await]
                .map(Arc::new);
        let cancel = Cancel::new();
        let egress = Policy::allowlist(["192.0.2.1"]).unwrap();
        clients[0].create(&Spec { egress, ..Spec::new("shared") }, &cancel).await.unwrap();
        let changes: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(at, client)| {
                let client = Arc::clone(client);
                tokio::spawn(async move {
                    for number in 0..3 {
                        let rule: Rule =
                            format!("192.0.2.{}", 10 * (at + 1) + number).parse().unwrap();
                        client.allow("shared", &rule, &Cancel::new()).await.unwrap();
                    }
                })
            })
            .collect();
        for change in changes {
            change.await.unwrap();
        }
        let policy = clients[0].get("shared", &cancel).await.unwrap().egress.to_string();
        let rules = sh(clients[0].as_ref(), "shared", "nft list table inet sandscript").await;
        for last in [10, 11, 12, 20, 21, 22] {
            let address = format!("192.0.2.{last}");
            assert!(policy.contains(&address), "{address} is not in {policy}");
            assert!(rules.contains(&address), "{address} is not in {rules}");
        }
        clients[0].delete("shared", &cancel).await.unwrap();
    });
}

/// What one has taken away, the other does not write back.
pub fn a_change_beside_another(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let proxy = Proxy::new(folder.path(), daemon.socket());
        let config = IncusConfig {
            socket: Some(proxy.socket.clone()),
            image: Some("small".into()),
            elsewhere: true,
            ..IncusConfig::default()
        };
        let slow = Arc::new(IncusBackend::open(config).await.unwrap());
        let (other, cancel) = (open_elsewhere(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("torn");
        (spec.egress, spec.owner) = (Policy::Unrestricted, Some(Owner::new("r1", "here")));
        other.create(&spec, &cancel).await.unwrap();
        slow.publish("torn", 80, Some("127.0.0.1:0".parse().unwrap()), &cancel).await.unwrap();

        proxy.hold("PUT /1.0/instances/torn ", 0);
        let closing = Arc::clone(&slow);
        let closing =
            tokio::spawn(async move { closing.unpublish("torn", 80, None, &Cancel::new()).await });
        held(&proxy).await;
        other.set_policy("torn", &Policy::None, &cancel).await.unwrap();
        proxy.go_on();
        assert_eq!(closing.await.unwrap().unwrap().len(), 1);
        let info = other.get("torn", &cancel).await.unwrap();
        assert_eq!((info.egress, info.ports.len()), (Policy::None, 0));
        assert_eq!(sh(&other, "torn", "ls /sys/class/net").await, "lo");

        proxy.hold("PATCH /1.0/instances/torn ", 0);
        let keeping = Arc::clone(&slow);
        let keeping = tokio::spawn(async move { keeping.keep("torn", &Cancel::new()).await });
        held(&proxy).await;
        let rules = Policy::allowlist(["192.0.2.1"]).unwrap();
        other.set_policy("torn", &rules, &cancel).await.unwrap();
        proxy.go_on();
        keeping.await.unwrap().unwrap();
        let info = other.get("torn", &cancel).await.unwrap();
        assert_eq!((info.egress, info.owner), (rules, None));
        other.delete("torn", &cancel).await.unwrap();
    });
}
