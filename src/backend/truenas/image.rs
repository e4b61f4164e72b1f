//! Images of the NAS.

use serde_json::{Value, json};

use super::Inner;
use super::api::{Api, doing};
use crate::sandbox::{Capability, Error, Kind, Result};

/// Names of releases, by the numbers that people say.
const RELEASES: &[(&str, &str, &str)] = &[
    ("debian", "11", "bullseye"),
    ("debian", "12", "bookworm"),
    ("debian", "13", "trixie"),
    ("ubuntu", "22.04", "jammy"),
    ("ubuntu", "24.04", "noble"),
    ("ubuntu", "26.04", "resolute"),
];

impl Inner {
    /// What an image is now.
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
        let looking = |error| doing(error, &format!("looking for image '{image}'"));
        let missing = |known: Vec<&str>| {
            let near = crate::suggest::nearest(image, known.iter().copied());
            let hint = match near {
                Some(near) => format!("did you mean '{near}'?"),
                None => "the NAS takes images of its own registry, such as debian/12".to_owned(),
            };
            Error::not_found_hint(Kind::Image, image, hint)
        };
        match self.api {
            Api::Virt => {
                let params = json!([{"remote": "LINUX_CONTAINERS"}]);
                let all = self.client.read("virt.instance.image_choices", params).await;
                let all = all.map_err(looking)?;
                match all.get(image) {
                    // It does not say which build it is of.
                    Some(about) => {
                        let hash = blake3::hash(format!("{image} {about}").as_bytes());
                        Ok(format!("{image}@{}", &hash.to_hex()[..16]))
                    }
                    None => Err(missing(
                        all.as_object()
                            .into_iter()
                            .flatten()
                            .map(|(name, _)| name.as_str())
                            .collect(),
                    )),
                }
            }
            Api::Container => {
                let all = self.client.read("container.image.query_registry", json!([])).await;
                let all = all.map_err(looking)?;
                let all: Vec<&Value> = all.as_array().into_iter().flatten().collect();
                let found =
                    all.iter().find(|one| one["name"].as_str().is_some_and(|n| is(n, image)));
                let newest = |one: &Value| {
                    let versions = one["versions"].as_array().into_iter().flatten();
                    versions.filter_map(|of| of["version"].as_str()).max().map(str::to_owned)
                };
                match found.and_then(|one| Some((one["name"].as_str()?, newest(one)?))) {
                    Some((name, version)) => Ok(format!("{name}@{version}")),
                    None => {
                        Err(missing(all.iter().filter_map(|one| one["name"].as_str()).collect()))
                    }
                }
            }
        }
    }
}

/// Whether a name of the registry, such as `debian:bookworm:amd64:default`, is that of an image.
fn is(name: &str, image: &str) -> bool {
    if name == image {
        return true;
    }
    let mut parts = name.split(':');
    let (Some(system), Some(release)) = (parts.next(), parts.next()) else { return false };
    if !matches!((parts.nth(1), parts.next()), (Some("default") | None, None)) {
        return false;
    }
    let Some((wanted, number)) = image.split_once('/') else { return false };
    let known = RELEASES.iter().find(|(of, known, _)| *of == wanted && *known == number);
    let number = known.map_or(number, |(_, _, name)| *name);
    system == wanted && release == number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_its_short_name() {
        for image in ["debian:bookworm:amd64:default", "debian/12", "debian/bookworm"] {
            assert!(is("debian:bookworm:amd64:default", image), "{image}");
        }
        for image in ["debian/13", "debian", "ubuntu/bookworm", "bookworm"] {
            assert!(!is("debian:bookworm:amd64:default", image), "{image}");
        }
        assert!(!is("debian:bookworm:amd64:cloud", "debian/12"));
    }
}
