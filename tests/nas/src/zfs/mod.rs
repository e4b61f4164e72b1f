//! The pool: datasets, snapshots, clones and ZFS' rules about them, on real folders.

pub mod command;
mod ops;
mod storage;
mod table;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use ops::Destroy;
pub use storage::Storage;
pub use table::human;
pub use tree::Tree;

/// A dataset.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// When it was made, in milliseconds.
    pub created: i64,
    /// The transaction that made it.
    pub txg: u64,
    /// Its number for life.
    pub guid: u64,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
    /// What was set on it, user properties among them.
    pub properties: BTreeMap<String, String>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Its folder, as the pool's namespace sees it.
    pub folder: String,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name behind the `@`.
    pub name: String,
    /// When it was made, in milliseconds.
    pub created: i64,
    /// The transaction that made it.
    pub txg: u64,
    /// Its number for life.
    pub guid: u64,
    /// Who holds it.
    pub holds: BTreeSet<String>,
    /// User properties.
    pub properties: BTreeMap<String, String>,
    /// Its folder.
    pub folder: String,
    /// Whether it goes when its last clone or hold does.
    pub deferred: bool,
}

/// What ZFS refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such thing.
    Missing(String),
    /// There is one already.
    Exists(String),
    /// It has children.
    Children(String, Vec<String>),
    /// Others are clones of it.
    Clones(String, Vec<String>),
    /// Newer snapshots are in the way.
    Newer(String, Vec<String>),
    /// It is held.
    Held(String),
    /// Somebody uses it.
    Busy(String),
    /// The pool is full.
    Full,
    /// It is not a clone.
    NotAClone(String),
    /// The name is none.
    BadName(String),
    /// The storage below failed.
    Storage(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Missing(_) => write!(f, "dataset does not exist"),
            Refused::Exists(_) => write!(f, "dataset already exists"),
            Refused::Children(_, _) => write!(f, "filesystem has children"),
            Refused::Clones(_, _) => write!(f, "snapshot has dependent clones"),
            Refused::Newer(_, _) => write!(f, "more recent snapshots or bookmarks exist"),
            Refused::Held(_) | Refused::Busy(_) => write!(f, "dataset is busy"),
            Refused::Full => write!(f, "out of space"),
            Refused::NotAClone(_) => write!(f, "not a cloned filesystem"),
            Refused::BadName(_) => write!(f, "invalid character in name"),
            Refused::Storage(text) => write!(f, "{text}"),
        }
    }
}

/// The pool.
pub struct Zfs {
    /// Its name.
    pub pool: String,
    /// Where its folders are.
    pub storage: Storage,
    /// The folder of the dataset that is the pool itself.
    pub mount: String,
    /// Where snapshots are kept.
    pub kept: String,
    tree: Mutex<Tree>,
    turn: tokio::sync::Mutex<()>,
}

impl Zfs {
    /// A pool with nothing in it. `mount` is where its datasets are found, `kept` where
    /// its snapshots are.
    pub fn new(pool: &str, storage: Storage, mount: &str, kept: &str, now: i64) -> Self {
        let mut tree = Tree::default();
        tree.insert(pool, mount.to_owned(), None, now);
        Self {
            pool: pool.to_owned(),
            storage,
            mount: mount.to_owned(),
            kept: kept.to_owned(),
            tree: Mutex::new(tree),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// A new folder that no dataset shows.
    pub fn hidden(&self) -> String {
        format!("{}/{}", self.kept, crate::random::text(12))
    }

    /// Looks at it as it is now.
    pub fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `tank/a@b` as dataset and snapshot.
pub fn split(path: &str) -> Option<(&str, &str)> {
    path.split_once('@').filter(|(d, s)| !d.is_empty() && !s.is_empty())
}

/// Whether a name may be a dataset's.
pub fn valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 256
        && name.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.: ".contains(c))
        })
}

/// Whether a name may be a snapshot's.
pub fn valid_snapshot(name: &str) -> bool {
    valid(name) && !name.contains('/')
}
