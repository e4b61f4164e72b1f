//! Files from the network, fetched by the host.

use std::path::PathBuf;

use crate::sandbox::{Error, Kind, Result};

use super::super::RunContext;

/// A file somewhere else, and the digest that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// `http:`, `https:` or `file:`.
    pub url: String,
    /// 64 hex digits.
    pub sha256: String,
    /// Where a `file:` URL leads to, which the script may read.
    local: Option<PathBuf>,
}

impl Fetch {
    /// Refuses what can't be fetched, before anything is.
    pub fn new(ctx: &RunContext, url: &str, sha256: &str) -> Result<Fetch> {
        let hex = sha256.strip_prefix("sha256:").unwrap_or(sha256).to_ascii_lowercase();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::invalid_hint(
                "sha256",
                format!("'{sha256}' is not a digest"),
                "write the 64 hex digits that sha256sum prints",
            ));
        }
        let local = match url.split_once("://") {
            Some(("http" | "https", rest)) if !rest.is_empty() => None,
            Some(("file", path)) => Some(super::step::host_path(ctx, path)?),
            _ => {
                return Err(Error::invalid_hint(
                    "url",
                    format!("'{url}' is no URL that can be fetched"),
                    "begin it with https://, http:// or file://; for a file of the project there is copy",
                ));
            }
        };
        Ok(Fetch { url: url.into(), sha256: hex, local })
    }

    /// The file on this machine, downloaded when it is not here yet, and checked.
    #[cfg(feature = "local")]
    pub async fn get(&self, ctx: &RunContext) -> Result<PathBuf> {
        use crate::image::{self, Tarball};
        let cache = ctx.host_folder("downloads")?;
        let source = match &self.local {
            Some(path) => image::Source::File(path.clone()),
            None => image::Source::Url(self.url.clone()),
        };
        let (sha256, cancel) = (self.sha256.clone(), ctx.cancel.clone());
        let got = tokio::task::spawn_blocking(move || {
            let progress = |_, _| !cancel.is_cancelled();
            let fetch = image::Fetch {
                cache: &cache,
                max_bytes: image::Fetch::MAX_BYTES,
                progress: &progress,
            };
            Tarball::open(&source, Some(&sha256), &fetch).map(|got| got.path().to_owned())
        });
        let got = got.await.map_err(|error| Error::internal(error.to_string()))?;
        got.map_err(|error| match error {
            Error::NotFound { kind: Kind::Image, name, hint } => {
                Error::NotFound { kind: Kind::File, name, hint }
            }
            Error::InvalidInput { what, message, hint } if what == "image" => {
                Error::InvalidInput { what: "fetch".into(), message, hint }
            }
            other => other,
        })
    }

    /// Without what images are downloaded with, nothing is.
    #[cfg(not(feature = "local"))]
    pub async fn get(&self, ctx: &RunContext) -> Result<PathBuf> {
        let _ = (ctx, Kind::File, &self.local);
        Err(Error::unsupported("fetch", "this build", "build sandscript with the feature 'local'"))
    }
}
