//! What scripts can call: one registry for all languages, one file a noun.
//!
//! A language adapter turns each [`FnSpec`] into a function of its language; stubs, manual and
//! tools are made from the same table.

mod args;
mod assert;
mod backend;
mod base;
mod budget;
mod cache;
mod cell_own;
mod ctx;
mod device;
pub(crate) mod egress;
mod env;
mod error;
mod exec;
mod failure;
mod files;
mod host;
mod json;
mod lazy;
mod machines;
mod matrix;
mod matrix_report;
mod member;
mod memory;
mod network;
mod options;
mod param;
mod path;
mod port;
mod process;
mod registry;
mod remote;
mod render;
mod running;
mod sandbox;
mod secret;
mod snapshot;
mod spec;

mod time;
mod transfer;
mod types;
mod value;

pub use crate::suggest;
pub use args::{Args, to_duration};
pub use base::BaseObject;
pub use budget::Budget;
pub use ctx::{Ctx, Stop};
pub use error::{ErrorKind, ErrorObject, Frame, Position, Report, Result, ScriptError};
pub use host::{Host, HostBuilder, Leftovers, Plan, Print, WantedBases, new_run_id};
pub use machines::{MachineName, Opener};
pub use memory::{Input, Memory, Recorder};
pub use param::parse_param;
pub use registry::Registry;
pub(crate) use render::find_word;
pub use sandbox::SandboxObject;
pub use secret::SecretObject;
pub use spec::{Fault, FnSpec, Handler, HandlerFuture, Opt, Param, Use};
pub use types::Type;
pub use value::{Callable, Callback, Handle, Map, Object, Value};

/// All entries that sandscript itself has.
pub(crate) fn standard() -> Vec<FnSpec> {
    [
        sandbox::specs(),
        egress::specs(),
        port::specs(),
        network::specs(),
        exec::specs(),
        process::specs(),
        files::specs(),
        transfer::specs(),
        snapshot::specs(),
        base::specs(),
        matrix::specs(),
        backend::specs(),
        remote::specs(),
        member::specs(),
        param::specs(),
        env::specs(),
        secret::specs(),
        time::specs(),
        assert::specs(),
        options::specs(),
        json::specs(),
        failure::specs(),
    ]
    .concat()
}
