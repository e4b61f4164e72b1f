//! `sandscript snapshot`.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::args::{FormatArg, duration, key_value};
use super::session::{Session, Work};
use super::{Result, view};
use crate::sandbox::{
    Error, Restore, SnapshotSpec, check_label, format_duration, format_size, wall_clock,
};

const EXAMPLES: &str = "\
Examples:
  sandscript snapshot create web clean
  sandscript snapshot create web before --expires 2h
  sandscript snapshot list web
  sandscript snapshot restore web clean
  sandscript snapshot delete web clean";

/// Keep a sandbox's state, and go back to it
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Snapshot {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Keep the state as it is now; what runs goes on
    Create {
        /// Of which sandbox
        name: String,
        /// What to call it
        label: String,
        /// A label to find it by
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
        labels: Vec<(String, String)>,
        /// After this long it is deleted, by gc or by the server: 2h, 7d [default: never]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// List a sandbox's snapshots, oldest first
    #[command(visible_alias = "ls")]
    List {
        /// Of which sandbox
        name: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Go back to a snapshot, any of them; newer ones stay
    Restore {
        /// Which sandbox
        name: String,
        /// To which snapshot
        label: String,
        /// Let a backend that can't do otherwise delete newer snapshots
        #[arg(long)]
        discard_newer: bool,
    },
    /// Delete a snapshot; clones of it live on
    #[command(visible_alias = "rm")]
    Delete {
        /// Of which sandbox
        name: String,
        /// Which
        label: String,
    },
}

/// Says how a verb is done here, where that is to be said.
pub(super) fn say_means(session: &Session<'_>, work: &Work, verb: &str) {
    if session.output.verbose
        && let Some(means) = work.backend.capabilities().means(verb)
    {
        session.output.note(format!("{verb} goes by {}", means.by));
    }
}

/// When something ends that is kept for so long.
fn expiry(after: Duration) -> Result<SystemTime> {
    let longest = Duration::from_secs(1000 * 366 * 86400);
    let wrong = |what: &str| {
        Error::invalid_hint("expires", what, "give a time such as 2h or 7d, or leave it out")
    };
    if after.is_zero() {
        return Err(wrong("what is kept for no time is not kept").into());
    }
    let end = wall_clock().checked_add(after).filter(|_| after <= longest);
    end.ok_or_else(|| wrong("nothing is kept for a thousand years").into())
}

impl Snapshot {
    pub(super) fn json(&self) -> bool {
        match &self.verb {
            Verb::Create { format, .. } | Verb::List { format, .. } => format.json(),
            Verb::Restore { .. } | Verb::Delete { .. } => false,
        }
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        let output = session.output;
        match self.verb {
            Verb::Create { name, label, labels, expires, format } => {
                check_label(&label)?;
                let expires = expires.map(expiry).transpose()?;
                let spec = SnapshotSpec { label, labels: labels.into_iter().collect(), expires };
                let taken = session.work(false, |work| async move {
                    say_means(session, &work, "snapshot");
                    Ok(work.backend.snapshot(&name, &spec, &work.cancel).await?)
                })?;
                if format.json() {
                    output.json(&view::snapshot_json(&taken));
                } else if taken.frozen.is_zero() {
                    output.note(format!("snapshot '{}' is taken", taken.label));
                } else {
                    let frozen = format_duration(taken.frozen);
                    output.note(format!(
                        "snapshot '{}' is taken; the guest stood still for {frozen}",
                        taken.label
                    ));
                }
            }
            Verb::List { name, format } => {
                let all = session.work(false, |work| async move {
                    say_means(session, &work, "snapshot");
                    Ok(work.backend.snapshots(&name, &work.cancel).await?)
                })?;
                if format.json() {
                    output.json(&all.iter().map(view::snapshot_json).collect::<Value>());
                } else if all.is_empty() {
                    output.note("there are no snapshots");
                } else {
                    let expiring = all.iter().any(|one| one.expires.is_some());
                    let row = |one: &crate::sandbox::Snapshot| {
                        let end = one.expires.map(view::timestamp).unwrap_or_default();
                        let age = view::age(one.created);
                        let mut row = vec![one.label.clone(), format_size(one.size), age];
                        row.extend(expiring.then_some(end));
                        row
                    };
                    let rows: Vec<_> = all.iter().map(row).collect();
                    let titles = ["LABEL", "SIZE", "CREATED", "EXPIRES"];
                    output.table(&titles[..if expiring { 4 } else { 3 }], &rows);
                }
            }
            Verb::Restore { name, label, discard_newer } => {
                let options = Restore { discard_newer };
                session.work(false, |work| async move {
                    say_means(session, &work, "restore");
                    work.backend.restore(&name, &label, options, &work.cancel).await?;
                    output.note(format!("{name} is back at '{label}'"));
                    Ok(())
                })?;
            }
            Verb::Delete { name, label } => session.work(false, |work| async move {
                say_means(session, &work, "snapshot");
                work.backend.delete_snapshot(&name, &label, &work.cancel).await?;
                output.note(format!("snapshot '{label}' of {name} is deleted"));
                Ok(())
            })?,
        }
        Ok(0)
    }
}
