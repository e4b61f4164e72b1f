//! Fork, clone, exec and signals.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Runs `body` in a forked child, which exits with its result. Call it only from a process with
/// one thread: the child then owns a whole, consistent copy of it.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the caller has one thread, so no lock can be held by a thread that the child lacks.
    let pid = check(unsafe { libc::fork() }.into())?;
    if pid == 0 {
        run_child(body);
    }
    child_pid(pid)
}

fn run_child(body: impl FnOnce() -> i32) -> ! {
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(70);
    exit_now(code)
}

/// Ends the process without running destructors or exit handlers of the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; nothing of this process is used afterwards.
    unsafe { libc::_exit(code) }
}

/// A checked process id.
fn child_pid(raw: i64) -> io::Result<Pid> {
    Pid::from_raw(raw as i32).ok_or_else(|| io::Error::other("the kernel gave process id 0"))
}

/// A child made by [`clone_with`].
pub struct Cloned {
    /// Its process id in the caller's namespace.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Namespaces of a sandbox: user, mount, pid, network, ipc, host name. That of cgroups is made once
/// process 1 is in its cgroup, which becomes its root.
pub const NEW_ALL: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS) as u64;

/// Like [`fork`], into new namespaces, as a child of the caller's parent, and in the version 2 cgroup
/// `birth`. `body` is told whether that worked.
pub fn clone_with(
    namespaces: u64,
    birth: Option<BorrowedFd<'_>>,
    body: impl FnOnce(bool) -> i32,
) -> io::Result<Cloned> {
    clone3(namespaces | libc::CLONE_PARENT as u64, 0, birth, body)
}

/// Like [`fork`], in the version 2 cgroup `birth`. `body` is told whether that worked.
pub fn fork_into(birth: Option<BorrowedFd<'_>>, body: impl FnOnce(bool) -> i32) -> io::Result<Pid> {
    Ok(clone3(0, libc::SIGCHLD as u64, birth, body)?.pid)
}

fn clone3(
    flags: u64,
    exit_signal: u64,
    birth: Option<BorrowedFd<'_>>,
    body: impl FnOnce(bool) -> i32,
) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal,
        ..CloneArgs::default()
    };
    if let Some(folder) = birth {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = folder.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork; `args` and `pidfd` outlive the call, and the caller
    // has one thread.
    let call = |args: &CloneArgs| unsafe {
        check(libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<CloneArgs>()))
    };
    let mut born = birth.is_some();
    let mut made = call(&args);
    if born && made.is_err() {
        born = false;
        args.flags &= !CLONE_INTO_CGROUP;
        made = call(&args);
    }
    let pid = made?;
    if pid == 0 {
        run_child(|| body(born));
    }
    // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned { pid: child_pid(pid)?, pidfd })
}

/// A pidfd of the calling process.
pub fn pidfd_of_self() -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// Executes a program; returns only on failure.
pub fn exec(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all three are NUL-terminated and live until the call returns or the image is gone.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Executes the program that a descriptor is open on, with an empty environment; returns only on failure.
pub fn execute(program: BorrowedFd<'_>, argv: &[&str]) -> io::Error {
    let words: Result<Vec<CString>, _> = argv.iter().map(|word| CString::new(*word)).collect();
    let Ok(words) = words else { return io::ErrorKind::InvalidInput.into() };
    let pointers: Vec<_> =
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let none = [std::ptr::null::<libc::c_char>()];
    // SAFETY: all strings are NUL-terminated, the lists end with a null pointer, and all of them live
    // until the call returns or the image is gone.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Sends a signal, given as a number; `pid` may be -1 for all but the caller.
pub fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Sends a signal to every process of the caller's pid namespace but itself.
pub fn kill_all(signal: i32) {
    let _ = send_signal(-1, signal);
}

/// Default handling and an empty mask for all signals, as a fresh program expects.
pub fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    unblock_signals();
}

/// An empty signal mask.
pub fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Whether other processes of the same user may look into this one.
pub fn set_dumpable(on: bool) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_long::from(on)) }.into()).map(drop)
}

/// Orphans below the caller become its children, and ended children vanish by themselves.
pub fn set_subreaper() -> io::Result<()> {
    // SAFETY: plain integers; SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).into()).map(drop)
    }
}

/// A session keyring of its own, so that the host user's keys stay outside.
pub fn new_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the null name asks for an anonymous keyring. Kernels without keyrings answer ENOSYS.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        );
    }
}

/// Makes the terminal the controlling one of the calling session.
pub fn set_controlling_tty(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Closes all descriptors above 2 but those given.
pub fn close_all_except(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut from: u32 = 3;
    for fd in keep.iter().filter(|fd| **fd >= 3) {
        let fd = *fd as u32;
        if fd > from {
            close_range(from, fd - 1);
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: called in a freshly forked child, which keeps no owner of the closed descriptors alive.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Marks the calling process and all it will start. RLIMIT_LOCKS has had no effect since Linux 2.5,
/// is inherited by every child, and can't be changed under the guest's system call filter: so it tells
/// which command a process belongs to, even after a double fork.
pub fn set_limit_tag(tag: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: tag, rlim_max: tag };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_LOCKS, &limit) }.into()).map(drop)
}

/// The mark of a process, as read from `/proc/PID/limits`.
pub fn tag_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max file locks"))?;
    line["Max file locks".len()..].split_whitespace().next()?.parse().ok()
}

/// Raises the soft limit on open files to the hard one: each running sandbox costs a descriptor.
pub fn set_no_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Writes everything of the file system that `fd` is on to its disk.
pub fn sync_file_system(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a valid descriptor for the length of the call.
    check(unsafe { libc::syncfs(fd.as_raw_fd()) }.into()).map(drop)
}

/// Has the kernel begin to write a file to its disk, and does not wait for it.
pub fn start_writing(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a valid descriptor for the length of the call.
    check(unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE).into()
    })
    .map(drop)
}

/// SIGCHLD as something to poll.
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks SIGCHLD and SIGTERM's default and opens the descriptor.
    pub fn child() -> io::Result<SignalFd> {
        // SAFETY: the set is initialised by sigemptyset; the descriptor is new and ours.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            check(fd.into())?;
            Ok(SignalFd(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Forgets the signals that have come.
    pub fn drain(&self) {
        let mut buffer = [0; 128 * 8];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Leaves the caller's namespaces for new ones.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(rustix::thread::UnshareFlags::FILES));
    // SAFETY: the table of descriptors stays shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Registers a descriptor with the runtime.
pub fn register(fd: OwnedFd, interest: tokio::io::Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as the `AsyncFd` has it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// What this process's children have taken that it has waited for, and theirs: microseconds of
/// processor time, and the most memory of one of them in bytes.
pub fn usage_of_children() -> (u64, u64) {
    // SAFETY: it is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole struct of our own.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) } != 0 {
        return (0, 0);
    }
    let micros = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    let kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
    (micros(usage.ru_utime) + micros(usage.ru_stime), kib << 10)
}
