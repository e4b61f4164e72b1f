//! Machine files: one TOML file says all about a machine, and everything that systemd reads is made
//! from it.
//!
//! A file is read with [`Machine::load`] and rendered with [`render::Plan`]. Nothing here starts
//! anything.

pub mod adopt;
mod autostart;
mod bind;
pub mod cdi;
mod checks;
mod device;
mod edit;
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
pub use setup::{CloudInit, Progress, Step};
pub use users::{Ownership, RANGE, Users};
pub use variables::Variable;

#[cfg(test)]
mod tests;
