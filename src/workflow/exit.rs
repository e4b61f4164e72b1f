//! The exit codes, for everybody who calls sandscript from a program.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | everything passed |
//! | 1 | a cell failed, or a command that had to succeed did not |
//! | 2 | the command line is wrong |
//! | 3 | the script is wrong: syntax, a wrong argument, an uncaught error of its own |
//! | 4 | nothing was selected: the filter matches no cell |
//! | 10 | the backend can't be reached, or refuses the credentials |
//! | 11 | the backend can't do what was asked |
//! | 12 | the time was over |
//! | 70 | a fault of sandscript or of the machine |
//! | 130, 143 | ended by SIGINT, SIGTERM |
//!
//! `exec` passes the guest's own code through, 128 + n for signal n, and uses 125 for its own
//! failures, 126 for a program that can't be executed and 127 for one that is not there.

use crate::sandbox::{Error, Exit, Kind};

use super::{Failure, MatrixReport, Outcome};

/// Everything passed.
pub const OK: u8 = 0;
/// A cell failed, or a command that had to succeed did not.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The script is wrong.
pub const SCRIPT: u8 = 3;
/// The filter matches nothing.
pub const NOTHING_SELECTED: u8 = 4;
/// The backend can't be reached, or refuses the credentials.
pub const BACKEND: u8 = 10;
/// The backend can't do what was asked.
pub const UNSUPPORTED: u8 = 11;
/// The time was over.
pub const TIMEOUT: u8 = 12;
/// A fault of sandscript or of the machine.
pub const INTERNAL: u8 = 70;
/// `exec` itself failed.
pub const EXEC_FAILED: u8 = 125;
/// `exec`: the program is there and can't be executed.
pub const EXEC_REFUSED: u8 = 126;
/// `exec`: the program is not there.
pub const EXEC_NOT_FOUND: u8 = 127;
/// Ended by SIGINT (Ctrl-C).
pub const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
pub const TERMINATED: u8 = 143;

/// The code of a run that ended with this error.
///
/// A cancel is [`INTERRUPTED`]; who knows that another signal was the cause says so instead.
pub fn of_error(error: &Error) -> u8 {
    match error {
        Error::Cancelled => INTERRUPTED,
        Error::Auth { .. } | Error::MemberAway { .. } | Error::Transport { .. } => BACKEND,
        Error::NotFound { kind: Kind::Backend, .. } => USAGE,
        Error::Unsupported { .. } => UNSUPPORTED,
        Error::Timeout { .. } => TIMEOUT,
        Error::Exhausted { .. } | Error::Internal { .. } => INTERNAL,
        Error::AlreadyExists { .. }
        | Error::Busy { .. }
        | Error::CacheInUse { .. }
        | Error::InvalidInput { .. }
        | Error::NotFound { .. }
        | Error::NotRunning { .. }
        | Error::Permission { .. } => SCRIPT,
    }
}

/// The code of a run that ended with this failure.
pub fn of_failure(failure: &Failure) -> u8 {
    match failure {
        Failure::Exit { .. } | Failure::Failed { .. } => FAILED,
        Failure::Error(error) => of_error(error),
        Failure::At { failure, .. } => of_failure(failure),
        Failure::Skipped { .. } | Failure::Expected { .. } => OK,
    }
}

/// The code of a run whose last word is this report.
pub fn of_matrix(report: &MatrixReport) -> u8 {
    let counts = report.counts();
    if counts.failed + counts.timed_out > 0 {
        FAILED
    } else if counts.cancelled + counts.not_run > 0 {
        INTERRUPTED
    } else if report.nothing_selected() {
        NOTHING_SELECTED
    } else {
        OK
    }
}

/// The code of one cell.
pub fn of_outcome(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Cancelled | Outcome::NotRun => INTERRUPTED,
        other if other.ok() => OK,
        _ => FAILED,
    }
}

/// The code `exec` passes on for how the guest's command ended.
pub fn of_exec(exit: Exit) -> u8 {
    match exit {
        // What the guest sends outside of 0..=255 is its low byte, as a shell sees it.
        Exit::Code(code) => (code & 0xff) as u8,
        Exit::Signal(signal) => 128u8.saturating_add((signal & 0x7f) as u8),
    }
}

/// The code of an `exec` that could not run its command.
pub fn of_exec_error(error: &Error) -> u8 {
    match error {
        Error::NotFound { kind: Kind::Command, .. } => EXEC_NOT_FOUND,
        Error::Permission { .. } => EXEC_REFUSED,
        Error::Cancelled => INTERRUPTED,
        _ => EXEC_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_passes_the_guests_code_through() {
        assert_eq!(of_exec(Exit::Code(0)), 0);
        assert_eq!(of_exec(Exit::Code(42)), 42);
        assert_eq!(of_exec(Exit::Code(-1)), 255);
        assert_eq!(of_exec(Exit::Signal(9)), 137);
        assert_eq!(of_exec(Exit::Signal(15)), TERMINATED);
        assert_eq!(of_exec_error(&Error::not_found(Kind::Command, "x")), 127);
        assert_eq!(of_exec_error(&Error::not_found(Kind::Sandbox, "x")), 125);
    }

    #[test]
    fn errors() {
        assert_eq!(of_error(&Error::Cancelled), 130);
        assert_eq!(of_error(&Error::unsupported("x", "y", "z")), 11);
        assert_eq!(of_error(&Error::Transport { message: "x".into() }), 10);
        assert_eq!(of_failure(&Failure::Error(Error::internal("x"))), 70);
        assert_eq!(of_failure(&Failure::Exit { command: "x".into(), exit: Exit::Code(9) }), FAILED);
    }
}
