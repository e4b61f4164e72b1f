//! What can be done in a step.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::sandbox::{Cancel, Command, Error, Program, Reader, Result, Stdin, WriteOptions};
use crate::transfer;

use super::super::output::exec;
use super::super::{CommandSecrets, Failure, OutputSink, RunContext};
use super::fetch::Fetch;
use super::git::Git;
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

/// What a step that runs something is, besides its command.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What of the command must stay out of keys and records: of those only the names count, so
    /// that another value does not run the step again.
    pub secrets: CommandSecrets,
    /// Run it each time, and keep it out of every key.
    pub volatile: bool,
}

/// A command of a step, and what of it is secret.
#[derive(Clone, Debug)]
pub(super) struct StepCommand {
    pub command: Command,
    pub secrets: CommandSecrets,
}

/// What is done in a step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Start,
    Run(Box<StepCommand>),
    /// A file of the host that is run inside; the program of the command is its arguments.
    Script {
        shown: String,
        content: Bytes,
        command: Box<StepCommand>,
    },
    Copy {
        shown: String,
        source: PathBuf,
        target: String,
        options: CopyOptions,
    },
    Write {
        target: String,
        content: Bytes,
        options: WriteOptions,
    },
    Fetch {
        fetch: Fetch,
        target: String,
        options: WriteOptions,
    },
    Git {
        git: Git,
        target: String,
        owner: Option<String>,
    },
}

impl Step {
    /// As a person would say it, in one line.
    pub fn title(&self, source: &str) -> String {
        match self {
            Step::Start => format!("start from {source}"),
            Step::Run(run) => format!("run {}", short(&run.command.program.to_string())),
            Step::Script { shown, command, .. } => {
                let argv = command.command.program.argv();
                let words: Vec<String> = [shown.clone()].into_iter().chain(argv).collect();
                format!("script {}", short(&Program::Argv(words).to_string()))
            }
            Step::Fetch { fetch, target, .. } => format!("fetch {} → {target}", short(&fetch.url)),
            Step::Git { git, target, .. } => format!("git {} → {target}", short(&git.to_string())),
            Step::Copy { shown, target, .. } => format!("copy {shown} → {target}"),
            Step::Write { target, .. } => format!("write {target}"),
        }
    }

    /// Its part of the key. Reads what is copied.
    pub async fn input(&self) -> Result<StepInput> {
        Ok(match self {
            Step::Start => StepInput::Start,
            Step::Run(run) => StepInput::Run {
                argv: run.command.program.argv(),
                login: run.command.login,
                stdin: run.stdin(),
                secrets: run.secrets.env.clone(),
            },
            Step::Script { content: bytes, command, .. } => StepInput::Script {
                content: content(bytes),
                args: command.command.program.argv(),
                login: command.command.login,
                stdin: command.stdin(),
                secrets: command.secrets.env.clone(),
            },
            Step::Fetch { fetch, target, options } => StepInput::Fetch {
                target: target.clone(),
                sha256: fetch.sha256.clone(),
                owner: options.owner.clone(),
                mode: options.mode,
            },
            Step::Git { git, target, owner } => StepInput::Git {
                target: target.clone(),
                commit: git.commit.clone(),
                owner: owner.clone(),
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
            Step::Run(run) => run.perform(ctx, sandbox, &run.command, output).await?,
            Step::Script { content, command, shown } => {
                script(ctx, sandbox, content, shown, command, output).await?;
            }
            Step::Fetch { fetch, target, options } => {
                let path = fetch.get(ctx).await?;
                let file = tokio::fs::File::open(&path).await.map_err(|error| {
                    Error::internal(format!("{} can't be read: {error}", path.display()))
                })?;
                backend.write(sandbox, target, Box::new(file), options, &ctx.cancel).await?;
            }
            Step::Git { git, target, owner } => {
                let options = WriteOptions { owner: owner.clone(), mode: None, parents: true };
                let tar = git.archive(ctx).await?;
                backend.unpack(sandbox, target, tar, &options, &ctx.cancel).await?;
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

impl StepCommand {
    /// For the key: what its standard input is.
    fn stdin(&self) -> Option<String> {
        match (&self.secrets.stdin, &self.command.stdin) {
            (Some(name), _) => Some(format!("secret {name}")),
            (None, Stdin::Bytes(bytes)) => Some(content(bytes)),
            _ => None,
        }
    }

    async fn perform(
        &self,
        ctx: &RunContext,
        sandbox: &str,
        command: &Command,
        output: &OutputSink,
    ) -> Result<(), Failure> {
        let done = exec(ctx.backend.as_ref(), sandbox, command, output, &ctx.cancel).await?;
        if !done.exit.ok() {
            let command = short(&command.program.to_string());
            return Err(Failure::Exit { command, exit: done.exit });
        }
        Ok(())
    }
}

/// Puts a script into the sandbox, runs it, and takes it away again.
async fn script(
    ctx: &RunContext,
    sandbox: &str,
    content: &Bytes,
    shown: &str,
    step: &StepCommand,
    output: &OutputSink,
) -> Result<(), Failure> {
    let backend = ctx.backend.as_ref();
    let name = shown.rsplit('/').next().unwrap_or(shown);
    let path = format!("/tmp/.sandscript-{}-{name}", &super::key::content(content)[..8]);
    let options = WriteOptions { mode: Some(0o755), owner: None, parents: true };
    let bytes: Reader = Box::new(std::io::Cursor::new(content.clone()));
    backend.write(sandbox, &path, bytes, &options, &ctx.cancel).await?;
    let shell = (!content.starts_with(b"#!")).then(|| "/bin/sh".to_owned());
    let argv = shell.into_iter().chain([path.clone()]).chain(step.command.program.argv());
    let command = Command { program: Program::Argv(argv.collect()), ..step.command.clone() };
    let done = step.perform(ctx, sandbox, &command, output).await;
    let done = done.map_err(|failure| match failure {
        Failure::Exit { exit, .. } => Failure::Exit { command: shown.to_owned(), exit },
        other => other,
    });
    done?;
    match backend.remove(sandbox, &path, false, &ctx.cancel).await {
        // It may delete itself.
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
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
