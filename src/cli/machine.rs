//! `sandscript machine`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::args::FormatArg;
use super::session::Session;
use super::{CommandError, Result, egress, view};
use crate::backend::nspawn::machine::host::{Host, ThisHost};
use crate::backend::nspawn::machine::render::{Context, Plan, stamp};
use crate::backend::nspawn::machine::{
    Edit, Image, Machine, MachineError, Network, adopt::Adoption, bundle, cdi, checks, import,
    starter, templates,
};
use crate::egress::{Asked, Origin};
use crate::sandbox::{Spec, Verdict, check_name};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript machine templates
  sandscript machine new build --template docker --set bridge=br1
  sandscript machine check build.toml              what this host lacks for it
  sandscript machine explain build.toml            what systemd reads, and the command line
  sandscript machine import /mnt/tank/jailmaker/jails/build
  sandscript machine set build.toml limits.memory=4GiB
  sandscript machine create build.toml             make it and start it; then start, stop, exec, delete

What a machine file says: docs/machine-files.md";

/// Where systemd keeps what is made at run time; it is there where systemd is the first process.
const SYSTEMD: &str = "/run/systemd/system";

/// Write and check machine files, from which systemd-nspawn's machines are made
///
/// One TOML file says all about a machine. What systemd reads is rendered from it, and a file that a
/// person or another program wrote is never written over.
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct MachineVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the templates and what they leave open
    Templates {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Write a machine file that extends a template
    New {
        /// What the machine is to be called
        name: String,
        /// The template
        #[arg(long, value_name = "TEMPLATE")]
        template: String,
        /// Give one of its variables a value
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Where to write it; -: print it [default: NAME.toml]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a machine of a file and start it, with backend 'nspawn'
    ///
    /// The file is copied into the store, with all that it extends. When this returns, its set-up is done. From then
    /// on it is a sandbox as any other: start, stop, exec, snapshot, clone and delete are for it, too.
    Create {
        #[command(flatten)]
        file: FileArgs,
        /// Leave it stopped
        #[arg(long)]
        bare: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Say what a machine file has wrong, and what this host lacks for it
    Check {
        #[command(flatten)]
        file: FileArgs,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show what is rendered from a machine file: .nspawn file, drop-in, command line
    Explain {
        #[command(flatten)]
        file: FileArgs,
        /// Show only this
        #[arg(long, value_name = "PART", value_enum)]
        part: Option<Part>,
    },
    /// Make a machine file of a .nspawn file, or of a jail of jailmaker's
    Import {
        /// NAME.nspawn, or the jail's folder with config and rootfs
        path: PathBuf,
        /// Where to write it; -: print it [default: NAME.toml]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write what systemd reads: NAME.nspawn, the unit's drop-in, hooks
    Render {
        #[command(flatten)]
        file: FileArgs,
        /// Below this folder instead of /run
        #[arg(long, value_name = "FOLDER")]
        into: Option<PathBuf>,
        /// Take a .nspawn file that somebody else wrote over into the machine file first
        #[arg(long)]
        adopt: bool,
    },
    /// Change keys of a machine file and leave all else in it as it is
    Set {
        /// The machine file
        file: PathBuf,
        /// What to change, such as limits.memory=4GiB; a value is TOML, else a text
        #[arg(value_name = "KEY=VALUE", value_parser = pair, required_unless_present = "unset")]
        set: Vec<(String, String)>,
        /// A key to take away
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
}

#[derive(Args)]
struct FileArgs {
    /// The machine file
    file: PathBuf,
    /// Give one of its variables a value
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The .nspawn file
    Nspawn,
    /// The drop-in of systemd-nspawn@NAME.service
    Unit,
    /// Hooks, and files that the machine is given
    Files,
    /// The command line, for hosts on which systemd is not the first process
    Command,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

impl From<MachineError> for CommandError {
    fn from(error: MachineError) -> Self {
        let (code, word) = match &error {
            MachineError::Invalid { .. } => (exit::USAGE, "invalid"),
            MachineError::Clobber { .. } => (exit::FAILED, "clobber"),
            MachineError::Changed { .. } => (exit::FAILED, "changed"),
            MachineError::Host { .. } => (exit::UNSUPPORTED, "unsupported"),
            _ => (exit::INTERNAL, "internal"),
        };
        let command = CommandError::usage(error.to_string()).code(code);
        let command = CommandError { word, ..command };
        match error.hint() {
            Some(hint) => command.hint(hint),
            None => command,
        }
    }
}

impl FileArgs {
    fn given(&self) -> BTreeMap<String, String> {
        self.set.iter().cloned().collect()
    }

    fn load(&self) -> Result<Machine> {
        Ok(Machine::load(&self.file, &self.given())?)
    }

    /// What is rendered, with what this host's cards bring. Of a host without them only the words of
    /// the file are shown, and why.
    fn plan(&self, machine: &Machine) -> Result<(Plan, Option<MachineError>)> {
        let (edits, lacks) = match cdi::look_up(&machine.gpus, &ThisHost) {
            Ok(edits) => (edits, None),
            Err(error) => (Default::default(), Some(error)),
        };
        let context = Context { edits, ..Context::usual(machine) };
        let source = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        Ok((Plan::new(machine, &context, &source.display().to_string())?, lacks))
    }
}

impl MachineVerb {
    pub(super) fn json(&self) -> bool {
        match &self.verb {
            Verb::Templates { format }
            | Verb::Check { format, .. }
            | Verb::Create { format, .. } => format.json(),
            _ => false,
        }
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        match self.verb {
            Verb::Templates { format } => list(session, format.json()),
            Verb::New { name, template, set, output } => {
                check_name(&name)?;
                let text = starter::text(&template, &set.into_iter().collect())?;
                let path = output.unwrap_or_else(|| format!("{name}.toml").into());
                put(session, &path, &text)?;
                // Of a file that is called otherwise.
                if path.as_os_str() != "-"
                    && path.file_stem().is_none_or(|stem| stem != name.as_str())
                {
                    let mut edit = Edit::open(&path)?;
                    edit.set("name", &name)?;
                    edit.save()?;
                }
                Ok(exit::OK)
            }
            Verb::Create { file, bare, format } => create(session, &file, bare, format.json()),
            Verb::Check { file, format } => check(session, &file, &ThisHost, format.json()),
            Verb::Explain { file, part } => explain(session, &file, part),
            Verb::Import { path, output } => {
                let imported = import::import(&path)?;
                let target = output.unwrap_or_else(|| format!("{}.toml", imported.name).into());
                put(session, &target, &imported.text)?;
                imported.notes.iter().for_each(|note| session.output.warn(note));
                Ok(exit::OK)
            }
            Verb::Render { file, into, adopt } => render(session, &file, into.as_deref(), adopt),
            Verb::Set { file, set, unset } => change(session, &file, &set, &unset),
        }
    }
}

/// Writes a new file, or prints it.
fn put(session: &Session<'_>, path: &Path, text: &str) -> Result<()> {
    if path.as_os_str() == "-" {
        session.output.data(text);
        return Ok(());
    }
    if path.symlink_metadata().is_ok() {
        return Err(CommandError::usage(format!("{} is there already", path.display()))
            .hint("give another with --output, or -: to print it")
            .code(exit::FAILED));
    }
    stamp::replace(path, text, 0o644)?;
    session.output.note(format!("{} is written", path.display()));
    Ok(())
}

fn list(session: &Session<'_>, json: bool) -> Result {
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for template in templates::ALL {
        let variables = starter::variables_of(template)?;
        let shown: Vec<String> = variables
            .iter()
            .map(
                |one| if one.value.is_some() { one.name.clone() } else { format!("{}!", one.name) },
            )
            .collect();
        rows.push(vec![template.name.to_owned(), template.about.to_owned(), shown.join(" ")]);
        let variable = |one: &crate::backend::nspawn::machine::Variable| json!({ "name": one.name, "about": one.about, "needed": one.value.is_none() });
        let variables: Value = variables.iter().map(variable).collect();
        all.push(json!({ "name": template.name, "about": template.about, "variables": variables }));
    }
    if json {
        session.output.json(&Value::Array(all));
    } else {
        session.output.table(&["TEMPLATE", "WHAT FOR", "VARIABLES (! must be given)"], &rows);
    }
    Ok(exit::OK)
}

fn create(session: &Session<'_>, file: &FileArgs, bare: bool, json: bool) -> Result {
    let (name, files) = bundle::bundle(&file.file, &file.given())?;
    let machine = file.load()?;
    let asked = asked(session, &machine)?;
    let mut spec = Spec { machine: files, bare, ..Spec::new(name) };
    spec.check()?;
    let (image, sha256) = match &machine.image {
        Some(Image::Tarball { from, sha256 }) => (Some(from.clone()), sha256.clone()),
        image => (image.as_ref().map(Image::reference), None),
    };
    let origin = Origin::Image { image, sha256 };
    let env = machine.env.iter().cloned().collect();
    let info = session.work(false, |work| async move {
        spec.egress = egress::resolve(session, &work, &asked, origin, env, None).await?;
        Ok(work.backend.create(&spec, &work.cancel).await?)
    })?;
    if json {
        session.output.json(&view::sandbox_json(&info));
    } else {
        session.output.note(format!("{} is {}", info.name, info.state.word()));
    }
    Ok(exit::OK)
}

/// What a new machine may reach.
fn asked(session: &Session<'_>, machine: &Machine) -> Result<Asked> {
    let catalog = &session.settings.egress;
    match (&machine.network, catalog.held_by()) {
        (Network::Gate, _) => Ok(machine.egress.clone().unwrap_or_else(|| catalog.standard())),
        (Network::Own(_) | Network::Host, Some(_)) => Err(CommandError::usage(
            "a profile holds, and nobody keeps to it for interfaces that a machine is plugged into the host's network with",
        )
        .hint("leave nics and network out of the file, so that all it sends goes through the gate")
        .code(exit::UNSUPPORTED)),
        _ => Ok(Asked::None),
    }
}

fn check(session: &Session<'_>, file: &FileArgs, host: &dyn Host, json: bool) -> Result {
    let machine = file.load()?;
    let (_, _) = file.plan(&machine)?;
    let found = checks(&machine, host);
    let bad = found.iter().any(|check| check.verdict == Verdict::Bad);
    let code = if bad { exit::FAILED } else { exit::OK };
    if json {
        let value = serde_json::to_value(&found)
            .map_err(|error| CommandError::internal(format!("checks: {error}")))?;
        session.output.json(&json!({ "machine": machine.name, "starts": !bad, "checks": value }));
        return Ok(code);
    }
    let mut text = String::new();
    for check in &found {
        let mark = match check.verdict {
            Verdict::Good => "ok",
            Verdict::Poor => "poor",
            Verdict::Bad => "bad",
        };
        text.push_str(&format!("{mark:<5} {}: {}\n", check.what, check.says));
        for line in check.hint.iter().flat_map(|hint| hint.lines()) {
            text.push_str(&format!("      {line}\n"));
        }
    }
    session.output.data(&text);
    let lacks = found.iter().filter(|check| check.verdict != Verdict::Good).count();
    let name = &machine.name;
    session.output.note(match (bad, lacks) {
        (true, _) => format!("'{name}' does not start here"),
        (false, 0) => format!("'{name}' has all that it needs here"),
        (false, lacks) => format!("'{name}' starts here, and lacks {lacks} of what it needs"),
    });
    Ok(code)
}

fn explain(session: &Session<'_>, file: &FileArgs, part: Option<Part>) -> Result {
    let machine = file.load()?;
    let (plan, lacks) = file.plan(&machine)?;
    if let Some(error) = lacks {
        session.output.warn(format!("{error}: what its cards bring is not shown"));
    }
    let wanted = |one: Part| part.is_none_or(|part| part == one);
    let mut shown = Vec::new();
    if wanted(Part::Nspawn) {
        shown.push((plan.nspawn.path.display().to_string(), plan.nspawn.text.clone()));
    }
    if wanted(Part::Unit) {
        shown.push((plan.dropin.path.display().to_string(), plan.dropin.text.clone()));
    }
    if wanted(Part::Files) {
        let files = plan.files.iter();
        shown.extend(files.map(|file| (file.path.display().to_string(), file.text.clone())));
    }
    if wanted(Part::Command) {
        let mut text = format!("{}\n", plan.command);
        for words in &plan.attach {
            let words: Vec<String> = words.iter().map(|word| shell(word)).collect();
            text.push_str(&format!("{}\n", words.join(" ")));
        }
        for key in &plan.command.unsaid {
            text.push_str(&format!("# {key} has no option: it is in the .nspawn file only\n"));
        }
        shown.push(("the command line".into(), text));
    }
    // One part alone is for another program to read.
    if part.is_some_and(|part| part != Part::Files) {
        shown.into_iter().for_each(|(_, text)| session.output.data(&text));
        return Ok(exit::OK);
    }
    let blocks: Vec<String> =
        shown.into_iter().map(|(name, text)| format!("=== {name}\n{text}")).collect();
    session.output.data(&blocks.join("\n"));
    Ok(exit::OK)
}

fn shell(word: &str) -> String {
    crate::backend::nspawn::machine::render::quote::shell(word)
}

fn render(session: &Session<'_>, file: &FileArgs, into: Option<&Path>, adopts: bool) -> Result {
    // Where systemd is not the first process, its folder in /run would tell every program that it is.
    if into.is_none() && !Path::new(SYSTEMD).is_dir() {
        return Err(CommandError::usage("systemd is not the first process of this host")
            .hint("--into FOLDER renders for another one; 'sandscript machine explain FILE --part command' prints what to run here")
            .code(exit::UNSUPPORTED));
    }
    let plan = |machine: &Machine| -> Result<Plan> {
        match file.plan(machine)? {
            (_, Some(lacks)) => Err(lacks.into()),
            (plan, None) => Ok(match into {
                Some(folder) => plan.below(folder),
                None => plan,
            }),
        }
    };
    let machine = file.load()?;
    let rendered = plan(&machine)?;
    let output = session.output;
    let adoption = if adopts { Adoption::read(&file.file, &machine, &rendered)? } else { None };
    let written = match adoption {
        None => rendered.write()?,
        Some(adoption) => {
            // What is rendered afterwards is known before anything is changed.
            let after = Machine::read_as(&file.file, &adoption.text(), &file.given())?;
            let after = plan(&after)?;
            let taken = adoption.taken.clone();
            let (aside, written) = adoption.finish(&after)?;
            for key in &taken {
                output.note(format!("{key} is taken over into {}", file.file.display()));
            }
            output.note(format!("what was there is {} now", aside.display()));
            written
        }
    };
    for path in &written {
        output.note(format!("{} is written", path.display()));
    }
    if written.is_empty() {
        output.note("everything is there as it is to be");
    } else if into.is_none() {
        output.note(format!("now: systemctl daemon-reload && machinectl start {}", machine.name));
    }
    Ok(exit::OK)
}

fn change(
    session: &Session<'_>,
    file: &Path,
    set: &[(String, String)],
    unset: &[String],
) -> Result {
    let mut edit = Edit::open(file)?;
    for (key, value) in set {
        edit.set(key, value)?;
    }
    for key in unset {
        if !edit.unset(key)? {
            return Err(CommandError::usage(format!(
                "there is no key '{key}' in {}",
                file.display()
            ))
            .code(exit::FAILED));
        }
    }
    // A file that can't be read afterwards is not written.
    Machine::read_as(file, &edit.text(), &BTreeMap::new())?;
    edit.save()?;
    session.output.note(format!("{} is written", file.display()));
    Ok(exit::OK)
}
