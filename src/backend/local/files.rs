//! Files of a running sandbox, by a worker inside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::Inner;
use super::control::{answer, ask};
use super::protocol::{FileRequest, Reply, Request};
use crate::sandbox::{
    Error, FileEntry, ReadOptions, Reader, Result, WriteOptions, check_name, check_path,
};
use crate::transport::Link;

impl Inner {
    async fn file(
        &self,
        name: &str,
        path: &str,
        request: FileRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Link, Reply, Vec<OwnedFd>)> {
        check_name(name)?;
        check_path(path)?;
        let mut link = self.connect_running(name).await?;
        let (reply, fds) = ask(&mut link, name, &Request::File(request), fds).await?;
        Ok((link, reply, fds))
    }

    pub(super) async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
    ) -> Result<Reader> {
        let request = FileRequest::Open { path: path.into() };
        let (_, _, mut fds) = self.file(name, path, request, &[]).await?;
        let mut file = opened(fds.pop())?;
        if options.offset > 0 {
            let place = std::io::SeekFrom::Start(options.offset);
            file.seek(place).await.map_err(|error| trouble(path, error))?;
        }
        Ok(match options.length {
            Some(length) => Box::new(file.take(length)),
            None => Box::new(file),
        })
    }

    pub(super) async fn write(
        &self,
        name: &str,
        path: &str,
        mut content: Reader,
        options: &WriteOptions,
    ) -> Result<()> {
        let request = FileRequest::Replace {
            path: path.into(),
            mode: options.mode,
            owner: options.owner.clone(),
            parents: options.parents,
        };
        let (mut link, _, mut fds) = self.file(name, path, request, &[]).await?;
        let mut file = opened(fds.pop())?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            // A failure of the source and one of the sandbox's disk are told apart.
            let written = match content.read(&mut buffer).await {
                Ok(0) => file.flush().await.map(|()| 0).map_err(|error| trouble(path, error)),
                Ok(count) => match file.write_all(&buffer[..count]).await {
                    Ok(()) => Ok(count),
                    Err(error) => Err(trouble(path, error)),
                },
                Err(error) => Err(source_error(path, error)),
            };
            match written {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    // Its worker deletes what there is so far; that is waited for.
                    let _ = ask(&mut link, name, &Request::Abandon, &[]).await;
                    return Err(error);
                }
            }
        }
        drop(file);
        ask(&mut link, name, &Request::Commit, &[]).await.map(drop)
    }

    pub(super) async fn entries(
        &self,
        name: &str,
        path: &str,
        request: FileRequest,
    ) -> Result<Vec<FileEntry>> {
        match self.file(name, path, request, &[]).await? {
            (_, Reply::Entries(entries), _) => Ok(entries),
            _ => Err(Error::internal(format!("listing {path}: nonsense"))),
        }
    }

    pub(super) async fn stat(&self, name: &str, path: &str) -> Result<FileEntry> {
        let entries = self.entries(name, path, FileRequest::Stat { path: path.into() }).await?;
        entries
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal(format!("looking at {path}: nonsense")))
    }

    pub(super) async fn change(&self, name: &str, path: &str, request: FileRequest) -> Result<()> {
        self.file(name, path, request, &[]).await.map(drop)
    }

    pub(super) async fn unpack(
        &self,
        name: &str,
        path: &str,
        mut tar: Reader,
        options: &WriteOptions,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        let (reader, writer) = std::io::pipe().map_err(|error| trouble(path, error))?;
        let mut link = self.connect_running(name).await?;
        let request = FileRequest::Unpack { path: path.into(), owner: options.owner.clone() };
        link.send(&Request::File(request), &[reader.as_fd()]).await?;
        drop(reader);
        let mut writer =
            pipe::Sender::from_owned_fd(writer.into()).map_err(|error| trouble(path, error))?;
        let mut source = Ok(());
        let feed = async {
            let mut buffer = vec![0; 256 << 10];
            loop {
                match tar.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(count) => {
                        if writer.write_all(&buffer[..count]).await.is_err() {
                            // The worker has stopped reading; it says why.
                            break;
                        }
                    }
                    Err(error) => {
                        source = Err(source_error(path, error));
                        break;
                    }
                }
            }
            drop(writer);
        };
        let (answered, ()) = tokio::join!(answer(&mut link, name), feed);
        source?;
        answered.map(drop)
    }

    pub(super) async fn pack(&self, name: &str, path: &str) -> Result<Reader> {
        check_name(name)?;
        check_path(path)?;
        // Its kind is looked at first: what goes wrong later can only break the stream off.
        self.stat(name, path).await?;
        let (reader, writer) = std::io::pipe().map_err(|error| trouble(path, error))?;
        let mut link = self.connect_running(name).await?;
        link.send(&Request::File(FileRequest::Pack { path: path.into() }), &[writer.as_fd()])
            .await?;
        drop(writer);
        let reader =
            pipe::Receiver::from_owned_fd(reader.into()).map_err(|error| trouble(path, error))?;
        let (sandbox, path) = (name.to_owned(), path.to_owned());
        let outcome = tokio::spawn(async move {
            answer(&mut link, &sandbox)
                .await
                .map(drop)
                .map_err(|error| std::io::Error::other(format!("packing {path}: {error}")))
        });
        Ok(Box::new(Checked { reader, outcome: Some(outcome) }))
    }
}

/// A stream whose end counts only when the worker says that all is in it.
struct Checked {
    reader: pipe::Receiver,
    outcome: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl tokio::io::AsyncRead for Checked {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(std::pin::Pin::new(&mut self.reader).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return std::task::Poll::Ready(Ok(()));
        }
        let Some(outcome) = &mut self.outcome else { return std::task::Poll::Ready(Ok(())) };
        let ended = std::task::ready!(std::pin::Pin::new(outcome).poll(context));
        self.outcome = None;
        std::task::Poll::Ready(ended.unwrap_or_else(|error| Err(std::io::Error::other(error))))
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if let Some(outcome) = &self.outcome {
            outcome.abort();
        }
    }
}

fn opened(fd: Option<OwnedFd>) -> Result<tokio::fs::File> {
    let fd = fd.ok_or_else(|| Error::internal("the sandbox gave no file"))?;
    Ok(tokio::fs::File::from_std(fd.into()))
}

fn trouble(path: &str, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Exhausted {
            what: format!("no space left in the sandbox for {path}"),
            hint: "delete something in it, or give it more with `disk`".into(),
        },
        _ => Error::io(path, error),
    }
}

fn source_error(path: &str, error: std::io::Error) -> Error {
    Error::invalid("content", format!("reading what was to go to {path}: {error}"))
}
