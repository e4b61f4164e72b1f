//! What the two ends say to each other.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sandbox::{
    Adoption, Capabilities, CloneSpec, Command, Exit, Info, Placement, Policy, ReadOptions,
    Restore, Result, Rule, SnapshotSpec, Spec, Stock, StopOptions, WindowSize, WriteOptions,
};

/// The first message of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<D, C> {
    /// What the caller's backend would be opened with; see [`super::Session::digest`].
    pub digest: D,
    /// What is to be done.
    pub call: C,
}

/// A call of [`crate::sandbox::Backend`], under the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    /// Nothing but [`Opened`].
    Open,
    Adopt(String, Adoption),
    Allow(String, Rule),
    Away(String),
    Caches,
    Method {
        method: String,
        params: Vec<Value>,
        change: bool,
    },
    Clone(String, Box<CloneSpec>),
    Create(Box<Spec>),
    Delete(String),
    DeleteCache(String),
    /// Deletes it if it still is as it was seen.
    DeleteIf(Box<Info>),
    DeleteSnapshot {
        name: String,
        label: String,
    },
    Deny(String, Rule),
    EgressLog(String),
    FindSnapshots {
        prefix: String,
    },
    Fingerprint {
        image: String,
        sha256: Option<String>,
    },
    Freeze(String),
    Gc {
        dry_run: bool,
    },
    Get(String),
    Keep(String),
    List,
    Members,
    Mkdir {
        name: String,
        path: String,
        options: WriteOptions,
    },
    /// With the pipe that the stream goes into.
    Pack {
        name: String,
        path: String,
    },
    Policy(String),
    Prepare {
        stock: Stock,
        target: Option<Placement>,
    },
    Publish {
        name: String,
        port: u16,
        at: Option<SocketAddr>,
    },
    /// With the pipe that the content goes into.
    Read {
        name: String,
        path: String,
        options: ReadOptions,
    },
    ReadDir {
        name: String,
        path: String,
    },
    Ready {
        name: String,
        timeout: Duration,
    },
    Remove {
        name: String,
        path: String,
        recursive: bool,
    },
    Restore {
        name: String,
        label: String,
        options: Restore,
    },
    SetPolicy(String, Policy),
    Snapshot(String, SnapshotSpec),
    Snapshots(String),
    /// With the pipes of its standard streams: first those it writes to, then the one it reads, if it
    /// has one.
    Spawn(String, Box<Command>),
    Start(String),
    Stat {
        name: String,
        path: String,
    },
    Stop(String, StopOptions),
    Thaw(String),
    /// With the pipe that the stream comes from.
    Unpack {
        name: String,
        path: String,
        options: WriteOptions,
    },
    Unpublish {
        name: String,
        port: u16,
        at: Option<SocketAddr>,
    },
    Usage(String),
    /// With the pipe that the content comes from.
    Write {
        name: String,
        path: String,
        options: WriteOptions,
    },
}

/// What the caller says while its call is under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Give it up.
    Cancel,
    /// All of the content was written into the pipe; after a create or a clone: its answer has arrived.
    Complete,
    /// Kill the command and everything that it started.
    Kill,
    /// The terminal has this size now.
    Resize(WindowSize),
    /// Send the command a signal.
    Signal(i32),
}

/// What the session says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It is open for something else than the caller wants, and will end. Nothing was done.
    Changed,
    /// The result of the call; of one that gives a stream or a command: that it has begun.
    Done(Result<Value>),
    /// The stream has ended: all of it was written into the pipe, or what went wrong.
    Ended(Result<(), String>),
    /// The command has ended.
    Exit(Result<Exit>),
    /// It is still being opened: the answer comes later.
    Opening,
    /// An order was carried out; after a create or a clone: the session knows that the answer has arrived.
    Ordered(Result<()>),
}

/// What is known of the backend once it is open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    pub capabilities: Capabilities,
    pub mounts_its_own: bool,
}
