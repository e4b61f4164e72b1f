//! Machine files: one TOML file says all about a machine, and everything that systemd reads is made
//! from it.
//!
//! A file is read with [`Machine::load`] and rendered with [`render::Plan`]. Nothing here starts
//! anything.

pub mod adopt;
mod autostart;
mod bind;
pub mod bundle;
pub mod cdi;
mod checks;
mod device;
mod edit;
mod egress;
mod error;
mod extends;
mod file;
mod gpu;
mod hook;
pub mod host;
mod image;
pub mod import;
pub mod native;
mod needs;
mod nic;
mod reader;
pub mod render;
mod resolv;
mod security;
mod setup;
pub mod starter;
pub mod templates;
mod tree;
mod trust;
mod users;
mod variables;

pub use autostart::Autostart;
pub use bind::{Bind, Idmap};
pub use checks::{checks, inotify};
pub use device::Device;
pub use edit::Edit;
pub use error::{MachineError, Place, Result};
pub use file::Machine;
pub use gpu::{Gpu, Vendor};
pub use hook::{Hook, When, Where};
pub use image::Image;
pub use needs::{Needs, Sysctl};
pub use nic::{Link, Network, Nic};
pub use resolv::Resolv;
pub use security::{Seccomp, Security};
pub use setup::{CloudInit, Step};
pub use users::{Ownership, RANGE, Users};
pub use variables::Variable;

#[cfg(test)]
mod tests;

/// How large a file may be that somebody has written by hand.
const LARGEST: u64 = 1 << 20;

/// The text of a file: of a plain one that is no larger than one writes by hand.
fn read_text(path: &std::path::Path) -> Result<String, MachineError> {
    use std::io::{Error, Read};
    let failed = |error: Error| MachineError::io(path, &error);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(Error::other("it is no plain file")));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(failed(Error::other("it is larger than 1 MiB")));
    }
    String::from_utf8(text).map_err(|_| failed(Error::other("it is not UTF-8 text")))
}
