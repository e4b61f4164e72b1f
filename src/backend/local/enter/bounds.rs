//! What a machine's processes may do, read from its process 1.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, setrlimit};

use crate::backend::local::protocol::{Doing, Failure};
use crate::backend::local::sys;

/// What commands may open, where the machine's init may open more: as systemd has it for services.
const FILES: u64 = 524_288;

/// It.
pub struct Bounds {
    /// Capabilities, as bits.
    pub capabilities: u64,
    /// Whether nobody gains rights by a program that is setuid.
    pub no_new_privileges: bool,
    /// Its system call filters.
    pub filters: sys::Filters,
}

impl Bounds {
    /// Those of a machine whose process 1 this is.
    pub fn of(leader: Pid) -> Result<Bounds, Failure> {
        let path = format!("/proc/{leader}/status");
        let status = fs::read_to_string(path).doing("looking at the machine")?;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim)
        };
        let capabilities = field("CapBnd").and_then(|bits| u64::from_str_radix(bits, 16).ok());
        let filters = match field("Seccomp") {
            Some("0") | None => sys::Filters::none(),
            Some(_) => {
                sys::Filters::of(leader).doing("reading the machine's system call filters")?
            }
        };
        Ok(Bounds {
            capabilities: capabilities
                .ok_or_else(|| Failure::new("the machine's capabilities are unknown"))?,
            no_new_privileges: field("NoNewPrivs") == Some("1"),
            filters,
        })
    }

    /// Has the caller, which is root of the machine's users, held to them.
    pub fn apply(&self) -> Result<(), Failure> {
        sys::bound_capabilities_to(self.capabilities).doing("dropping capabilities")?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).doing("setting no_new_privs")?;
        }
        self.filters.apply().doing("applying the machine's system call filters")?;
        sys::set_capabilities_to(self.capabilities).doing("dropping capabilities")
    }
}

/// Gives the caller the limits of a machine's process 1, as far as it may: it has those of whoever started it.
pub fn take_limits(leader: i32) -> io::Result<()> {
    let table = fs::read_to_string(format!("/proc/{leader}/limits"))?;
    for (name, resource) in [
        ("Max cpu time", Resource::Cpu),
        ("Max file size", Resource::Fsize),
        ("Max data size", Resource::Data),
        ("Max stack size", Resource::Stack),
        ("Max core file size", Resource::Core),
        ("Max resident set", Resource::Rss),
        ("Max processes", Resource::Nproc),
        ("Max open files", Resource::Nofile),
        ("Max locked memory", Resource::Memlock),
        ("Max address space", Resource::As),
        ("Max pending signals", Resource::Sigpending),
        ("Max msgqueue size", Resource::Msgqueue),
        ("Max nice priority", Resource::Nice),
        ("Max realtime priority", Resource::Rtprio),
        ("Max realtime timeout", Resource::Rttime),
    ] {
        let Some(rest) = table.lines().find_map(|line| line.strip_prefix(name)) else { continue };
        let mut words = rest.split_whitespace();
        let mut next = || words.next().map(|word| word.parse::<u64>().ok());
        let (Some(mut current), Some(mut maximum)) = (next(), next()) else { continue };
        if resource == Resource::Nofile {
            maximum = Some(maximum.map_or(FILES, |own| own.min(FILES)));
            current = maximum;
        }
        let _ = setrlimit(resource, Rlimit { current, maximum });
    }
    // A host's service may be one that memory is never taken from.
    let score = fs::read_to_string(format!("/proc/{leader}/oom_score_adj"))?;
    let _ = fs::write("/proc/self/oom_score_adj", score);
    Ok(())
}
