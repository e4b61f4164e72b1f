//! The runs that are kept, and for how long.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::sandbox::{Error, Kind, Result};

use super::super::Counts;
use super::recording::Recording;

/// How long, how many and how large: whatever of it is reached first.
const AGE: Duration = Duration::from_secs(30 * 24 * 3600);
const RUNS: usize = 100;
const BYTES: u64 = 1 << 30;
/// To look at all that is kept takes longer than many a run: that is done this often, and when there are
/// too many.
const LOOK: Duration = Duration::from_secs(3600);

/// What a list shows of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// The version of the format.
    pub v: u32,
    /// Its id.
    pub run: String,
    /// The script, as it was named.
    pub script: String,
    /// The project folder.
    pub project: PathBuf,
    /// The backend.
    pub backend: String,
    /// Other backends that it used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherBackend>,
    /// When it began.
    pub began: jiff::Timestamp,
    /// The exit code; none when it did not come to its end.
    #[serde(default)]
    pub code: Option<u8>,
    /// How long it took, in seconds.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// How its cells ended.
    #[serde(default)]
    pub counts: Counts,
}

/// A backend that a run used beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherBackend {
    /// The backend.
    pub backend: String,
    /// The machine that it drives, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Whether a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It runs now.
    Running,
    /// It came to its end.
    Ended,
    /// It was killed.
    Died,
}

/// The runs in a state folder.
#[derive(Clone, Debug)]
pub struct Runs {
    folder: PathBuf,
}

impl Runs {
    /// Those of this state folder.
    pub fn at(state: &Path) -> Runs {
        Runs { folder: state.join("runs") }
    }

    /// Begins to record a run; forgets runs that are older than need be.
    pub fn begin(&self, file: RunFile, history: PathBuf) -> io::Result<Recording> {
        fs::create_dir_all(&self.folder)?;
        if self.is_due() {
            // Some fewer than there may be, or the next run would find too many again.
            self.prune(AGE, RUNS - RUNS / 10, BYTES);
            let _ = File::create(self.looked());
        }
        Recording::create(self.folder(&file.run), file, history)
    }

    fn looked(&self) -> PathBuf {
        self.folder.join(".looked")
    }

    fn is_due(&self) -> bool {
        let looked = fs::metadata(self.looked()).and_then(|found| found.modified());
        // A time in the future is no time: clocks are set.
        let ago =
            looked.ok().and_then(|time| crate::sandbox::wall_clock().duration_since(time).ok());
        ago.is_none_or(|ago| ago > LOOK)
            || fs::read_dir(&self.folder).is_ok_and(|entries| entries.count() > RUNS)
    }

    /// All of them, the newest first. What can't be read is left out.
    pub fn list(&self) -> Vec<RunFile> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut runs: Vec<RunFile> =
            entries.filter_map(|entry| read(&entry.path().join("run.json"))).collect();
        runs.sort_by(|a, b| b.began.cmp(&a.began).then_with(|| a.run.cmp(&b.run)));
        runs
    }

    /// The run that a word means: an id, the beginning of one, or `latest`.
    pub fn find(&self, word: &str) -> Result<RunFile> {
        let runs = self.list();
        if word == "latest" {
            return runs.into_iter().next().ok_or_else(|| {
                Error::not_found_hint(Kind::Run, word, "no run is recorded here yet")
            });
        }
        let mut fits = runs.iter().filter(|run| !word.is_empty() && run.run.starts_with(word));
        match (fits.next(), fits.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(one), Some(_)) if one.run == word => Ok(one.clone()),
            (Some(_), Some(_)) => Err(Error::invalid_hint(
                "run",
                format!("more than one run begins with '{word}'"),
                "write more of its id; 'sandscript runs list' shows them",
            )),
            (None, _) => Err(Error::not_found_hint(
                Kind::Run,
                word,
                "'sandscript runs list' shows those that are kept",
            )),
        }
    }

    /// Whether a run is over.
    pub fn state(&self, run: &RunFile) -> RunState {
        if lives(&self.folder(&run.run)) {
            RunState::Running
        } else if run.code.is_some() {
            RunState::Ended
        } else {
            RunState::Died
        }
    }

    /// Where a run is kept.
    pub fn folder(&self, run: &str) -> PathBuf {
        self.folder.join(run)
    }

    /// Deletes runs that are older than `age`, beyond the newest `most`, or beyond `bytes` in all.
    pub fn prune(&self, age: Duration, most: usize, bytes: u64) {
        let now = crate::sandbox::wall_clock();
        let mut total = 0;
        for (at, run) in self.list().iter().enumerate() {
            let folder = self.folder(&run.run);
            total += size(&folder);
            // One from the future is as old as nothing: clocks are set.
            let old = now.duration_since(run.began.into()).is_ok_and(|old| old > age);
            if (old || at >= most || total > bytes) && !lives(&folder) {
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}

fn read(path: &Path) -> Option<RunFile> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Who records a run holds a lock on its events.
fn lives(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join("events.jsonl")) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, began: &str) -> RunFile {
        RunFile {
            v: 1,
            run: id.into(),
            script: "x.rhai".into(),
            project: "/p".into(),
            backend: "fake".into(),
            others: Vec::new(),
            began: began.parse().unwrap(),
            code: None,
            seconds: None,
            counts: Counts::default(),
        }
    }

    #[test]
    fn old_runs_go_and_living_ones_stay() {
        let state = tempfile::tempdir().unwrap();
        let runs = Runs::at(state.path());
        let history = state.path().join("history.json");
        let begin = |id: &str, began: &str| runs.begin(run(id, began), history.clone()).unwrap();
        let ids = || runs.list().into_iter().map(|run| run.run).collect::<Vec<_>>();
        let living = begin("r-old", "2001-01-01T00:00:00Z");
        drop(begin("r-far", "2091-01-01T00:00:00Z"));
        for day in 1..=5 {
            drop(begin(&format!("r{day}"), &format!("2020-01-0{day}T00:00:00Z")));
        }
        assert_eq!(runs.state(&runs.find("r5").unwrap()), RunState::Died);
        assert!(!runs.is_due());
        fs::remove_file(runs.looked()).unwrap();
        drop(begin("r-now", &jiff::Timestamp::now().to_string()));
        // Older than need be, but for the one that lives.
        assert_eq!(ids(), ["r-far", "r-now", "r-old"]);
        assert_eq!(runs.state(&runs.find("r-old").unwrap()), RunState::Running);
        drop(living);
        runs.prune(Duration::MAX, 2, u64::MAX);
        assert_eq!(ids(), ["r-far", "r-now"]);
        runs.prune(Duration::MAX, 2, 1);
        assert_eq!(ids(), [""; 0]);
    }

    #[test]
    fn a_run_is_found_by_what_is_enough_of_its_id() {
        let state = tempfile::tempdir().unwrap();
        let runs = Runs::at(state.path());
        assert!(runs.find("latest").is_err());
        let now = jiff::Timestamp::now();
        for (at, id) in ["rabc1", "rabc2", "rx"].into_iter().enumerate() {
            let began = now - jiff::SignedDuration::from_secs(10 - at as i64);
            let file = RunFile { began, ..run(id, "2020-01-01T00:00:00Z") };
            drop(runs.begin(file, state.path().join("h")).unwrap());
        }
        assert_eq!(runs.find("latest").unwrap().run, "rx");
        assert_eq!(runs.find("rabc1").unwrap().run, "rabc1");
        assert_eq!(runs.find("rx").unwrap().run, "rx");
        let said = |word: &str| runs.find(word).unwrap_err().to_string();
        assert_eq!(said("rab"), "run: more than one run begins with 'rab'");
        assert_eq!(said("q"), "run 'q' not found");
        assert_eq!(said(""), "run '' not found");
    }
}
