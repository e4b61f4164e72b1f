//! Whose a connection is.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::backend::local::net;
use crate::backend::local::protocol::End;
use crate::sandbox::Protocol;

/// Nobody else is served meanwhile, and a guest may have as many processes and files as it likes: what is
/// not found in this time is not known. Nothing that is read here waits for the guest.
const LONGEST: Duration = Duration::from_millis(5);

/// The name of the program that has the guest's end of a connection.
pub fn owner(end: &End) -> Option<String> {
    let last = Instant::now() + LONGEST;
    let wanted = format!("socket:[{}]", inode(end, last)?);
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
        .collect();
    // Who has begun last is the likeliest; of those that share it, it is the one that does the work.
    pids.sort_unstable_by(|one, other| other.cmp(one));
    for pid in pids {
        for file in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if Instant::now() > last {
                return None;
            }
            let is = |link: std::path::PathBuf| link.as_os_str() == wanted.as_str();
            if fs::read_link(file.path()).is_ok_and(is) {
                return name(pid);
            }
        }
    }
    None
}

/// As the kernel has it: what a process says of itself may be anything.
fn name(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let text = String::from_utf8_lossy(&name);
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

fn inode(end: &End, last: Instant) -> Option<u64> {
    if end.protocol == Protocol::Tcp {
        return net::inode(end.from, end.to?).ok().map(u64::from);
    }
    ["/proc/net/udp", "/proc/net/udp6"].into_iter().find_map(|file| {
        let lines = BufReader::new(fs::File::open(file).ok()?).lines().map_while(Result::ok);
        lines.take_while(|_| Instant::now() < last).find_map(|line| inode_in(&line, end))
    })
}

/// The number of the socket that a line is about, if it is this end of it.
fn inode_in(line: &str, end: &End) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (from, to) = (socket(words.get(1)?)?, socket(words.get(2)?)?);
    let same = |own: SocketAddr, wanted: SocketAddr| {
        let any = own.ip().is_unspecified();
        own.port() == wanted.port() && (any || own.ip() == wanted.ip().to_canonical())
    };
    // One that is not connected sends to anybody.
    let other = end.to.is_none_or(|wanted| to.port() == 0 || same(to, wanted));
    if !same(from, end.from) || !other {
        return None;
    }
    words.get(9)?.parse().ok().filter(|inode| *inode != 0)
}

/// An address as these files write it: words of four bytes, each as this machine has it in memory.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let text = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(from: &str, to: &str) -> End {
        End { protocol: Protocol::Udp, from: from.parse().unwrap(), to: to.parse().ok() }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_as_the_kernel_lists_them() {
        let line =
            " 1: 020000C0:9C40 0A7100CB:01BB 01 00000000:00000000 00:00000000 00000000 0 0 77 1";
        let of = |from: &str, to: &str| inode_in(line, &end(from, to));
        assert_eq!(of("192.0.0.2:40000", "203.0.113.10:443"), Some(77));
        assert_eq!(of("192.0.0.2:40000", ""), Some(77));
        assert_eq!(of("192.0.0.2:40001", "203.0.113.10:443"), None);
        assert_eq!(of("192.0.0.2:40000", "203.0.113.10:80"), None);
        assert_eq!(of("192.0.0.2:40000", "203.0.113.11:443"), None);
        let mapped = " 1: 0000000000000000FFFF0000020000C0:9C40 \
                      0000000000000000FFFF00000A7100CB:01BB 01 0:0 0:0 0 0 0 78 1";
        let wanted = end("192.0.0.2:40000", "203.0.113.10:443");
        assert_eq!(inode_in(mapped, &wanted), Some(78));
        let alone = " 0: 00000000:9C40 00000000:0000 07 0:0 0:0 0 0 0 79 1";
        assert_eq!(inode_in(alone, &wanted), Some(79));
        for nonsense in ["", "x", " 0: 00:1 00:1", " 0: é2345678:1 00000000:0 1 1 1 1 1 1 1 1"] {
            assert_eq!(inode_in(nonsense, &wanted), None);
        }
    }
}
