//! The connection to another host: made when it is needed, and made anew when it broke.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::super::session::{Connect, Connection};
use super::super::BACKEND;
use super::access::Way;
use super::program::Program;
use super::script::{self, GREETS, SAYS};
use super::{Begin, RemoteConfig};
use crate::sandbox::{Error, Result};
use crate::transport::mux::Mux;
use crate::transport::ssh::{Ssh, SshError, Stream};

/// How long a host may take to answer, to let us in, and to start our program.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long sending the program may stand still.
const STILL: Duration = Duration::from_secs(60);

/// How long what was sent last may be on its way, until our program is started there.
const ARRIVES: Duration = Duration::from_secs(120);

/// How long one waits between two tries.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// How long nobody else tries what has just failed.
const FRESH: Duration = Duration::from_secs(2);

/// The most that the other host says before our program does.
const LONGEST: usize = 64 << 10;

/// The way to another host, with the connection that is open.
pub(super) struct Dial {
    config: RemoteConfig,
    place: String,
    kept: tokio::sync::Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    line: Option<(Mux, Ssh)>,
    program: Option<Program>,
    failed: Option<(Instant, Error)>,
    /// Whether one was open before: then it is worth more than one try.
    before: bool,
}

impl Dial {
    pub fn new(config: RemoteConfig) -> Result<Dial> {
        let place = config.access.way(&config.host)?.target.to_string();
        if let Some(store) = config.access.store.as_ref().filter(|store| !store.starts_with('/')) {
            return Err(Error::invalid_hint(
                "store",
                format!("'{store}' is a folder of {place}, and not named from / on"),
                "name it as in /mnt/tank/sandscript",
            ));
        }
        Ok(Dial { config, place, kept: tokio::sync::Mutex::default() })
    }

    /// The host, as it is called.
    pub fn place(&self) -> &str {
        &self.place
    }

    async fn dial(&self, kept: &mut Kept) -> Result<Mux> {
        let mut pauses = PAUSES[..if kept.before { PAUSES.len() } else { 0 }].iter();
        loop {
            let error = match self.once(kept).await {
                Ok((mux, ssh)) => {
                    kept.line = Some((mux.clone(), ssh));
                    kept.before = true;
                    return Ok(mux);
                }
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) if matches!(error, Error::Transport { .. }) => {
                    tokio::time::sleep(*pause).await;
                }
                _ => {
                    kept.failed = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            }
        }
    }

    async fn once(&self, kept: &mut Kept) -> Result<(Mux, Ssh)> {
        let RemoteConfig { host, access, helper, image, image_server } = &self.config;
        let ssh = enter(&access.way(host)?).await.map_err(|(_, error)| error)?;
        let (line, program) = match &access.program {
            Some(program) => (script::start(program)?, None),
            None => {
                let program = match &kept.program {
                    Some(program) => program.clone(),
                    None => {
                        let helper = helper.clone();
                        let found = move || Program::find(helper.as_deref());
                        let found = tokio::task::spawn_blocking(found).await;
                        found.map_err(|error| Error::internal(error.to_string()))??
                    }
                };
                kept.program = Some(program.clone());
                (script::push(&program.sha256, program.size), Some(program))
            }
        };
        let stream = ssh.run(&line).await.map_err(of_ssh)?;
        let mut talk = Talk { stream, buffer: BytesMut::new(), place: &self.place };
        talk.greet(program.as_ref()).await?;
        let begin = Begin {
            store: access.store.as_ref().map(Into::into),
            image: image.clone(),
            image_server: image_server.clone(),
        };
        let mut begin =
            serde_json::to_vec(&begin).map_err(|error| Error::internal(error.to_string()))?;
        begin.push(b'\n');
        let sent = tokio::time::timeout(STILL, talk.stream.write_all(&begin)).await;
        let sent = sent.map_err(|_| talk.lost(&"it takes nothing any more"))?;
        sent.map_err(|error| talk.lost(&error))?;
        let Talk { stream, buffer, .. } = talk;
        let (from, to) = tokio::io::split(stream);
        let (mux, _) = Mux::start(from, to, buffer);
        Ok((mux, ssh))
    }
}

#[async_trait]
impl Connect for Dial {
    async fn connect(&self) -> Result<Connection> {
        let mut kept = self.kept.lock().await;
        if let Some((mux, ssh)) = &kept.line
            && !mux.is_over()
            && !ssh.is_over()
        {
            return Ok(Connection::Lanes(mux.clone(), self.place.clone()));
        }
        kept.line = None;
        if let Some((at, error)) = &kept.failed
            && at.elapsed() < FRESH
        {
            return Err(error.clone());
        }
        let mux = self.dial(&mut kept).await?;
        Ok(Connection::Lanes(mux, self.place.clone()))
    }
}

/// How far one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nobody answers.
    Way,
    /// It is not the one that is known.
    HostKey,
    /// It does not let us in.
    Key,
}

/// Connects and logs in, by another host where that is how it is reached.
pub(super) async fn enter(way: &Way) -> Result<Ssh, (Stop, Error)> {
    let jump = match &way.jump {
        Some(jump) => Some(one(jump, None).await?),
        None => None,
    };
    one(way, jump.as_ref()).await
}

async fn one(way: &Way, through: Option<&Ssh>) -> Result<Ssh, (Stop, Error)> {
    let target = &way.target;
    if way.keys.is_empty() {
        let why = way.wrong.first().map_or("there is no key for SSH".into(), ToString::to_string);
        let error = Error::Auth {
            message: format!(
                "{target}: {why}; make one (ssh-keygen -t ed25519) and let it in there (ssh-copy-id {}), or name one in your \
                 config.toml",
                way.name
            ),
        };
        return Err((Stop::Key, error));
    }
    let connected = Ssh::connect(target, &way.keys, through, PATIENCE).await;
    connected.map_err(|error| {
        let stop = match &error {
            SshError::Unreachable(_) | SshError::Broken(_) => Stop::Way,
            SshError::Untrusted(_) => Stop::HostKey,
            SshError::Refused(_) | SshError::Keys(_) => Stop::Key,
        };
        (stop, told(error, way))
    })
}

fn told(error: SshError, way: &Way) -> Error {
    let (name, host) = (&way.name, &way.target.host);
    match (error, way.wrong.first()) {
        (SshError::Refused(text), Some(why)) => {
            of_ssh(SshError::Refused(format!("{text} ({why})")))
        }
        (SshError::Untrusted(text), _) if way.target.pins.is_empty() => Error::Auth {
            message: format!(
                "{text}; if that is its key, which 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' shows there, let it be known: \
                 ssh {name} once, or host_key in your config.toml"
            ),
        },
        (SshError::Untrusted(text), _) if way.target.pins.only_rsa() => Error::Auth {
            message: format!(
                "{text}; if that is its key, which 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' shows there, let it be known: \
                 ssh -o HostKeyAlgorithms=ssh-ed25519 {name} once, or host_key in your config.toml"
            ),
        },
        (SshError::Untrusted(text), _) => Error::Auth {
            message: format!(
                "{text}; somebody else may answer in its stead. If it has a new one, take the old one away: ssh-keygen -R {host}"
            ),
        },
        (error, _) => of_ssh(error),
    }
}

pub(super) fn of_ssh(error: SshError) -> Error {
    match error {
        SshError::Unreachable(message) | SshError::Broken(message) => Error::Transport { message },
        SshError::Untrusted(message) | SshError::Keys(message) => Error::Auth { message },
        SshError::Refused(message) => Error::Auth {
            message: format!("{message}; add it to ~/.ssh/authorized_keys there: ssh-copy-id"),
        },
    }
}

/// A channel whose other end is a shell that becomes our program.
pub(super) struct Talk<'a, S> {
    pub stream: S,
    pub buffer: BytesMut,
    pub place: &'a str,
}

impl<S: Stream> Talk<'_, S> {
    fn lost(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Transport { message: format!("{}: {why}", self.place) }
    }

    /// Waits until our program answers there; sends it where it is asked for.
    async fn greet(&mut self, program: Option<&Program>) -> Result<()> {
        let (mut patience, mut heard) = (PATIENCE, 0);
        loop {
            let said = tokio::time::timeout(patience, self.line()).await;
            let said = said.map_err(|_| self.lost(&"its shell does not answer"))??;
            heard += said.len() + 1;
            if heard > LONGEST {
                return Err(self.lost(&"its shell says something else"));
            }
            if let Some(version) = said.strip_prefix(GREETS) {
                return match version == env!("CARGO_PKG_VERSION") {
                    true => Ok(()),
                    false => Err(self.refuse(format!(
                        "the sandscript there is {version}, this one is {}: take the same there, or leave 'program' out",
                        env!("CARGO_PKG_VERSION")
                    ))),
                };
            }
            let Some(word) = said.strip_prefix(SAYS) else { continue };
            match (word.split_once(' ').unwrap_or((word, "")), program) {
                (("push", machine), Some(program)) => {
                    self.send(machine, program).await?;
                    patience = ARRIVES;
                }
                // Somebody else sends it at the moment.
                (("wait", _), Some(_)) => {}
                ((word, rest), _) => return Err(self.refuse(why(word, rest))),
            }
        }
    }

    fn refuse(&self, hint: String) -> Error {
        Error::unsupported("working there", BACKEND, format!("on {}: {hint}", self.place))
    }

    /// Sends the program. Whoever has no room for it says so in the middle.
    async fn send(&mut self, machine: &str, program: &Program) -> Result<()> {
        let own = std::env::consts::ARCH;
        let known = ["x86_64", "aarch64", "riscv64", "s390x", "loongarch64"];
        if known.contains(&own) && machine != own {
            return Err(self.refuse(format!(
                "it is a machine of another kind ({machine}) than this one ({own}): put a sandscript {} for {machine} there, and \
                 say where it is: program = \"/…\" in your config.toml",
                env!("CARGO_PKG_VERSION")
            )));
        }
        let mut file = program.open().await?;
        let mut chunk = vec![0; 64 << 10];
        loop {
            let count = file.read(&mut chunk).await;
            let count = count.map_err(|error| Error::io("reading this program", error))?;
            if count == 0 {
                break;
            }
            let sent = tokio::time::timeout(STILL, self.stream.write_all(&chunk[..count])).await;
            match sent {
                Ok(Ok(())) => {}
                // Why is what it says.
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(self.lost(&"it takes nothing any more")),
            }
        }
        let flushed = tokio::time::timeout(STILL, self.stream.flush()).await;
        let flushed = flushed.map_err(|_| self.lost(&"it takes nothing any more"))?;
        flushed.map_err(|error| self.lost(&error))
    }

    /// The next line.
    pub async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.buffer.len() > LONGEST {
                return Err(self.lost(&"its shell says something else"));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) => return Err(self.lost(&"its shell ended without an answer")),
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }
}

/// What keeps our program from running there, and what to do.
fn why(word: &str, rest: &str) -> String {
    let folder = script::FOLDER;
    match word {
        "not-root" => format!(
            "'{rest}' is not root there, and may not 'sudo' without a password: use root@…, or let it (NOPASSWD)"
        ),
        "no-folder" => format!("{folder} can't be made, or is not a folder of root's own"),
        "no-exec" => format!(
            "no program may run in {folder}, and nothing can be mounted there: put a sandscript elsewhere, and say where it \
             is: program = \"/…\" in your config.toml"
        ),
        "no-room" => format!(
            "there is no room for this program in {folder}: make some in /run, or put a sandscript elsewhere, and say where it \
             is: program = \"/…\" in your config.toml"
        ),
        "corrupt" => "this program did not arrive there as it is here; try it again".into(),
        "no-run" => format!(
            "this program does not run there ({rest}): build it statically or with a C library as old as the one there, or put \
             a sandscript there, and say where it is: program = \"/…\" in your config.toml"
        ),
        "no-program" => {
            format!("there is no program {rest}: look at 'program' in your config.toml")
        }
        _ => format!("its shell says '{word}'"),
    }
}
