//! `image`: what the root file system is made from.

use std::path::PathBuf;

use super::error::{MachineError, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};

/// What the root file system is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// An alias of a simplestreams server, such as `debian/12`.
    Alias(String),
    /// A reference to an OCI registry, such as `docker.io/library/debian:12`.
    Oci(String),
    /// An archive: a path, or an `https:` URL with its sha256.
    Tarball {
        /// Where it is.
        from: String,
        /// The digest of its bytes, in hex.
        sha256: Option<String>,
    },
    /// A folder that is there already and is used as it is: that of an imported jail.
    Folder(PathBuf),
}

impl Image {
    /// As it is written on a command line.
    pub fn reference(&self) -> String {
        match self {
            Image::Alias(alias) => alias.clone(),
            Image::Oci(reference) => format!("oci:{reference}"),
            Image::Tarball { from, .. } => from.clone(),
            Image::Folder(folder) => folder.display().to_string(),
        }
    }

    /// Reads `image = "debian/12"`, or a table with one of `alias`, `oci`, `tarball` (with `sha256`),
    /// `folder`, or `distro` with `release`.
    pub(super) fn read(node: &Node) -> Result<Image> {
        if let Value::Text(_) = &node.value {
            let word = text(node)?;
            return Ok(match word.strip_prefix("oci:") {
                Some(reference) => Image::Oci(reference.into()),
                None if word.starts_with(['/', '.']) || word.contains("://") => {
                    Image::Tarball { from: word, sha256: None }
                }
                None => Image::Alias(word),
            });
        }
        let reader = Reader::new(node)?;
        let alias = reader.text("alias")?.map(Image::Alias);
        let oci = reader.text("oci")?.map(Image::Oci);
        let sha256 = reader.text("sha256")?;
        let digest_at = reader.place_of("sha256");
        let tarball = reader.text("tarball")?;
        let tarball = tarball.map(|from| Image::Tarball { from, sha256: sha256.clone() });
        let folder = reader.text("folder")?.map(|path| Image::Folder(path.into()));
        let (distro, release) = (reader.text("distro")?, reader.text("release")?);
        let place = reader.place();
        reader.finish()?;
        let released = match (distro, release) {
            (Some(distro), Some(release)) => Some(Image::Alias(format!("{distro}/{release}"))),
            (None, None) => None,
            _ => {
                return Err(MachineError::invalid(place, "distro and release belong together")
                    .or_hint("say both, such as distro = \"debian\" and release = \"12\""));
            }
        };
        let given: Vec<Image> =
            [alias, oci, tarball, folder, released].into_iter().flatten().collect();
        let hint = "say one of alias, oci, tarball, folder, or distro with release";
        match <[Image; 1]>::try_from(given) {
            Ok([image]) => match (&image, sha256) {
                (Image::Tarball { .. }, _) | (_, None) => Ok(image),
                (_, Some(_)) => {
                    Err(MachineError::invalid(digest_at, "only a tarball has a sha256"))
                }
            },
            Err(all) if all.is_empty() => {
                Err(MachineError::invalid(place, "the image is not said").or_hint(hint))
            }
            Err(_) => Err(MachineError::invalid(place, "there can be one image").or_hint(hint)),
        }
    }
}
