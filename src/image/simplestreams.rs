//! Root file systems by alias (`debian/12`) from a simplestreams server: the images that Incus and
//! TrueNAS start from.
//!
//! Its format: `streams/v1/index.json` names a list of products, each with aliases, an architecture and
//! versions; a version has files with a sha256 each (Incus' `doc/reference/image_servers.md`).

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use serde::Deserialize;

use super::tarball::{Fetch, Source};
use super::{cache, download};
use crate::sandbox::{Error, Kind, Result};

/// The server that is asked when no other is set: the one behind `images:` of the Incus client.
pub const IMAGE_SERVER: &str = "https://images.linuxcontainers.org";

/// How long a list of images is as good as new.
const FRESH: Duration = Duration::from_secs(3600);
/// How large a list may be: the largest known has 3 MB.
const MOST: u64 = 64 << 20;
/// The kind of file that can be unpacked here.
const ARCHIVE: &str = "root.tar.xz";

/// Whether `image` is an alias, such as `debian/12` or `alpine/3.22/cloud`; without `images:` before it.
pub fn alias(image: &str) -> Option<&str> {
    let alias = image.strip_prefix("images:").unwrap_or(image);
    let part = |part: &str| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        rest.len() < part.len()
            && rest.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    (alias.contains('/') && alias.split('/').all(part)).then_some(alias)
}

/// Where the newest image behind `alias` is for this machine, and its sha256; of `wanted` digests, that
/// one, as long as the server has it.
///
/// The server's list is kept in the cache for an hour, and longer while the server can't be reached.
///
/// # Errors
/// `InvalidInput` for a server that is not `https:` (only loopback may be plain: digests are only as good
/// as the way they came by), `NotFound` with the nearest alias, `Unsupported` for an image that is no
/// archive, `Transport`.
pub fn look_up(
    server: &str,
    alias: &str,
    wanted: Option<&str>,
    fetch: &Fetch<'_>,
) -> Result<(Source, String)> {
    let server = Server::new(server)?;
    let products = server.products(fetch)?;
    let arch = architecture();
    let named = |product: &&Product| product.aliases.split(',').any(|one| one.trim() == alias);
    let Some(product) = products.values().filter(|one| one.arch == arch).find(named) else {
        return Err(server.unknown(alias, arch, &products));
    };
    let archives = product.versions.values().rev();
    let mut archives = archives
        .filter_map(|version| version.items.values().find(|item| item.ftype == ARCHIVE))
        .filter(|item| !item.sha256.is_empty());
    let wanted = wanted.map(|digest| digest.trim_start_matches("sha256:").to_ascii_lowercase());
    let newest = archives.next().ok_or_else(|| {
        Error::unsupported(
            format!("starting from '{alias}'"),
            "local",
            format!(
                "{} has it as a disk or another form only, not as {ARCHIVE}: take another image",
                server.base
            ),
        )
    })?;
    let item = match &wanted {
        Some(digest) if *digest != newest.sha256 => {
            archives.find(|item| item.sha256 == *digest).ok_or_else(|| {
                super::tarball::mismatch(&format!("'{alias}'"), digest, &newest.sha256)
            })?
        }
        _ => newest,
    };
    let url = server.address(&item.path)?;
    Ok((Source::Url(url), item.sha256.clone()))
}

/// What Debian and these servers call this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "aarch64" => "arm64",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        other => other,
    }
}

#[derive(Deserialize)]
struct Index {
    index: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    datatype: String,
    path: String,
}

#[derive(Deserialize)]
struct Products {
    products: BTreeMap<String, Product>,
}

#[derive(Deserialize)]
struct Product {
    #[serde(default)]
    aliases: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    items: BTreeMap<String, Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    ftype: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    sha256: String,
}

struct Server {
    base: String,
}

impl Server {
    fn new(url: &str) -> Result<Server> {
        let base = url.trim_end_matches('/').to_owned();
        if download::is_trusted(&base) {
            return Ok(Server { base });
        }
        Err(Error::invalid_hint(
            "image_server",
            format!("'{url}' is not an https address"),
            "anybody on the way could change the digests that images are checked against",
        ))
    }

    /// The address of a file of it.
    fn address(&self, path: &str) -> Result<String> {
        let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        let odd = |c: char| c.is_control() || c.is_whitespace() || "\\?#".contains(c);
        if !plain || path.contains("://") || path.contains(odd) {
            let message = format!("{} names a file that can't be one: {path:?}", self.base);
            return Err(Error::Transport { message });
        }
        Ok(format!("{}/{path}", self.base))
    }

    /// All lists of the server, from the cache while they are fresh.
    fn products(&self, fetch: &Fetch<'_>) -> Result<BTreeMap<String, Product>> {
        let index: Index = self.read("streams/v1/index.json", fetch)?;
        let mut all = BTreeMap::new();
        for entry in index.index.into_values() {
            if ["", "image-downloads"].contains(&entry.datatype.as_str()) {
                let list: Products = self.read(&entry.path, fetch)?;
                all.extend(list.products);
            }
        }
        Ok(all)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, path: &str, fetch: &Fetch<'_>) -> Result<T> {
        let url = self.address(path)?;
        cache::folder(fetch.cache)?;
        let kept = fetch.cache.join(format!("list-{}", blake3::hash(url.as_bytes()).to_hex()));
        let parsed = |text: &[u8]| serde_json::from_slice::<T>(text).ok();
        let old = |longest| cache::remembered(&kept, longest).as_deref().and_then(parsed);
        if let Some(list) = old(FRESH) {
            return Ok(list);
        }
        if !(fetch.progress)(0, None) {
            return Err(Error::Cancelled);
        }
        let text = match text(&url) {
            Ok(text) => text,
            // Images are checked by digest: an old list leads to an old image, not to a wrong one.
            Err(error @ Error::Transport { .. }) => return old(Duration::MAX).ok_or(error),
            Err(error) => return Err(error),
        };
        let list = parsed(&text).ok_or_else(|| Error::Transport {
            message: format!("{url} is not a list of images"),
        })?;
        cache::remember(&kept, &text);
        Ok(list)
    }

    fn unknown(&self, alias: &str, arch: &str, products: &BTreeMap<String, Product>) -> Error {
        let all = || products.values().flat_map(|one| one.aliases.split(',').map(str::trim));
        let here = products.values().filter(|one| one.arch == arch);
        let here: Vec<&str> = here.flat_map(|one| one.aliases.split(',').map(str::trim)).collect();
        if !here.contains(&alias) && all().any(|one| one == alias) {
            return Error::invalid_hint(
                "image",
                format!("{} has no '{alias}' for {arch}", self.base),
                "it has it for other architectures only",
            );
        }
        let near = here
            .iter()
            .map(|one| (strsim::jaro_winkler(one, alias), one))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        match near {
            Some((_, near)) => Error::invalid_hint(
                "image",
                format!("{} has no image '{alias}'", self.base),
                format!("did you mean '{near}'?"),
            ),
            None => Error::not_found(Kind::Image, alias),
        }
    }
}

/// The text behind an address.
fn text(url: &str) -> Result<Vec<u8>> {
    let response = download::agent(url.starts_with("https:"))
        .get(url)
        .call()
        .map_err(|error| download::answer(url, error))?;
    let mut text = Vec::new();
    let failed =
        |why: &dyn std::fmt::Display| Error::Transport { message: format!("{url}: {why}") };
    response
        .into_body()
        .into_reader()
        .take(MOST + 1)
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > MOST {
        return Err(failed(&"the list is too large"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_alias() {
        for good in ["debian/12", "images:debian/12", "alpine/3.22/cloud", "a/b", "rocky-linux/9_x"]
        {
            assert!(alias(good).is_some(), "{good}");
        }
        for bad in
            ["host", "debian", "/etc/x", "./x/y", "a//b", "a/", "a/../b", "x.tar/", "a b/c", ""]
        {
            assert_eq!(alias(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_https_and_loopback_are_servers() {
        for good in
            ["https://x.example", "http://127.0.0.1:80/a", "http://[::1]:8/", "http://localhost"]
        {
            assert!(Server::new(good).is_ok(), "{good}");
        }
        for bad in [
            "http://x.example",
            "ftp://x",
            "x",
            "",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
        ] {
            assert!(Server::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_names_files_of_its_own_only() {
        let server = Server::new("https://x.example/y/").unwrap();
        assert_eq!(server.address("a/b.json").unwrap(), "https://x.example/y/a/b.json");
        for bad in
            ["", "/a", "../a", "a/../../b", "https://z.example/a", "a?b", "a b", "a\n", "a//b"]
        {
            assert!(server.address(bad).is_err(), "{bad:?}");
        }
    }
}
