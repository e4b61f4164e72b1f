//! `sandscript serve`: the process that keeps a backend open between commands. Commands start it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use clap::Args;

use super::background::Handed;
use super::{CommandError, Result};
use crate::backend::{self, local, session};

/// Keep a backend open for other commands, which connect to the socket that standard input is
#[derive(Args)]
pub struct Serve {}

impl Serve {
    pub fn call() -> Result {
        let started = || CommandError::usage("this is started by other commands, with a socket");
        let input = rustix::stdio::stdin();
        if !rustix::net::sockopt::socket_acceptconn(input).unwrap_or(false) {
            return Err(started());
        }
        local::cut_loose();
        let lost = |error: std::io::Error| CommandError::system("the session can't begin", &error);
        let listener = input.try_clone_to_owned().map_err(lost)?;
        let told = File::from(rustix::stdio::stdout().try_clone_to_owned().map_err(lost)?);
        let nothing = File::options().read(true).write(true).open("/dev/null").map_err(lost)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|error| lost(error.into()))?;
        rustix::stdio::dup2_stdout(&nothing).map_err(|error| lost(error.into()))?;
        // Who listens is this process from now on, for those who ask the kernel.
        rustix::net::listen(&listener, 128).map_err(|error| lost(error.into()))?;
        // Of its own, so that Ctrl-C in the terminal of the first command does not end it; and it holds no folder.
        let _ = rustix::process::setsid();
        std::env::set_current_dir("/").map_err(lost)?;
        let Handed { name, config, digest, place, idle } =
            serde_json::from_reader(told).map_err(|error| lost(error.into()))?;
        let own = fs::symlink_metadata(&place.socket).map(|meta| (meta.dev(), meta.ino())).ok();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(lost)?;
        runtime.block_on(async {
            let listener = UnixListener::from(listener);
            listener.set_nonblocking(true).map_err(lost)?;
            let listener = tokio::net::UnixListener::from_std(listener).map_err(lost)?;
            let opened = backend::open(&name, &config);
            let (backend, early) = match name.as_str() {
                // This program may have to be sent there first.
                "nspawn" => session::opening(&listener, opened).await,
                _ => (opened.await, Vec::new()),
            };
            let leave = || {
                let lock = place.locked();
                let now = fs::symlink_metadata(&place.socket).map(|meta| (meta.dev(), meta.ino()));
                // Another session may be in this one's place already.
                if lock.is_ok() && now.ok() == own {
                    let _ = fs::remove_file(&place.socket);
                }
            };
            let kept = session::Session { digest, backend, idle };
            session::serve_with(listener, early, kept, leave).await;
            Ok::<_, CommandError>(())
        })?;
        runtime.shutdown_background();
        Ok(0)
    }
}
