//! Why steps are done: what `--explain` says.

use std::io::{self, Write};

use super::output::{Output, Style, paint};
use crate::workflow::report::{Report, clean};
use crate::workflow::{Change, Event, Record};

/// Says of each step which fields of its key changed.
pub struct Explain {
    color: bool,
}

impl Explain {
    pub fn new(output: &Output) -> Explain {
        Explain { color: output.color_err }
    }
}

/// The lines about one step: what is said about it, and each field that is different.
pub fn lines(event: &Event, color: bool) -> Option<Vec<String>> {
    let Event::StepExplained { base, step, title, digest, reason, changes, .. } = event else {
        return None;
    };
    let title = format!("{} {step} {}", clean(base), clean(title));
    let Some(reason) = reason else {
        let hit = paint(color, Style::Good, "hit");
        return Some(vec![format!("{hit}  {title}"), format!("     key {digest}")]);
    };
    let miss = paint(color, Style::Warn, "miss");
    let mut lines = vec![format!("{miss} {title}: {}", clean(reason))];
    lines.push(format!("     key {digest}"));
    lines.extend(changes.iter().map(|change| format!("     {}", field(change))));
    Some(lines)
}

fn field(change: &Change) -> String {
    let shown = |value: &Option<String>| match value {
        Some(value) => format!("{:?}", clean(value)),
        None => "nothing".into(),
    };
    format!("{}: {} → {}", change.field, shown(&change.old), shown(&change.new))
}

impl Report for Explain {
    fn name(&self) -> &'static str {
        "explain"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let Some(lines) = lines(&record.event, self.color) else { return Ok(()) };
        let mut out = io::stderr().lock();
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}
