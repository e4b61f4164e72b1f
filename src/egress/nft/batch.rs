//! Netlink messages, built by hand: a few dozen bytes each, and no program to start.

/// Asks for an answer.
pub(crate) const ACK: u16 = 4;
const REQUEST: u16 = 1;
/// Makes what is not there yet.
pub(crate) const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

/// Messages in one buffer, sent together.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    open: Vec<usize>,
}

impl Batch {
    /// An empty one.
    pub(crate) fn new() -> Batch {
        Batch { bytes: Vec::new(), sequence: 0, open: Vec::new() }
    }

    /// All of it, as it is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One message: its type, flags, fixed header, and attributes by `fill`.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Batch),
    ) -> &mut Batch {
        let start = self.bytes.len();
        self.sequence += 1;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(head);
        self.pad();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// One attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    /// One attribute that is text, with its NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// One attribute that holds others.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Batch)) {
        self.nest_raw(kind | NESTED, &[], fill);
    }

    /// One attribute that holds a fixed header and then others.
    pub(crate) fn nest_raw(&mut self, kind: u16, head: &[u8], fill: impl FnOnce(&mut Batch)) {
        self.open.push(self.bytes.len());
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(head);
        self.pad();
        fill(self);
        if let Some(start) = self.open.pop() {
            let length = (self.bytes.len() - start) as u16;
            self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
