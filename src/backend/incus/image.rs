//! Images of the server.

use super::Inner;
use super::client::escape;
use crate::sandbox::{Capability, Error, Kind, Result};

impl Inner {
    /// The fingerprint of an image that the server has, by its alias or by the fingerprint itself.
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
        let alias = format!("/1.0/images/aliases/{}", escape(image));
        match self.client.get(&alias).await {
            Ok(found) => {
                if let Some(fingerprint) = found["target"].as_str() {
                    return Ok(fingerprint.to_owned());
                }
            }
            Err(fail) if fail.is_missing() => {}
            Err(fail) => return Err(fail.plain(&format!("looking for image '{image}'"))),
        }
        if image.len() >= 12 && image.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            match self.client.get(&format!("/1.0/images/{image}")).await {
                Ok(found) => {
                    if let Some(fingerprint) = found["fingerprint"].as_str() {
                        return Ok(fingerprint.to_owned());
                    }
                }
                Err(fail) if fail.is_missing() => {}
                Err(fail) => return Err(fail.plain(&format!("looking for image '{image}'"))),
            }
        }
        Err(Error::not_found_hint(
            Kind::Image,
            image,
            format!(
                "copy it to the server: incus image copy images:{image} local: --alias {image}"
            ),
        ))
    }
}
