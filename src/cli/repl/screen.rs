//! What is told while somebody may be typing.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::editor::Printer;

/// Writes to the terminal: above the prompt, while there is one.
#[derive(Clone, Default)]
pub struct Screen(Arc<Mutex<Option<Printer>>>);

impl Screen {
    /// From now on uses this; without one, writes to standard error.
    pub fn print_with(&self, printer: Option<Printer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = printer;
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(printer) => printer(String::from_utf8_lossy(bytes).into_owned())?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
