//! `sandscript stop`.

use std::time::Duration;

use clap::Args;

use super::Result;
use super::args::duration;
use super::session::Session;
use crate::sandbox::StopOptions;

const EXAMPLES: &str = "\
Examples:
  sandscript stop web
  sandscript stop web --grace 1m
  sandscript stop web --force";

/// Stop a sandbox; its files stay
///
/// Its processes get SIGTERM, and SIGKILL after the grace. One that is stopped is left as it is.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Stop {
    /// Which
    #[arg(required = true)]
    name: Vec<String>,
    /// How long processes get to end by themselves
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    grace: Duration,
    /// Kill at once
    #[arg(long, conflicts_with = "grace")]
    force: bool,
}

impl Stop {
    pub fn call(self, session: &Session<'_>) -> Result {
        let options = StopOptions { grace: self.grace, force: self.force };
        session.work(false, |work| async move {
            for name in &self.name {
                work.backend.stop(name, options, &work.cancel).await?;
                session.output.note(format!("{name} is stopped"));
            }
            Ok(0)
        })
    }
}
