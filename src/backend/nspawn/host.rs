//! How machines are started on this host.

use super::groups::Groups;
use super::systemd::{self, Systemd};
use crate::backend::local::cgroup::Controller;

/// Who keeps machines.
pub(super) enum Host {
    /// We do, in cgroups of ours: systemd is not the first process.
    Alone(Groups),
    /// The host's systemd.
    Systemd(Systemd),
}

impl Host {
    /// Finds out which. `scope` keeps stores apart.
    pub fn probe(scope: &str) -> Host {
        match systemd::is_booted() {
            true => Host::Systemd(Systemd::probe()),
            false => Host::Alone(Groups::probe(scope)),
        }
    }

    /// The host's systemd, where it keeps machines.
    pub fn systemd(&self) -> Option<&Systemd> {
        match self {
            Host::Alone(_) => None,
            Host::Systemd(systemd) => Some(systemd),
        }
    }

    /// Why something can't be limited here; none when it can.
    pub fn missing(&self, controller: Controller) -> Option<&str> {
        match self {
            Host::Alone(groups) => groups.missing(controller),
            Host::Systemd(systemd) => systemd.missing(controller),
        }
    }

    /// Why nothing can be made to stand still; none when it can.
    pub fn cannot_freeze(&self) -> Option<&'static str> {
        match self {
            Host::Alone(groups) => groups.cannot_freeze(),
            Host::Systemd(systemd) => systemd.cannot_freeze(),
        }
    }
}
