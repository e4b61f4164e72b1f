//! A program that is started with fewer ways out: the way in which machines of other programs get what
//! sandboxes of this backend get from their first process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::sys;

/// What a process is called that is to do this.
pub const ARGV0: &str = "sandscript:confine";

/// Gives up, for itself and all that come of it, sockets that reach past network namespaces (vsock and its
/// like), io_uring, by which others could be made, and programs of other architectures; then becomes its
/// arguments. It gains no other limits: programs that are setuid stay so.
///
/// # Errors
/// What the system says; else it does not return.
pub fn serve() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let program = args.next().ok_or(io::ErrorKind::InvalidInput)?;
    sys::apply_family_filter()?;
    Err(Command::new(program).args(args).exec())
}
