//! Bases, matrices and the runner.
//!
//! A [`BaseBuilder`] turns cached steps into a snapshot; [`run_matrix`] runs a body in a clone of it
//! for every cell. Both tell what they do as [`Event`]s, and nothing else: a [`Dispatcher`] hands
//! them to the reports.

mod base;
mod caches;
mod context;
mod dispatcher;
mod egress;
mod event;
pub mod exit;
mod failure;
mod gc;
mod lock;
mod matrix;
mod output;
pub mod record;
pub mod report;
mod results;
mod runner;
mod secret;
mod source;

pub use crate::sandbox::Usage;
pub use base::{
    BaseBuilder, BaseEntry, BaseHandle, BaseOptions, BasePoint, BaseStep, Catalog, Change,
    CopyOptions, KEY_SCHEMA, KeepPolicy, RunOptions, StepInput, StepKey, label_of,
};
pub use caches::Waiter;
pub use context::{Machine, OnFail, RunContext};
pub use dispatcher::Dispatcher;
pub use egress::{CellEgress, Refusal};
pub use event::{CellInfo, Event, EventSink, Level, Receiver, Record, SCHEMA, Stream};
pub use failure::{Failure, Place};
pub use gc::{BASES_EXPIRE, Collected, OWNED_AFTER, Sweep, Swept, Why, sweep};
pub use lock::{LOCK_FILE, LockFile, Pin, PinMode, Pins};
pub use matrix::{
    AxisValue, Broken, Cell, CellMemory, CellOwn, CellReport, CellTemplate, Counts, Filter,
    MatrixReport, MatrixSpec, Order, Outcome, Partition, Retries, cell_id,
};
pub use output::{OutputSink, exec};
pub use results::{CellTest, TestOutcome, read_results};
pub use runner::{CellBody, CellContext, FAILED_LABEL, run_matrix};
pub use secret::{CommandSecrets, MASKED, Mask, Masker, Secret, SecretSource};
pub use source::Source;
