//! What goes over the one stream.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The most that one frame carries.
pub(super) const LONGEST: usize = 32 << 10;

/// Less than this is copied: it would hold all of the buffer that it came in, which is much larger.
const SMALL: usize = 16 << 10;

/// The kind, the lane, and a length.
const HEADER: usize = 1 + 4 + 4;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// It is still there.
    Beat,
    /// So many lanes follow this one: first those that the sender reads.
    Open { lane: u32, readers: u8, writers: u8 },
    /// Bytes of a lane.
    Data { lane: u32, bytes: Bytes },
    /// No more bytes come.
    End { lane: u32 },
    /// So many bytes more may be sent.
    Credit { lane: u32, count: u32 },
    /// Nobody reads it any more.
    Gone { lane: u32 },
}

impl Frame {
    pub fn put(&self, buffer: &mut BytesMut) {
        let mut head = |kind: u8, lane: u32, number: u32| {
            buffer.put_u8(kind);
            buffer.put_u32_le(lane);
            buffer.put_u32_le(number);
        };
        match self {
            Frame::Beat => head(0, 0, 0),
            Frame::Open { lane, readers, writers } => {
                head(1, *lane, u32::from(*readers) << 8 | u32::from(*writers));
            }
            Frame::Data { lane, bytes } => {
                head(2, *lane, bytes.len() as u32);
                buffer.put_slice(bytes);
            }
            Frame::End { lane } => head(3, *lane, 0),
            Frame::Credit { lane, count } => head(4, *lane, *count),
            Frame::Gone { lane } => head(5, *lane, 0),
        }
    }

    /// The next one, if it is there to its end.
    pub fn take(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        if buffer.len() < HEADER {
            return Ok(None);
        }
        let mut head = &buffer[..HEADER];
        let (kind, lane, number) = (head.get_u8(), head.get_u32_le(), head.get_u32_le());
        let nonsense = || Err(io::Error::other("the other end says nonsense"));
        if kind == 2 {
            let length = number as usize;
            if length > LONGEST {
                return nonsense();
            }
            if buffer.len() < HEADER + length {
                return Ok(None);
            }
            buffer.advance(HEADER);
            let bytes = match length < SMALL {
                true => {
                    let bytes = Bytes::copy_from_slice(&buffer[..length]);
                    buffer.advance(length);
                    bytes
                }
                false => buffer.split_to(length).freeze(),
            };
            return Ok(Some(Frame::Data { lane, bytes }));
        }
        buffer.advance(HEADER);
        Ok(Some(match kind {
            0 => Frame::Beat,
            1 => Frame::Open { lane, readers: (number >> 8) as u8, writers: number as u8 },
            3 => Frame::End { lane },
            4 => Frame::Credit { lane, count: number },
            5 => Frame::Gone { lane },
            _ => return nonsense(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let all = [
            Frame::Beat,
            Frame::Open { lane: 7, readers: 2, writers: 1 },
            Frame::Data { lane: 8, bytes: Bytes::from_static(b"some") },
            Frame::Data { lane: 8, bytes: Bytes::new() },
            Frame::Credit { lane: 8, count: u32::MAX },
            Frame::Gone { lane: u32::MAX },
            Frame::End { lane: 8 },
        ];
        let mut whole = BytesMut::new();
        all.iter().for_each(|frame| frame.put(&mut whole));
        // Byte by byte, as it may come.
        let (mut buffer, mut taken) = (BytesMut::new(), Vec::new());
        for byte in whole {
            buffer.put_u8(byte);
            taken.extend(Frame::take(&mut buffer).unwrap());
        }
        assert!(buffer.is_empty());
        assert_eq!(taken, all);
        for wrong in [[9, 0, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert!(Frame::take(&mut BytesMut::from(&wrong[..])).is_err());
        }
    }
}
