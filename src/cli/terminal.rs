//! The user's terminal while a guest's terminal is shown in it.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use crate::sandbox::WindowSize;

/// The terminal in raw mode; back as it was when dropped.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Every key goes to the guest, Ctrl-C too. `None` when stdin is no terminal.
    pub fn enter() -> io::Result<Option<RawMode>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(RawMode { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal so that keys come one by one and unseen; Ctrl-C stays a signal. Back as it was when
/// dropped.
pub struct KeyMode {
    mode: Termios,
}

/// How the terminal was before [`KeyMode`].
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

impl KeyMode {
    /// `None` when stdin or stderr is no terminal, or it belongs to another job.
    pub fn enter() -> Option<KeyMode> {
        let stdin = io::stdin();
        let ours = || Some(termios::tcgetpgrp(&stdin).ok()? == rustix::process::getpgrp());
        if !stdin.is_terminal() || !io::stderr().is_terminal() || ours() != Some(true) {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut mode = before.clone();
        mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(&stdin, OptionalActions::Now, &mode).ok()?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        Some(KeyMode { mode })
    }

    /// Once more, where somebody else has changed it.
    pub fn again(&self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.mode);
    }
}

impl Drop for KeyMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Sets the terminal as it was before [`KeyMode`]: for a process that ends at once.
pub fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// The terminal's modes as they are now; set again when dropped, whatever became of them.
pub struct Modes(Option<Termios>);

impl Modes {
    /// Remembers them, where there is a terminal.
    pub fn now() -> Modes {
        Modes(termios::tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// The size of the user's terminal; 24 × 80 where there is none.
pub fn window_size() -> WindowSize {
    let size = termios::tcgetwinsize(io::stdout())
        .or_else(|_| termios::tcgetwinsize(io::stdin()))
        .ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    match size {
        Some(size) => WindowSize { rows: size.ws_row, cols: size.ws_col },
        None => WindowSize { rows: 24, cols: 80 },
    }
}
