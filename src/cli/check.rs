//! `sandscript check`.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::output::{Style, paint};
use super::session::Session;
use super::{CommandError, Result};
use crate::api::Registry;
use crate::lang::{self, Checker, Finding, Source};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript check                          every script of the project
  sandscript check scripts/build_base.rhai
  sandscript check --format github          annotations in a GitHub workflow

Exit codes: 0 nothing was found, 2 a file or folder is not there, 3 something was found.";

/// Find mistakes in scripts without running them
///
/// Finds what can't be read, unknown functions, options, properties and variables, wrong numbers and
/// types of arguments, modules that are missing, imports that are not used, and includes of a matrix
/// that change nothing. The modules that a script imports are checked with it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// Scripts, and folders with scripts; what ignore files name is left out [default: the project]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A folder outside the project that the scripts may use
    #[arg(long, value_name = "FOLDER")]
    allow_path: Vec<PathBuf>,
    /// How to print what was found
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
}

/// A file and what was found in it.
type Checked = (String, Vec<Finding>);

impl Check {
    /// Whether the answer is to be JSON.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        let registry = Registry::standard();
        let mut files = Vec::new();
        match self.paths.as_slice() {
            [] => scripts(&session.project, &mut files)?,
            paths => paths.iter().try_for_each(|path| scripts(path, &mut files))?,
        }
        files.dedup();
        let allowed: Vec<PathBuf> =
            self.allow_path.iter().chain(&session.settings.allow_path).cloned().collect();
        let checker = Checker::of_project(&registry, &session.project, &allowed, &files)
            .presets(session.settings.egress.names());
        let mut seen = BTreeSet::new();
        let mut checked: Vec<Checked> = files
            .iter()
            .map(|path| {
                seen.extend(path.canonicalize());
                let shown = path.strip_prefix(&session.folder).unwrap_or(path);
                let findings = match Source::read(shown) {
                    Ok(source) => checker.check(&source),
                    Err(error) => vec![Finding { code: "syntax", error }],
                };
                (shown.display().to_string(), findings)
            })
            .collect();
        let mut modules = VecDeque::from(checker.imported());
        while let Some((file, source)) = modules.pop_front() {
            if seen.insert(file) {
                checked.push((source.name.to_string(), checker.check(&source)));
                modules.extend(checker.imported());
            }
        }
        let count: usize = checked.iter().map(|(_, findings)| findings.len()).sum();
        let output = session.output;
        match self.format {
            Format::Text => output.data(&text(&checked, output.color_out)),
            Format::Json => output.json(&report(&checked)),
            Format::Github => output.data(&annotations(&checked)),
        }
        if self.format != Format::Json {
            output.note(summary(checked.len(), count));
        }
        Ok(if count == 0 { exit::OK } else { exit::SCRIPT })
    }
}

/// The scripts at a path: itself, or all in the folder.
fn scripts(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let missing = |error: std::io::Error| {
        CommandError::usage(format!("'{}' can't be read: {error}", path.display()))
    };
    if !std::fs::metadata(path).map_err(missing)?.is_dir() {
        let name = path.display().to_string();
        lang::language(&name).map_err(|error| CommandError::from_script(&error, exit::USAGE))?;
        files.push(path.to_owned());
        return Ok(());
    }
    let mut walk = ignore::WalkBuilder::new(path);
    walk.require_git(false).sort_by_file_path(Ord::cmp);
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            CommandError::usage(format!("'{}' can't be read: {error}", path.display()))
        })?;
        let name = entry.file_name().to_string_lossy();
        let script = lang::languages()
            .iter()
            .flat_map(|language| language.extensions())
            .any(|end| name.ends_with(&format!(".{end}")) && !name.ends_with(&format!(".d.{end}")));
        if script && entry.file_type().is_some_and(|kind| kind.is_file()) {
            files.push(entry.into_path());
        }
    }
    Ok(())
}

fn summary(files: usize, findings: usize) -> String {
    let files = if files == 1 { "1 script".into() } else { format!("{files} scripts") };
    match findings {
        0 => format!("{files}, nothing wrong"),
        1 => format!("{files}, 1 mistake"),
        more => format!("{files}, {more} mistakes"),
    }
}

fn text(checked: &[Checked], color: bool) -> String {
    let mut out = String::new();
    for finding in checked.iter().flat_map(|(_, findings)| findings) {
        let report = finding.error.render();
        let rest = report.strip_prefix("error:").unwrap_or(&report);
        let head = paint(color, Style::Bad, format!("error[{}]:", finding.code));
        out.push_str(&format!("{head}{rest}\n"));
    }
    out
}

/// The version of the JSON report; it grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

fn report(checked: &[Checked]) -> serde_json::Value {
    let findings = checked.iter().flat_map(|(file, findings)| {
        findings.iter().map(move |finding| {
            let error = &finding.error;
            let position = error.position.as_ref();
            json!({
                "file": position.map_or(file, |position| &position.file),
                "line": position.map(|position| position.line),
                "column": position.map(|position| position.column),
                "code": finding.code,
                "message": error.message,
                "hint": error.hint,
                "source": error.source_line,
            })
        })
    });
    json!({
        "v": SCHEMA,
        "files": checked.iter().map(|(file, _)| file).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}

/// Workflow commands, which GitHub shows beside the lines.
fn annotations(checked: &[Checked]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for (file, findings) in checked {
        for finding in findings {
            let error = &finding.error;
            let mut place = format!("file={}", property(file));
            if let Some(position) = &error.position {
                place = format!(
                    "file={},line={},col={}",
                    property(&position.file),
                    position.line,
                    position.column.max(1)
                );
            }
            let hint = error.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
            let message = data(&format!("{}{hint}", error.message));
            let title = property(finding.code);
            out.push_str(&format!("::error {place},title=sandscript {title}::{message}\n"));
        }
    }
    out
}
