//! Names and labels, checked before any I/O.

use super::{Error, Result};

/// A sandbox name is a DNS label: 1 to 63 of `a-z`, `0-9` and `-`, starting with a letter and not
/// ending in `-` (the rule every backend shares; Incus is the strictest).
pub fn check_name(name: &str) -> Result<()> {
    let hint = "use 1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending in '-'";
    let bytes = name.as_bytes();
    let fine = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if fine {
        Ok(())
    } else {
        Err(Error::invalid_hint(
            "name",
            format!("'{}' is not a sandbox name", name.escape_debug()),
            hint,
        ))
    }
}

/// A snapshot label: 1 to 63 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, starting with a letter or digit.
pub fn check_label(label: &str) -> Result<()> {
    let hint = "use 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or a digit";
    let bytes = label.as_bytes();
    let fine = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b));
    if fine {
        Ok(())
    } else {
        Err(Error::invalid_hint(
            "label",
            format!("'{}' is not a snapshot label", label.escape_debug()),
            hint,
        ))
    }
}
