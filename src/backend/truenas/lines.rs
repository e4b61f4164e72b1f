//! The line to each guest that is kept: by SSH or by the NAS's shell, whichever works.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::guest::{Agent, Fail, Record};
use super::Inner;
use super::agent::{self, Where};
use super::api::Api;
use super::host::HOST;
use super::way::{Way, Ways};
use crate::sandbox::{Policy, State};
use crate::transport::jsonrpc::ShellLine;

/// What is kept of each guest. One at a time opens a line to it.
#[derive(Default)]
pub(super) struct Lines {
    all: Mutex<HashMap<String, Slot>>,
    /// Guests that are being made ready, and how often: they may have no network yet.
    settling: Mutex<HashMap<String, usize>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Open>>>;

/// The lines to a guest.
pub(super) struct Open {
    pub at: Where,
    pub record: Arc<Record>,
    /// What the NAS's shell can be opened on, or why not: asked for together with what is kept of the sandbox.
    line: Option<Result<ShellLine, Fail>>,
    /// By the NAS's shell.
    pub shell: Option<Arc<Agent>>,
    /// By SSH.
    #[cfg(feature = "ssh")]
    pub ssh: Option<(Arc<Agent>, Arc<crate::transport::ssh::Ssh>)>,
    /// What commands go by, once that was picked.
    pub way: Option<Way>,
}

/// A line that is open, and what was known of the sandbox when it was opened.
#[derive(Clone)]
pub(super) struct Known {
    pub agent: Arc<Agent>,
    pub record: Arc<Record>,
}

impl Open {
    fn new(at: Where, record: Record) -> Open {
        Open {
            at,
            record: Arc::new(record),
            line: None,
            shell: None,
            #[cfg(feature = "ssh")]
            ssh: None,
            way: None,
        }
    }

    fn known(&self, agent: &Arc<Agent>) -> Option<Known> {
        let alive = !agent.is_over();
        alive.then(|| Known { agent: Arc::clone(agent), record: Arc::clone(&self.record) })
    }

    /// The line that is to be used now, if it is open.
    fn ready(&mut self, settling: bool) -> Option<Known> {
        match &self.way {
            _ if settling => self.known(self.shell.as_ref()?),
            None => None,
            Some(Way::Shell(_)) => self.known(self.shell.as_ref()?),
            #[cfg(feature = "ssh")]
            Some(Way::Ssh(_)) => {
                // Nobody uses the other one any more.
                let unused =
                    |shell: &mut Arc<Agent>| Arc::get_mut(shell).is_some_and(|a| a.is_idle());
                if self.shell.as_mut().is_some_and(unused) {
                    self.shell = None;
                }
                self.known(&self.ssh.as_ref()?.0)
            }
            #[cfg(not(feature = "ssh"))]
            Some(Way::Ssh(_)) => None,
        }
    }

    /// Whether there is a line of any kind.
    fn is_alive(&self) -> bool {
        #[cfg(feature = "ssh")]
        if self.ssh.as_ref().is_some_and(|(agent, _)| !agent.is_over()) {
            return true;
        }
        self.shell.as_ref().is_some_and(|shell| !shell.is_over())
    }
}

/// While it lives, a guest is worked on by the NAS's shell: it needs no network for that.
pub(super) struct Settling<'a>(&'a Lines, String);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        let mut all = self.0.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

impl Lines {
    fn slot(&self, name: &str) -> Slot {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// Works by the NAS's shell from now on.
    pub fn settle(&self, name: &str) -> Settling<'_> {
        let mut all = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(name.to_owned()).or_default() += 1;
        Settling(self, name.to_owned())
    }

    fn is_settling(&self, name: &str) -> bool {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Hangs up on a guest that what is known of has changed: its network may have gone.
    pub async fn know(&self, name: &str, record: &Record) {
        let slot = self.slot(name);
        if let Some(open) = slot.lock().await.as_mut() {
            open.record = Arc::new(record.clone());
            #[cfg(feature = "ssh")]
            {
                open.ssh = None;
            }
            open.way = None;
        }
    }

    /// Lets go of a guest.
    pub fn forget(&self, name: &str) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Inner {
    /// The agent in a guest; a new one when there is none, or it went with the guest.
    pub(super) async fn agent(&self, name: &str) -> Result<Known, Fail> {
        let slot = self.lines.slot(name);
        let mut slot = slot.lock().await;
        let settling = self.lines.is_settling(name) || name == HOST;
        if let Some(known) = slot.as_mut().and_then(|open| open.ready(settling)) {
            return Ok(known);
        }
        // What is known of it may be another's by now.
        if !slot.as_ref().is_some_and(Open::is_alive) {
            *slot = Some(self.meet(name, settling).await?);
        }
        let Some(open) = slot.as_mut() else { return Err(super::agent::gone()) };
        if settling {
            self.by_shell(open).await?;
        } else {
            self.pick(name, open).await?;
        }
        open.ready(settling).ok_or_else(super::agent::gone)
    }

    /// Where a guest is, and what is kept of it.
    async fn meet(&self, name: &str, settling: bool) -> Result<Open, Fail> {
        if name == HOST {
            let sudo = self.user.as_deref().is_some_and(|user| user != "root");
            return Ok(Open::new(Where::Host { sudo }, Record::default()));
        }
        let row = async {
            let row = self.row(name).await;
            row.map_err(|error| Fail::Lost(error.to_string()))
        };
        // One that is known by SSH needs no shell.
        let line = async {
            Ok(match settling || !self.remembers(name) {
                true => Some(agent::line(&self.client).await),
                false => None,
            })
        };
        let (row, line) = tokio::try_join!(row, line)?;
        let at = match self.api {
            Api::Virt => Where::Instance(name.to_owned()),
            Api::Container => Where::Container(row.id),
        };
        Ok(Open { line, ..Open::new(at, row.record) })
    }

    /// The line by the NAS's shell.
    pub(super) async fn by_shell(&self, open: &mut Open) -> Result<Arc<Agent>, Fail> {
        if let Some(shell) = open.shell.as_ref().filter(|shell| !shell.is_over()) {
            return Ok(Arc::clone(shell));
        }
        let line = match open.line.take() {
            Some(line) => line?,
            None => agent::line(&self.client).await?,
        };
        let shell = Arc::new(agent::start(line, &open.at).await?);
        open.shell = Some(Arc::clone(&shell));
        Ok(shell)
    }

    /// Whether SSH is thought of for a sandbox.
    fn may_ssh(&self, record: &Record) -> bool {
        self.ssh.is_some() && self.ways != Ways::Shell && record.egress != Policy::None
    }

    /// Picks the way that commands go, and opens it.
    async fn pick(&self, name: &str, open: &mut Open) -> Result<(), Fail> {
        if self.ways == Ways::Ssh && !self.may_ssh(&open.record) {
            let hint = match &self.ssh {
                None => "there is no folder for its key: set HOME, or leave exec = \"ssh\" out",
                Some(_) => {
                    "egress \"none\" leaves it without a network: give it one, or leave exec = \"ssh\" out"
                }
            };
            return Err(Fail::NoWay(hint.into()));
        }
        let mut why = None;
        if self.may_ssh(&open.record) {
            match self.by_ssh(name, open).await {
                Ok(place) => {
                    // Those that are kept go the other way.
                    self.sessions.end(name);
                    open.way = Some(Way::Ssh(place));
                    return Ok(());
                }
                Err(fail) if self.ways == Ways::Ssh => return Err(fail),
                Err(Fail::NoWay(text) | Fail::Unreachable(text) | Fail::Lost(text)) => {
                    why = Some(text)
                }
                Err(fail) => return Err(fail),
            }
        }
        self.by_shell(open).await?;
        open.way = Some(Way::Shell(why));
        Ok(())
    }

    #[cfg(not(feature = "ssh"))]
    fn remembers(&self, _name: &str) -> bool {
        false
    }

    #[cfg(not(feature = "ssh"))]
    async fn by_ssh(&self, _name: &str, _open: &mut Open) -> Result<String, Fail> {
        Err(Fail::NoWay("this sandscript was built without SSH".into()))
    }

    /// Whether SSH could be used, and why not.
    #[cfg(not(feature = "ssh"))]
    pub(super) async fn try_ssh(&self) -> Result<(), String> {
        Err("this sandscript was built without SSH".into())
    }

    /// The way that commands of a running sandbox go, as far as that is known; it is tried where SSH
    /// is thought of.
    pub(super) async fn way(&self, name: &str, state: &State, record: &Record) -> Option<String> {
        if *state != State::Running || self.unknown.is_some() {
            return None;
        }
        if !self.may_ssh(record) && self.ways != Ways::Ssh {
            return Some(Way::Shell(None).to_string());
        }
        if let Err(Fail::NoWay(why)) = self.agent(name).await {
            return Some(why);
        }
        let slot = self.lines.slot(name);
        let slot = slot.lock().await;
        slot.as_ref().and_then(|open| open.way.as_ref()).map(Way::to_string)
    }
}
