//! The way into a machine.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Gid, Uid};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, wait};
use rustix::thread::{ThreadNameSpaceType as Space, move_into_thread_name_spaces};

use super::bounds::{Bounds, take_limits};
use super::{ARGV0, Enter, Entered, groups};
use crate::backend::local::init::Init;
use crate::backend::local::keeper::execute_read_only;
use crate::backend::local::protocol::{Doing, Failure};
use crate::backend::local::record::started;
use crate::backend::local::sys;

/// Says that this is the program as a file which no guest can write to.
const AGAIN: &str = "again";

/// What stands between here and a machine.
struct Way {
    leader: OwnedFd,
    /// Namespaces of its own, but that of processes, which only children come into.
    spaces: Space,
    groups: Vec<OwnedFd>,
    bounds: Bounds,
}

/// Has a process in a machine that serves at the socket which came as standard input; tells by standard output
/// whether it does. It stays outside to take note of that one's end: a machine can't end before somebody has.
pub fn serve() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (order, again) = (args.next().unwrap_or_default(), args.next().is_some());
    let enter: Enter = serde_json::from_str(&order)?;
    if !again && !is_other(enter.leader, "user")? {
        // Its root could write to a file of the host's.
        let failure = execute_read_only(&[ARGV0, &order, AGAIN]);
        sys::send(rustix::stdio::stdout(), &Entered::Failed(failure), &[])?;
        return Ok(());
    }
    let listener = rustix::stdio::stdin().try_clone_to_owned()?;
    let told = rustix::stdio::stdout().try_clone_to_owned()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    // Ctrl-C in the caller's terminal is the caller's business.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"sandscript-wait");
    sys::reset_signals();
    rustix::io::ioctl_fionbio(&listener, true)?;
    let forked = prepare(&enter).and_then(|way| {
        sys::fork(|| inside(&way, listener, told.try_clone())).doing("starting a process")
    });
    if let Err(failure) = forked {
        sys::send(&told, &Entered::Failed(failure), &[])?;
        return Ok(());
    }
    sys::close_all_except(&mut []);
    while wait(WaitOptions::empty()).is_ok() {}
    // All of them are closed already.
    sys::exit_now(0)
}

/// Whether a process has another namespace of this kind than the caller.
fn is_other(pid: i32, kind: &str) -> io::Result<bool> {
    let of = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|found| found.ino());
    Ok(of(&pid.to_string())? != of("self")?)
}

/// What takes the rights that this process has here.
fn prepare(enter: &Enter) -> Result<Way, Failure> {
    let gone = || Failure { what: "the machine is gone".into(), errno: libc::ESRCH };
    let pid = Pid::from_raw(enter.leader).ok_or_else(gone)?;
    let leader = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    // Nobody but a child of its parent's could have its id from here on.
    if started(enter.leader) != Some(enter.started) {
        return Err(gone());
    }
    let mut spaces = Space::empty();
    for (kind, space) in [
        ("user", Space::USER),
        ("mnt", Space::MOUNT),
        ("net", Space::NETWORK),
        ("uts", Space::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("ipc", Space::INTER_PROCESS_COMMUNICATION),
        ("cgroup", Space::CONTROL_GROUP),
    ] {
        if is_other(enter.leader, kind).doing("looking at the machine's namespaces")? {
            spaces |= space;
        }
    }
    let bounds = Bounds::of(pid)?;
    let groups = groups::of(enter.leader).doing("looking at the machine's cgroups")?;
    take_limits(enter.leader).doing("taking the machine's limits")?;
    sys::new_session_keyring();
    // Before the machine sees it.
    sys::set_dumpable(false).doing("hiding what runs commands")?;
    if is_other(enter.leader, "pid").doing("looking at the machine's namespaces")? {
        move_into_thread_name_spaces(leader.as_fd(), Space::PROCESS_ID)
            .doing("entering the machine's processes")?;
    }
    Ok(Way { leader, spaces, groups, bounds })
}

/// The rest of the way, as one of the machine's processes; then what it is for.
fn inside(way: &Way, listener: OwnedFd, told: io::Result<OwnedFd>) -> i32 {
    let Ok(told) = told else { return 70 };
    match go(way, &listener, &told) {
        Ok(()) if sys::send(&told, &Entered::Ok, &[]).is_ok() => {
            drop(told);
            Init::agent(listener).run()
        }
        Ok(()) => 70,
        Err(failure) => {
            let _ = sys::send(&told, &Entered::Failed(failure), &[]);
            70
        }
    }
}

fn go(way: &Way, listener: &OwnedFd, told: &OwnedFd) -> Result<(), Failure> {
    let _ = rustix::thread::set_name(c"sandscript-exec");
    let _ = rustix::process::setsid();
    for group in &way.groups {
        rustix::io::write(group, b"0").doing("joining the machine's cgroups")?;
    }
    if !way.spaces.is_empty() {
        move_into_thread_name_spaces(way.leader.as_fd(), way.spaces)
            .doing("entering the machine")?;
    }
    rustix::process::chdir("/").doing("entering the machine")?;
    let what = "becoming the machine's root";
    rustix::thread::set_thread_groups(&[]).doing(what)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(what)?;
    way.bounds.apply()?;
    // Changes of users and capabilities may have undone it.
    sys::set_dumpable(false).doing("hiding what runs commands")?;
    sys::close_all_except(&mut [listener.as_raw_fd(), told.as_raw_fd()]);
    Ok(())
}
