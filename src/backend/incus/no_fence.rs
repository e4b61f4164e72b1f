//! Nothing encloses sandboxes without the backend `local`, whose resolver looks their names up.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::record::Record;
use super::{IncusBackend, IncusConfig, Inner};
use crate::backend::guest::Ground;
use crate::sandbox::{Check, Error, Result};

/// The server's key that says that it can't.
pub(super) const NO: &str = "user.sandscript.no-fences";

/// There are none.
pub(super) struct Fences;

impl Fences {
    pub fn new(_servers: Vec<SocketAddr>) -> Fences {
        Fences
    }

    pub fn has(&self, _name: &str) -> bool {
        false
    }
}

pub(super) fn is_ours(_network: &str) -> bool {
    false
}

/// The network of one that another program has enclosed.
pub(super) fn network(_record: &Record) -> String {
    "a network of its own".into()
}

pub(super) fn cards(_record: &Record, networks: &Map<String, Value>) -> Map<String, Value> {
    networks.clone()
}

/// What there is to say of a server before it is worked with.
pub async fn examine(config: IncusConfig) -> Vec<Check> {
    let Ok(IncusBackend(inner)) = IncusBackend::open(config).await else { return Vec::new() };
    let noted = inner.marked_no.as_deref().unwrap_or_default();
    let why =
        format!("not used by a program without the backend 'local' {} {noted}", inner.version);
    let instead = match inner.without_acls {
        true => "they are not to be used",
        false => "rules are kept to inside the guest",
    };
    vec![Check::poor("network ACLs", why.trim_end(), instead)]
}

impl Inner {
    pub(super) async fn enclose_as_written(&self, name: &str, record: &Record) -> Result<()> {
        self.enclose(name, record).await.map(drop)
    }

    pub(super) async fn enclose(&self, name: &str, record: &Record) -> Result<bool> {
        match record.fence {
            false => Ok(false),
            true => Err(Error::unsupported(
                format!("a policy for '{name}', which a network ACL encloses"),
                "incus",
                "this program is built without the backend 'local', whose resolver it needs",
            )),
        }
    }

    pub(super) fn told(&self, _name: &str, _record: &Record, ground: &Ground) -> Ground {
        ground.clone()
    }

    pub(super) async fn open_up(&self, _name: &str, _record: &Record) {}

    pub(super) async fn collect_fences(&self, _dry_run: bool) -> Result<usize> {
        Ok(0)
    }

    pub(super) fn keep_fresh(self: &Arc<Self>, _name: &str, _record: &Record) {}
}
