//! Servers by name: from folders that are laid out as the Incus client's own (`config.yml`, `client.crt`,
//! `client.key`, `servercerts/NAME.crt`).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::{IncusConfig, SOCKET};
use crate::sandbox::{Error, Result};
use crate::transport::{Identity, Place, Tls, Trust, fingerprint};

/// The port where nothing else is said.
const PORT: u16 = 8443;

/// A server that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// What it is called.
    pub name: String,
    /// Its address as it was written, such as `https://192.0.2.1:8443`.
    pub address: String,
    /// The project that is meant when no other is named.
    pub project: Option<String>,
    /// The folder whose `config.yml` has it.
    pub folder: PathBuf,
    /// Whether it only has images: sandboxes can't be made there.
    pub images: bool,
    /// What it speaks: `incus`, or `simplestreams` for image servers.
    pub protocol: String,
    /// How we show who we are; `tls` when nothing is said.
    auth: String,
}

/// The remotes of these folders, by name. Of two with one name the first folder's counts. A folder that
/// is not there has none.
pub fn remotes(folders: &[PathBuf]) -> Result<Vec<Remote>> {
    let mut all: Vec<Remote> = Vec::new();
    for folder in folders {
        let config = read(folder)?;
        for (name, remote) in config["remotes"].as_object().into_iter().flatten() {
            let text = |key: &str| remote[key].as_str().filter(|text| !text.is_empty());
            let protocol = text("protocol").unwrap_or("incus");
            if all.iter().any(|known| known.name == *name) {
                continue;
            }
            all.push(Remote {
                name: name.clone(),
                address: text("addr").unwrap_or_default().to_owned(),
                project: text("project").map(str::to_owned),
                folder: folder.clone(),
                images: protocol != "incus" || remote["public"] == true,
                protocol: protocol.to_owned(),
                auth: text("auth_type").unwrap_or("tls").to_owned(),
            });
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// What a folder's `config.yml` says; nothing where there is none.
pub(super) fn read(folder: &Path) -> Result<Value> {
    let path = folder.join("config.yml");
    let wrong = |why: &dyn std::fmt::Display| {
        Error::invalid("remotes", format!("{}: {why}", path.display()))
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) => return Err(wrong(&error)),
    };
    let all = YamlLoader::load_from_str(&text).map_err(|error| wrong(&error))?;
    Ok(all.first().map_or(Value::Null, plain))
}

/// YAML without what JSON has not.
fn plain(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Boolean(is) => json!(is),
        Yaml::Array(all) => all.iter().map(plain).collect(),
        Yaml::Hash(all) => {
            let key = |key: &Yaml| match plain(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(
                all.iter().map(|(k, value)| (key(k), plain(value))).collect::<Map<_, _>>(),
            )
        }
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

/// Refuses names that can't be part of a path.
pub(super) fn check_remote(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() <= 63
        && !name.starts_with(['.', '-'])
        && !name.is_empty()
        && name.bytes().all(fits)
    {
        return Ok(());
    }
    Err(Error::invalid_hint(
        "remote",
        format!("'{}' is not a name of a remote", name.escape_debug()),
        "use 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or a digit",
    ))
}

/// Host and port of `https://HOST:PORT`.
pub(super) fn host_and_port(address: &str) -> Result<(String, u16)> {
    let wrong = |why: &str| {
        Error::invalid_hint(
            "host",
            format!("'{}' {why}", address.escape_debug()),
            "write it as https://HOST or https://HOST:8443",
        )
    };
    let rest = match address.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", _)) => return Err(wrong("is not encrypted")),
        _ => return Err(wrong("is no address of a server")),
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("?"))),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        None => PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("has no port"))?
        }
    };
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(wrong("is no address of a server"));
    }
    Ok((host.to_owned(), port))
}

/// Who we are, by a folder's files: for one remote, or for all.
pub(super) fn identity(folders: &[PathBuf], remote: &str) -> Result<Option<Identity>> {
    let stems = folders.iter().flat_map(|folder| {
        [folder.join("clientcerts").join(remote), folder.join("client")].into_iter()
    });
    for stem in stems {
        let file = |kind: &str| {
            let mut path = stem.clone().into_os_string();
            path.push(kind);
            PathBuf::from(path)
        };
        let (certificate, key) = (file(".crt"), file(".key"));
        if !certificate.exists() || !key.exists() {
            continue;
        }
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                Error::invalid("remotes", format!("{} can't be read: {error}", path.display()))
            })
        };
        let identity = Identity { certificate: read(&certificate)?, key: read(&key)? };
        if identity.key.windows(9).any(|part| part == b"ENCRYPTED") {
            return Err(Error::invalid_hint(
                "remotes",
                format!("{} needs a password, and nobody asks for it here", key.display()),
                "use a key of sandscript's own: sandscript remote add NAME --token TOKEN",
            ));
        }
        return Ok(Some(identity));
    }
    Ok(None)
}

/// Where the server is that somebody means by `host`, and which project of it.
pub(super) fn find(host: &str, config: &IncusConfig) -> Result<(Place, Option<String>)> {
    let socket = || config.socket.clone().unwrap_or_else(|| SOCKET.into());
    if host.starts_with('/') {
        return Ok((Place::Unix(host.into()), None));
    }
    if host.contains("://") && !host.starts_with("unix:") {
        let (start, rest) = host.split_at(host.find("://").map_or(0, |at| at + 3));
        let (authority, project) = match rest.split_once('/') {
            Some((authority, project)) => (authority, Some(project)),
            None => (rest, None),
        };
        let project = project.filter(|project| !project.is_empty()).map(str::to_owned);
        let address = format!("{start}{authority}");
        let at = host_and_port(&address)?;
        // A remote that is the same server says how it is known.
        let known = remotes(&config.folders)?.into_iter().find(|known| {
            !known.images && host_and_port(&known.address).is_ok_and(|known| known == at)
        });
        let known = known.unwrap_or_else(|| Remote {
            name: String::new(),
            address,
            project: None,
            folder: PathBuf::new(),
            images: false,
            protocol: "incus".into(),
            auth: "tls".into(),
        });
        let project = project.or_else(|| config.project.clone()).or(known.project.clone());
        return Ok((place(&known, config)?, project));
    }
    let (name, project) = match host.split_once('/') {
        Some((name, project)) => (name, Some(project.to_owned())),
        None => (host, None),
    };
    check_remote(name)?;
    let all = remotes(&config.folders)?;
    let Some(remote) = all.iter().find(|remote| remote.name == name) else {
        if name == "local" {
            return Ok((Place::Unix(socket()), project));
        }
        let all = all.iter().filter(|remote| !remote.images).map(|remote| remote.name.as_str());
        let all: Vec<&str> = all.filter(|name| *name != "local").collect();
        let there = match all.is_empty() {
            true => String::new(),
            false => format!("there are: {}; ", all.join(", ")),
        };
        return Err(Error::invalid_hint(
            "host",
            format!("there is no remote '{name}'"),
            format!(
                "{there}get a token on the server (incus config trust add ME), then: sandscript remote add {name} --token TOKEN"
            ),
        ));
    };
    if remote.images {
        return Err(Error::invalid_hint(
            "host",
            format!("remote '{name}' has images only"),
            format!("name an image of it: --image {name}:debian/12"),
        ));
    }
    // As the Incus client has it: what is said for this call is before what the remote is set to.
    let project = project.or_else(|| config.project.clone()).or_else(|| remote.project.clone());
    match remote.address.strip_prefix("unix:") {
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = if path.is_empty() { socket() } else { path.into() };
            Ok((Place::Unix(path), project))
        }
        None => Ok((place(remote, config)?, project)),
    }
}

/// How to get to a remote, and how to know it.
fn place(remote: &Remote, config: &IncusConfig) -> Result<Place> {
    let (host, port) = host_and_port(&remote.address)?;
    if remote.auth != "tls" {
        return Err(Error::unsupported(
            match remote.auth.as_str() {
                "oidc" => format!("logging in to remote '{}' by OpenID Connect", remote.name),
                other => format!("logging in to remote '{}' by '{other}'", remote.name),
            },
            super::BACKEND,
            format!(
                "such a server takes a certificate, too: get a token on it (incus config trust add ME), then: sandscript remote add {}-cert --token TOKEN, and --host {0}-cert",
                remote.name
            ),
        ));
    }
    // Its own folder first.
    let mut folders = vec![remote.folder.clone()];
    folders.extend(config.folders.iter().filter(|folder| **folder != remote.folder).cloned());
    folders.retain(|folder| !folder.as_os_str().is_empty());
    let wrong = |path: &Path, why: &dyn std::fmt::Display| {
        Error::invalid("remotes", format!("{}: {why}", path.display()))
    };
    let pinned = folders.iter().map(|folder| {
        let name = if remote.name.is_empty() { &host } else { &remote.name };
        folder.join("servercerts").join(format!("{name}.crt"))
    });
    let authorities = remote.folder.join("client.ca");
    let trust = match pinned.into_iter().find(|path| path.exists()) {
        Some(path) => {
            let pem = std::fs::read(&path).map_err(|error| wrong(&path, &error))?;
            Trust::Fingerprint(fingerprint(&pem).map_err(|why| wrong(&path, &why))?)
        }
        None if authorities.exists() => Trust::Authorities(
            std::fs::read(&authorities).map_err(|error| wrong(&authorities, &error))?,
        ),
        None => Trust::System,
    };
    let identity = identity(&folders, &remote.name)?;
    let server = Tls::new(&host, port, trust, identity.as_ref())
        .map_err(|why| Error::invalid("remotes", format!("remote '{}': {why}", remote.name)))?;
    Ok(Place::Tls(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "default-remote: local
remotes:
  images: {addr: 'https://images.example.org', protocol: simplestreams, public: true}
  local:
    addr: unix://
    public: false
  nas:
    addr: https://192.0.2.1:8443
    auth_type: tls
    project: tests
    protocol: incus
    public: false
  sso: {addr: 'https://sso.example.org', auth_type: oidc}
aliases: {}
";

    fn config() -> (tempfile::TempDir, IncusConfig) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yml"), CONFIG).unwrap();
        let folders = vec![folder.path().join("not-there"), folder.path().to_owned()];
        (folder, IncusConfig { folders, ..IncusConfig::default() })
    }

    #[test]
    fn hosts_as_they_are_written() {
        let (_folder, config) = config();
        let mut said = String::new();
        for host in [
            "/run/x.socket",
            "local",
            "local/other",
            "nas",
            "nas/other",
            "https://192.0.2.1",
            "https://h:99/p",
            "https://[::1]/",
            "http://h",
            "ftp://h",
            "https://",
            "https://h:0",
            "images",
            "sso",
            "nsa",
            "../x",
            "a b",
            "",
        ] {
            let line = match find(host, &config) {
                Ok((place, project)) => format!("{place} {}", project.unwrap_or_default()),
                Err(error) => format!("{error} ({})", error.hint().unwrap_or_default()),
            };
            said.push_str(&format!("{host:?}: {}\n", line.trim_end()));
        }
        insta::assert_snapshot!(said);
    }

    #[test]
    fn a_file_that_is_no_yaml_says_where() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yml"), "remotes: [\n").unwrap();
        let error = remotes(&[folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("remotes: ") && error.contains("config.yml: "), "{error}");
    }
}
