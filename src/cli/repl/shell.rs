//! What entries do.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Repl;
use super::command::{self, find};
use super::help::{self, Help};
use super::place::{self, Place, share};
use super::show::{Look, show};
use super::table::table;
use super::view::{Now, View};
use crate::api::{ErrorKind, Host, ScriptError, new_run_id};
use crate::cli::opener::Backends;
use crate::cli::run::{code_of, code_of_cells, this_machine};
use crate::cli::session::{Session, Work};
use crate::cli::signals::Interrupts;
use crate::cli::terminal::window_size;
use crate::cli::{CommandError, Result, view};
use crate::lang::{self, Language, Source, TYPED};
use crate::sandbox::{Backend, Cancel, Owner, format_duration};
use crate::workflow::{EventSink, exit};

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    Leave,
}

/// A session of the repl.
pub struct Shell<'a> {
    options: Repl,
    session: &'a Session<'a>,
    work: &'a Work,
    events: EventSink,
    /// A person looks at it.
    person: bool,
    places: Vec<Place>,
    at: usize,
    language: &'static dyn Language,
    view: View,
    /// Say how long each entry took.
    timed: bool,
    worst: u8,
}

impl<'a> Shell<'a> {
    /// Begins on the backend that the command line names.
    pub fn open(
        options: Repl,
        session: &'a Session<'a>,
        work: &'a Work,
        language: &'static dyn Language,
        events: EventSink,
        person: bool,
    ) -> Result<Shell<'a>> {
        let settings = &session.settings;
        let (backend, at) = (Arc::clone(&work.backend), settings.host.clone());
        let host = host(&options, session, work, &events, backend, at)?;
        let name = place::title(&settings.backend, settings.host.as_deref());
        let mut place = Place::new(name, Arc::clone(&host));
        let now = Now {
            language,
            session: Arc::clone(&place.talk(language)?.session),
            host,
            runtime: Handle::current(),
        };
        Ok(Shell {
            options,
            session,
            work,
            events,
            person,
            places: vec![place],
            at: 0,
            language,
            view: View::new(now),
            timed: false,
            worst: exit::OK,
        })
    }

    /// What the editor looks at.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// The ending of the language's files.
    pub fn ending(&self) -> &'static str {
        self.view.now().ending()
    }

    /// The exit code that matrices ask for.
    pub fn worst(&self) -> u8 {
        self.worst
    }

    /// The first line a person sees.
    pub fn greet(&self) {
        let (version, language) = (env!("CARGO_PKG_VERSION"), self.language.name());
        let place = &self.place().name;
        self.note(&format!(
            "sandscript {version}, {language} on {place}. :help lists what there is, Ctrl-D leaves."
        ));
    }

    /// Tells a person something.
    pub fn note(&self, text: &str) {
        self.session.output.note(text);
    }

    /// Tells what went wrong.
    pub fn error(&self, error: &CommandError) {
        self.session.output.error(error, false);
    }

    fn place(&self) -> &Place {
        &self.places[self.at]
    }

    fn look(&self) -> Look {
        let width = io::stdout().is_terminal().then(|| usize::from(window_size().cols));
        Look { width, color: self.session.output.color_out }
    }

    /// Does what an entry says.
    pub async fn entry(&mut self, text: &str) -> Result<Flow> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Flow::On);
        }
        if let Some((name, rest)) = command::split(text) {
            return self.command(name, rest).await;
        }
        let now = self.view.now();
        if let Some(topic) = help::asked(trimmed, &*now.session) {
            self.help(topic)?;
            return Ok(Flow::On);
        }
        let word = trimmed.trim_end_matches(';').trim_end_matches("()");
        if matches!(word, "quit" | "exit") && !now.session.names().iter().any(|name| name == word) {
            return Ok(Flow::Leave);
        }
        self.eval(text, self.timed).await?;
        Ok(Flow::On)
    }

    async fn command(&mut self, name: &str, rest: &str) -> Result<Flow> {
        let command = find(name)?;
        let needed = !command.takes.is_empty() && !command.takes.starts_with('[');
        if (needed && rest.is_empty()) || (command.takes.is_empty() && !rest.is_empty()) {
            let message = match needed {
                true => format!(":{name} needs a {}", command.takes.to_lowercase()),
                false => format!(":{name} takes nothing"),
            };
            return Err(CommandError::usage(message).hint(format!("write {}", command.usage())));
        }
        match command.name {
            "backend" if rest.is_empty() => self.note(&format!("on {}", self.place().name)),
            "backend" => self.go(rest).await?,
            "help" => self.help(rest)?,
            "lang" if rest.is_empty() => self.note(&format!("in {}", self.language.name())),
            "lang" => self.speak(rest)?,
            "load" => self.load(rest).await?,
            "quit" => return Ok(Flow::Leave),
            "sandboxes" => self.sandboxes().await?,
            "save" => self.save(rest, name == "save!")?,
            "time" if rest.is_empty() => {
                self.timed = !self.timed;
                self.note(if self.timed { "each entry is timed" } else { "entries are not timed" });
            }
            _ => self.eval(rest, true).await?,
        }
        Ok(Flow::On)
    }

    fn help(&self, topic: &str) -> Result<(), CommandError> {
        let now = self.view.now();
        let width = self.look().width.unwrap_or(100).clamp(20, 100);
        let help = Help {
            registry: &now.host.registry,
            session: &*now.session,
            language: now.ending(),
            width,
        };
        self.session.output.data(&help.on(topic)?);
        Ok(())
    }

    /// Runs an entry and shows its value.
    async fn eval(&mut self, text: &str, timed: bool) -> Result<(), CommandError> {
        let shown = self.run(&Source::new(TYPED, text), timed).await?;
        self.session.output.data(&shown);
        self.said(text);
        Ok(())
    }

    fn said(&mut self, text: &str) {
        let language = self.language;
        if let Ok(talk) = self.places[self.at].talk(language) {
            talk.said.push(text.trim_end().to_owned());
        }
    }

    /// Runs a source, which Ctrl-C ends; the text of its value.
    async fn run(&mut self, source: &Source, timed: bool) -> Result<String> {
        let now = self.view.now();
        let cancel = Cancel::new();
        if self.person {
            self.work.signals.interrupt(Interrupts::Call(cancel.clone()));
        }
        let ctx = now.host.start_one(&cancel);
        let started = Instant::now();
        let result = tokio::select! {
            result = now.session.eval(source, &ctx) => result,
            () = self.work.signals.kill.cancelled() => {
                Err(ScriptError::new(ErrorKind::Cancelled, "killed"))
            }
        };
        let took = started.elapsed();
        self.events.flush().await;
        let shown = match &result {
            Ok(value) => show(value, &ctx, self.look()).await,
            Err(error) => Err(error.clone()),
        };
        let shown = shown
            .map(|text| self.events.mask().text(&text).into_owned())
            .map_err(|error| now.host.masked(error));
        let code = code_of_cells(&now.host.take_reports());
        self.worst = if self.worst == exit::OK { code } else { self.worst };
        if timed {
            self.note(&format!("took {}", time(took)));
        }
        shown.map_err(|error| {
            if !matches!(error.kind, ErrorKind::Cancelled) {
                return CommandError::from_script(&error, code_of(&error));
            }
            if cancel.is_cancelled() {
                // The terminal has shown ^C where the cursor was.
                let _ = io::stderr().write_all(b"\n");
            }
            CommandError { word: "cancelled", ..CommandError::usage("cancelled") }
                .code(exit::INTERRUPTED)
        })
    }

    /// Goes on in another language.
    fn speak(&mut self, word: &str) -> Result<(), CommandError> {
        let language = place::language(word)?;
        let before = Arc::clone(&self.view.now().session);
        let after = Arc::clone(&self.places[self.at].talk(language)?.session);
        let same = language.name() == self.language.name();
        self.language = language;
        let shared = if same { Vec::new() } else { share(&*before, &*after) };
        self.turn()?;
        let along = match shared.as_slice() {
            [] => String::new(),
            names => format!("; {} came along", names.join(", ")),
        };
        self.note(&format!("in {}{along}", language.name()));
        Ok(())
    }

    /// Goes on with another backend; stays where it is when that one can't be opened.
    async fn go(&mut self, to: &str) -> Result<(), CommandError> {
        let settings = &self.session.settings;
        let (kind, at) = to.split_once(char::is_whitespace).unwrap_or((to, ""));
        let at = match at.trim() {
            "" => settings.host.clone().filter(|_| kind == settings.backend),
            at => Some(at.to_owned()),
        };
        let name = place::title(kind, at.as_deref());
        let name = name.as_str();
        if let Some(there) = self.places.iter().position(|place| place.name == name) {
            self.at = there;
        } else {
            let cancel = Cancel::new();
            if self.person {
                self.work.signals.interrupt(Interrupts::Call(cancel.clone()));
            }
            let opened = tokio::select! {
                opened = self.session.open_named(kind, at.clone(), &self.session.settings) => opened,
                () = cancel.cancelled() => Err(CommandError::usage("cancelled")),
                () = self.work.cancel.cancelled() => Err(CommandError::usage("cancelled")),
            };
            let backend = opened.map_err(|mut error| {
                error.message = format!("{}; still on {}", error.message, self.place().name);
                error
            })?;
            let (options, session) = (&self.options, self.session);
            let host = host(options, session, self.work, &self.events, backend, at)?;
            self.places.push(Place::new(name.to_owned(), host));
            self.at = self.places.len() - 1;
        }
        self.turn()?;
        let known = self.view.now().session.names();
        let variables = match known.as_slice() {
            [] => "nothing is declared here yet".to_owned(),
            names => format!("declared here: {}", names.join(", ")),
        };
        self.note(&format!("on {name}; {variables}"));
        Ok(())
    }

    /// Lets the editor look at where the conversation is now.
    fn turn(&mut self) -> Result<(), CommandError> {
        let place = &mut self.places[self.at];
        self.view.set(Now {
            language: self.language,
            session: Arc::clone(&place.talk(self.language)?.session),
            host: Arc::clone(&place.host),
            runtime: Handle::current(),
        });
        Ok(())
    }

    async fn load(&mut self, file: &str) -> Result<(), CommandError> {
        let path = home(file);
        let usage = |error: ScriptError| CommandError::from_script(&error, exit::USAGE);
        let source = Source::read(&path).map_err(usage)?;
        let language = lang::language(&source.name).map_err(usage)?;
        if language.name() != self.language.name() {
            let (theirs, ours) = (language.name(), self.language.name());
            return Err(CommandError::usage(format!("'{file}' is in {theirs}, not in {ours}"))
                .hint(format!("change the language first: :lang {}", theirs.to_lowercase())));
        }
        let session = self.view.now().session;
        let before = session.names();
        self.run(&source, self.timed).await?;
        self.said(&source.text);
        let mut new = session.names();
        new.retain(|name| !before.contains(name));
        self.note(&match new.as_slice() {
            [] => format!("{file} is done"),
            names => format!("{file} is done; new here: {}", names.join(", ")),
        });
        Ok(())
    }

    fn save(&mut self, file: &str, replace: bool) -> Result<(), CommandError> {
        let (path, ending) = (home(file), self.ending());
        if path.extension().is_none_or(|end| end != ending) {
            return Err(CommandError::usage(format!("'{file}' does not end in .{ending}"))
                .hint("the ending says the language of a script"));
        }
        let talk = self.places[self.at].talk(self.language)?;
        if talk.said.is_empty() {
            return Err(CommandError::usage("there is nothing to save")
                .hint("what was entered and worked is saved"));
        }
        let lines: Vec<String> =
            talk.said.iter().map(|entry| talk.session.statement(entry)).collect();
        let count = lines.len();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).create_new(!replace);
        let done = options
            .open(&path)
            .and_then(|mut file| file.write_all((lines.join("\n") + "\n").as_bytes()));
        done.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                CommandError::usage(format!("'{file}' is there already"))
                    .hint(format!(":save! {file} replaces it"))
            }
            _ => CommandError::usage(format!("'{file}' can't be written: {error}")),
        })?;
        let entries = if count == 1 { "1 entry".into() } else { format!("{count} entries") };
        self.note(&format!("{file} has {entries}"));
        Ok(())
    }

    async fn sandboxes(&mut self) -> Result<(), CommandError> {
        let host = Arc::clone(&self.place().host);
        let cancel = Cancel::new();
        if self.person {
            self.work.signals.interrupt(Interrupts::Call(cancel.clone()));
        }
        let all = host.run.backend.list(&cancel).await?;
        if all.is_empty() {
            self.note("there are no sandboxes");
            return Ok(());
        }
        let (live, kept) = (host.live(), host.kept());
        let row = |info: &crate::sandbox::Info| {
            let here = match &info.name {
                name if live.contains(name) => "made here",
                name if kept.contains(name) => "made here, kept",
                _ => "",
            };
            let from = info.source.clone().unwrap_or_else(|| info.image.clone());
            let (state, age) = (info.state.word().to_owned(), view::age(info.created));
            vec![info.name.clone(), state, from, age, here.to_owned()]
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        let head = ["name", "state", "from", "created", ""].map(String::from);
        let look = self.look();
        self.session.output.data(&table(&head, &rows, look.width, look.color));
        Ok(())
    }

    /// The sandboxes that would be deleted now, on all backends.
    pub async fn made(&self) -> Vec<String> {
        let mut made: Vec<String> = self.places.iter().flat_map(|p| p.host.live()).collect();
        made.sort_unstable();
        made.dedup();
        made
    }

    /// Keeps these; whether that worked.
    pub async fn keep(&self, names: &[String]) -> bool {
        let mut done = true;
        for place in &self.places {
            for name in place.host.live().iter().filter(|name| names.contains(name)) {
                if let Err(error) = place.host.keep_one(name).await {
                    self.error(&error.into());
                    done = false;
                }
            }
        }
        done
    }

    /// Deletes what was made and is not kept.
    pub async fn close(&self) {
        for place in &self.places {
            let live = place.host.live();
            let leftovers = tokio::select! {
                leftovers = place.host.finish() => leftovers,
                () = self.work.signals.kill.cancelled() => return,
            };
            let failed =
                |name: &&String| leftovers.failed.iter().any(|(failed, _)| failed == *name);
            let gone: Vec<&str> =
                live.iter().filter(|name| !failed(name)).map(String::as_str).collect();
            if self.person && !gone.is_empty() {
                self.note(&format!("destroyed: {}", gone.join(", ")));
            }
        }
    }
}

/// Who makes sandboxes on a backend.
fn host(
    options: &Repl,
    session: &Session<'_>,
    work: &Work,
    events: &EventSink,
    backend: Arc<dyn Backend>,
    at: Option<String>,
) -> Result<Arc<Host>> {
    let owner = Owner::new(new_run_id(), this_machine());
    let mut host = Host::builder(backend)
        .owner(owner)
        .events(events.clone())
        .cancel(work.cancel.clone())
        .project(&session.project)
        .cache(&session.settings.store)
        .on(at)
        .opener(Backends::new(&session.settings, false))
        .egress(Arc::clone(&session.settings.egress))
        .allow_call(options.allow_call)
        .keep(options.keep);
    host = options.limits.apply(host, &session.settings);
    for folder in options.allow_path.iter().chain(&session.settings.allow_path) {
        host = host.allow(folder);
    }
    for (name, source) in &session.settings.secrets {
        host = host.secret(name, source.clone());
    }
    Ok(host.build()?)
}

/// The path that somebody typed.
fn home(typed: &str) -> PathBuf {
    match (typed.strip_prefix("~/"), std::env::home_dir()) {
        (Some(below), Some(home)) => home.join(below),
        _ => Path::new(typed).to_owned(),
    }
}

/// Short times finer than others.
fn time(took: Duration) -> String {
    if took < Duration::from_millis(10) {
        format!("{:.1}ms", took.as_secs_f64() * 1000.0)
    } else {
        format_duration(took)
    }
}
