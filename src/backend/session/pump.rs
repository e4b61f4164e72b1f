//! Copying between pipes and the streams of a backend.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::sandbox::{Cancel, Error, Result};

const CHUNK: usize = 64 << 10;

/// A pipe, both ends.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (from, to) = io::pipe().map_err(failed)?;
    Ok((from.into(), to.into()))
}

pub(super) fn receiver(end: OwnedFd) -> Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(end).map_err(failed)
}

pub(super) fn sender(end: OwnedFd) -> Result<pipe::Sender> {
    pipe::Sender::from_owned_fd(end).map_err(failed)
}

fn failed(error: io::Error) -> Error {
    Error::io("connecting streams with the session", error)
}

/// Copies to the end.
pub(super) async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), String> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return to.shutdown().await.map_err(|error| error.to_string()),
            Ok(count) => {
                to.write_all(&buffer[..count]).await.map_err(|error| error.to_string())?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Copies what a command prints. Once it has `ended`, `drained` is told when all that was there is through:
/// what it left behind may hold the stream open for ever.
pub(super) async fn print(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ended: Cancel,
    drained: oneshot::Sender<()>,
) {
    let mut buffer = vec![0; CHUNK];
    let mut drained = Some(drained);
    loop {
        let count = tokio::select! {
            biased;
            // A terminal answers EIO when its last holder closes it: the end, like 0.
            count = from.read(&mut buffer) => count.unwrap_or(0),
            () = ended.cancelled(), if drained.is_some() => {
                if let Some(drained) = drained.take() {
                    let _ = drained.send(());
                }
                continue;
            }
        };
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
