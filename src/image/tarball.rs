//! Root file systems in a tar archive, by path or by URL.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{cache, compression, download};
use crate::sandbox::{Error, Kind, Result};

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On this machine.
    File(PathBuf),
    /// Behind an `http:` or `https:` URL.
    Url(String),
}

impl Source {
    /// Whether `image` names an archive, and where: a URL, something with a `/` at its start or
    /// after a dot (`./x`, `../x`), or a name with `.tar` or `.tgz` at its end or before a last suffix.
    pub fn parse(image: &str) -> Option<Source> {
        if image.starts_with("https://") || image.starts_with("http://") {
            return Some(Source::Url(image.into()));
        }
        let path = ["/", "./", "../"].iter().any(|start| image.starts_with(start));
        let name = image.rsplit('/').next().unwrap_or(image);
        let ends = [".tar", ".tgz", ".txz", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.zstd"];
        let archive = ends.iter().any(|end| name.ends_with(end));
        (path || archive).then(|| Source::File(image.into()))
    }
}

/// How archives are fetched.
pub struct Fetch<'a> {
    /// A folder of ours for downloads and remembered digests; it is made when missing.
    pub cache: &'a Path,
    /// How large a download may be.
    pub max_bytes: u64,
    /// Called now and then with the bytes that are there and the whole size where it is known;
    /// `false` cancels.
    pub progress: &'a dyn Fn(u64, Option<u64>) -> bool,
}

impl Fetch<'_> {
    /// The default limit of a download: 16 GiB.
    pub const MAX_BYTES: u64 = 16 << 30;
}

/// An archive that is on this machine, and what it is.
#[derive(Clone, Debug)]
pub struct Tarball {
    path: PathBuf,
    sha256: String,
}

impl Tarball {
    /// Finds the archive, downloads it where it has to, and checks it against `sha256` (hex),
    /// which a URL must come with. Proxies are taken from the usual environment variables.
    ///
    /// # Errors
    /// `NotFound` for a missing file or a 404, `InvalidInput` for a wrong or missing digest,
    /// `Transport` for a failed download, `Cancelled` when `progress` says so.
    pub fn open(source: &Source, sha256: Option<&str>, fetch: &Fetch<'_>) -> Result<Tarball> {
        let wanted = sha256.map(digest).transpose()?;
        match source {
            Source::Url(url) => {
                let Some(wanted) = wanted else {
                    return Err(Error::invalid_hint(
                        "image",
                        format!("{url} has no sha256"),
                        "give the digest that its publisher names: sha256: \"…\"",
                    ));
                };
                let path = download::download(url, &wanted, None, fetch)?;
                Ok(Tarball { path, sha256: wanted })
            }
            Source::File(path) => {
                let file = open_file(path)?;
                let found = cache::sum(&file, path, fetch)?;
                match wanted {
                    Some(wanted) if wanted != found => {
                        Err(mismatch(&path.display().to_string(), &wanted, &found))
                    }
                    _ => Ok(Tarball { path: path.clone(), sha256: found }),
                }
            }
        }
    }

    /// What the image is: changes with every byte of the archive.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    /// Where the archive is on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The uncompressed tar stream, for [`super::unpack_layer`].
    pub fn reader(&self) -> Result<Box<dyn Read + Send>> {
        compression::decompress(open_file(&self.path)?)
            .map_err(|error| Error::invalid("image", format!("{}: {error}", self.path.display())))
    }
}

fn open_file(path: &Path) -> Result<File> {
    let name = path.display().to_string();
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((meta, file)) if meta.is_file() => Ok(file),
        Ok(_) => Err(Error::invalid_hint(
            "image",
            format!("'{name}' is not a file"),
            "pack a root folder first: tar -C ROOT -cf image.tar .",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::not_found(Kind::Image, name))
        }
        Err(error) => Err(Error::invalid("image", format!("{name}: {error}"))),
    }
}

/// The 64 hexadecimal digits of a sha256, with or without `sha256:` before them.
pub(super) fn digest(text: &str) -> Result<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(hex);
    }
    Err(Error::invalid_hint("sha256", format!("'{text}' is not a digest"), "write 64 hex digits"))
}

/// The archive is not the one that was asked for.
pub(super) fn mismatch(name: &str, wanted: &str, found: &str) -> Error {
    Error::invalid_hint(
        "sha256",
        format!("{name} is not what was asked for: expected {wanted}, found {found}"),
        "it changed at its source, or the digest was mistyped; check it with the publisher",
    )
}
