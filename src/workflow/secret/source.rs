//! Where a secret's value comes from.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Secret;
use crate::sandbox::{Error, Kind, Result};

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// What a program of the host prints, without the line break at its end.
    Command(Vec<String>),
    /// A variable of the host's environment.
    Env(String),
    /// A file of the host, without the line break at its end.
    File(PathBuf),
}

impl SecretSource {
    /// Reads `env:NAME`, `file:PATH` or `command:LINE`; the line is run by `sh -c`.
    pub fn parse(text: &str) -> Result<SecretSource> {
        let wrong = || {
            Error::invalid_hint(
                "secret",
                format!("'{text}' does not say where a secret comes from"),
                "write env:NAME, file:PATH or command:LINE",
            )
        };
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        match kind {
            _ if rest.is_empty() => Err(wrong()),
            "env" => Ok(SecretSource::Env(rest.into())),
            "file" => Ok(SecretSource::File(rest.into())),
            "command" => Ok(SecretSource::Command(["sh", "-c", rest].map(String::from).to_vec())),
            _ => Err(wrong()),
        }
    }

    /// Reads the value. `env` is how the host's environment is read. Blocks while a program runs.
    pub fn read(&self, name: &str, env: impl Fn(&str) -> Option<String>) -> Result<Secret> {
        let fail = |what: String, hint: &str| Error::invalid_hint("secret", what, hint);
        let value = match self {
            SecretSource::Env(variable) => match env(variable) {
                Some(value) => value.into_bytes(),
                None => {
                    return Err(fail(
                        format!("'{name}' comes from the environment, where {variable} is not set"),
                        &format!(
                            "set {variable}, or say where it comes from: --secret {name}=file:PATH, \
                             or [secrets] in sandscript.toml"
                        ),
                    ));
                }
            },
            SecretSource::File(path) => match std::fs::read(path) {
                Ok(bytes) => without_end(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::not_found_hint(
                        Kind::File,
                        path.display().to_string(),
                        format!("secret '{name}' comes from it"),
                    ));
                }
                Err(error) => {
                    let what = format!("'{name}' comes from {}: {error}", path.display());
                    return Err(fail(what, "let it be readable for you, and for nobody else"));
                }
            },
            SecretSource::Command(argv) => run(name, argv)?,
        };
        Secret::new(name, value)
    }
}

fn run(name: &str, argv: &[String]) -> Result<Vec<u8>> {
    let Some((program, args)) = argv.split_first() else {
        return Err(Error::invalid("secret", format!("the command of '{name}' is empty")));
    };
    let done = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            let what = format!("'{name}' comes from '{program}', which can't be run: {error}");
            Error::invalid("secret", what)
        })?;
    if !done.status.success() {
        return Err(Error::invalid_hint(
            "secret",
            format!("'{name}' comes from '{program}', which failed: {}", done.status),
            "what it says is above",
        ));
    }
    Ok(without_end(done.stdout))
}

/// Without the line break at the end.
fn without_end(mut bytes: Vec<u8>) -> Vec<u8> {
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn from_everywhere() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("token");
        std::fs::write(&file, "from-file\r\n").unwrap();
        let read = |source: &str, env: fn(&str) -> Option<String>| {
            SecretSource::parse(source).unwrap().read("T", env).map(|s| s.expose().to_vec())
        };
        assert_eq!(read(&format!("file:{}", file.display()), none).unwrap(), b"from-file");
        assert_eq!(read("command:printf 'from-%s\\n\\n' here", none).unwrap(), b"from-here\n");
        assert_eq!(read("env:X", |name| Some(format!("from-{name}\n"))).unwrap(), b"from-X\n");
        let error = read("env:X", none).unwrap_err();
        insta::assert_snapshot!(error, @"secret: 'T' comes from the environment, where X is not set");
        let error = read("env:X", |_| Some("ab ".into())).unwrap_err();
        insta::assert_snapshot!(error, @"secret: 'T' has less than 4 characters");
        let error = read("command:exit 3", none).unwrap_err();
        insta::assert_snapshot!(error, @"secret: 'T' comes from 'sh', which failed: exit status: 3");
        let error = read("file:/nonexistent/x", none).unwrap_err();
        insta::assert_snapshot!(error, @"file '/nonexistent/x' not found");
        for bad in ["x", "pass:x", "env:"] {
            assert!(SecretSource::parse(bad).is_err(), "{bad}");
        }
    }
}
