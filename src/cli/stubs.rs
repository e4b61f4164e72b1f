//! `sandscript stubs`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Result;
use super::editor::{self, Change, Done};
use super::session::Session;

const EXAMPLES: &str = "\
Examples:
  sandscript stubs                      into the folder stubs of the project
  sandscript stubs --out .editor        into another

The Lua language server (LuaLS) reads sandscript.d.lua and std/*.d.lua by .luarc.json, Rhai's reads the files
that end in .d.rhai by Rhai.toml. Rhai's server looks for std/… from the folder of a script: run it again
when there are scripts in Rhai in another folder, and after an update of sandscript. What you wrote
yourself is never overwritten.";

/// Write what editors need to know every script function
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Stubs {
    /// Where to write the stubs [default: stubs, in the project]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Stubs {
    pub fn call(self, session: &Session<'_>) -> Result {
        let out = match self.out {
            Some(out) => session.folder.join(out),
            None => session.project.join("stubs"),
        };
        tell(session, &session.folder, &editor::set_up(&session.project, &out)?);
        Ok(0)
    }
}

/// Says what became of files, by their names from `folder`.
pub fn tell(session: &Session<'_>, folder: &Path, done: &[Done]) {
    for (path, change) in done {
        let shown = path.strip_prefix(folder).unwrap_or(path).display();
        match change {
            Change::Wrote => session.output.note(format!("wrote {shown}")),
            Change::Updated => session.output.note(format!("updated {shown}")),
            Change::Same => session.output.note(format!("{shown} is up to date")),
            Change::Left(hint) => {
                session.output.warn(format!("{shown} is your own and was left as it is; {hint}"));
            }
        }
    }
}
