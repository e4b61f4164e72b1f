//! Deciding what a sandbox may reach, and carrying it there.
//!
//! [`Filter`] decides; [`Gate`] carries one sandbox's connections by it: it accepts them on sockets
//! that were opened inside the sandbox, reads the name that a client asks for, and dials only what the
//! filter allows and the [`Resolver`] has found for that name.

mod answer;
mod filter;
mod gate;
mod http;
mod names;
mod resolver;
mod sniff;
mod special;

pub use filter::{Filter, Verdict};
pub use gate::{Gate, Sockets};
pub use resolver::Resolver;
