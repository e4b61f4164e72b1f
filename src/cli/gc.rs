//! `sandscript gc`.

use clap::Args;
use serde_json::json;

use super::Result;
use super::args::FormatArg;
use super::session::Session;
use crate::sandbox::format_size;

const EXAMPLES: &str = "\
Examples:
  sandscript gc             say what would go
  sandscript gc --yes       delete it";

/// Find what dead runs left, and what has expired
///
/// What a live run owns, and what you created yourself, is never touched.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Gc {
    /// Delete it, too
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Gc {
    pub fn call(self, session: &Session<'_>) -> Result {
        let dry_run = !self.yes;
        let found = session
            .work(false, |work| async move { Ok(work.backend.gc(dry_run, &work.cancel).await?) })?;
        let output = session.output;
        if self.format.json() {
            output.json(&json!({
                "dry_run": dry_run,
                "sandboxes": found.sandboxes,
                "leftovers": found.leftovers,
                "bytes": found.bytes,
            }));
            return Ok(0);
        }
        for name in &found.sandboxes {
            output.data(&format!("{name}\n"));
        }
        let count = |count: usize, one: &str, many: &str| {
            format!("{count} {}", if count == 1 { one } else { many })
        };
        let mut what = count(found.sandboxes.len(), "sandbox", "sandboxes");
        what += &format!(", {}", count(found.leftovers, "leftover", "leftovers"));
        if found.bytes > 0 {
            what += &format!(", {}", format_size(found.bytes));
        }
        if found.sandboxes.is_empty() && found.leftovers == 0 {
            output.note("there is nothing to delete");
        } else if dry_run {
            output.note(format!("would delete {what}; add --yes to do it"));
        } else {
            output.note(format!("deleted {what}"));
        }
        Ok(0)
    }
}
