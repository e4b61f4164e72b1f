//! A root file system archive as an overlay layer.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::compression::decompress;
use crate::sandbox::{Error, Result};
use crate::transfer::{Devices, Extractor, Owners, Rules, Stats, exists_inside};

/// How a layer is unpacked.
#[derive(Clone, Debug)]
pub struct LayerOptions {
    /// Who owns the files.
    pub owners: Owners,
    /// How many bytes of file content at most; 64 GiB when not said.
    pub max_bytes: u64,
    /// How many entries at most; ten million when not said.
    pub max_entries: u64,
    /// What the archive is called in messages.
    pub name: String,
}

impl LayerOptions {
    /// The default limits, for an archive called `name`.
    pub fn new(name: impl Into<String>, owners: Owners) -> Self {
        LayerOptions { owners, max_bytes: 64 << 30, max_entries: 10_000_000, name: name.into() }
    }
}

/// Unpacks a root file system (an uncompressed tar stream) into the empty directory `dest`.
///
/// Everything is resolved below `dest`; entries below symbolic links to directories go where the
/// link leads inside it. Modes (setuid too), times and the extended attributes a guest may have
/// are kept. What lies below `dev/` is left out; `..`, absolute names, hard links that leave, and
/// devices elsewhere are [`Error::InvalidInput`], as is an archive without `/bin/sh`. On an error
/// `dest` is left half written: delete it.
pub fn unpack_layer(archive: impl Read, dest: &Path, options: &LayerOptions) -> Result<Stats> {
    let rules = rules(options, false);
    let stats = Extractor::new(dest, &rules)?.run(archive)?;
    checked(dest, &rules.what)?;
    Ok(stats)
}

/// Unpacks the layers of an OCI image, lowest first, one over the other into the empty directory `dest`;
/// each is opened twice, first for what it takes away of those below it (OCI image specification 1.1,
/// "Whiteouts"). Else as [`unpack_layer`].
pub fn unpack_layers<R: Read>(
    layers: impl IntoIterator<Item = impl Fn() -> Result<R>>,
    dest: &Path,
    options: &LayerOptions,
) -> Result<Stats> {
    let rules = rules(options, true);
    let mut extractor = Extractor::new(dest, &rules)?;
    for (number, open) in layers.into_iter().enumerate() {
        if number > 0 {
            extractor.take_away(open()?)?;
        }
        extractor.add(open()?)?;
    }
    let stats = extractor.finish()?;
    checked(dest, &rules.what)?;
    Ok(stats)
}

/// Unpacks an image's archives, compressed or not, lowest first: as [`unpack_layers`] where they are layers, else as
/// [`unpack_layer`]. `watched` is put around each stream, and may end it with an error.
pub fn unpack_archives<R: Read>(
    archives: &[PathBuf],
    layered: bool,
    dest: &Path,
    options: &LayerOptions,
    watched: impl Fn(Box<dyn Read + Send>) -> R,
) -> Result<Stats> {
    let open = |archive: &PathBuf| {
        let stream = File::open(archive).and_then(decompress);
        let stream = stream
            .map_err(|error| Error::invalid("image", format!("{}: {error}", archive.display())))?;
        Ok(watched(stream))
    };
    match archives {
        [archive] if !layered => unpack_layer(open(archive)?, dest, options),
        layers => unpack_layers(layers.iter().map(|layer| || open(layer)), dest, options),
    }
}

fn rules(options: &LayerOptions, layered: bool) -> Rules {
    Rules {
        through_links: true,
        layered,
        devices: Devices::SkipDev,
        owners: options.owners,
        mode_mask: 0o7777,
        xattrs: true,
        max_bytes: options.max_bytes,
        max_entries: options.max_entries,
        what: format!("image '{}'", options.name),
    }
}

fn checked(dest: &Path, what: &str) -> Result<()> {
    if exists_inside(dest, Path::new("bin/sh")) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        what,
        "not a root file system: it has no /bin/sh",
        "pack the root folder's content, with bin/, etc/ and usr/ at the top: tar -C ROOT -cf image.tar .",
    ))
}
