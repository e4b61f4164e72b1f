//! The process that carries what sandboxes send: one a store, started at the first need. It outlives
//! the commands that made the sandboxes and ends some time after the last of them. While it is gone,
//! nothing gets out of any of them; the next one takes over the sockets, which each sandbox's process 1
//! keeps.

mod client;
mod dial;
mod peers;
mod publish;
mod serve;
mod thread;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::sandbox::{EgressLog, Limits, Network, Policy, Published};

pub use client::Gate;
pub use serve::{ARGV0, serve};

/// The file in a sandbox's folder that has its log. It is there as soon as it has been served.
pub const LOG: &str = "egress.json";

/// What a gate reads of a sandbox's record, whichever backend has written that.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Who it is.
    pub spec: Guest,
    /// All its connections go through the gate, since its last start.
    pub gated: bool,
    /// Its ports that are open on this host since its last start, and where.
    pub published: Vec<Published>,
}

/// Whom a gate serves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its host name, where that is another.
    pub hostname: Option<String>,
    /// The gate's work for it is within its own bounds.
    pub limits: Limits,
    /// The networks that it is in.
    pub networks: Vec<Network>,
    /// Its policy.
    pub egress: Policy,
}

/// What it is started with.
#[derive(Serialize, Deserialize)]
struct Config {
    /// Name servers to ask; none for the host's.
    servers: Vec<SocketAddr>,
}

/// What it is asked on a connection.
#[derive(Serialize, Deserialize)]
enum Ask {
    /// Serve a sandbox that has just started, by this policy.
    Attach { name: String, policy: Policy },
    /// Serve it by another policy from now on.
    Set { name: String, policy: Policy },
    /// Carry what comes to the listening socket that is sent along to a port of a running sandbox's.
    Publish { name: String, open: Published },
    /// Close a place on this host that is open for a port of a sandbox's, and cut its connections.
    Close { name: String, open: Published },
    /// What did it reach?
    Log { name: String },
}

/// Its answer.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// Done.
    Ok,
    /// The log.
    Log(EgressLog),
    /// It does not serve this sandbox.
    Unknown,
    /// It can't.
    Failed(String),
}
