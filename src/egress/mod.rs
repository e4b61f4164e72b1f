//! What a sandbox may reach: policies as they are asked for, deciding by them, and carrying what is
//! allowed there.
//!
//! [`Asked`] is a policy as a person writes it; a [`Catalog`] knows what its words mean, asks the
//! guest's own tools where they fetch from, and gives the [`crate::sandbox::Policy`] that backends
//! enforce. [`Filter`] decides by that; [`Gate`] carries one sandbox's connections by it: it accepts
//! them on sockets that were opened inside the sandbox, reads the name that a client asks for, and
//! dials only what the filter allows and the [`Resolver`] has found for that name.

#[cfg(feature = "local")]
mod answer;
mod ask;
mod asked;
mod catalog;
mod files;
#[cfg(feature = "local")]
mod filter;
#[cfg(feature = "local")]
mod gate;
#[cfg(feature = "local")]
mod http;
#[cfg(feature = "local")]
mod names;
#[cfg(any(feature = "incus", feature = "local", feature = "truenas"))]
pub(crate) mod nft;
#[cfg(feature = "local")]
mod peers;
mod preset;
#[cfg(feature = "local")]
mod programs;
#[cfg(feature = "local")]
mod resolver;
#[cfg(feature = "local")]
mod sniff;
mod sources;
mod special;
mod tools;

#[cfg(all(feature = "incus", feature = "local"))]
pub(crate) use answer::Kind;
pub use ask::{Asker, Origin};
pub use asked::Asked;
pub use catalog::{Catalog, Profile, Resolved, changes};
#[cfg(feature = "local")]
pub use filter::{Filter, Verdict};
#[cfg(feature = "local")]
pub use gate::{Around, Datagrams, Gate, Original, Sockets, carry};
#[cfg(feature = "local")]
pub use peers::{PeerAddress, Peers};
pub use preset::{PresetSpec, REGISTRIES, builtin};
#[cfg(feature = "local")]
pub use programs::{Caller, Programs};
#[cfg(feature = "local")]
pub use resolver::Resolver;
pub use sources::{Answer, Source};
pub use special::special_ranges;
