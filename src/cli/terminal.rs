//! The user's terminal while a guest's terminal is shown in it.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios};

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
