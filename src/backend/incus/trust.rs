//! Getting to know a server: its certificate is learned by a token or a fingerprint that somebody else
//! gave, and it learns ours.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Client, Fail};
use super::remotes::{check_remote, host_and_port, identity, read};
use crate::sandbox::{Error, Result};
use crate::transport::{Fingerprint, Http, Identity, Place, Tls, Trust};

/// A remote that is to be added.
#[derive(Clone, Debug, Default)]
pub struct NewRemote {
    /// What it is to be called.
    pub name: String,
    /// Where it is; the token's addresses when not given.
    pub address: Option<String>,
    /// What `incus config trust add` printed on the server.
    pub token: Option<String>,
    /// The SHA-256 of the server's certificate, without a token.
    pub fingerprint: Option<String>,
    /// The project that is meant when no other is named.
    pub project: Option<String>,
}

/// A remote that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Where it is.
    pub address: String,
    /// The fingerprint of its certificate; none where the system's authorities vouch for it.
    pub fingerprint: Option<String>,
    /// Whether it knows us.
    pub trusted: bool,
    /// Our certificate, for servers that don't.
    pub certificate: PathBuf,
}

/// What is in a token.
struct Token {
    fingerprint: Fingerprint,
    addresses: Vec<String>,
    client: String,
}

impl Token {
    fn parse(text: &str) -> Option<Token> {
        let token: Value = serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?;
        let addresses = token["addresses"].as_array()?.iter().filter_map(Value::as_str);
        Some(Token {
            fingerprint: Fingerprint::parse(token["fingerprint"].as_str()?)?,
            addresses: addresses.map(|address| format!("https://{address}")).collect(),
            client: token["client_name"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

fn no_token() -> Error {
    Error::invalid_hint(
        "token",
        "it is no token of an Incus server",
        "get one on the server: incus config trust add ME",
    )
}

/// Adds a remote to a folder: connects to it, and keeps its certificate if it is the one that the token
/// or the fingerprint says, or that the system's authorities vouch for.
pub async fn add(folder: &Path, new: &NewRemote) -> Result<Added> {
    check_remote(&new.name)?;
    let mut config = read(folder)?;
    if config["remotes"][&new.name].is_object() {
        return Err(Error::invalid_hint(
            "remote",
            format!("'{}' is there already", new.name),
            format!("take it away first: sandscript remote remove {}", new.name),
        ));
    }
    let word = new.token.as_deref().map(str::trim);
    let token = word.map(|word| Token::parse(word).ok_or_else(no_token)).transpose()?;
    let wanted = match (&token, &new.fingerprint) {
        (Some(token), _) => Some(token.fingerprint),
        (None, None) => None,
        (None, Some(text)) => Some(Fingerprint::parse(text).ok_or_else(|| {
            Error::invalid_hint(
                "fingerprint",
                "it is no SHA-256",
                "the server says it: incus info | grep certificate_fingerprint",
            )
        })?),
    };
    let addresses = match (&new.address, &token) {
        (Some(address), _) if address.contains("://") => vec![address.clone()],
        (Some(address), _) => vec![format!("https://{address}")],
        (None, Some(token)) => token.addresses.clone(),
        (None, None) => {
            return Err(Error::invalid_hint(
                "address",
                "there is neither an address nor a token",
                "get a token on the server (incus config trust add ME) and give it with --token",
            ));
        }
    };
    let me = own(folder)?;
    let mut why = Error::Transport { message: "the token names no address".into() };
    for address in addresses {
        let (host, port) = host_and_port(&address)?;
        let trust = wanted.map_or(Trust::System, Trust::Fingerprint);
        let server = Tls::new(&host, port, trust, Some(&me)).map_err(Error::internal)?;
        let place = Place::Tls(server.clone());
        match Http::new(place.clone()).send(&Method::GET, "/1.0", &[], &Bytes::new()).await {
            Ok(_) => {}
            Err(error) => {
                why = Fail::from(error).plain(&format!("adding remote '{}'", new.name));
                continue;
            }
        }
        let client = Client::new(place, None, None);
        let ask = async || {
            let server = client.get("/1.0").await;
            server.map_err(|fail| fail.plain("asking the server who we are"))
        };
        let mut server_is = ask().await?;
        // One that knows us takes no token.
        if let (Some(token), Some(word)) = (&token, word)
            && server_is["auth"] != "trusted"
        {
            introduce(&client, word, &token.client, &new.name).await?;
            server_is = ask().await?;
        }
        let address = format!("https://{}", server.authority());
        let mut remote = json!({
            "addr": address, "auth_type": "tls", "protocol": "incus", "public": false,
        });
        if let Some(project) = &new.project {
            remote["project"] = json!(project);
        }
        if wanted.is_some() {
            let der = server.certificate().await.map_err(|message| Error::Transport { message })?;
            let path = folder.join("servercerts").join(format!("{}.crt", new.name));
            write(&path, pem(&der).as_bytes(), 0o644)?;
        }
        if !config.is_object() {
            config = json!({});
        }
        config["remotes"][&new.name] = remote;
        keep(folder, &config)?;
        return Ok(Added {
            address,
            fingerprint: wanted.map(|wanted| wanted.to_string()),
            trusted: server_is["auth"] == "trusted",
            certificate: folder.join("client.crt"),
        });
    }
    Err(match why {
        Error::Auth { message } if wanted.is_none() => Error::Auth {
            message: format!(
                "{message}; if it is the right server, say so: --fingerprint SHA256, as `incus info` on it has it, or --token TOKEN"
            ),
        },
        why => why,
    })
}

/// Shows the server a token, for which it takes our certificate.
async fn introduce(client: &Client, token: &str, name: &str, remote: &str) -> Result<()> {
    let body = json!({"type": "client", "name": name, "trust_token": token});
    match client.post("/1.0/certificates", &body).await {
        Ok(()) => Ok(()),
        Err(Fail::Refused(_, text)) => Err(Error::Auth {
            message: format!(
                "adding remote '{remote}': the server does not take the token: {text}; it is good for one use: get another one there with incus config trust add ME"
            ),
        }),
        Err(fail) => Err(fail.plain(&format!("adding remote '{remote}'"))),
    }
}

/// Takes a remote away. The server still knows us.
pub fn remove(folder: &Path, name: &str) -> Result<()> {
    check_remote(name)?;
    let mut config = read(folder)?;
    let remotes = config["remotes"].as_object_mut();
    if remotes.and_then(|all| all.remove(name)).is_none() {
        return Err(Error::invalid_hint(
            "remote",
            format!("there is no remote '{name}' in {}", folder.display()),
            "see which there are: sandscript remote list",
        ));
    }
    keep(folder, &config)?;
    match std::fs::remove_file(folder.join("servercerts").join(format!("{name}.crt"))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing the certificate of '{name}'"), error))
        }
        _ => Ok(()),
    }
}

/// A folder's own certificate and key; made when there is none.
fn own(folder: &Path) -> Result<Identity> {
    if let Some(identity) = identity(&[folder.to_owned()], "")? {
        return Ok(identity);
    }
    let made = || -> std::result::Result<Identity, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        let name = rustix::system::uname();
        let name = format!("sandscript@{}", name.nodename().to_string_lossy());
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?;
        Ok(Identity {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        })
    };
    let identity = made().map_err(|error| Error::internal(format!("making a key: {error}")))?;
    write(&folder.join("client.key"), &identity.key, 0o600)?;
    write(&folder.join("client.crt"), &identity.certificate, 0o644)?;
    Ok(identity)
}

fn keep(folder: &Path, config: &Value) -> Result<()> {
    // JSON is YAML, too.
    let text = serde_json::to_string_pretty(config).map_err(|e| Error::internal(e.to_string()))?;
    write(&folder.join("config.yml"), format!("{text}\n").as_bytes(), 0o600)
}

/// Replaces a file, in a folder that only its owner enters.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let wrong = |error: std::io::Error| Error::io(format!("writing {}", path.display()), error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let _ = std::fs::remove_file(&part);
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part);
    let written = written.and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&part);
        wrong(error)
    })
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_can_not_be_added_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let new = |address: &str, token: &str, fingerprint: &str| {
            let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            NewRemote {
                name: "nas".into(),
                address: text(address),
                token: text(token),
                fingerprint: text(fingerprint),
                project: None,
            }
        };
        let mut said = Vec::new();
        for new in [
            new("", "", ""),
            new("", "nonsense", ""),
            new("h", "", "12"),
            new("http://h", "", ""),
            NewRemote { name: "../x".into(), ..NewRemote::default() },
        ] {
            let error = add(folder.path(), &new).await.unwrap_err();
            said.push(format!("{error} ({})", error.hint().unwrap_or_default()));
        }
        let error = remove(folder.path(), "nas").unwrap_err().to_string();
        said.push(error.replace(&*folder.path().to_string_lossy(), "FOLDER"));
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("incus");
        let first = own(&folder).unwrap();
        assert_eq!(own(&folder).unwrap().key, first.key);
        let mode = |name: &str| folder.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("client.key"), mode("")), (0o600, 0o700));
        Tls::new("a", 1, Trust::System, Some(&first)).unwrap();
    }
}
