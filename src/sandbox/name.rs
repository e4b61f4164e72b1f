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

/// A path inside a sandbox is absolute and holds no NUL byte.
pub fn check_path(path: &str) -> Result<()> {
    if path.contains('\0') {
        return Err(Error::invalid("path", format!("'{}' holds a NUL byte", path.escape_debug())));
    }
    if !path.starts_with('/') {
        return Err(Error::invalid_hint(
            "path",
            format!("'{}' is not an absolute path in the sandbox", path.escape_debug()),
            "start it with '/'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_at_the_edges() {
        let longest = "a".repeat(63);
        for good in ["a", "a1", "a-b", "a--b", longest.as_str()] {
            check_name(good).unwrap();
        }
        let too_long = "a".repeat(64);
        for bad in
            ["", "1a", "-a", "a-", "A", "a_b", "a.b", "ä", "a/b", "..", "a\n", too_long.as_str()]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_at_the_edges() {
        for good in ["1", "a.b", "A_b-c", "v1.2.3-"] {
            check_label(good).unwrap();
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "a@b", "ä", "a\0"] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        check_path("/").unwrap();
        check_path("/a b/../c").unwrap();
        for bad in ["", "a", "./a", "/a\0b"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_a_dns_label(name in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?") {
            prop_assert!(check_name(&name).is_ok());
            prop_assert!(check_label(&name).is_ok());
        }

        #[test]
        fn accepted_names_are_safe_in_a_path_and_in_a_shell(name in any::<String>()) {
            if check_name(&name).is_ok() || check_label(&name).is_ok() {
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
                prop_assert!(!name.starts_with(['.', '-']) && name.len() <= 63);
            }
        }
    }
}
