//! Which addresses a sandbox has: one of many small networks, held by a lock on a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Networks of 16384 sandboxes each, rare ones first; one that the host has a route into is left alone.
const RANGES: &[[u8; 2]] = &[[10, 213], [172, 29], [100, 117], [10, 87], [172, 21], [192, 168]];

/// The networks in a range: four addresses each.
const SLOTS: u32 = 1 << 14;

/// A sandbox's network, its own as long as somebody holds the lock.
#[derive(Debug)]
pub struct Lease {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The host's end.
    pub gateway: Ipv4Addr,
    /// To be kept open by the sandbox's init: when the last holder ends, the lease ends.
    pub lock: OwnedFd,
}

/// Takes a free network. The lock files are in `folder`, which all stores of this machine's root share.
pub fn lease(folder: &Path, sandbox: &str) -> io::Result<Lease> {
    fs::create_dir_all(folder)?;
    let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let hash = blake3::hash(sandbox.as_bytes());
    let start = hash.as_bytes()[..4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    for [a, b] in RANGES.iter().filter(|range| free(&routes, **range)) {
        for step in 0..SLOTS {
            let slot = start.wrapping_add(step) % SLOTS;
            let base = u32::from(Ipv4Addr::new(*a, *b, 0, 0)) + slot * 4;
            let (gateway, address) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
            let path = folder.join(address.to_string());
            let Some(mut file) = lock(&path)? else { continue };
            if super::link::index(&super::link_name(address)).is_ok() {
                super::detach(address)?;
            }
            file.set_len(0)?;
            file.write_all(sandbox.as_bytes())?;
            return Ok(Lease { address, gateway, lock: file.into() });
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no private network is free on this host"))
}

/// The file, locked; none when somebody else holds it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        // The file that was locked may have been deleted meanwhile by whoever collects.
        Ok(()) => {
            use std::os::unix::fs::MetadataExt;
            let same = path
                .metadata()
                .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
            Ok(same.then_some(file))
        }
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Takes away what is left of sandboxes that ended: tables, interfaces, lock files. How many.
pub fn collect(folder: &Path) -> io::Result<usize> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(0) };
    let mut count = 0;
    for entry in entries.flatten() {
        let Ok(address) = entry.file_name().to_string_lossy().parse::<Ipv4Addr>() else { continue };
        let Some(_held) = lock(&entry.path())? else { continue };
        super::detach(address)?;
        fs::remove_file(entry.path())?;
        count += 1;
    }
    Ok(count)
}

/// Whether the host has no route into a range, other than to a sandbox.
fn free(routes: &str, range: [u8; 2]) -> bool {
    let wide = u32::from(Ipv4Addr::new(255, 255, 0, 0));
    let range = u32::from(Ipv4Addr::new(range[0], range[1], 0, 0));
    routes.lines().skip(1).all(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            fields.get(at).and_then(|text| u32::from_str_radix(text, 16).ok()).map(u32::swap_bytes)
        };
        let (Some(to), Some(mask)) = (number(1), number(7)) else { return true };
        let ours = fields.first().is_some_and(|link| link.starts_with(super::LINK_PREFIX));
        mask == 0 || ours || to & mask & wide != range & mask & wide
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_with_routes_are_left_alone() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let route = |link: &str, to: &str, mask: &str| {
            format!("{head}{link}\t{to}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        assert!(free(&route("eth0", "00000000", "00000000"), [10, 213]));
        assert!(free(&route("eth0", "0000A8C0", "00FFFFFF"), [10, 213]));
        assert!(!free(&route("eth0", "0100D50A", "00FFFFFF"), [10, 213]));
        assert!(!free(&route("vpn0", "0000000A", "000000FF"), [10, 213]));
        assert!(free(&route("ss0ad50102", "0001D50A", "FCFFFFFF"), [10, 213]));
    }
}
