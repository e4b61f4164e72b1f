//! Writes a run down while it happens.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::super::report::Report;
use super::super::{Counts, Event, Record};
use super::log::LogWriter;
use super::{History, OtherBackend, RunFile};

/// A report that keeps a run in the state folder.
#[derive(Debug)]
pub struct Recording {
    folder: PathBuf,
    file: RunFile,
    /// Locked for as long as the run lives.
    events: BufWriter<File>,
    logs: HashMap<(String, String), LogWriter>,
    counts: HashMap<String, Counts>,
    history: History,
    history_file: PathBuf,
    /// A cell did not end well since the history was written.
    news: bool,
}

/// The file of what a cell printed.
pub(super) fn log_path(folder: &Path, matrix: &str, cell: &str) -> PathBuf {
    let name = blake3::hash(format!("{}\n{matrix}{cell}", matrix.len()).as_bytes());
    folder.join("output").join(format!("{}.log", &name.to_hex()[..24]))
}

impl Recording {
    pub(super) fn create(folder: PathBuf, file: RunFile, history: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(folder.join("output"))?;
        let events = File::create(folder.join("events.jsonl"))?;
        flock(&events, FlockOperation::NonBlockingLockExclusive)?;
        let recording = Recording {
            folder,
            file,
            events: BufWriter::new(events),
            logs: HashMap::new(),
            counts: HashMap::new(),
            history: History::default(),
            history_file: history,
            news: false,
        };
        recording.save()?;
        Ok(recording)
    }

    /// Replaces `run.json` in one step.
    fn save(&self) -> io::Result<()> {
        let half = self.folder.join("run.json.half");
        fs::write(&half, serde_json::to_vec(&self.file)?)?;
        fs::rename(half, self.folder.join("run.json"))
    }

    fn log(&mut self, matrix: &str, cell: &str) -> io::Result<&mut LogWriter> {
        match self.logs.entry((matrix.to_owned(), cell.to_owned())) {
            std::collections::hash_map::Entry::Occupied(log) => Ok(log.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let log = LogWriter::create(&log_path(&self.folder, matrix, cell))?;
                Ok(place.insert(log))
            }
        }
    }
}

impl Report for Recording {
    fn name(&self) -> &'static str {
        "record"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        match &record.event {
            Event::CellOutput { matrix, cell, stream, text } => {
                return self.log(matrix, cell)?.text(*stream, text);
            }
            Event::CellRetry { matrix, cell, .. } => self.log(matrix, cell)?.again()?,
            Event::CellEnded { matrix, cell, outcome, duration, unchanged, .. } => {
                if let Some(mut log) = self.logs.remove(&(matrix.clone(), cell.clone())) {
                    log.flush()?;
                }
                if !unchanged {
                    self.history.note(matrix, cell, *outcome, *duration);
                    self.news |= !outcome.ok();
                }
            }
            Event::BackendOpened { backend, host } => {
                let (backend, host) = (backend.clone(), host.clone());
                self.file.others.push(OtherBackend { backend, host });
                // Who enters a cell of a run that was killed must know it, too.
                self.save()?;
            }
            Event::MatrixEnded { matrix, counts, .. } => {
                self.counts.insert(matrix.clone(), *counts);
            }
            Event::RunEnded { code, duration } => {
                self.file.code = Some(*code);
                self.file.seconds = Some(duration.as_secs_f64());
                self.file.counts = self.counts.values().copied().sum();
            }
            _ => {}
        }
        serde_json::to_writer(&mut self.events, record)?;
        self.events.write_all(b"\n")
    }

    fn moves(&self) -> bool {
        true
    }

    /// What is known of failures outlives a run that is killed.
    fn tick(&mut self) -> io::Result<()> {
        self.events.flush()?;
        self.logs.values_mut().try_for_each(LogWriter::flush)?;
        if std::mem::take(&mut self.news) {
            self.history.merge_into(&self.history_file)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.events.flush()?;
        self.logs.values_mut().try_for_each(LogWriter::flush)?;
        if !self.history.is_empty() {
            self.history.merge_into(&self.history_file)?;
        }
        self.save()
    }
}
