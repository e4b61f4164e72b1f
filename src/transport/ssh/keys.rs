//! The keys that we come in by: one from a file, one that was made for this, or those of an agent.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use tokio::net::UnixStream;

use super::super::KeySource;
use super::SshError;

/// How many keys of an agent are shown to a server, which takes offence at many.
const MOST: usize = 4;

/// Keys to come in by.
pub struct Keys {
    own: Vec<Arc<PrivateKey>>,
    agent: Option<PathBuf>,
    /// Whether nothing is wrong when the agent has no key.
    lenient: bool,
}

/// An agent, and the keys that it has.
pub(super) struct Agent {
    pub client: AgentClient<UnixStream>,
    pub keys: Vec<PublicKey>,
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> SshError {
    SshError::Keys(format!("the SSH key {}: {why}", path.display()))
}

impl Keys {
    /// Reads a key, or makes it; an agent is asked when it is needed.
    pub fn open(source: &KeySource) -> Result<Keys, SshError> {
        let own = match source {
            KeySource::Agent(socket) => {
                return Ok(Keys { own: Vec::new(), agent: Some(socket.clone()), lenient: false });
            }
            KeySource::File(path) => read(path)?,
            KeySource::Made(path) => match path.try_exists() {
                Ok(false) => make(path)?,
                _ => read(path)?,
            },
        };
        Ok(Keys { own: vec![Arc::new(own)], agent: None, lenient: false })
    }

    /// All that can be used of those there are: an agent's, and these files'. Those that can't be used are left
    /// out, with the reasons.
    pub fn any(files: &[PathBuf], agent: Option<PathBuf>) -> (Keys, Vec<SshError>) {
        let there = files.iter().filter(|file| file.exists());
        let (mut own, mut wrong) = (Vec::new(), Vec::new());
        for key in there.map(|file| read(file)) {
            match key {
                Ok(key) => own.push(Arc::new(key)),
                Err(error) => wrong.push(error),
            }
        }
        own.truncate(MOST);
        (Keys { own, agent, lenient: true }, wrong)
    }

    /// Whether there is neither a key nor an agent.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.agent.is_none()
    }

    /// The line that lets it in, as in `authorized_keys`.
    pub async fn line(&self) -> Result<String, SshError> {
        let key = match self.own.first() {
            Some(own) => own.public_key().clone(),
            None => {
                let agent = self.agent().await?;
                let first = agent.and_then(|agent| agent.keys.into_iter().next());
                first.ok_or_else(|| SshError::Keys("there is no key for SSH".into()))?
            }
        };
        let data = PublicKey::from(key.key_data().clone());
        let line = data.to_openssh().map_err(|error| SshError::Keys(error.to_string()))?;
        Ok(format!("{} sandscript", line.trim()))
    }

    pub(super) fn own(&self) -> impl Iterator<Item = PrivateKeyWithHashAlg> {
        self.own.iter().map(|own| PrivateKeyWithHashAlg::new(Arc::clone(own), None))
    }

    /// The agent, if one is to be asked.
    pub(super) async fn agent(&self) -> Result<Option<Agent>, SshError> {
        match self.ask_agent().await {
            Err(_) if self.lenient => Ok(None),
            asked => asked,
        }
    }

    async fn ask_agent(&self) -> Result<Option<Agent>, SshError> {
        let Some(socket) = &self.agent else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| {
            SshError::Keys(format!("the SSH agent {}: {why}", socket.display()))
        };
        let client = AgentClient::connect_uds(socket).await;
        let mut client = client.map_err(|error| wrong(&error))?;
        let all = client.request_identities().await.map_err(|error| wrong(&error))?;
        let plain = |one| match one {
            // Those signed by a chain of its own are not for machines that nobody signed.
            AgentIdentity::PublicKey { key, .. } if !key.algorithm().is_rsa() => Some(key),
            _ => None,
        };
        let mut keys: Vec<PublicKey> = all.into_iter().filter_map(plain).collect();
        keys.truncate(MOST);
        match keys.is_empty() {
            true => Err(wrong(&"it has no key that can be used here; add one of the kind ed25519")),
            false => Ok(Some(Agent { client, keys })),
        }
    }
}

fn read(path: &Path) -> Result<PrivateKey, SshError> {
    let about = std::fs::metadata(path).map_err(|error| wrong(path, error))?;
    let mine = rustix::process::geteuid().as_raw();
    if about.uid() == mine && about.mode() & 0o077 != 0 {
        return Err(wrong(path, "others can read it; chmod 600"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error))?;
    let key = russh::keys::decode_secret_key(&text, None);
    let key = key.map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => {
            wrong(path, "it is locked with a passphrase; use it by an agent")
        }
        error => wrong(path, error),
    })?;
    match key.algorithm() {
        Algorithm::Rsa { .. } => {
            Err(wrong(path, "RSA is not known here; use one of the kind ed25519"))
        }
        _ => Ok(key),
    }
}

/// Makes a key that only this user can read. Of two who do that at once both have the same.
fn make(path: &Path) -> Result<PrivateKey, SshError> {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519);
    let key = key.map_err(|error| wrong(path, error))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|error| wrong(path, error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| wrong(path, error);
    std::fs::DirBuilder::new().recursive(true).create(folder).map_err(failed)?;
    let part = folder.join(format!(".made.{}", std::process::id()));
    let _ = std::fs::remove_file(&part);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let done = written.and_then(|()| std::fs::hard_link(&part, path));
    let _ = std::fs::remove_file(&part);
    match done {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh/id_ed25519");
        let first = Keys::open(&KeySource::Made(path.clone())).unwrap();
        let second = Keys::open(&KeySource::Made(path.clone())).unwrap();
        let third = Keys::open(&KeySource::File(path.clone())).unwrap();
        let line = first.line().await.unwrap();
        assert!(line.starts_with("ssh-ed25519 ") && line.ends_with(" sandscript"), "{line}");
        assert_eq!(line, second.line().await.unwrap());
        assert_eq!(line, third.line().await.unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = Keys::open(&KeySource::File(path.clone())).err().unwrap();
        assert!(error.to_string().ends_with("others can read it; chmod 600"), "{error}");
        let none = Keys::open(&KeySource::File(folder.path().join("none")));
        assert!(matches!(none.err().unwrap(), SshError::Keys(_)));
        let agent = Keys::open(&KeySource::Agent(folder.path().join("none"))).unwrap();
        assert!(matches!(agent.line().await, Err(SshError::Keys(_))));
    }
}
