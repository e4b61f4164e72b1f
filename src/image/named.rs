//! What an image's name leads to, where that is not this machine itself.

use std::path::PathBuf;

use super::oci::{OciImage, Reference};
use super::simplestreams::{alias, look_up};
use super::tarball::{Fetch, Source, Tarball};
use crate::sandbox::Result;

/// An image that is fetched from somewhere.
#[derive(Clone, Debug)]
pub enum Named {
    /// An archive.
    Archive(Source),
    /// What an image server calls so.
    Alias(String),
    /// An image in a registry.
    Oci(Reference),
}

/// The archives of an image, on this machine.
#[derive(Clone, Debug)]
pub struct Archives {
    /// Digest of the image's content.
    pub fingerprint: String,
    /// Where they are, the lowest first.
    pub paths: Vec<PathBuf>,
    /// Whether they are layers, of which one may take away what is below it.
    pub layered: bool,
    /// What the image is called in messages.
    pub name: String,
}

impl Named {
    /// Reads a name; nothing where it is none of these.
    ///
    /// # Errors
    /// `InvalidInput` for what names a registry's image wrongly.
    pub fn parse(image: &str) -> Result<Option<Named>> {
        if let Some(reference) = Reference::parse(image) {
            return reference.map(|reference| Some(Named::Oci(reference)));
        }
        if let Some(source) = Source::parse(image) {
            return Ok(Some(Named::Archive(source)));
        }
        Ok(alias(image).map(|alias| Named::Alias(alias.to_owned())))
    }

    /// The image's digest. What a server says is enough, nothing else is downloaded for it. `server` is the one
    /// for aliases.
    ///
    /// # Errors
    /// Those of [`look_up`], [`OciImage::look_up`] and [`Tarball::open`].
    pub fn fingerprint(
        self,
        server: &str,
        sha256: Option<&str>,
        fetch: &Fetch<'_>,
    ) -> Result<String> {
        match self {
            Named::Alias(alias) => {
                let (_, found) = look_up(server, &alias, sha256, fetch)?;
                Ok(format!("sha256:{found}"))
            }
            Named::Oci(reference) => {
                Ok(OciImage::look_up(&reference, sha256, fetch)?.fingerprint())
            }
            named => Ok(named.fetch(server, sha256, fetch)?.fingerprint),
        }
    }

    /// The image's archives, downloaded where they are not here, and checked.
    ///
    /// # Errors
    /// The same.
    pub fn fetch(self, server: &str, sha256: Option<&str>, fetch: &Fetch<'_>) -> Result<Archives> {
        let (source, sha256) = match self {
            Named::Oci(reference) => {
                let image = OciImage::look_up(&reference, sha256, fetch)?;
                return Ok(Archives {
                    fingerprint: image.fingerprint(),
                    paths: image.layers(fetch)?,
                    layered: true,
                    name: reference.to_string(),
                });
            }
            Named::Alias(alias) => {
                let (source, found) = look_up(server, &alias, sha256, fetch)?;
                (source, Some(found))
            }
            Named::Archive(source) => (source, sha256.map(str::to_owned)),
        };
        let tarball = Tarball::open(&source, sha256.as_deref(), fetch)?;
        Ok(Archives {
            fingerprint: tarball.fingerprint(),
            paths: vec![tarball.path().to_owned()],
            layered: false,
            name: tarball.path().display().to_string(),
        })
    }
}
