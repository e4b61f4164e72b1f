//! Ways to talk to another program: HTTP and WebSockets over a unix socket or TLS, SSH, messages with
//! descriptors over a unix socket, many streams over one.
//!
//! Nothing here knows what is said.

pub(crate) mod frames;
#[cfg(any(feature = "incus", feature = "truenas"))]
mod http;
#[cfg(feature = "truenas")]
pub mod jsonrpc;
mod key_source;
mod link;
pub mod mux;
#[cfg(any(feature = "incus", feature = "truenas"))]
mod pipe;
#[cfg(feature = "ssh")]
pub mod ssh;
#[cfg(any(feature = "incus", feature = "truenas"))]
mod tls;

#[cfg(any(feature = "incus", feature = "truenas"))]
pub use http::{Answer, Duplex, Http, HttpError, Place, Socket};
pub use key_source::KeySource;
pub(crate) use link::Link;
#[cfg(any(feature = "incus", feature = "truenas"))]
pub use pipe::{drain, feed};
#[cfg(any(feature = "incus", feature = "truenas"))]
pub use tls::{Fingerprint, Identity, Tls, Trust, fingerprint, shown};
