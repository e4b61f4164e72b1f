//! Compressed archives, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window or dictionary that an archive may ask us to hold.
const WINDOW: u64 = 128 << 20;

/// The content of `file`, uncompressed: gzip, xz, zstd or none of them.
pub fn decompress(file: File) -> io::Result<Box<dyn Read + Send>> {
    let mut file = BufReader::with_capacity(256 << 10, file);
    let head = file.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(file)));
    }
    if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        let limit = (2 * WINDOW) >> 10;
        let reader = lzma_rust2::XzReader::new_mem_limit(file, true, limit as u32);
        return Ok(Box::new(reader));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || head.len() > 3 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18]
    {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        return Ok(Box::new(Zstd { file, decoder, inside: false }));
    }
    Ok(Box::new(file))
}

/// All frames of a zstd file, one after the other.
struct Zstd {
    file: BufReader<File>,
    decoder: FrameDecoder,
    inside: bool,
}

impl Zstd {
    /// Begins the next frame, if there is one.
    fn begin(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.file) {
            Ok(()) => {
                self.inside = true;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                io::copy(&mut (&mut self.file).take(length.into()), &mut io::sink())?;
                Ok(())
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if self.file.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.begin()?;
                continue;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                self.inside = false;
                continue;
            }
            self.decoder
                .decode_blocks(&mut self.file, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        }
    }
}
