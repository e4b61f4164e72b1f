//! The domain: what a sandbox is and what a backend promises.
//!
//! Nothing here does I/O or names a backend. Every backend implements
//! [`Backend`]; the conformance suite holds each of them to the same contract.

mod adoption;
mod backend;
mod cache;
mod capabilities;
mod check;
mod cidr;
mod clock;
mod command;
mod device;
mod egress_log;
mod error;
mod file;
mod hardware;
mod info;
mod member;
mod name;
mod network;
mod policy;
mod port;
mod process;
mod rule;
mod setup;
mod snapshot;
mod spec;
mod units;
mod usage;

pub use adoption::{Adoption, POOL_LABEL};
pub use backend::{Backend, Condition, GcReport};
pub use cache::{CacheInfo, CacheMount};
pub use capabilities::{Capabilities, Capability, Enforcer, Means};
pub use check::{Check, Verdict};
pub use cidr::Cidr;
pub use clock::{set_wall_clock, wall_clock};
pub use command::{Command, Program, Stdin, WindowSize};
pub use device::{Device, DeviceKeys, DeviceKind, check_devices};
pub use egress_log::{Carried, Denied, EgressLog, Reason};
pub use error::{Error, Kind, Result};
pub use file::{FileEntry, FileKind, ReadOptions, WriteOptions};
pub use hardware::{Hardware, parse_address};
pub use info::{Info, State};
pub use member::{Member, MemberState, Placement, Stock};
pub use name::{check_label, check_name, check_path};
pub use network::Network;
pub use policy::{Policy, Preset, Ruleset};
pub use port::{PublishSpec, Published, check_port, parse_place, parse_port};
pub use process::{Exit, Output, Process, ProcessControl, Reader, Signal, Writer, exec};
pub use rule::{Action, Protocol, Rule, Target};
pub use setup::Setup;
pub use snapshot::{CloneSpec, Restore, Snapshot, SnapshotSpec};
pub use spec::{Limits, Mount, Owner, Spec, StopOptions};
pub use tokio_util::sync::CancellationToken as Cancel;
pub use units::{format_duration, format_size, parse_duration, parse_size};
pub use usage::Usage;
