//! Running commands in a sandbox.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::pipe;

use super::control::answer;
use super::protocol::{Exec, Reply, Request};
use super::{Held, Inner, errors, sys};
use crate::sandbox::{
    Command, Error, Exit, Process, ProcessControl, Program, Reader, Result, Signal, Stdin,
    WindowSize, Writer,
};
use crate::transport::Link;

impl Inner {
    pub(super) async fn spawn(&self, name: &str, command: &Command) -> Result<Process> {
        crate::sandbox::check_name(name)?;
        command.check()?;
        self.revive_gate(name).await?;
        let request = Request::Exec(Box::new(Exec {
            argv: argv(command),
            env: command.env.clone(),
            cwd: command.cwd.clone(),
            user: command.user.clone(),
            tty: command.tty.map(|size| (size.rows, size.cols)),
            detached: command.detached,
        }));
        match command.tty {
            Some(_) => self.with_terminal(name, command, request).await,
            None => self.with_pipes(name, command, request).await,
        }
    }
}

fn argv(command: &Command) -> Vec<String> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match (&command.program, command.login) {
        (program, false) => program.argv(),
        (Program::Shell(line), true) => words(&["/bin/sh", "-l", "-c", line]),
        (Program::Argv(argv), true) => {
            let mut all = words(&["/bin/sh", "-l", "-c", "exec \"$@\"", "sh"]);
            all.extend(argv.iter().cloned());
            all
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("connecting a command's streams", error)
}

fn reader(fd: OwnedFd) -> Result<Reader> {
    Ok(Box::new(Stream { pipe: pipe::Receiver::from_owned_fd(fd).map_err(failed)?, read: 0 }))
}

/// Of a stream that gave so much the pipe is made larger: who prints much and who reads it then take
/// turns less often. Not before: the kernel grants a user only so much of it.
const MUCH: usize = 256 << 10;
const LARGE: usize = 512 << 10;

/// What a command prints.
struct Stream {
    pipe: pipe::Receiver,
    read: usize,
}

impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut self.pipe).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        if self.read < MUCH && self.read + count >= MUCH {
            // Without it everything goes on as it was.
            let _ = rustix::pipe::fcntl_setpipe_size(&self.pipe, LARGE);
        }
        self.read = self.read.saturating_add(count);
        polled
    }
}

impl Inner {
    async fn with_pipes(&self, name: &str, command: &Command, request: Request) -> Result<Process> {
        let pair =
            || std::io::pipe().map(|(r, w)| (OwnedFd::from(r), OwnedFd::from(w))).map_err(failed);
        let (status, status_writer) = pair()?;
        let (stdout, stdout_writer) = pair()?;
        let (stderr, stderr_writer) = pair()?;
        let (stdin, stdin_writer) = match command.stdin {
            Stdin::Null => (std::fs::File::open("/dev/null").map_err(failed)?.into(), None),
            _ => {
                let (stdin, writer) = pair()?;
                (stdin, Some(writer))
            }
        };
        // Last, so that init is woken once, by both.
        let mut link = self.connect_running(name).await?;
        let fds =
            [status_writer.as_fd(), stdin.as_fd(), stdout_writer.as_fd(), stderr_writer.as_fd()];
        link.send(&request, &fds).await?;
        drop((status_writer, stdin, stdout_writer, stderr_writer));
        started(name, &mut link, status).await?;
        let stdin = stdin_writer.map(pipe::Sender::from_owned_fd).transpose().map_err(failed)?;
        Ok(Process {
            stdin: feed(stdin, &command.stdin),
            stdout: Some(reader(stdout)?),
            stderr: Some(reader(stderr)?),
            pid: None,
            control: Box::new(self.control(name, link, None)),
        })
    }

    async fn with_terminal(
        &self,
        name: &str,
        command: &Command,
        request: Request,
    ) -> Result<Process> {
        let (status, status_writer) = std::io::pipe().map_err(failed)?;
        let mut link = self.connect_running(name).await?;
        link.send(&request, &[status_writer.as_fd()]).await?;
        drop(status_writer);
        started(name, &mut link, status.into()).await?;
        let (_, mut fds) = answer(&mut link, name).await?;
        let master = fds.pop().ok_or_else(|| Error::internal("the command has no terminal"))?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(failed);
        let terminal = copy(&master)?;
        let input = Terminal::new(copy(&master)?)?;
        Ok(Process {
            stdin: match command.stdin {
                Stdin::Null => None,
                _ => feed(Some(input), &command.stdin),
            },
            stdout: Some(Box::new(Terminal::new(master)?)),
            stderr: None,
            pid: None,
            control: Box::new(self.control(name, link, Some(terminal))),
        })
    }

    fn control(&self, name: &str, link: Link, terminal: Option<OwnedFd>) -> Control {
        Control { name: name.into(), link, exit: None, terminal, held: Arc::clone(&self.held) }
    }
}

/// Waits until the program is executed, which closes its status pipe.
async fn started(name: &str, link: &mut Link, status: OwnedFd) -> Result<()> {
    let mut status = pipe::Receiver::from_owned_fd(status).map_err(failed)?;
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut status, &mut bytes).await.map_err(failed)?;
    // A plus sign is the child's last word before the exec; what follows is why that failed.
    let report = match &bytes[..] {
        b"+" => return Ok(()),
        [b'+', report @ ..] => report,
        report => report,
    };
    if report.is_empty() {
        // Nothing was forked: init has refused, or is gone.
        answer(link, name).await?;
        return Err(Error::Transport {
            message: format!("sandbox '{name}' did not start the command"),
        });
    }
    match serde_json::from_slice::<Reply>(report) {
        Ok(Reply::Refused { code, what, message }) => {
            Err(errors::from_refusal(name, code, what, message))
        }
        Ok(Reply::Failed(failure)) => Err(failure.into()),
        _ => Err(Error::internal("the command's start reported nonsense")),
    }
}

/// Feeds given bytes from a task of its own; a piped stdin is the caller's.
fn feed<W>(writer: Option<W>, stdin: &Stdin) -> Option<Writer>
where
    W: tokio::io::AsyncWrite + Send + Sync + Unpin + 'static,
{
    let mut writer = writer?;
    match stdin {
        Stdin::Bytes(bytes) => {
            let bytes = bytes.clone();
            // The command may end without reading: that is its right.
            tokio::spawn(async move { writer.write_all(&bytes).await });
            None
        }
        _ => Some(Box::new(writer)),
    }
}

struct Control {
    name: String,
    link: Link,
    exit: Option<Exit>,
    terminal: Option<OwnedFd>,
    held: Arc<Mutex<Held>>,
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&mut self) -> Result<Exit> {
        while self.exit.is_none() {
            match answer(&mut self.link, &self.name).await? {
                (Reply::Exited { exit, taken }, _) => {
                    self.exit = Some(exit);
                    let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(own) = held.own.get_mut(&self.name) {
                        own.taken = Some(taken);
                    }
                }
                _ => continue,
            }
        }
        self.exit.ok_or(Error::Cancelled)
    }

    async fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.link.send(&Request::Signal(signal.0), &[]).await
    }

    async fn kill(&mut self) -> Result<()> {
        // Also after its own end: what it left in the background goes too.
        match self.link.send(&Request::Kill, &[]).await {
            Err(Error::Transport { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn resize(&mut self, size: WindowSize) -> Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let size = rustix::termios::Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(terminal, size).map_err(|error| failed(error.into()))
    }
}

/// The host's end of a terminal.
struct Terminal(tokio::io::unix::AsyncFd<OwnedFd>);

impl Terminal {
    fn new(fd: OwnedFd) -> Result<Terminal> {
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| failed(error.into()))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Terminal(sys::register(fd, interest).map_err(failed)?))
    }
}

impl tokio::io::AsyncRead for Terminal {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|fd| Ok(rustix::io::read(fd, unfilled)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return std::task::Poll::Ready(Ok(()));
                }
                // The last holder of the other end has closed it: the end of the stream.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return std::task::Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return std::task::Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl tokio::io::AsyncWrite for Terminal {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                return std::task::Poll::Ready(result);
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
