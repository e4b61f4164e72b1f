//! What steps there are.

use bytes::Bytes;

use crate::sandbox::{
    CacheMount, Capability, Command, Error, Kind, Program, Result, Spec, Stdin, WriteOptions,
};

use super::super::super::{CommandSecrets, Failure};
use super::super::CopyOptions;
use super::super::fetch::Fetch;
use super::super::git::Git;
use super::super::step::{self, RunOptions, Step, StepCommand};
use super::{BaseBuilder, Mark, Site, Volatile, clean};

impl BaseBuilder {
    /// From here on, commands have this cache. It is in no key and in no snapshot: a step must come
    /// out the same when it is empty.
    pub async fn cache(&mut self, cache: CacheMount) -> Result<(), Failure> {
        self.usable()?;
        let mut caches = self.options.caches.clone();
        caches.push(cache);
        Spec { caches: caches.clone(), ..Spec::new("probe") }.check()?;
        self.ctx.backend.capabilities().require(Capability::Caches)?;
        self.options.caches = caches;
        // The sandbox that is built in has not got it: what follows is done in a clone of its last step.
        if let Site::Building(sandbox) = &self.site {
            let sandbox = sandbox.clone();
            self.site = Site::Replaying;
            clean(&self.ctx, &sandbox).await;
        }
        Ok(())
    }

    /// A step: runs a command, which must succeed. Its timeout and output cap are in no key.
    pub async fn run(&mut self, command: Command) -> Result<(), Failure> {
        self.run_with(command, RunOptions::default()).await
    }

    /// A step: runs a command that has secrets or is volatile.
    pub async fn run_with(&mut self, command: Command, options: RunOptions) -> Result<(), Failure> {
        let RunOptions { secrets, volatile } = options;
        let command = self.command(command, secrets)?;
        command.command.check()?;
        self.step_or_later(Step::Run(command), volatile).await
    }

    /// A step: runs a script of the host inside, with these arguments. `like` says how: its
    /// environment, user and so on; its program does not count.
    pub async fn script(
        &mut self,
        source: &str,
        args: Vec<String>,
        like: Command,
        options: RunOptions,
    ) -> Result<(), Failure> {
        let path = step::host_path(&self.ctx, source)?;
        let content = tokio::fs::read(&path).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let hint = format!("host paths are relative to {}", self.ctx.project.display());
                Error::not_found_hint(Kind::File, path.display().to_string(), hint)
            }
            _ => Error::invalid("path", format!("{}: {error}", path.display())),
        })?;
        let RunOptions { secrets, volatile } = options;
        let words = Program::Argv([vec!["script".into()], args.clone()].concat());
        Command { program: words, ..like.clone() }.check()?;
        let command = self.command(Command { program: Program::Argv(args), ..like }, secrets)?;
        let shown = source.to_owned();
        self.step_or_later(Step::Script { shown, content: content.into(), command }, volatile).await
    }

    /// A step: a file from a URL, fetched by the host and known by its digest, so that it needs no
    /// network inside. `target` is its path in the sandbox.
    pub async fn fetch(
        &mut self,
        url: &str,
        sha256: &str,
        target: &str,
        mut options: WriteOptions,
    ) -> Result<(), Failure> {
        step::absolute(target)?;
        let fetch = Fetch::new(&self.ctx, url, sha256)?;
        let target = match target.strip_suffix('/') {
            Some(folder) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                let name = path.rsplit('/').next().unwrap_or_default();
                if name.is_empty() {
                    return Err(Error::invalid_hint(
                        "path",
                        format!("{url} ends in no name that the file could have"),
                        "give the whole path of the file",
                    )
                    .into());
                }
                format!("{folder}/{name}")
            }
            None => target.to_owned(),
        };
        options.parents = true;
        self.step(Step::Fetch { fetch, target, options }).await
    }

    /// A step: the tree of a commit of a git repository, without its history, fetched by the host
    /// and known by the commit, so that it needs no network inside. `wanted` is a branch, a tag, or
    /// a commit by all its digits.
    pub async fn git(
        &mut self,
        url: &str,
        wanted: &str,
        target: &str,
        owner: Option<String>,
    ) -> Result<(), Failure> {
        step::absolute(target)?;
        let git = Git::resolve(&self.ctx, url, wanted).await?;
        self.step(Step::Git { git, target: target.to_owned(), owner }).await
    }

    /// A snapshot point: what was done so far gets a name by which the finished base gives it.
    pub async fn snapshot(&mut self, name: &str) -> Result<(), Failure> {
        self.usable()?;
        if name.is_empty() || self.points.contains_key(name) {
            let message = match name {
                "" => "a snapshot point needs a name".to_owned(),
                name => format!("there is a snapshot point '{name}' already"),
            };
            return Err(Error::invalid("name", message).into());
        }
        if self.steps.is_empty() {
            self.step(Step::Start).await?;
        }
        let mark = Mark { step: self.steps.len() - 1, env: self.environment() };
        self.points.insert(name.to_owned(), mark);
        Ok(())
    }

    /// A step: copies a host file or tree. `source` is relative to the project; `target` is the
    /// file's or the tree's path in the sandbox, or a folder for a file when it ends in `/`.
    pub async fn copy(
        &mut self,
        source: &str,
        target: &str,
        options: CopyOptions,
    ) -> Result<(), Failure> {
        let path = step::host_path(&self.ctx, source)?;
        let target = step::guest_path(&path, target)?;
        self.step(Step::Copy { shown: source.into(), source: path, target, options }).await
    }

    /// A step: writes a file; missing folders are made.
    pub async fn write(
        &mut self,
        target: &str,
        content: impl Into<Bytes>,
        mut options: WriteOptions,
    ) -> Result<(), Failure> {
        step::absolute(target)?;
        options.parents = true;
        self.step(Step::Write { target: target.into(), content: content.into(), options }).await
    }

    /// A step's command, with what holds for all that follow.
    fn command(
        &self,
        mut command: Command,
        secrets: CommandSecrets,
    ) -> Result<Box<StepCommand>, Failure> {
        let mut env = self.environment();
        env.append(&mut command.env);
        command.env = env;
        command.user = command.user.or_else(|| self.options.user.clone());
        command.cwd = command.cwd.or_else(|| self.options.cwd.clone());
        (command.tty, command.detached) = (None, false);
        if command.stdin == Stdin::Piped {
            return Err(Error::invalid("stdin", "a step's input must be known before").into());
        }
        Ok(Box::new(StepCommand { command, secrets }))
    }

    async fn step_or_later(&mut self, step: Step, volatile: bool) -> Result<(), Failure> {
        if !volatile {
            return self.step(step).await;
        }
        self.usable()?;
        self.declared += 1;
        let title = step.title(&self.root.shown);
        self.pending.push(Volatile { step, number: self.declared, title });
        Ok(())
    }
}
