//! What systemd's own programs say of our machines, on a host that it has booted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sandscript::sandbox::{Backend, Cancel, CloneSpec, Command as Run, Limits, Spec, State, exec};

use crate::rig::Rig;
use crate::systemd::Host;

/// A test of a rig's own.
pub type Test = fn(Arc<Rig>) -> Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// All of them, by name.
pub const ALL: &[(&str, Test)] = &[
    ("native_machines_are_known_to_systemd", |rig| Box::pin(known(rig))),
    ("native_a_killed_supervisor_leaves_nothing", |rig| Box::pin(killed(rig))),
    ("native_what_ends_by_systemd_is_stopped", |rig| Box::pin(ended(rig))),
    ("native_a_host_that_goes_down_in_the_middle", |_| Box::pin(down())),
];

pub fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub async fn made(rig: &Rig, name: &str, limits: Limits) -> Result<(), String> {
    let spec = Spec { limits, ..Spec::new(name) };
    rig.backend.create(&spec, &Cancel::new()).await.map(drop).map_err(told)
}

pub fn host(rig: &Rig) -> Result<&Host, String> {
    rig.systemd.as_ref().ok_or_else(|| "there is no host".to_owned())
}

pub async fn until(
    what: &str,
    mut done: impl AsyncFnMut() -> Result<bool, String>,
) -> Result<(), String> {
    for _ in 0..300 {
        if done().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("within 15 s this did not come: {what}"))
}

async fn stopped(rig: &Rig, name: &str) -> Result<(), String> {
    until("it is stopped", async || {
        let info = rig.backend.get(name, &Cancel::new()).await.map_err(told)?;
        Ok(info.state == State::Stopped)
    })
    .await
}

fn machines(host: &Host) -> Result<Vec<String>, String> {
    let list = host.says(&["machinectl", "list", "--no-legend"])?;
    Ok(list.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
}

fn show(host: &Host, unit: &str, property: &str) -> Result<String, String> {
    let text = host.says(&["systemctl", "show", unit, "--value", "--property", property])?;
    Ok(text.trim().to_owned())
}

async fn known(rig: Arc<Rig>) -> Result<(), String> {
    let (name, unit, host) = ("native-known", "sandscript-native-known.service", host(&rig)?);
    let limits =
        Limits { cpu: Some(1.5), memory: Some(256 << 20), pids: Some(200), ..Limits::default() };
    made(&rig, name, limits).await?;
    assert!(machines(host)?.iter().any(|one| one == name));
    let of = host.says(&["machinectl", "show", name, "--value", "--property", "Unit"])?;
    assert_eq!(of.trim(), unit);
    host.says(&["machinectl", "status", name])?;
    let status = host.says(&["systemctl", "status", unit])?;
    assert!(status.contains("Container running: Ready."), "{status}");
    assert_eq!(show(host, unit, "MemoryMax")?, "268435456");
    assert_eq!(show(host, unit, "CPUQuotaPerSecUSec")?, "1.500000s");
    assert_eq!(show(host, unit, "TasksMax")?, "201");
    let journal = host.says(&["journalctl", "--machine", name, "--lines", "5"])?;
    assert!(journal.contains("systemd[1]"), "{journal}");
    let said =
        host.says(&["systemd-run", "--machine", name, "--pipe", "--wait", "--quiet", "hostname"])?;
    assert_eq!(said.trim(), name);
    rig.backend.delete(name, &Cancel::new()).await.map_err(told)?;
    assert!(!machines(host)?.iter().any(|one| one == name));
    assert_eq!(show(host, unit, "LoadState")?, "not-found");
    for of in ["systemd", "memory", "unified"] {
        let left = format!("/sys/fs/cgroup/{of}/machine.slice/{unit}");
        assert!(host.says(&["ls", &left]).is_err(), "{left} is left");
    }
    Ok(())
}

async fn killed(rig: Arc<Rig>) -> Result<(), String> {
    let (name, unit, host) = ("native-killed", "sandscript-native-killed.service", host(&rig)?);
    made(&rig, name, Limits::default()).await?;
    let leader = host.says(&["machinectl", "show", name, "--value", "--property", "Leader"])?;
    host.says(&["kill", "-9", &show(host, unit, "MainPID")?])?;
    until("its first process is gone", async || {
        Ok(host.says(&["ls", &format!("/proc/{}", leader.trim())]).is_err())
    })
    .await?;
    stopped(&rig, name).await?;
    rig.backend.start(name, &Cancel::new()).await.map_err(told)?;
    assert!(machines(host)?.iter().any(|one| one == name));
    rig.backend.delete(name, &Cancel::new()).await.map_err(told)
}

async fn ended(rig: Arc<Rig>) -> Result<(), String> {
    let (name, unit, host) = ("native-ended", "sandscript-native-ended.service", host(&rig)?);
    made(&rig, name, Limits::default()).await?;
    let ways: [&[&str]; 3] = [
        &["machinectl", "poweroff", name],
        &["machinectl", "terminate", name],
        &["systemctl", "stop", unit],
    ];
    for way in ways {
        host.says(way)?;
        stopped(&rig, name).await?;
        rig.backend
            .start(name, &Cancel::new())
            .await
            .map_err(|error| format!("{way:?}: {error}"))?;
    }
    rig.backend.delete(name, &Cancel::new()).await.map_err(told)
}

/// What is in the middle of something then is whole or gone afterwards, and the others are as they were.
async fn down() -> Result<(), String> {
    let temp = tempfile::Builder::new().prefix("sandscript-down-").tempdir().map_err(told)?;
    let disk = crate::booted::Disk::mount(temp.path())?;
    let own = temp.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let boot = |time: &str| {
        let folder = temp.path().join(format!("{own}-{time}"));
        std::fs::create_dir(&folder).map_err(told)?;
        Host::boot(&folder, disk.path())
    };
    let cancel = Cancel::new();
    let host = boot("one")?;
    let backend = crate::rig::served_by(&host).await.map_err(told)?;
    backend.create(&Spec::new("a"), &cancel).await.map_err(told)?;
    let says = async |backend: &dyn Backend, line: &str| {
        let done = exec(backend, "a", &Run::shell(line), &Cancel::new()).await.map_err(told)?;
        Ok::<_, String>(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    says(backend.as_ref(), "echo kept > /root/f; sync").await?;
    let (cloning, spec) = (backend.clone(), CloneSpec::new("b"));
    let cloning = tokio::spawn(async move {
        // How it ends is told by what is there afterwards.
        let _ = Backend::clone(cloning.as_ref(), "a", &spec, &Cancel::new()).await;
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    drop(host);
    cloning.abort();
    drop(backend);
    let host = boot("two")?;
    let backend = crate::rig::served_by(&host).await.map_err(told)?;
    let backend = backend.as_ref();
    backend.gc(false, &cancel).await.map_err(told)?;
    let store = disk.path().join("nspawn");
    for place in ["making", "trash"] {
        let left = std::fs::read_dir(store.join(place)).map_err(told)?.count();
        assert_eq!(left, 0, "{place} is not empty");
    }
    let all = backend.list(&cancel).await.map_err(told)?;
    assert!(all.iter().any(|info| info.name == "a"));
    for info in all {
        assert_eq!(info.state, State::Stopped, "{}", info.name);
        backend.start(&info.name, &cancel).await.map_err(told)?;
        if info.name == "a" {
            assert_eq!(says(backend, "cat /root/f").await?, "kept");
        }
        backend.delete(&info.name, &cancel).await.map_err(told)?;
    }
    Ok(())
}
