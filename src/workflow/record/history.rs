//! How the cells of a script ended the last time, over all its runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Outcome;

/// How a cell ended the last time it was to run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took when it came to an end last; none when it never did.
    pub seconds: Option<f64>,
}

/// The past of one script's matrices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// By matrix and id.
    #[serde(default)]
    matrices: BTreeMap<String, BTreeMap<String, Past>>,
}

impl History {
    /// The file that the past of this script is kept in.
    pub fn file(state: &Path, project: &Path, script: &str) -> PathBuf {
        let name = blake3::hash(format!("{}\n{script}", project.display()).as_bytes());
        state.join("history").join(format!("{}.json", &name.to_hex()[..24]))
    }

    /// Reads it; what is not there or damaged is no past.
    pub fn load(file: &Path) -> History {
        let text = std::fs::read(file).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Lays what a run has found over what the file says now, as other runs left it.
    pub fn merge_into(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Two runs of one script may end at once.
        let lock = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(file.with_extension("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        let mut all = History::load(file);
        for (matrix, cells) in &self.matrices {
            let known = all.matrices.entry(matrix.clone()).or_default();
            for (cell, past) in cells {
                let seconds = past.seconds.or(known.get(cell).and_then(|known| known.seconds));
                known.insert(cell.clone(), Past { seconds, ..*past });
            }
        }
        let half = file.with_extension("half");
        std::fs::write(&half, serde_json::to_vec(&all)?)?;
        std::fs::rename(half, file)
    }

    /// Notes how a cell ended.
    pub fn note(&mut self, matrix: &str, cell: &str, outcome: Outcome, duration: Duration) {
        let ended = !matches!(outcome, Outcome::Cancelled | Outcome::NotRun | Outcome::Skipped);
        let past = Past { outcome, seconds: ended.then_some(duration.as_secs_f64()) };
        self.matrices.entry(matrix.to_owned()).or_default().insert(cell.to_owned(), past);
    }

    /// How long cells took, by matrix and id.
    pub fn times(&self) -> HashMap<String, Arc<HashMap<String, Duration>>> {
        let time = |(cell, past): (&String, &Past)| {
            let duration = Duration::try_from_secs_f64(past.seconds?).ok()?;
            Some((cell.clone(), duration))
        };
        let matrix = |(name, cells): (&String, &BTreeMap<String, Past>)| {
            (name.clone(), Arc::new(cells.iter().filter_map(time).collect()))
        };
        self.matrices.iter().map(matrix).collect()
    }

    /// The cells that did not end well the last time they were to run, however long ago that was:
    /// matrix and id.
    pub fn outstanding(&self) -> BTreeSet<(String, String)> {
        let cells = self.matrices.iter().flat_map(|(matrix, cells)| {
            cells.iter().map(move |(cell, past)| (matrix, cell, past.outcome))
        });
        cells
            .filter(|(_, _, outcome)| !outcome.ok())
            .map(|(matrix, cell, _)| (matrix.clone(), cell.clone()))
            .collect()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.matrices.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outstanding_cells_are_carried_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = History::file(folder.path(), Path::new("/p"), "x.rhai");
        let run = |cells: &[(&str, Outcome)]| {
            let mut history = History::default();
            for (cell, outcome) in cells {
                history.note("m", cell, *outcome, Duration::from_secs(3));
            }
            history.merge_into(&file).unwrap();
            let left = History::load(&file).outstanding();
            left.into_iter().map(|(_, cell)| cell).collect::<Vec<_>>()
        };
        use Outcome::{Cancelled, Failed, Flaky, NotRun, Passed};
        assert_eq!(run(&[("a", Failed), ("b", Passed), ("c", NotRun)]), ["a", "c"]);
        assert_eq!(run(&[("b", Passed)]), ["a", "c"], "who was not asked is not forgotten");
        assert_eq!(run(&[("a", Flaky), ("c", Cancelled)]), ["c"]);
        assert_eq!(run(&[("c", Passed)]), [""; 0]);
        let times = History::load(&file).times();
        assert_eq!(times["m"]["c"], Duration::from_secs(3));
        std::fs::write(&file, "{ damaged").unwrap();
        assert!(History::load(&file).is_empty());
    }

    #[test]
    fn a_time_outlives_a_run_that_was_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let file = History::file(folder.path(), Path::new("/p"), "x.rhai");
        for (outcome, seconds) in [(Outcome::Passed, 7), (Outcome::Cancelled, 1)] {
            let mut history = History::default();
            history.note("m", "a", outcome, Duration::from_secs(seconds));
            history.merge_into(&file).unwrap();
        }
        assert_eq!(History::load(&file).times()["m"]["a"], Duration::from_secs(7));
    }
}
