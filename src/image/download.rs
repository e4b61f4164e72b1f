//! Fetching an archive over HTTP.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::cache;
use super::tarball::{Fetch, mismatch};
use crate::sandbox::{Error, Kind, Result, format_size};

/// The archive behind `url` in the cache, checked against `sha256`. One process downloads, others
/// that want the same wait for it. A `token` goes to whom `url` names, and nowhere that an answer leads.
pub(super) fn download(
    url: &str,
    sha256: &str,
    token: Option<&str>,
    fetch: &Fetch<'_>,
) -> Result<PathBuf> {
    cache::folder(fetch.cache)?;
    let path = fetch.cache.join(sha256);
    let part = fetch.cache.join(format!("{sha256}.part"));
    let storing = |error: std::io::Error| storing(&part, &error);
    if path.exists() {
        return Ok(path);
    }
    let mut file =
        File::options().create(true).truncate(false).write(true).open(&part).map_err(storing)?;
    wait(&file, fetch)?;
    if path.exists() {
        return Ok(path);
    }
    let fetched = body(url, sha256, token, &mut file, fetch);
    if let Err(error) = fetched {
        let _ = file.set_len(0);
        return Err(error);
    }
    file.sync_all().and_then(|()| std::fs::rename(&part, &path)).map_err(storing)?;
    Ok(path)
}

fn wait(file: &File, fetch: &Fetch<'_>) -> Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(Error::internal(format!("the image cache can't be locked: {error}")));
            }
        }
        if !(fetch.progress)(0, None) {
            return Err(Error::Cancelled);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether nobody on the way can change what comes from there: `https:`, or this machine.
pub(super) fn is_trusted(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    let place = rest.split('/').next().unwrap_or_default();
    let host = match place.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => place,
    };
    ["127.0.0.1", "[::1]", "localhost"].contains(&host)
}

/// What fetches; `https` only, if that is wanted, also where an answer leads elsewhere.
pub(super) fn agent(https: bool) -> ureq::Agent {
    ureq::Agent::config_builder()
        .https_only(https)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .user_agent(concat!("sandscript/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn body(
    url: &str,
    sha256: &str,
    token: Option<&str>,
    file: &mut File,
    fetch: &Fetch<'_>,
) -> Result<()> {
    let mut request = agent(token.is_some() && url.starts_with("https:")).get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = request.call().map_err(|error| answer(url, error))?;
    let size = response.body().content_length();
    let too_large = || {
        let most = format_size(fetch.max_bytes);
        Error::invalid_hint("image", format!("{url} is larger than {most}"), "raise the limit")
    };
    if size.is_some_and(|size| size > fetch.max_bytes) {
        return Err(too_large());
    }
    let failed = |error: &dyn std::fmt::Display| Error::Transport {
        message: format!("downloading {url} stopped: {error}"),
    };
    file.set_len(0).map_err(|error| failed(&error))?;
    let mut from = response.into_body().into_reader();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        let count = from.read(&mut buffer).map_err(|error| failed(&error))?;
        if count == 0 {
            break;
        }
        done += count as u64;
        if done > fetch.max_bytes {
            return Err(too_large());
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(|error| storing(fetch.cache, &error))?;
        if !(fetch.progress)(done, size) {
            return Err(Error::Cancelled);
        }
    }
    if size.is_some_and(|size| size != done) {
        return Err(failed(&"the connection was closed early"));
    }
    let found = cache::hex(&hasher.finalize());
    if found == sha256 { Ok(()) } else { Err(mismatch(url, sha256, &found)) }
}

pub(super) fn answer(url: &str, error: ureq::Error) -> Error {
    match error {
        ureq::Error::StatusCode(404 | 410) => Error::not_found(Kind::Image, url),
        ureq::Error::StatusCode(code @ (401 | 403)) => {
            Error::Auth { message: format!("{url} answered {code}") }
        }
        ureq::Error::BadUri(why) => Error::invalid("image", format!("'{url}': {why}")),
        other => Error::Transport { message: format!("{url}: {other}") },
    }
}

fn storing(path: &std::path::Path, error: &std::io::Error) -> Error {
    let what = format!("what was downloaded can't be stored in {}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::Exhausted { what, hint: "free some space there".into() }
        }
        _ => Error::internal(what),
    }
}
