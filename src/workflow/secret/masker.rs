//! Takes secrets out of a stream, wherever it is cut into chunks.

use std::sync::Arc;

use super::forms::UNBROKEN;
use super::mask::{Known, MASKED, Mask};

/// Masks one stream. Bytes that may be the beginning of a secret are held back until it is known.
#[derive(Debug)]
pub struct Masker {
    mask: Arc<Mask>,
    known: Arc<Known>,
    /// What is not given out yet; `base` is the place of its first byte in the stream.
    held: Vec<u8>,
    base: u64,
    /// Forms that may be under way.
    threads: Vec<Thread>,
    /// Places of whole secrets that are not given out yet.
    spans: Vec<(u64, u64)>,
    /// Up to here all is masked already.
    masked: u64,
}

/// A form that was matched so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    start: u64,
    form: u32,
    /// How many of its bytes.
    at: u32,
    /// How many characters of the `%41` of the next one.
    percent: u8,
}

impl Masker {
    /// A masker for one stream, which follows what the mask gets to know.
    pub fn new(mask: Arc<Mask>) -> Masker {
        let known = mask.known();
        Masker {
            mask,
            known,
            held: Vec::new(),
            base: 0,
            threads: Vec::new(),
            spans: Vec::new(),
            masked: 0,
        }
    }

    /// Takes a chunk; gives what can be shown by now.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        if self.known.forms.len() != self.mask.count() {
            self.known = self.mask.known();
        }
        if self.known.forms.is_empty() {
            self.base += chunk.len() as u64;
            return chunk.to_vec();
        }
        let known = Arc::clone(&self.known);
        let mut rest = chunk;
        while let Some(byte) = rest.first() {
            if self.threads.is_empty() {
                let dull =
                    rest.iter().position(|byte| !known.begins[usize::from(*byte)].is_empty());
                let dull = dull.unwrap_or(rest.len());
                if dull > 0 {
                    self.held.extend_from_slice(&rest[..dull]);
                    rest = &rest[dull..];
                    continue;
                }
            }
            self.step(&known, *byte);
            rest = &rest[1..];
        }
        let end = self.base + self.held.len() as u64;
        let safe = self.threads.iter().map(|thread| thread.start).min().unwrap_or(end);
        self.give(safe)
    }

    /// The rest, at the end of the stream or where nothing held back is waited for any more.
    pub fn finish(&mut self) -> Vec<u8> {
        self.threads.clear();
        self.give(self.base + self.held.len() as u64)
    }

    fn step(&mut self, known: &Known, byte: u8) {
        let here = self.base + self.held.len() as u64;
        self.held.push(byte);
        let mut next = Vec::with_capacity(self.threads.len() + 2);
        for thread in std::mem::take(&mut self.threads) {
            self.advance(known, thread, byte, &mut next);
        }
        for form in &known.begins[usize::from(byte)] {
            let thread = Thread { start: here, form: *form, at: 0, percent: 0 };
            self.advance(known, thread, byte, &mut next);
        }
        self.threads = next;
    }

    fn advance(&mut self, known: &Known, thread: Thread, byte: u8, next: &mut Vec<Thread>) {
        let form = &known.forms[thread.form as usize];
        let Some(&wanted) = form.bytes.get(thread.at as usize) else { return };
        let mut go = |thread: Thread, spans: &mut Vec<(u64, u64)>| {
            if thread.at as usize == form.bytes.len() {
                let end = self.base + self.held.len() as u64;
                spans.push((thread.start, end));
            } else if !next.contains(&thread) {
                next.push(thread);
            }
        };
        let spans = &mut self.spans;
        let hex = |digit: u8| (byte as char).to_digit(16) == Some(u32::from(digit));
        match thread.percent {
            1 if hex(wanted >> 4) => go(Thread { percent: 2, ..thread }, spans),
            2 if hex(wanted & 15) => go(Thread { at: thread.at + 1, percent: 0, ..thread }, spans),
            0 => {
                if byte == wanted || (wanted == b' ' && byte == b'+') {
                    go(Thread { at: thread.at + 1, ..thread }, spans);
                }
                if byte == b'%' {
                    go(Thread { percent: 1, ..thread }, spans);
                }
                if form.wraps && thread.at as usize >= UNBROKEN && matches!(byte, b'\n' | b'\r') {
                    go(thread, spans);
                }
            }
            _ => {}
        }
    }

    /// Gives out everything before `upto`, whole secrets as the mask.
    fn give(&mut self, upto: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let end = self.base + self.held.len() as u64;
        let mut at = self.base.max(self.masked);
        self.spans.sort_unstable();
        let raw = |from: u64, to: u64| {
            let place = |at: u64| (at - self.base) as usize;
            &self.held[place(from)..place(to.min(end))]
        };
        for (start, stop) in self.spans.iter().copied().filter(|(start, _)| *start < upto) {
            if start >= self.masked {
                if start > at {
                    out.extend_from_slice(raw(at, start));
                }
                out.extend_from_slice(MASKED.as_bytes());
            }
            self.masked = self.masked.max(stop);
            at = at.max(stop);
        }
        if at < upto {
            out.extend_from_slice(raw(at, upto));
        }
        self.spans.retain(|(start, _)| *start >= upto);
        let gone = (upto - self.base) as usize;
        self.held.drain(..gone);
        self.base = upto;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;
    use proptest::prelude::*;

    fn mask(secrets: &[&[u8]]) -> Arc<Mask> {
        let mask = Arc::new(Mask::default());
        for (number, value) in secrets.iter().enumerate() {
            mask.add(&Secret::new(format!("S{number}"), *value).unwrap());
        }
        mask
    }

    fn whole(mask: &Arc<Mask>, text: &[u8]) -> Vec<u8> {
        let mut masker = Masker::new(Arc::clone(mask));
        let mut out = masker.push(text);
        out.extend(masker.finish());
        out
    }

    fn text(secrets: &[&str], text: &str) -> String {
        let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.as_bytes()).collect();
        String::from_utf8(whole(&mask(&secrets), text.as_bytes())).unwrap()
    }

    #[test]
    fn overlaps_are_one_and_neighbours_are_two() {
        assert_eq!(text(&["hunter2"], "a hunter2 b hunter2hunter2"), "a *** b ******");
        assert_eq!(text(&["abcd", "abcdef"], "xabcdefx xabcdex"), "x***x x***ex");
        assert_eq!(text(&["abab"], "ababab"), "***");
        assert_eq!(text(&["abcdXY", "cdXYef"], "-abcdXYef-"), "-***-");
        assert_eq!(text(&["hunter2"], "hunter"), "hunter");
    }

    #[test]
    fn encoded_forms() {
        assert_eq!(
            text(&["p@ss w/rd"], "p%40ss%20w%2Frd p%40ss+w%2frd p@ss%20w/rd"),
            "*** *** ***"
        );
        assert_eq!(text(&["token1"], "Basic dXNlcjp0b2tlbjE="), "Basic dXNlcjp***E=");
        assert_eq!(text(&["100%sure"], "100%sure 100%25sure"), "*** ***");
        // Before a percent sign that belongs to nothing.
        assert_eq!(text(&["41abcdef"], "%41abcdef"), "%***");
        let long = "x".repeat(100);
        for at in [1, 3, 4, 76, 99] {
            let mut wrapped = base64(long.as_bytes());
            wrapped.insert(at, b'\n');
            let masked = text(&[&long], &String::from_utf8(wrapped).unwrap());
            let begun = if at < UNBROKEN { at + 1 } else { 0 };
            assert!(masked.len() <= begun + "***g==".len(), "{at}: {masked}");
        }
    }

    #[test]
    fn what_can_be_no_secret_is_not_held_back() {
        let mask = mask(&[b"hunter2"]);
        let mut masker = Masker::new(mask);
        assert_eq!(masker.push(b"user hu"), b"user ");
        assert_eq!(masker.push(b"man"), b"human");
        assert_eq!(masker.push(b" hunt"), b" ");
        assert_eq!(masker.push(b"er2!"), b"***!");
        assert_eq!(masker.finish(), b"");
    }

    #[test]
    fn a_secret_that_comes_later_is_masked_from_then_on() {
        let mask = mask(&[]);
        let mut masker = Masker::new(Arc::clone(&mask));
        assert_eq!(masker.push(b"hunter2 "), b"hunter2 ");
        mask.add(&Secret::new("S", *b"hunter2").unwrap());
        assert_eq!(masker.push(b"hunter2 "), b"*** ");
    }

    fn percent(value: &[u8], every: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in value {
            if every || !byte.is_ascii_alphanumeric() {
                out.extend(format!("%{byte:02X}").bytes());
            } else {
                out.push(*byte);
            }
        }
        out
    }

    fn base64(value: &[u8]) -> Vec<u8> {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = Vec::new();
        for group in value.chunks(3) {
            let bytes = [group[0], *group.get(1).unwrap_or(&0), *group.get(2).unwrap_or(&0)];
            let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            for at in 0..4 {
                let six = (bits >> (18 - 6 * at)) & 63;
                out.push(if at <= group.len() { ALPHABET[six as usize] } else { b'=' });
            }
        }
        out
    }

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn nothing_of_it_is_left_however_it_is_cut(
            secret in "[ -~é]{6,24}",
            parts in prop::collection::vec((0..5usize, "[ -~\n%]{0,12}"), 1..6),
            cuts in prop::collection::vec(1..9usize, 1..40),
        ) {
            prop_assume!(secret.trim().len() >= 6 && !secret.contains('*'));
            let secret = secret.as_bytes();
            let mut stream = Vec::new();
            for (form, between) in &parts {
                stream.extend(between.bytes());
                match form {
                    0 => stream.extend(secret),
                    1 => stream.extend(percent(secret, false)),
                    2 => stream.extend(percent(secret, true)),
                    3 => stream.extend(base64(&[b"user:", secret, b"!"].concat())),
                    _ => stream.extend(base64(secret)),
                }
            }
            let mask = mask(&[secret]);
            let once = whole(&mask, &stream);
            prop_assert!(!contains(&once, secret));
            prop_assert!(!contains(&once, &percent(secret, false)));
            prop_assert!(!contains(&once, &percent(secret, true)));
            prop_assert!(!contains(&once, &base64(secret)));
            // The groups of base64 that hold nothing but the secret.
            let inside = base64(&[b"user:", secret, b"!"].concat());
            let inside = &inside[8..inside.len() / 4 * 4 - 8];
            prop_assert!(inside.len() < 6 || !contains(&once, inside));

            let mut masker = Masker::new(mask);
            let mut pieces = Vec::new();
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.extend(masker.push(head));
                rest = tail;
            }
            pieces.extend(masker.finish());
            prop_assert_eq!(pieces, once);
        }

        #[test]
        fn what_holds_no_secret_stays_as_it_is(
            text in "[a-z0-9 \n%+]{0,200}",
            cuts in prop::collection::vec(1..20usize, 1..20),
        ) {
            let mut masker = Masker::new(mask(&[b"SECRET-1", b"Other Secret"]));
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            let mut out = Vec::new();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                out.extend(masker.push(head));
                rest = tail;
            }
            out.extend(masker.finish());
            prop_assert_eq!(out, text.as_bytes());
        }
    }
}
