//! What can go wrong on the way to another host, and what such a host may lack.

use std::sync::Arc;

use sandscript::backend::nspawn::remote::{self, RemoteConfig};
use sandscript::sandbox::{Backend, Cancel, Command, Error, Limits, State, Stdin, exec};
use tokio::io::AsyncReadExt;

use crate::native::{Test, host, made, told, until};
use crate::rig::Rig;
use crate::systemd::{Host, Sshd};

/// All of them, by name.
pub const ALL: &[(&str, Test)] = &[
    ("far_a_broken_connection_is_told_and_mended", |rig| Box::pin(broken(rig))),
    ("far_only_the_host_that_is_known_is_talked_to", |rig| Box::pin(unknown(rig))),
    ("far_a_host_may_lack_something", |rig| Box::pin(lacking(rig))),
    ("far_who_is_not_root_needs_sudo", |rig| Box::pin(sudo(rig))),
    ("far_run_may_be_full_or_not_for_programs", |rig| Box::pin(full(rig))),
];

/// The same as the rig's, by another server.
fn way(rig: &Rig, user: &str, sshd: &Sshd) -> Result<RemoteConfig, String> {
    let host = host(rig)?;
    let way = host.way.clone().ok_or("there is no way")?;
    Ok(RemoteConfig { image: way.image, image_server: way.image_server, ..host.far(user, sshd)? })
}

async fn refused(config: RemoteConfig) -> Result<Error, String> {
    match remote::open(config).await {
        Ok(_) => Err("it was opened".into()),
        Err(error) => Ok(error),
    }
}

/// Ends the connections of a server, not the server.
fn cut(host: &Host, sshd: &Sshd) -> Result<(), String> {
    let main = host.says(&["systemctl", "show", &sshd.unit, "--value", "--property", "MainPID"])?;
    let main = main.trim();
    let children = host.says(&["cat", &format!("/proc/{main}/task/{main}/children")])?;
    let mut argv = vec!["kill", "-9"];
    argv.extend(children.split_whitespace());
    host.says(&argv).map(drop)
}

async fn broken(rig: Arc<Rig>) -> Result<(), String> {
    let (name, host, cancel) = ("far-broken", host(&rig)?, Cancel::new());
    made(&rig, name, Limits::default()).await?;
    let sshd = host.sshd("broken", "")?;
    let far = remote::open(way(&rig, "root", &sshd)?).await.map_err(told)?;
    let mut command = Command::shell("echo up; exec sleep 987654");
    command.stdin = Stdin::Piped;
    let mut process = far.spawn(name, &command, &cancel).await.map_err(told)?;
    let mut up = [0; 3];
    let stdout = process.stdout.as_mut().ok_or("no output")?;
    stdout.read_exact(&mut up).await.map_err(told)?;
    cut(host, &sshd)?;
    let exit = tokio::time::timeout(std::time::Duration::from_secs(20), process.control.wait());
    let exit = exit.await.map_err(|_| "nobody was told".to_owned())?;
    assert!(matches!(exit, Err(Error::Transport { .. })), "{exit:?}");
    assert_eq!(stdout.read(&mut up).await.map_err(told)?, 0);
    drop(process);
    let left = Command::shell("grep -l 98765[4] /proc/[0-9]*/cmdline || true");
    until("what ran for it is gone", async || {
        let left = exec(&*rig.backend, name, &left, &cancel).await.map_err(told)?;
        Ok(left.stdout.is_empty())
    })
    .await?;
    // The machine runs on, and the next call comes through.
    let info = far.get(name, &cancel).await.map_err(told)?;
    assert_eq!(info.state, State::Running);
    host.says(&["systemctl", "restart", &sshd.unit])?;
    cut(host, &sshd).ok();
    let output = exec(&far, name, &Command::argv(["hostname"]), &cancel).await;
    let output = match output {
        // It may have been on its way when the line was cut.
        Err(Error::Transport { .. }) => {
            exec(&far, name, &Command::argv(["hostname"]), &cancel).await.map_err(told)?
        }
        output => output.map_err(told)?,
    };
    assert_eq!(output.stdout, b"far-broken\n");
    rig.backend.delete(name, &cancel).await.map_err(told)
}

async fn unknown(rig: Arc<Rig>) -> Result<(), String> {
    let host = host(&rig)?;
    let sshd = host.sshd("unknown", "")?;
    let right = way(&rig, "root", &sshd)?;
    let mut other = right.clone();
    other.access.host_key = Some(format!("SHA256:{}", "A".repeat(43)));
    let error = refused(other).await?;
    assert!(
        matches!(&error, Error::Auth { message } if message.contains("another host key")),
        "{error}"
    );
    let mut nobody = right.clone();
    nobody.access.host_key = None;
    let error = refused(nobody).await?;
    // It says which key that is, so that it can be compared.
    assert!(matches!(&error, Error::Auth { message } if message.contains(&sshd.key)), "{error}");
    let known = host.key().with_file_name("known");
    let key = host.says(&["cat", "/etc/ssh/ssh_host_ed25519_key.pub"])?;
    std::fs::write(&known, format!("[127.0.0.1]:{} {key}", sshd.port)).map_err(told)?;
    let mut file = right.clone();
    file.access.host_key = None;
    file.access.known_hosts = vec![known];
    let far = remote::open(file).await.map_err(told)?;
    far.list(&Cancel::new()).await.map_err(told)?;
    let mut keyless = right.clone();
    keyless.access.key = Some("/nowhere".into());
    assert!(matches!(refused(keyless).await?, Error::Auth { .. }));
    let error =
        refused(RemoteConfig { host: "nobody@127.0.0.1:1".into(), ..right.clone() }).await?;
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    let checks = remote::examine(&right).await;
    let poor: Vec<_> = checks.iter().filter(|check| check.hint.is_some()).collect();
    assert!(poor.is_empty() && checks.len() > 8, "{checks:?}");
    Ok(())
}

async fn hint_of(config: RemoteConfig) -> Result<String, String> {
    let error = refused(config).await?;
    match &error {
        Error::Unsupported { hint, .. } => Ok(hint.clone()),
        _ => Err(format!("{error:?}")),
    }
}

async fn lacking(rig: Arc<Rig>) -> Result<(), String> {
    let host = host(&rig)?;
    let without = "mkdir -p /run/real /run/bin; mount --bind /usr/bin /run/real; cp -as /run/real/. /run/bin/; \
        rm /run/bin/systemd-nspawn; mount --bind /run/bin /usr/bin;";
    let sshd = host.sshd("without", without)?;
    let config = way(&rig, "root", &sshd)?;
    let hint = hint_of(config.clone()).await?;
    assert!(hint.contains("apt install systemd-container"), "{hint}");
    let checks = remote::examine(&config).await;
    let check = checks.iter().find(|check| check.what == "systemd-nspawn").ok_or("no check")?;
    assert!(check.hint.is_some(), "{check:?}");
    // A program of another machine does not even arrive; one that can't run there is not kept.
    let nonsense = host.key().with_file_name("nonsense");
    std::fs::write(&nonsense, b"\x7fELF and no more").map_err(told)?;
    let sshd = host.sshd("other", "WRAP='setarch i686';")?;
    let other = RemoteConfig { helper: Some(nonsense.clone()), ..way(&rig, "root", &sshd)? };
    let hint = hint_of(other).await?;
    assert!(hint.contains("(i686)"), "{hint}");
    let sshd = host.sshd("plain", "")?;
    let other = RemoteConfig { helper: Some(nonsense), ..way(&rig, "root", &sshd)? };
    let hint = hint_of(other).await?;
    assert!(hint.contains("does not run there"), "{hint}");
    let mut nowhere = way(&rig, "root", &sshd)?;
    nowhere.access.program = Some("/srv/nothing".into());
    let hint = hint_of(nowhere.clone()).await?;
    assert!(hint.contains("/srv/nothing"), "{hint}");
    nowhere.access.program = Some("/usr/local/bin/suite".into());
    let far = remote::open(nowhere).await.map_err(told)?;
    far.list(&Cancel::new()).await.map(drop).map_err(told)
}

async fn sudo(rig: Arc<Rig>) -> Result<(), String> {
    let host = host(&rig)?;
    host.says(&["useradd", "--create-home", "--password", "*", "ann"])?;
    let sshd = host.sshd("sudo", "")?;
    let config = way(&rig, "ann", &sshd)?;
    let hint = hint_of(config.clone()).await?;
    assert!(hint.contains("'ann' is not root"), "{hint}");
    host.says(&["sh", "-c", "echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann"])?;
    let far = remote::open(config.clone()).await.map_err(told)?;
    far.list(&Cancel::new()).await.map_err(told)?;
    let checks = remote::examine(&config).await;
    assert!(checks.iter().all(|check| check.hint.is_none()), "{checks:?}");
    Ok(())
}

async fn full(rig: Arc<Rig>) -> Result<(), String> {
    let host = host(&rig)?;
    for (name, options) in [("small", "size=16k"), ("noexec", "noexec")] {
        let before = format!(
            "mkdir -p /run/sandscript-far; mount -t tmpfs -o {options},mode=700 none /run/sandscript-far;"
        );
        let sshd = host.sshd(name, &before)?;
        // It is small, comes through all that is looked at, and says nothing then.
        let small = Some("/bin/true".into());
        let error = refused(RemoteConfig { helper: small, ..way(&rig, "root", &sshd)? }).await?;
        let started =
            matches!(&error, Error::Transport { message } if message.contains("ended without"));
        assert!(started, "{name}: {error:?}");
    }
    Ok(())
}
