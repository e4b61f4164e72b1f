//! Moving trees between the host and a tar stream, without trusting either side.
//!
//! [`pack`] and [`hash`] see the same selection of a host tree; [`unpack`] writes a stream that a
//! guest made, and never touches anything outside its destination. [`Extractor`] is the engine
//! below it, which images use too.

mod beneath;
mod bridge;
mod extract;
mod hash;
mod manifest;
#[cfg(any(feature = "incus", feature = "truenas"))]
mod members;
mod pack;
mod place;
mod select;
mod sparse;
mod unpack;
mod whiteout;

pub use beneath::exists_inside;
pub use extract::{Devices, Extractor, Owners, Rules, Stats};
pub use hash::hash;

pub use manifest::{Digests, Manifest, Paths};
#[cfg(any(feature = "incus", feature = "truenas"))]
pub use members::members;
pub use pack::pack;
pub use place::confine;
pub use select::PackOptions;
pub use unpack::{UnpackOptions, unpack};
