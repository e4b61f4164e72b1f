//! Our standard input, passed on to a command for as long as that runs: what is typed after it is for
//! whoever comes next.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::sandbox::Process;

/// Reads for a command until it is dropped.
pub struct Feed {
    #[expect(dead_code, reason = "tells the reader that it is over by being closed")]
    stop: OwnedFd,
}

/// Passes our standard input on, when the command takes it.
pub fn feed(process: &mut Process) -> Option<Feed> {
    let mut stdin = process.stdin.take()?;
    let (over, stop) = pipe_with(PipeFlags::CLOEXEC).ok()?;
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(4);
    std::thread::spawn(move || read(&over, &sender));
    tokio::spawn(async move {
        while let Some(chunk) = chunks.recv().await {
            let written = async {
                stdin.write_all(&chunk).await?;
                stdin.flush().await
            };
            if written.await.is_err() {
                return;
            }
        }
        let _ = stdin.shutdown().await;
    });
    Some(Feed { stop })
}

/// Reads only what is there: a read that waits would take what is typed for the next one.
fn read(over: &OwnedFd, sender: &mpsc::Sender<Vec<u8>>) {
    let stdin = rustix::stdio::stdin();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut both = [
            PollFd::from_borrowed_fd(stdin, PollFlags::IN),
            PollFd::from_borrowed_fd(over.as_fd(), PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !both[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match rustix::io::read(stdin, &mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}
