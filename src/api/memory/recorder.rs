//! Writes down what one run depends on.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::outputs::everything;
use super::trace::Read;
use super::{Cell, Memory, Trace};
use crate::api::exec::ResultObject;
use crate::api::{BaseObject, ErrorKind, ErrorObject, FnSpec, Host, Result, ScriptError, Value};
use crate::transfer::{Manifest, PackOptions};

/// A file or tree of the host that a run read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input {
    /// Its real path.
    pub path: PathBuf,
    /// Which of its files.
    pub options: PackOptions,
}

/// Writes down what one run reads. Made for each run anew.
#[derive(Debug)]
pub struct Recorder {
    memory: Arc<Memory>,
    /// The script's own file and text.
    script: blake3::Hash,
    tell: mpsc::UnboundedSender<(Input, Manifest)>,
    /// What the host told the main body so far.
    told: Mutex<blake3::Hasher>,
    matrices: AtomicUsize,
    /// Trees that were looked at for cells that may not have to run.
    looked: Mutex<HashMap<Input, Arc<Manifest>>>,
    /// Files of the script that were read.
    sources: Mutex<BTreeMap<PathBuf, blake3::Hash>>,
    passed: Mutex<Vec<(String, Cell)>>,
}

impl Recorder {
    /// A recorder for a run of this script. `tell` gets every input as it was when it was read.
    pub fn new(
        memory: Arc<Memory>,
        name: &str,
        text: &str,
        tell: mpsc::UnboundedSender<(Input, Manifest)>,
    ) -> Arc<Recorder> {
        memory.begin();
        let mut script = blake3::Hasher::new_derive_key("sandscript 1 script");
        script.update(&(name.len() as u64).to_le_bytes());
        script.update(name.as_bytes()).update(text.as_bytes());
        Arc::new(Recorder {
            memory,
            script: script.finalize(),
            tell,
            told: Mutex::new(blake3::Hasher::new_derive_key("sandscript 1 told")),
            matrices: AtomicUsize::new(0),
            looked: Mutex::default(),
            sources: Mutex::default(),
            passed: Mutex::default(),
        })
    }

    /// The run is over: cells that passed are remembered.
    pub fn finish(&self) {
        let sources: Vec<_> =
            lock(&self.sources).iter().map(|(path, hash)| (path.clone(), *hash)).collect();
        let sources = Arc::new(sources);
        for (key, mut cell) in std::mem::take(&mut *lock(&self.passed)) {
            cell.sources = Arc::clone(&sources);
            self.memory.remember(key, cell);
        }
    }

    /// A further file of the script was read, or looked for in vain. Blocking.
    pub(in crate::api) fn imported(&self, path: &Path) {
        let input = source(path);
        let manifest = self.memory.look(&input);
        lock(&self.sources).entry(input.path.clone()).or_insert(manifest.digest());
        let _ = self.tell.send((input, manifest));
    }

    pub(super) fn script(&self) -> String {
        self.script.to_hex().to_string()
    }

    /// A digest of all that the host told the main body so far.
    pub(super) fn told(&self) -> String {
        lock(&self.told).finalize().to_hex().to_string()
    }

    /// Which matrix of the run this is.
    pub(super) fn next_matrix(&self) -> usize {
        self.matrices.fetch_add(1, Ordering::Relaxed)
    }

    /// The host told the main body something.
    pub(in crate::api) fn tell(&self, spec: &FnSpec, result: &Result<Value>) {
        // How long something took, and what of it was cached, is for people.
        if matches!(spec.name, "duration" | "hits") {
            return;
        }
        let mut hasher = lock(&self.told);
        text(&mut hasher, spec.receiver.unwrap_or_default());
        text(&mut hasher, spec.name);
        match result {
            Ok(value) => fold(&mut hasher, value),
            Err(error) => fold_error(&mut hasher, error),
        }
    }

    /// A script is about to read a host file or tree that may be there or not.
    pub(in crate::api) async fn reading(
        self: &Arc<Self>,
        path: &Path,
        options: &PackOptions,
        trace: Option<Arc<Trace>>,
    ) -> Reading {
        let input = Input { path: path.to_owned(), options: options.clone() };
        let before = self.look(&input).await;
        let _ = self.tell.send((input.clone(), before.clone()));
        if let Some(trace) = &trace {
            let (path, options) = (input.path.clone(), input.options.clone());
            trace.read(Read::Tree { path, options, digest: before.digest() });
        }
        Reading { recorder: Arc::clone(self), input, before, trace }
    }

    /// A script is about to write to the host.
    pub(in crate::api) fn writing(
        self: &Arc<Self>,
        path: &Path,
        trace: Option<Arc<Trace>>,
    ) -> Writing {
        let place = self.memory.outputs.begin(path);
        Writing { recorder: Arc::clone(self), target: path.to_owned(), place, trace }
    }

    async fn look(self: &Arc<Self>, input: &Input) -> Manifest {
        let (own, input) = (Arc::clone(self), input.clone());
        let looked = tokio::task::spawn_blocking(move || own.memory.look(&input));
        looked.await.unwrap_or_default()
    }

    /// How long the cell with this key took, when it passed and nothing it read has changed.
    pub(super) async fn recall(self: &Arc<Self>, key: &str, host: &Host) -> Option<Duration> {
        let cell = self.memory.find(key)?;
        let mut inputs = Vec::new();
        for (path, digest) in cell.sources.iter() {
            let input = source(path);
            let manifest = self.looked(&input).await;
            if manifest.digest() != *digest {
                return None;
            }
            inputs.push((input, manifest));
        }
        for read in &cell.reads {
            match read {
                Read::Tree { path, options, digest } => {
                    let input = Input { path: path.clone(), options: options.clone() };
                    let manifest = self.looked(&input).await;
                    if manifest.digest() != *digest {
                        return None;
                    }
                    inputs.push((input, manifest));
                }
                Read::Output { path, digest } => {
                    let (own, path) = (Arc::clone(self), path.clone());
                    let look = move || Manifest::of(&path, &everything(), &own.memory.digests);
                    let now = tokio::task::spawn_blocking(look).await.ok()?;
                    if now.digest() != *digest {
                        return None;
                    }
                }
                Read::Env { name, value } => {
                    if host.env(name) != *value {
                        return None;
                    }
                }
                Read::Image { image, sha256, fingerprint } => {
                    let run = &host.run;
                    let image = image.as_ref().unwrap_or(&run.backend.capabilities().default_image);
                    let now = run.backend.fingerprint(image, sha256.as_deref(), &run.cancel).await;
                    if now.ok().as_ref() != Some(fingerprint) {
                        return None;
                    }
                }
            }
        }
        // It counts as read, so that the next change of it is seen.
        for (input, manifest) in inputs {
            let _ = self.tell.send((input, Manifest::clone(&manifest)));
        }
        for (path, digest) in cell.sources.iter() {
            lock(&self.sources).entry(path.clone()).or_insert(*digest);
        }
        Some(cell.duration)
    }

    /// Looks once a run: a change that comes later is one of those that the run is told about.
    async fn looked(self: &Arc<Self>, input: &Input) -> Arc<Manifest> {
        if let Some(manifest) = lock(&self.looked).get(input) {
            return Arc::clone(manifest);
        }
        let manifest = Arc::new(self.look(input).await);
        lock(&self.looked).insert(input.clone(), Arc::clone(&manifest));
        manifest
    }

    /// A cell ended.
    pub(super) fn ended(&self, key: String, passed: Option<Duration>, trace: Option<&Trace>) {
        self.memory.forget(&key);
        if let (Some(duration), Some(reads)) = (passed, trace.and_then(Trace::reads)) {
            let sources = Arc::default();
            lock(&self.passed).push((key, Cell { reads, sources, duration, run: 0 }));
        }
    }
}

/// A file of the script.
fn source(path: &Path) -> Input {
    Input { path: path.to_owned(), options: PackOptions::default() }
}

/// A host tree that is being read.
pub(in crate::api) struct Reading {
    recorder: Arc<Recorder>,
    input: Input,
    before: Manifest,
    trace: Option<Arc<Trace>>,
}

impl Reading {
    /// It was read. When it changed meanwhile, nobody knows what was read.
    pub async fn done(self) {
        let Some(trace) = self.trace else { return };
        if self.recorder.look(&self.input).await != self.before {
            trace.doubt(|| format!("{} changed while it was read", self.input.path.display()));
        }
    }
}

/// A host file or tree that is being written.
pub(in crate::api) struct Writing {
    recorder: Arc<Recorder>,
    target: PathBuf,
    /// What of the host is looked at: the target, or the first folder that was made for it.
    place: PathBuf,
    trace: Option<Arc<Trace>>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let memory = &self.recorder.memory;
        memory.outputs.end(&self.place, &memory.digests);
        if let Some(trace) = &self.trace {
            let digest = Manifest::of(&self.target, &everything(), &memory.digests).digest();
            trace.read(Read::Output { path: self.target.clone(), digest });
        }
    }
}

fn text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn fold(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::List(values) => {
            hasher.update(b"[").update(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| fold(hasher, value));
        }
        Value::Map(map) => {
            hasher.update(b"{");
            for (key, value) in map.iter().filter(|(key, _)| *key != "duration" && *key != "frozen")
            {
                text(hasher, key);
                fold(hasher, value);
            }
            hasher.update(b"}");
        }
        Value::Handle(handle) => {
            text(hasher, handle.0.type_name());
            if let Some(base) = handle.downcast::<BaseObject>() {
                text(hasher, base.built().map_or(base.name(), |base| &base.key));
            } else if let Some(result) = handle.downcast::<ResultObject>() {
                let output = result.output();
                text(hasher, &output.exit.to_string());
                hasher.update(blake3::hash(&output.stdout).as_bytes());
                hasher.update(blake3::hash(&output.stderr).as_bytes());
            } else if let Some(error) = handle.downcast::<ErrorObject>() {
                fold_error(hasher, &error.0);
            }
        }
        Value::Bytes(bytes) => drop(hasher.update(b"b").update(blake3::hash(bytes).as_bytes())),
        // A function came from the script.
        Value::Callback(_) => drop(hasher.update(b"f")),
        other => text(hasher, &format!("{} {other}", other.type_name())),
    }
}

fn fold_error(hasher: &mut blake3::Hasher, error: &ScriptError) {
    text(hasher, error.code());
    text(hasher, &error.message);
    if let ErrorKind::Command(Some(result)) = &error.kind {
        fold(hasher, &Value::Handle(result.clone()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
