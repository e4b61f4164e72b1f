//! The host keys that `known_hosts` files have for a host.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::Pins;
use super::config::matches;

/// Those of a host and its port, without those that are revoked. Files that are not there have none.
pub fn known_hosts(files: &[PathBuf], host: &str, port: u16) -> Pins {
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    of(texts, host, port)
}

/// Of some keys those that are not revoked for a host and its port.
pub fn not_revoked(pins: Pins, files: &[PathBuf], host: &str, port: u16) -> Pins {
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    pins.minus(&both(texts, host, port).1)
}

fn of(texts: impl Iterator<Item = String>, host: &str, port: u16) -> Pins {
    let (keys, revoked) = both(texts, host, port);
    keys.minus(&revoked)
}

/// Those of a host, and those that are revoked for it.
fn both(texts: impl Iterator<Item = String>, host: &str, port: u16) -> (Pins, Pins) {
    let host = host.to_ascii_lowercase();
    let name = match port {
        22 => host,
        port => format!("[{host}]:{port}"),
    };
    let (mut keys, mut revoked) = (String::new(), String::new());
    for text in texts {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let mut next = words.next().unwrap_or_default();
            let mark = next.starts_with('@').then_some(next);
            if mark.is_some() {
                next = words.next().unwrap_or_default();
            }
            if next.starts_with('#') || !is_for(next, &name) {
                continue;
            }
            let (Some(kind), Some(key)) = (words.next(), words.next()) else { continue };
            match mark {
                None => keys.push_str(&format!("{kind} {key}\n")),
                Some("@revoked") => revoked.push_str(&format!("{kind} {key}\n")),
                // Keys that an authority vouches for are not asked for.
                Some(_) => {}
            }
        }
    }
    (Pins::parse(&keys), Pins::parse(&revoked))
}

/// Whether a line begins with this name, plain, as a pattern or hashed.
fn is_for(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, name.as_bytes(), &hash).is_ok();
    }
    matches(&patterns.split(',').collect::<Vec<_>>(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn has(text: &str, host: &str, port: u16) -> bool {
        !of(std::iter::once(text.to_owned()), host, port).is_empty()
    }

    #[test]
    fn names_ports_patterns_and_hashes() {
        let plain = format!("# mine\nnas.lan,10.0.0.2 {KEY} comment\n");
        assert!(has(&plain, "NAS.lan", 22) && has(&plain, "10.0.0.2", 22));
        assert!(!has(&plain, "nas.lan", 2222) && !has(&plain, "nas", 22));
        assert!(has(&format!("[nas.lan]:2222 {KEY}"), "nas.lan", 2222));
        assert!(has(&format!("*.lan,!old.lan {KEY}"), "nas.lan", 22));
        assert!(!has(&format!("*.lan,!old.lan {KEY}"), "old.lan", 22));
        let salt = [7; 20];
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        let hash = hmac::sign(&key, b"[nas.lan]:2222");
        let line = format!("|1|{}|{} {KEY}", STANDARD.encode(salt), STANDARD.encode(hash));
        assert!(has(&line, "nas.lan", 2222) && !has(&line, "nas.lan", 22));
    }

    #[test]
    fn a_key_that_is_revoked_is_none() {
        assert!(!has(&format!("nas {KEY}\n@revoked * {KEY}\n"), "nas", 22));
        assert!(!has(&format!("@cert-authority * {KEY}\n"), "nas", 22));
    }
}
