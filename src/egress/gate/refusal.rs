//! Noting what is refused, and of which program it was.

use std::net::IpAddr;

use super::{Shared, lock};
use crate::egress::programs::{Caller, PATIENCE};
use crate::sandbox::{Protocol, Reason};

/// What is refused.
pub struct Refusal<'a> {
    /// The name it is for, where one is known.
    pub name: Option<&'a str>,
    /// The address, where one is known.
    pub address: Option<IpAddr>,
    /// Its port and protocol.
    pub what: (u16, Protocol),
    /// Why.
    pub reason: Reason,
}

/// Notes it. While the guest still waits for its answer, the connection has an end there: whose that is,
/// is found out where it takes a few milliseconds.
pub async fn note(shared: &Shared, refusal: Refusal<'_>, caller: Option<Caller>) {
    let Refusal { name, address, what, reason } = refusal;
    let sought = lock(&shared.log).deny(name, address, what, reason);
    let (Some(at), Some(programs), Some(caller)) = (sought, &shared.around.programs, caller) else {
        return;
    };
    if let Ok(Some(program)) = tokio::time::timeout(PATIENCE, programs.of(caller)).await {
        lock(&shared.log).by(at, program);
    }
}
