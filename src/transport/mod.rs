//! Ways to talk to another program: HTTP and WebSockets over a unix socket or TLS.
//!
//! Nothing here knows what is said.

mod http;
#[cfg(feature = "truenas")]
pub mod jsonrpc;
mod pipe;
mod tls;

pub use http::{Answer, Duplex, Http, HttpError, Place, Socket};
pub use pipe::{drain, feed};
pub use tls::{Fingerprint, Identity, Tls, Trust, fingerprint, shown};
