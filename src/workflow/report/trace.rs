//! A trace that Chrome's and Perfetto's viewers open: bases, steps, cells and attempts over time.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::Record;
use super::story::Story;
use super::{Out, Report};

/// Writes one trace when the run is over.
pub struct Trace {
    out: Out,
    story: Story,
}

impl Trace {
    /// A report that writes to `out`.
    pub fn new(out: Out) -> Self {
        Trace { out, story: Story::default() }
    }
}

impl Report for Trace {
    fn name(&self) -> &'static str {
        "trace"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.story.take(record);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &trace(&self.story))?;
        self.out.flush()
    }
}

/// Places what overlaps on lines below each other.
#[derive(Default)]
pub(super) struct Lanes(Vec<Duration>);

impl Lanes {
    /// The first lane that is free from `start` on; it is taken until `end`.
    pub fn place(&mut self, start: Duration, end: Duration) -> usize {
        let free = self.0.iter().position(|until| *until <= start);
        let lane = free.unwrap_or_else(|| {
            self.0.push(Duration::ZERO);
            self.0.len() - 1
        });
        self.0[lane] = end;
        lane
    }
}

fn trace(story: &Story) -> Value {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let name = |pid: usize, name: &str| json!({ "ph": "M", "pid": pid, "name": "process_name", "args": { "name": name } });
    let slice =
        |pid: usize, lane: usize, title: &str, start: Duration, end: Duration, args: Value| {
            json!({
                "ph": "X",
                "pid": pid,
                "tid": lane + 1,
                "name": title,
                "ts": micros(start),
                "dur": micros(end.saturating_sub(start)),
                "args": args,
            })
        };
    let mut events = Vec::new();
    for (pid, base) in story.bases.iter().enumerate() {
        let end = base.end.unwrap_or(story.duration);
        events.push(name(pid + 1, &format!("base {}", base.name)));
        events.push(slice(pid + 1, 0, &base.name, base.start, end, json!({})));
        for step in &base.steps {
            let end = step.end.unwrap_or(story.duration);
            let args = json!({ "failed": step.failed });
            events.push(slice(pid + 1, 0, &step.title, step.start, end, args));
        }
    }
    for (at, matrix) in story.matrices.iter().enumerate() {
        let pid = story.bases.len() + at + 1;
        events.push(name(pid, &format!("matrix {}", matrix.name)));
        let mut slices = Vec::new();
        for cell in &matrix.cells {
            for (number, retry) in cell.retries.iter().enumerate() {
                let args = json!({ "outcome": retry.outcome.word(), "attempt": number + 1, "message": retry.message });
                slices.push((retry.start, retry.end, &cell.info.id, args));
            }
            if let Some(start) = cell.start {
                let args = json!({
                    "outcome": cell.outcome.word(),
                    "attempt": cell.attempts,
                    "message": cell.message,
                    "peak_memory": cell.usage.memory,
                    "cpu_seconds": cell.usage.cpu.map(|cpu| cpu.as_secs_f64()),
                });
                slices.push((start, cell.end.unwrap_or(story.duration), &cell.info.id, args));
            }
        }
        slices.sort_by_key(|(start, ..)| *start);
        let mut lanes = Lanes::default();
        for (start, end, title, args) in slices {
            events.push(slice(pid, lanes.place(start, end), title, start, end, args));
        }
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}
