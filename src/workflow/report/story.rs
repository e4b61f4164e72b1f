//! A run as a whole, put together from its events: what the reports that are written at the end
//! have in common, so that all of them tell the same.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::super::{
    CellEgress, CellInfo, CellTest, Counts, Event, Outcome, Place, Record, Stream, Usage,
};

/// How much of one cell's output is kept, and of all cells' together.
const OUTPUT: usize = 64 << 10;
const OUTPUTS: usize = 64 << 20;

/// A run.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub run: String,
    pub script: Option<String>,
    pub backend: String,
    pub began: Option<SystemTime>,
    /// From the first event to the last one so far.
    pub duration: Duration,
    pub code: Option<u8>,
    pub bases: Vec<BaseStory>,
    pub matrices: Vec<MatrixStory>,
    pub warnings: Vec<(String, Option<String>)>,
    places: HashMap<(String, String), (usize, usize)>,
    outputs: bool,
    held: usize,
}

/// A base.
#[derive(Debug)]
pub(super) struct BaseStory {
    pub name: String,
    pub start: Duration,
    pub end: Option<Duration>,
    pub failure: Option<String>,
    pub steps: Vec<StepStory>,
}

/// A step that was done.
#[derive(Debug)]
pub(super) struct StepStory {
    pub title: String,
    pub start: Duration,
    pub end: Option<Duration>,
    pub failed: bool,
}

/// A matrix.
#[derive(Debug, Default)]
pub(super) struct MatrixStory {
    pub name: String,
    pub total: usize,
    pub duration: Duration,
    pub cells: Vec<CellStory>,
}

impl MatrixStory {
    /// How many cells ended how.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.cells.iter().for_each(|cell| counts.add(cell.outcome));
        counts
    }
}

/// A cell.
#[derive(Debug)]
pub(super) struct CellStory {
    pub info: CellInfo,
    pub outcome: Outcome,
    pub start: Option<Duration>,
    pub end: Option<Duration>,
    pub duration: Duration,
    pub message: Option<String>,
    pub hint: Option<String>,
    pub tail: String,
    pub place: Option<Place>,
    pub attempts: usize,
    pub unchanged: bool,
    pub enter: Option<String>,
    pub usage: Usage,
    pub artifacts: Option<String>,
    pub egress: CellEgress,
    /// The attempts before the last one.
    pub retries: Vec<Retry>,
    /// What the guest's own reports told.
    pub tests: Vec<CellTest>,
    /// The end of what it printed.
    pub output: VecDeque<(Stream, String)>,
    /// How much of it is not kept.
    pub dropped: usize,
    kept: usize,
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Retry {
    pub outcome: Outcome,
    pub start: Duration,
    pub end: Duration,
    pub message: Option<String>,
    pub tail: String,
}

impl CellStory {
    fn new(info: CellInfo) -> Self {
        CellStory {
            info,
            outcome: Outcome::NotRun,
            start: None,
            end: None,
            duration: Duration::ZERO,
            message: None,
            hint: None,
            tail: String::new(),
            place: None,
            attempts: 0,
            unchanged: false,
            enter: None,
            usage: Usage::default(),
            artifacts: None,
            egress: CellEgress::default(),
            retries: Vec::new(),
            tests: Vec::new(),
            output: VecDeque::new(),
            dropped: 0,
            kept: 0,
        }
    }
}

impl Story {
    /// One that keeps the end of what cells print, too.
    pub fn with_outputs() -> Self {
        Story { outputs: true, ..Story::default() }
    }

    /// How many cells ended how, in all matrices.
    pub fn counts(&self) -> Counts {
        self.matrices.iter().map(MatrixStory::counts).sum()
    }

    /// Takes an event.
    pub fn take(&mut self, record: &Record) {
        let now = record.t;
        self.duration = self.duration.max(now);
        if self.began.is_none() {
            self.run = record.run.to_string();
            self.began = Some(record.at);
        }
        match &record.event {
            Event::RunStarted { script, backend } => {
                self.script.clone_from(script);
                self.backend.clone_from(backend);
            }
            Event::RunEnded { code, .. } => self.code = Some(*code),
            Event::Warning { message, hint } => {
                self.warnings.push((message.clone(), hint.clone()));
            }
            Event::BaseStarted { .. }
            | Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::BaseReady { .. }
            | Event::BaseFailed { .. } => self.base(&record.event, now),
            event => self.matrix(event, now),
        }
    }

    fn base(&mut self, event: &Event, now: Duration) {
        if let Event::BaseStarted { base, .. } = event {
            let (name, steps) = (base.clone(), Vec::new());
            self.bases.push(BaseStory { name, start: now, end: None, failure: None, steps });
            return;
        }
        let (Event::StepStarted { base: name, .. }
        | Event::StepDone { base: name, .. }
        | Event::StepFailed { base: name, .. }
        | Event::BaseReady { base: name, .. }
        | Event::BaseFailed { base: name, .. }) = event
        else {
            return;
        };
        let open = |base: &&mut BaseStory| base.name == *name && base.end.is_none();
        let Some(base) = self.bases.iter_mut().rev().find(open) else { return };
        match event {
            Event::StepStarted { title, .. } => {
                let title = title.clone();
                base.steps.push(StepStory { title, start: now, end: None, failed: false });
            }
            Event::StepDone { .. } | Event::StepFailed { .. } => {
                if let Some(step) = base.steps.last_mut() {
                    step.end = Some(now);
                    step.failed = matches!(event, Event::StepFailed { .. });
                }
            }
            Event::BaseFailed { message, .. } => {
                base.end = Some(now);
                base.failure = Some(message.clone());
            }
            _ => base.end = Some(now),
        }
    }

    fn matrix(&mut self, event: &Event, now: Duration) {
        match event {
            Event::MatrixStarted { matrix, cells, total, .. } => {
                let at = self.matrices.len();
                for (index, cell) in cells.iter().enumerate() {
                    self.places.insert((matrix.clone(), cell.id.clone()), (at, index));
                }
                self.matrices.push(MatrixStory {
                    name: matrix.clone(),
                    total: *total,
                    duration: Duration::ZERO,
                    cells: cells.iter().cloned().map(CellStory::new).collect(),
                });
            }
            Event::MatrixEnded { matrix, duration, .. } => {
                let found = self.matrices.iter_mut().rev().find(|m| m.name == *matrix);
                if let Some(found) = found {
                    found.duration = *duration;
                }
            }
            Event::CellStarted { matrix, cell, .. } => {
                if let Some(story) = self.cell(matrix, cell) {
                    story.start = Some(now);
                    story.outcome = Outcome::Cancelled;
                }
            }
            Event::CellOutput { matrix, cell, stream, text } if self.outputs => {
                self.output(matrix, cell, *stream, text);
            }
            Event::CellRetry { matrix, cell, outcome, message, tail, .. } => {
                if let Some(story) = self.cell(matrix, cell) {
                    let start = story.start.take().unwrap_or(now);
                    let (message, tail) = (message.clone(), tail.clone());
                    // What it printed is in its tail.
                    story.output.clear();
                    (story.kept, story.dropped) = (0, 0);
                    story.retries.push(Retry { outcome: *outcome, start, end: now, message, tail });
                }
            }
            Event::CellTest { matrix, cell, test } => {
                if let Some(story) = self.cell(matrix, cell) {
                    story.tests.push(test.clone());
                }
            }
            Event::CellEnded {
                matrix,
                cell,
                outcome,
                duration,
                message,
                hint,
                tail,
                unchanged,
                attempts,
                place,
                enter,
                usage,
                artifacts,
                egress,
                moved: _,
            } => {
                let Some(story) = self.cell(matrix, cell) else { return };
                story.outcome = *outcome;
                story.end = Some(now);
                story.duration = *duration;
                story.message.clone_from(message);
                story.hint.clone_from(hint);
                story.tail.clone_from(tail);
                story.unchanged = *unchanged;
                story.attempts = *attempts;
                story.place.clone_from(place);
                story.enter.clone_from(enter);
                story.usage = *usage;
                story.artifacts.clone_from(artifacts);
                story.egress.clone_from(egress);
                self.let_go(matrix, cell);
            }
            _ => {}
        }
    }

    fn cell(&mut self, matrix: &str, cell: &str) -> Option<&mut CellStory> {
        let (at, index) = *self.places.get(&(matrix.to_owned(), cell.to_owned()))?;
        self.matrices.get_mut(at)?.cells.get_mut(index)
    }

    fn output(&mut self, matrix: &str, cell: &str, stream: Stream, text: &str) {
        let Some(story) = self.cell(matrix, cell) else { return };
        let before = story.kept;
        match story.output.back_mut() {
            Some((last, end)) if *last == stream && end.len() < OUTPUT / 8 => end.push_str(text),
            _ => story.output.push_back((stream, text.to_owned())),
        }
        story.kept += text.len();
        while story.kept > OUTPUT && story.output.len() > 1 {
            let gone = story.output.pop_front().map_or(0, |(_, text)| text.len());
            story.kept -= gone;
            story.dropped += gone;
        }
        let (after, held) = (story.kept, self.held);
        self.held = held + after - before.min(held + after);
    }

    /// When much is kept already, what a cell printed that went well is let go.
    fn let_go(&mut self, matrix: &str, cell: &str) {
        if self.held <= OUTPUTS {
            return;
        }
        let Some(story) = self.cell(matrix, cell).filter(|story| story.outcome.ok()) else {
            return;
        };
        let gone = std::mem::take(&mut story.kept);
        story.dropped += gone;
        story.output.clear();
        self.held -= gone.min(self.held);
    }
}
