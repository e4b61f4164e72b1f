//! A pipe whose end says whether all came through.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

use crate::sandbox::Reader;

/// Reads a pipe. Where it ends before the word came that it was all, that is an error: whoever wrote may
/// have been killed, and half a file is not a file.
pub(super) struct Whole {
    pipe: Reader,
    word: oneshot::Receiver<Result<(), String>>,
    over: bool,
}

impl Whole {
    pub fn new(pipe: Reader, word: oneshot::Receiver<Result<(), String>>) -> Self {
        Whole { pipe, word, over: false }
    }
}

impl AsyncRead for Whole {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let word = ready!(Pin::new(&mut self.word).poll(context));
        self.over = true;
        Poll::Ready(match word {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(io::Error::other(message)),
            Err(_) => Err(io::Error::other("the other end went away in the middle")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe;

    async fn read(word: Option<Result<(), String>>) -> io::Result<Vec<u8>> {
        let (from, mut to) = std::io::pipe().unwrap();
        to.write_all(b"half").unwrap();
        drop(to);
        let (say, heard) = oneshot::channel();
        match word {
            Some(word) => say.send(word).unwrap(),
            None => drop(say),
        }
        let mut bytes = Vec::new();
        let pipe = pipe::Receiver::from_owned_fd(from.into()).unwrap();
        Whole::new(Box::new(pipe), heard).read_to_end(&mut bytes).await.map(|_| bytes)
    }

    #[tokio::test]
    async fn only_with_its_word_it_is_whole() {
        assert_eq!(read(Some(Ok(()))).await.unwrap(), b"half");
        assert_eq!(read(Some(Err("no disk".into()))).await.unwrap_err().to_string(), "no disk");
        assert!(read(None).await.unwrap_err().to_string().contains("in the middle"));
    }
}
