//! Rules that a guest keeps to itself, where this machine can do nothing for its network.
//!
//! Whatever starts because we say so starts without an interface, unless nothing but itself can have changed
//! what its guard holds. It gets one when the guard has said which policy is in force.

use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;

use futures_util::future::try_join_all;
use serde_json::{Map, Value};

use super::Inner;
use super::client::escape;
use super::cluster::at;
use super::lifecycle::LOWLEVEL;
use super::record::{self, Record};
use super::settings::{TRIES, contended};
use crate::backend::guest::{Ask, Boot, Enforce, Fail, Ground, is_ruled, read_log};
use crate::sandbox::{
    Capabilities, Capability, EgressLog, Enforcer, Error, Kind, Placement, Policy, Result, State,
};

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

    /// What is known of the place that guests are in, on a server that is alone.
    #[cfg(feature = "local")]
    pub(super) async fn ground(&self) -> Result<Ground> {
        self.ground_of("").await
    }

    /// What is known of the place that a member's guests are in: addresses of its machine, where it tells them.
    async fn ground_of(&self, member: &str) -> Result<Ground> {
        let member = if self.cluster.is_some() { member } else { "" };
        let grounds = || self.grounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = grounds().get(member) {
            return Ok(known.clone());
        }
        let (mut hosts, unknown) = match self.hosts(member).await {
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
            grounds().insert(member.to_owned(), ground.clone());
        }
        Ok(ground)
    }

    /// The addresses of a machine on its networks. A member of a cluster that is not the one spoken to tells those
    /// that it listens at, besides: nobody lists interfaces that only it has.
    async fn hosts(&self, member: &str) -> std::result::Result<Vec<IpAddr>, Fail> {
        let target = (!member.is_empty()).then(|| Placement::Member(member.to_owned()));
        let all = self.client.get("/1.0/networks").await?;
        let paths = all.as_array().into_iter().flatten().filter_map(Value::as_str);
        let names = paths.filter_map(|path| path.split('?').next()?.rsplit('/').next());
        // Theirs are in a range that no rule opens.
        let names = names.filter(|name| !super::fence::is_ours(name));
        let states = names.map(|name| {
            let path = at(&format!("/1.0/networks/{}/state", escape(name)), target.as_ref());
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
        let mut hosts: Vec<IpAddr> = all.filter_map(read).collect();
        if target.is_some() {
            let server = self.client.get(&at("/1.0", target.as_ref())).await?;
            let places = server["environment"]["addresses"].as_array().into_iter().flatten();
            let read = |one: &Value| one.as_str()?.parse::<SocketAddr>().ok();
            hosts.extend(places.filter_map(read).map(|place| place.ip()));
        }
        Ok(hosts)
    }

    /// Gives what has just started what its record says, in a guest that can keep to it.
    pub(super) async fn let_in(&self, name: &str, record: &Record) -> Result<()> {
        if !self.by_guests() || record.gate || record.egress == Policy::None {
            return Ok(());
        }
        let turn = self.changes.of(name);
        let _alone = turn.write().await;
        for _ in 0..TRIES {
            // What was changed while it booted holds.
            let (instance, now) = self.instance(name).await?;
            if now.token != record.token {
                // Another one has its name.
                return Err(Error::not_found(Kind::Sandbox, name));
            }
            if now.egress == Policy::None {
                return Ok(());
            }
            let fence = self.enclose(name, &now).await?;
            let enclosed = Record { fence, ..now.clone() };
            self.enforce(name, &enclosed, &instance).await?;
            let cards = self.lacking(&enclosed, &instance);
            if self.write_down(name, &now, &enclosed, &cards).await? {
                return if cards.is_empty() { Ok(()) } else { self.wake(name).await };
            }
        }
        Err(contended(name))
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
        let member = instance["location"].as_str().unwrap_or_default();
        let ground = self.told(name, record, &self.ground_of(member).await?);
        // Without a guard, nothing holds it back.
        let known = !is_ruled(record);
        self.put_in_force(name, record, &ground, boot, known).await.map(drop)
    }

    /// The interfaces that a running guest does not have yet; none where it has them all.
    fn lacking(&self, record: &Record, instance: &Value) -> Map<String, Value> {
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
        if cards.iter().all(fits) { Map::new() } else { cards }
    }

    /// Takes the interfaces of a sandbox that is about to start with files that are not its latest.
    pub(super) async fn unplug(&self, name: &str, record: &Record) -> Result<()> {
        if !self.by_guests() || !is_ruled(record) {
            return Ok(());
        }
        self.alter(name, "taking its network", |instance| {
            let Some(devices) = instance["devices"].as_object_mut() else { return Ok(false) };
            let before = devices.len();
            devices.retain(|_, device| device["type"] != "nic");
            Ok(devices.len() != before)
        })
        .await
    }

    /// Changes a policy that no gate has a part in: first what is in force, then what is written down. False
    /// when somebody else has changed it meanwhile: then what is in force may be neither theirs nor this, until
    /// one of both comes to its end.
    pub(super) async fn change_by_guest(
        &self,
        name: &str,
        change: &(impl Fn(&mut Policy) -> Result<()> + Sync),
    ) -> Result<bool> {
        let turn = self.changes.of(name);
        let _alone = turn.write().await;
        let (instance, before) = self.instance(name).await?;
        let mut record = before.clone();
        change(&mut record.egress)?;
        self.capabilities.require_egress(&record.egress)?;
        self.gate_of(&record)?;
        if super::egress::drop_interfaces(&mut record) {
            self.alter(name, "setting the policy", |instance| {
                super::devices::without_nics(instance, &before);
                Ok(true)
            })
            .await?;
        }
        let state = record::state(&instance);
        let asked = record.egress != Policy::None && !record.gate;
        if !asked || state == State::Stopped {
            return self.set_interfaces(name, &before, &record).await;
        }
        if state != State::Running {
            return Err(Error::Busy {
                name: name.to_owned(),
                what: "its processes are frozen".into(),
            });
        }
        record.fence = self.enclose(name, &record).await?;
        // What somebody else has taken away meanwhile is not given back: both are one change, or none.
        let cards = self.lacking(&record, &instance);
        let done = match self.enforce(name, &record, &instance).await {
            Ok(()) => self.write_down(name, &before, &record, &cards).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => {
                self.put_back(name).await?;
                return Err(error);
            }
        }
        if record.fence {
            // Who looked its names up meanwhile, for the policy of before, is overruled.
            self.enclose_as_written(name, &record).await?;
        }
        if !cards.is_empty() {
            self.wake(name).await?;
        }
        if before.fence && !record.fence {
            self.open_up(name, &before).await;
        }
        self.await_network(name).await.map(|()| true)
    }

    /// Puts in force what is written down, after a change that came to nothing.
    pub(super) async fn put_back(&self, name: &str) -> Result<()> {
        let (instance, record) = self.instance(name).await?;
        if record.egress == Policy::None || record::state(&instance) != State::Running {
            return Ok(());
        }
        self.enclose(name, &record).await?;
        self.enforce(name, &record, &instance).await
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
