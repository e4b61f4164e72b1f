//! Trees that machines are made from: an archive is fetched, checked and unpacked once, and then copied.

use std::fs;
use std::path::{Path, PathBuf};

use super::Inner;
use crate::image::{self, Fetch, LayerOptions, OciImage, Reference, Source, Tarball};
use crate::sandbox::{Cancel, Capabilities, Capability, Error, Result};
use crate::transfer::{Owners, exists_inside};

/// What is known of images.
pub(super) struct Images {
    server: String,
}

/// What an image's name means here.
enum Named {
    /// An archive.
    Archive(Source),
    /// What an image server calls so.
    Alias(String),
    /// An image in a registry.
    Oci(Reference),
}

/// What was fetched of an image.
enum Fetched {
    Tarball(Tarball),
    /// Layers, lowest first, and the digest of the manifest that names them.
    Layers(Vec<PathBuf>, String),
}

impl Fetched {
    fn fingerprint(&self) -> String {
        match self {
            Fetched::Tarball(tarball) => tarball.fingerprint(),
            Fetched::Layers(_, fingerprint) => fingerprint.clone(),
        }
    }
}

impl Images {
    pub fn new(server: Option<String>) -> Images {
        Images { server: server.unwrap_or_else(|| image::IMAGE_SERVER.into()) }
    }
}

fn parse(image: &str, capabilities: &Capabilities) -> Result<Named> {
    if image == "host" {
        capabilities.require(Capability::HostImage)?;
    }
    if let Some(reference) = Reference::parse(image) {
        return reference.map(Named::Oci);
    }
    if let Some(source) = Source::parse(image) {
        return Ok(Named::Archive(source));
    }
    image::alias(image).map(|alias| Named::Alias(alias.to_owned())).ok_or_else(|| {
        Error::invalid_hint(
            "image",
            format!("'{image}' is not an image that backend 'nspawn' can start from"),
            "use an alias such as \"debian/12\", an image of a registry that has an init such as \"oci:REGISTRY/NAME\", a path to a .tar, .tar.gz, .tar.xz or .tar.zst, or an https:// address with its sha256",
        )
    })
}

impl Inner {
    /// An image's digest, without making it ready.
    pub(super) async fn fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        match parse(image, &self.capabilities)? {
            // What a server says is enough, nothing is downloaded for it.
            Named::Alias(alias) => {
                let (_, found) = self.looked_up(alias, sha256, cancel).await?;
                Ok(format!("sha256:{found}"))
            }
            Named::Oci(reference) => {
                let sha256 = sha256.map(str::to_owned);
                self.fetching(cancel, move |fetch| {
                    Ok(OciImage::look_up(&reference, sha256.as_deref(), fetch)?.fingerprint())
                })
                .await
            }
            named => Ok(self.fetch(named, sha256, cancel).await?.fingerprint()),
        }
    }

    /// An image's tree, unpacked if it is not, and its digest.
    pub(super) async fn image(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<(PathBuf, String)> {
        let fetched = self.fetch(parse(image, &self.capabilities)?, sha256, cancel).await?;
        let fingerprint = fetched.fingerprint();
        let key: String = fingerprint.chars().filter(char::is_ascii_alphanumeric).collect();
        let folder = self.store.images().join(&key);
        let tree = folder.join("tree");
        if folder.is_dir() {
            return Ok((tree, fingerprint));
        }
        let _lock = self.store.image_lock(&key).await?;
        if folder.is_dir() {
            return Ok((tree, fingerprint));
        }
        let (making, lock) = self.store.new_folder()?;
        let unpacked = self.unpack(fetched, image, making.join("tree"), cancel).await;
        let placed = unpacked.and_then(|()| {
            fs::rename(&making, &folder)
                .map_err(|error| Error::io(format!("keeping image '{image}'"), error))
        });
        drop(lock);
        if placed.is_err() {
            self.clear(&making).await?;
        }
        placed.map(|()| (tree, fingerprint))
    }

    async fn unpack(
        &self,
        fetched: Fetched,
        image: &str,
        tree: PathBuf,
        cancel: &Cancel,
    ) -> Result<()> {
        let place = self.storage.make(&tree).await?;
        let (name, cancel) = (image.to_owned(), cancel.clone());
        let unpacked = blocking(move || {
            let options = LayerOptions::new(name.as_str(), Owners::Archive);
            let unpacked = match &fetched {
                Fetched::Tarball(tarball) => {
                    let archive = Until { archive: tarball.reader()?, cancel: &cancel };
                    image::unpack_layer(archive, &place, &options)
                }
                Fetched::Layers(layers, _) => {
                    let (options, cancel) = (&options, &cancel);
                    let open = |path: &PathBuf| {
                        let (path, name) = (path.clone(), options.name.clone());
                        move || {
                            let archive = fs::File::open(&path).and_then(image::decompress);
                            let archive = archive.map_err(|error| {
                                Error::io(format!("reading image '{name}'"), error)
                            })?;
                            Ok(Until { archive, cancel })
                        }
                    };
                    image::unpack_layers(layers.iter().map(open), &place, options)
                }
            };
            match unpacked {
                Err(_) if cancel.is_cancelled() => return Err(Error::Cancelled),
                done => done.map(drop)?,
            }
            check(&place, &name)?;
            tidy(&place).map_err(|error| Error::io(format!("unpacking image '{name}'"), error))
        })
        .await;
        unpacked?;
        self.storage.seal(&tree).await
    }

    async fn looked_up(
        &self,
        alias: String,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<(Source, String)> {
        let (server, sha256) = (self.images.server.clone(), sha256.map(str::to_owned));
        self.fetching(cancel, move |fetch| {
            image::look_up(&server, &alias, sha256.as_deref(), fetch)
        })
        .await
    }

    /// Does what may download, beside everything else.
    async fn fetching<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        work: impl FnOnce(&Fetch<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (cache, cancel) = (self.store.images(), cancel.clone());
        blocking(move || {
            let going_on = |_: u64, _: Option<u64>| !cancel.is_cancelled();
            work(&Fetch { cache: &cache, max_bytes: Fetch::MAX_BYTES, progress: &going_on })
        })
        .await
    }

    async fn fetch(&self, named: Named, sha256: Option<&str>, cancel: &Cancel) -> Result<Fetched> {
        let (source, sha256) = match named {
            Named::Oci(reference) => {
                let sha256 = sha256.map(str::to_owned);
                let looked_up = move |fetch: &Fetch<'_>| {
                    let image = OciImage::look_up(&reference, sha256.as_deref(), fetch)?;
                    Ok(Fetched::Layers(image.layers(fetch)?, image.fingerprint()))
                };
                return self.fetching(cancel, looked_up).await;
            }
            Named::Alias(alias) => {
                let (source, found) = self.looked_up(alias, sha256, cancel).await?;
                (source, Some(found))
            }
            Named::Archive(source) => (source, sha256.map(str::to_owned)),
        };
        self.fetching(cancel, move |fetch| {
            Tarball::open(&source, sha256.as_deref(), fetch).map(Fetched::Tarball)
        })
        .await
    }
}

/// An archive that ends when nobody wants it any more.
struct Until<'a, R> {
    archive: R,
    cancel: &'a Cancel,
}

impl<R: std::io::Read> std::io::Read for Until<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.cancel.is_cancelled() {
            true => Err(std::io::Error::other("cancelled")),
            false => self.archive.read(buffer),
        }
    }
}

/// Refuses what can't be booted, or can't be worked on.
pub(super) fn check(tree: &Path, image: &str) -> Result<()> {
    let has = |path: &str| exists_inside(tree, Path::new(path));
    if !has("sbin/init") && !has("usr/lib/systemd/systemd") && !has("lib/systemd/systemd") {
        return Err(Error::invalid_hint(
            "image",
            format!("'{image}' has no init system (/sbin/init), and a machine boots its image"),
            "use an image of a whole system such as \"debian/12\" (those of registries seldom have one), or backend 'local', which needs none",
        ));
    }
    if !has("usr/lib/systemd/systemd") && !has("lib/systemd/systemd") {
        return Err(Error::unsupported(
            format!("an image without systemd ('{image}')"),
            super::BACKEND,
            "commands are started by the systemd in the machine: use an image that has it, such as \"debian/12\", or backend 'local'",
        ));
    }
    Ok(())
}

/// Takes out what is one machine's own, and what keeps root from its console.
fn tidy(tree: &Path) -> std::io::Result<()> {
    let etc = super::identity::inside(tree, Path::new("etc"))?;
    for name in ["machine-id", "securetty"] {
        match rustix::fs::unlinkat(&etc, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("preparing the image: {error}"))))
}
