//! One page with everything in it, that a browser opens without a network.

use std::io;

use serde_json::{Value, json};

use super::super::Record;
use super::story::{CellStory, MatrixStory, Story};
use super::{Out, Report};

/// Writes one HTML page when the run is over.
pub struct Html {
    out: Out,
    story: Story,
}

impl Html {
    /// A report that writes to `out`.
    pub fn new(out: Out) -> Self {
        Html { out, story: Story::with_outputs() }
    }
}

impl Report for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.story.take(record);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(page(&self.story)?.as_bytes())?;
        self.out.flush()
    }
}

fn page(story: &Story) -> io::Result<String> {
    let data = serde_json::to_string(&document(story))?;
    // A guest's text can't end the script that it is in.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028");
    let name = story.script.as_deref().unwrap_or("sandscript");
    let title = name.replace('&', "&amp;").replace('<', "&lt;");
    let parts = [
        ("{{title}}", title.as_str()),
        ("{{style}}", include_str!("style.css")),
        ("{{data}}", data.as_str()),
        ("{{script}}", include_str!("page.js")),
    ];
    let mut page = String::new();
    let mut rest = include_str!("page.html");
    for (mark, part) in parts {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

fn document(story: &Story) -> Value {
    let began = story.began.and_then(|at| jiff::Timestamp::try_from(at).ok());
    let base = |base: &super::story::BaseStory| {
        json!({
            "name": base.name,
            "start": base.start.as_secs_f64(),
            "end": base.end.map(|end| end.as_secs_f64()),
            "failure": base.failure,
        })
    };
    json!({
        "run": story.run,
        "script": story.script,
        "backend": story.backend,
        "began": began.map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default(),
        "duration": story.duration.as_secs_f64(),
        "code": story.code,
        "counts": story.counts(),
        "warnings": story.warnings,
        "bases": story.bases.iter().map(base).collect::<Vec<_>>(),
        "matrices": story.matrices.iter().map(|one| matrix(one, story.script.as_deref())).collect::<Vec<_>>(),
    })
}

fn matrix(matrix: &MatrixStory, script: Option<&str>) -> Value {
    json!({
        "name": matrix.name,
        "total": matrix.total,
        "duration": matrix.duration.as_secs_f64(),
        "counts": matrix.counts(),
        "cells": matrix.cells.iter().map(|one| cell(one, script)).collect::<Vec<_>>(),
    })
}

fn cell(cell: &CellStory, script: Option<&str>) -> Value {
    let mut value = json!({
        "outcome": cell.outcome,
        "start": cell.start.map(|time| time.as_secs_f64()),
        "end": cell.end.map(|time| time.as_secs_f64()),
        "duration": cell.duration.as_secs_f64(),
        "message": cell.message,
        "hint": cell.hint,
        "enter": cell.enter,
        "artifacts": cell.artifacts,
        "attempts": cell.attempts,
        "memory": cell.usage.memory,
        "cpu": cell.usage.cpu.map(|cpu| cpu.as_secs_f64()),
        "refused": cell.egress.said(),
        "remedy": cell.egress.remedy(script),
        "carried": cell.egress.carried,
        "tail": cell.tail,
        "dropped": cell.dropped,
        "output": cell.output,
        "tests": cell.tests,
        "retries": cell.retries.iter().map(|retry| json!({
            "outcome": retry.outcome,
            "start": retry.start.as_secs_f64(),
            "end": retry.end.as_secs_f64(),
            "message": retry.message,
            "tail": retry.tail,
        })).collect::<Vec<_>>(),
    });
    if let (Value::Object(map), Ok(Value::Object(info))) =
        (&mut value, serde_json::to_value(&cell.info))
    {
        map.extend(info);
    }
    value
}
