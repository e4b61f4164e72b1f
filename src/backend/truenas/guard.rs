//! Rules that guests keep to themselves: a NAS has none for them.
//!
//! Each guest that has a network has a guard, also when it may reach everything: so what is copied from it
//! begins closed.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::guest::{Boot, Enforce, Ground, Record};
use super::Inner;
use super::api::{Api, doing};
use super::row::Row;
use super::snapshots::refused;
use crate::sandbox::{EgressLog, Error, Result, State};
use crate::transport::jsonrpc::RpcError;

/// By which others may come in: commands may.
const SSH: u16 = 22;

/// Takes a guest's policy away, below a root that somebody else filled: nothing of it is followed.
const CLOSE: &str = r#"
use strict;
my $path = shift;
for ('etc', 'sandscript') { $path .= "/$_"; exit 0 unless lstat $path; die "$path is no folder\n" unless -d _ && !-l _ }
unlink "$path/policy" or $!{ENOENT} or die "$path/policy: $!\n";
"#;

impl Inner {
    /// What is known of the place that guests are in: the NAS's own addresses, where the key may know them.
    pub(super) async fn ground(&self) -> Result<Ground> {
        if let Some(known) = self.ground.get() {
            return Ok(known.clone());
        }
        let (mut hosts, unknown) = match self.client.read("interface.query", json!([])).await {
            Ok(all) => {
                let all = all.as_array().into_iter().flatten();
                let aliases = all.flat_map(|one| one["state"]["aliases"].as_array()).flatten();
                let read = |one: &Value| one["address"].as_str()?.parse::<IpAddr>().ok();
                (aliases.filter_map(read).collect::<Vec<IpAddr>>(), None)
            }
            // What is known of it without asking.
            Err(RpcError::Refused(refusal)) if refusal.is_denied() => {
                let why = "the key may not ask for them (it lacks NETWORK_INTERFACE_READ)";
                (self.known_as(&self.client.address().host).await, Some(why.to_owned()))
            }
            Err(error) => return Err(doing(error, "asking for the NAS's own addresses")),
        };
        hosts.retain(|host| !host.is_loopback());
        hosts.sort_unstable();
        hosts.dedup();
        let ground = Ground { unknown, hosts, inbound: vec![SSH], servers: Vec::new() };
        if ground.unknown.is_none() {
            let _ = self.ground.set(ground.clone());
        }
        Ok(ground)
    }

    /// The addresses that a machine's name leads to from here.
    pub(super) async fn known_as(&self, host: &str) -> Vec<IpAddr> {
        let found = tokio::net::lookup_host((host, 0)).await;
        found.map(|all| all.map(|one| one.ip().to_canonical()).collect()).unwrap_or_default()
    }

    /// Puts a policy in force in a running guest that has a network, or is about to.
    pub(super) async fn guard(&self, name: &str, record: &Record) -> Result<()> {
        let ground = self.ground().await?;
        self.put_in_force(name, record, &ground, Boot::Init, false).await.map(drop)
    }

    /// Takes the policy of a stopped guest away, whose files may be older than what holds for it: it starts
    /// closed.
    pub(super) async fn close(self: &Arc<Self>, row: &Row) -> Result<()> {
        let what = format!("closing sandbox '{}'", row.name);
        let done = match self.api {
            Api::Virt => {
                let target = format!("{}/etc/sandscript/policy", row.name);
                let argv = ["incus", "file", "push", "-p", "--mode", "0600", "-", &target];
                self.host(&what, &argv, Some(b"closed\n".to_vec())).await?
            }
            Api::Container => {
                let pool = row.dataset.split('/').next().unwrap_or_default();
                let root = format!("/mnt/.truenas_containers/{pool}/containers/{}", row.name);
                self.host(&what, &["perl", "-e", CLOSE, &root], None).await?
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
