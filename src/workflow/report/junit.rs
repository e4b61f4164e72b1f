//! JUnit XML: a suite for each matrix and each base that was not built, a case for each cell.

use std::io;

use quick_junit::{
    NonSuccessKind, Property, Report as Document, TestCase, TestCaseStatus, TestRerun, TestSuite,
};

use super::super::{CellTest, Outcome, Record, TestOutcome};
use super::story::{BaseStory, CellStory, MatrixStory, Story};
use super::style::clean;
use super::{Out, Report};

/// Writes one JUnit document when the run is over.
pub struct Junit {
    out: Out,
    story: Story,
}

impl Junit {
    /// A report that writes to `out`.
    pub fn new(out: Out) -> Self {
        Junit { out, story: Story::default() }
    }
}

impl Report for Junit {
    fn name(&self) -> &'static str {
        "junit"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.story.take(record);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let text = document(&self.story).to_string().map_err(io::Error::other)?;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

fn document(story: &Story) -> Document {
    let mut document = Document::new(story.script.as_deref().unwrap_or("sandscript"));
    document.set_time(story.duration);
    for base in story.bases.iter().filter(|base| base.failure.is_some()) {
        document.add_test_suite(base_suite(base));
    }
    for matrix in &story.matrices {
        document.add_test_suite(suite(story, matrix));
        for cell in matrix.cells.iter().filter(|cell| !cell.tests.is_empty()) {
            document.add_test_suite(inner(matrix, cell));
        }
    }
    document
}

fn base_suite(base: &BaseStory) -> TestSuite {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(clean(base.failure.as_deref().unwrap_or_default()));
    let mut suite = TestSuite::new(format!("base {}", base.name));
    suite.add_test_case(TestCase::new("build", status));
    suite
}

fn suite(story: &Story, matrix: &MatrixStory) -> TestSuite {
    let mut suite = TestSuite::new(matrix.name.as_str());
    suite.set_time(matrix.duration);
    suite.add_property(Property::new("run", story.run.as_str()));
    suite.add_property(Property::new("backend", story.backend.as_str()));
    for cell in &matrix.cells {
        suite.add_test_case(case(story, matrix, cell));
    }
    suite
}

fn case(story: &Story, matrix: &MatrixStory, cell: &CellStory) -> TestCase {
    let message = clean(cell.message.as_deref().unwrap_or_default());
    let mut status = match cell.outcome {
        Outcome::Passed | Outcome::Flaky => TestCaseStatus::success(),
        Outcome::Skipped | Outcome::ExpectedFailure | Outcome::NotRun | Outcome::Cancelled => {
            TestCaseStatus::skipped()
        }
        Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::TimedOut => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if !matches!(cell.outcome, Outcome::Passed | Outcome::Flaky) {
        let first = message.lines().next().unwrap_or_default().to_owned();
        let said = match cell.outcome {
            Outcome::Failed | Outcome::Skipped if !first.is_empty() => first,
            outcome if first.is_empty() => outcome.to_string(),
            outcome => format!("{outcome}: {first}"),
        };
        status.set_message(said);
    }
    if cell.outcome.failed() {
        status.set_type(cell.outcome.word());
        let mut text = message.clone();
        for (label, more) in [("hint", &cell.hint), ("sandscript enter", &cell.enter)] {
            if let Some(more) = more {
                text.push_str(&format!("\n{label}: {}", clean(more)));
            }
        }
        if let Some(said) = cell.egress.said() {
            text.push_str(&format!("\n{}", clean(&said)));
        }
        if let Some(remedy) = cell.egress.remedy(story.script.as_deref()) {
            text.push_str(&format!("\nto allow it: {}", clean(&remedy)));
        }
        status.set_description(text);
    }
    for retry in &cell.retries {
        let kind = match retry.outcome {
            Outcome::TimedOut => NonSuccessKind::Error,
            _ => NonSuccessKind::Failure,
        };
        let mut rerun = TestRerun::new(kind);
        rerun.set_type(retry.outcome.word());
        rerun.set_message(clean(retry.message.as_deref().unwrap_or_default()));
        rerun.set_time(retry.end.saturating_sub(retry.start));
        rerun.set_system_out(clean(&retry.tail));
        status.add_rerun(rerun);
    }
    let mut case = TestCase::new(cell.info.id.as_str(), status);
    case.set_classname(matrix.name.as_str());
    case.set_time(cell.duration);
    case.add_property(Property::new("outcome", cell.outcome.word()));
    if let Some(bytes) = cell.usage.memory {
        case.add_property(Property::new("peak_memory", bytes.to_string()));
    }
    if let Some(cpu) = cell.usage.cpu {
        case.add_property(Property::new("cpu_seconds", format!("{:.6}", cpu.as_secs_f64())));
    }
    for carried in &cell.egress.carried {
        let bytes = format!("{} sent, {} received", carried.sent, carried.received);
        case.add_property(Property::new(format!("egress {}", clean(&carried.host)), bytes));
    }
    if !cell.tail.is_empty() {
        case.set_system_out(clean(&cell.tail));
    }
    case
}

/// What the guest's own tests told, under the name of their cell.
fn inner(matrix: &MatrixStory, cell: &CellStory) -> TestSuite {
    let mut suite = TestSuite::new(format!("{}/{}", matrix.name, cell.info.id));
    for CellTest { name, outcome, duration, message, output, .. } in &cell.tests {
        let mut status = match outcome {
            TestOutcome::Passed => TestCaseStatus::success(),
            TestOutcome::Skipped => TestCaseStatus::skipped(),
            TestOutcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        };
        if let (Some(message), false) = (message, *outcome == TestOutcome::Passed) {
            status.set_message(clean(message));
        }
        let mut case = TestCase::new(name.as_str(), status);
        case.set_classname(cell.info.id.as_str());
        if let Some(duration) = duration {
            case.set_time(*duration);
        }
        if let Some(output) = output {
            case.set_system_out(clean(output));
        }
        suite.add_test_case(case);
    }
    suite
}
