//! The cases, a file an area.

use crate::case::Case;

mod caches;
mod clones;
mod concurrency;
mod create;
mod egress;
mod environment;
mod exec;
mod files;
mod hostile;
mod images;
mod isolation;
mod limits;
mod mounts;
mod networks;
mod ownership;
mod paths;
mod ports;
mod process;
mod rollback;
mod snapshots;
mod states;
mod streams;
mod terminal;
mod trees;
mod usage;
mod users;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        caches::CASES,
        clones::CASES,
        concurrency::CASES,
        create::CASES,
        egress::CASES,
        environment::CASES,
        exec::CASES,
        files::CASES,
        hostile::CASES,
        images::CASES,
        isolation::CASES,
        limits::CASES,
        mounts::CASES,
        networks::CASES,
        ownership::CASES,
        paths::CASES,
        ports::CASES,
        process::CASES,
        rollback::CASES,
        snapshots::CASES,
        states::CASES,
        streams::CASES,
        terminal::CASES,
        trees::CASES,
        usage::CASES,
        users::CASES,
    ]
    .into_iter()
    .flatten()
}
