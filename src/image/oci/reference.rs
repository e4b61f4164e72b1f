//! The name of an image in a registry.

use std::fmt;

use crate::sandbox::{Error, Result};

/// A registry, a repository in it, and a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `host[:port]`.
    pub(super) registry: String,
    /// `library/debian`.
    pub(super) repository: String,
    pub(super) tag: String,
    /// 64 hexadecimal digits; it says more than the tag.
    pub(super) digest: Option<String>,
}

/// The registry of names without one, and where it really is.
const HUB: &str = "docker.io";
const HUB_AT: &str = "registry-1.docker.io";

impl Reference {
    /// Whether `image` is the name of an image in a registry: what begins with `oci:` or `docker://`.
    /// What follows is read as Docker reads it: without a registry it is Docker's, without a tag `latest`.
    ///
    /// # Errors
    /// `InvalidInput` for one that can't be a name.
    pub fn parse(image: &str) -> Option<Result<Reference>> {
        let starts = ["oci://", "oci:", "docker://", "docker:"];
        let name = starts.iter().find_map(|start| image.strip_prefix(start))?;
        Some(Self::read(name).ok_or_else(|| {
            Error::invalid_hint(
                "image",
                format!("'{image}' is not the name of an image in a registry"),
                "write it as oci:debian:12, oci:REGISTRY/NAME:TAG or oci:NAME@sha256:DIGEST",
            )
        }))
    }

    fn read(name: &str) -> Option<Reference> {
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.strip_prefix("sha256:")?.to_ascii_lowercase();
                let hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
                (name, Some(hex.then_some(digest)?))
            }
            None => (name, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name, "latest"),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            Some(_) => (HUB, name.to_owned()),
            None => (HUB, format!("library/{name}")),
        };
        let plain = |text: &str, odd: &str| {
            let mut characters = text.chars();
            characters.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '[')
                && characters.all(|c| c.is_ascii_alphanumeric() || odd.contains(c))
        };
        let lower = |part: &str| plain(part, "._-") && !part.contains(char::is_uppercase);
        let good = plain(registry, ".-:[]")
            && repository.split('/').all(lower)
            && repository.len() <= 255
            && plain(tag, "._-")
            && tag.len() <= 128;
        good.then(|| Reference {
            registry: registry.to_owned(),
            repository,
            tag: tag.to_owned(),
            digest,
        })
    }

    /// The address that its parts are below: `https:`, but for a registry on this machine.
    pub(super) fn base(&self) -> String {
        let host = if self.registry == HUB { HUB_AT } else { &self.registry };
        let plain = format!("http://{host}");
        let scheme = if crate::image::download::is_trusted(&plain) { "http" } else { "https" };
        format!("{scheme}://{host}/v2/{}", self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "oci:{}/{}:{}", self.registry, self.repository, self.tag)?;
        match &self.digest {
            Some(digest) => write!(to, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(image: &str) -> Option<String> {
        Some(Reference::parse(image)?.ok()?.to_string())
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = "ab".repeat(32);
        for (image, expected) in [
            ("oci:debian", "oci:docker.io/library/debian:latest"),
            ("oci:debian:12", "oci:docker.io/library/debian:12"),
            ("docker://debian:12-slim", "oci:docker.io/library/debian:12-slim"),
            ("oci:podman/stable", "oci:docker.io/podman/stable:latest"),
            ("oci:quay.io/podman/stable:v5", "oci:quay.io/podman/stable:v5"),
            ("oci:localhost/a", "oci:localhost/a:latest"),
            ("oci://127.0.0.1:5000/a/b:1", "oci:127.0.0.1:5000/a/b:1"),
            ("oci:[::1]:5000/a", "oci:[::1]:5000/a:latest"),
        ] {
            assert_eq!(read(image).as_deref(), Some(expected), "{image}");
        }
        let pinned = format!("oci:debian:12@sha256:{digest}");
        assert_eq!(
            read(&pinned).unwrap(),
            format!("oci:docker.io/library/debian:12@sha256:{digest}")
        );
    }

    #[test]
    fn what_is_no_name() {
        for bad in [
            "oci:",
            "oci:/",
            "oci:Debian",
            "oci:debian:",
            "oci:a//b",
            "oci:a/../b",
            "oci:a b",
            "oci:a?b",
            "oci:a@sha256:12",
            "oci:a@md5:12",
            "oci:evil.example@x/a",
            "oci:x.example/",
        ] {
            assert!(Reference::parse(bad).is_some_and(|read| read.is_err()), "{bad}");
        }
        assert!(Reference::parse("debian/12").is_none());
    }

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        let base = |image: &str| Reference::parse(image).unwrap().unwrap().base();
        assert_eq!(base("oci:debian"), "https://registry-1.docker.io/v2/library/debian");
        assert_eq!(base("oci:127.0.0.1:5000/a"), "http://127.0.0.1:5000/v2/a");
        assert_eq!(base("oci:localhost.evil.example/a"), "https://localhost.evil.example/v2/a");
    }

    proptest! {
        /// Whatever is taken is one name below one host, and reads back as itself.
        #[test]
        fn no_name_leaves_its_registry(name in "[a-zA-Z0-9./:@_\\-%?# ]{0,40}") {
            if let Some(Ok(read)) = Reference::parse(&format!("oci:{name}")) {
                prop_assert!(!read.base().contains(['?', '#', '%', ' ', '@']));
                prop_assert!(!read.base().contains("/../"));
                prop_assert_eq!(Reference::parse(&read.to_string()).unwrap().unwrap(), read);
            }
        }
    }
}
