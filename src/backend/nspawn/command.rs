//! Programs of this host that do some of the work.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use tokio::sync::oneshot;

use crate::sandbox::{Error, Result};

/// Where they are, whatever whoever runs us has for a way.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program to its end; its output.
///
/// # Errors
/// `Unsupported` where it is not installed; `Exhausted` for a full disk; else what it said.
pub(super) async fn run<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    doing: &str,
) -> Result<String> {
    // It ends with this process, which has the lock on what it writes, and not by Ctrl-C on its own.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]).args(args).process_group(0);
    command.stdin(Stdio::null()).env("LC_ALL", "C").env("PATH", PATH);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let missing = |program: &str| {
        let hint = format!("the program {program} is not on this host: install it");
        Error::unsupported(doing, super::BACKEND, hint)
    };
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing("setpriv (util-linux)"),
        _ => Error::io(format!("{doing}: {program}"), error),
    })?;
    if output.status.code() == Some(127) {
        return Err(missing(program));
    }
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").trim();
    if ["No space left on device", "Disk quota exceeded"].iter().any(|full| said.contains(full)) {
        return Err(Error::Exhausted {
            what: format!("no space left {doing}"),
            hint: "delete sandboxes that nobody needs (sandscript gc), or enlarge the disk".into(),
        });
    }
    Err(Error::internal(format!("{doing}: {program}: {last}")))
}

/// Waits for a program that may run for as long as this process does, or longer; tells how it ended. Where
/// there may be no more threads, it is not told, and stays behind until this process ends.
pub(super) fn reap(mut child: Child) -> oneshot::Receiver<Option<ExitStatus>> {
    let (tell, told) = oneshot::channel();
    let wait = move || {
        let _ = tell.send(child.wait().ok());
    };
    // A thread of its own: one of the runtime's would keep that from ending.
    let _ = std::thread::Builder::new().name("reaper".into()).stack_size(64 << 10).spawn(wait);
    told
}
