//! Bases: cached steps, each a snapshot whose label is the digest of everything it depends on.
//!
//! The backend is the cache. Steps are looked up among the snapshots of all base sandboxes; the
//! first one that is not there starts a new base sandbox, cloned from the last one that is, and
//! from there on every step runs and is snapshotted. A base that is all there starts nothing.
//!
//! A **volatile** step is in no key: steps after it are cached as if it were not there, and it is run
//! each time the base is asked for. Where a step after it has to be done, it is run before that one,
//! in its place; what is left of them at the end is run in a clone of the last cached step, which
//! belongs to the run and goes with it, so that what a script gets has always seen them.
//!
//! There is no way to write a circle of bases: what a base starts from is a [`BaseHandle`], which
//! exists only when that base is done.
//!
//! Two runs never build the same step at once: a base sandbox is named after the first step that
//! is missing, so only one run can make it, and the others wait for its snapshots. While it is
//! built its run owns it; when it is done nobody does. A build that fails leaves the steps that
//! were done, and nothing that counts as more; one that is killed is collected with its run.

mod builder;
mod catalog;
mod claim;
mod fetch;
mod git;
mod handle;
mod key;
mod record;
mod root;
mod step;
mod working;

pub use builder::BaseBuilder;
pub use catalog::{BaseEntry, BaseStep, Catalog, KeepPolicy};
pub use handle::{BaseHandle, BaseOptions, BasePoint};
pub use key::{Change, KEY_SCHEMA, StepInput, StepKey};
pub use record::label_of;
pub use step::{CopyOptions, RunOptions};
