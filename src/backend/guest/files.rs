//! Files of a guest, worked on from inside.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::attached::frame;
use super::exec::Exec;
use super::session::{Ask, Said, chunk, lost, wrong};
use super::{Defaults, Guests};
use crate::sandbox::{
    Command, Error, Exit, FileEntry, FileKind, ReadOptions, Reader, Result, WriteOptions,
};

/// How much is sent at once.
const CHUNK: usize = 256 << 10;

fn entries(fields: &[Vec<u8>]) -> Vec<FileEntry> {
    let mut all: Vec<FileEntry> = fields.chunks_exact(8).map(entry).collect();
    // The guest may say anything: a name is no path.
    all.retain(|entry| {
        !matches!(entry.name.as_str(), "" | "." | "..") && !entry.name.contains('/')
    });
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn entry(fields: &[Vec<u8>]) -> FileEntry {
    let text = |at: usize| String::from_utf8_lossy(&fields[at]).into_owned();
    let number = |at: usize| text(at).parse::<u64>().unwrap_or_default();
    let kind = match text(1).as_str() {
        "d" => FileKind::Dir,
        "f" => FileKind::File,
        "l" => FileKind::Symlink,
        _ => FileKind::Other,
    };
    FileEntry {
        name: text(0),
        kind,
        size: number(2),
        mode: number(3) as u32,
        uid: number(4) as u32,
        gid: number(5) as u32,
        // The guest may say anything.
        modified: SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(number(6)))
            .unwrap_or(SystemTime::UNIX_EPOCH),
        target: (kind == FileKind::Symlink).then(|| text(7)),
    }
}

fn mode(options: &WriteOptions) -> String {
    options.mode.map_or_else(String::new, |mode| (mode & 0o7777).to_string())
}

fn source_error(path: &str, error: &std::io::Error) -> Error {
    Error::invalid("content", format!("reading what was to go to {path}: {error}"))
}

/// Files of guests.
pub(in crate::backend) trait Files: Ask {
    async fn stat(&self, name: &str, path: &str) -> Result<FileEntry> {
        let fields = self.ask_once(name, &["stat", path]).await?;
        match fields.len() {
            8.. => Ok(entry(&fields)),
            _ => Err(Error::internal(format!("looking at {path}: nonsense"))),
        }
    }

    async fn read_dir(&self, name: &str, path: &str) -> Result<Vec<FileEntry>> {
        Ok(entries(&self.ask_once(name, &["list", path]).await?))
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool) -> Result<()> {
        let recursive = if recursive { "1" } else { "" };
        self.ask_once(name, &["remove", path, recursive]).await.map(drop)
    }

    async fn mkdir(&self, name: &str, path: &str, options: &WriteOptions) -> Result<()> {
        let owner = options.owner.as_deref().unwrap_or_default();
        if options.owner.as_deref() == Some("") {
            return Err(wrong(0, "user", path, Some("")));
        }
        self.ask_once(name, &["mkdir", path, &mode(options), owner]).await.map(drop)
    }

    async fn read(
        self: &Arc<Self>,
        name: &str,
        path: &str,
        options: ReadOptions,
    ) -> Result<Reader> {
        let offset = options.offset.min(i64::MAX as u64).to_string();
        let length = options.length.map_or_else(String::new, |most| most.min(1 << 62).to_string());
        let (mut session, _) = self.ask(name, &["read", path, &offset, &length]).await?;
        let (mut to, from) = tokio::io::duplex(CHUNK);
        let (failed, failure) = tokio::sync::oneshot::channel();
        let (inner, name, path) = (Arc::clone(self), name.to_owned(), path.to_owned());
        tokio::spawn(async move {
            loop {
                match chunk(session.output()).await {
                    Ok(Ok(bytes)) if bytes.is_empty() => break,
                    Ok(Ok(bytes)) => {
                        // Nobody reads any more: the session goes, with what is under way in it.
                        if to.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Ok(Err(number)) => {
                        let _ = failed.send(wrong(number, "", &path, None).to_string());
                        return;
                    }
                    Err(_) => {
                        let _ = failed.send(format!("{path}: the guest went away"));
                        return;
                    }
                }
            }
            inner.sessions().keep(&name, session);
        });
        Ok(Box::new(Checked { from, failure: Some(failure) }))
    }

    async fn write(
        &self,
        name: &str,
        path: &str,
        mut content: Reader,
        options: &WriteOptions,
    ) -> Result<()> {
        let owner = options.owner.as_deref();
        if owner == Some("") {
            return Err(wrong(0, "user", path, owner));
        }
        let parents = if options.parents { "1" } else { "" };
        let request = ["write", path, &mode(options), owner.unwrap_or_default(), parents];
        let (mut session, _) = self.ask(name, &request).await?;
        let mut buffer = vec![0; CHUNK + 4];
        let mut source = Ok(());
        loop {
            let count = match content.read(&mut buffer[4..]).await {
                Ok(count) => count,
                Err(error) => {
                    source = Err(source_error(path, &error));
                    let _ = session.send(&u32::MAX.to_be_bytes()).await;
                    break;
                }
            };
            buffer[..4].copy_from_slice(&(count as u32).to_be_bytes());
            if session.send(&buffer[..4 + count]).await.is_err() {
                return Err(self.explain(name, lost(), "writing a file").await);
            }
            if count == 0 {
                break;
            }
        }
        let said = session.answer().await;
        let done = match said {
            Ok(Said::Done(_)) => Ok(()),
            Ok(Said::Wrong(number, about)) => Err(wrong(number, &about, path, owner)),
            Err(_) => return Err(self.explain(name, lost(), "writing a file").await),
        };
        self.sessions().keep(name, session);
        source.and(done)
    }

    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
    ) -> Result<()> {
        let owner = options.owner.as_deref();
        let request = ["unpack", path, owner.unwrap_or_default(), owner.unwrap_or_default()];
        let (mut session, _) = self.ask(name, &request).await?;
        let mut members = crate::transfer::members(tar);
        let mut source = Ok(());
        while let Some(member) = members.recv().await {
            let sent = match member {
                Ok(fields) => session.send(&frame(&fields)).await,
                Err(error) => {
                    source = Err(error);
                    break;
                }
            };
            if sent.is_err() {
                return Err(self.explain(name, lost(), "unpacking").await);
            }
        }
        let end = if source.is_ok() { "." } else { "!" };
        let said = match session.send(&frame([end])).await {
            Ok(()) => session.answer().await,
            Err(error) => Err(error),
        };
        let done = match said {
            Ok(Said::Done(_)) => Ok(()),
            Ok(Said::Wrong(number, about)) if about == "user" => {
                Err(wrong(number, "user", path, owner))
            }
            Ok(Said::Wrong(number, about)) => Err(wrong(number, "", &about, owner)),
            Err(_) => return Err(self.explain(name, lost(), "unpacking").await),
        };
        self.sessions().keep(name, session);
        source.and(done)
    }

    async fn pack(self: &Arc<Self>, name: &str, path: &str) -> Result<Reader> {
        let kind = self.stat(name, path).await?.kind;
        let trimmed = path.trim_end_matches('/');
        let (folder, what) = match (kind, trimmed.rsplit_once('/')) {
            (FileKind::File | FileKind::Other, Some((folder, file))) => {
                (if folder.is_empty() { "/" } else { folder }, format!("./{file}"))
            }
            _ => (path, ".".to_owned()),
        };
        let argv = ["tar", "-c", "--no-recursion", "-C", folder, "--", &what];
        let argv = argv.into_iter().filter(|word| what != "." || *word != "--no-recursion");
        let mut command = Command::argv(argv);
        command.user = Some("root".into());
        command.cwd = Some("/".into());
        let mut process = self.spawn(name, Defaults::none(), &command).await?;
        let stdout = process.stdout.take();
        let mut stdout = stdout.ok_or_else(|| Error::internal("the command has no output"))?;
        drop(process.stderr.take());
        let (mut to, from) = tokio::io::duplex(CHUNK);
        let (failed, failure) = tokio::sync::oneshot::channel();
        let path = path.to_owned();
        tokio::spawn(async move {
            if tokio::io::copy(&mut stdout, &mut to).await.is_err() {
                return;
            }
            match process.control.wait().await {
                // 1 says that a file changed meanwhile.
                Ok(Exit::Code(0 | 1)) => {}
                Ok(exit) => drop(failed.send(format!("packing {path}: {exit}"))),
                Err(error) => drop(failed.send(format!("packing {path}: {error}"))),
            }
        });
        Ok(Box::new(Checked { from, failure: Some(failure) }))
    }
}

impl<G: Guests> Files for G {}

/// A stream whose end counts only when nothing went wrong.
struct Checked {
    from: tokio::io::DuplexStream,
    failure: Option<tokio::sync::oneshot::Receiver<String>>,
}

impl tokio::io::AsyncRead for Checked {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(std::pin::Pin::new(&mut self.from).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return std::task::Poll::Ready(Ok(()));
        }
        let Some(failure) = &mut self.failure else { return std::task::Poll::Ready(Ok(())) };
        let failed = std::task::ready!(std::pin::Pin::new(failure).poll(context));
        self.failure = None;
        std::task::Poll::Ready(match failed {
            Ok(text) => Err(std::io::Error::other(text)),
            Err(_) => Ok(()),
        })
    }
}
