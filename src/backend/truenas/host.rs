//! Commands on the NAS itself, by its own shell.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::super::guest::{Defaults, Exec};
use super::lifecycle::pause;
use super::{BACKEND, Inner};
use crate::sandbox::{Command, Error, Exit, Result, Stdin};

/// Among the guests, the NAS itself. No sandbox has such a name.
pub(super) const HOST: &str = "@nas";

/// The most that a command may write.
const MOST: usize = 64 << 20;

impl Inner {
    /// Opens its shell meanwhile, for what will need it soon. Whoever needs it is told what is wrong with it.
    pub(super) fn open_host(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        tokio::spawn(async move { drop(inner.agent(HOST).await) });
    }

    /// Runs a command as the NAS's root, for what is told when that can't be: what it wrote, or what it says
    /// when it failed.
    pub(super) async fn host(
        self: &Arc<Self>,
        what: &str,
        argv: &[&str],
        stdin: Option<Vec<u8>>,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let mut command = Command::argv(argv.iter().copied());
        command.cwd = Some("/".into());
        if let Some(stdin) = stdin {
            command.stdin = Stdin::Bytes(Bytes::from(stdin));
        }
        let process = match self.spawn(HOST, Defaults::none(), &command).await {
            Ok(process) => process,
            Err(Error::Auth { message }) => {
                return Err(Error::unsupported(
                    what,
                    BACKEND,
                    format!("{message}; this is done by the NAS's own shell, as its root"),
                ));
            }
            Err(error) => return Err(error),
        };
        let output = process.collect(MOST).await?;
        match output.exit {
            Exit::Code(0) => Ok(Ok(output.stdout)),
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim().trim_start_matches("Error: ").to_owned();
                Ok(Err(if said.is_empty() { output.exit.to_string() } else { said }))
            }
        }
    }

    /// The same for what may be done twice: again where the line breaks.
    pub(super) async fn host_again(
        self: &Arc<Self>,
        what: &str,
        argv: &[&str],
        stdin: Option<Vec<u8>>,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        for tries in 0..3 {
            match self.host(what, argv, stdin.clone()).await {
                Err(Error::Transport { .. }) => tokio::time::sleep(pause(tries)).await,
                done => return done,
            }
        }
        self.host(what, argv, stdin).await
    }

    /// Asks the daemon of 25.x: its answer. `Err` inside is what it refuses with.
    pub(super) async fn incus(
        self: &Arc<Self>,
        what: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<std::result::Result<Value, String>> {
        let text = body.map(Value::to_string);
        let mut argv = vec!["incus", "query", "--wait", "-X", method];
        if let Some(text) = &text {
            argv.extend(["-d", text]);
        }
        argv.push(path);
        Ok(self
            .host(what, &argv, None)
            .await?
            .map(|said| serde_json::from_slice(&said).unwrap_or_default()))
    }
}
