//! What `matrix()` gives back.

use super::Value;
use super::matrix::to_value;
use crate::workflow::{Cell, CellReport, MatrixReport};

/// As many cells as a report has. A script's lists and maps may hold only so many items, nested ones
/// included; who looks at more cells than these reads a report of the run.
const CELLS: usize = 3000;

/// A report as a map.
pub(super) fn report_map(report: &MatrixReport) -> Value {
    let counts = report.counts();
    Value::map([
        ("name", report.name.as_str().into()),
        ("ok", report.ok().into()),
        ("passed", counts.passed.into()),
        ("flaky", counts.flaky.into()),
        ("expected_failure", counts.expected_failure.into()),
        ("skipped", counts.skipped.into()),
        ("failed", counts.failed.into()),
        ("timed_out", counts.timed_out.into()),
        ("cancelled", counts.cancelled.into()),
        ("not_run", counts.not_run.into()),
        ("total", report.total.into()),
        ("listed", report.listed.into()),
        ("duration", report.duration.into()),
        ("cells", cells(report).into()),
    ])
}

fn cell_map(report: &CellReport) -> Value {
    Value::map([
        ("id", report.cell.id.as_str().into()),
        ("values", values(&report.cell)),
        ("ok", report.outcome.ok().into()),
        ("outcome", report.outcome.word().into()),
        ("attempts", report.attempts.into()),
        ("duration", report.duration.into()),
        ("message", Value::option(report.failure.as_ref().map(ToString::to_string))),
        ("output", report.tail.as_str().into()),
        ("kept", Value::option(report.kept.clone())),
        ("moved", report.moved.clone().into()),
    ])
}

/// All cells, or of very many those that did not pass.
fn cells(report: &MatrixReport) -> Vec<Value> {
    let many = report.cells.len() > CELLS;
    let shown = report.cells.iter().filter(|cell| !many || !cell.outcome.ok());
    shown.take(CELLS).map(cell_map).collect()
}

/// A cell's values as a map.
pub(super) fn values(cell: &Cell) -> Value {
    Value::map(cell.values.iter().map(|(name, value)| (name.clone(), to_value(value))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workflow::{AxisValue, Outcome};

    fn shown(count: usize, failed: usize) -> usize {
        let cell = |number: usize| {
            let values = vec![("n".to_owned(), AxisValue::Int(number as i64))];
            let cell = Cell { id: format!("n={number}"), values };
            let outcome = if number < failed { Outcome::Failed } else { Outcome::Passed };
            CellReport { outcome, ..CellReport::not_run(cell) }
        };
        let report = MatrixReport {
            name: "m".into(),
            cells: (0..count).map(cell).collect(),
            total: count,
            listed: false,
            duration: Duration::ZERO,
        };
        let Value::Map(map) = report_map(&report) else { panic!("no map") };
        let Some(Value::List(cells)) = map.get("cells") else { panic!("no cells") };
        cells.len()
    }

    #[test]
    fn a_report_of_very_many_cells_has_those_that_matter() {
        assert_eq!(shown(CELLS, 2), CELLS);
        assert_eq!(shown(10_000, 2), 2);
        assert_eq!(shown(10_000, 9_000), CELLS);
    }
}
