//! The network of a sandbox: the loopback interface, behind which is the gate; see [`enter_gate`]. All by
//! raw netlink.

mod diag;
mod inside;
mod link;
mod netlink;

use std::io;

pub use diag::inode;
pub use inside::{ADDRESS, ADDRESS6, Inside, SERVER, dial, enter as enter_gate, receive_datagram};

/// Brings the loopback interface of the current namespace up.
pub fn loopback_up() -> io::Result<()> {
    link::up("lo")
}
