//! A command to run inside a sandbox.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use bytes::Bytes;

/// What is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Delivered exactly, without a shell. Never empty.
    Argv(Vec<String>),
    /// Run by `sh -c`.
    Shell(String),
}

impl Program {
    /// The argument vector that is executed.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Program::Argv(argv) => argv.clone(),
            Program::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        }
    }
}

impl std::fmt::Display for Program {
    /// The command as a person would type it, for messages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Program::Shell(line) => f.write_str(line),
            Program::Argv(argv) => {
                for (index, word) in argv.iter().enumerate() {
                    let plain = !word.is_empty()
                        && word.chars().all(|c| c.is_alphanumeric() || "-_./=:,+@%".contains(c));
                    if index > 0 {
                        f.write_str(" ")?;
                    }
                    if plain {
                        f.write_str(word)?;
                    } else {
                        write!(f, "'{}'", word.replace('\'', "'\\''"))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Where the command's standard input comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file.
    Bytes(Bytes),
    /// The caller writes to [`crate::sandbox::Process::stdin`].
    Piped,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// A command, with everything that decides how it runs.
///
/// The environment is clean: `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG=C.UTF-8`,
/// `container=sandscript` (and `TERM` with a terminal), then the sandbox's own `env`, then this
/// command's. Nothing of the host's environment gets in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home when not given here or in the spec.
    pub cwd: Option<String>,
    /// User name or number, with optional `:group`; the spec's user, else root.
    pub user: Option<String>,
    /// Source `/etc/profile` and the user's profile first.
    pub login: bool,
    /// Attach a terminal: stdout and stderr are then one stream.
    pub tty: Option<WindowSize>,
    /// Standard input. It is not part of what is written down of a command.
    #[serde(skip)]
    pub stdin: Stdin,
    /// Kill the whole process tree after this long.
    pub timeout: Option<Duration>,
    /// Keep at most this many bytes of each output stream when the output is collected.
    pub max_output: usize,
    /// The process outlives its handle: dropping the [`crate::sandbox::Process`] does not kill it.
    pub detached: bool,
}

impl Command {
    /// The cap on collected output when nothing else is said: 64 MiB a stream.
    pub const DEFAULT_MAX_OUTPUT: usize = 64 << 20;

    /// A command from a program.
    pub fn new(program: Program) -> Self {
        Command {
            program,
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            login: false,
            tty: None,
            stdin: Stdin::Null,
            timeout: None,
            max_output: Self::DEFAULT_MAX_OUTPUT,
            detached: false,
        }
    }

    /// A command from an argument vector, run without a shell.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// A command line, run by `sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Program::Shell(line.into()))
    }

    /// Refuses what no backend can deliver: an empty argv, NUL bytes, bad environment names, a relative cwd.
    pub fn check(&self) -> crate::sandbox::Result<()> {
        use crate::sandbox::Error;
        if let Program::Argv(argv) = &self.program
            && argv.first().is_none_or(|program| program.is_empty())
        {
            return Err(Error::invalid("command", "there is no program in it"));
        }
        let nul = |text: &String| text.contains('\0');
        if self.program.argv().iter().any(nul) {
            return Err(Error::invalid("command", "an argument holds a NUL byte"));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') || nul(name) || nul(value) {
                return Err(Error::invalid(
                    "env",
                    format!("'{name}' can't be an environment variable"),
                ));
            }
        }
        if let Some(cwd) = &self.cwd
            && (!cwd.starts_with('/') || nul(cwd))
        {
            return Err(Error::invalid_hint(
                "cwd",
                format!("'{cwd}' is not an absolute path"),
                "start it with '/'",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_real_shell_reads_back_what_display_wrote(
            argv in proptest::collection::vec("[^\0]{0,12}|[-a-z ='\"$`*?\\\\\n;|&<>()#~!]{0,12}", 1..5)
        ) {
            let words = Program::Argv(argv.clone()).to_string();
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf '%s\\0' {words}")])
                .output()
                .unwrap();
            prop_assert!(output.status.success(), "{:?}", output);
            let mut expected = argv.join("\0").into_bytes();
            expected.push(0);
            prop_assert_eq!(output.stdout, expected);
        }
    }

    #[test]
    fn plain_words_stay_bare() {
        let argv = ["make", "-j4", "CC=gcc", "", "a b", "it's"].map(String::from).to_vec();
        assert_eq!(Program::Argv(argv).to_string(), "make -j4 CC=gcc '' 'a b' 'it'\\''s'");
    }
}
