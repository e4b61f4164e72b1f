//! The line to a guest by SSH: whom to find there is asked for by the NAS's shell, which is trusted
//! already.
//!
//! What it tells is what the guest's root says, who may name somebody else: so a line is used only when a word
//! that the NAS's shell has just put into the guest is read back by it. What was proven so is remembered.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::super::guest::{Agent, FILES, Fail, Said, Session, frame, token};
use super::host::HOST;
use super::lines::Open;
use super::way::{Jump, Ways};
use super::{Inner, agent};
use crate::transport::KeySource;
use crate::transport::ssh::{Keys, Pins, Ssh, SshError, Target};

/// How long one waits for a guest: for its address and its server, and for an answer. Where there is
/// another way, it is not worth much time.
const LONG: (Duration, Duration) = (Duration::from_secs(90), Duration::from_secs(20));
const SHORT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(2));

/// How many addresses of a guest are tried.
const MOST: usize = 16;

/// Reads the word of a proof, and takes it away: only root's own file that nobody else can read counts.
const SHOW: &str = concat!(
    "my@s=lstat$p or exit 1;exit 1 if!-f _||$s[4]||$s[2]&077;open my$f,\"<\",$p or exit 1;",
    "unlink$p;print\"\\1\",<$f>,\"\\2\"",
);

/// What is proven about a guest: where it is, and the SHA-256 of the host key that it shows there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Met {
    port: u16,
    address: String,
    key: String,
}

/// What a guest says about itself: its host keys one a line.
struct Told {
    port: u16,
    keys: String,
    addresses: Vec<String>,
    proof: Proof,
}

/// A word that only root reads, in the guest and nowhere else.
struct Proof {
    path: String,
    word: String,
}

impl Proof {
    fn new() -> Proof {
        let random = || format!("{}{}", token(), token());
        Proof { path: format!("/run/.sandscript-met.{}", random()), word: random() }
    }

    /// Whether it is at the other end of a line. Nothing that is sent there has the word in it.
    async fn holds(&self, line: &Ssh) -> Result<(), SshError> {
        let show = format!("exec perl -e 'my$p=\"{}\";{SHOW}' 2>/dev/null", self.path);
        let read = async {
            let mut said = Vec::new();
            let stream = line.run(&show).await?;
            let read = stream.take(64 << 10).read_to_end(&mut said).await;
            read.map_err(|error| SshError::Broken(format!("{}: {error}", line.place())))?;
            Ok(said)
        };
        let said = match tokio::time::timeout(LONG.1, read).await {
            Ok(said) => said?,
            Err(_) => {
                return Err(SshError::Broken(format!("{} does not answer", line.place())));
            }
        };
        let word = format!("\u{1}{}\u{2}", self.word);
        match said.windows(word.len()).any(|part| part == word.as_bytes()) {
            true => Ok(()),
            false => Err(SshError::Untrusted(format!(
                "{} is another machine than this sandbox",
                line.place()
            ))),
        }
    }
}

/// Those addresses of a guest that may be a guest's: not ours, and none that means another machine elsewhere.
fn foreign(told: impl Iterator<Item = String>, ours: &[IpAddr]) -> Vec<String> {
    let is_foreign = |address: &IpAddr| {
        let special = match address {
            IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
            IpAddr::V6(six) => six.is_unicast_link_local(),
        };
        let nobody = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        !special && !nobody && !ours.contains(address)
    };
    let read = |text: String| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    told.filter_map(read).filter(is_foreign).take(MOST).map(|one| one.to_string()).collect()
}

/// The keys that we come in by, and the machine that guests are reached by.
#[derive(Default)]
pub(super) struct Own {
    keys: tokio::sync::OnceCell<Keys>,
    jump: tokio::sync::Mutex<Option<Arc<Ssh>>>,
}

fn of_ssh(error: SshError) -> Fail {
    match error {
        SshError::Unreachable(text) => Fail::Unreachable(text),
        SshError::Broken(text) => Fail::Lost(text),
        SshError::Untrusted(text) | SshError::Refused(text) | SshError::Keys(text) => {
            Fail::NoWay(text)
        }
    }
}

impl Inner {
    pub(super) async fn keys(&self) -> Result<&Keys, Fail> {
        let Some(config) = &self.ssh else {
            return Err(Fail::NoWay("there is no key for SSH".into()));
        };
        let opened = self.own.keys.get_or_try_init(|| async { Keys::open(&config.key) });
        opened.await.map_err(of_ssh)
    }

    /// Whether SSH could be used, and why not: the key, and the machine that guests are reached by.
    pub(super) async fn try_ssh(&self) -> Result<(), String> {
        let Some(config) = &self.ssh else { return Ok(()) };
        // One of our own is made when it is needed.
        if config.jump.is_none() && matches!(&config.key, KeySource::Made(path) if !path.exists()) {
            return Ok(());
        }
        let keys = self.keys().await.map_err(said)?;
        keys.line().await.map_err(|error| error.to_string())?;
        match &config.jump {
            Some(jump) => self.jump(jump, keys).await.map(drop).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Opens the line by SSH; gives where it leads.
    pub(super) async fn by_ssh(&self, name: &str, open: &mut Open) -> Result<String, Fail> {
        let (wait, patience) = if self.ways == Ways::Ssh { LONG } else { SHORT };
        let token = open.record.token.clone();
        let known = self.remembered(name, &token);
        let line = match &known {
            Some(met) => {
                let patience = patience.min(LONG.1 / 4);
                let addresses = std::slice::from_ref(&met.address);
                self.dial(met.port, &met.key, addresses, None, patience).await.ok()
            }
            None => None,
        };
        let line = match line {
            Some((line, _)) => line,
            // It is not as it was, or does not know us: it is asked, and told who we are.
            None => {
                let shell = self.by_shell(open).await?;
                let told = self.introduce(&shell, wait).await?;
                let Told { port, keys, addresses, proof } = &told;
                let line = self.dial(*port, keys, addresses, Some(proof), patience).await;
                let (line, met) = line.map_err(of_ssh)?;
                if known.as_ref() != Some(&met) {
                    self.remember(name, &token, &met);
                }
                line
            }
        };
        let agent = Arc::new(agent::by_ssh(&line).await?);
        let place = line.place().to_owned();
        open.ssh = Some((agent, Arc::new(line)));
        Ok(place)
    }

    /// Addresses that no guest has: the NAS's, and those of the machine that guests are reached by.
    async fn ours(&self) -> Result<Vec<IpAddr>, Fail> {
        let ground = self.ground().await.map_err(|error| Fail::Lost(error.to_string()))?;
        let mut ours = ground.hosts;
        ours.extend(self.known_as(&self.client.address().host).await);
        if let Some(jump) = self.ssh.as_ref().and_then(|ssh| ssh.jump.as_ref()) {
            ours.extend(self.known_as(&jump.host).await);
        }
        Ok(ours)
    }

    /// Asks a guest how one comes in, and lets our key in there.
    async fn introduce(&self, shell: &Agent, wait: Duration) -> Result<Told, Fail> {
        let ours = self.ours().await?;
        let proof = Proof::new();
        let key = self.keys().await?.line().await.map_err(of_ssh)?;
        let seconds = wait.as_secs().to_string();
        let fields = ask(shell, &["ssh", &key, &seconds, &proof.path, &proof.word]).await?;
        let mut fields =
            fields.into_iter().map(|field| String::from_utf8_lossy(&field).into_owned());
        let mut next = || fields.next().unwrap_or_default();
        let (port, there, keys) = (next().parse().unwrap_or(0), next() == "1", next());
        let told: Vec<String> = fields.collect();
        let has = !told.is_empty();
        let addresses = foreign(told.into_iter(), &ours);
        let lacks = match (there, port, addresses.is_empty()) {
            (false, ..) => "there is no sshd in it (package openssh-server)",
            (true, _, true) if has => "its addresses are those of the NAS or of no other machine",
            (true, _, true) => "it has no address",
            (true, 0, _) => "its sshd does not listen",
            _ => return Ok(Told { port, keys, addresses, proof }),
        };
        Err(Fail::NoWay(lacks.into()))
    }

    /// Connects to whichever of its addresses answers first, and is the guest.
    async fn dial(
        &self,
        port: u16,
        keys_there: &str,
        addresses: &[String],
        proof: Option<&Proof>,
        patience: Duration,
    ) -> Result<(Ssh, Met), SshError> {
        let keys = self.keys().await.map_err(|fail| SshError::Keys(said(fail)))?;
        let jump = match self.ssh.as_ref().and_then(|ssh| ssh.jump.as_ref()) {
            Some(jump) => Some(self.jump(jump, keys).await?),
            None => None,
        };
        // The machine that guests are reached by is no guest.
        let pins = match &jump {
            Some(jump) => Pins::parse(keys_there).without(jump.key()),
            None => Pins::parse(keys_there),
        };
        let jump = jump.as_deref();
        let connect = |address: &String| {
            let address = address.clone();
            let (user, pins) = ("root".into(), pins.clone());
            async move {
                let target = Target { user, host: address.clone(), port, pins };
                let line = Ssh::connect(&target, keys, jump, patience).await?;
                if let Some(proof) = proof {
                    proof.holds(&line).await?;
                }
                let met = Met { port, address, key: line.key().to_owned() };
                Ok((line, met))
            }
        };
        let mut all: FuturesUnordered<_> = addresses.iter().map(connect).collect();
        let mut worst = SshError::Unreachable("it has no address".into());
        while let Some(done) = all.next().await {
            match done {
                Ok(line) => return Ok(line),
                // That somebody answered says more than that nobody did.
                Err(error) if matches!(worst, SshError::Unreachable(_)) => worst = error,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    /// The machine that guests are reached by.
    async fn jump(&self, jump: &Jump, keys: &Keys) -> Result<Arc<Ssh>, SshError> {
        let mut kept = self.own.jump.lock().await;
        if let Some(line) = kept.as_ref().filter(|line| !line.is_over()) {
            return Ok(Arc::clone(line));
        }
        let pins = match &jump.key {
            Some(key) => Pins::parse(key),
            None => {
                let asked = async {
                    let nas = Box::pin(self.agent(HOST)).await?.agent;
                    ask(&nas, &["ssh", "", "0"]).await
                };
                let fields = asked.await.map_err(|fail| {
                    SshError::Keys(format!(
                        "the host key of {} is not known, and the NAS's shell does not say it ({}); say it yourself: jump_key",
                        jump.host,
                        said(fail)
                    ))
                })?;
                Pins::parse(
                    &fields.get(2).map(|keys| String::from_utf8_lossy(keys)).unwrap_or_default(),
                )
            }
        };
        let Jump { user, host, port, .. } = jump.clone();
        let line = Ssh::connect(&Target { user, host, port, pins }, keys, None, LONG.1).await?;
        let line = Arc::new(line);
        *kept = Some(Arc::clone(&line));
        Ok(line)
    }

    fn place(&self, name: &str, token: &str) -> Option<PathBuf> {
        let plain = !token.is_empty() && token.chars().all(|c| c.is_ascii_alphanumeric());
        let folder = self.ssh.as_ref()?.known.as_ref().filter(|_| plain)?;
        Some(folder.join(format!("{name}.{token}")))
    }

    /// Whether a sandbox of this name was met by SSH, and is to be reached so.
    pub(super) fn remembers(&self, name: &str) -> bool {
        let folder = self.ssh.as_ref().and_then(|ssh| ssh.known.as_ref());
        let Some(folder) = folder.filter(|_| self.ways != Ways::Shell) else { return false };
        let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let of = |file: std::ffi::OsString| {
            file.to_string_lossy().rsplit_once('.').is_some_and(|(of, _)| of == name)
        };
        all.into_iter().any(|entry| of(entry.file_name()))
    }

    fn remembered(&self, name: &str, token: &str) -> Option<Met> {
        serde_json::from_slice(&std::fs::read(self.place(name, token)?).ok()?).ok()
    }

    /// Keeps what was found out. Without it, it is asked for the next time, too.
    fn remember(&self, name: &str, token: &str, met: &Met) {
        let Some(place) = self.place(name, token) else { return };
        let Some(folder) = place.parent() else { return };
        let keep = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile_in(folder)?;
            file.1.write_all(&serde_json::to_vec(met)?)?;
            std::fs::rename(&file.0, &place)
        };
        let _ = keep();
    }

    /// Forgets a sandbox that is deleted.
    pub(super) fn forget_keys(&self, name: &str, token: &str) {
        if let Some(place) = self.place(name, token) {
            let _ = std::fs::remove_file(place);
        }
    }
}

fn tempfile_in(folder: &std::path::Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    let path = folder.join(format!(".{}", token()));
    Ok((path.clone(), std::fs::File::create_new(path)?))
}

/// What a failure says.
fn said(fail: Fail) -> String {
    match fail {
        Fail::Refused(_, text)
        | Fail::Failed(text, _)
        | Fail::Unreachable(text)
        | Fail::Untrusted(text)
        | Fail::Lost(text)
        | Fail::Away(text)
        | Fail::NoWay(text) => text,
    }
}

/// Asks by a line of its own for something that has an answer and nothing else.
async fn ask(agent: &Agent, request: &[&str]) -> Result<Vec<Vec<u8>>, Fail> {
    let lost = |error: std::io::Error| Fail::Lost(error.to_string());
    let attached = agent.attach(FILES, None, false).await?;
    let mut session = Session::over(attached).await.map_err(lost)?;
    session.send(&frame(request)).await.map_err(lost)?;
    match session.answer().await.map_err(lost)? {
        Said::Done(fields) => Ok(fields),
        Said::Wrong(number, about) => {
            let why = std::io::Error::from_raw_os_error(number);
            Err(Fail::NoWay(format!("{about} can't be written in it: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_a_guests_address_is_tried() {
        let ours = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let of = |told: &[&str]| foreign(told.iter().map(|one| (*one).to_owned()), &ours);
        let told =
            ["10.0.0.2", "fd00::2", "::ffff:10.0.0.2", "127.0.0.1", "::1", "0.0.0.0", "nas.lan"];
        assert!(of(&told).is_empty());
        assert!(of(&["169.254.1.1", "fe80::1", "224.0.0.1", "::", "-oX=y", ""]).is_empty());
        assert_eq!(of(&["10.0.0.3", "::ffff:10.0.0.4"]), ["10.0.0.3", "10.0.0.4"]);
        assert_eq!(of(&["10.0.0.5"; 100]).len(), MOST);
    }
}
