//! What every verb does now and then when it is done: deletes what may go.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::output::Output;
use super::session::Session;
use crate::sandbox::{Backend, Cancel};
use crate::workflow::{Sweep, sweep};

/// How long the end of a verb waits for it.
const LONGEST: Duration = Duration::from_secs(2);
/// How many names are told.
const TOLD: usize = 3;

/// It is time to look.
pub struct Housekeeping<'a> {
    output: &'a Output,
    bases: Option<Duration>,
}

impl<'a> Housekeeping<'a> {
    /// Whether it is time, by the age of a file for each backend; from now on it is not. Where no
    /// such file can be kept, it never is: `run` looks for what dead runs left anyway.
    pub fn due(session: &'a Session<'_>) -> Option<Housekeeping<'a>> {
        let settings = &session.settings;
        let every = settings.gc_every?;
        let host = settings.host.as_deref().unwrap_or_default();
        let place = format!("{}\0{host}\0{}", settings.backend, settings.store.display());
        let name = &blake3::hash(place.as_bytes()).to_hex()[..16];
        let stamp = session.state.as_ref()?.join("gc").join(name);
        (is_old(&stamp, every) && renew(&stamp))
            .then_some(Housekeeping { output: session.output, bases: settings.bases_expire })
    }

    /// Deletes what may go, as far as the time suffices, and tells what.
    pub async fn sweep(self, backend: &dyn Backend, cancel: &Cancel) {
        let look = Sweep { dry_run: true, bases: self.bases, ..Sweep::default() };
        let take = Sweep { dry_run: false, ..look.clone() };
        let both = async {
            let found = sweep(backend, &look, cancel).await.ok()?;
            if found.sandboxes.is_empty() && found.leftovers == 0 {
                return None;
            }
            sweep(backend, &take, cancel).await.ok()
        };
        if let Ok(Some(gone)) = tokio::time::timeout(LONGEST, both).await
            && !gone.sandboxes.is_empty()
        {
            let each = gone.sandboxes.iter().map(|one| format!("{} ({})", one.name, one.why));
            self.output.note(told(&each.collect::<Vec<_>>()));
        }
    }
}

/// Says which sandboxes were deleted.
pub fn told(all: &[String]) -> String {
    let count = match all.len() {
        1 => "1 sandbox".into(),
        count => format!("{count} sandboxes"),
    };
    let more = match all.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("gc: deleted {count}: {}{more}", all[..all.len().min(TOLD)].join(", "))
}

/// Also when it is from the future: a clock has jumped.
fn is_old(stamp: &Path, every: Duration) -> bool {
    let changed = fs::metadata(stamp).and_then(|found| found.modified());
    changed.map_or(true, |changed| {
        SystemTime::now().duration_since(changed).map_or(true, |age| age >= every)
    })
}

fn renew(stamp: &PathBuf) -> bool {
    stamp.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok())
        && fs::write(stamp, "").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_told() {
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(told(&names[..1]), "gc: deleted 1 sandbox: a");
        assert_eq!(told(&names), "gc: deleted 5 sandboxes: a, b, c and 2 more");
    }

    #[test]
    fn it_is_time_once() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = folder.path().join("gc/x");
        let (long, none) = (Duration::from_secs(3600), Duration::ZERO);
        assert!(is_old(&stamp, long));
        assert!(renew(&stamp));
        assert!(!is_old(&stamp, long) && is_old(&stamp, none));
        let file = fs::File::options().append(true).open(&stamp).unwrap();
        file.set_modified(SystemTime::now() + long * 2).unwrap();
        assert!(is_old(&stamp, long), "a clock that jumped must not stop it for good");
    }
}
