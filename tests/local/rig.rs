//! A store of our own, and the shortest words for what the tests do with it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Output as Printed, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sandscript::backend::local::{LocalBackend, LocalConfig};
use sandscript::sandbox::{
    Backend, Cancel, Capability, CloneSpec, Command, Error, Exit, Output, Result, SnapshotSpec,
    Spec, WriteOptions, exec,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub enum Outcome {
    Done,
    Skipped(String),
}

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("SANDSCRIPT_TEST_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_sandscript").into(), PathBuf::from)
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A folder that lies under no other test's.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("sandscript-faults-").tempdir().unwrap()
}

/// Whether a program is installed.
pub fn installed(name: &str) -> bool {
    Program::new("sh")
        .args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin; command -v {name} >/dev/null")])
        .status()
        .is_ok_and(|status| status.success())
}

pub struct Rig {
    pub backend: LocalBackend,
    pub runtime: Runtime,
    pub store: PathBuf,
    temp: TempDir,
    serial: AtomicUsize,
}

impl Rig {
    pub fn open() -> Result<Rig> {
        let temp = scratch();
        let store = temp.path().join("store");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Error::internal(error.to_string()))?;
        let config = LocalConfig { store: store.clone(), ..LocalConfig::default() };
        let backend = runtime.block_on(async { LocalBackend::open(config) })?;
        let rig = Rig { backend, runtime, store, temp, serial: AtomicUsize::new(0) };
        let made = rig.make(Spec::new("probe")).map(drop);
        made.map_err(|error| {
            let hint = error.hint().unwrap_or_default();
            Error::internal(format!("{error} ({hint})"))
        })?;
        Ok(rig)
    }

    /// A name no other test uses, on this machine.
    pub fn name(&self, stem: &str) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("{stem}-{}-{serial}", std::process::id())
    }

    pub fn lacks(&self, capability: Capability) -> Option<Outcome> {
        let why = self.backend.capabilities().missing.get(&capability)?;
        Some(Outcome::Skipped(format!("needs {}: {why}", capability.as_str())))
    }

    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(100), call).await })
            .expect("it hangs")
    }

    pub fn make(&self, spec: Spec) -> Result<Sandbox<'_>> {
        self.wait(self.backend.create(&spec, &Cancel::new()))?;
        Ok(Sandbox { rig: self, name: spec.name })
    }

    pub fn sandbox(&self, stem: &str) -> Sandbox<'_> {
        self.make(Spec::new(self.name(stem))).unwrap()
    }

    /// The command line on a store.
    pub fn cli(&self, store: &Path, args: &[&str]) -> Program {
        let mut program = Program::new(program());
        program
            .args(args)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.temp.path())
            .env("SANDSCRIPT_STORE", store)
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        program
    }

    pub fn call(&self, store: &Path, args: &[&str]) -> Printed {
        self.cli(store, args).output().unwrap()
    }

    /// A call that must succeed; what it printed.
    #[track_caller]
    pub fn ok(&self, store: &Path, args: &[&str]) -> String {
        let printed = self.call(store, args);
        assert!(printed.status.success(), "{args:?}: {}", text(&printed));
        String::from_utf8_lossy(&printed.stdout).into_owned()
    }

    /// Compiles one of the programs beside this file. `None` without a compiler.
    pub fn compiled(&self, name: &str, source: &str) -> Option<Vec<u8>> {
        let folder = scratch();
        let (from, to) = (folder.path().join("x.c"), folder.path().join(name));
        fs::write(&from, source).unwrap();
        let output = Program::new("cc")
            .args(["-w", "-O1", "-pthread", "-o"])
            .args([&to, &from])
            .output()
            .ok()?;
        assert!(output.status.success(), "{}", text(&output));
        Some(fs::read(to).unwrap())
    }

    /// Deletes what is left and says what should not be there.
    pub fn close(&self) -> std::result::Result<(), String> {
        empty(self, &self.store);
        let mine = format!("-{}-", std::process::id());
        within("sandboxes still listen", || {
            let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
            let left =
                sockets.lines().find(|line| line.contains(&mine) && line.contains("/boxes/"));
            left.map(str::to_owned)
        })?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        match mounts.lines().find(|line| line.contains("sandscript-faults-")) {
            Some(line) => Err(format!("mounted: {line}")),
            None => Ok(()),
        }
    }
}

/// Deletes all sandboxes of a store, its images and all that it holds.
pub fn empty(rig: &Rig, store: &Path) {
    let listed = rig.call(store, &["list", "--format", "json"]);
    let all: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    for one in all {
        rig.call(store, &["delete", "--yes", one["name"].as_str().unwrap_or_default()]);
    }
    for file in fs::read_dir(store.join("images")).into_iter().flatten().flatten() {
        let _ = fs::remove_file(file.path());
    }
    rig.call(store, &["gc", "--yes"]);
    let _ = within("trash", || {
        rig.call(store, &["gc", "--yes"]);
        fs::read_dir(store.join("trash")).ok()?.next().map(|_| String::new())
    });
}

/// Waits until `left` finds nothing, for a minute: the machine may be busy.
pub fn within(
    what: &str,
    mut left: impl FnMut() -> Option<String>,
) -> std::result::Result<(), String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match left() {
            None => return Ok(()),
            Some(found) if Instant::now() > end => return Err(format!("{what}: {found}")),
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Everything a program printed.
pub fn text(printed: &Printed) -> String {
    format!(
        "{}: {}{}",
        printed.status,
        String::from_utf8_lossy(&printed.stdout),
        String::from_utf8_lossy(&printed.stderr)
    )
}

/// Layers in the store that nothing refers to, and layers that are referred to and missing.
pub fn astray(store: &Path) -> Vec<String> {
    let mut referred = BTreeSet::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(store.join("boxes")).unwrap().flatten() {
        files.push(entry.path().join("record.json"));
        let snapshots = fs::read_dir(entry.path().join("snapshots")).into_iter().flatten();
        files.extend(snapshots.flatten().map(|file| file.path()));
    }
    files.extend(fs::read_dir(store.join("images")).unwrap().flatten().map(|file| file.path()));
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(file).unwrap()).expect("a damaged record");
        referred.extend(
            record["layers"]
                .as_array()
                .into_iter()
                .flatten()
                .cloned()
                .chain(record.get("upper").cloned())
                .filter_map(|id| id.as_str().map(str::to_owned)),
        );
    }
    let there: BTreeSet<String> = fs::read_dir(store.join("layers"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    referred.symmetric_difference(&there).cloned().collect()
}

pub struct Sandbox<'a> {
    pub rig: &'a Rig,
    pub name: String,
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        let _ = self.rig.wait(self.rig.backend.delete(&self.name, &Cancel::new()));
    }
}

impl<'a> Sandbox<'a> {
    pub fn exec(&self, command: &Command) -> Result<Output> {
        self.rig.wait(exec(&self.rig.backend, &self.name, command, &Cancel::new()))
    }

    pub fn sh(&self, line: &str) -> Output {
        self.exec(&Command::shell(line)).unwrap()
    }

    /// The output of a line that must succeed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.sh(line);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.exit == Exit::Code(0), "{line}: {} {out}{err}", output.exit);
        out.trim_end().to_owned()
    }

    /// A background process that lives on.
    pub fn background(&self, line: &str) {
        let mut command = Command::shell(line);
        command.detached = true;
        self.rig.wait(async {
            let spawned = self.rig.backend.spawn(&self.name, &command, &Cancel::new()).await;
            drop(spawned.unwrap());
        });
    }

    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let options = WriteOptions { mode: Some(mode), ..WriteOptions::default() };
        let content = Box::new(Cursor::new(bytes.to_vec()));
        self.rig.wait(self.rig.backend.write(&self.name, path, content, &options, &Cancel::new()))
    }

    pub fn snapshot(&self, label: &str) -> Result<()> {
        let spec = SnapshotSpec::new(label);
        self.rig.wait(self.rig.backend.snapshot(&self.name, &spec, &Cancel::new())).map(drop)
    }

    pub fn clone_of(&self, label: &str) -> Sandbox<'a> {
        let name = self.rig.name("clone");
        let spec = CloneSpec::of(label, &name);
        let backend: &dyn Backend = &self.rig.backend;
        self.rig.wait(backend.clone(&self.name, &spec, &Cancel::new())).unwrap();
        Sandbox { rig: self.rig, name }
    }

    /// How many processes run in it, the asking shell's own left out.
    pub fn processes(&self) -> usize {
        self.run("n=0; for p in /proc/[0-9]*; do n=$((n+1)); done; echo $((n-2))").parse().unwrap()
    }
}
