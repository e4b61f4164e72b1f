//! `sandscript enter`.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::exec;
use super::run::this_machine;
use super::session::{Session, Work};
use super::{CommandError, Result};
use crate::api::new_run_id;
use crate::sandbox::{Backend, Cancel, CloneSpec, Info, Owner};
use crate::workflow::FAILED_LABEL;
use crate::workflow::record::{OtherBackend, Runs};

const EXAMPLES: &str = "\
Examples:
  sandscript enter latest/db=postgres               a shell in the state it failed in
  sandscript enter r3f0c2/db=postgres -- cat /tmp/log

What is entered is a clone: the state that the cell failed in stays as it is, until it expires after
a week or is deleted. --on-fail keep makes 'run' keep it; that is the default outside of CI.";

/// Open a shell, or run a command, in the state that a cell failed in
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Enter {
    /// The run and the cell, as the report prints them
    #[arg(value_name = "RUN/CELL")]
    cell: String,
    /// What to run [default: a shell]
    #[arg(last = true, value_name = "ARGV")]
    argv: Vec<String>,
}

impl Enter {
    pub fn call(self, session: &Session<'_>) -> Result {
        let (run, cell) =
            self.cell.split_once('/').filter(|(run, _)| !run.is_empty()).ok_or_else(|| {
                CommandError::usage(format!("'{}' is not a run and a cell", self.cell))
                    .hint("write it as RUN/CELL, such as latest/db=postgres")
            })?;
        let found = session.state.as_ref().and_then(|state| Runs::at(state).find(run).ok());
        let run = found.as_ref().map_or(run.to_owned(), |found| found.run.clone());
        let others = found.map(|found| found.others).unwrap_or_default();
        session.work(false, |mut work| async move {
            let mut kept = find(&work, &run, cell).await;
            for OtherBackend { backend, host } in others {
                if kept.is_ok() {
                    break;
                }
                let backend = session.open_named(&backend, host, &session.settings).await?;
                let there = Work { backend, cancel: work.cancel.clone(), ..work.clone() };
                if let Ok(info) = find(&there, &run, cell).await {
                    (work, kept) = (there, Ok(info));
                }
            }
            let kept = kept?;
            let name = format!("enter-{}", &new_run_id()[1..9]);
            let failed = work.backend.snapshots(&kept.name, &work.cancel).await?;
            let failed = failed.iter().any(|snapshot| snapshot.label == FAILED_LABEL);
            let spec = CloneSpec {
                label: failed.then(|| FAILED_LABEL.to_owned()),
                owner: Some(Owner::new(new_run_id(), this_machine())),
                expires: SystemTime::now().checked_add(Duration::from_secs(24 * 3600)),
                ..CloneSpec::new(&name)
            };
            Backend::clone(work.backend.as_ref(), &kept.name, &spec, &work.cancel).await?;
            let backend = std::sync::Arc::clone(&work.backend);
            let done = exec::shell(session, work, &name, self.argv).await;
            let deleted = backend.delete(&name, &Cancel::new()).await;
            let code = done?;
            deleted?;
            Ok(code)
        })
    }
}

/// The sandbox that was kept of a cell.
async fn find(work: &Work, run: &str, cell: &str) -> Result<Info> {
    let label = |info: &Info, name: &str| info.labels.get(name).cloned().unwrap_or_default();
    let all = work.backend.list(&work.cancel).await?;
    let mut of_run = all.into_iter().filter(|info| label(info, "sandscript.run").starts_with(run));
    let mut others = Vec::new();
    for info in of_run.by_ref() {
        let id = label(&info, "sandscript.cell");
        if id == cell || format!("{}/{id}", label(&info, "sandscript.matrix")) == cell {
            return Ok(info);
        }
        others.push(id);
    }
    let error = CommandError::usage(format!("no state of cell '{cell}' of run {run} is kept"));
    if others.is_empty() {
        return Err(error.hint("run it again with --on-fail keep"));
    }
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    Err(error.hint(crate::config::suggest(cell, &others)))
}

/// Whether a person sits at a terminal that a shell can be opened on.
pub(super) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
