//! Process 1 of a sandbox: starts commands, reaps, freezes, seals, and ends with its run.
//!
//! It has one thread and never waits for the guest: whatever may block on the guest's files or
//! processes is done in a child.

mod account;
mod connection;
mod exec;
mod files;
mod freeze;
pub mod owner;
mod processes;
mod root;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, wait};

use self::connection::{Connection, Next};
use super::copy::copy_tree;
use super::net::{self, Inside};
use super::protocol::{Defaults, Doing, LET_GO, Reply, Request, Taken, Tree};
use super::sys;
use crate::sandbox::Exit;

pub use freeze::Freezer;
pub use root::{Stage, System, assemble, attach, enter, system_mounts, write_identity};

/// What process 1 works with.
pub struct Init {
    /// The control socket.
    pub listener: OwnedFd,
    /// Closes when the run ends.
    pub lifeline: Option<OwnedFd>,
    /// `cgroup.procs` of the commands' groups.
    pub payload: Vec<OwnedFd>,
    /// The version 2 cgroup folder that commands are born in.
    pub birth: Option<OwnedFd>,
    /// Freezes the commands.
    pub freezer: Freezer,
    /// Held open for their locks.
    #[expect(dead_code, reason = "held for their locks")]
    pub locks: Vec<OwnedFd>,
    /// Where the root is assembled.
    pub stage: Stage,
    /// The trees.
    pub trees: Vec<Tree>,
    /// The layers below `upper`, top first.
    pub layers: Vec<String>,
    /// The layer that is written to.
    pub upper: String,
    /// For commands that say nothing else.
    pub defaults: Defaults,
    /// The gate's sockets: whoever serves them may be replaced.
    pub gate: Option<Inside>,
    /// Compiled once.
    pub filter: sys::SyscallFilter,
}

impl Init {
    /// Serves until told to stop or the lifeline closes. The kernel then ends every process of the
    /// sandbox and drops its mounts.
    pub fn run(mut self) -> i32 {
        let code = match self.serve() {
            Ok(()) => 0,
            Err(_) => 70,
        };
        // The kernel would do it too, but after it has closed the connections that tell of the end.
        let _ = self.freezer.thaw();
        sys::kill_all(libc::SIGKILL);
        while wait(WaitOptions::empty()).is_ok() {}
        code
    }

    fn serve(&mut self) -> io::Result<()> {
        // The keeper lets its children vanish unseen; here their ends count.
        sys::reset_signals();
        let children = sys::SignalFd::child()?;
        let mut connections: Vec<Connection> = Vec::new();
        let mut tag = 1 << 40;
        let mut ending: Option<Instant> = None;
        loop {
            let mut ready = Vec::with_capacity(connections.len() + 3);
            {
                let held = self.freezer.held_by();
                let mut fds: Vec<PollFd<'_>> = vec![
                    PollFd::new(&self.listener, PollFlags::IN),
                    PollFd::new(&children, PollFlags::IN),
                ];
                // While a copy holds the sandbox still, others wait.
                fds.extend(connections.iter().map(|connection| {
                    let wanted = match held {
                        Some(id) if id != connection.id => PollFlags::empty(),
                        _ => PollFlags::IN,
                    };
                    PollFd::from_borrowed_fd(connection.socket.as_fd(), wanted)
                }));
                if let Some(lifeline) = &self.lifeline {
                    fds.push(PollFd::new(lifeline, PollFlags::IN));
                }
                let timeout = ending.map(|end| end.saturating_duration_since(Instant::now()));
                let timeout = timeout.map(|left| Timespec {
                    tv_sec: left.as_secs() as i64,
                    tv_nsec: left.subsec_nanos().into(),
                });
                match poll(&mut fds, timeout.as_ref()) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
                ready.extend(fds.iter().map(PollFd::revents));
            }
            if let Some(lifeline) = &self.lifeline
                && ready.pop().is_some_and(|events| !events.is_empty())
            {
                let mut word = [0];
                match rustix::io::read(lifeline, &mut word) {
                    Ok(1) if word == LET_GO => self.lifeline = None,
                    _ => return Ok(()),
                }
            }
            if !ready[1].is_empty() {
                children.drain();
            }
            self.reap(&mut connections);
            if let Some(end) = ending
                && (Instant::now() >= end || processes::count() == 0)
            {
                return Ok(());
            }
            let mut gone = Vec::new();
            for (index, events) in ready[2..].iter().enumerate() {
                if events.is_empty() {
                    continue;
                }
                tag += 1;
                match self.talk(&mut connections[index], tag) {
                    Ok(Next::Stay) => {}
                    Ok(Next::End { grace }) => ending = Some(Instant::now() + grace),
                    Ok(Next::Leave) | Err(_) => gone.push(index),
                }
            }
            for index in gone.into_iter().rev() {
                let connection = connections.swap_remove(index);
                self.hang_up(connection);
            }
            if !ready[0].is_empty() {
                use rustix::net::{SocketFlags, accept_with};
                while let Ok(socket) =
                    accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                {
                    tag += 1;
                    let mut connection = Connection::new(tag, socket);
                    // Most have said already what they want.
                    if self.freezer.held_by().is_none() && connection.has_spoken() {
                        tag += 1;
                        match self.talk(&mut connection, tag) {
                            Ok(Next::Stay) => {}
                            Ok(Next::End { grace }) => ending = Some(Instant::now() + grace),
                            Ok(Next::Leave) | Err(_) => {
                                self.hang_up(connection);
                                continue;
                            }
                        }
                    }
                    connections.push(connection);
                }
            }
        }
    }

    fn reap(&mut self, connections: &mut [Connection]) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = match status.terminating_signal() {
                Some(signal) => Exit::Signal(signal),
                None => Exit::Code(status.exit_status().unwrap_or(70)),
            };
            if let Some(connection) = connections.iter_mut().find(|c| c.command == Some(pid)) {
                connection.command = None;
                connection.ended = true;
                let reply = Reply::Exited { exit, taken: taken() };
                let _ = sys::send(connection.socket.as_fd(), &reply, &[]);
            }
        }
    }

    fn talk(&mut self, connection: &mut Connection, tag: u64) -> io::Result<Next> {
        let Some((request, fds)) = sys::receive::<Request>(connection.socket.as_fd())? else {
            return Ok(Next::Leave);
        };
        let reply = match request {
            Request::Exec(_) | Request::File(_) | Request::Seal { .. } if self.freezer.frozen() => {
                connection::frozen()
            }
            Request::Exec(exec) => return self.exec(connection, *exec, fds, tag),
            Request::File(request) => return self.work(connection, request, fds, tag),
            Request::Copy { to } => return self.copy(connection, &to),
            Request::Hold => match self.freezer.hold(connection.id) {
                Ok(()) => Reply::Ok,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Freeze => match self.freezer.freeze() {
                Ok(()) => Reply::Ok,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Thaw => match self.freezer.thaw() {
                Ok(()) => Reply::Ok,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Keep => {
                self.lifeline = None;
                Reply::Ok
            }
            Request::Kill => {
                if let Some(tag) = connection.tag {
                    processes::kill_tagged(tag);
                }
                Reply::Ok
            }
            Request::Signal(number) => {
                if let Some(pid) = connection.command {
                    let _ = sys::send_signal(pid.as_raw_nonzero().get(), number);
                }
                return Ok(Next::Stay);
            }
            Request::Status => Reply::Status {
                frozen: self.freezer.frozen(),
                processes: processes::count(),
                upper: self.upper.clone(),
                layers: self.layers.clone(),
            },
            Request::Usage => Reply::Usage(taken()),
            Request::Seal { layers, upper } => self.seal(&layers, &upper),
            Request::Stop { grace_ms } => return self.stop(connection, grace_ms),
            Request::Gate => return self.open_gate(connection),
            Request::Dial { to, from, protocol } => {
                let reply = match net::dial(to, from, protocol).doing("connecting to the guest") {
                    Ok(socket) => {
                        sys::send(connection.socket.as_fd(), &Reply::Ok, &[socket.as_fd()])?;
                        return Ok(Next::Stay);
                    }
                    Err(failure) => Reply::Failed(failure),
                };
                sys::send(connection.socket.as_fd(), &reply, &[])?;
                return Ok(Next::Stay);
            }
            Request::Owner(end) => Reply::Owner(owner::owner(&end)),
            Request::Commit | Request::Abandon => Reply::Ok,
        };
        sys::send(connection.socket.as_fd(), &reply, &[])?;
        Ok(Next::Stay)
    }

    /// Copies the upper layer in a child that is not one of the guest's processes.
    fn copy(&self, connection: &Connection, to: &str) -> io::Result<Next> {
        let socket = connection.socket.as_fd();
        sys::fork(|| {
            sys::unblock_signals();
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
            let copied = self.stage.enter().and_then(|()| {
                let layers = Path::new("/layers");
                copy_tree(&layers.join(&self.upper), &layers.join(to))
            });
            let reply = match copied {
                Ok(_) => Reply::Ok,
                Err(failure) => Reply::Failed(failure),
            };
            let _ = sys::send(socket, &reply, &[]);
            0
        })?;
        Ok(Next::Stay)
    }

    fn open_gate(&mut self, connection: &Connection) -> io::Result<Next> {
        if self.gate.is_none() {
            match net::enter_gate().doing("closing the sandbox's network but for the gate") {
                Ok(inside) => self.gate = Some(inside),
                Err(failure) => {
                    sys::send(connection.socket.as_fd(), &Reply::Failed(failure), &[])?;
                    return Ok(Next::Stay);
                }
            }
        }
        let sockets: Vec<BorrowedFd<'_>> = self.gate.iter().flat_map(Inside::all).collect();
        sys::send(connection.socket.as_fd(), &Reply::Ok, &sockets)?;
        Ok(Next::Stay)
    }

    fn seal(&mut self, layers: &[String], upper: &str) -> Reply {
        if processes::count() > 0 {
            return Reply::Alive;
        }
        match self.stage.switch(&self.trees, layers, &self.upper, upper) {
            Ok(()) => {
                self.layers = layers.to_vec();
                upper.clone_into(&mut self.upper);
                Reply::Ok
            }
            Err(failure) => Reply::Failed(failure),
        }
    }

    fn stop(&mut self, connection: &mut Connection, grace_ms: u64) -> io::Result<Next> {
        let pidfd = sys::pidfd_of_self()?;
        let grace = Duration::from_millis(grace_ms);
        if !grace.is_zero() {
            sys::kill_all(libc::SIGTERM);
        }
        let _ = self.freezer.thaw();
        // Whoever asked may not wait for the answer.
        let _ = sys::send(connection.socket.as_fd(), &Reply::Ok, &[pidfd.as_fd()]);
        Ok(Next::End { grace: if processes::count() == 0 { Duration::ZERO } else { grace } })
    }

    fn hang_up(&mut self, connection: Connection) {
        if self.freezer.held_by() == Some(connection.id) {
            let _ = self.freezer.thaw();
        }
        if let Some(tag) = connection.tag
            && !connection.detached
            && !connection.ended
        {
            processes::kill_tagged(tag);
        }
    }

    /// The `cgroup.procs` that a command has to join by itself.
    fn to_join(&self, born: bool) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.payload[..self.payload.len() - usize::from(born)].iter().map(AsFd::as_fd)
    }
}

fn taken() -> Taken {
    let (cpu, memory) = sys::usage_of_children();
    Taken { cpu, memory }
}
