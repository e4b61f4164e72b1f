//! Keys that are pressed on the terminal.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::terminal::KeyMode;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Again,
    All,
    Failed,
    Help,
    Quit,
}

impl Key {
    fn of(byte: u8) -> Option<Key> {
        Some(match byte {
            b'\r' | b'\n' | b'r' => Key::Again,
            b'a' => Key::All,
            b'f' => Key::Failed,
            b'h' | b'?' => Key::Help,
            b'q' => Key::Quit,
            _ => return None,
        })
    }
}

/// The keys; the terminal is as it was when this is dropped.
pub(super) struct Keys {
    pressed: mpsc::UnboundedReceiver<Key>,
    resumed: Option<Signal>,
    mode: Option<KeyMode>,
}

impl Keys {
    /// Reads keys, where there is a terminal and it is ours.
    pub fn read() -> Keys {
        let (sender, pressed) = mpsc::unbounded_channel();
        let mode = KeyMode::enter();
        if mode.is_some() {
            // A read of the terminal can't be ended: the thread goes with the process.
            let reader = move || {
                let mut byte = [0];
                while let Ok(1) = std::io::stdin().read(&mut byte) {
                    if let Some(key) = Key::of(byte[0])
                        && sender.send(key).is_err()
                    {
                        return;
                    }
                }
            };
            let _ = std::thread::Builder::new().name("keys".into()).spawn(reader);
        }
        let resumed = mode.as_ref().and_then(|_| {
            signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).ok()
        });
        Keys { pressed, resumed, mode }
    }

    /// Whether there are any.
    pub fn are_read(&self) -> bool {
        self.mode.is_some()
    }

    /// The next key. Never, where none are read.
    pub async fn next(&mut self) -> Key {
        loop {
            let resumed = async {
                match &mut self.resumed {
                    Some(signal) => drop(signal.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                key = self.pressed.recv() => match key {
                    Some(key) => return key,
                    None => std::future::pending().await,
                },
                // The shell has set the terminal to its own taste meanwhile.
                () = resumed => self.mode.iter().for_each(KeyMode::again),
            }
        }
    }
}
