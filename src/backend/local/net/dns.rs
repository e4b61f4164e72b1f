//! Which name servers a guest asks.

use std::net::IpAddr;

/// A `resolv.conf` for a guest: the host's, without servers that only the host can reach. Where
/// the host asks a resolver of its own, that resolver's servers.
pub fn resolv_conf() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let usable = files.iter().map(|path| reachable(&read(path)));
    usable.into_iter().find(|text| text.contains("nameserver ")).unwrap_or_default()
}

fn reachable(text: &str) -> String {
    let keep = |line: &&str| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            // The guest has no IPv6.
            (Some("nameserver"), Some(server)) => server
                .parse::<IpAddr>()
                .is_ok_and(|server| server.is_ipv4() && !server.is_loopback()),
            (Some("search" | "domain" | "options"), _) => true,
            _ => false,
        }
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn loopback_servers_are_left_out() {
        let text =
            "# made by x\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver ::1\nsearch a b\n";
        assert_eq!(reachable(text), "nameserver 9.9.9.9\nsearch a b\n");
    }
}
