//! A program that runs in a guest, whoever carries its streams, and what is said to it.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};

use super::Fail;
use crate::sandbox::WindowSize;

/// How much of a stream is under way at once.
pub(in crate::backend) const UNDER_WAY: usize = 256 << 10;

/// What is said to a program beside its streams.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) enum Control {
    /// A signal's number.
    Signal(i32),
    /// The terminal's new size.
    Resize(WindowSize),
}

/// How it ended: the code that the server gives, once it is known.
pub(in crate::backend) type End = watch::Receiver<Option<Result<i32, Fail>>>;

/// A program that runs in a guest.
pub(in crate::backend) struct Attached {
    /// Its standard input; `None` once it was taken.
    pub stdin: Option<DuplexStream>,
    /// Its standard output.
    pub stdout: DuplexStream,
    /// Its standard error; none with a terminal.
    pub stderr: Option<DuplexStream>,
    /// Signals and sizes. The program is let go when all of these are dropped.
    pub control: mpsc::UnboundedSender<Control>,
    /// Its end, which comes after that of its output.
    pub end: End,
}

/// Fields with a length each, and a length before all of them: what the programs in the guest read.
pub(in crate::backend) fn frame<T: AsRef<[u8]>>(fields: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut whole = vec![0; 4];
    for field in fields {
        let field = field.as_ref();
        whole.extend((field.len() as u32).to_be_bytes());
        whole.extend(field);
    }
    let length = (whole.len() - 4) as u32;
    whole[..4].copy_from_slice(&length.to_be_bytes());
    whole
}

/// The fields of a frame's body.
pub(in crate::backend) fn fields(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk() {
        let length = (u32::from_be_bytes(*length) as usize).min(rest.len());
        all.push(rest[..length].to_vec());
        body = &rest[length..];
    }
    all
}

/// Reads a frame's body, of at most 64 MiB.
pub(in crate::backend) async fn read_frame(from: &mut DuplexStream) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length > 64 << 20 {
        return Err(std::io::Error::other("the guest's answer is nonsense"));
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// Writes all of it.
pub(in crate::backend) async fn write(to: &mut DuplexStream, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back() {
        let whole = frame(["", "a", "\n\0"]);
        assert_eq!(whole[..4], 15u32.to_be_bytes());
        assert_eq!(fields(&whole[4..]), [b"".to_vec(), b"a".to_vec(), b"\n\0".to_vec()]);
        assert_eq!(fields(&[0, 0, 0, 9, b'x']), [b"x".to_vec()]);
    }
}
