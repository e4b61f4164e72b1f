//! `sandscript start`.

use clap::Args;

use super::Result;
use super::session::Session;

const EXAMPLES: &str = "\
Example:
  sandscript start web";

/// Start a stopped sandbox, or thaw a frozen one
///
/// When this returns, commands run in it. One that runs is left as it is.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Start {
    /// Which
    #[arg(required = true)]
    name: Vec<String>,
}

impl Start {
    pub fn call(self, session: &Session<'_>) -> Result {
        session.work(false, |work| async move {
            for name in &self.name {
                work.backend.start(name, &work.cancel).await?;
                session.output.note(format!("{name} is running"));
            }
            Ok(0)
        })
    }
}
