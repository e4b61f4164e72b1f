//! One-time codes of a second factor (RFC 6238): six digits, half a minute each.

use ring::hmac;

/// How long a code is good for, in milliseconds.
const INTERVAL: i64 = 30_000;

/// The code for a secret in base 32 at a time in milliseconds; `None` when it is no base 32.
pub fn totp(secret: &str, now: i64) -> Option<String> {
    let counter = (now.div_euclid(INTERVAL) as u64).to_be_bytes();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &decode(secret)?);
    let tag = hmac::sign(&key, &counter);
    let tag = tag.as_ref();
    let at = usize::from(tag.last()? & 15);
    let number = u32::from_be_bytes(tag.get(at..at + 4)?.try_into().ok()?) & 0x7fff_ffff;
    Some(format!("{:06}", number % 1_000_000))
}

/// What an authenticator is set up with.
pub fn uri(secret: &str) -> String {
    format!("otpauth://totp/iXsystems:truenas%40TrueNAS?secret={secret}&issuer=iXsystems")
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for c in text.trim_end_matches('=').chars().filter(|c| !c.is_whitespace()) {
        let value = match c.to_ascii_uppercase() {
            c @ 'A'..='Z' => c as u32 - 'A' as u32,
            c @ '2'..='7' => c as u32 - '2' as u32 + 26,
            _ => return None,
        };
        bits = (bits << 5) | value;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::totp;

    /// The vectors of RFC 6238, appendix B, by their last six digits.
    #[test]
    fn rfc_6238() {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000_i64, "353130"),
        ] {
            assert_eq!(totp(secret, seconds * 1000).as_deref(), Some(code));
        }
        assert_eq!(totp("not base 32!", 0), None);
    }
}
