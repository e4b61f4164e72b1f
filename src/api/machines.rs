//! The backends of a run: the one that it began with, and those that cells ask for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::Host;
use crate::sandbox::{self, Backend, Error};
use crate::workflow::{Event, Machine};

/// A backend, and the machine that it drives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineName {
    /// The backend.
    pub backend: String,
    /// The machine that it drives, where that is another one.
    pub host: Option<String>,
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{}@{host}", self.backend),
            None => f.write_str(&self.backend),
        }
    }
}

/// Opens the backends that a script names, and decides which it may.
#[async_trait]
pub trait Opener: Send + Sync {
    /// Opens a backend by name, on the machine that it drives.
    async fn open(&self, backend: &str, host: Option<&str>) -> sandbox::Result<Arc<dyn Backend>>;
}

/// What all hosts of a run share: who opens a backend, and those that are open.
pub(super) struct Machines {
    pub first: Weak<Host>,
    pub opener: Option<Arc<dyn Opener>>,
    /// Beside the first.
    pub open: tokio::sync::Mutex<BTreeMap<MachineName, Arc<Host>>>,
    /// All that were opened, also when the run is over.
    pub opened: Mutex<Vec<Arc<dyn Backend>>>,
}

/// How many bases are built on a backend at once.
pub(super) fn builders(backend: &dyn Backend) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(backend.capabilities().parallelism.clamp(2, 8)))
}

impl Host {
    /// What the backend is called.
    pub fn machine(&self) -> &MachineName {
        &self.machine
    }

    /// The backends that the run has used: the one that it began with first.
    pub fn backends(&self) -> Vec<Arc<dyn Backend>> {
        let others = self.machines.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.machines.first.upgrade();
        let own = first
            .map_or_else(|| Arc::clone(&self.run.backend), |first| Arc::clone(&first.run.backend));
        [own].into_iter().chain(others.iter().cloned()).collect()
    }

    /// As the workflow knows it, where it is not what the run began with.
    pub(super) fn as_machine(&self) -> Option<Machine> {
        let name = self.run.place.clone()?;
        Some(Machine { name, backend: Arc::clone(&self.run.backend) })
    }

    /// The same run on another backend, which is opened where that was not done yet.
    pub(super) async fn at(
        self: &Arc<Self>,
        backend: Option<&str>,
        host: Option<&str>,
    ) -> sandbox::Result<Arc<Host>> {
        let name = MachineName {
            backend: backend.unwrap_or(&self.machine.backend).to_owned(),
            // A machine belongs to the backend that it was named for.
            host: match host {
                None if backend.is_none_or(|name| name == self.machine.backend) => {
                    self.machine.host.clone()
                }
                host => host.map(str::to_owned),
            },
        };
        if name == self.machine {
            return Ok(Arc::clone(self));
        }
        let first = self.machines.first.upgrade();
        if let Some(first) = first.as_ref().filter(|first| first.machine == name) {
            return Ok(Arc::clone(first));
        }
        let mut open = self.machines.open.lock().await;
        if let Some(host) = open.get(&name) {
            return Ok(Arc::clone(host));
        }
        let Some(opener) = &self.machines.opener else {
            return Err(Error::invalid_hint(
                "backend",
                format!("this run has no other backend than {}", self.machine),
                "leave the option out",
            ));
        };
        let backend = opener.open(&name.backend, name.host.as_deref()).await?;
        self.run
            .events
            .send(Event::BackendOpened { backend: name.backend.clone(), host: name.host.clone() });
        let opened = &self.machines.opened;
        opened.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&backend));
        let host = Arc::new(self.beside(name.clone(), backend));
        open.insert(name, Arc::clone(&host));
        Ok(host)
    }

    /// All of the run, on another backend, where it has made nothing yet.
    fn beside(&self, machine: MachineName, backend: Arc<dyn Backend>) -> Host {
        let builders = builders(&*backend);
        let run = self.run.on(&Machine { name: machine.to_string(), backend });
        Host {
            run,
            builders,
            registry: Arc::clone(&self.registry),
            print: self.print.clone(),
            params: self.params.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            used: Arc::clone(&self.used),
            timeout: self.timeout,
            operations: self.operations,
            memory: self.memory,
            made: Mutex::default(),
            asked: Arc::clone(&self.asked),
            background: self.background.clone(),
            plan: self.plan.clone(),
            reports: Arc::clone(&self.reports),
            modules: Arc::clone(&self.modules),
            recorder: self.recorder.clone(),
            machine,
            machines: Arc::clone(&self.machines),
            egress: Arc::clone(&self.egress),
            allow_call: self.allow_call,
        }
    }
}
