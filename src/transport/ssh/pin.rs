//! The host keys that a machine may show.

use russh::keys::{Algorithm, HashAlg, PublicKey};

/// The SHA-256 of each host key that is right, as `ssh-keygen -l` shows them, and its kind where that is known.
#[derive(Clone, Debug, Default)]
pub struct Pins(Vec<(String, Option<Algorithm>)>);

impl PartialEq for Pins {
    /// Of which kind they are says nothing more.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|(pin, _)| pin).eq(other.0.iter().map(|(pin, _)| pin))
    }
}

impl Pins {
    /// Reads host keys, one a line as in `/etc/ssh/ssh_host_ed25519_key.pub`, or their fingerprints as in
    /// `SHA256:…`. What is neither is left out.
    pub fn parse(text: &str) -> Pins {
        let pin = |line: &str| match line.strip_prefix("SHA256:") {
            Some(hash) => {
                let hash = hash.trim_end_matches('=');
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
                let right = hash.len() == 43 && hash.chars().all(plain);
                right.then(|| (format!("SHA256:{hash}"), None))
            }
            None => {
                let key = PublicKey::from_openssh(line).ok()?;
                Some((key.fingerprint(HashAlg::Sha256).to_string(), Some(key.algorithm())))
            }
        };
        Pins(text.lines().filter_map(|line| pin(line.trim())).collect())
    }

    /// Those that are not among the others.
    pub(super) fn minus(mut self, others: &Pins) -> Pins {
        self.0.retain(|(pin, _)| others.0.iter().all(|(other, _)| other != pin));
        self
    }

    /// The kinds of host keys that a server is asked for: first those of which one is known.
    pub(super) fn kinds(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let known = |kind: &&Algorithm| self.0.iter().any(|(_, own)| own.as_ref() == Some(*kind));
        let first = all.iter().filter(known);
        first.chain(all.iter().filter(|kind| !known(kind))).cloned().collect()
    }

    /// Whether only RSA keys are known: a server that has others shows one of those, and RSA can't be checked here.
    pub fn only_rsa(&self) -> bool {
        let rsa = |kind: &Option<Algorithm>| matches!(kind, Some(Algorithm::Rsa { .. }));
        !self.is_empty() && self.0.iter().all(|(_, kind)| rsa(kind))
    }

    /// Whether nobody would be right.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, without one that has this SHA-256.
    pub fn without(mut self, key: &str) -> Pins {
        self.0.retain(|(pin, _)| pin != key);
        self
    }

    pub(super) fn has(&self, key: &PublicKey) -> bool {
        let shown = key.fingerprint(HashAlg::Sha256).to_string();
        self.0.iter().any(|(pin, _)| *pin == shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_fingerprints_are_the_same_pins() {
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ a@b";
        let pins = Pins::parse(&format!("{line}\nnonsense\n\n"));
        let shown = pins.0[0].0.clone();
        assert!(shown.starts_with("SHA256:"), "{shown}");
        assert_eq!(Pins::parse(&format!("  {shown}=\n")), pins);
        assert!(pins.has(&PublicKey::from_openssh(line).unwrap()));
        assert!(
            pins.clone().without(&shown).is_empty() && pins.clone().without("SHA256:x") == pins
        );
        for nothing in ["", "SHA256:", "SHA256:short", "MD5:aa:bb", "ssh-ed25519 AAAA"] {
            assert!(Pins::parse(nothing).is_empty(), "{nothing}");
        }
    }
}
