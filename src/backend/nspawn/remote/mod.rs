//! Machines of systemd-nspawn on another host, by SSH.
//!
//! Nothing is installed there. This program sends itself into a folder below `/run` of that host, once for each
//! boot of it, is started there, and keeps the backend open as long as the connection lasts: one connection, and
//! in it one channel for all calls. What runs in machines for somebody here ends with the connection; machines
//! run on.

mod access;
mod dial;
mod examine;
mod far;
mod program;
mod script;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::dial::Dial;
use super::super::session::SessionBackend;
use super::BACKEND;
use crate::sandbox::{Error, Result};

pub use self::access::Access;
pub use self::examine::examine;
pub(in crate::backend) use self::far::serve_if_asked;

/// How long the other end may take to open the backend, once it is started there.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which sessions fit: the programs at both ends are the same, so nothing has to be told apart.
const DIGEST: &str = "far";

/// Another host, and what the backend is opened with there.
#[derive(Clone, Debug, Default)]
pub struct RemoteConfig {
    /// It, as `user@name:port`.
    pub host: String,
    /// How one comes in.
    pub access: Access,
    /// The program that is sent there, for callers that don't call [`init`](crate::backend::local::init).
    pub helper: Option<PathBuf>,
    /// The image when a spec names none; a path is one of that host.
    pub image: Option<String>,
    /// The simplestreams server that aliases of images are looked up at, from there.
    pub image_server: Option<String>,
}

/// What the other end is told at the beginning.
#[derive(Debug, Serialize, Deserialize)]
struct Begin {
    store: Option<PathBuf>,
    image: Option<String>,
    image_server: Option<String>,
}

/// Opens the backend on another host.
///
/// # Errors
/// `Auth` where that host is not the one that is known, or does not let us in; `Transport` where it does not
/// answer; `Unsupported` where no machine can be started there.
pub async fn open(config: RemoteConfig) -> Result<SessionBackend> {
    let dial = Arc::new(Dial::new(config)?);
    let opened = SessionBackend::open(dial.clone(), DIGEST.to_owned(), PATIENCE).await;
    opened.map_err(|error| match error {
        Error::Unsupported { verb, hint, .. } => {
            Error::unsupported(verb, BACKEND, format!("on {}: {hint}", dial.place()))
        }
        error => error,
    })
}
