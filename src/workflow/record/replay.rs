//! A recorded run as the events that it was.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::{Event, Record, SCHEMA, Stream};
use super::Runs;
use super::log::{LogReader, Piece};
use super::recording::log_path;
use crate::sandbox::{Error, Result};

/// The events of a recorded run, in order. What a cell printed comes right before the end of the
/// attempt that it was printed in.
#[derive(Debug)]
pub struct Replay {
    folder: PathBuf,
    lines: Lines<BufReader<File>>,
    logs: HashMap<(String, String), LogReader>,
    /// What is told before more is read, the last one first.
    next: Option<Record>,
    now: Option<(String, String)>,
}

impl Runs {
    /// The events of a run, as far as they were written and can be read.
    pub fn replay(&self, run: &str) -> Result<Replay> {
        let folder = self.folder(run);
        let path = folder.join("events.jsonl");
        let file = File::open(&path).map_err(|error| {
            Error::internal(format!("the record {} can't be read: {error}", path.display()))
        })?;
        let lines = BufReader::new(file).lines();
        Ok(Replay { folder, lines, logs: HashMap::new(), next: None, now: None })
    }

    /// What a cell printed, in order: all of it.
    pub fn output(
        &self,
        run: &str,
        matrix: &str,
        cell: &str,
    ) -> impl Iterator<Item = (Stream, String)> {
        let log = LogReader::open(&log_path(&self.folder(run), matrix, cell)).ok();
        log.into_iter().flatten().filter_map(|piece| match piece {
            Piece::Text(stream, text) => Some((stream, text)),
            Piece::Again => None,
        })
    }
}

impl Replay {
    fn printed(&mut self) -> Option<Record> {
        let (matrix, cell) = self.now.clone()?;
        let log = match self.logs.entry((matrix.clone(), cell.clone())) {
            std::collections::hash_map::Entry::Occupied(log) => log.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let log = LogReader::open(&log_path(&self.folder, &matrix, &cell)).ok();
                match log {
                    Some(log) => place.insert(log),
                    None => {
                        self.now = None;
                        return None;
                    }
                }
            }
        };
        match log.next() {
            Some(Piece::Text(stream, text)) => {
                let (at, t, run) = match &self.next {
                    Some(next) => (next.at, next.t, Arc::clone(&next.run)),
                    None => (SystemTime::UNIX_EPOCH, Duration::ZERO, Arc::from("")),
                };
                let event = Event::CellOutput { matrix, cell, stream, text };
                Some(Record { v: SCHEMA, at, t, run, event })
            }
            _ => {
                self.now = None;
                None
            }
        }
    }
}

impl Iterator for Replay {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            if self.now.is_some() {
                match self.printed() {
                    Some(record) => return Some(record),
                    None => continue,
                }
            }
            if let Some(next) = self.next.take() {
                return Some(next);
            }
            let line = self.lines.next()?.ok()?;
            // The last line of a run that was killed may be half a line, and a newer version may
            // have events that are not known here.
            let Ok(record) = serde_json::from_str::<Record>(&line) else { continue };
            if let Event::CellEnded { matrix, cell, .. } | Event::CellRetry { matrix, cell, .. } =
                &record.event
            {
                self.now = Some((matrix.clone(), cell.clone()));
            }
            self.next = Some(record);
        }
    }
}
