//! What a sandbox may reach, its ports and its log. By this machine, where it is the server's own; else there
//! is an interface or none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Map;

use super::host::{Host, Lock, is_gated};
use super::news::News;
use super::record::{self, Record};
use super::settings::{TRIES, contended};
use super::{BACKEND, Inner};
use crate::backend::guest::Guests;
use crate::sandbox::{
    Capability, Device, EgressLog, Error, Info, Policy, Published, Result, State, check_port,
};

/// How long a sandbox may take that restarts by itself.
const PATIENCE: Duration = Duration::from_secs(5);

impl Inner {
    /// What a new sandbox's record says of its network.
    pub(super) fn takes_gate(&self, record: &Record) -> bool {
        self.host.is_ok()
            && !record.devices.iter().any(Device::is_nic)
            && !super::hardware::has_card(&record.hardware)
    }

    /// This machine, where a sandbox's network is its business; nothing where nobody's is to do.
    pub(super) fn gate_of(&self, record: &Record) -> Result<Option<&Host>> {
        match &self.host {
            Ok(host) if record.gate => Ok(Some(host)),
            Err(why) if record.gate && is_gated(record) => Err(elsewhere(why)),
            _ => Ok(None),
        }
    }

    /// Lets what has just started have what its record says. With a lock of the caller's that is the record at
    /// hand; else the one that is there now: somebody else may have changed it since that was read.
    pub(super) async fn admit(
        &self,
        name: &str,
        record: &Record,
        lock: Option<&Lock>,
    ) -> Result<()> {
        let Some(host) = self.gate_of(record)? else { return Ok(()) };
        let (own, now);
        let (lock, record) = match lock {
            Some(lock) => (lock, record),
            None if !is_gated(record) && !host.keeps(name) => return Ok(()),
            None => {
                own = host.changing(name).await?;
                (_, now) = self.instance(name).await?;
                (&own, &now)
            }
        };
        match record.gate && is_gated(record) {
            true => self.admit_locked(host, lock, name, record).await,
            false => Ok(()),
        }
    }

    /// Nobody else changes a sandbox's network as long as it is held; none where this machine has no part in it.
    pub(super) async fn changing(&self, name: &str) -> Result<Option<Lock>> {
        match &self.host {
            Ok(host) => host.changing(name).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn admit_locked(
        &self,
        host: &Host,
        lock: &Lock,
        name: &str,
        record: &Record,
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut news: Option<News> = None;
        loop {
            let path = format!("/1.0/instances/{name}/state");
            let state = match self.client.get(&path).await {
                Ok(state) => state,
                Err(fail) => return Err(self.explain(name, fail, "looking at it").await),
            };
            let pid = state["pid"].as_u64().filter(|pid| *pid > 0);
            if let Some(pid) = pid
                && host.admit(lock, name, record, pid).await?
            {
                return Ok(());
            }
            // It may be restarting by itself.
            if state["status_code"] == 102 || Instant::now() >= until {
                return Err(Error::NotRunning { name: name.to_owned() });
            }
            news = match news {
                // What happened before somebody listened is in the state that is read next.
                None => match News::of(&self.client).await {
                    Ok(news) => Some(news),
                    Err(fail) => return Err(self.explain(name, fail, "looking at it").await),
                },
                Some(mut news) => news.wait(name, until).await.then_some(news),
            };
        }
    }

    /// Lets a sandbox have its network again when it has restarted by itself, or when what served it was
    /// killed.
    pub(super) async fn keep_serving(&self, name: &str, record: &Record) -> Result<()> {
        let Ok(host) = &self.host else { return Ok(()) };
        // The record may have been read before somebody else changed it.
        if !(host.keeps(name) || record.gate && is_gated(record)) {
            return Ok(());
        }
        if host.is_ready(name).await {
            return host.revive().await;
        }
        let (_, record) = self.instance(name).await?;
        match self.admit(name, &record, None).await {
            // The command says it better.
            Err(Error::NotRunning { .. } | Error::Busy { .. }) => Ok(()),
            done => done,
        }
    }

    /// Changes a policy as it is now, whoever else changes it at the same time.
    pub(super) async fn change_policy(
        &self,
        name: &str,
        change: impl Fn(&mut Policy) -> Result<()> + Sync,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let done = match &self.host {
                Ok(host) => self.change_by_gate(host, name, &change).await?,
                Err(_) => self.change_by_guest(name, &change).await?,
            };
            if done {
                return Ok(());
            }
        }
        if self.by_guests() {
            self.put_back(name).await?;
        }
        Err(contended(name))
    }

    /// By the gate: first what is in force, then what is written down. False when somebody else has changed
    /// that meanwhile.
    async fn change_by_gate(
        &self,
        host: &Host,
        name: &str,
        change: &(impl Fn(&mut Policy) -> Result<()> + Sync),
    ) -> Result<bool> {
        self.instance(name).await?;
        let lock = host.changing(name).await?;
        let (instance, mut record) = self.instance(name).await?;
        let before = record.clone();
        change(&mut record.egress)?;
        drop_interfaces(&mut record);
        super::hardware::drop_card(&mut record);
        self.capabilities.require_egress(&record.egress)?;
        record.gate = self.takes_gate(&record);
        if record == before {
            return Ok(true);
        }
        let state = record::state(&instance);
        let running = matches!(state, State::Running | State::Frozen);
        // First it loses the interface that it has.
        if !before.gate && !self.set_interfaces(name, &before, &record).await? {
            return Ok(false);
        }
        // Also while it is being frozen or stopped: what is served must not stay as it was.
        let served = host.is_served(name).await;
        let mut in_force = served;
        let mut done = Ok(true);
        if served {
            done = host.set(&lock, name, &record.egress).await.map(|()| true);
        } else if running && is_gated(&record) {
            in_force = true;
            done = self.admit_locked(host, &lock, name, &record).await.map(|()| true);
        }
        if done.is_ok() && before.gate {
            done = self.write_down(name, &before, &record, &Map::new()).await;
        }
        if !matches!(done, Ok(true)) {
            if in_force && before.gate && host.is_served(name).await {
                host.set(&lock, name, &before.egress).await?;
            }
            return done;
        }
        drop(lock);
        if state == State::Running && is_gated(&record) && !is_gated(&before) {
            self.identify(name, &record).await?;
        }
        Ok(true)
    }

    /// Gives an instance the interfaces that go with its record, and writes that down, if what is written there
    /// is still `before`; whether it was.
    pub(super) async fn set_interfaces(
        &self,
        name: &str,
        before: &Record,
        record: &Record,
    ) -> Result<bool> {
        const DOING: &str = "setting the policy";
        for _ in 0..TRIES {
            let (mut now, tag) = self.settings(name, DOING).await?;
            if Record::read(&now).as_ref() != Some(before) {
                return Ok(false);
            }
            let mut devices = super::devices::devices(record, &self.pool);
            if let Some(devices) = devices.as_object_mut() {
                devices.extend(super::ports::devices(&now));
                devices.extend(super::caches::devices_of(&now));
            }
            // Its size is that of the image and the limit.
            devices["root"] = now["devices"]["root"].take();
            for (key, value) in record.keys()? {
                match value.as_str() {
                    Some("") => drop(now["config"].as_object_mut().map(|all| all.remove(&key))),
                    _ => now["config"][&key] = value,
                }
            }
            now["devices"] = devices;
            if self.replace(name, DOING, &tag, &now).await? {
                if record::state(&now) == State::Running && !record.gate {
                    self.settle(name, record).await?;
                }
                return Ok(true);
            }
        }
        Err(contended(name))
    }

    pub(super) async fn egress_log(&self, name: &str) -> Result<EgressLog> {
        match &self.host {
            Ok(host) => {
                let (_, record) = self.instance(name).await?;
                host.log(name, &record).await
            }
            Err(_) => self.log_of_guest(name).await,
        }
    }

    pub(super) async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        self.capabilities.require(Capability::Publish)?;
        check_port(port)?;
        let Ok(host) = &self.host else { return self.publish_there(name, port, at).await };
        self.instance(name).await?;
        let lock = host.changing(name).await?;
        let (instance, record) = self.instance(name).await?;
        if !matches!(record::state(&instance), State::Running | State::Frozen) {
            return Err(Error::NotRunning { name: name.to_owned() });
        }
        if !host.is_served(name).await {
            self.admit_locked(host, &lock, name, &record).await?;
        }
        host.publish(&lock, name, port, at).await
    }

    pub(super) async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        self.capabilities.require(Capability::Publish)?;
        check_port(port)?;
        let Ok(host) = &self.host else { return self.unpublish_there(name, port, at).await };
        self.instance(name).await?;
        let lock = host.changing(name).await?;
        host.unpublish(&lock, name, port, at).await
    }

    /// Adds what is open of a sandbox.
    pub(super) async fn with_ports(&self, mut info: Info) -> Info {
        if let (Ok(host), State::Running | State::Frozen) = (&self.host, &info.state) {
            info.ports.extend(host.ports(&info.name).await);
        }
        info
    }
}

/// An interface reaches everything, and goes with the policy that lets it: whether one did.
pub(super) fn drop_interfaces(record: &mut Record) -> bool {
    let before = record.devices.len();
    if record.egress != Policy::Unrestricted {
        record.devices.retain(|device| !device.is_nic());
    }
    record.devices.len() != before
}

fn elsewhere(why: &str) -> Error {
    let hint = format!("run sandscript on the server's machine, as root: {why}");
    Error::unsupported("a network by the server's machine", BACKEND, hint)
}
