//! `sandscript run`, and `sandscript run --plan`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use serde_json::{Value, json};

use super::args::Format;
use super::output::{Output, Style, paint};
use super::run::{Run, Stage};
use super::session::Session;
use super::{CommandError, Result};
use crate::backend::plan::PlanBackend;
use crate::sandbox::Backend;
use crate::workflow::report::{self, Out, Plain, Report, clean};
use crate::workflow::{CellInfo, Event, OnFail, Record};

const EXAMPLES: &str = "\
Examples:
  sandscript run scripts/build_base.rhai
  sandscript run scripts/test_matrix.rhai --help            what it is for, its parameters
  sandscript run scripts/test_matrix.rhai --list
  sandscript run scripts/test_matrix.rhai --plan            what is cached, which cells there are
  sandscript run scripts/test_matrix.rhai --filter 'sanitizer=address' --jobs 4
  sandscript run scripts/test_matrix.rhai --set broken=true --report jsonl=events.jsonl

Ctrl-C once stops and cleans up, twice kills, three times leaves at once.

With --plan nothing is made, neither a sandbox nor a file on this machine. Every command counts as
one that succeeds and prints nothing, assertions are not judged, and the functions of matrices are
not called. A script that decides by what a command prints may do something else when it is run.";

/// Run a script
///
/// Sandboxes that the script makes are deleted when it ends, however it ends, unless they are kept.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RunOrPlan {
    #[command(flatten)]
    run: Run,
    /// Say which steps are cached, which are not and why, and which cells there are, and make nothing
    #[arg(long, conflicts_with_all = ["list", "keep", "report"])]
    plan: bool,
    /// How to print the plan or the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

impl RunOrPlan {
    /// Whether the answer is to be JSON.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Says what the script is for.
    pub fn help(self, session: &Session<'_>) -> Result {
        self.run.help(session)
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        let (json, dry) = (self.json(), self.plan);
        let list = !dry && json && self.run.lists();
        if json && !dry && !list {
            return Err(CommandError::usage("--format json is about a plan or a list")
                .hint("add --plan or --list; --report jsonl=PATH writes what happens in a run"));
        }
        if !dry && !list {
            return self.run.call(session);
        }
        let source = self.run.source()?;
        let output = session.output;
        let planned = Arc::new(Mutex::new(Planned::default()));
        let report = PlanReport::new(Arc::clone(&planned), output);
        let result = session.work(true, |work| async move {
            let backend: Arc<dyn Backend> = match dry {
                true => Arc::new(PlanBackend::new(Arc::clone(&work.backend))),
                false => Arc::clone(&work.backend),
            };
            let stage = Stage {
                session,
                settings: &session.settings,
                project: &session.project,
                backend,
                cancel: work.cancel.clone(),
                signals: &work.signals,
                reports: self.run.with_explain(Box::new(report), output),
                recorder: None,
                only: None,
                dry,
                on_fail: OnFail::Clean,
                bases: None,
                pins: None,
            };
            self.run.once(&source, stage).await.result
        });
        let planned = lock(&planned);
        if !json {
            output.data(&planned.text(output));
            output.note(planned.summary());
            return result;
        }
        // One document, whatever happened.
        let mut document = if list { planned.list() } else { planned.json() };
        match result {
            Ok(code) => {
                output.json(&document);
                Ok(code)
            }
            Err(error) => {
                document["error"] = error.json()["error"].take();
                output.json(&document);
                output.error(&error, false);
                Ok(error.code)
            }
        }
    }
}

/// The version of the JSON plan and list; it grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// What a script would do, in the order in which it says so.
#[derive(Default)]
struct Planned {
    bases: Vec<Base>,
    matrices: Vec<(String, Vec<CellInfo>)>,
}

struct Base {
    name: String,
    from: String,
    steps: Vec<Step>,
}

struct Step {
    number: usize,
    title: String,
    key: String,
    /// Why it would be done; none when it is cached.
    reason: Option<String>,
}

impl Planned {
    fn base(&mut self, name: &str) -> Option<&mut Base> {
        self.bases.iter_mut().rev().find(|base| base.name == name)
    }

    fn take(&mut self, event: &Event) {
        let (base, step) = match event {
            Event::BaseStarted { base, from } => {
                let (name, from) = (base.clone(), from.clone());
                self.bases.push(Base { name, from, steps: Vec::new() });
                return;
            }
            Event::CellList { matrix, cells } => {
                self.matrices.push((matrix.clone(), cells.clone()));
                return;
            }
            Event::StepHit { base, step, title, key, .. } => {
                let (title, key) = (title.clone(), key.clone());
                (base, Step { number: *step, title, key, reason: None })
            }
            Event::StepStarted { base, step, title, key, reason, .. } => {
                let (title, key, reason) = (title.clone(), key.clone(), Some(reason.clone()));
                (base, Step { number: *step, title, key, reason })
            }
            _ => return,
        };
        if let Some(base) = self.base(base) {
            base.steps.push(step);
        }
    }

    /// How many steps are cached, and how many are not.
    fn counts(&self) -> (usize, usize) {
        let steps = || self.bases.iter().flat_map(|base| &base.steps);
        let hits = steps().filter(|step| step.reason.is_none()).count();
        (hits, steps().count() - hits)
    }

    fn cells(&self) -> usize {
        self.matrices.iter().map(|(_, cells)| cells.len()).sum()
    }

    fn text(&self, output: &Output) -> String {
        let color = output.color_out;
        let mut lines = Vec::new();
        for base in &self.bases {
            let head = paint(color, Style::Bold, format!("base {}", clean(&base.name)));
            lines.push(format!("{head} from {}", clean(&base.from)));
            for Step { number, title, reason, .. } in &base.steps {
                let title = clean(title);
                lines.push(match reason {
                    None => format!("  {}   {number} {title}", paint(color, Style::Good, "hit")),
                    Some(reason) => {
                        let miss = paint(color, Style::Warn, "miss");
                        format!("  {miss}  {number} {title}: {}", clean(reason))
                    }
                });
            }
        }
        for (matrix, cells) in &self.matrices {
            lines.push(paint(color, Style::Bold, format!("matrix {}", clean(matrix))));
            lines.extend(cells.iter().map(|cell| format!("  cell  {}", clean(&cell.id))));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    fn summary(&self) -> String {
        let (hits, misses) = self.counts();
        let count = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {more}"),
        };
        format!(
            "{}, {}, {}; nothing was made: commands were not run, assertions not judged",
            count(hits, "hit", "hits"),
            count(misses, "miss", "misses"),
            count(self.cells(), "cell", "cells"),
        )
    }

    fn matrices(&self) -> Vec<Value> {
        let matrix =
            |(matrix, cells): &(String, Vec<CellInfo>)| json!({ "matrix": matrix, "cells": cells });
        self.matrices.iter().map(matrix).collect()
    }

    fn list(&self) -> Value {
        json!({ "v": SCHEMA, "matrices": self.matrices(), "cells": self.cells() })
    }

    fn json(&self) -> Value {
        let (hits, misses) = self.counts();
        let step = |step: &Step| {
            json!({
                "step": step.number,
                "title": step.title,
                "key": step.key,
                "cached": step.reason.is_none(),
                "reason": step.reason,
            })
        };
        let base = |base: &Base| {
            let steps: Vec<Value> = base.steps.iter().map(step).collect();
            json!({ "base": base.name, "from": base.from, "steps": steps })
        };
        json!({
            "v": SCHEMA,
            "bases": self.bases.iter().map(base).collect::<Vec<_>>(),
            "matrices": self.matrices(),
            "hits": hits,
            "misses": misses,
            "cells": self.cells(),
        })
    }
}

fn lock(planned: &Mutex<Planned>) -> MutexGuard<'_, Planned> {
    planned.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the plan out of the events. What the script says goes to stderr.
struct PlanReport {
    planned: Arc<Mutex<Planned>>,
    says: Plain,
}

impl PlanReport {
    fn new(planned: Arc<Mutex<Planned>>, output: &Output) -> PlanReport {
        let out: Out = if output.quiet { Box::new(io::sink()) } else { Box::new(io::stderr()) };
        let style = report::Style { color: output.color_err };
        PlanReport { planned, says: Plain::new(out, style, None) }
    }
}

impl Report for PlanReport {
    fn name(&self) -> &'static str {
        "plan"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        match &record.event {
            Event::Print { .. } | Event::Log { .. } | Event::Warning { .. } => {
                self.says.record(record)
            }
            event => {
                lock(&self.planned).take(event);
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}
