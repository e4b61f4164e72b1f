//! Rules that a guest keeps to itself, where this machine can do nothing for its network.
//!
//! Whatever starts because we say so starts without an interface, unless nothing but itself can have changed
//! what its guard holds. It gets one when the guard has said which policy is in force.

use std::net::IpAddr;

use futures_util::future::try_join_all;
use hyper::Method;
use serde_json::{Value, json};

use super::Inner;
use super::client::escape;
use super::lifecycle::LOWLEVEL;
use super::record::{self, Record};
use crate::backend::guest::{Ask, Boot, Enforce, Fail, Ground, Guests, is_ruled, read_log};
use crate::sandbox::{Capabilities, Capability, EgressLog, Enforcer, Error, Policy, Result, State};

/// Where a guest keeps its guard.
pub(super) const GUARD: &str = "/etc/sandscript/guard";
/// Where that keeps what was refused.
const LOG: &str = "/etc/sandscript/log";

/// What changes where guests keep to rules themselves: their root can undo it.
pub(super) fn of_guests(capabilities: &mut Capabilities) {
    capabilities.egress = Enforcer::Guest;
    let (rules, all) = (Capability::EgressAllowlist, Capability::EgressUnrestricted);
    match capabilities.missing.get(&all).cloned() {
        // There is no network to have rules for.
        Some(why) => drop(capabilities.missing.insert(rules, why)),
        None => {
            capabilities.missing.remove(&rules);
            capabilities.has.insert(rules);
        }
    }
}

impl Inner {
    /// Whether guests keep to rules here, and nobody else does.
    pub(super) fn by_guests(&self) -> bool {
        self.host.is_err()
    }

    /// What is known of the place that guests are in: addresses of the server's machine, where it tells them.
    pub(super) async fn ground(&self) -> Result<Ground> {
        if let Some(known) = self.ground.get() {
            return Ok(known.clone());
        }
        let (mut hosts, unknown) = match self.hosts().await {
            Ok(hosts) => (hosts, None),
            Err(Fail::Refused(_, said)) => {
                (Vec::new(), Some(format!("the server does not tell them ({said})")))
            }
            Err(fail) => return Err(fail.plain("asking for the server's own addresses")),
        };
        hosts.retain(|host| !host.is_loopback());
        hosts.sort_unstable();
        hosts.dedup();
        let servers = self.name_servers.clone();
        let ground =
            Ground { unknown, hosts, inbound: Vec::new(), servers, fixed: Default::default() };
        if ground.unknown.is_none() {
            let _ = self.ground.set(ground.clone());
        }
        Ok(ground)
    }

    /// The addresses of the server's machine on its networks.
    async fn hosts(&self) -> std::result::Result<Vec<IpAddr>, Fail> {
        let all = self.client.get("/1.0/networks").await?;
        let paths = all.as_array().into_iter().flatten().filter_map(Value::as_str);
        let names = paths.filter_map(|path| path.split('?').next()?.rsplit('/').next());
        // Theirs are in a range that no rule opens.
        let names = names.filter(|name| !super::fence::is_ours(name));
        let states = names.map(|name| {
            let path = format!("/1.0/networks/{}/state", escape(name));
            async move {
                match self.client.get(&path).await {
                    // It has just gone.
                    Err(fail) if fail.is_missing() => Ok(Value::Null),
                    state => state,
                }
            }
        });
        let states = try_join_all(states).await?;
        let all = states.iter().flat_map(|state| state["addresses"].as_array()).flatten();
        let read = |one: &Value| one["address"].as_str()?.parse::<IpAddr>().ok();
        Ok(all.filter_map(read).collect())
    }

    /// Gives what has just started what its record says, in a guest that can keep to it.
    pub(super) async fn let_in(&self, name: &str, record: &Record) -> Result<()> {
        if !self.by_guests() || record.gate || record.egress == Policy::None {
            return Ok(());
        }
        let turn = self.changes.of(name);
        let _alone = turn.write().await;
        // What was changed while it booted holds.
        let (instance, now) = self.instance(name).await?;
        let record = if now.token == record.token { &now } else { record };
        if record.egress == Policy::None {
            return Ok(());
        }
        let fence = self.enclose(name, record).await?;
        let enclosed = Record { fence, ..record.clone() };
        if fence != record.fence {
            self.write_down(name, &enclosed).await?;
        }
        self.enforce(name, &enclosed, &instance).await?;
        self.plug(name, &enclosed, &instance).await
    }

    /// Puts a policy in force in a running guest.
    pub(super) async fn enforce(
        &self,
        name: &str,
        record: &Record,
        instance: &Value,
    ) -> Result<()> {
        let first = instance["config"][LOWLEVEL].as_str().is_some_and(|text| text.contains(GUARD));
        let boot = if first { Boot::First } else { Boot::Init };
        let ground = self.told(name, record, &self.ground().await?);
        // Without a guard, nothing holds it back.
        let known = !is_ruled(record);
        self.put_in_force(name, record, &ground, boot, known).await.map(drop)
    }

    /// Gives a running guest the interfaces that it does not have yet.
    async fn plug(&self, name: &str, record: &Record, instance: &Value) -> Result<()> {
        let cards = match record.fence && is_ruled(record) {
            true => super::fence::cards(record, &self.pool.networks),
            false => super::devices::cards(record, &self.pool),
        };
        let fits = |(name, card): (&String, &Value)| {
            let own = &instance["devices"][name];
            let is_card = own["type"] == "nic";
            match card["type"] == "nic" {
                true => is_card && own["network"] == card["network"],
                false => !is_card,
            }
        };
        if cards.iter().all(fits) {
            return Ok(());
        }
        let path = format!("/1.0/instances/{name}");
        if let Err(fail) = self.client.run(Method::PATCH, &path, &json!({"devices": cards})).await {
            return Err(self.explain(name, fail, "giving it its network").await);
        }
        self.wake(name).await
    }

    /// Takes the interfaces of a sandbox that is about to start with files that are not its latest.
    pub(super) async fn unplug(&self, name: &str, record: &Record) -> Result<()> {
        if !self.by_guests() || !is_ruled(record) {
            return Ok(());
        }
        let (mut instance, _) = self.instance(name).await?;
        if let Some(devices) = instance["devices"].as_object_mut() {
            devices.retain(|_, device| device["type"] != "nic");
        }
        let path = format!("/1.0/instances/{name}");
        match self.client.run(Method::PUT, &path, &instance).await {
            Ok(_) => Ok(()),
            Err(fail) => Err(self.explain(name, fail, "taking its network").await),
        }
    }

    /// Changes a policy that no gate has a part in: first what is in force, then what is written down.
    pub(super) async fn change_by_guest(
        &self,
        name: &str,
        change: impl FnOnce(&mut Policy) -> Result<()>,
    ) -> Result<()> {
        let turn = self.changes.of(name);
        let _alone = turn.write().await;
        let (mut instance, before) = self.instance(name).await?;
        let mut record = before.clone();
        change(&mut record.egress)?;
        self.capabilities.require_egress(&record.egress)?;
        self.gate_of(&record)?;
        if super::egress::drop_interfaces(&mut record) {
            super::devices::without_nics(&mut instance, &before);
            self.put(name, &instance, "setting the policy").await?;
        }
        let state = record::state(&instance);
        let asked = record.egress != Policy::None && !record.gate;
        if !asked || state == State::Stopped {
            return self.set_interfaces(name, instance, &record).await;
        }
        if state != State::Running {
            return Err(Error::Busy {
                name: name.to_owned(),
                what: "its processes are frozen".into(),
            });
        }
        record.fence = self.enclose(name, &record).await?;
        let mut done = self.enforce(name, &record, &instance).await;
        if done.is_ok() {
            done = self.write_down(name, &record).await;
        }
        if let Err(error) = done {
            if before.egress != Policy::None {
                self.enclose(name, &before).await?;
                self.enforce(name, &before, &instance).await?;
            }
            return Err(error);
        }
        if record.fence {
            // Who looked its names up meanwhile, for the policy of before, is overruled.
            self.enclose(name, &record).await?;
        }
        self.plug(name, &record, &instance).await?;
        if before.fence && !record.fence {
            self.open_up(name, &before).await;
        }
        self.await_network(name).await
    }

    /// Waits until a guest has a way out.
    pub(super) async fn await_network(&self, name: &str) -> Result<()> {
        let seconds = super::lifecycle::NETWORK.as_secs().to_string();
        let fields = self.ask_once(name, &["network", &seconds]).await?;
        match fields.first().is_some_and(|up| up == b"up") {
            true => Ok(()),
            false => {
                let (_, record) = self.instance(name).await?;
                let own = match record.fence {
                    true => format!(
                        ", {} on the server, which a firewall there may not let through",
                        super::fence::network(&record)
                    ),
                    false => String::new(),
                };
                Err(Error::Timeout {
                    what: format!("the network of sandbox '{name}'{own}"),
                    after: super::lifecycle::NETWORK,
                })
            }
        }
    }

    /// What a guest has refused itself.
    pub(super) async fn log_of_guest(&self, name: &str) -> Result<EgressLog> {
        let (instance, record) = self.instance(name).await?;
        if record.gate {
            return Ok(EgressLog::default());
        }
        if record::state(&instance) == State::Running {
            return self.counted(name).await;
        }
        let path = format!("/1.0/instances/{name}/files?path={LOG}");
        let text = self.client.file(&path).await.ok().flatten().unwrap_or_default();
        Ok(read_log(&String::from_utf8_lossy(&text)))
    }
}
