//! A TrueNAS to test clients against.
//!
//! [`Sim::start`] starts one in the process that calls it; the program `nas-sim` starts one by
//! itself. What is faithful and what is not is in the README.

mod auth;
mod control;
mod dispatch;
mod engine;
mod event;
mod fail;
mod fault;
mod host;
mod job;
mod method;
mod nas;
mod options;
mod query;
mod random;
mod release;
mod rows;
mod rpc;
mod schema;
mod session;
mod shell;
mod sim;
mod source;
mod time;
mod transcript;
mod trap;
mod wire;
mod zfs;

pub use auth::{Key, User, totp};
pub use fault::{FailRule, Faults, rule};
pub use host::tool;
pub use options::Options;
pub use release::Release;
pub use schema::misfits_of as misfits;
pub use sim::Sim;
pub use trap::COUNT as TRAPS;
