//! What one cell printed, in order: pieces with a head that says which stream and how long.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::super::Stream;

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// What was printed.
    Text(Stream, String),
    /// An attempt is over, and another one begins.
    Again,
}

const AGAIN: u8 = 2;
/// No piece is longer; a longer one is damage.
const LONGEST: u32 = 64 << 20;

/// A log that is being written.
#[derive(Debug)]
pub(super) struct LogWriter(BufWriter<File>);

impl LogWriter {
    pub fn create(path: &Path) -> io::Result<LogWriter> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(LogWriter(BufWriter::with_capacity(64 << 10, file)))
    }

    pub fn text(&mut self, stream: Stream, text: &str) -> io::Result<()> {
        self.0.write_all(&[stream as u8])?;
        self.0.write_all(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        self.0.write_all(text.as_bytes())
    }

    pub fn again(&mut self) -> io::Result<()> {
        self.0.write_all(&[AGAIN, 0, 0, 0, 0])
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A log that is being read. It ends where the run was killed.
#[derive(Debug)]
pub(super) struct LogReader(BufReader<File>);

impl LogReader {
    pub fn open(path: &Path) -> io::Result<LogReader> {
        Ok(LogReader(BufReader::new(File::open(path)?)))
    }
}

impl Iterator for LogReader {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let stream = match head[0] {
            0 => Stream::Stdout,
            1 => Stream::Stderr,
            AGAIN => return Some(Piece::Again),
            _ => return None,
        };
        if length > LONGEST {
            return None;
        }
        let mut bytes = Vec::new();
        (&mut self.0).take(length.into()).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (!text.is_empty()).then_some(Piece::Text(stream, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_streams_are_kept_and_half_a_piece_is_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogWriter::create(&path).unwrap();
        log.text(Stream::Stdout, "one\n").unwrap();
        log.text(Stream::Stderr, "zwei ü\n").unwrap();
        log.again().unwrap();
        log.text(Stream::Stdout, "three\n").unwrap();
        log.flush().unwrap();
        let pieces = [
            Piece::Text(Stream::Stdout, "one\n".into()),
            Piece::Text(Stream::Stderr, "zwei ü\n".into()),
            Piece::Again,
            Piece::Text(Stream::Stdout, "three\n".into()),
        ];
        assert_eq!(LogReader::open(&path).unwrap().collect::<Vec<_>>(), pieces);
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let read: Vec<Piece> = LogReader::open(&path).unwrap().collect();
            assert!(read.len() <= 4);
        }
        std::fs::write(&path, [0, 255, 255, 255, 255, 1]).unwrap();
        assert_eq!(LogReader::open(&path).unwrap().count(), 0);
    }
}
