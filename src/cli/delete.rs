//! `sandscript delete`.

use clap::Args;

use super::session::Session;
use super::{CommandError, Result};
use crate::sandbox::{Error, Kind};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript delete web
  sandscript delete web twin --yes
  sandscript delete web --yes --missing-ok";

/// Delete sandboxes with their snapshots; clones of them live on
#[derive(Args)]
#[command(visible_alias = "rm", after_help = EXAMPLES)]
pub struct Delete {
    /// Which
    #[arg(required = true)]
    name: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    /// One that is not there is fine
    #[arg(long)]
    missing_ok: bool,
}

impl Delete {
    pub fn call(self, session: &Session<'_>) -> Result {
        let output = session.output;
        let names = self.name.join(", ");
        if !self.yes {
            if !output.can_ask {
                return Err(CommandError::usage(format!("not asked whether to delete {names}"))
                    .hint("this is no terminal; add --yes to delete without a question"));
            }
            if !output.ask(&format!("delete {names}?")) {
                output.note("nothing is deleted");
                return Ok(exit::FAILED);
            }
        }
        session.work(false, |work| async move {
            for name in &self.name {
                match work.backend.delete(name, &work.cancel).await {
                    Ok(()) => output.note(format!("{name} is deleted")),
                    Err(Error::NotFound { kind: Kind::Sandbox, .. }) if self.missing_ok => {
                        output.note(format!("{name} was not there"));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(0)
        })
    }
}
