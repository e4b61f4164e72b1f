//! What can be done in a step.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::sandbox::{Cancel, Command, Error, Reader, Result, Stdin, WriteOptions};
use crate::transfer;

use super::super::output::exec;
use super::super::{CommandSecrets, Failure, OutputSink, RunContext};
use super::key::{StepInput, content, short};

/// How a host tree or file is copied into a base.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Which of its files.
    pub pack: transfer::PackOptions,
    /// `user` or `user:group` they become; root when not given.
    pub owner: Option<String>,
    /// The mode of a single file; that of the host's file when not given.
    pub mode: Option<u32>,
}

/// What is done in a step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Start,
    Run(Box<Command>, CommandSecrets),
    Copy { shown: String, source: PathBuf, target: String, options: CopyOptions },
    Write { target: String, content: Bytes, options: WriteOptions },
}

impl Step {
    /// As a person would say it, in one line.
    pub fn title(&self, source: &str) -> String {
        match self {
            Step::Start => format!("start from {source}"),
            Step::Run(command, _) => format!("run {}", short(&command.program.to_string())),
            Step::Copy { shown, target, .. } => format!("copy {shown} → {target}"),
            Step::Write { target, .. } => format!("write {target}"),
        }
    }

    /// Its part of the key. Reads what is copied.
    pub async fn input(&self) -> Result<StepInput> {
        Ok(match self {
            Step::Start => StepInput::Start,
            Step::Run(command, secrets) => StepInput::Run {
                argv: command.program.argv(),
                login: command.login,
                stdin: match (&secrets.stdin, &command.stdin) {
                    (Some(name), _) => Some(format!("secret {name}")),
                    (None, Stdin::Bytes(bytes)) => Some(content(bytes)),
                    _ => None,
                },
                secrets: secrets.env.clone(),
            },
            Step::Copy { source, target, options, .. } => {
                let (source, pack) = (source.clone(), options.pack.clone());
                let hash = tokio::task::spawn_blocking(move || transfer::hash(&source, &pack));
                let hash = hash.await.map_err(|error| Error::internal(error.to_string()))??;
                StepInput::Copy {
                    target: target.clone(),
                    content: hash.to_hex().to_string(),
                    owner: options.owner.clone(),
                    mode: options.mode,
                }
            }
            Step::Write { target, content: bytes, options } => StepInput::Write {
                target: target.clone(),
                content: content(bytes),
                owner: options.owner.clone(),
                mode: options.mode,
            },
        })
    }

    /// Does it in a running sandbox.
    pub async fn perform(
        &self,
        ctx: &RunContext,
        sandbox: &str,
        output: &OutputSink,
    ) -> Result<(), Failure> {
        let backend = ctx.backend.as_ref();
        match self {
            Step::Start => {}
            Step::Run(command, _) => {
                let done = exec(backend, sandbox, command, output, &ctx.cancel).await?;
                if !done.exit.ok() {
                    let command = short(&command.program.to_string());
                    return Err(Failure::Exit { command, exit: done.exit });
                }
            }
            Step::Copy { source, target, options, .. } => {
                copy(ctx, sandbox, source, target, options).await?;
            }
            Step::Write { target, content, options } => {
                let bytes: Reader = Box::new(std::io::Cursor::new(content.clone()));
                backend.write(sandbox, target, bytes, options, &ctx.cancel).await?;
            }
        }
        Ok(())
    }
}

async fn copy(
    ctx: &RunContext,
    sandbox: &str,
    source: &Path,
    target: &str,
    options: &CopyOptions,
) -> Result<()> {
    let unreadable =
        |error: std::io::Error| Error::invalid("path", format!("{}: {error}", source.display()));
    let meta = tokio::fs::metadata(source).await.map_err(unreadable)?;
    let cancel: &Cancel = &ctx.cancel;
    let mut write = WriteOptions { owner: options.owner.clone(), mode: None, parents: true };
    if meta.is_dir() {
        let tar = transfer::pack(source, &options.pack)?;
        return ctx.backend.unpack(sandbox, target, tar, &write, cancel).await;
    }
    use std::os::unix::fs::PermissionsExt;
    write.mode = options.mode.or(Some(meta.permissions().mode() & 0o7777));
    let file = tokio::fs::File::open(source).await.map_err(unreadable)?;
    ctx.backend.write(sandbox, target, Box::new(file), &write, cancel).await
}

/// The host path that a script means: relative to the project, and nowhere it may not read.
pub(super) fn host_path(ctx: &RunContext, path: &str) -> Result<PathBuf> {
    let full = ctx.project.join(path);
    let inside = transfer::confine(&full, &ctx.project);
    let Err(error) = inside else { return inside };
    let allowed = ctx.allowed.iter().find_map(|root| transfer::confine(&full, root).ok());
    allowed.ok_or(error)
}

/// The guest path that a file or tree is copied to: one that ends in `/` is a folder to put a file in.
pub(super) fn guest_path(source: &Path, target: &str) -> Result<String> {
    absolute(target)?;
    match (target.strip_suffix('/'), source.is_dir(), source.file_name()) {
        (Some(folder), false, Some(name)) => Ok(format!("{folder}/{}", name.to_string_lossy())),
        (Some(folder), _, _) if !folder.is_empty() => Ok(folder.to_string()),
        _ => Ok(target.to_string()),
    }
}

pub(super) fn absolute(target: &str) -> Result<()> {
    if target.starts_with('/') && !target.contains('\0') {
        return Ok(());
    }
    Err(Error::invalid_hint(
        "path",
        format!("'{}' is not an absolute path in the sandbox", target.escape_debug()),
        "start it with '/'",
    ))
}
