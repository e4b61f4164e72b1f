//! Where a root file system comes from.
//!
//! Blocking code over files, without an async runtime: it may be called in a worker process.

mod cache;
mod compression;
mod download;
mod host;
mod layer;
mod named;
mod oci;
mod simplestreams;
mod tarball;

pub use compression::decompress;
pub use host::{HostImage, HostStats, Tree};
pub use layer::{LayerOptions, unpack_archives, unpack_layer, unpack_layers};
pub use named::{Archives, Named};
pub use oci::{OciImage, Reference};
pub use simplestreams::{IMAGE_SERVER, alias, look_up};
pub use tarball::{Fetch, Source, Tarball};
