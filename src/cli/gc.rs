//! `sandscript gc`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::args::{FormatArg, duration};
use super::session::Session;
use super::{Result, timer, view};
use crate::sandbox::format_size;
use crate::workflow::record::Runs;
use crate::workflow::{Collected, Sweep, sweep};

const EXAMPLES: &str = "\
Examples:
  sandscript gc                                say what would go
  sandscript gc --yes                          delete it
  sandscript gc --older-than 7d                what nobody used for a week: bases, cells that failed
  sandscript gc --older-than 7d --kept         sandboxes that never expire, too
  sandscript gc --run r1a2b3c4d5e6f --yes      what one run left
  sandscript gc --install                      do it every hour from now on";

/// Find what dead runs left, and what has expired
///
/// What a live run owns is never touched, and what you created yourself only with --kept. A base expires
/// when nobody has used it for 30 days, or for as long as its script or the settings say. Every call of
/// sandscript looks by itself when it is done, at most every 10 minutes, and says what it deleted.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Gc {
    /// Delete it, too
    #[arg(short, long)]
    yes: bool,
    /// Also what nobody has used for so long: bases, and sandboxes that expire anyway
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// With --older-than: also sandboxes that never expire, such as those you created yourself
    #[arg(long, requires = "older_than")]
    kept: bool,
    /// Only what this run left: what it owned, and the sandboxes of cells that failed
    #[arg(long, value_name = "RUN", conflicts_with_all = ["older_than", "kept"])]
    run: Option<String>,
    /// Do it every hour from now on, by a timer of systemd or by cron
    #[arg(long, conflicts_with_all = ["yes", "older_than", "run", "uninstall"])]
    install: bool,
    /// Take that timer away again
    #[arg(long, conflicts_with_all = ["yes", "older_than", "run"])]
    uninstall: bool,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

/// Who uses what is known to the minute only.
fn age(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        age if age < Duration::from_secs(60) => {
            Err("it is known to the minute who uses what: use 1m or more".into())
        }
        age => Ok(age),
    }
}

impl Gc {
    pub fn call(self, session: &Session<'_>) -> Result {
        if self.install {
            return timer::install(session);
        }
        if self.uninstall {
            return timer::uninstall(session);
        }
        let dry_run = !self.yes;
        let run = self.run.map(|run| match &session.state {
            Some(state) => Runs::at(state).find(&run).map_or(run, |found| found.run),
            None => run,
        });
        let wanted = Sweep {
            dry_run,
            run,
            older_than: self.older_than,
            kept: self.kept,
            bases: session.settings.bases_expire,
        };
        session.leave_untidied();
        let found = session.work(false, |work| async move {
            Ok(sweep(work.backend.as_ref(), &wanted, &work.cancel).await?)
        })?;
        let output = session.output;
        let all = &found.sandboxes;
        if self.format.json() {
            output.json(&json!({
                "dry_run": dry_run,
                "sandboxes": all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
                "entries": all.iter().map(entry_json).collect::<Value>(),
                "leftovers": found.leftovers,
                "bytes": found.bytes,
            }));
            return Ok(0);
        }
        if !all.is_empty() {
            let row = |one: &Collected| {
                let used = one.times.map(|(_, used)| view::age(used)).unwrap_or_default();
                vec![one.name.clone(), used, one.why.to_string()]
            };
            output.table(&["NAME", "USED", "WHY"], &all.iter().map(row).collect::<Vec<_>>());
        }
        let count = |count: usize, one: &str, many: &str| {
            format!("{count} {}", if count == 1 { one } else { many })
        };
        let mut what = count(all.len(), "sandbox", "sandboxes");
        what += &format!(", {}", count(found.leftovers, "leftover", "leftovers"));
        if found.bytes > 0 {
            what += &format!(", {}", format_size(found.bytes));
        }
        if all.is_empty() && found.leftovers == 0 {
            output.note("there is nothing to delete");
        } else if dry_run {
            output.note(format!("would delete {what}; add --yes to do it"));
        } else {
            output.note(format!("deleted {what}"));
        }
        Ok(0)
    }
}

fn entry_json(one: &Collected) -> Value {
    json!({
        "name": one.name,
        "why": one.why.word(),
        "message": one.why.to_string(),
        "created": one.times.map(|(created, _)| view::timestamp(created)),
        "used": one.times.map(|(_, used)| view::timestamp(used)),
    })
}
