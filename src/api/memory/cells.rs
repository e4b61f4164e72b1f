//! What is remembered of the cells of one matrix.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::super::{Ctx, Host};
use super::{Recorder, Trace};
use crate::sandbox::{Limits, Policy};
use crate::workflow::{self, AxisValue, CellMemory, MatrixReport, MatrixSpec, Outcome, Source};

/// All that a cell depends on and that is known before it runs.
#[derive(Serialize)]
struct CellKey<'a> {
    version: &'a str,
    matrix: &'a Common,
    cell: &'a str,
    values: &'a [(String, AxisValue)],
}

/// What is the same for all cells of a matrix.
#[derive(Serialize)]
struct Common {
    script: String,
    params: BTreeMap<String, String>,
    args: Vec<String>,
    project: String,
    allowed: Vec<String>,
    /// All that the host told the main body until now.
    told: String,
    backend: String,
    class: String,
    /// Which matrix of the run it is.
    number: usize,
    name: String,
    from: From,
    timeout: Option<Duration>,
    limits: Option<Limits>,
    egress: Option<Policy>,
    env: BTreeMap<String, String>,
}

/// What the cells' sandboxes are made from.
#[derive(Serialize)]
enum From {
    Base { key: String, egress: Policy, limits: Limits, env: BTreeMap<String, String> },
    Image { fingerprint: String },
}

/// The cells of one matrix, in one run.
pub(in crate::api) struct Cells {
    recorder: Arc<Recorder>,
    host: Arc<Host>,
    common: Common,
    traces: Mutex<HashMap<String, Arc<Trace>>>,
}

impl Cells {
    /// For a matrix that the main body runs, on something whose content is known; `None` for all others.
    pub async fn of(ctx: &Ctx, spec: &MatrixSpec) -> Option<Arc<Cells>> {
        let recorder = Arc::clone(ctx.host.recorder()?);
        // Those in cells come in no order.
        // What single cells have of their own is not part of what is remembered.
        // What others in their network do is known to nobody.
        let alone = spec.cell.networks.is_empty();
        if ctx.cell.is_some() || spec.list || !spec.own.is_empty() || !alone {
            return None;
        }
        let number = recorder.next_matrix();
        let from = match &spec.source {
            Source::Base(base) => From::Base {
                key: base.key.clone(),
                egress: base.egress.clone(),
                limits: base.limits.clone(),
                env: base.env.clone(),
            },
            Source::Image { image, sha256 } => {
                let image = image.as_ref().unwrap_or(&ctx.backend().capabilities().default_image);
                let found = ctx.backend().fingerprint(image, sha256.as_deref(), ctx.cancel()).await;
                From::Image { fingerprint: found.ok()? }
            }
            Source::Snapshot { .. } => return None,
        };
        let (run, can) = (&ctx.host.run, ctx.backend().capabilities());
        let common = Common {
            script: recorder.script(),
            params: ctx.host.params.clone(),
            args: ctx.host.args.clone(),
            project: run.project.display().to_string(),
            allowed: run.allowed.iter().map(|folder| folder.display().to_string()).collect(),
            told: recorder.told(),
            backend: can.backend.clone(),
            class: can.has.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
            number,
            name: spec.name.clone(),
            from,
            timeout: spec.timeout,
            limits: spec.cell.limits.clone(),
            egress: spec.cell.egress.clone(),
            env: spec.cell.env.clone(),
        };
        let host = Arc::clone(&ctx.host);
        Some(Arc::new(Cells { recorder, host, common, traces: Mutex::default() }))
    }

    /// What the cell reads from now on is written here.
    pub fn trace(&self, cell: &str) -> Arc<Trace> {
        let trace = Arc::new(Trace::default());
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        traces.insert(cell.to_owned(), Arc::clone(&trace));
        trace
    }

    /// The matrix is over.
    pub fn ended(&self, report: &MatrixReport) {
        let traces =
            std::mem::take(&mut *self.traces.lock().unwrap_or_else(PoisonError::into_inner));
        for cell in report.cells.iter().filter(|cell| !cell.unchanged) {
            let passed = (cell.outcome == Outcome::Passed).then_some(cell.duration);
            let trace = traces.get(&cell.cell.id).map(Arc::as_ref);
            // One that was not run may still be as it was.
            if !matches!(cell.outcome, Outcome::NotRun | Outcome::Cancelled) {
                self.recorder.ended(self.key(&cell.cell), passed, trace);
            }
        }
    }

    fn key(&self, cell: &workflow::Cell) -> String {
        let key = CellKey {
            version: env!("CARGO_PKG_VERSION"),
            matrix: &self.common,
            cell: &cell.id,
            values: &cell.values,
        };
        let text = serde_json::to_vec(&key).unwrap_or_default();
        let mut hasher = blake3::Hasher::new_derive_key("sandscript 1 cell key");
        hasher.update(&text).finalize().to_hex().to_string()
    }
}

#[async_trait]
impl CellMemory for Cells {
    async fn unchanged(&self, cell: &workflow::Cell) -> Option<Duration> {
        self.recorder.recall(&self.key(cell), &self.host).await
    }
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").field("matrix", &self.common.name).finish_non_exhaustive()
    }
}
