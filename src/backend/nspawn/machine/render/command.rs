//! The command line of systemd-nspawn, for hosts on which systemd is not the first process.

use std::fmt;

use super::{Context, is_yes, quote};
use crate::backend::nspawn::machine::file::Machine;
use crate::backend::nspawn::machine::native::{Form, Settings};
use crate::backend::nspawn::machine::security::Seccomp;

/// A command with its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// What the environment has besides.
    pub env: Vec<(String, String)>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Settings that there is no option for, as `Section.Key`: they are in the `.nspawn` file only.
    pub unsaid: Vec<String>,
}

impl fmt::Display for CommandLine {
    /// As a person types it in a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quote::shell(value))?;
        }
        for (at, word) in self.argv.iter().enumerate() {
            let gap = if at == 0 { "" } else { " \\\n    " };
            write!(f, "{gap}{}", quote::shell(word))?;
        }
        Ok(())
    }
}

/// Makes it.
pub fn make(machine: &Machine, context: &Context, settings: &Settings) -> CommandLine {
    let mut line = CommandLine { env: environment(machine), ..CommandLine::default() };
    line.argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no"]
        .map(str::to_owned)
        .to_vec();
    line.argv.push(format!("--machine={}", machine.name));
    line.argv.push(format!("--directory={}", context.root.display()));
    let mut rest = Vec::new();
    for setting in settings.iter() {
        let Some(known) = setting.known() else {
            line.unsaid.push(format!("{}.{}", setting.section, setting.key));
            continue;
        };
        let option = known.option;
        match known.form {
            Form::Switch => {
                if setting.values.iter().any(|one| is_yes(one)) {
                    line.argv.push(format!("--{option}"));
                }
            }
            Form::Rest => rest.extend(setting.values.iter().cloned()),
            Form::Rlimit => {
                let values = setting.values.iter();
                line.argv.extend(values.map(|one| format!("--rlimit={option}={one}")));
            }
            Form::Commas => {
                let words: Vec<&str> = setting
                    .values
                    .iter()
                    .flat_map(|one| one.split([' ', ',']))
                    .filter(|word| !word.is_empty())
                    .collect();
                line.argv.push(format!("--{option}={}", words.join(",")));
            }
            Form::Bool | Form::One | Form::Many | Form::Words => {
                line.argv.extend(setting.values.iter().map(|one| format!("--{option}={one}")));
            }
        }
    }
    if rest.iter().any(|word| word.starts_with('-')) {
        line.argv.push("--".into());
    }
    line.argv.extend(rest);
    line
}

/// What systemd-nspawn reads from its environment.
pub fn environment(machine: &Machine) -> Vec<(String, String)> {
    let none = machine.security.seccomp == Seccomp::None;
    none.then(|| ("SYSTEMD_SECCOMP".to_owned(), "0".to_owned())).into_iter().collect()
}
