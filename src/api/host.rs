//! The host of a run: what a script may touch, and who cleans up after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::machines::{MachineName, Machines, Opener, builders};
use super::{Budget, Ctx, FnSpec, Recorder, Registry, ScriptError, Stop};
use crate::egress::Catalog;
use crate::sandbox::{self, Backend, Cancel, Owner};
use crate::workflow::{
    Event, EventSink, Filter, MatrixReport, OWNED_AFTER, OnFail, Order, Partition, Pins,
    RunContext, Secret, SecretSource,
};

/// Where the lines that a script prints go.
pub type Print = Arc<dyn Fn(&str) + Send + Sync>;

/// What one run of a script may touch, and what it made.
///
/// Sandboxes that the run makes are deleted by [`Host::finish`], however the run ended, unless
/// they are kept. [`crate::lang::run`] calls it.
pub struct Host {
    /// The run: backend, owner, cancel, events, project folder.
    pub run: RunContext,
    /// What scripts can call.
    pub registry: Arc<Registry>,
    pub(super) print: Option<Print>,
    pub(super) params: BTreeMap<String, String>,
    pub(super) args: Vec<String>,
    pub(super) env: Option<BTreeMap<String, String>>,
    pub(super) secrets: BTreeMap<String, SecretSource>,
    pub(super) used: Arc<Mutex<BTreeMap<String, Secret>>>,
    pub(super) timeout: Option<Duration>,
    pub(super) operations: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) made: Mutex<Made>,
    /// The parameters that the script asked for.
    pub(super) asked: Arc<Mutex<BTreeSet<String>>>,
    pub(super) background: Cancel,
    /// How matrices are run, whatever the script says.
    pub(super) plan: Plan,
    pub(super) reports: Arc<Mutex<Vec<MatrixReport>>>,
    pub(super) modules: Arc<Mutex<BTreeSet<PathBuf>>>,
    pub(super) recorder: Option<Arc<Recorder>>,
    /// What the backend is called.
    pub(super) machine: MachineName,
    /// The other backends of the run.
    pub(super) machines: Arc<Machines>,
    /// How many bases are built on it at once.
    pub(super) builders: Arc<Semaphore>,
    /// What the words of egress policies mean.
    pub(super) egress: Arc<Catalog>,
    /// Whether methods of the machine that may change it can be called.
    pub(super) allow_call: bool,
}

/// What the command line says about every matrix of a run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Which cells run.
    pub filter: Filter,
    /// Tell which cells would run, and run none.
    pub list: bool,
    /// What commands return is made up: assertions are not judged, and nothing is written on the host.
    pub dry: bool,
    /// How many run at once, instead of what the script says.
    pub parallel: Option<usize>,
    /// End all when so many failed, instead of what the script says.
    pub max_fail: Option<usize>,
    /// How often a cell that failed is tried again, instead of what the script says.
    pub retries: Option<usize>,
    /// In which order cells start, instead of what the script says.
    pub order: Option<Order>,
    /// What decides where something is left to chance.
    pub seed: u64,
    /// Every cell so many times; 0 counts as 1.
    pub repeat: usize,
    /// Of the selected cells only those in this part.
    pub partition: Option<Partition>,
    /// How long cells took the last time: by matrix and id.
    pub times: HashMap<String, Arc<HashMap<String, Duration>>>,
    /// Of the selected cells only these: names of matrices, and ids.
    pub only: Option<BTreeSet<(String, String)>>,
    /// Tell of each step of a base what its key is and what changed in it.
    pub explain: bool,
    /// What images have to be.
    pub pins: Option<Arc<Pins>>,
    /// Only bases are wanted.
    pub bases: Option<Arc<WantedBases>>,
}

/// The bases that a run is for, where it is for bases only.
#[derive(Debug, Default)]
pub struct WantedBases {
    /// Their names; all when there are none.
    pub names: BTreeSet<String>,
    /// Build them anew.
    pub rebuild: bool,
    ready: Mutex<BTreeSet<String>>,
}

impl WantedBases {
    /// All, or those of these names.
    pub fn new(names: impl IntoIterator<Item = String>, rebuild: bool) -> WantedBases {
        WantedBases { names: names.into_iter().collect(), rebuild, ready: Mutex::default() }
    }

    /// Whether this base is one of them.
    pub(super) fn has(&self, base: &str) -> bool {
        self.names.is_empty() || self.names.contains(base)
    }

    /// Takes note that a base is there.
    pub(super) fn add(&self, base: &str) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(base.to_owned());
    }

    /// Those that the script did not make. All are there when it is empty and names were given.
    pub fn missing(&self) -> Vec<String> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        self.names.difference(&ready).cloned().collect()
    }

    /// The bases that the script has made.
    pub fn ready(&self) -> Vec<String> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.iter().cloned().collect()
    }

    /// Whether the rest of the script is of no use.
    pub fn complete(&self) -> bool {
        !self.names.is_empty() && self.missing().is_empty()
    }
}

impl Plan {
    /// Whether this base is wanted although nothing may need it.
    pub(super) fn wants(&self, base: &str) -> bool {
        self.bases.as_ref().is_some_and(|wanted| wanted.names.contains(base))
    }

    /// Whether cells are listed and nothing that they need is looked at.
    pub(super) fn only_lists(&self) -> bool {
        self.list && !self.dry && self.bases.is_none()
    }

    /// How long the cells of a matrix took the last time.
    pub(super) fn times(&self, matrix: &str) -> Arc<HashMap<String, Duration>> {
        self.times.get(matrix).cloned().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct Made {
    live: BTreeSet<String>,
    /// With who wants it.
    kept: BTreeMap<String, &'static str>,
    /// For each sandbox that a handle is on: what has become of it.
    gone: BTreeMap<String, Arc<AtomicU8>>,
}

/// A handle's sandbox: the script has deleted it.
pub(super) const DELETED: u8 = 1;
/// A handle's sandbox: the run that the handle is of has ended.
pub(super) const OVER: u8 = 2;
/// Who wants a sandbox to be kept: the command line, or the script.
const KEEP: &str = "--keep";
const SCRIPT: &str = "the script keeps it";

/// What a run without a time limit counts as, where nobody can ask whether it lives.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a run left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Sandboxes that were kept on purpose.
    pub kept: Vec<String>,
    /// Sandboxes that could not be deleted, and why.
    pub failed: Vec<(String, String)>,
}

impl Host {
    /// Starts to describe a host.
    pub fn builder(backend: Arc<dyn Backend>) -> HostBuilder {
        HostBuilder {
            backend,
            owner: None,
            events: None,
            cancel: Cancel::new(),
            project: PathBuf::from("."),
            allowed: Vec::new(),
            cache: None,
            keep: false,
            on_fail: OnFail::Clean,
            artifacts: None,
            print: None,
            params: BTreeMap::new(),
            args: Vec::new(),
            env: None,
            secrets: BTreeMap::new(),
            timeout: None,
            operations: None,
            memory: None,
            functions: Vec::new(),
            plan: Plan::default(),
            recorder: None,
            host: None,
            opener: None,
            egress: Arc::default(),
            allow_call: false,
        }
    }

    /// The context that the script's main body runs in. Its deadline starts now. Needs a running
    /// tokio runtime.
    pub fn start(self: &Arc<Self>) -> Ctx {
        let stop =
            Stop::new(&self.run.cancel, self.timeout, Budget::new(self.operations, self.memory));
        Ctx::main(Arc::clone(self), stop)
    }

    /// The context of one of several bodies that run one after the other, which `cancel` ends as
    /// well. Needs a running tokio runtime.
    pub fn start_one(self: &Arc<Self>, cancel: &Cancel) -> Ctx {
        let whole =
            Stop::new(&self.run.cancel, self.timeout, Budget::new(self.operations, self.memory));
        Ctx::main(Arc::clone(self), Stop::within(&whole, cancel))
    }

    /// What the words of egress policies mean.
    pub fn egress(&self) -> &Catalog {
        &self.egress
    }

    /// How much memory the values of a script may take, in bytes.
    pub fn most_memory(&self) -> u64 {
        self.memory.unwrap_or(super::budget::MEMORY)
    }

    /// A variable of the host's environment.
    pub fn env(&self, name: &str) -> Option<String> {
        match &self.env {
            Some(env) => env.get(name).cloned(),
            None => std::env::var(name).ok(),
        }
    }

    /// A secret, which is masked in everything that is told from now on. Where the run is only
    /// planned it is not read.
    pub async fn secret(self: &Arc<Self>, name: &str) -> sandbox::Result<Secret> {
        let known = |host: &Host| host.used().get(name).cloned();
        if let Some(secret) = known(self) {
            return Ok(secret);
        }
        let secret = if self.plan.dry {
            Secret::unread(name)
        } else {
            let source = self.secrets.get(name).cloned();
            let source = source.unwrap_or_else(|| SecretSource::Env(name.to_owned()));
            let (host, name) = (Arc::clone(self), name.to_owned());
            let read =
                tokio::task::spawn_blocking(move || source.read(&name, |name| host.env(name)));
            read.await.map_err(|error| sandbox::Error::internal(error.to_string()))??
        };
        self.run.events.mask().add(&secret);
        self.used().insert(name.to_owned(), secret.clone());
        Ok(secret)
    }

    /// The names of the secrets that the script asked for.
    pub(super) fn secrets_used(&self) -> Vec<String> {
        self.used().keys().cloned().collect()
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<String, Secret>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error without the secrets in it.
    pub fn masked(&self, mut error: ScriptError) -> ScriptError {
        let mask = self.run.events.mask();
        if mask.is_empty() {
            return error;
        }
        let report = &mut *error;
        mask.clean(&mut report.message);
        report.hint.iter_mut().chain(&mut report.source_line).for_each(|text| mask.clean(text));
        error
    }

    /// The parameters that were given and that the script never asked for.
    pub fn unused_params(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.params.keys().filter(|name| !asked.contains(*name)).cloned().collect()
    }

    /// The reports of all matrices so far, taken out.
    pub fn take_reports(&self) -> Vec<MatrixReport> {
        std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The files of the modules that the script imported so far, and those that it tried to import
    /// and that are missing: when one of them changes or appears, the script may do something else.
    pub fn modules(&self) -> Vec<PathBuf> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Remembers that the script imports from this file, or would if it were there.
    pub fn imported(&self, file: PathBuf) {
        if let Some(recorder) = &self.recorder {
            recorder.imported(&file);
        }
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).insert(file);
    }

    /// Who writes down what the run depends on.
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    pub(super) fn reported(&self, report: MatrixReport) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }

    pub(super) fn asked(&self, param: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(param.to_owned());
    }

    /// Remembers that the run made this sandbox.
    pub(super) fn track(&self, name: &str, keep: bool) {
        let mut made = self.made();
        if keep || self.run.keep {
            made.kept.insert(name.to_owned(), if self.run.keep { KEEP } else { SCRIPT });
        } else {
            made.live.insert(name.to_owned());
        }
    }

    /// What all handles on this sandbox share: [`DELETED`] once the script has deleted it, [`OVER`]
    /// once the run has ended.
    pub(super) fn gone(&self, name: &str) -> Arc<AtomicU8> {
        Arc::clone(self.made().gone.entry(name.to_owned()).or_default())
    }

    /// Takes a sandbox out of those that are deleted at the end.
    pub(super) fn keep(&self, name: &str) {
        self.keep_for(name, SCRIPT);
    }

    fn keep_for(&self, name: &str, who: &'static str) {
        let mut made = self.made();
        made.live.remove(name);
        made.kept.insert(name.to_owned(), who);
    }

    /// Whether it is there and not kept.
    pub(super) fn is_live(&self, name: &str) -> bool {
        self.made().live.contains(name)
    }

    /// The sandboxes that the run made and [`Host::finish`] would delete, by name.
    pub fn live(&self) -> Vec<String> {
        self.made().live.iter().cloned().collect()
    }

    /// The sandboxes that the run made and keeps, by name.
    pub fn kept(&self) -> Vec<String> {
        self.made().kept.keys().cloned().collect()
    }

    /// Keeps a sandbox that [`Host::finish`] would delete.
    pub async fn keep_one(&self, name: &str) -> sandbox::Result<()> {
        self.run.backend.keep(name, &Cancel::new()).await?;
        self.keep_for(name, "you keep it");
        Ok(())
    }

    /// Remembers that the script deleted it.
    pub(super) fn forget(&self, name: &str) {
        let mut made = self.made();
        made.live.remove(name);
        made.kept.remove(name);
        if let Some(gone) = made.gone.remove(name) {
            gone.store(DELETED, Ordering::Relaxed);
        }
    }

    /// Cancelled when the run is over: ends the processes that it left running.
    pub(super) fn background(&self) -> Cancel {
        self.background.clone()
    }

    /// Who owns what the run makes; nobody when everything is kept.
    pub(super) fn owner(&self, keep: bool) -> Option<Owner> {
        (!keep && !self.run.keep).then(|| self.run.owner.clone())
    }

    /// Deletes what the run made and did not keep, on every backend: at once, side by side, also when
    /// the run was cancelled. Takes at most a minute.
    pub async fn finish(&self) -> Leftovers {
        let others = std::mem::take(&mut *self.machines.open.lock().await);
        let mut tasks = tokio::task::JoinSet::new();
        for host in others.into_values() {
            tasks.spawn(async move { host.finish_here().await });
        }
        let mut leftovers = self.finish_here().await;
        while let Some(done) = tasks.join_next().await {
            if let Ok(Leftovers { kept, failed }) = done {
                leftovers.kept.extend(kept);
                leftovers.failed.extend(failed);
            }
        }
        leftovers
    }

    /// The same on this backend only.
    async fn finish_here(&self) -> Leftovers {
        let (live, kept) = {
            let mut made = self.made();
            for gone in std::mem::take(&mut made.gone).into_values() {
                gone.store(OVER, Ordering::Relaxed);
            }
            (std::mem::take(&mut made.live), std::mem::take(&mut made.kept))
        };
        self.background.cancel();
        if let Some(recorder) = &self.recorder {
            recorder.finish();
        }
        let cancel = Cancel::new();
        let gate = Arc::new(tokio::sync::Semaphore::new(16));
        let mut tasks = tokio::task::JoinSet::new();
        for name in live {
            let (backend, cancel, gate) =
                (Arc::clone(&self.run.backend), cancel.clone(), Arc::clone(&gate));
            tasks.spawn(async move {
                let _turn = gate.acquire().await;
                let limit = Duration::from_secs(60);
                let done = tokio::time::timeout(limit, backend.delete(&name, &cancel)).await;
                let failed = match done {
                    Ok(Ok(()) | Err(sandbox::Error::NotFound { .. })) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("it took longer than a minute".into()),
                };
                (name, failed)
            });
        }
        let mut leftovers = Leftovers { kept: kept.keys().cloned().collect(), failed: Vec::new() };
        while let Some(done) = tasks.join_next().await {
            if let Ok((name, Some(why))) = done {
                leftovers.failed.push((name, why));
            }
        }
        leftovers.failed.sort();
        for (name, why) in kept {
            self.run.events.send(Event::SandboxKept { name, why: why.into() });
        }
        for (name, why) in &leftovers.failed {
            self.run.events.send(Event::Warning {
                message: format!("sandbox '{name}' could not be deleted: {why}"),
                hint: Some("sandscript gc --yes deletes it later".into()),
            });
        }
        leftovers
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Describes a [`Host`].
pub struct HostBuilder {
    backend: Arc<dyn Backend>,
    owner: Option<Owner>,
    events: Option<EventSink>,
    cancel: Cancel,
    project: PathBuf,
    allowed: Vec<PathBuf>,
    cache: Option<PathBuf>,
    keep: bool,
    on_fail: OnFail,
    artifacts: Option<PathBuf>,
    print: Option<Print>,
    params: BTreeMap<String, String>,
    args: Vec<String>,
    env: Option<BTreeMap<String, String>>,
    secrets: BTreeMap<String, SecretSource>,
    timeout: Option<Duration>,
    operations: Option<u64>,
    memory: Option<u64>,
    functions: Vec<FnSpec>,
    plan: Plan,
    recorder: Option<Arc<Recorder>>,
    host: Option<String>,
    opener: Option<Arc<dyn Opener>>,
    egress: Arc<Catalog>,
    allow_call: bool,
}

impl HostBuilder {
    /// The machine that the backend drives, where that is another one.
    pub fn on(mut self, host: Option<String>) -> Self {
        self.host = host;
        self
    }

    /// Who opens other backends that cells of a matrix ask for. Without one there are none.
    pub fn opener(mut self, opener: Arc<dyn Opener>) -> Self {
        self.opener = Some(opener);
        self
    }

    /// Writes down what the run depends on.
    pub fn recorder(mut self, recorder: Arc<Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// How matrices are run, whatever the script says.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Who owns what the run makes; a new run of this process when not said.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Where everything that happens is told.
    pub fn events(mut self, events: EventSink) -> Self {
        self.events = Some(events);
        self
    }

    /// Ends the run when cancelled.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// The only folder that scripts may read and write on the host; the working directory when
    /// not said.
    pub fn project(mut self, folder: impl AsRef<Path>) -> Self {
        self.project = folder.as_ref().to_owned();
        self
    }

    /// One more folder that they may.
    pub fn allow(mut self, folder: impl AsRef<Path>) -> Self {
        self.allowed.push(folder.as_ref().to_owned());
        self
    }

    /// Where the host keeps what it fetches for steps, and the folders of caches, from one run to the
    /// next; when not said, a folder of this user among the temporary files.
    pub fn cache(mut self, folder: impl AsRef<Path>) -> Self {
        self.cache = Some(folder.as_ref().to_owned());
        self
    }

    /// Whether scripts may call methods of the machine that change it; see [`Backend::call`].
    pub fn allow_call(mut self, allow: bool) -> Self {
        self.allow_call = allow;
        self
    }

    /// Keep all sandboxes when the run ends.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// The folder that cells' artifacts are copied to.
    pub fn artifacts(mut self, folder: impl AsRef<Path>) -> Self {
        self.artifacts = Some(folder.as_ref().to_owned());
        self
    }

    /// What becomes of the sandboxes of cells that failed.
    pub fn on_fail(mut self, on_fail: OnFail) -> Self {
        self.on_fail = on_fail;
        self
    }

    /// Gets each line that the script prints, instead of an event.
    pub fn print(mut self, print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.print = Some(Arc::new(print));
        self
    }

    /// A parameter that the script reads with `param`.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// What the script gets from `args()`.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// The environment that `env` reads, instead of this process's own.
    pub fn env<K: Into<String>, V: Into<String>>(
        mut self,
        env: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env = Some(env.into_iter().map(|(k, v)| (k.into(), v.into())).collect());
        self
    }

    /// Where the secret of this name comes from; of one that is not named here, it is the environment
    /// variable of that name.
    pub fn secret(mut self, name: impl Into<String>, source: SecretSource) -> Self {
        self.secrets.insert(name.into(), source);
        self
    }

    /// What the words of egress policies mean, and what none may allow; when not said, the presets
    /// that come with sandscript.
    pub fn egress(mut self, catalog: Arc<Catalog>) -> Self {
        self.egress = catalog;
        self
    }

    /// How long the run may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How many operations the run's scripts may do, of their language, in steps of a thousand. A
    /// guard against endless loops that depends on no clock.
    pub fn operations(mut self, most: u64) -> Self {
        self.operations = Some(most);
        self
    }

    /// How much memory the values of the run's scripts may take, in bytes; 1 GiB when not said. In
    /// Rhai it is the growth of the whole process that is measured.
    pub fn memory(mut self, most: u64) -> Self {
        self.memory = Some(most);
        self
    }

    /// A function of your own that scripts can call.
    pub fn function(mut self, spec: FnSpec) -> Self {
        self.functions.push(spec);
        self
    }

    /// The host. Fails when the project folder or an allowed one can't be found.
    pub fn build(self) -> sandbox::Result<Arc<Host>> {
        let find = |folder: &Path| {
            folder.canonicalize().map_err(|error| {
                sandbox::Error::invalid("project", format!("'{}': {error}", folder.display()))
            })
        };
        let mut owner = self.owner.unwrap_or_else(|| {
            let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
            Owner::new(new_run_id(), machine.trim().chars().take(12).collect::<String>())
        });
        if owner.until.is_none() {
            let over = self.timeout.map_or(LONGEST, |timeout| timeout.saturating_add(OWNED_AFTER));
            owner.until = crate::sandbox::wall_clock().checked_add(over);
        }
        let events = self.events.unwrap_or_else(EventSink::none);
        let mut run = RunContext::new(self.backend, owner, events, find(&self.project)?);
        run.cancel = self.cancel;
        run.keep = self.keep;
        run.cache = self.cache;
        run.on_fail = self.on_fail;
        run.artifacts = self.artifacts;
        run.explain = self.plan.explain;
        run.pins = self.plan.pins.clone();
        run.allowed = self.allowed.iter().map(|path| find(path)).collect::<Result<_, _>>()?;
        let registry = match self.functions.is_empty() {
            true => Registry::standard(),
            false => Arc::new(Registry::standard().with(self.functions)),
        };
        let name = run.backend.capabilities().backend.clone();
        let (machine, opener) = (MachineName { backend: name, host: self.host }, self.opener);
        let builders = builders(&*run.backend);
        Ok(Arc::new_cyclic(|first| Host {
            run,
            registry,
            machine,
            builders,
            machines: Arc::new(Machines {
                first: first.clone(),
                opener,
                open: tokio::sync::Mutex::default(),
                opened: Mutex::default(),
            }),
            print: self.print,
            params: self.params,
            args: self.args,
            env: self.env,
            secrets: self.secrets,
            used: Arc::default(),
            timeout: self.timeout,
            operations: self.operations,
            memory: self.memory,
            made: Mutex::default(),
            asked: Arc::default(),
            background: Cancel::new(),
            plan: self.plan,
            reports: Arc::default(),
            modules: Arc::default(),
            recorder: self.recorder,
            egress: self.egress,
            allow_call: self.allow_call,
        }))
    }
}

/// An id that no other run has: time, process and a counter.
pub fn new_run_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = now.unwrap_or_default().as_micros() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = [micros, std::process::id().into(), count].map(u64::to_le_bytes).concat();
    format!("r{}", &blake3::hash(&seed).to_hex()[..12])
}
