//! Which program of a guest's a connection is of.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::sandbox::Protocol;

/// As long a refusal waits for the name at most.
pub const PATIENCE: Duration = Duration::from_millis(25);

/// A guest's end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// By which protocol.
    pub protocol: Protocol,
    /// From where, as the guest has it.
    pub from: SocketAddr,
    /// To where, as the guest has it; none where that is not known.
    pub to: Option<SocketAddr>,
}

/// Knows the programs of one guest.
#[async_trait]
pub trait Programs: Send + Sync {
    /// The name of the program that has this end of a connection now; none where it can't be told soon.
    async fn of(&self, caller: Caller) -> Option<String>;
}
