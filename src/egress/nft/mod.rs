//! Tables of rules for the kernel's packet filter, as it takes them by netlink.
// Not every build has all of those who use them.
#![cfg_attr(
    not(all(feature = "local", any(feature = "incus", feature = "truenas"))),
    allow(dead_code, unused_imports)
)]

mod batch;
mod rule;
mod set;

pub(crate) use batch::{ACK, Batch, CREATE};
pub(crate) use rule::*;
pub(crate) use set::*;
