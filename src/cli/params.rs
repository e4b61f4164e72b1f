//! What `run` says and asks about the parameters of a script.

use std::path::Path;

use super::{CommandError, Result};
use crate::api::{Value, parse_param, suggest};
use crate::lang::{Declared, Params, Source, about};
use crate::workflow::exit;

/// Whether what was given with `--set` fits what the script declares.
pub fn check(params: &Params, given: &[(String, String)]) -> Result<()> {
    for (name, text) in given {
        let Some(param) = params.get(name) else {
            if params.open {
                continue;
            }
            let known = params.all.iter().map(|param| param.name.as_str());
            let hint =
                suggest::hint(name, known).unwrap_or_else(|| "the script has no parameters".into());
            return Err(CommandError::usage(format!(
                "the script has no parameter '{name}' (--set {name}=…)"
            ))
            .hint(hint));
        };
        if let Some(default) = &param.default {
            parse_param(name, text, default)
                .map_err(|error| CommandError::from_script(&error, exit::USAGE))?;
        }
    }
    Ok(())
}

/// What `run SCRIPT --help` prints.
pub fn help(script: &Path, source: &Source, params: &Params) -> String {
    let mut out = String::new();
    let about = about(source);
    if !about.is_empty() {
        out.push_str(&format!("{about}\n\n"));
    }
    let set = if params.all.is_empty() && !params.open { "" } else { " [--set NAME=VALUE]…" };
    let script = script.display();
    out.push_str(&format!("Usage: sandscript run {script}{set} [OPTIONS] [-- ARGS]…\n"));
    if !params.all.is_empty() {
        out.push_str("\nParameters:\n");
        let width = params.all.iter().map(|param| param.name.chars().count()).max().unwrap_or(0);
        for param in &params.all {
            let line = format!("  {:width$}  {}", param.name, sentence(param));
            out.push_str(&format!("{}\n", line.trim_end()));
        }
    }
    if params.open {
        out.push_str("\nThere may be more: not all of them can be told without running it.\n");
    }
    out.push_str("\nThe options are those of every script: sandscript run --help\n");
    out
}

fn sentence(param: &Declared) -> String {
    let kind = match &param.default {
        Some(Value::Bool(_)) => Some("true or false"),
        Some(Value::Int(_)) => Some("a whole number"),
        Some(Value::Float(_)) => Some("a number"),
        Some(Value::List(_)) => Some("a list: a,b,c"),
        _ => None,
    };
    let default = match &param.written {
        Some(written) => format!("default: {written}"),
        None => "must be given".into(),
    };
    let marks: Vec<String> = kind.map(str::to_owned).into_iter().chain([default]).collect();
    let doc = param.doc.as_deref().map(|doc| format!("{doc} ")).unwrap_or_default();
    format!("{doc}[{}]", marks.join("; "))
}
