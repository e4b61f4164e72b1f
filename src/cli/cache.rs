//! `sandscript cache`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::FormatArg;
use super::session::Session;
use super::{CommandError, Result, view};
use crate::config::suggest;
use crate::sandbox::{CacheInfo, Error, Kind, format_size};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript cache list
  sandscript cache rm pip --yes
  sandscript cache rm --all --yes    the next runs fill them again";

/// Look at the caches of bases and cells, and delete them
///
/// A cache is a folder that steps and cells share from run to run: b.cache(…) and the option caches
/// make it. It is in no snapshot and nothing depends on it, so that it may go at any time.
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the caches
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Delete caches that no sandbox has
    Rm {
        /// Their names
        #[arg(required_unless_present = "all")]
        cache: Vec<String>,
        /// All that no sandbox has
        #[arg(long, conflicts_with = "cache")]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Cache {
    pub(super) fn json(&self) -> bool {
        matches!(&self.verb, Verb::List { format } if format.json())
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        match self.verb {
            Verb::List { format } => list(session, format.json()),
            Verb::Rm { cache, all, yes } => rm(session, &cache, all, yes),
        }
    }
}

fn list(session: &Session<'_>, json: bool) -> Result {
    let all =
        session.work(false, |work| async move { Ok(work.backend.caches(&work.cancel).await?) })?;
    let output = session.output;
    if json {
        let entry = |cache: &CacheInfo| {
            json!({
                "name": cache.name,
                "size": cache.size,
                "used": view::timestamp(cache.used),
                "busy": cache.busy,
                "by": cache.by,
            })
        };
        output.json(&all.iter().map(entry).collect::<Value>());
        return Ok(exit::OK);
    }
    if all.is_empty() {
        output.note("there are no caches");
        return Ok(exit::OK);
    }
    let row = |cache: &CacheInfo| {
        let by = match (&cache.by, cache.busy) {
            (Some(by), true) => by.clone(),
            (None, true) => "in use".into(),
            (_, false) => String::new(),
        };
        vec![cache.name.clone(), format_size(cache.size), view::age(cache.used), by]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output.table(&["CACHE", "SIZE", "USED", "BY"], &rows);
    Ok(exit::OK)
}

fn rm(session: &Session<'_>, caches: &[String], all: bool, yes: bool) -> Result {
    let output = session.output;
    session.work(false, |work| async move {
        let known = work.backend.caches(&work.cancel).await?;
        let names: Vec<&str> = known.iter().map(|cache| cache.name.as_str()).collect();
        if let Some(missing) = caches.iter().find(|cache| !names.contains(&cache.as_str())) {
            let error = CommandError::usage(format!("there is no cache '{missing}'"));
            let error = CommandError { word: "not_found", ..error }.code(exit::FAILED);
            return Err(match names.as_slice() {
                [] => error.hint("there are none"),
                names => error.hint(suggest(missing, names)),
            });
        }
        let free = |cache: &&CacheInfo| !cache.busy;
        let wanted: Vec<&str> = match all {
            true => known.iter().filter(free).map(|cache| cache.name.as_str()).collect(),
            false => caches.iter().map(String::as_str).collect(),
        };
        if wanted.is_empty() {
            output.note("there is nothing to delete");
            return Ok(exit::OK);
        }
        let shown = wanted.join(", ");
        if !yes {
            if !output.can_ask {
                return Err(CommandError::usage(format!("not asked whether to delete {shown}"))
                    .hint("this is no terminal; add --yes to delete without a question"));
            }
            if !output.ask(&format!("delete {shown}?")) {
                output.note("nothing is deleted");
                return Ok(exit::FAILED);
            }
        }
        for name in wanted {
            match work.backend.delete_cache(name, &work.cancel).await {
                Ok(()) => output.note(format!("cache '{name}' is deleted")),
                Err(Error::NotFound { kind: Kind::Cache, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(exit::OK)
    })
}
