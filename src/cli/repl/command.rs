//! What is not the language's: lines that begin with a colon.

use super::table::wrap;
use crate::api::suggest;
use crate::cli::{CommandError, Result};

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name, without the colon.
    pub name: &'static str,
    /// Other names of it.
    pub also: &'static [&'static str],
    /// What stands behind it.
    pub takes: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// All of them.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "backend",
        also: &[],
        takes: "[NAME [HOST]]",
        doc: "Goes to another backend, with variables of its own; alone, says which one it is.",
    },
    Command {
        name: "help",
        also: &["h", "?"],
        takes: "[WORD]",
        doc: "Tells about a function, a type, a variable or a command; alone, lists what there is.",
    },
    Command {
        name: "lang",
        also: &[],
        takes: "[LANGUAGE]",
        doc: "Goes on in another language. Variables that hold sandboxes and other handles come along.",
    },
    Command {
        name: "load",
        also: &[],
        takes: "FILE",
        doc: "Runs a script as if it was typed: what it declares stays.",
    },
    Command { name: "quit", also: &["q", "exit"], takes: "", doc: "Leaves, as Ctrl-D does." },
    Command {
        name: "sandboxes",
        also: &[],
        takes: "",
        doc: "Lists the sandboxes, and which of them were made here.",
    },
    Command {
        name: "save",
        also: &["save!"],
        takes: "FILE",
        doc: "Writes what was entered and worked as a script; :save! replaces a file.",
    },
    Command {
        name: "time",
        also: &[],
        takes: "[ENTRY]",
        doc: "Runs an entry and says how long it took; alone, turns that on or off for all.",
    },
];

/// The command with this name.
pub fn find(name: &str) -> Result<&'static Command> {
    let is = |command: &&Command| command.name == name || command.also.contains(&name);
    COMMANDS.iter().find(is).ok_or_else(|| {
        let names = COMMANDS.iter().map(|command| command.name);
        CommandError::usage(format!("there is no command ':{name}'")).hint(
            match suggest::nearest(name, names) {
                Some(near) => format!("did you mean ':{near}'?"),
                None => ":help lists the commands".to_owned(),
            },
        )
    })
}

/// The name and the rest of a line that begins with a colon; none when it is the language's.
pub fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim().strip_prefix(':')?;
    // Lua has labels, `::name::`.
    if rest.starts_with(':') {
        return None;
    }
    Some(match rest.split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (rest, ""),
    })
}

impl Command {
    /// How it is written.
    pub fn usage(&self) -> String {
        format!(":{} {}", self.name, self.takes).trim_end().to_owned()
    }

    /// What it does, in lines of this width.
    pub fn help(&self, width: usize) -> String {
        format!("{}\n  {}\n", self.usage(), wrap(self.doc, width.saturating_sub(2), 2))
    }
}
