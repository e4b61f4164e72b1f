//! Stands for a guest's process 1 where that is not ours: a process of the host's in the guest's network
//! namespace. It has the sockets that the gate serves, as [`super::init`] has them in sandboxes of this
//! backend, and ends with the guest.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::init::owner;
use super::net::{self, Inside};
use super::protocol::{Doing, Failure, Reply, Request};
use super::sys;

/// The name that one is executed under, by which it knows itself.
pub const ARGV0: &str = "sandscript:door";

/// Becomes one. It comes with the control socket, the namespace, and a descriptor of the guest's process 1.
pub fn serve() -> io::Result<()> {
    let listener = rustix::stdio::stdin().try_clone_to_owned()?;
    let namespace = rustix::stdio::stdout().try_clone_to_owned()?;
    let guest = rustix::stdio::stderr().try_clone_to_owned()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    net::loopback_up()?;
    // Who started it waits for this process only.
    sys::fork(|| {
        let _ = rustix::process::setsid();
        let _ = rustix::thread::set_name(c"sandscript-door");
        sys::close_all_except(&mut [listener.as_raw_fd(), guest.as_raw_fd()]);
        let bounded = sys::set_dumpable(false)
            .and_then(|()| Ok(rustix::thread::set_no_new_privs(true)?))
            .and_then(|()| sys::keep_network_capabilities());
        if bounded.is_err() {
            return 70;
        }
        sys::set_no_file_limit();
        let porter = Porter { gate: None };
        i32::from(porter.run(&listener, &guest).is_err())
    })?;
    Ok(())
}

struct Porter {
    gate: Option<Inside>,
}

impl Porter {
    /// Until the guest ends.
    fn run(mut self, listener: &OwnedFd, guest: &OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(listener, true)?;
        let mut connections: Vec<OwnedFd> = Vec::new();
        loop {
            let ready: Vec<bool> = {
                let all = [listener, guest].into_iter().chain(&connections);
                let mut fds: Vec<PollFd<'_>> =
                    all.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
                match poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
                fds.iter().map(|fd| !fd.revents().is_empty()).collect()
            };
            if ready[1] {
                return Ok(());
            }
            for at in (0..connections.len()).rev().filter(|at| ready[at + 2]) {
                if !self.talk(&connections[at]).unwrap_or(false) {
                    connections.swap_remove(at);
                }
            }
            if ready[0] {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                while let Ok(socket) = accept_with(listener, flags) {
                    connections.push(socket);
                }
            }
        }
    }

    /// Answers one request; whether there may be more.
    fn talk(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        let Some((request, _)) = sys::receive::<Request>(socket.as_fd())? else { return Ok(false) };
        let dialled;
        let (reply, sockets): (Reply, Vec<BorrowedFd<'_>>) = match request {
            Request::Gate => match self.gate() {
                Ok(inside) => (Reply::Ok, inside.all().collect()),
                Err(failure) => (Reply::Failed(failure), Vec::new()),
            },
            Request::Dial { to, from, protocol } => {
                match net::dial(to, from, protocol).doing("connecting to the guest") {
                    Ok(socket) => {
                        dialled = socket;
                        (Reply::Ok, vec![dialled.as_fd()])
                    }
                    Err(failure) => (Reply::Failed(failure), Vec::new()),
                }
            }
            Request::Owner(end) => (Reply::Owner(owner::owner(&end)), Vec::new()),
            _ => (Reply::Failed(Failure::new("a porter does not do this")), Vec::new()),
        };
        sys::send(socket.as_fd(), &reply, &sockets)?;
        Ok(true)
    }

    fn gate(&mut self) -> Result<&Inside, Failure> {
        let inside = match self.gate.take() {
            Some(inside) => inside,
            None => net::enter_gate().doing("closing the sandbox's network but for the gate")?,
        };
        Ok(self.gate.insert(inside))
    }
}
