//! A process in a machine of another program, which has what the machine's own processes have and no more: its
//! namespaces, its cgroups, its capabilities, its system call filters. It starts commands there and works on files,
//! as process 1 of a sandbox of this backend does, and speaks the same protocol.

mod bounds;
mod groups;
mod serve;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::protocol::Failure;
use crate::sandbox::{Error, Result};
use crate::transport::Link;

pub use serve::serve;

/// What a process is called that is to be one.
pub const ARGV0: &str = "sandscript:agent";

/// Into which machine it goes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enter {
    /// The id of the machine's process 1.
    pub leader: i32,
    /// When that started, in clock ticks since the boot.
    pub started: u64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
enum Entered {
    /// It listens.
    Ok,
    /// It is not in there.
    Failed(Failure),
}

/// One that was started, whether it has come in or not.
pub struct Entering(Link);

impl Entering {
    /// Starts one, of `helper` or of this very program, which listens at `listener`. The program that is returned lives
    /// as long as what it makes.
    pub fn start(
        helper: Option<&Path>,
        enter: &Enter,
        listener: OwnedFd,
    ) -> io::Result<(Child, Entering)> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(helper.unwrap_or(Path::new("/proc/self/exe")))
            .arg0(ARGV0)
            .arg(serde_json::to_string(enter)?)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(listener))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()?;
        Ok((child, Entering(Link::new(ours.into())?)))
    }

    /// Waits until it is there.
    ///
    /// # Errors
    /// `Transport` where the machine is gone; else what could not be done.
    pub async fn done(mut self) -> Result<()> {
        match self.0.receive::<Entered>().await? {
            Some((Entered::Ok, _)) => Ok(()),
            Some((Entered::Failed(failure), _)) if failure.errno == libc::ESRCH => {
                Err(Error::Transport { message: failure.what })
            }
            Some((Entered::Failed(failure), _)) => Err(failure.into()),
            None => Err(Error::Transport { message: "what runs commands is gone".into() }),
        }
    }
}
