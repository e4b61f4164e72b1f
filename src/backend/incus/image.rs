//! Images: of the server, and of image servers that it copies them from.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use hyper::Method;
use serde_json::json;

use super::client::escape;
use super::remotes::{check_remote, host_and_port, remotes};
use super::{BACKEND, Inner};
use crate::sandbox::{Capability, Error, Kind, Result};

/// The image server that the Incus client knows without being told.
const IMAGES: (&str, &str) = ("images", "https://images.linuxcontainers.org");

/// Where image servers are looked up, and what was copied from them since this backend was opened.
pub(super) struct Images {
    folders: Vec<PathBuf>,
    copied: Mutex<HashMap<String, String>>,
}

impl Images {
    pub fn new(folders: Vec<PathBuf>) -> Images {
        Images { folders, copied: Mutex::default() }
    }
}

impl Inner {
    /// The fingerprint of an image: by its alias or the fingerprint itself, or by that of an image server,
    /// as in `images:debian/12`. One of an image server is copied to the server.
    pub(super) async fn fingerprint(&self, image: &str) -> Result<String> {
        if image == "host" {
            self.capabilities.require(Capability::HostImage)?;
        }
        if image.starts_with(['/', '.']) || image.contains("://") {
            self.capabilities.require(Capability::TarImage)?;
        }
        if image.is_empty() {
            return Err(Error::invalid("image", "it has no name"));
        }
        match image.split_once(':') {
            Some(("local", alias)) => self.own(alias).await,
            Some((remote, alias)) => self.copied(image, remote, alias).await,
            None => self.own(image).await,
        }
    }

    async fn own(&self, image: &str) -> Result<String> {
        let doing = format!("looking for image '{image}'");
        let alias = format!("/1.0/images/aliases/{}", escape(image));
        match self.client.get(&alias).await {
            Ok(found) => {
                if let Some(fingerprint) = found["target"].as_str() {
                    return Ok(fingerprint.to_owned());
                }
            }
            Err(fail) if fail.is_missing() => {}
            Err(fail) => return Err(fail.plain(&doing)),
        }
        if image.len() >= 12 && image.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            match self.client.get(&format!("/1.0/images/{image}")).await {
                Ok(found) => {
                    if let Some(fingerprint) = found["fingerprint"].as_str() {
                        return Ok(fingerprint.to_owned());
                    }
                }
                Err(fail) if fail.is_missing() => {}
                Err(fail) => return Err(fail.plain(&doing)),
            }
        }
        Err(Error::not_found_hint(
            Kind::Image,
            image,
            format!(
                "take it from an image server: images:{image}; or copy it to the server: incus image copy images:{image} local: --alias {image}"
            ),
        ))
    }

    /// Lets the server copy an image from an image server.
    async fn copied(&self, image: &str, remote: &str, alias: &str) -> Result<String> {
        let known = || self.images.copied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fingerprint) = known().get(image) {
            return Ok(fingerprint.clone());
        }
        check_remote(remote)?;
        if alias.is_empty() {
            return Err(Error::invalid("image", format!("'{image}' names no image of '{remote}'")));
        }
        let all = remotes(&self.images.folders)?;
        let remote_is = all.iter().find(|known| known.name == remote);
        let (address, protocol) = match remote_is {
            Some(known) if known.images => (known.address.as_str(), known.protocol.as_str()),
            Some(_) => {
                return Err(Error::unsupported(
                    format!("copying images from remote '{remote}'"),
                    BACKEND,
                    format!(
                        "only image servers are read: copy it yourself, incus image copy {image} local: --alias {alias}"
                    ),
                ));
            }
            None if remote == IMAGES.0 => (IMAGES.1, "simplestreams"),
            None if remote == "oci" => {
                return Err(Error::unsupported(
                    "an image of an OCI registry",
                    BACKEND,
                    "such images hold programs and no init, which a system container starts with: use one of the server's, such as debian/12, or the backend 'local'",
                ));
            }
            None => {
                return Err(Error::not_found_hint(
                    Kind::Image,
                    image,
                    format!(
                        "there is no image server '{remote}'; add it: incus remote add {remote} https://… --protocol simplestreams"
                    ),
                ));
            }
        };
        // Encrypted, whoever serves it.
        host_and_port(address)?;
        let mut source = json!({
            "type": "image", "mode": "pull", "server": address, "protocol": protocol, "alias": alias,
        });
        let pinned = self
            .images
            .folders
            .iter()
            .map(|folder| folder.join("servercerts").join(format!("{remote}.crt")));
        if let Some(pem) = pinned.into_iter().find_map(|path| std::fs::read_to_string(path).ok()) {
            source["certificate"] = pem.into();
        }
        let body = json!({"source": source, "auto_update": false});
        let copied = self.client.run(Method::POST, "/1.0/images", &body).await;
        let copied = match copied {
            Ok(copied) => copied,
            Err(super::client::Fail::Failed(text, _)) => {
                return Err(Error::not_found_hint(
                    Kind::Image,
                    image,
                    format!(
                        "the server says: {text}; see which there are: incus image list {remote}:"
                    ),
                ));
            }
            Err(fail) => return Err(fail.plain(&format!("copying image '{image}'"))),
        };
        match copied["metadata"]["fingerprint"].as_str() {
            Some(fingerprint) => {
                known().insert(image.to_owned(), fingerprint.to_owned());
                Ok(fingerprint.to_owned())
            }
            None => {
                Err(Error::internal(format!("the server does not say which image '{image}' is")))
            }
        }
    }
}
