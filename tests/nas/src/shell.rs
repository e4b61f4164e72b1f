//! The shells that are open: a terminal each.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::auth::{Credential, allows};
use crate::fail::Fail;
use crate::nas::Nas;

/// The shells that are open, by id.
#[derive(Default)]
pub struct Shells {
    open: Mutex<HashMap<String, OwnedFd>>,
    /// How often all were cut off.
    pub cuts: tokio::sync::watch::Sender<u64>,
}

impl Shells {
    /// Changes a terminal's size.
    pub fn resize(&self, id: &str, cols: u16, rows: u16) -> Result<(), Fail> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let terminal = open.get(id).ok_or_else(|| Fail::Call(2, "Shell does not exist".into()))?;
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(terminal, size).map_err(|e| Fail::fault(e.to_string()))
    }

    /// A shell closed.
    pub fn leave(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// A terminal and what runs in it.
pub struct Terminal {
    /// The shell's id.
    pub id: String,
    /// The end that keys go to and output comes from.
    pub ours: File,
    /// What runs.
    pub child: Child,
}

/// Opens a shell for somebody: on the host, or in the container that the options name.
pub async fn open(nas: &Nas, who: &Credential, options: &Value) -> Result<Terminal, Fail> {
    if let Some(engine) = &nas.engine {
        engine.settled().await?;
    }
    let mut command = command(nas, who, options).await?;
    let fails = |e: rustix::io::Errno| Fail::fault(e.to_string());
    let ours =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(fails)?;
    grantpt(&ours).map_err(fails)?;
    unlockpt(&ours).map_err(fails)?;
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).map_err(fails)?;
    let name = ptsname(&ours, Vec::new()).map_err(fails)?;
    let theirs = File::options().read(true).write(true).open(name.to_string_lossy().as_ref());
    let theirs = theirs.map_err(|e| Fail::fault(e.to_string()))?;
    let end = || theirs.try_clone().map(Stdio::from).map_err(|e| Fail::fault(e.to_string()));
    let child = command.stdin(end()?).stdout(end()?).stderr(end()?).spawn();
    let child = child.map_err(|e| Fail::fault(e.to_string()))?;
    let id = crate::random::uuid();
    let copy = rustix::io::fcntl_dupfd_cloexec(&ours, 3).map_err(fails)?;
    nas.shells.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), copy);
    Ok(Terminal { id, ours: ours.into(), child })
}

async fn command(nas: &Nas, who: &Credential, options: &Value) -> Result<Command, Fail> {
    let incus = "/usr/local/lib/nas-sim/incus";
    let given = options["command"].as_str();
    let inner: Vec<String> = match (&options["virt_instance_id"], &options["container_id"]) {
        (Value::String(name), _)
            if !nas.release.is_26() && options["use_console"] == json!(true) =>
        {
            vec![incus.into(), "console".into(), name.clone()]
        }
        (Value::String(name), _) if !nas.release.is_26() => {
            let mut argv = vec![incus.into(), "exec".into(), name.clone(), "--".into()];
            match given {
                // One element of the argument list, whatever is in it.
                Some(command) if nas.traps.on(46) => argv.push(command.into()),
                Some(command) => argv.extend(["/bin/sh".into(), "-c".into(), command.into()]),
                None => argv.push("bash".into()),
            }
            argv
        }
        (_, Value::Number(id)) if nas.release.is_26() && options["app_name"].is_null() => {
            if !allows(&who.roles, "CONTAINER_WRITE") {
                return Err(Fail::Call(13, "Not authorized".into()));
            }
            let row = nas.rows.get("container", id.as_i64().unwrap_or_default());
            let row = row.ok_or_else(|| Fail::Call(2, format!("Container {id} does not exist")))?;
            let name = crate::method::engine_name(&row);
            if !nas.engine()?.running(&name).await {
                return Err(Fail::fault("Container is not running"));
            }
            let mut argv = vec![incus.into(), "exec".into(), "-t".into(), name, "--".into()];
            match given {
                Some(command) if nas.traps.on(46) => {
                    argv.extend(["/bin/sh".into(), "-c".into(), command.into()])
                }
                Some(command) => argv.push(command.into()),
                None => argv.extend(
                    [
                        "/bin/sh",
                        "-c",
                        "if command -v bash >/dev/null; then exec bash; else exec sh; fi",
                    ]
                    .map(Into::into),
                ),
            }
            argv
        }
        (Value::Null, Value::Null) => {
            vec!["/bin/login".into(), "-p".into(), "-f".into(), who.username.clone()]
        }
        _ => return Err(Fail::Call(22, "not simulated".into())),
    };
    let mut host = nas.host.command("setsid")?;
    host.args(["--ctty", "--wait"]).args(inner);
    Ok(host)
}

/// What the endpoint answers when somebody may not come in.
pub fn refused(reason: &str, errno: i32) -> Value {
    json!({"msg": "failed", "error": {"error": errno, "reason": reason}})
}
