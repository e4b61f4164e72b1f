//! System calls that guests have no use for, beside those that the server denies them anyway.

use std::fmt::Write;

/// The key that says so.
pub(super) const DENY: &str = "security.syscalls.deny";

/// Kinds of sockets that are a network namespace's own: unix, IPv4, IPv6, netlink, packet. By others a guest
/// talks past its network: by vsock, a virtual machine talks to its host.
const FAMILIES: [u32; 5] = [1, 2, 10, 16, 17];
/// The highest kind that is denied by its number.
const LAST: u32 = 45;

/// The rules, in the words of LXC: those of one call are tried one by one.
pub(super) fn rules() -> String {
    let mut rules = String::new();
    for family in (0..=LAST).filter(|family| !FAMILIES.contains(family)) {
        let _ = writeln!(rules, "socket errno 1 [0,{family},SCMP_CMP_EQ]");
    }
    let _ = writeln!(rules, "socket errno 1 [0,{LAST},SCMP_CMP_GT]");
    // Its arguments are out of a filter's sight. Only 32-bit programs have it, and a call of its own, too.
    rules.push_str("socketcall errno 1 [0,1,SCMP_CMP_EQ]\n");
    // It makes sockets of any kind by itself.
    for call in ["enter", "register", "setup"] {
        let _ = writeln!(rules, "io_uring_{call} errno 1");
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_but_those_is_denied() {
        let rules = rules();
        let denied = |family: u32| rules.contains(&format!("socket errno 1 [0,{family},"));
        for family in 0..=LAST {
            assert_eq!(denied(family), !FAMILIES.contains(&family) || family == LAST, "{family}");
        }
        assert!(denied(40) && rules.lines().all(|line| !line.is_empty()));
    }
}
