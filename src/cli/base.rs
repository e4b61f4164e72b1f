//! `sandscript base`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{FormatArg, duration};
use super::output::Output;
use super::run::{Run, Stage};
use super::session::{Session, Work};
use super::{CommandError, Result, explain, view};
use crate::api::WantedBases;
use crate::backend::plan::PlanBackend;
use crate::config::suggest;
use crate::sandbox::{Error, Kind, format_size};
use crate::workflow::report::{self, Plain, Report};
use crate::workflow::{BaseEntry, Catalog, Event, KeepPolicy, OnFail, Record, exit};

const EXAMPLES: &str = "\
Examples:
  sandscript base list
  sandscript base build scripts/test_matrix.rhai              what its cells start from, and no cell
  sandscript base why scripts/test_matrix.rhai                which steps would be done, and why
  sandscript base rebuild scripts/test_matrix.rhai --only cc  as if nothing was cached
  sandscript base rm cc --yes
  sandscript base prune --keep 1 --max-age 30d                say what would go; --yes deletes it";

/// Build, look at and clean up bases
///
/// A base is what base() in a script gives: cached steps, each a snapshot in a stopped sandbox.
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Base {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a script up to its bases: no cell is run
    ///
    /// With --only the script ends as soon as these bases are there.
    Build {
        #[command(flatten)]
        run: Box<Run>,
        /// Only this base, and what it starts from
        #[arg(long, value_name = "BASE")]
        only: Vec<String>,
    },
    /// List the bases, the newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only this one
        base: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Delete what no base needs that is to be kept
    ///
    /// Of each base the newest entries are kept, and all that these start from. What is being built is
    /// never touched, and clones live on. The settings say how many, under base; else three.
    Prune {
        /// Keep this many of each base
        #[arg(long, value_name = "COUNT")]
        keep: Option<usize>,
        /// Keep none that is older, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        max_age: Option<Duration>,
        /// Delete it, too
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Run a script up to its bases, and do every step anew
    Rebuild {
        #[command(flatten)]
        run: Box<Run>,
        /// Only this base, and those that start from it
        #[arg(long, value_name = "BASE")]
        only: Vec<String>,
    },
    /// Delete bases with all their steps; clones of them live on
    #[command(visible_alias = "delete")]
    Rm {
        /// Which
        #[arg(required = true)]
        base: Vec<String>,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Say of each step of a script's bases whether it is cached, and which fields of its key changed
    ///
    /// Nothing is made.
    Why {
        #[command(flatten)]
        run: Box<Run>,
        /// Only this base
        #[arg(long, value_name = "BASE")]
        only: Vec<String>,
        #[command(flatten)]
        format: FormatArg,
    },
}

impl Base {
    pub(super) fn json(&self) -> bool {
        match &self.verb {
            Verb::List { format, .. } | Verb::Prune { format, .. } | Verb::Why { format, .. } => {
                format.json()
            }
            Verb::Build { .. } | Verb::Rebuild { .. } | Verb::Rm { .. } => false,
        }
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        match self.verb {
            Verb::Build { run, only } => build(session, &run, only, false),
            Verb::Rebuild { run, only } => build(session, &run, only, true),
            Verb::List { base, format } => list(session, base.as_deref(), format.json()),
            Verb::Prune { keep, max_age, yes, format } => {
                let standard = session.settings.keep;
                let policy = KeepPolicy {
                    newest: keep.unwrap_or(standard.newest),
                    max_age: max_age.or(standard.max_age),
                };
                prune(session, policy, yes, format.json())
            }
            Verb::Rm { base, yes } => rm(session, &base, yes),
            Verb::Why { run, only, format } => why(session, run, only, format.json()),
        }
    }
}

fn build(session: &Session<'_>, run: &Run, only: Vec<String>, rebuild: bool) -> Result {
    let source = run.source()?;
    let reports = run.reports(session, true)?;
    let reports = reports.into_iter().map(|report| Box::new(NoCells(report)) as Box<dyn Report>);
    let reports: Vec<Box<dyn Report>> = reports.collect();
    let wanted = Arc::new(WantedBases::new(only, rebuild));
    let bases = Arc::clone(&wanted);
    let code = session.work(true, |work| async move {
        let stage = Stage {
            session,
            settings: &session.settings,
            project: &session.project,
            backend: Arc::clone(&work.backend),
            // Ended when the bases are there, and nothing else with it.
            cancel: work.cancel.child_token(),
            signals: &work.signals,
            reports,
            recorder: None,
            only: None,
            dry: false,
            on_fail: OnFail::Clean,
            bases: Some(bases),
            pins: None,
        };
        run.once(&source, stage).await.result
    })?;
    all_there(&wanted.missing(), &wanted.ready())?;
    Ok(code)
}

/// Fails when a base was named that the script does not have.
fn all_there(missing: &[String], there: &[String]) -> Result<()> {
    let Some(name) = missing.first() else { return Ok(()) };
    let error = CommandError::usage(format!("the script makes no base '{name}'"));
    let names: Vec<&str> = there.iter().map(String::as_str).collect();
    Err(match names.as_slice() {
        [] => error.hint("it makes none at all"),
        names => error.hint(suggest(name, names)),
    })
}

async fn catalog(work: &Work) -> Result<Catalog> {
    Ok(Catalog::load(work.backend.as_ref(), &work.cancel).await?)
}

/// The entries of a base, or an error that says which bases there are.
fn entries<'a>(catalog: &'a Catalog, base: &str) -> Result<Vec<&'a BaseEntry>> {
    let found = catalog.of(base);
    if !found.is_empty() {
        return Ok(found);
    }
    let error = CommandError::usage(format!("there is no base '{base}'")).code(exit::FAILED);
    let error = CommandError { word: "not_found", ..error };
    Err(match catalog.names().as_slice() {
        [] => error.hint("there are none yet: a script makes them with base(…)"),
        names => error.hint(suggest(base, names)),
    })
}

fn entry_json(entry: &BaseEntry) -> Value {
    let step = |step: &crate::workflow::BaseStep| {
        json!({
            "step": step.number,
            "label": step.label,
            "digest": step.digest,
            "created": view::timestamp(step.created),
            "size": step.size,
            "key": step.key,
        })
    };
    json!({
        "base": entry.base,
        "sandbox": entry.sandbox,
        "created": view::timestamp(entry.created),
        "building": entry.building,
        "steps": entry.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn list(session: &Session<'_>, base: Option<&str>, json: bool) -> Result {
    let catalog = session.work(false, |work| async move { catalog(&work).await })?;
    let all: Vec<&BaseEntry> = match base {
        Some(base) => entries(&catalog, base)?,
        None => catalog.entries.iter().collect(),
    };
    if json {
        session.output.json(&all.iter().map(|entry| entry_json(entry)).collect::<Value>());
        return Ok(exit::OK);
    }
    if all.is_empty() {
        session.output.note("there are no bases");
        return Ok(exit::OK);
    }
    let row = |entry: &&BaseEntry| {
        let numbers = (entry.steps.first(), entry.steps.last());
        let steps = match numbers {
            (Some(first), Some(last)) if first.number == last.number => first.number.to_string(),
            (Some(first), Some(last)) => format!("{}-{}", first.number, last.number),
            _ => String::new(),
        };
        let size = entry.steps.iter().map(|step| step.size).sum();
        let when = match &entry.building {
            Some(run) => format!("built by run {run}"),
            None => view::age(entry.created),
        };
        vec![entry.base.clone(), steps, format_size(size), entry.sandbox.clone(), when]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    session.output.table(&["BASE", "STEPS", "SIZE", "SANDBOX", "CREATED"], &rows);
    Ok(exit::OK)
}

fn prune(session: &Session<'_>, policy: KeepPolicy, yes: bool, json: bool) -> Result {
    let output = session.output;
    let gone = session.work(false, |work| async move {
        let catalog = catalog(&work).await?;
        let unwanted = catalog.unwanted(policy, SystemTime::now());
        let mut gone = Vec::new();
        for entry in unwanted {
            if !yes || delete(&work, &entry.sandbox).await? {
                gone.push(entry.clone());
            }
        }
        Ok(gone)
    })?;
    if json {
        let entries: Vec<Value> = gone.iter().map(entry_json).collect();
        output.json(&json!({ "dry_run": !yes, "entries": entries }));
        return Ok(exit::OK);
    }
    for entry in &gone {
        output.data(&format!("{}\n", entry.sandbox));
    }
    let entries = |count: usize| match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    output.note(match (gone.len(), yes) {
        (0, _) => "there is nothing to delete".into(),
        (count, false) => format!("would delete {}; add --yes to do it", entries(count)),
        (count, true) => format!("deleted {}", entries(count)),
    });
    Ok(exit::OK)
}

/// Deletes a base sandbox that nobody builds in by now; whether it is gone by this.
async fn delete(work: &Work, sandbox: &str) -> Result<bool> {
    let backend = work.backend.as_ref();
    match backend.get(sandbox, &work.cancel).await {
        Ok(info) if info.owner.is_some() => return Ok(false),
        Ok(_) => {}
        Err(Error::NotFound { kind: Kind::Sandbox, .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    match backend.delete(sandbox, &work.cancel).await {
        Ok(()) => Ok(true),
        Err(Error::NotFound { kind: Kind::Sandbox, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn rm(session: &Session<'_>, bases: &[String], yes: bool) -> Result {
    let output = session.output;
    session.work(false, |work| async move {
        let catalog = catalog(&work).await?;
        let mut all = Vec::new();
        for base in bases {
            for entry in entries(&catalog, base)? {
                if let Some(run) = &entry.building {
                    let message = format!("base '{base}' is being built by run {run}");
                    return Err(CommandError { word: "busy", ..CommandError::usage(message) }
                        .code(exit::FAILED)
                        .hint("wait until it is done, or stop that run"));
                }
                all.push(entry);
            }
        }
        let names = bases.join(", ");
        if !yes {
            if !output.can_ask {
                return Err(CommandError::usage(format!("not asked whether to delete {names}"))
                    .hint("this is no terminal; add --yes to delete without a question"));
            }
            if !output.ask(&format!("delete {names}?")) {
                output.note("nothing is deleted");
                return Ok(exit::FAILED);
            }
        }
        for entry in all {
            if delete(&work, &entry.sandbox).await? {
                output.note(format!("{} of base '{}' is deleted", entry.sandbox, entry.base));
            }
        }
        Ok(exit::OK)
    })
}

fn why(session: &Session<'_>, mut run: Box<Run>, only: Vec<String>, json: bool) -> Result {
    run.explain_all();
    let source = run.source()?;
    let output = session.output;
    let told = Arc::new(Mutex::new(Vec::new()));
    let collect = Collect { told: Arc::clone(&told), says: quiet(output) };
    let wanted = Arc::new(WantedBases::new(only.clone(), false));
    let bases = Arc::clone(&wanted);
    let result = session.work(true, |work| async move {
        let stage = Stage {
            session,
            settings: &session.settings,
            project: &session.project,
            backend: Arc::new(PlanBackend::new(Arc::clone(&work.backend))),
            cancel: work.cancel.child_token(),
            signals: &work.signals,
            reports: vec![Box::new(collect)],
            recorder: None,
            only: None,
            dry: true,
            on_fail: OnFail::Clean,
            bases: Some(bases),
            pins: None,
        };
        run.once(&source, stage).await.result
    });
    let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    let of = |event: &&Event| match event {
        Event::StepExplained { base, .. } => only.is_empty() || only.contains(base),
        _ => false,
    };
    let told: Vec<&Event> = told.iter().filter(of).collect();
    if json {
        output.json(&told.iter().map(|event| step_json(event)).collect::<Value>());
    } else {
        for line in
            told.iter().filter_map(|event| explain::lines(event, output.color_out)).flatten()
        {
            output.data(&format!("{line}\n"));
        }
    }
    let code = result?;
    all_there(&wanted.missing(), &wanted.ready())?;
    Ok(code)
}

fn step_json(event: &Event) -> Value {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("type");
        let cached = map.get("reason").is_none_or(Value::is_null);
        map.insert("cached".into(), cached.into());
    }
    value
}

fn quiet(output: &Output) -> Plain {
    let out: report::Out = match output.quiet {
        true => Box::new(io::sink()),
        false => Box::new(io::stderr()),
    };
    Plain::new(out, report::Style { color: output.color_err }, None)
}

/// Keeps what is explained; what the script says goes to stderr.
struct Collect {
    told: Arc<Mutex<Vec<Event>>>,
    says: Plain,
}

impl Report for Collect {
    fn name(&self) -> &'static str {
        "why"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        match &record.event {
            event @ Event::StepExplained { .. } => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                told.push(event.clone());
                Ok(())
            }
            Event::Print { .. } | Event::Log { .. } | Event::Warning { .. } => {
                self.says.record(record)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A report of a run that is for bases only: it lists no cells.
struct NoCells(Box<dyn Report>);

impl Report for NoCells {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        match &record.event {
            Event::CellList { .. } => Ok(()),
            _ => self.0.record(record),
        }
    }

    fn moves(&self) -> bool {
        self.0.moves()
    }

    fn tick(&mut self) -> io::Result<()> {
        self.0.tick()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.finish()
    }
}
