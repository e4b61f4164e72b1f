//! What a machine may reach, its ports and its log. It has no interface: all that it sends goes through the
//! gate, which is outside, so that whatever its root does there closes the door further.

use std::net::SocketAddr;

use super::Inner;
use super::record::{Machine, Run};
use crate::backend::local::gatehouse::{Entry, Guest, SERVER};
use crate::sandbox::{
    Capability, EgressLog, Error, Info, Policy, Published, Result, State, check_port,
};

/// Whether it takes a gate to keep what holds for a machine.
pub(super) fn is_gated(machine: &Machine) -> bool {
    // Another one of a file has interfaces of its own, or nothing at all.
    (machine.gate || !machine.authored)
        && (machine.record.egress != Policy::None || !machine.record.networks.is_empty())
}

/// Whom its programs ask for names.
pub(super) fn server(machine: &Machine) -> String {
    if is_gated(machine) { SERVER.to_string() } else { String::new() }
}

fn guest(name: &str, machine: &Machine) -> Guest {
    let record = &machine.record;
    Guest {
        name: name.to_owned(),
        hostname: Some(record.hostname.clone()).filter(|hostname| hostname != name),
        limits: record.limits.clone(),
        networks: record.networks.clone(),
        egress: record.egress.clone(),
    }
}

impl Inner {
    /// Lets what runs have what its record says. Somebody holds the machine's lock.
    pub(super) async fn admit(&self, name: &str, machine: &Machine, run: &Run) -> Result<()> {
        if !is_gated(machine) {
            return Ok(());
        }
        self.admit_in_full(name, machine, run).await
    }

    async fn admit_in_full(&self, name: &str, machine: &Machine, run: &Run) -> Result<()> {
        let lock = self.gatehouse.changing(name).await?;
        let entry = match Entry::of(run.leader) {
            Ok(entry) if run.is_alive() => entry,
            Ok(_) => return Err(Error::NotRunning { name: name.to_owned() }),
            Err(error) => return Err(Error::io(format!("looking at sandbox '{name}'"), error)),
        };
        let guest = guest(name, machine);
        self.gatehouse.admit(&lock, &guest, &machine.record.token, is_gated(machine), entry).await
    }

    /// Lets a machine have its network again when what served it was killed.
    pub(super) async fn keep_serving(&self, name: &str, machine: &Machine) -> Result<()> {
        if !is_gated(machine) && !self.gatehouse.keeps(name) {
            return Ok(());
        }
        if self.gatehouse.is_ready(name).await {
            return self.gatehouse.revive().await;
        }
        let _lock = self.store.changing(name).await?;
        match self.store.run(name)? {
            Some(run) => {
                let machine = self.store.machine(name)?;
                self.admit(name, &machine, &run).await
            }
            // The command says it better.
            None => Ok(()),
        }
    }

    /// Changes a policy: first what is in force, then what is written down.
    pub(super) async fn change_policy(
        &self,
        name: &str,
        change: impl FnOnce(&mut Policy) -> Result<()> + Send,
    ) -> Result<()> {
        self.store.machine(name)?;
        let _lock = self.store.changing(name).await?;
        let mut machine = self.store.machine(name)?;
        self.is_ruled(&machine)?;
        let before = machine.clone();
        change(&mut machine.record.egress)?;
        self.capabilities.require_egress(&machine.record.egress)?;
        if machine == before {
            return Ok(());
        }
        let run = self.store.run(name)?;
        let served = run.is_some() && self.gatehouse.is_served(name).await;
        let in_force = match &run {
            Some(_) if served => {
                let lock = self.gatehouse.changing(name).await?;
                self.gatehouse.set(&lock, name, &machine.record.egress).await
            }
            Some(run) => self.admit(name, &machine, run).await,
            None => Ok(()),
        };
        if let Err(error) = in_force.and_then(|()| self.store.save(name, &machine)) {
            if run.is_some() && self.gatehouse.is_served(name).await {
                let lock = self.gatehouse.changing(name).await?;
                self.gatehouse.set(&lock, name, &before.record.egress).await?;
            }
            return Err(error);
        }
        let opened = is_gated(&machine) && !is_gated(&before);
        match opened && self.state(name)? == State::Running {
            true => self.identify(name, &machine).await,
            false => Ok(()),
        }
    }

    pub(super) async fn egress_log(&self, name: &str) -> Result<EgressLog> {
        let machine = self.store.machine(name)?;
        self.gatehouse.log(name, &machine.record.token).await
    }

    pub(super) async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        self.capabilities.require(Capability::Publish)?;
        check_port(port)?;
        self.store.machine(name)?;
        let _lock = self.store.changing(name).await?;
        let machine = self.store.machine(name)?;
        self.is_ruled(&machine)?;
        let Some(run) = self.store.run(name)? else {
            return Err(Error::NotRunning { name: name.to_owned() });
        };
        if !self.gatehouse.is_served(name).await {
            self.admit_in_full(name, &machine, &run).await?;
        }
        let lock = self.gatehouse.changing(name).await?;
        self.gatehouse.publish(&lock, name, port, at).await
    }

    pub(super) async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        self.capabilities.require(Capability::Publish)?;
        check_port(port)?;
        self.store.machine(name)?;
        let _lock = self.store.changing(name).await?;
        let lock = self.gatehouse.changing(name).await?;
        self.gatehouse.unpublish(&lock, name, port, at).await
    }

    /// Adds what is open of a machine.
    pub(super) async fn with_ports(&self, mut info: Info) -> Info {
        if let State::Running | State::Frozen = &info.state {
            info.ports.extend(self.gatehouse.ports(&info.name).await);
        }
        info
    }

    /// Forgets a machine that is about to be deleted.
    pub(super) async fn forget_network(&self, name: &str) -> Result<()> {
        if self.gatehouse.names()?.iter().any(|one| one == name) {
            let lock = self.gatehouse.changing(name).await?;
            self.gatehouse.forget(lock, name)?;
        }
        Ok(())
    }
}
