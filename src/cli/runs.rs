//! `sandscript runs`.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::FormatArg;
use super::reports::{self, Asked, ShowArg, kind_and_path};
use super::session::Session;
use super::{CommandError, Result};
use crate::sandbox::format_duration;
use crate::workflow::record::{RunFile, RunState, Runs as Store};
use crate::workflow::report::{Report, clean};
use crate::workflow::{Event, Stream, exit};

const EXAMPLES: &str = "\
Examples:
  sandscript runs list
  sandscript runs show latest                        its table and its failures
  sandscript runs show latest --cell 'db=postgres'   all that a cell printed
  sandscript runs replay latest --show all
  sandscript runs export r3f html=report.html junit=junit.xml

RUN is an id, the beginning of one, or 'latest'. Runs are kept for 30 days, 100 of them at most, in
the state folder ($XDG_STATE_HOME/sandscript).";

/// Look at earlier runs
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Runs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say which runs are kept
    List(List),
    /// Say how a run ended, or what one of its cells printed
    Show(Show),
    /// Tell a run again
    Replay(Replay),
    /// Write reports of a run
    Export(Export),
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Args)]
struct Show {
    /// Which run
    run: String,
    /// Print what this cell printed: stdout to stdout, stderr to stderr
    #[arg(long, value_name = "CELL")]
    cell: Option<String>,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Args)]
struct Replay {
    /// Which run
    run: String,
    /// Of which cells to show what they printed
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = ShowArg::Failed)]
    show: ShowArg,
}

#[derive(Args)]
struct Export {
    /// Which run
    run: String,
    /// The reports to write; KIND is github, html, jsonl, junit or trace
    #[arg(required = true, value_name = "KIND=PATH", value_parser = kind_and_path)]
    reports: Vec<Asked>,
}

impl Runs {
    /// Whether the answer is to be JSON.
    pub fn json(&self) -> bool {
        match &self.verb {
            Verb::List(verb) => verb.format.json(),
            Verb::Show(verb) => verb.format.json(),
            Verb::Replay(_) | Verb::Export(_) => false,
        }
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        let Some(state) = &session.state else {
            return Err(CommandError::usage("there is no folder that runs are kept in")
                .hint("set HOME or XDG_STATE_HOME"));
        };
        let store = Store::at(state);
        match self.verb {
            Verb::List(verb) => list(&store, session, verb.format.json()),
            Verb::Show(verb) => show(&store, session, &verb),
            Verb::Replay(verb) => {
                let run = store.find(&verb.run)?;
                let reports = reports::for_people(session.output, verb.show, false);
                replay(&store, &run, reports)
            }
            Verb::Export(verb) => {
                let run = store.find(&verb.run)?;
                replay(&store, &run, reports::open(&verb.reports, session, true)?)
            }
        }
    }
}

fn word(state: RunState, run: &RunFile) -> String {
    match (state, run.code) {
        (RunState::Running, _) => "running".into(),
        (_, None) => "died".into(),
        (_, Some(0)) => "ok".into(),
        (_, Some(code)) => format!("exit code {code}"),
    }
}

fn list(store: &Store, session: &Session<'_>, json: bool) -> Result {
    let runs = store.list();
    if json {
        let runs: Vec<_> = runs.iter().map(|run| described(store, run)).collect();
        session.output.json(&json!(runs));
        return Ok(exit::OK);
    }
    if runs.is_empty() {
        session.output.note("no run is recorded here yet");
        return Ok(exit::OK);
    }
    let row = |run: &RunFile| {
        let seconds = run.seconds.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
        vec![
            run.run.clone(),
            run.began.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            clean(&run.script),
            word(store.state(run), run),
            seconds.map(format_duration).unwrap_or_default(),
            run.counts.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    session.output.table(&["RUN", "BEGAN (UTC)", "SCRIPT", "RESULT", "TIME", "CELLS"], &rows);
    Ok(exit::OK)
}

fn described(store: &Store, run: &RunFile) -> serde_json::Value {
    let mut value = json!(run);
    value["state"] = json!(store.state(run));
    value
}

fn show(store: &Store, session: &Session<'_>, verb: &Show) -> Result {
    let run = store.find(&verb.run)?;
    if let Some(cell) = &verb.cell {
        return printed(store, &run, cell);
    }
    if !verb.format.json() {
        let shown = reports::for_people(session.output, ShowArg::Failed, false);
        return replay(store, &run, shown);
    }
    let mut document = described(store, &run);
    let mut cells = Vec::new();
    for record in store.replay(&run.run)? {
        if let event @ Event::CellEnded { .. } = &record.event {
            let mut cell = json!(event);
            if let Some(map) = cell.as_object_mut() {
                map.remove("type");
            }
            cells.push(cell);
        }
    }
    document["cells"] = json!(cells);
    session.output.json(&document);
    Ok(exit::OK)
}

/// All that a cell printed, as it printed it.
fn printed(store: &Store, run: &RunFile, cell: &str) -> Result {
    let mut found = None;
    let mut ids = Vec::new();
    for record in store.replay(&run.run)? {
        if let Event::MatrixStarted { matrix, cells, .. } = record.event {
            for info in cells {
                if info.id == cell || format!("{matrix}/{}", info.id) == cell {
                    found.get_or_insert((matrix.clone(), info.id.clone()));
                }
                ids.push(info.id);
            }
        }
    }
    let Some((matrix, id)) = found else {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let error = CommandError::usage(format!("run {} has no cell '{cell}'", run.run));
        return Err(match ids.is_empty() {
            true => error.hint("no cell of it was run; 'sandscript runs list' shows the others"),
            false => error.hint(crate::config::suggest(cell, &ids)),
        });
    };
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    for (stream, text) in store.output(&run.run, &matrix, &id) {
        let written = match stream {
            Stream::Stdout => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            Stream::Stderr => err.write_all(text.as_bytes()),
        };
        if written.is_err() {
            return Ok(super::output::BROKEN_PIPE as u8);
        }
    }
    Ok(exit::OK)
}

/// Feeds reports with what was recorded.
fn replay(store: &Store, run: &RunFile, mut reports: Vec<Box<dyn Report>>) -> Result {
    let fail = |name: &str, error: std::io::Error| {
        CommandError::internal(format!("the {name} report can't be written: {error}"))
    };
    for record in store.replay(&run.run)? {
        for report in &mut reports {
            report.record(&record).map_err(|error| fail(report.name(), error))?;
        }
    }
    for report in &mut reports {
        report.finish().map_err(|error| fail(report.name(), error))?;
    }
    Ok(exit::OK)
}
