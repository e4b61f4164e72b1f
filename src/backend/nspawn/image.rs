//! Trees that machines are made from: an archive is fetched, checked and unpacked once, and then copied.

use std::fs;
use std::path::{Path, PathBuf};

use super::Inner;
use crate::backend::local::{blocking, fetching};
use crate::image::{self, Archives, LayerOptions, Named};
use crate::sandbox::{Cancel, Capabilities, Capability, Error, Result};
use crate::transfer::{Owners, exists_inside};

/// What is known of images.
pub(super) struct Images {
    server: String,
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
    Named::parse(image)?.ok_or_else(|| {
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
        let named = parse(image, &self.capabilities)?;
        let (server, sha256) = (self.images.server.clone(), sha256.map(str::to_owned));
        fetching(self.store.images(), cancel, move |fetch| {
            named.fingerprint(&server, sha256.as_deref(), fetch)
        })
        .await
    }

    /// An image's tree, unpacked if it is not, and its digest.
    pub(super) async fn image(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<(PathBuf, String)> {
        let named = parse(image, &self.capabilities)?;
        let (server, sha256) = (self.images.server.clone(), sha256.map(str::to_owned));
        let fetched = fetching(self.store.images(), cancel, move |fetch| {
            named.fetch(&server, sha256.as_deref(), fetch)
        });
        let fetched = fetched.await?;
        let fingerprint = fetched.fingerprint.clone();
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
        archives: Archives,
        image: &str,
        tree: PathBuf,
        cancel: &Cancel,
    ) -> Result<()> {
        let place = self.storage.make(&tree).await?;
        let (name, cancel) = (image.to_owned(), cancel.clone());
        let unpacked = blocking(move || {
            let options = LayerOptions::new(name.as_str(), Owners::Archive);
            let unpacked = image::unpack_archives(
                &archives.paths,
                archives.layered,
                &place,
                &options,
                |archive| Until { archive, cancel: &cancel },
            );
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
