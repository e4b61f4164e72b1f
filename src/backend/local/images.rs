//! Which layers and host folders an image is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Inner;
use super::mode::Mode;
use super::protocol::{Task, Tree};
use super::record;
use crate::image::{Archives, Fetch, HostImage, Named, Source};
use crate::sandbox::{Cancel, Error, Result};

/// An image that is ready to start from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its content.
    pub fingerprint: String,
    /// Its layers, top first.
    pub layers: Vec<String>,
    /// Its trees, root first.
    pub trees: Vec<Tree>,
}

/// Says what an image name means here, before any work: nothing but this machine's own programs, or what is fetched.
fn parse(image: &str) -> Result<Option<Named>> {
    if image == "host" {
        return Ok(None);
    }
    Named::parse(image)?.map(Some).ok_or_else(|| {
        Error::invalid_hint(
            "image",
            format!("'{image}' is not an image that backend 'local' can start from"),
            "use \"host\", an alias such as \"debian/12\", an image of a registry such as \"oci:debian:12\", a path to a .tar, .tar.gz, .tar.xz or .tar.zst, or an https:// address with its sha256",
        )
    })
}

impl Inner {
    /// The image, made ready if it is not.
    pub(super) async fn image(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Image> {
        match parse(image)? {
            None => self.host_image.get_or_try_init(|| self.make_host_image()).await.cloned(),
            Some(named) => self.fetched_image(named, sha256, cancel).await,
        }
    }

    /// Its digest, without making it ready.
    pub(super) async fn image_fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        match parse(image)? {
            None => match self.host_image.get() {
                Some(image) => Ok(image.fingerprint.clone()),
                None => Ok(self.plan().await?.fingerprint()),
            },
            Some(named) => {
                let (server, sha256) = (self.image_server.clone(), sha256.map(str::to_owned));
                fetching(self.store.images(), cancel, move |fetch| {
                    named.fingerprint(&server, sha256.as_deref(), fetch)
                })
                .await
            }
        }
    }

    async fn make_host_image(&self) -> Result<Image> {
        let plan = self.plan().await?;
        let fingerprint = plan.fingerprint();
        let trees: Vec<Tree> =
            std::iter::once(Tree { name: "root".into(), target: "/".into(), host: None })
                .chain(plan.trees().iter().map(|tree| Tree {
                    name: tree.folder.clone(),
                    target: tree.path.to_string_lossy().into_owned(),
                    host: Some(tree.path.clone()),
                }))
                .collect();
        let hide = self.mode == Mode::Root;
        self.make_ready(fingerprint, trees, |to| Task::HostImage { to, hide }).await
    }

    /// As root the guest's root owns what the host's root owns, so private files are hidden from it.
    async fn plan(&self) -> Result<HostImage> {
        let hide = self.mode == Mode::Root;
        blocking(move || HostImage::plan(&[], hide)).await
    }

    async fn fetched_image(
        &self,
        named: Named,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Image> {
        let (server, sha256) = (self.image_server.clone(), sha256.map(str::to_owned));
        let fetched = fetching(self.store.images(), cancel, move |fetch| {
            let named = match named {
                // The keeper works in another folder.
                Named::Archive(Source::File(path)) => {
                    Named::Archive(Source::File(path.canonicalize().unwrap_or(path)))
                }
                other => other,
            };
            named.fetch(&server, sha256.as_deref(), fetch)
        });
        let Archives { fingerprint, paths, layered, name } = fetched.await?;
        let trees = vec![Tree { name: "root".into(), target: "/".into(), host: None }];
        let all_mine = matches!(self.mode, Mode::Single { .. });
        self.make_ready(fingerprint, trees, |to| Task::Unpack {
            archives: paths,
            layered,
            name,
            to,
            all_mine,
        })
        .await
    }

    /// Makes the image's layer once, whoever else wants it at the same time.
    async fn make_ready(
        &self,
        fingerprint: String,
        trees: Vec<Tree>,
        task: impl FnOnce(PathBuf) -> Task,
    ) -> Result<Image> {
        let key: String = fingerprint.chars().filter(char::is_ascii_alphanumeric).collect();
        let kind = if matches!(self.mode, Mode::Single { .. }) { "single" } else { "ids" };
        let file = self.store.images().join(format!("{key}-{kind}.json"));
        let known = |file: &Path| -> Result<Option<Image>> {
            // A damaged one is made again.
            let image = record::load::<Image>(file).unwrap_or_default();
            Ok(image.filter(|image| image.layers.iter().all(|id| self.store.layer(id).is_dir())))
        };
        if let Some(image) = known(&file)? {
            return Ok(image);
        }
        let _lock = self.store.image_lock(&format!("{key}-{kind}")).await?;
        if let Some(image) = known(&file)? {
            return Ok(image);
        }
        let _referring = self.store.referring().await?;
        let id = self.store.new_layer([""; 0])?;
        let unfinished = Unfinished { inner: self, id: Some(id.clone()) };
        self.keeper().await?.perform(&task(self.store.layer(&id)), &self.mode).await?;
        // An image that is recorded is whole, also after a power cut.
        let task = Task::Sync { path: self.store.layers(), marks: Vec::new() };
        self.keeper().await?.perform(&task, &self.mode).await?;
        let image = Image { fingerprint, layers: vec![id], trees };
        record::save(&file, &image)?;
        unfinished.done();
        Ok(image)
    }
}

/// A layer that is discarded unless its image gets finished.
struct Unfinished<'a> {
    inner: &'a Inner,
    id: Option<String>,
}

impl Unfinished<'_> {
    fn done(mut self) {
        self.id = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            let _ = self.inner.store.discard(&self.inner.store.layer(id));
        }
    }
}

/// Does what may download, beside everything else.
pub(in crate::backend) async fn fetching<T: Send + 'static>(
    cache: PathBuf,
    cancel: &Cancel,
    work: impl FnOnce(&Fetch<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = cancel.clone();
    blocking(move || {
        let going_on = |_: u64, _: Option<u64>| !cancel.is_cancelled();
        work(&Fetch { cache: &cache, max_bytes: Fetch::MAX_BYTES, progress: &going_on })
    })
    .await
}

pub(in crate::backend) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("preparing the image: {error}"))))
}
