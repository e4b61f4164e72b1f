//! Starting a command: everything between fork and exec.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::account::{self, Account};
use super::connection::{Connection, Next};
use super::{Init, sys};
use crate::backend::local::protocol::{Defaults, Doing, Exec, Failure, Refusal, Reply};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Init {
    /// Forks the command. Failures before its exec go over the status pipe, which the exec closes.
    pub(super) fn exec(
        &self,
        connection: &mut Connection,
        exec: Exec,
        fds: Vec<OwnedFd>,
        tag: u64,
    ) -> io::Result<Next> {
        let mut fds = fds.into_iter();
        let (Some(status), streams) = (fds.next(), fds.collect::<Vec<_>>()) else {
            return Ok(Next::Leave);
        };
        let wanted = if exec.tty.is_some() { 0 } else { 3 };
        if streams.len() != wanted {
            return Ok(Next::Leave);
        }
        connection.detached = exec.detached;
        connection.tag = Some(tag);
        let control = connection.socket.as_fd();
        let birth = self.birth.as_ref().map(AsFd::as_fd);
        let pid = sys::fork_into(birth, |born| {
            let reply = match self.join(tag, born) {
                Ok(()) => self.become_command(&exec, &streams, control, status.as_fd()),
                Err(failure) => Reply::Failed(failure),
            };
            let report = serde_json::to_vec(&reply).unwrap_or_default();
            let _ = rustix::io::write(&status, &report);
            127
        })?;
        connection.command = Some(pid);
        Ok(Next::Stay)
    }

    fn become_command(
        &self,
        exec: &Exec,
        streams: &[OwnedFd],
        control: BorrowedFd<'_>,
        status: BorrowedFd<'_>,
    ) -> Reply {
        match self.prepare(exec, streams, control, status) {
            Ok(reply) | Err(reply) => reply,
        }
    }

    fn prepare(
        &self,
        exec: &Exec,
        streams: &[OwnedFd],
        control: BorrowedFd<'_>,
        status: BorrowedFd<'_>,
    ) -> Result<Reply, Reply> {
        // Before any path of the guest's making is followed: it may lead through /proc/self/fd.
        let mut keep = vec![status.as_raw_fd(), control.as_raw_fd()];
        keep.extend(streams.iter().map(AsRawFd::as_raw_fd));
        sys::close_all_except(&mut keep);
        let user = exec.user.as_ref().or(self.defaults.user.as_ref());
        let account = account::look_up(user.map_or("0", String::as_str))?;
        rustix::process::setsid().doing("starting a session").map_err(Reply::Failed)?;
        match exec.tty {
            Some(size) => terminal(size, &account, control),
            None => redirect(streams),
        }
        .map_err(Reply::Failed)?;
        let env = environment(exec, &self.defaults, &account);
        become_user(&account)?;
        let cwd = exec.cwd.as_ref().or(self.defaults.cwd.as_ref());
        enter(cwd, &account.home)?;
        restrict(&self.filter).map_err(Reply::Failed)?;
        let mut keep = vec![status.as_raw_fd()];
        sys::close_all_except(&mut keep);
        let _ = rustix::io::write(status, b"+");
        Ok(replace(&exec.argv, &env))
    }

    /// Leaves init's cgroup for the commands', with the mark of a command.
    pub(super) fn join(&self, tag: u64, born: bool) -> Result<(), Failure> {
        sys::unblock_signals();
        for group in self.to_join(born) {
            rustix::io::write(group, b"0").doing("joining the cgroup")?;
        }
        sys::set_limit_tag(tag).doing("marking the process")?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(())
    }
}

/// Drops what a process of the guest may not do.
pub fn restrict(filter: &sys::SyscallFilter) -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).doing("setting no_new_privs")?;
    sys::apply_filter(filter).doing("applying the system call filter")
}

fn redirect(streams: &[OwnedFd]) -> Result<(), Failure> {
    rustix::stdio::dup2_stdin(&streams[0]).doing("connecting stdin")?;
    rustix::stdio::dup2_stdout(&streams[1]).doing("connecting stdout")?;
    rustix::stdio::dup2_stderr(&streams[2]).doing("connecting stderr")
}

fn terminal(size: (u16, u16), account: &Account, control: BorrowedFd<'_>) -> Result<(), Failure> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).doing("opening a terminal")?;
    rustix::pty::unlockpt(&master).doing("unlocking the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, flags).doing("opening the terminal's other end")?;
    let (rows, cols) = size;
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).doing("setting the terminal's size")?;
    let uid = rustix::fs::Uid::from_raw(account.uid);
    let _ = rustix::fs::fchown(&slave, Some(uid), None);
    sys::set_controlling_tty(slave.as_fd()).doing("taking the terminal")?;
    sys::send(control, &Reply::Ok, &[master.as_fd()]).doing("handing out the terminal")?;
    rustix::stdio::dup2_stdin(&slave).doing("connecting stdin")?;
    rustix::stdio::dup2_stdout(&slave).doing("connecting stdout")?;
    rustix::stdio::dup2_stderr(&slave).doing("connecting stderr")
}

fn environment(exec: &Exec, defaults: &Defaults, account: &Account) -> BTreeMap<String, String> {
    let shell = if account.shell.is_empty() { "/bin/sh" } else { &account.shell };
    let mut env: BTreeMap<String, String> = [
        ("PATH", PATH),
        ("HOME", &account.home),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", shell),
        ("LANG", "C.UTF-8"),
        ("container", "sandscript"),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value.into()))
    .collect();
    if exec.tty.is_some() {
        env.insert("TERM".into(), "xterm-256color".into());
    }
    env.extend(defaults.env.clone());
    env.extend(exec.env.clone());
    env
}

/// The highest user id that there is in this namespace.
fn last_id() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ends = map.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let first: u32 = words.next()?.parse().ok()?;
        Some(first + words.nth(1)?.parse::<u32>().ok()?.saturating_sub(1))
    });
    ends.max().unwrap_or(0)
}

fn become_user(account: &Account) -> Result<(), Reply> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(account.uid), rustix::fs::Gid::from_raw(account.gid));
    let unmapped = |error: rustix::io::Errno| match error {
        rustix::io::Errno::INVAL => Reply::Refused {
            code: Refusal::UnmappedUser,
            what: account.name.clone(),
            message: last_id().to_string(),
        },
        other => {
            Reply::Failed(Failure { what: "changing the user".into(), errno: other.raw_os_error() })
        }
    };
    sys::keep_guest_capabilities().doing("dropping capabilities").map_err(Reply::Failed)?;
    let groups: Vec<_> = account.groups.iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect();
    match set_thread_groups(&groups) {
        Ok(()) => {}
        // With a single-id map the kernel forbids it, and there is no other group anyway.
        Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) if account.uid == 0 => {}
        Err(rustix::io::Errno::PERM) => return Err(unmapped(rustix::io::Errno::INVAL)),
        Err(error) => return Err(unmapped(error)),
    }
    set_thread_res_gid(gid, gid, gid).map_err(unmapped)?;
    set_thread_res_uid(uid, uid, uid).map_err(unmapped)?;
    if account.uid != 0 {
        sys::drop_capabilities().doing("dropping capabilities").map_err(Reply::Failed)?;
    }
    Ok(())
}

fn enter(cwd: Option<&String>, home: &str) -> Result<(), Reply> {
    let Some(cwd) = cwd else {
        let _ = rustix::process::chdir(home).or_else(|_| rustix::process::chdir("/"));
        return Ok(());
    };
    rustix::process::chdir(cwd.as_str()).map_err(|error| Reply::Refused {
        code: match error {
            rustix::io::Errno::ACCESS => Refusal::Permission,
            rustix::io::Errno::NOENT => Refusal::NotFound,
            _ => Refusal::Invalid,
        },
        what: cwd.clone(),
        message: "is not a folder to work in".into(),
    })
}

/// Executes; what it returns is the failure.
fn replace(argv: &[String], env: &BTreeMap<String, String>) -> Reply {
    let c = |text: &str| CString::new(text).unwrap_or_default();
    let words: Vec<CString> = argv.iter().map(|word| c(word)).collect();
    let variables: Vec<CString> =
        env.iter().map(|(name, value)| c(&format!("{name}={value}"))).collect();
    let name = argv[0].as_str();
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.into()]
    } else {
        let path = env.get("PATH").map_or(PATH, String::as_str);
        path.split(':').filter(|dir| !dir.is_empty()).map(|dir| format!("{dir}/{name}")).collect()
    };
    let mut denied = false;
    let own = file_id("/proc/self/exe");
    for candidate in candidates {
        match file_id(&candidate) {
            // Until the exec, /proc/self/exe is this very program, a file of the host's.
            Ok(found) if own.as_ref().is_ok_and(|own| *own == found) => {
                denied = true;
                continue;
            }
            // To be told by a look costs far less than by trying.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            _ => {}
        }
        let error = sys::exec(&c(&candidate), &words, &variables);
        match error.raw_os_error() {
            // A script without an interpreter line is run by the shell, as execvp does.
            Some(libc::ENOEXEC) => {
                let mut shell = vec![c("sh"), c(&candidate)];
                shell.extend(words[1..].iter().cloned());
                return failed(&sys::exec(&c("/bin/sh"), &shell, &variables));
            }
            Some(libc::ENOENT | libc::ENOTDIR) => {
                // The file may be there and its interpreter missing.
                if fs::metadata(&candidate).is_ok_and(|metadata| metadata.is_file()) {
                    return Reply::Refused {
                        code: Refusal::NoProgram,
                        what: format!("{candidate} (its interpreter is missing)"),
                        message: String::new(),
                    };
                }
            }
            Some(libc::EACCES) => denied = true,
            _ => return failed(&error),
        }
    }
    let code = if denied { Refusal::Permission } else { Refusal::NoProgram };
    Reply::Refused { code, what: name.into(), message: String::new() }
}

fn failed(error: &io::Error) -> Reply {
    Reply::Failed(Failure {
        what: "executing the program".into(),
        errno: error.raw_os_error().unwrap_or(0),
    })
}

fn file_id(path: &str) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
