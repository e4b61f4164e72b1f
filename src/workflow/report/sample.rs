//! A run as it may be told, for the tests of reports.

use std::time::Duration;

use super::super::{
    AxisValue, CellEgress, CellInfo, Counts, Event, Level, Order, Outcome, Stream, Usage,
};
use crate::sandbox::{Carried, Denied, EgressLog, Protocol, Reason};

/// Milliseconds.
pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn started(step: usize, title: &str, reason: &str) -> Event {
    let (base, title, reason) = ("cc".into(), title.into(), reason.into());
    Event::StepStarted { base, step, total: None, title, key: "k".into(), reason }
}

pub fn hit(step: usize, title: &str) -> Event {
    Event::StepHit { base: "cc".into(), step, total: None, title: title.into(), key: "k".into() }
}

pub fn done(step: usize, title: &str, milliseconds: u64) -> Event {
    Event::StepDone {
        base: "cc".into(),
        step,
        title: title.into(),
        duration: ms(milliseconds),
        frozen: ms(milliseconds / 50),
    }
}

pub fn cells(values: &[(&str, &str)]) -> Vec<CellInfo> {
    let info = |(opt, std): &(&str, &str)| CellInfo {
        id: format!("opt={opt},std={std}"),
        values: vec![("opt".into(), AxisValue::from(*opt)), ("std".into(), AxisValue::from(*std))],
    };
    values.iter().map(info).collect()
}

pub fn begun(cell: &str) -> Event {
    Event::CellStarted {
        matrix: "tests".into(),
        cell: cell.into(),
        sandbox: "tests-1".into(),
        attempt: 1,
    }
}

pub fn ended(cell: &str, outcome: Outcome, message: Option<&str>, tail: &str) -> Event {
    Event::CellEnded {
        matrix: "tests".into(),
        cell: cell.into(),
        outcome,
        duration: ms(if outcome == Outcome::NotRun { 0 } else { 1234 }),
        message: message.map(String::from),
        hint: None,
        tail: tail.into(),
        unchanged: false,
        attempts: usize::from(outcome != Outcome::NotRun),
        place: None,
        enter: None,
        usage: Usage::default(),
        artifacts: None,
        egress: Default::default(),
        moved: Vec::new(),
    }
}

pub fn matrix_ended(counts: Counts) -> Event {
    Event::MatrixEnded { matrix: "tests".into(), counts, duration: ms(3400) }
}

/// Three connections that were refused, and one host that was reached.
fn refused() -> CellEgress {
    let denied = |name: &str, port, count| Denied {
        first: std::time::SystemTime::UNIX_EPOCH,
        last: std::time::SystemTime::UNIX_EPOCH,
        count,
        name: Some(name.into()),
        address: None,
        port,
        protocol: Protocol::Tcp,
        process: None,
        reason: Reason::NotAllowed,
    };
    CellEgress::of(EgressLog {
        denied: vec![denied("pkg.test", 443, 2), denied("b.test", 80, 1)],
        more: 0,
        carried: vec![Carried { host: "a.test".into(), connections: 1, sent: 512, received: 4096 }],
    })
}

/// A base of which a step changed, then a matrix in which all outcomes occur.
pub fn run() -> Vec<Event> {
    let base = || "cc".to_string();
    let change = "command changed: `make` → `make -j2`";
    let mut events = vec![
        Event::RunStarted { script: Some("test.rhai".into()), backend: "local".into() },
        Event::BaseStarted { base: base(), from: "host".into() },
        hit(1, "run cc --version"),
        started(2, "run make -j2", change),
        Event::StepOutput { base: base(), step: 2, stream: Stream::Stdout, text: "cc -c\n".into() },
        done(2, "run make -j2", 1250),
        started(3, "copy . → /srv/a/very/long/path/that/does/not/fit/on/the/line", "x"),
        done(3, "copy . → /srv/a/very/long/path/that/does/not/fit/on/the/line", 12),
        Event::BaseReady {
            base: base(),
            sandbox: "base-cc-1".into(),
            label: "step-1".into(),
            steps: 3,
            hits: 1,
            duration: ms(1300),
        },
        Event::MatrixStarted {
            matrix: "tests".into(),
            cells: cells(&[("-O0", "c99"), ("-O0", "c11"), ("-O2", "c99"), ("-O2", "c11")]),
            total: 6,
            parallel: 2,
            order: Order::Given,
            seed: 7,
        },
        begun("opt=-O0,std=c99"),
        begun("opt=-O0,std=c11"),
        Event::Print { text: "hello\nworld".into(), cell: None },
        Event::Print { text: "from a cell".into(), cell: Some("opt=-O0,std=c99".into()) },
        Event::Log { level: Level::Warn, text: "slow".into(), cell: None },
        ended("opt=-O0,std=c99", Outcome::Passed, None, ""),
        begun("opt=-O2,std=c99"),
    ];
    let output: String = (1..=22).map(|line| format!("line {line}\n")).collect();
    let mut failed = ended(
        "opt=-O0,std=c11",
        Outcome::Failed,
        Some("make test: exit code 2"),
        &format!("{output}\x1b[31mred\x1b[0m\x1b[2J end\n"),
    );
    if let Event::CellEnded { egress, .. } = &mut failed {
        *egress = refused();
    }
    events.extend([
        failed,
        ended("opt=-O2,std=c99", Outcome::TimedOut, Some("the cell timed out after 1s"), ""),
        ended("opt=-O2,std=c11", Outcome::NotRun, None, ""),
        matrix_ended(Counts {
            passed: 1,
            failed: 1,
            timed_out: 1,
            not_run: 1,
            ..Counts::default()
        }),
        Event::Warning {
            message: "sandbox 'x' could not be deleted: cancelled".into(),
            hint: Some("it goes with the next: sandscript gc".into()),
        },
        Event::SandboxKept { name: "tests-o0-c11-1".into(), why: "cell opt=-O0,std=c11".into() },
        Event::RunEnded { code: 1, duration: ms(5000) },
    ]);
    events
}

/// A writer whose bytes can be looked at.
#[derive(Clone, Default)]
pub struct Paper(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Paper {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A writer on a full disk.
pub struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Feeds events to a report, one millisecond apart.
pub fn feed(report: &mut dyn super::Report, events: Vec<Event>) -> std::io::Result<()> {
    for (index, event) in events.into_iter().enumerate() {
        let at = std::time::SystemTime::UNIX_EPOCH + ms(index as u64);
        let record = super::Record { v: 1, at, t: ms(index as u64), run: "run-1".into(), event };
        report.record(&record)?;
    }
    Ok(())
}

/// A base whose second step fails while another waits for a third run.
pub fn trouble() -> Vec<Event> {
    let start = |base: &str| Event::BaseStarted { base: base.into(), from: "host".into() };
    vec![
        start("cc"),
        start("py"),
        Event::BaseWaiting {
            base: "py".into(),
            step: 1,
            sandbox: "base-py-1".into(),
            run: Some("run-2".into()),
        },
        Event::CacheWaiting {
            cache: "pip".into(),
            sandbox: "base-cc-1".into(),
            by: Some("base-py-1".into()),
            cell: None,
            base: Some("cc".into()),
        },
        started(1, "run make", "it was never built"),
        Event::StepFailed {
            base: "cc".into(),
            step: 1,
            title: "run make".into(),
            duration: ms(700),
            message: "make: exit code 2".into(),
            hint: None,
            tail: "make: *** [all] Error 1\n".into(),
        },
        Event::BaseFailed { base: "cc".into(), message: "make: exit code 2".into() },
        Event::BaseFailed { base: "py".into(), message: "cancelled".into() },
        Event::MatrixStarted {
            matrix: "none".into(),
            cells: vec![],
            total: 3,
            parallel: 2,
            order: Order::Given,
            seed: 7,
        },
        Event::MatrixEnded { matrix: "none".into(), counts: Counts::default(), duration: ms(0) },
        Event::CellList { matrix: "tests".into(), cells: cells(&[("-O0", "c99")]) },
    ]
}
