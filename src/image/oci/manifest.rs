//! What a registry says of an image: its layers, or one manifest for each kind of machine.

use serde::Deserialize;

use super::Reference;
use crate::sandbox::{Error, Result};

/// The kinds of manifest that are understood, as they are asked for.
pub(super) const KINDS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How many layers an image may have.
const MOST_LAYERS: usize = 500;

/// A piece of an image.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    /// Of its compressed bytes: 64 hexadecimal digits.
    pub digest: String,
    /// How many bytes those are, as far as it is said.
    pub size: u64,
}

/// What a digest or a tag leads to.
pub(super) enum Manifest {
    /// An image: its layers, lowest first.
    Image(Vec<Blob>),
    /// Images for several kinds of machine.
    Index(Index),
}

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    platform: Platform,
}

#[derive(Default, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// Manifests for several kinds of machine.
pub(super) struct Index(Vec<Entry>);

impl Manifest {
    pub fn parse(text: &[u8], reference: &Reference) -> Result<Manifest> {
        let nonsense = |why: &str| Error::Transport {
            message: format!("what the registry says of '{reference}' {why}"),
        };
        let text: Text = serde_json::from_slice(text)
            .map_err(|_| nonsense("is not the description of an image"))?;
        if let Some(all) = text.manifests {
            return Ok(Manifest::Index(Index(all)));
        }
        let layers = text.layers.ok_or_else(|| nonsense("names no layers"))?;
        if layers.is_empty() || layers.len() > MOST_LAYERS {
            return Err(nonsense(&format!("names {} layers", layers.len())));
        }
        let layers = layers.into_iter().map(|layer| {
            let kind = layer.media_type;
            if !kind.contains(".tar") && !kind.is_empty() {
                return Err(Error::unsupported(
                    format!("starting from '{reference}'"),
                    "local",
                    format!("a layer of it is no archive but '{kind}'"),
                ));
            }
            let digest = digest(&layer.digest).ok_or_else(|| nonsense("names no sha256"))?;
            Ok(Blob { digest, size: layer.size })
        });
        Ok(Manifest::Image(layers.collect::<Result<_>>()?))
    }
}

impl Index {
    /// The digest of the one that is for this machine.
    pub fn for_this_machine(self, reference: &Reference) -> Result<String> {
        let (arch, variants) = architecture();
        let here = |one: &&Entry| one.platform.os == "linux" && one.platform.architecture == arch;
        let fit = self.0.iter().filter(here);
        let place =
            |one: &&Entry| variants.iter().position(|variant| *variant == one.platform.variant);
        let best = fit.filter(|one| place(one).is_some()).min_by_key(place);
        let Some(best) = best else {
            let mut all: Vec<String> = self.0.iter().map(|one| one.platform.said()).collect();
            all.retain(|one| !one.starts_with("unknown"));
            all.sort();
            all.dedup();
            let others = match all.is_empty() {
                true => "it names no machine at all; ask whoever pushed it".to_owned(),
                false => format!("it is for {}", all.join(", ")),
            };
            let why = format!("'{reference}' has nothing for linux/{arch}");
            return Err(Error::invalid_hint("image", why, others));
        };
        digest(&best.digest).ok_or_else(|| Error::Transport {
            message: format!("what the registry says of '{reference}' names no sha256"),
        })
    }
}

impl Platform {
    fn said(&self) -> String {
        let variant = if self.variant.is_empty() { "" } else { "/" };
        format!("{}/{}{variant}{}", self.os, self.architecture, self.variant)
    }
}

/// What Go calls this machine's architecture, and the variants of it that run here, best first.
fn architecture() -> (&'static str, &'static [&'static str]) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", &["", "v1"]),
        "x86" => ("386", &[""]),
        "aarch64" => ("arm64", &["v8", ""]),
        "arm" => ("arm", &["v7", "v6", "", "v5"]),
        "powerpc64" => ("ppc64le", &[""]),
        other => (other, &[""]),
    }
}

/// The hexadecimal digits of `sha256:…`.
fn digest(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:")?;
    let plain = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| hex.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference() -> Reference {
        Reference::parse("oci:a").unwrap().unwrap()
    }

    fn parse(text: serde_json::Value) -> Result<Manifest> {
        Manifest::parse(text.to_string().as_bytes(), &reference())
    }

    #[test]
    fn of_many_the_one_for_this_machine() {
        let (arch, _) = architecture();
        let entry = |digit: &str, os: &str, arch: &str, variant: &str| {
            json!({"digest": format!("sha256:{}", digit.repeat(64)),
                "platform": {"os": os, "architecture": arch, "variant": variant}})
        };
        let all = json!({"manifests": [
            entry("1", "windows", arch, ""),
            entry("2", "linux", "vax", ""),
            entry("3", "linux", arch, "v99"),
            entry("4", "linux", arch, ""),
        ]});
        let Ok(Manifest::Index(index)) = parse(all) else { panic!("an index") };
        assert_eq!(index.for_this_machine(&reference()).unwrap(), "4".repeat(64));
        let others = json!({"manifests": [
            entry("2", "linux", "vax", "v1"),
            entry("5", "unknown", "unknown", ""),
        ]});
        let Ok(Manifest::Index(index)) = parse(others) else { panic!("an index") };
        let error = index.for_this_machine(&reference()).unwrap_err();
        assert!(error.to_string().contains("has nothing for linux/"), "{error}");
        assert_eq!(error.hint(), Some("it is for linux/vax/v1".to_owned()));
    }

    #[test]
    fn what_is_no_manifest() {
        let layer =
            |kind: &str, digest: &str| json!({"layers": [{"mediaType": kind, "digest": digest}]});
        let sum = format!("sha256:{}", "a".repeat(64));
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert!(
            matches!(parse(layer(kind, &sum)), Ok(Manifest::Image(layers)) if layers.len() == 1)
        );
        for bad in [
            json!({}),
            json!([]),
            json!({"layers": []}),
            layer(kind, "sha256:../../etc/passwd"),
            layer(kind, "md5:aa"),
            layer("application/wasm", &sum),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
    }
}
