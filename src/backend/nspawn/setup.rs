//! The set-up of a machine that its file says: each step is done once, and what was done is written down, so that
//! one that failed is where it goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::super::guest::{Exec, until};
use super::super::local::{load, save};
use super::machine::{self, Image, Network, Step};
use super::record::Machine;
use super::{BACKEND, Inner};
use crate::sandbox::{Cancel, Command, Error, Exit, Output, Result, Stdin};

/// Runs what comes by its standard input.
const RECEIVE: &str = "f=$(mktemp /run/setup.XXXXXX) && cat >\"$f\" && chmod 700 \"$f\" && \"$f\" </dev/null 2>&1; r=$?; rm -f \"$f\"; exit $r";
/// How much of what a step says is kept.
const MOST: usize = 4 << 20;
/// Waits for the network, as far as the machine says when that is there.
const ONLINE: &str =
    "timeout 30 systemctl start network-online.target </dev/null >/dev/null 2>&1 || true\n";
/// The networkd of a new machine, which reads the addresses that its file says, where nobody else sees to that.
const NETWORKD: &str = "
if [ -x /usr/lib/systemd/systemd-networkd ] || [ -x /lib/systemd/systemd-networkd ]; then
    systemctl is-active --quiet NetworkManager || systemctl enable --now systemd-networkd
fi
";

/// What was done of a set-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    /// Steps by their names.
    pub steps: BTreeMap<String, State>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub(super) enum State {
    /// It was begun: who ran it was killed, or does so now.
    Begun,
    /// It was done.
    Done,
    /// It failed.
    Failed {
        /// How it ended.
        code: i32,
    },
}

/// The steps of a new machine: what it needs itself, then those of its file.
fn steps(file: &machine::Machine) -> Vec<Step> {
    let networked = matches!(&file.network, Network::Own(nics) if !nics.is_empty())
        && !matches!(file.image, Some(Image::Folder(_)));
    let own = Step { name: "(networkd)".into(), script: NETWORKD.into() };
    let theirs = if file.setup_done { Vec::new() } else { file.setup.clone() };
    networked.then_some(own).into_iter().chain(theirs).collect()
}

/// Whether a machine's network is there only when somebody has answered it.
fn asks(file: &machine::Machine) -> bool {
    // Of a pair of cables to the host there is nobody who would.
    let asks = |nic: &machine::Nic| nic.addresses.is_empty() && nic.link != machine::Link::Veth;
    matches!(&file.network, Network::Own(nics) if nics.iter().any(asks))
}

impl Inner {
    /// Does what is left of a machine's set-up, in order.
    ///
    /// # Errors
    /// `Internal` for a step that failed: the machine stays, and this goes on with it. `Busy` when it is under
    /// way.
    pub(super) async fn set_up(self: &Arc<Self>, name: &str, cancel: &Cancel) -> Result<()> {
        let machine = self.store.machine(name)?;
        let Some(file) = self.file(name, &machine)? else { return Ok(()) };
        if self.store.run(name)?.is_none() {
            return Ok(());
        }
        let place = self.store.folder(name).join("setup.json");
        let left = |done: &Done| -> Vec<Step> {
            let all = steps(&file).into_iter();
            all.filter(|step| done.steps.get(&step.name) != Some(&State::Done)).collect()
        };
        if left(&load(&place)?.unwrap_or_default()).is_empty() {
            return Ok(());
        }
        let Some(_lock) = self.store.try_changing(&format!("{name}.setup")) else {
            let what = "its set-up is under way".into();
            return Err(Error::Busy { name: name.to_owned(), what });
        };
        // Somebody else may have done some of it until now.
        let mut done: Done = load(&place)?.unwrap_or_default();
        let left = left(&done);
        let log = self.store.folder(name).join("setup.log");
        for (at, step) in left.iter().enumerate() {
            done.steps.insert(step.name.clone(), State::Begun);
            save(&place, &done)?;
            let waits = at == 0 && asks(&file);
            let output = until(cancel, self.step(name, &machine, step, waits)).await?;
            let opened = File::options().create(true).append(true).mode(0o600).open(&log);
            if let Ok(mut file) = opened {
                let _ = writeln!(file, "=== {}", step.name);
                let _ = file.write_all(&output.stdout);
            }
            let code = match output.exit {
                Exit::Code(0) => {
                    done.steps.insert(step.name.clone(), State::Done);
                    save(&place, &done)?;
                    continue;
                }
                Exit::Code(code) => code,
                Exit::Signal(signal) => 128 + signal,
            };
            done.steps.insert(step.name.clone(), State::Failed { code });
            save(&place, &done)?;
            let said = String::from_utf8_lossy(&output.stdout);
            let last =
                said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("(it said nothing)");
            return Err(Error::internal(format!(
                "step '{}' of the set-up of '{name}' ended with {code}: {}; it stays, and 'sandscript start {name} --backend {BACKEND}' goes on with this step",
                step.name,
                last.trim(),
            )));
        }
        Ok(())
    }

    async fn step(
        self: &Arc<Self>,
        name: &str,
        machine: &Machine,
        step: &Step,
        waits: bool,
    ) -> Result<Output> {
        let line = if waits { format!("{ONLINE}{RECEIVE}") } else { RECEIVE.to_owned() };
        let mut command = Command::shell(line);
        command.stdin = Stdin::Piped;
        command.cwd = Some("/".into());
        command.user = Some("root".into());
        command.env.insert("DEBIAN_FRONTEND".into(), "noninteractive".into());
        let mut process = self.spawn(name, machine.record.defaults(), &command).await?;
        let script = step.file();
        if let Some(mut stdin) = process.stdin.take() {
            // One that ends without reading it says why.
            let _ = stdin.write_all(script.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        process.collect(MOST).await
    }
}
