//! `sandscript publish`.

use clap::Args;
use serde_json::json;

use super::Result;
use super::args::{FormatArg, port};
use super::output::Output;
use super::session::{Session, Work};
use crate::sandbox::{Capability, PublishSpec, Published};

const EXAMPLES: &str = "\
Examples:
  sandscript publish web 8080                  at a free port, for this machine only
  sandscript publish web 9000:8080             at port 9000
  sandscript publish web 0.0.0.0:9000:8080     for everybody who reaches this machine
  curl http://$(sandscript publish web 8080)/
  sandscript publish web 8080 --close          wherever it is open
  sandscript publish web 9000:8080 --close     only there";

/// Open a port of this machine for one of a running sandbox, or close it
///
/// Prints where it is reached: an address and a port of this machine, a line for each. It is open
/// under every egress policy, opens nothing outward, and ends with the sandbox: at a stop, a
/// restore or a delete. One that is open already is told again.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Publish {
    /// Of which sandbox
    name: String,
    /// The port that its programs listen on, or where on this machine before it: 9000:8080 or
    /// ADDRESS:9000:8080
    #[arg(required = true, value_name = "PORT", value_parser = port)]
    ports: Vec<PublishSpec>,
    /// Close it instead, and cut what is connected there
    #[arg(long)]
    close: bool,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Publish {
    pub fn call(self, session: &Session<'_>) -> Result {
        let (name, ports) = (&self.name, &self.ports);
        if self.close {
            return self.close(session);
        }
        let opened = session.work(false, |work| async move { open(&work, name, ports).await })?;
        warn(session.output, &opened);
        if self.format.json() {
            session.output.json(&json!(opened));
        } else {
            let lines: String = opened.iter().map(|open| format!("{}\n", open.at)).collect();
            session.output.data(&lines);
        }
        Ok(0)
    }

    fn close(&self, session: &Session<'_>) -> Result {
        let (name, ports) = (&self.name, &self.ports);
        let closed = session.work(false, |work| async move {
            let mut closed = Vec::new();
            for PublishSpec { port, at } in ports {
                closed.extend(work.backend.unpublish(name, *port, *at, &work.cancel).await?);
            }
            Ok(closed)
        })?;
        if self.format.json() {
            session.output.json(&json!(closed));
        } else {
            for one in &closed {
                session.output.note(format!("{} is closed", one.at));
            }
        }
        Ok(0)
    }
}

/// Opens ports of a running sandbox's.
pub async fn open(work: &Work, name: &str, ports: &[PublishSpec]) -> Result<Vec<Published>> {
    let mut opened = Vec::new();
    for PublishSpec { port, at } in ports {
        let at = work.backend.publish(name, *port, *at, &work.cancel).await?;
        opened.push(Published { port: *port, at });
    }
    Ok(opened)
}

/// Refuses ports where nothing can be opened, before anything is made.
pub fn check(work: &Work, ports: &[PublishSpec]) -> Result<()> {
    match ports.is_empty() {
        true => Ok(()),
        false => Ok(work.backend.capabilities().require(Capability::Publish)?),
    }
}

/// Says which of them others than this machine reach.
pub fn warn(output: &Output, opened: &[Published]) {
    opened.iter().filter_map(Published::exposure).for_each(|exposure| output.warn(exposure));
}
