//! Files with holes: GNU's pax formats, and runs of zeros on the way to the disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const BLOCK: usize = 512;
const MOST_EXTENTS: usize = 1 << 20;

/// How an entry's content is spread over its file.
pub(super) enum Format {
    /// The map stands in the pax header (0.1): offset and size of each extent, then the real size.
    Header(Vec<(u64, u64)>, u64),
    /// The map stands at the start of the content (1.0).
    Content(u64),
}

/// The `GNU.sparse.*` records of one pax header.
#[derive(Default)]
pub(super) struct Headers {
    major: Option<u64>,
    size: Option<u64>,
    map: Option<Vec<(u64, u64)>>,
    old: bool,
}

impl Headers {
    /// Takes one record; `key` is what comes after `GNU.sparse.`.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"major" => self.major = Some(number(value)?),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"map" => {
                let numbers: Vec<u64> =
                    value.split(|b| *b == b',').map(number).collect::<io::Result<_>>()?;
                self.map = Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
            }
            b"offset" | b"numbytes" => self.old = true,
            _ => {}
        }
        Ok(())
    }

    /// What the records say together; none for a plain file.
    pub(super) fn format(self) -> io::Result<Option<Format>> {
        match (self.major, self.size, self.map) {
            (Some(1), Some(size), _) => Ok(Some(Format::Content(size))),
            (_, Some(size), Some(map)) => Ok(Some(Format::Header(map, size))),
            (None, _, None) if !self.old => Ok(None),
            _ => Err(io::Error::other("its sparse file format is not known (0.1 and 1.0 are)")),
        }
    }
}

fn number(text: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other("a number in its sparse file map is wrong"))
}

/// Writes the extents of a sparse entry to their places; the file's size.
pub(super) fn expand(
    format: Format,
    content: &mut impl Read,
    file: &mut Holes<'_>,
) -> io::Result<u64> {
    let (map, size) = match format {
        Format::Header(map, size) => (map, size),
        Format::Content(size) => (read_map(content)?, size),
    };
    file.grow(size)?;
    let mut end = 0;
    for (offset, length) in map {
        let next = offset.checked_add(length).filter(|next| *next <= size && offset >= end);
        end = next.ok_or_else(|| io::Error::other("its sparse file map is not in order"))?;
        file.at = offset;
        if file.extent(&mut content.take(length))? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    file.file.set_len(size)?;
    Ok(size)
}

/// The map of format 1.0: decimal lines, a count and then pairs, padded to a block.
fn read_map(content: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut block = [0; BLOCK];
    let mut at = BLOCK;
    let mut line = || -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if at == BLOCK {
                content.read_exact(&mut block)?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                return number(&digits);
            }
            digits.push(byte);
            if digits.len() > 20 {
                return Err(io::Error::other("a number in its sparse file map is wrong"));
            }
        }
    };
    let count = usize::try_from(line()?).unwrap_or(usize::MAX);
    if count > MOST_EXTENTS {
        return Err(io::Error::other("its sparse file map is too long"));
    }
    (0..count).map(|_| Ok((line()?, line()?))).collect()
}

/// Writes a file and leaves holes where whole chunks are zero, up to a number of bytes.
pub(super) struct Holes<'a> {
    file: &'a File,
    at: u64,
    room: u64,
    over: bool,
}

impl<'a> Holes<'a> {
    /// An empty file, which may become `room` bytes long.
    pub(super) fn new(file: &'a File, room: u64) -> Holes<'a> {
        Holes { file, at: 0, room, over: false }
    }

    /// Whether an error was about the room.
    pub(super) fn over(&self) -> bool {
        self.over
    }

    fn grow(&mut self, end: u64) -> io::Result<()> {
        self.over |= end > self.room;
        if self.over { Err(io::Error::other("it is too long")) } else { Ok(()) }
    }

    /// Writes the whole of `content`; its size.
    pub(super) fn copy(&mut self, content: &mut impl Read) -> io::Result<u64> {
        let size = self.extent(content)?;
        self.file.set_len(size)?;
        Ok(size)
    }

    fn extent(&mut self, content: &mut impl Read) -> io::Result<u64> {
        let start = self.at;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok(self.at - start),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = self.at + count as u64;
            self.grow(end)?;
            let chunk = &buffer[..count];
            let hole = count >= 4096 && chunk.iter().all(|byte| *byte == 0);
            if !hole {
                self.file.write_all_at(chunk, self.at)?;
            }
            self.at = end;
        }
    }
}
