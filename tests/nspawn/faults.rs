//! What is left when things go wrong half-way, in stores of their own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sandscript::backend::nspawn::{NspawnBackend, NspawnConfig};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command as Run, Error, Restore, SnapshotSpec, Spec, State,
    StopOptions, exec,
};

use crate::booted::{self, Disk};
use crate::native::Test;
use crate::rig::Rig;

/// All of them, by name.
pub const ALL: &[(&str, Test)] = &[
    ("fault_a_kill_at_any_point", |rig| Box::pin(killed(rig))),
    ("fault_a_full_disk", |rig| Box::pin(full(rig))),
    ("fault_an_image_that_ends_too_soon", |rig| Box::pin(cut(rig))),
];

/// The word by which this program does one thing, to be killed while it does.
const WORD: &str = "nspawn-fault";

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn opened(store: &Path) -> Result<NspawnBackend, String> {
    let config = NspawnConfig {
        store: Some(store.to_owned()),
        image: Some(booted::image()?.display().to_string()),
        ..NspawnConfig::default()
    };
    NspawnBackend::open(config).await.map_err(told)
}

/// What this program does when it is called by that word.
pub fn served() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    let store = PathBuf::from(args.next().filter(|word| word == WORD).and(args.next())?);
    let verb = args.next()?;
    let work = async {
        let (backend, cancel) = (opened(&store).await?, Cancel::new());
        println!("go");
        std::io::stdout().flush().map_err(told)?;
        match verb.as_str() {
            "create" => backend.create(&Spec::new("x"), &cancel).await.map(drop),
            "clone" => {
                Backend::clone(&backend, "base", &CloneSpec::of("s", "x"), &cancel).await.map(drop)
            }
            _ => backend.restore("base", "s", Restore::default(), &cancel).await,
        }
        .map_err(told)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().ok()?;
    Some(match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

async fn says(backend: &dyn Backend, name: &str, line: &str) -> Result<String, String> {
    let done = exec(backend, name, &Run::shell(line), &Cancel::new()).await.map_err(told)?;
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn is_empty(folder: &Path) -> Result<bool, String> {
    Ok(std::fs::read_dir(folder).map_err(told)?.next().is_none())
}

/// Kills a process and what it has started, but for the machines' own processes: those go on without whoever
/// looks after them.
fn kill_all(pid: u32) {
    let children = |pid: u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let text =
            tasks.filter_map(|one| std::fs::read_to_string(one.path().join("children")).ok());
        let text = text.collect::<String>();
        text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    for one in std::iter::once(pid).chain(children(pid)) {
        if let Some(one) = i32::try_from(one).ok().and_then(Pid::from_raw) {
            let _ = kill_process(one, Signal::KILL);
        }
    }
}

/// The machine is there in whole, or not at all.
async fn killed(rig: Arc<Rig>) -> Result<(), String> {
    let disk = rig.disk.as_ref().ok_or("there is no disk")?;
    let (store, cancel) = (disk.path().join("killed"), Cancel::new());
    let backend = opened(&store).await?;
    backend.create(&Spec::new("base"), &cancel).await.map_err(told)?;
    says(&backend, "base", "echo kept > /root/f; sync").await?;
    backend.snapshot("base", &SnapshotSpec::new("s"), &cancel).await.map_err(told)?;
    says(&backend, "base", "echo later > /root/f; sync").await?;
    let times = [
        ("create", 15),
        ("create", 200),
        ("clone", 10),
        ("clone", 120),
        ("restore", 10),
        ("restore", 40),
        ("restore", 250),
    ];
    for (verb, after) in times {
        let at = format!("{verb} after {after} ms");
        let own = std::env::current_exe().map_err(told)?;
        let mut child = Command::new(own)
            .args([WORD.as_ref(), store.as_os_str(), verb.as_ref()])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(told)?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut line).map_err(told)?;
        tokio::time::sleep(Duration::from_millis(after)).await;
        kill_all(child.id());
        child.wait().map_err(told)?;
        backend.gc(false, &cancel).await.map_err(|error| format!("{at}: {error}"))?;
        for place in ["making", "trash"] {
            assert!(is_empty(&store.join(place))?, "{at}: {place} is not empty");
        }
        let all = backend.list(&cancel).await.map_err(told)?;
        let mut names: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
        names.sort_unstable();
        assert!(names == ["base"] || names == ["base", "x"], "{at}: {names:?}");
        for name in names {
            backend.start(name, &cancel).await.map_err(|error| format!("{at}: {error}"))?;
            assert_eq!(says(&backend, name, "hostname").await?, name, "{at}");
        }
        let file = says(&backend, "base", "cat /root/f").await?;
        assert!(file == "kept" || file == "later", "{at}: {file}");
        if all.len() > 1 {
            backend.delete("x", &cancel).await.map_err(told)?;
        }
    }
    backend.delete("base", &cancel).await.map_err(told)
}

/// What has no room fails as that, and leaves nothing; there is room again, and it goes on.
async fn full(_: Arc<Rig>) -> Result<(), String> {
    let folder = tempfile::Builder::new().prefix("sandscript-full-").tempdir().map_err(told)?;
    let disk = Disk::ext4(folder.path())?;
    let (store, cancel) = (disk.path().join("store"), Cancel::new());
    let backend = opened(&store).await?;
    backend.create(&Spec::new("a"), &cancel).await.map_err(told)?;
    says(&backend, "a", "head -c 30000000 /dev/urandom > /root/f; sync").await?;
    let filler = disk.path().join("filler");
    let file = File::create(&filler).map_err(told)?;
    let room = rustix::fs::statvfs(disk.path()).map_err(told)?;
    let bytes = (room.f_bavail * room.f_frsize).saturating_sub(16 << 20);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).map_err(told)?;
    let kept = backend.snapshot("a", &SnapshotSpec::new("s"), &cancel).await;
    assert!(matches!(kept, Err(Error::Exhausted { .. })), "{kept:?}");
    assert!(backend.snapshots("a", &cancel).await.map_err(told)?.is_empty());
    let cloned = Backend::clone(&backend, "a", &CloneSpec::new("b"), &cancel).await;
    assert!(matches!(cloned, Err(Error::Exhausted { .. })), "{cloned:?}");
    for place in ["making", "trash"] {
        assert!(is_empty(&store.join(place))?, "{place} is not empty");
    }
    let info = backend.get("a", &cancel).await.map_err(told)?;
    assert_eq!(info.state, State::Running);
    std::fs::remove_file(&filler).map_err(told)?;
    // Its blocks are free when that is on the disk.
    rustix::fs::syncfs(&file).map_err(told)?;
    drop(file);
    let free = File::open(disk.path()).map_err(told)?;
    rustix::fs::syncfs(&free).map_err(told)?;
    backend.snapshot("a", &SnapshotSpec::new("s"), &cancel).await.map_err(told)?;
    assert_eq!(says(&backend, "a", "wc -c < /root/f").await?, "30000000");
    let force = StopOptions { force: true, ..StopOptions::default() };
    backend.stop("a", force, &cancel).await.map_err(told)?;
    backend.delete("a", &cancel).await.map_err(told)
}

/// An archive that is cut off makes no image.
async fn cut(rig: Arc<Rig>) -> Result<(), String> {
    let disk = rig.disk.as_ref().ok_or("there is no disk")?;
    let folder = tempfile::Builder::new().prefix("sandscript-cut-").tempdir().map_err(told)?;
    let (archive, cancel) = (folder.path().join("cut.tar"), Cancel::new());
    let whole = File::open(booted::image()?).map_err(told)?;
    let mut part = File::create(&archive).map_err(told)?;
    std::io::copy(&mut whole.take(20_000_123), &mut part).map_err(told)?;
    let store = disk.path().join("cut");
    let backend = opened(&store).await?;
    let mut spec = Spec::new("a");
    spec.image = Some(archive.display().to_string());
    let made = backend.create(&spec, &cancel).await;
    assert!(matches!(made, Err(Error::InvalidInput { .. })), "{made:?}");
    assert!(is_empty(&store.join("machines"))? && is_empty(&store.join("making"))?);
    let images = std::fs::read_dir(store.join("images")).map_err(told)?.flatten();
    let trees = images.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(trees, 0, "an image is left");
    Ok(())
}
