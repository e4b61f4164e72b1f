//! The forms that a secret may be printed in.

use super::SHORTEST;

/// Lines of a secret are masked by themselves when they are at least this long.
const LINE: usize = 8;

/// Line breaks are looked for behind this many bytes: else every line whose end may begin a secret
/// would be held back.
pub(super) const UNBROKEN: usize = 4;
/// Forms shorter than this are not cut by a line break but by chance.
const LONG: usize = 16;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// One form. Each of its bytes may also be written as `%41`, a space also as `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub bytes: Vec<u8>,
    /// Line breaks may stand between its bytes, as `base64` puts them, behind [`UNBROKEN`] of them.
    pub wraps: bool,
}

/// All forms of a secret: itself, its longer lines, as JSON writes it, and in base64 with both
/// alphabets, wherever in the encoded text it may begin.
pub(super) fn forms(value: &[u8]) -> Vec<Form> {
    let mut plain = vec![value.to_vec()];
    let trimmed = value.trim_ascii();
    plain.push(trimmed.to_vec());
    let lines: Vec<&[u8]> = trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    if lines.len() > 1 {
        plain.extend(lines.iter().filter(|line| line.len() >= LINE).map(|line| line.to_vec()));
    }
    if let Ok(text) = std::str::from_utf8(trimmed) {
        let json = serde_json::Value::from(text).to_string();
        plain.push(json.as_bytes()[1..json.len() - 1].to_vec());
    }
    let mut forms: Vec<Form> =
        plain.into_iter().map(|bytes| Form { bytes, wraps: false }).collect();
    for value in [value, trimmed] {
        for alphabet in [STANDARD, URL] {
            for shift in 0..3 {
                let bytes = encoded(value, shift, alphabet);
                // A line may break after the first few, where none is looked for.
                let most = if bytes.len() >= LONG { UNBROKEN } else { 1 };
                for cut in 0..most.min(bytes.len()) {
                    forms.push(Form { bytes: bytes[cut..].to_vec(), wraps: true });
                }
            }
        }
    }
    forms.retain(|form| form.bytes.len() >= SHORTEST);
    let mut all: Vec<Form> = Vec::new();
    for form in forms {
        if !all.contains(&form) {
            all.push(form);
        }
    }
    all
}

/// The characters of the base64 of `value` that depend on nothing else, when `shift` bytes stand
/// before it in its group of three.
fn encoded(value: &[u8], shift: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let first = (shift * 8).div_ceil(6);
    let end = (shift + value.len()) * 8 / 6;
    let bit = |at: usize| {
        let byte = value.get((at / 8).wrapping_sub(shift)).copied().unwrap_or(0);
        (byte >> (7 - at % 8)) & 1
    };
    let six = |at: usize| (0..6).fold(0, |bits, n| (bits << 1) | bit(at * 6 + n));
    (first..end).map(|at| alphabet[usize::from(six(at))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_others_write_it() {
        assert_eq!(encoded(b"token", 0, STANDARD), b"dG9rZW");
        // "xtoken" is eHRva2Vu, "xxtoken" is eHh0b2tlbg==.
        assert_eq!(encoded(b"token", 1, STANDARD), b"Rva2Vu");
        assert_eq!(encoded(b"token", 2, STANDARD), b"0b2tlb");
        assert_eq!(encoded(b"\xfb\xff\xfe", 0, STANDARD), b"+//+");
        assert_eq!(encoded(b"\xfb\xff\xfe", 0, URL), b"-__-");
    }

    #[test]
    fn a_key_is_known_by_its_lines() {
        let key = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nab\n";
        let all = forms(key);
        let has = |text: &[u8]| all.iter().any(|form| form.bytes == text);
        assert!(has(b"MIIEvQIBADANBgkq") && has(b"-----BEGIN KEY-----"));
        assert!(has(b"-----BEGIN KEY-----\\nMIIEvQIBADANBgkq\\nab") && !has(b"ab"));
    }
}
