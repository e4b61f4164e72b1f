//! Rules that guests keep to themselves: a NAS has none for them.
//!
//! Each guest that has a network has a guard, also when it may reach everything: so what is copied from it
//! begins closed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::guest::{Boot, Enforce, Ground, Record};
use super::Inner;
use super::api::{Api, doing};
use super::row::Row;
use super::snapshots::refused;
use crate::sandbox::{EgressLog, Error, Policy, Result, State};
use crate::transport::jsonrpc::RpcError;

/// Takes a guest's policy away, below a root that somebody else filled: nothing of it is followed.
const CLOSE: &str = r#"
use strict;
my $path = shift;
for ('etc', 'sandscript') { $path .= "/$_"; exit 0 unless lstat $path; die "$path is no folder\n" unless -d _ && !-l _ }
unlink "$path/policy" or $!{ENOENT} or die "$path/policy: $!\n";
"#;

/// How long the NAS's shell may take to close one. A user's may be a program that takes no commands.
const PATIENCE: Duration = Duration::from_secs(20);
/// What closes a machine that has never run.
const BEFORE: &str = include_str!("before.sh");

impl Inner {
    /// What is known of the place that guests are in: the NAS's own addresses, where the key may know them.
    pub(super) async fn ground(&self) -> Result<Ground> {
        if let Some(known) = self.ground.get() {
            return Ok(known.clone());
        }
        let (config, right) = match self.api {
            Api::Virt => ("virt.global.config", "VIRT_GLOBAL_READ"),
            Api::Container => ("lxc.config", "LXC_CONFIG_READ"),
        };
        // Its own bridge for containers is not among the interfaces that it lists.
        let (interfaces, config) = tokio::join!(
            self.look("interface.query", "NETWORK_INTERFACE_READ"),
            self.look(config, right)
        );
        let mut ground = Ground::default();
        for (found, read) in
            [(interfaces?, of_interfaces as fn(&Value) -> Vec<IpAddr>), (config?, of_bridge)]
        {
            match found {
                Ok(value) => ground.hosts.extend(read(&value)),
                Err(why) => ground.unknown = Some(why),
            }
        }
        if ground.unknown.is_some() {
            // What is known of it without asking.
            ground.hosts.extend(self.known_as(&self.client.address().host).await);
        }
        ground.hosts.retain(|host| !host.is_loopback());
        ground.hosts.sort_unstable();
        ground.hosts.dedup();
        if ground.unknown.is_none() {
            let _ = self.ground.set(ground.clone());
        }
        Ok(ground)
    }

    /// What a method answers; inside, why it may not be asked.
    pub(super) async fn look(
        &self,
        method: &str,
        right: &str,
    ) -> Result<std::result::Result<Value, String>> {
        match self.client.read(method, json!([])).await {
            Ok(value) => Ok(Ok(value)),
            Err(RpcError::Refused(refusal)) if refusal.is_denied() => {
                Ok(Err(format!("the key may not ask for them (it lacks {right})")))
            }
            Err(error) => Err(doing(error, "asking for the NAS's own addresses")),
        }
    }

    /// The addresses that a machine's name leads to from here.
    pub(super) async fn known_as(&self, host: &str) -> Vec<IpAddr> {
        let found = tokio::net::lookup_host((host, 0)).await;
        found.map(|all| all.map(|one| one.ip().to_canonical()).collect()).unwrap_or_default()
    }

    /// Puts a policy in force in a running guest that has a network, or is about to.
    pub(super) async fn guard(&self, name: &str, record: &Record) -> Result<()> {
        let mut ground = self.ground().await?;
        // By these others may come in: commands may.
        let ports = self.insist(name, &["ports"], None).await?;
        let read = |port: &Vec<u8>| String::from_utf8_lossy(port).parse().ok();
        ground.inbound = ports.iter().filter_map(read).collect();
        self.put_in_force(name, record, &ground, Boot::Init, false).await.map(drop)
    }

    /// Keeps a machine that has never run off the network until its policy is in force, as far as the key may use the
    /// NAS's shell as its root, and the image boots with systemd.
    pub(super) async fn close_first(self: &Arc<Self>, row: &Row, bare: bool) -> Result<()> {
        if !closes_first(&row.record, bare) {
            return Ok(());
        }
        let what = format!("closing sandbox '{}'", row.name);
        let root = match self.api {
            Api::Virt => String::new(),
            Api::Container => root_of(row),
        };
        let argv = ["sh", "-c", BEFORE, "sh", &row.name, &root];
        match tokio::time::timeout(PATIENCE, self.host_again(&what, &argv, None)).await {
            Ok(Ok(done)) => done.map(drop).map_err(|said| refused(&what, said)),
            // What the image starts is not kept from the network then: no root's shell answers.
            Ok(Err(Error::Unsupported { .. })) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Takes the policy of a stopped guest away, whose files may be older than what holds for it: it starts
    /// closed.
    pub(super) async fn close(self: &Arc<Self>, row: &Row) -> Result<()> {
        let what = format!("closing sandbox '{}'", row.name);
        let done = match self.api {
            Api::Virt => {
                let target = format!("{}/etc/sandscript/policy", row.name);
                let argv = ["incus", "file", "push", "-p", "--mode", "0600", "-", &target];
                self.host_again(&what, &argv, Some(b"closed\n".to_vec())).await?
            }
            Api::Container => {
                self.host_again(&what, &["perl", "-e", CLOSE, &root_of(row)], None).await?
            }
        };
        done.map(drop).map_err(|said| refused(&what, said))
    }

    /// What a guest has refused.
    pub(super) async fn egress_log(&self, name: &str) -> Result<EgressLog> {
        match self.row(name).await?.state {
            State::Running => self.counted(name).await,
            // It is in there.
            _ => Err(Error::NotRunning { name: name.to_owned() }),
        }
    }
}

/// Whether a machine is kept off the network before it runs for the first time. One that is not started now may be
/// cloned before.
pub(super) fn closes_first(record: &Record, bare: bool) -> bool {
    record.egress != Policy::Unrestricted || bare
}

/// Where 26 has a machine's files.
fn root_of(row: &Row) -> String {
    let pool = row.dataset.split('/').next().unwrap_or_default();
    format!("/mnt/.truenas_containers/{pool}/containers/{}", row.name)
}

/// The addresses of interfaces.
fn of_interfaces(all: &Value) -> Vec<IpAddr> {
    let all = all.as_array().into_iter().flatten();
    let aliases = all.flat_map(|one| one["state"]["aliases"].as_array()).flatten();
    aliases.filter_map(|one| one["address"].as_str()?.parse().ok()).collect()
}

/// What the NAS's own bridge for containers is in: addresses, with the bits of their networks.
pub(super) fn bridged(config: &Value) -> Vec<(IpAddr, u32)> {
    let read = |key: &str| -> Option<(IpAddr, u32)> {
        let (address, bits) = config[key].as_str()?.split_once('/')?;
        Some((address.parse().ok()?, bits.parse().ok()?))
    };
    ["v4_network", "v6_network"].into_iter().filter_map(read).collect()
}

/// The addresses of that bridge: the one that is said, and the first of its network.
pub(super) fn of_bridge(config: &Value) -> Vec<IpAddr> {
    let first = |(address, bits): (IpAddr, u32)| -> IpAddr {
        match address {
            IpAddr::V4(own) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0);
                std::net::Ipv4Addr::from((u32::from(own) & mask).saturating_add(1)).into()
            }
            IpAddr::V6(own) => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0);
                std::net::Ipv6Addr::from((u128::from(own) & mask).saturating_add(1)).into()
            }
        }
    };
    bridged(config).into_iter().flat_map(|of| [of.0, first(of)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_of_containers_is_the_nas_too() {
        let of = |config: Value| {
            of_bridge(&config).iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        let old = json!({"v4_network": "10.47.214.1/24", "v6_network": "fd42:2f5e::1/64"});
        assert_eq!(of(old), "10.47.214.1 10.47.214.1 fd42:2f5e::1 fd42:2f5e::1");
        let new = json!({"v4_network": "172.200.0.0/24", "v6_network": "fd42:4c58::/64"});
        assert_eq!(of(new), "172.200.0.0 172.200.0.1 fd42:4c58:: fd42:4c58::1");
        assert_eq!(of(json!({"v4_network": null, "v6_network": "x/y"})), "");
        assert_eq!(of(json!({"v4_network": "10.0.0.9/0", "v6_network": ""})), "10.0.0.9 0.0.0.1");
    }

    /// Runs what closes a machine on 26, on files that an image may have.
    fn closed_first(root: &std::path::Path) -> std::process::Output {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", BEFORE, "sh", "a"]).arg(root).output().unwrap()
    }

    #[test]
    fn what_has_never_run_is_closed_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        std::fs::create_dir(&outside).unwrap();
        // Nothing to say about what does not boot with systemd; what is not there is a failure.
        assert!(!closed_first(&root).status.success());
        std::fs::create_dir_all(root.join("etc")).unwrap();
        assert!(closed_first(&root).status.success());
        assert_eq!(std::fs::read_dir(root.join("etc")).unwrap().count(), 0);
        let system = root.join("etc/systemd/system");
        std::fs::create_dir_all(&system).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("etc/.sandscript-offline")).unwrap();
        let service = system.join("sandscript-offline.service");
        std::os::unix::fs::symlink(outside.join("x"), &service).unwrap();
        let done = closed_first(&root);
        assert!(done.status.success(), "{done:?}");
        assert!(root.join("etc/.sandscript-offline").symlink_metadata().unwrap().is_file());
        assert!(service.symlink_metadata().unwrap().is_file());
        for unit in ["networking.service", "ifup@.service"] {
            let text =
                std::fs::read_to_string(system.join(format!("{unit}.d/sandscript-offline.conf")));
            assert!(text.unwrap().contains("ConditionPathExists=!/etc/.sandscript-offline"));
        }
        // A folder of the image's that leads out is not gone through.
        std::fs::remove_dir_all(system.join("ifup@.service.d")).unwrap();
        std::os::unix::fs::symlink(&outside, system.join("ifup@.service.d")).unwrap();
        assert!(!closed_first(&root).status.success());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}
