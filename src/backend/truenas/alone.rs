//! One at a time: several programs, on several machines, may want to change what is kept of a sandbox.
//!
//! No method of a NAS changes something only when it is as it was. So who changes it holds a lock meanwhile: in the
//! guest, where everybody comes who sets its rules; on the NAS itself when it does not run.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::super::guest::{Defaults, Exec};
use super::Inner;
use super::host::HOST;
use super::row::Row;
use crate::sandbox::{Command, Process, State, Stdin};

/// Locks a file that only root may, says so, and holds it as long as somebody listens. One that is gone meanwhile is
/// nobody's.
const HOLD: &str = r#"
use strict; use Fcntl qw(:DEFAULT :flock);
my $path = shift; $SIG{ALRM} = sub { exit 1 }; alarm 20;
for (1 .. 1000) {
    sysopen my $file, $path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600 or exit 1;
    flock $file, LOCK_EX or exit 1;
    my ($own, $there) = ((stat $file)[1], (lstat $path)[1]);
    next unless defined $there && $own == $there;
    alarm 0; $| = 1; print "1"; sysread STDIN, my $end, 1; unlink $path; exit 0;
}
"#;

/// How long one waits for another. A guest whose root never lets go does not keep us from changing its rules.
const PATIENCE: Duration = Duration::from_secs(20);

/// A lock that is held as long as this lives, or none, where there can be none.
pub(super) struct Alone(#[allow(dead_code)] Option<Process>);

impl Inner {
    /// Waits for others that change what is kept of a sandbox.
    pub(super) async fn alone(self: &Arc<Self>, row: &Row) -> Alone {
        let (place, path) = match row.state {
            State::Running => (row.name.as_str(), "/run/.sandscript-changes".to_owned()),
            _ => (HOST, format!("/run/.sandscript-changes.{}", row.name)),
        };
        let mut command = Command::argv(["perl", "-e", HOLD, &path]);
        command.stdin = Stdin::Piped;
        command.cwd = Some("/".into());
        // Its network may go meanwhile.
        let _settling = self.lines.settle(place);
        let held = async {
            let mut process = self.spawn(place, Defaults::none(), &command).await.ok()?;
            let mut word = [0];
            process.stdout.as_mut()?.read_exact(&mut word).await.ok()?;
            Some(process)
        };
        Alone(tokio::time::timeout(PATIENCE, held).await.ok().flatten())
    }
}
