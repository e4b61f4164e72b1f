//! The system call filters of another process, read from it and applied to the caller.

use std::io;

use rustix::process::Pid;

/// What ptrace is asked to do, as the kernel numbers it: the C libraries give these different types.
const DETACH: u32 = 17;
const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;
const SECCOMP_GET_FILTER: u32 = 0x420c;

/// Filters of a process, the oldest first.
pub struct Filters(Vec<Vec<libc::sock_filter>>);

/// Lets a traced process go on, with the signal that it was about to get.
struct Traced {
    pid: libc::pid_t,
    signal: libc::c_int,
}

impl Drop for Traced {
    fn drop(&mut self) {
        // SAFETY: plain integers; of a process that is gone it is refused.
        unsafe { libc::ptrace(DETACH as _, self.pid, 0, libc::c_long::from(self.signal)) };
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Filters {
    /// Those of a process, which stands still for a moment. It takes `CAP_SYS_ADMIN`, and a caller without filters.
    pub fn of(pid: Pid) -> io::Result<Filters> {
        let pid = pid.as_raw_nonzero().get();
        // SAFETY: plain integers; the process is looked at only while it is traced and stands still.
        check(unsafe { libc::ptrace(SEIZE as _, pid, 0, 0) })?;
        let mut traced = Traced { pid, signal: 0 };
        // SAFETY: as above.
        check(unsafe { libc::ptrace(INTERRUPT as _, pid, 0, 0) })?;
        let mut status = 0;
        // SAFETY: `status` is valid for the call.
        while unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        if !libc::WIFSTOPPED(status) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if status >> 16 == 0 {
            traced.signal = libc::WSTOPSIG(status);
        }
        let mut all = Vec::new();
        loop {
            match one(pid, all.len()) {
                Ok(filter) => all.push(filter),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
        all.reverse();
        Ok(Filters(all))
    }

    /// None.
    pub fn none() -> Filters {
        Filters(Vec::new())
    }

    /// Applies them to the caller, for good. It takes `CAP_SYS_ADMIN` or no_new_privs.
    pub fn apply(&self) -> io::Result<()> {
        for filter in &self.0 {
            let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
            let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
            // SAFETY: the kernel copies the program before the call returns; both live until then.
            check(unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const program,
                )
            })?;
        }
        Ok(())
    }
}

/// The one that was applied last but so many.
fn one(pid: libc::pid_t, index: usize) -> io::Result<Vec<libc::sock_filter>> {
    let get = |to: *mut libc::sock_filter| {
        // SAFETY: the process is traced; `to` is null, or has room for as many instructions as the first call said,
        // which don't change as long as it stands still.
        check(unsafe { libc::ptrace(SECCOMP_GET_FILTER as _, pid, index, to) })
    };
    let count = usize::try_from(get(std::ptr::null_mut())?).map_err(io::Error::other)?;
    let mut filter = vec![libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; count];
    get(filter.as_mut_ptr())?;
    Ok(filter)
}
