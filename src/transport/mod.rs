//! Ways to talk to another program: HTTP and WebSockets over a unix socket or TLS.
//!
//! Nothing here knows what is said.

mod http;
mod pipe;
mod tls;

pub use http::{Answer, Http, HttpError, Place, Socket};
pub use pipe::{drain, feed};
pub use tls::{Fingerprint, Identity, Tls, Trust, fingerprint};
