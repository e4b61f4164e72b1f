//! Runs the cells of a matrix: clones ahead, runs the bodies side by side, deletes behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::sandbox::{Backend, Cancel, CloneSpec, Command, Error, Kind, Output, Result, Spec};

use super::output::Origin;
use super::{
    Cell, CellInfo, CellMemory, CellReport, Event, Failure, MatrixReport, MatrixSpec, Outcome,
    OutputSink, RunContext, Source, exec,
};

/// How long a cancelled body may take to notice.
const GRACE: Duration = Duration::from_secs(2);
/// How long a delete may take before it is left to `gc`.
const DELETE: Duration = Duration::from_secs(60);

/// What is done in each cell.
#[async_trait]
pub trait CellBody: Send + Sync {
    /// Runs one cell. It should end soon after [`CellContext::cancel`] is cancelled; one that does
    /// not is dropped. The cell's sandbox is deleted by the runner, however this ends.
    async fn run(&self, cell: CellContext) -> Result<(), Failure>;
}

/// A cell as its body sees it.
#[derive(Clone, Debug)]
pub struct CellContext {
    /// The run, with this cell's own cancel token.
    pub run: RunContext,
    /// The matrix.
    pub matrix: String,
    /// The cell and its values.
    pub cell: Cell,
    /// Name of its sandbox, which is running.
    pub sandbox: String,
    /// Where its commands' output goes.
    pub output: OutputSink,
}

impl CellContext {
    /// Cancelled when the cell has to end: on timeout, fail-fast, or the end of the run.
    pub fn cancel(&self) -> &Cancel {
        &self.run.cancel
    }

    /// Runs a command in the cell's sandbox, its output going to the cell's.
    pub async fn exec(&self, command: &Command) -> Result<Output> {
        exec(self.run.backend.as_ref(), &self.sandbox, command, &self.output, &self.run.cancel)
            .await
    }
}

/// Runs every selected cell of the matrix and tells how each ended.
///
/// An error is about the matrix itself, before any cell ran; what goes wrong in a cell is in its
/// report. When this returns, every sandbox it made is deleted, or kept and told so. Dropping the
/// future cancels the cells, which then clean up on their own.
pub async fn run_matrix(
    ctx: &RunContext,
    spec: MatrixSpec,
    body: Arc<dyn CellBody>,
) -> Result<MatrixReport> {
    let all = spec.expand()?;
    let total = all.len();
    let cells: Vec<Cell> = all.into_iter().filter(|cell| spec.selects(cell)).collect();
    let infos = cells.iter().map(|c| CellInfo { id: c.id.clone(), values: c.values.clone() });
    let infos: Vec<CellInfo> = infos.collect();
    let name = spec.name.clone();
    if spec.list {
        ctx.events.send(Event::CellList { matrix: name.clone(), cells: infos });
        return Ok(MatrixReport { name, total, listed: true, ..MatrixReport::default() });
    }
    if let Some(limits) = &spec.cell.limits {
        limits.check()?;
    }
    let parallel = spec.parallel.unwrap_or(ctx.backend.capabilities().parallelism).max(1);
    let started = Instant::now();
    ctx.events.send(Event::MatrixStarted { matrix: name.clone(), cells: infos, total, parallel });
    let memory = spec.memory.clone();
    let executor = Executor::new(ctx, spec, body, parallel);
    let cells = match memory {
        Some(memory) => executor.run_changed(cells, memory.as_ref()).await,
        None => executor.run(cells).await,
    };
    let report = MatrixReport {
        name: name.clone(),
        cells,
        total,
        listed: false,
        duration: started.elapsed(),
    };
    let (counts, duration) = (report.counts(), report.duration);
    ctx.events.send(Event::MatrixEnded { matrix: name, counts, duration });
    Ok(report)
}

/// Owns the cells of one matrix.
struct Executor {
    shared: Arc<Shared>,
    /// How many sandboxes are in use or made ahead.
    live: Arc<Semaphore>,
    /// How many there are at all: these, and those being deleted.
    slots: Arc<Semaphore>,
}

struct Shared {
    ctx: RunContext,
    spec: MatrixSpec,
    body: Arc<dyn CellBody>,
    /// How many bodies run at once. Fair, so that cells start in order.
    bodies: Semaphore,
    /// Cancels this matrix only.
    cancel: Cancel,
    /// Part of the names of its sandboxes.
    tag: String,
}

impl Executor {
    fn new(ctx: &RunContext, spec: MatrixSpec, body: Arc<dyn CellBody>, parallel: usize) -> Self {
        static MATRICES: AtomicU64 = AtomicU64::new(0);
        let number = MATRICES.fetch_add(1, Ordering::Relaxed);
        let tag = blake3::hash(format!("{} {} {number}", ctx.run, ctx.owner.host).as_bytes());
        let ahead = parallel.clamp(1, 4);
        Executor {
            live: Arc::new(Semaphore::new(parallel + ahead)),
            slots: Arc::new(Semaphore::new(2 * parallel + ahead)),
            shared: Arc::new(Shared {
                cancel: ctx.cancel.child_token(),
                ctx: ctx.clone(),
                spec,
                body,
                bodies: Semaphore::new(parallel),
                tag: tag.to_hex()[..6].to_string(),
            }),
        }
    }

    /// Runs only the cells that can't be taken as they were before.
    async fn run_changed(self, cells: Vec<Cell>, memory: &dyn CellMemory) -> Vec<CellReport> {
        let mut known = Vec::with_capacity(cells.len());
        for cell in &cells {
            let duration = memory.unchanged(cell).await;
            let report = duration.map(|duration| CellReport {
                cell: cell.clone(),
                outcome: Outcome::Passed,
                duration,
                failure: None,
                tail: String::new(),
                kept: None,
                unchanged: true,
            });
            report.iter().for_each(|report| self.shared.tell(report));
            known.push(report);
        }
        let left = cells.into_iter().zip(&known).filter(|(_, known)| known.is_none());
        let left: Vec<Cell> = left.map(|(cell, _)| cell).collect();
        let mut ran = self.run(left).await.into_iter();
        known.into_iter().filter_map(|known| known.or_else(|| ran.next())).collect()
    }

    async fn run(self, cells: Vec<Cell>) -> Vec<CellReport> {
        // When this future is dropped, the cells' own tasks clean up.
        let _guard = self.shared.cancel.clone().drop_guard();
        let (ended, mut reports) = mpsc::unbounded_channel();
        let mut done: Vec<Option<CellReport>> = cells.iter().map(|_| None).collect();
        for (index, cell) in cells.iter().enumerate() {
            let permits = async {
                let live = Arc::clone(&self.live).acquire_owned().await.ok();
                (live, Arc::clone(&self.slots).acquire_owned().await.ok())
            };
            let (live, slot) = tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => break,
                permits = permits => permits,
            };
            let shared = Arc::clone(&self.shared);
            let one = One { shared, cell: cell.clone(), index, live, slot };
            // The last sender's drop tells that all deletes are done, too.
            let ended = ended.clone();
            tokio::spawn(async move { one.run(&ended).await });
            while let Ok((index, report)) = reports.try_recv() {
                done[index] = Some(report);
            }
        }
        drop(ended);
        while let Some((index, report)) = reports.recv().await {
            done[index] = Some(report);
        }
        let left = |(cell, report): (Cell, Option<CellReport>)| {
            report.unwrap_or_else(|| self.shared.not_run(cell))
        };
        cells.into_iter().zip(done).map(left).collect()
    }
}

/// One cell on its way.
struct One {
    shared: Arc<Shared>,
    cell: Cell,
    index: usize,
    /// Given back when the body is over.
    live: Option<OwnedSemaphorePermit>,
    /// Given back when the sandbox is gone.
    slot: Option<OwnedSemaphorePermit>,
}

impl One {
    async fn run(self, ended: &mpsc::UnboundedSender<(usize, CellReport)>) {
        let One { shared, cell, index, live, slot } = self;
        let sandbox = shared.name(index, &cell);
        let made = shared.make(&sandbox, &cell).await;
        let exists = made.is_ok();
        let turn = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => None,
            turn = shared.bodies.acquire() => turn.ok(),
        };
        let mut report = match (turn, made) {
            (None, _) | (_, Err(Error::Cancelled)) => shared.not_run(cell),
            (Some(turn), made) => {
                let report = shared.cell(cell, &sandbox, made).await;
                drop(turn);
                report
            }
        };
        let unhappy = matches!(report.outcome, Outcome::Failed | Outcome::TimedOut);
        if exists && shared.ctx.keep && unhappy && shared.keep(&sandbox, &report.cell).await {
            report.kept = Some(sandbox);
            let _ = ended.send((index, report));
            return;
        }
        let _ = ended.send((index, report));
        drop(live);
        if exists {
            shared.delete(&sandbox).await;
        }
        drop(slot);
    }
}

impl Shared {
    /// A readable name that no other cell of any run has: what of matrix and values can be part of
    /// a sandbox name, and a tag of the run.
    fn name(&self, index: usize, cell: &Cell) -> String {
        let values: Vec<String> = cell.values.iter().map(|(_, v)| v.to_string()).collect();
        let matrix = slug(&self.spec.name, 16);
        let values = slug(&values.join("-"), 28);
        let mut name = if matrix.is_empty() { "cell".to_string() } else { matrix };
        if !values.is_empty() {
            name = format!("{name}-{values}");
        }
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name.insert_str(0, "c-");
        }
        format!("{name}-{}-{index}", self.tag)
    }

    async fn make(&self, name: &str, cell: &Cell) -> Result<()> {
        let backend = self.ctx.backend.as_ref();
        let template = &self.spec.cell;
        let labels = [
            ("sandscript.kind", "cell"),
            ("sandscript.matrix", &self.spec.name),
            ("sandscript.cell", &cell.id),
        ];
        let labels = labels.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let owner = Some(self.ctx.owner.clone());
        let clone = |label: Option<String>| CloneSpec {
            label,
            limits: template.limits.clone(),
            egress: template.egress.clone(),
            env: template.env.clone(),
            owner: owner.clone(),
            labels,
            ..CloneSpec::new(name)
        };
        match &self.spec.source {
            Source::Base(base) => {
                let mut clone = clone(Some(base.label.clone()));
                clone.limits.get_or_insert_with(|| base.limits.clone());
                for (key, value) in &base.env {
                    clone.env.entry(key.clone()).or_insert_with(|| value.clone());
                }
                Backend::clone(backend, &base.sandbox, &clone, &self.cancel).await?;
            }
            Source::Snapshot { sandbox, label } => {
                Backend::clone(backend, sandbox, &clone(label.clone()), &self.cancel).await?;
            }
            Source::Image { image, sha256 } => {
                let clone = clone(None);
                let spec = Spec {
                    image: image.clone(),
                    sha256: sha256.clone(),
                    limits: clone.limits.unwrap_or_default(),
                    egress: clone.egress.unwrap_or_default(),
                    env: clone.env,
                    labels: clone.labels,
                    owner: clone.owner,
                    ..Spec::new(name)
                };
                backend.create(&spec, &self.cancel).await?;
            }
        }
        Ok(())
    }

    /// Runs the body, unless the sandbox could not be made.
    async fn cell(&self, cell: Cell, sandbox: &str, made: Result<()>) -> CellReport {
        let events = &self.ctx.events;
        let (matrix, id) = (self.spec.name.clone(), cell.id.clone());
        events.send(Event::CellStarted {
            matrix: matrix.clone(),
            cell: id.clone(),
            sandbox: sandbox.into(),
        });
        let output =
            OutputSink::new(events.clone(), Origin::Cell { matrix: matrix.clone(), cell: id });
        let started = Instant::now();
        let (outcome, failure) = match made {
            Err(error) => (Outcome::Failed, Some(unmade(error))),
            Ok(()) => {
                let run = RunContext { cancel: self.cancel.child_token(), ..self.ctx.clone() };
                let context = CellContext {
                    run,
                    matrix,
                    cell: cell.clone(),
                    sandbox: sandbox.into(),
                    output: output.clone(),
                };
                self.body(context).await
            }
        };
        output.flush().await;
        let duration = started.elapsed();
        let tail = if outcome == Outcome::Passed { String::new() } else { output.tail() };
        if self.spec.fail_fast && matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
            self.cancel.cancel();
        }
        let report =
            CellReport { cell, outcome, duration, failure, tail, kept: None, unchanged: false };
        self.tell(&report);
        report
    }

    async fn body(&self, context: CellContext) -> (Outcome, Option<Failure>) {
        let cancel = context.run.cancel.clone();
        let body = Arc::clone(&self.body);
        // A task of its own: a body that panics or blocks takes no other cell with it.
        let mut task = tokio::spawn(async move { body.run(context).await });
        let limit = self.spec.timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
        let stopped = tokio::select! {
            biased;
            result = &mut task => return self.outcome(result),
            () = cancel.cancelled() => false,
            () = tokio::time::sleep(limit) => true,
        };
        cancel.cancel();
        let late = tokio::time::timeout(GRACE, &mut task).await;
        if late.is_err() {
            task.abort();
        }
        match (stopped, late) {
            (true, _) => {
                let error = Error::Timeout { what: "the cell".into(), after: limit };
                (Outcome::TimedOut, Some(error.into()))
            }
            // It was done, or failed on its own, just when the cancel came.
            (false, Ok(result)) => self.outcome(result),
            (false, Err(_)) => (Outcome::Cancelled, Some(Error::Cancelled.into())),
        }
    }

    fn outcome(
        &self,
        result: std::result::Result<Result<(), Failure>, tokio::task::JoinError>,
    ) -> (Outcome, Option<Failure>) {
        match result {
            Ok(Ok(())) => (Outcome::Passed, None),
            Ok(Err(failure)) if failure.is_cancel() && self.cancel.is_cancelled() => {
                (Outcome::Cancelled, Some(failure))
            }
            Ok(Err(failure)) => (Outcome::Failed, Some(failure)),
            Err(join) => {
                let text = match join.try_into_panic() {
                    Ok(panic) => panic_text(panic.as_ref()),
                    Err(join) => join.to_string(),
                };
                let failure = Error::internal(format!("the cell's body panicked: {text}"));
                (Outcome::Failed, Some(failure.into()))
            }
        }
    }

    fn not_run(&self, cell: Cell) -> CellReport {
        let report = CellReport {
            cell,
            outcome: Outcome::NotRun,
            duration: Duration::ZERO,
            failure: None,
            tail: String::new(),
            kept: None,
            unchanged: false,
        };
        self.tell(&report);
        report
    }

    fn tell(&self, report: &CellReport) {
        self.ctx.events.send(Event::CellEnded {
            matrix: self.spec.name.clone(),
            cell: report.cell.id.clone(),
            outcome: report.outcome,
            duration: report.duration,
            message: report.failure.as_ref().map(Failure::to_string),
            hint: report.failure.as_ref().and_then(Failure::hint),
            tail: report.tail.clone(),
            unchanged: report.unchanged,
        });
    }

    /// Whether it is kept now. With a token of its own: a cancelled run keeps what it should, too.
    async fn keep(&self, sandbox: &str, cell: &Cell) -> bool {
        match self.ctx.backend.keep(sandbox, &Cancel::new()).await {
            Ok(()) => {
                let why = format!("cell {}", cell.id);
                self.ctx.events.send(Event::SandboxKept { name: sandbox.into(), why });
                true
            }
            Err(error) => {
                let message = format!("sandbox '{sandbox}' could not be kept: {error}");
                self.ctx.events.send(Event::Warning { message, hint: error.hint() });
                false
            }
        }
    }

    /// Deletes a sandbox, also when the run was cancelled.
    async fn delete(&self, sandbox: &str) {
        let cancel = Cancel::new();
        let delete = self.ctx.backend.delete(sandbox, &cancel);
        let error = match tokio::time::timeout(DELETE, delete).await {
            Ok(Ok(()) | Err(Error::NotFound { kind: Kind::Sandbox, .. })) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::Timeout { what: "the delete".into(), after: DELETE },
        };
        self.ctx.events.send(Event::Warning {
            message: format!("sandbox '{sandbox}' could not be deleted: {error}"),
            hint: Some("it goes with the next: sandscript gc".into()),
        });
    }
}

/// Why a cell has no sandbox.
fn unmade(error: Error) -> Failure {
    match error {
        Error::NotFound { .. } => Failure::Failed {
            message: format!("its sandbox could not be made: {error}"),
            hint: Some("what the cells are cloned from was deleted while the matrix ran".into()),
        },
        other => Failure::Error(other),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What of `text` can be part of a sandbox name, at most `max` characters.
pub(super) fn slug(text: &str, max: usize) -> String {
    let mut slug = String::new();
    for character in text.chars().map(|c| c.to_ascii_lowercase()) {
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(max);
    slug.trim_end_matches('-').to_string()
}
