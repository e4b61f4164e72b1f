//! Root file systems from an OCI registry: `oci:debian:12`, `oci:quay.io/podman/stable`.
//!
//! Only the file system is taken: what the image would start, and its environment, is not. Registries
//! are read without a password. (OCI distribution specification 1.1, image specification 1.1; the
//! registry of Docker, which came before them, answers the same.)

mod manifest;
mod reference;
mod registry;

use std::path::PathBuf;
use std::time::Duration;

pub use reference::Reference;

use self::manifest::{Blob, Manifest};
use self::registry::Registry;
use super::tarball::{Fetch, mismatch};
use super::{cache, download};
use crate::sandbox::{Error, Result, format_size};

/// How long what a tag stands for is as good as new.
const FRESH: Duration = Duration::from_secs(3600);

/// An image of a registry, as it is for this machine.
pub struct OciImage {
    registry: Registry,
    digest: String,
    layers: Vec<Blob>,
}

impl OciImage {
    /// Looks the image up; of `wanted` digests (of a manifest, or of the list of them), that one.
    ///
    /// What a tag stands for is kept in the cache for an hour, and longer while the registry can't be
    /// reached; a manifest, which is checked against its digest, for good.
    ///
    /// # Errors
    /// `NotFound`, `Auth` where a password is wanted, `InvalidInput` for an image of other machines
    /// only, `Transport`.
    pub fn look_up(
        reference: &Reference,
        wanted: Option<&str>,
        fetch: &Fetch<'_>,
    ) -> Result<OciImage> {
        cache::folder(fetch.cache)?;
        let registry = Registry::new(reference);
        let named = reference.digest.as_deref();
        let wanted = wanted.map(super::tarball::digest).transpose()?;
        if let (Some(named), Some(wanted)) = (named, &wanted)
            && named != wanted
        {
            return Err(mismatch(&format!("'{reference}'"), wanted, named));
        }
        let mut digest = match wanted.as_deref().or(named) {
            Some(digest) => digest.to_owned(),
            None => Self::tagged(reference, &registry, fetch)?,
        };
        // A list of manifests for many machines names one for this one.
        for _ in 0..3 {
            match Self::manifest(&digest, &registry, fetch)? {
                Manifest::Image(layers) => {
                    return Ok(OciImage { registry, digest, layers });
                }
                Manifest::Index(index) => digest = index.for_this_machine(reference)?,
            }
        }
        Err(Error::Transport { message: format!("'{reference}' is a list in a list of images") })
    }

    /// The digest that a tag stands for.
    fn tagged(reference: &Reference, registry: &Registry, fetch: &Fetch<'_>) -> Result<String> {
        let name = blake3::hash(reference.to_string().as_bytes()).to_hex();
        let kept = fetch.cache.join(format!("tag-{name}"));
        let known = |longest| {
            let text = String::from_utf8(cache::remembered(&kept, longest)?).ok()?;
            super::tarball::digest(&text).ok()
        };
        if let Some(digest) = known(FRESH) {
            return Ok(digest);
        }
        if !(fetch.progress)(0, None) {
            return Err(Error::Cancelled);
        }
        match registry.manifest(&reference.tag) {
            Ok(text) => {
                let digest = cache::digest(&text);
                cache::remember(&Self::kept(&digest, fetch), &text);
                cache::remember(&kept, digest.as_bytes());
                Ok(digest)
            }
            // An old answer leads to an old image, not to a wrong one.
            Err(error @ Error::Transport { .. }) => known(Duration::MAX).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn kept(digest: &str, fetch: &Fetch<'_>) -> PathBuf {
        fetch.cache.join(format!("manifest-{digest}"))
    }

    fn manifest(digest: &str, registry: &Registry, fetch: &Fetch<'_>) -> Result<Manifest> {
        let kept = Self::kept(digest, fetch);
        let known = cache::remembered(&kept, Duration::MAX);
        let text = match known.filter(|text| cache::digest(text) == digest) {
            Some(text) => text,
            None => {
                let text = registry.manifest(&format!("sha256:{digest}"))?;
                let found = cache::digest(&text);
                if found != digest {
                    return Err(mismatch(&format!("'{}'", registry.reference), digest, &found));
                }
                cache::remember(&kept, &text);
                text
            }
        };
        Manifest::parse(&text, &registry.reference)
    }

    /// What the image is: the digest of its manifest for this machine.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    /// Downloads what is not there yet, and says where its layers are, lowest first. Each is checked
    /// against its digest; the limit of a download is that of all of them.
    pub fn layers(&self, fetch: &Fetch<'_>) -> Result<Vec<PathBuf>> {
        let registry = &self.registry;
        let said = self.layers.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
        if said > fetch.max_bytes {
            return Err(Error::invalid_hint(
                "image",
                format!("'{}' holds {}", registry.reference, format_size(said)),
                format!("no more than {} is taken", format_size(fetch.max_bytes)),
            ));
        }
        let mut left = fetch.max_bytes;
        let layers = self.layers.iter().map(|blob| {
            let path = fetch.cache.join(&blob.digest);
            if path.exists() {
                return Ok(path);
            }
            let token = registry.token_for(&blob.digest)?;
            let url = registry.blob(&blob.digest);
            let fetch = Fetch { max_bytes: left, ..*fetch };
            let path = download::download(&url, &blob.digest, token.as_deref(), &fetch)?;
            left = left.saturating_sub(path.metadata().map_or(0, |meta| meta.len()));
            Ok(path)
        });
        layers.collect()
    }
}
