//! The fake shell: runs what [`super::parse`] understood.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use super::builtin;
use super::machine::{Machine, Shared};
use super::parse::{Link, Part, Redirect, Simple, Word, parse};
use super::tree::{Data, Errno, Node, Parts, Tree, join};
use super::users::User;
use crate::sandbox::Cancel;

/// Why a program does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Killed(i32),
}

type Stream = Arc<tokio::sync::Mutex<DuplexStream>>;
pub(super) type Step<'a> = Pin<Box<dyn Future<Output = Result<i32, End>> + Send + 'a>>;

#[derive(Clone)]
pub(super) enum Source {
    Null,
    Bytes(Arc<Mutex<Bytes>>),
    Stream(Stream),
}

impl Source {
    pub fn bytes(bytes: Bytes) -> Self {
        Source::Bytes(Arc::new(Mutex::new(bytes)))
    }

    /// Some bytes; none at the end.
    pub async fn next(&self) -> Bytes {
        match self {
            Source::Null => Bytes::new(),
            Source::Bytes(bytes) => {
                std::mem::take(&mut *bytes.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Source::Stream(stream) => {
                let mut buffer = vec![0; 16 << 10];
                let count = stream.lock().await.read(&mut buffer).await.unwrap_or(0);
                buffer.truncate(count);
                buffer.into()
            }
        }
    }
}

#[derive(Clone)]
pub(super) enum Sink {
    File(String),
    Stream(Stream),
}

/// What a program reads and writes.
#[derive(Clone)]
pub(super) struct Io {
    pub stdin: Source,
    pub out: Sink,
    pub err: Sink,
}

/// What holds a process still.
#[derive(Clone)]
pub(super) struct Gates {
    pub frozen: watch::Receiver<bool>,
    pub stopped: watch::Receiver<bool>,
}

impl Gates {
    /// Returns when the process may go on.
    pub async fn pass(&mut self) {
        for gate in [&mut self.frozen, &mut self.stopped] {
            // A gate whose other end is gone belongs to a process that is being killed.
            if gate.wait_for(|shut| !shut).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A running program: where it runs, as whom, with what.
#[derive(Clone)]
pub(super) struct Session {
    pub shared: Arc<Shared>,
    pub machine: String,
    pub serial: u64,
    pub user: User,
    pub cwd: String,
    pub env: BTreeMap<String, String>,
    pub vars: BTreeMap<String, String>,
    pub args: Vec<String>,
    pub pid: u32,
    pub background: Option<u32>,
    pub status: i32,
    /// Output could not be written.
    pub broken: Option<Errno>,
    pub io: Io,
    pub tty: bool,
    pub gates: Gates,
    pub group: Cancel,
}

/// What a command's name leads to.
pub(super) enum Found {
    Builtin(String),
    Script(String),
}

impl Session {
    /// Works on the machine; a process whose machine is gone is as good as killed.
    pub fn machine<T>(&self, work: impl FnOnce(&mut Machine) -> T) -> Result<T, End> {
        self.shared.machine(&self.machine, self.serial, work).ok_or(End::Killed(9))
    }

    pub fn tree(&self) -> Result<Tree, End> {
        self.machine(|machine| machine.tree.clone())
    }

    /// Whether the user may do `want` with the node at `parts`, and get there.
    pub fn may(&self, tree: &Tree, parts: &Parts, want: u32) -> Result<(), Errno> {
        let User { uid, gid, .. } = self.user;
        let way = (0..parts.len()).filter_map(|end| tree.get(&parts[..end]));
        let there = way.into_iter().all(|node| node.allows(uid, gid, 1));
        let allowed = tree.get(parts).is_none_or(|node| node.allows(uid, gid, want));
        if there && allowed { Ok(()) } else { Err(Errno::Access) }
    }

    /// Whether the user may put or take an entry at `parts`.
    pub fn may_enter(&self, tree: &Tree, parts: &Parts) -> Result<(), Errno> {
        match parts.split_last() {
            Some((_, parent)) => self.may(tree, &parent.to_vec(), 2),
            None => Err(Errno::Access),
        }
    }

    pub fn read_file(&self, path: &str) -> Result<Result<Bytes, Errno>, End> {
        let tree = self.tree()?;
        Ok(tree.find(&self.cwd, path, true).and_then(|(parts, node)| {
            self.may(&tree, &parts, 4)?;
            match &node.data {
                Data::File(bytes) => Ok(bytes.clone()),
                Data::Null => Ok(Bytes::new()),
                _ => Err(Errno::IsDir),
            }
        }))
    }

    /// Writes `bytes` into the file at `path`, or behind what it holds.
    pub fn write_file(
        &self,
        path: &str,
        bytes: &[u8],
        append: bool,
    ) -> Result<Result<(), Errno>, End> {
        let now = self.shared.clock.now();
        self.machine(|machine| {
            let parts = machine.tree.resolve(&self.cwd, path, true)?;
            match machine.tree.get(&parts) {
                Some(_) => self.may(&machine.tree, &parts, 2)?,
                None => self.may_enter(&machine.tree, &parts)?,
            }
            machine.change(|tree| {
                let Some(node) = tree.get_mut(&parts) else {
                    let mut node = Node::file(bytes.to_vec(), 0o644, now);
                    (node.uid, node.gid) = (self.user.uid, self.user.gid);
                    return tree.put(&parts, node);
                };
                match &mut node.data {
                    Data::Null => {}
                    Data::File(old) if append => *old = [old.as_ref(), bytes].concat().into(),
                    Data::File(old) => *old = bytes.to_vec().into(),
                    _ => return Err(Errno::IsDir),
                }
                node.modified = now;
                Ok(())
            })
        })
    }

    async fn write(&mut self, sink: &Sink, bytes: &[u8]) -> Result<(), End> {
        match sink {
            Sink::File(path) => {
                if let Err(why) = self.write_file(path, bytes, true)? {
                    self.broken = Some(why);
                }
                Ok(())
            }
            Sink::Stream(stream) => {
                stream.lock().await.write_all(bytes).await.map_err(|_| End::Killed(13))
            }
        }
    }

    pub async fn out(&mut self, bytes: &[u8]) -> Result<(), End> {
        let sink = self.io.out.clone();
        self.write(&sink, bytes).await
    }

    /// Complains and returns `code`.
    pub async fn fail(&mut self, code: i32, text: impl Into<String>) -> Result<i32, End> {
        let sink = self.io.err.clone();
        self.write(&sink, format!("{}\n", text.into()).as_bytes()).await?;
        Ok(code)
    }

    /// What `name` runs, by path or along `PATH`.
    pub fn locate(&self, name: &str) -> Result<Result<Found, Errno>, End> {
        let tree = self.tree()?;
        let path = self.env.get("PATH").cloned().unwrap_or_default();
        let places: Vec<String> = if name.contains('/') {
            vec![name.to_owned()]
        } else {
            path.split(':').map(|dir| format!("{dir}/{name}")).collect()
        };
        let mut why = Errno::NoEntry;
        for place in places {
            let Ok((parts, node)) = tree.find(&self.cwd, &place, true) else { continue };
            let Data::File(content) = &node.data else {
                why = Errno::Access;
                continue;
            };
            if self.may(&tree, &parts, 1).is_err() {
                why = Errno::Access;
                continue;
            }
            if content == builtin::MARK {
                let file = place.rsplit('/').next().unwrap_or_default();
                return Ok(Ok(Found::Builtin(file.to_owned())));
            }
            return Ok(match content.strip_prefix(b"#!/bin/sh\n") {
                Some(script) => Ok(Found::Script(String::from_utf8_lossy(script).into_owned())),
                None => Err(Errno::Access),
            });
        }
        Ok(Err(why))
    }

    /// Runs a program found by [`Session::locate`].
    pub fn program<'a>(&'a mut self, found: Found, argv: &'a [String]) -> Step<'a> {
        Box::pin(async move {
            match found {
                Found::Builtin(name) => {
                    let code = builtin::run(self, &name, &argv[1..]).await?;
                    match self.broken.take() {
                        Some(why) => {
                            self.fail(1, format!("{name}: write error: {}", why.text())).await
                        }
                        None => Ok(code),
                    }
                }
                Found::Script(script) => {
                    let mut shell = self.clone();
                    shell.args = argv.to_vec();
                    shell.top(&script).await
                }
            }
        })
    }

    /// Runs a script to its end; `exit` ends it, not the caller.
    pub async fn top(&mut self, script: &str) -> Result<i32, End> {
        match self.script(script).await {
            Err(End::Exit(code)) => Ok(code),
            other => other,
        }
    }

    pub fn script<'a>(&'a mut self, script: &'a str) -> Step<'a> {
        Box::pin(async move {
            let lists = match parse(script) {
                Ok(lists) => lists,
                Err(what) => {
                    let text = format!("sh: the fake shell does not know {what}");
                    return self.fail(2, text).await;
                }
            };
            for list in lists {
                if list.background {
                    let child = self.clone();
                    self.background = super::process::fork(child, list.commands);
                    self.status = 0;
                } else {
                    self.chain(&list.commands).await?;
                }
            }
            Ok(self.status)
        })
    }

    /// Commands joined by `&&` and `||`.
    pub async fn chain(&mut self, commands: &[(Link, Simple)]) -> Result<i32, End> {
        for (link, simple) in commands {
            let go = match link {
                Link::First => true,
                Link::And => self.status == 0,
                Link::Or => self.status != 0,
            };
            if go {
                self.gates.pass().await;
                self.status = self.simple(simple).await?;
            }
        }
        Ok(self.status)
    }

    async fn simple(&mut self, simple: &Simple) -> Result<i32, End> {
        let words: Vec<String> = simple.words.iter().flat_map(|word| self.expand(word)).collect();
        let assigned: Vec<_> = simple
            .assignments
            .iter()
            .map(|(name, word)| (name.clone(), self.expand(word).join(" ")))
            .collect();
        let before = self.io.clone();
        if let Some(code) = self.redirect(&simple.redirects).await? {
            self.io = before;
            return Ok(code);
        }
        let Some(name) = words.first() else {
            for (name, value) in assigned {
                self.assign(name, value);
            }
            self.io = before;
            return Ok(0);
        };
        let done = match name.as_str() {
            ":" | "." | "cd" | "exit" | "export" | "unset" => {
                builtin::special(self, name, &words[1..]).await
            }
            _ => {
                let mut child = self.clone();
                child.env.extend(assigned);
                match child.locate(name)? {
                    Ok(found) => child.program(found, &words).await,
                    Err(Errno::NoEntry) => child.fail(127, format!("sh: {name}: not found")).await,
                    Err(why) => child.fail(126, format!("sh: {name}: {}", why.text())).await,
                }
            }
        };
        self.io = before;
        done
    }

    fn assign(&mut self, name: String, value: String) {
        match self.env.get_mut(&name) {
            Some(exported) => *exported = value,
            None => drop(self.vars.insert(name, value)),
        }
    }

    async fn redirect(&mut self, redirects: &[Redirect]) -> Result<Option<i32>, End> {
        for redirect in redirects {
            let path = match redirect {
                Redirect::Input(word) | Redirect::Output { to: word, .. } => {
                    self.expand(word).join(" ")
                }
                Redirect::Same { .. } => String::new(),
            };
            let done = match redirect {
                Redirect::Same { stream, as_stream } => {
                    let to = if *as_stream == 1 { &self.io.out } else { &self.io.err }.clone();
                    *self.stream(*stream) = to;
                    Ok(())
                }
                Redirect::Input(_) => self.read_file(&path)?.map(|bytes| {
                    self.io.stdin = Source::bytes(bytes);
                }),
                Redirect::Output { stream, append, .. } => {
                    self.write_file(&path, b"", *append)?.map(|()| {
                        let full = self.absolute(&path);
                        *self.stream(*stream) = Sink::File(full);
                    })
                }
            };
            if let Err(why) = done {
                return self.fail(2, format!("sh: {path}: {}", why.text())).await.map(Some);
            }
        }
        Ok(None)
    }

    fn stream(&mut self, number: u8) -> &mut Sink {
        if number == 2 { &mut self.io.err } else { &mut self.io.out }
    }

    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.cwd) }
    }

    /// Changes the directory.
    pub fn enter(&mut self, path: &str) -> Result<Result<(), Errno>, End> {
        let tree = self.tree()?;
        Ok(tree.find(&self.cwd, path, true).and_then(|(parts, node)| {
            if !node.is_dir() {
                return Err(Errno::NotDir);
            }
            self.may(&tree, &parts, 1)?;
            self.cwd = join(&parts);
            Ok(())
        }))
    }

    fn expand(&self, word: &Word) -> Vec<String> {
        if let [Part::Quotes, Part::Var(name, true)] = word.as_slice()
            && name == "@"
        {
            return self.args.iter().skip(1).cloned().collect();
        }
        let mut words = Vec::new();
        let mut current: Option<String> = None;
        for part in word {
            match part {
                Part::Quotes => current = Some(current.unwrap_or_default()),
                Part::Text(text) => current.get_or_insert_default().push_str(text),
                Part::Var(name, true) => {
                    current.get_or_insert_default().push_str(&self.value(name));
                }
                Part::Var(name, false) => {
                    let value = self.value(name);
                    if value.starts_with([' ', '\t', '\n']) {
                        words.extend(current.take());
                    }
                    for (index, field) in value.split_ascii_whitespace().enumerate() {
                        if index > 0 {
                            words.extend(current.take());
                        }
                        current.get_or_insert_default().push_str(field);
                    }
                    if value.ends_with([' ', '\t', '\n']) {
                        words.extend(current.take());
                    }
                }
            }
        }
        words.extend(current);
        words
    }

    fn value(&self, name: &str) -> String {
        match name {
            "?" => self.status.to_string(),
            "$" => self.pid.to_string(),
            "!" => self.background.map(|pid| pid.to_string()).unwrap_or_default(),
            "#" => self.args.len().saturating_sub(1).to_string(),
            "@" => self.args.get(1..).unwrap_or_default().join(" "),
            _ => match name.parse::<usize>() {
                Ok(index) => self.args.get(index).cloned().unwrap_or_default(),
                Err(_) => {
                    self.vars.get(name).or_else(|| self.env.get(name)).cloned().unwrap_or_default()
                }
            },
        }
    }
}
