//! Paths are resolved inside the sandbox, whatever the guest planted.

use std::path::Path;
use std::time::Duration;

use sandscript::sandbox::{Error, ReadOptions, WriteOptions};

use crate::case::{CaseResult, cases, fails};
use crate::rig::{Scope, below};
use crate::sandbox::{Sandbox, reader};

cases!["paths";
    bad_ones_are_refused,
    dots_stay_inside,
    links_are_followed_inside,
    loops_end,
    a_write_goes_through_a_link,
    planted_links_do_not_reach_the_host,
    magic_links_do_not_reach_the_host [Programs],
    a_swapped_directory_does_not_reach_the_host [Programs],
];

async fn bad_ones_are_refused(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for path in ["", "relative", "./x", "../x", "/a\0b"] {
        let read = sandbox.open(path, ReadOptions::default()).await.map(drop);
        fails!(read, Error::InvalidInput { .. });
        fails!(sandbox.write(path, "x").await, Error::InvalidInput { .. });
        fails!(sandbox.ls(path).await, Error::InvalidInput { .. });
        fails!(sandbox.stat(path).await, Error::InvalidInput { .. });
        fails!(sandbox.remove(path, true).await, Error::InvalidInput { .. });
        fails!(sandbox.mkdir(path).await, Error::InvalidInput { .. });
        fails!(sandbox.unpack(path, vec![0; 1024]).await, Error::InvalidInput { .. });
        let pack = sandbox.backend.pack(&sandbox.name, path, &scope.cancel).await.map(drop);
        fails!(pack, Error::InvalidInput { .. });
    }
    assert!(sandbox.remove("/", true).await.is_err(), "the root was removed");
    sandbox.run("true").await?;
    Ok(())
}

async fn dots_stay_inside(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let name = sandbox.read("/etc/hostname").await?;
    let up = "../".repeat(40);
    for path in [
        format!("/{up}etc/hostname"),
        format!("/root/{up}etc/hostname"),
        "//etc/./hostname".to_owned(),
    ] {
        assert_eq!(sandbox.read(&path).await?, name, "{path}");
    }
    sandbox.write(&format!("/{up}root/f"), "x").await?;
    assert_eq!(sandbox.read_text("/root/f").await?, "x");
    Ok(())
}

async fn links_are_followed_inside(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox
        .run("mkdir -p /root/a/b; echo x > /root/a/b/f; ln -s /root/a /root/abs; ln -s ../../../../../../root/a/b /root/up; ln -s abs/b/f /root/chain")
        .await?;
    for path in ["/root/abs/b/f", "/root/up/f", "/root/chain", "/root/abs/../a/b/f"] {
        assert_eq!(sandbox.read_text(path).await?, "x\n", "{path}");
    }
    Ok(())
}

async fn loops_end(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox
        .run("ln -s loop /root/loop; ln -s two /root/one; ln -s one /root/two; ln -s . /root/dot")
        .await?;
    for path in ["/root/loop", "/root/one", "/root/loop/x"] {
        let read = sandbox.open(path, ReadOptions::default()).await.map(drop);
        fails!(read, Error::InvalidInput { .. });
        fails!(sandbox.write(path, "x").await, Error::InvalidInput { .. });
    }
    sandbox.write("/root/f", "x").await?;
    let deep = format!("/root/{}f", "dot/".repeat(30));
    assert_eq!(sandbox.read_text(&deep).await?, "x");
    sandbox.remove("/root/loop", false).await?;
    Ok(())
}

async fn a_write_goes_through_a_link(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox
        .run("echo old > /root/target; ln -s target /root/link; ln -s missing /root/dangling")
        .await?;
    sandbox.write("/root/link", "new").await?;
    assert_eq!(sandbox.read_text("/root/target").await?, "new");
    assert_eq!(sandbox.stat("/root/link").await?.target.as_deref(), Some("target"));
    let read = sandbox.open("/root/dangling", ReadOptions::default()).await.map(drop);
    fails!(read, Error::NotFound { .. });
    sandbox.write("/root/dangling", "made").await?;
    assert_eq!(sandbox.read_text("/root/missing").await?, "made");
    Ok(())
}

/// A folder on the host with a secret in it, and a check that nothing in it has changed.
fn bait(scope: &Scope) -> CaseResult<String> {
    let dir = scope.host_dir()?;
    std::fs::write(dir.join("secret"), "host secret")?;
    std::fs::write(dir.join("only-on-the-host"), "x")?;
    std::fs::create_dir_all(dir.join("folder"))?;
    Ok(dir.display().to_string())
}

fn untouched(dir: &str) -> CaseResult {
    let dir = Path::new(dir);
    assert_eq!(std::fs::read_to_string(dir.join("secret"))?, "host secret");
    let expected = ["folder", "only-on-the-host", "secret"].map(|name| dir.join(name));
    assert_eq!(below(dir)?, expected, "the guest reached the host");
    Ok(())
}

/// Every file verb on a path that would lead to the host's folder if it were followed there.
async fn attack(scope: &Scope, sandbox: &Sandbox, dir: &str, path: &str) -> CaseResult {
    let secret = format!("{path}/secret");
    if let Ok(found) = sandbox.read(&secret).await {
        assert_ne!(found, b"host secret", "{secret} was read from the host");
    }
    if let Ok(entries) = sandbox.ls(path).await {
        assert!(!entries.contains(&"only-on-the-host".to_owned()), "{path} was listed on the host");
    }
    if let Ok(bytes) = sandbox.pack(path).await {
        let found = String::from_utf8_lossy(&bytes).contains("host secret");
        assert!(!found, "{path} was packed on the host");
    }
    // Whether these work on a file inside or are refused, the host stays as it is.
    let options = WriteOptions { parents: true, ..WriteOptions::default() };
    let _ = sandbox.remove(&secret, true).await;
    let _ = sandbox.remove(&format!("{path}/folder"), true).await;
    let _ = sandbox.mkdir(&format!("{path}/made")).await;
    let _ = sandbox.write_with(&format!("{path}/written"), "x", &options).await;
    let _ = sandbox.write(&secret, "overwritten").await;
    let tar = super::trees::archive(&[super::trees::Member::file("unpacked", "x")])?;
    let (at, tar) = (format!("{path}/folder"), reader(tar));
    let _ = sandbox.backend.unpack(&sandbox.name, &at, tar, &options, &scope.cancel).await;
    untouched(dir)
}

async fn planted_links_do_not_reach_the_host(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let dir = bait(&scope)?;
    let up = "../".repeat(40);
    sandbox
        .run(&format!(
            "ln -s {dir} /root/abs; ln -s {up}{dir} /root/rel; ln -s / /root/slash; ln -s {dir}/secret /root/file; mkdir -p /root/in; ln -s {dir} /root/in/deep"
        ))
        .await?;
    for path in [
        "/root/abs".to_owned(),
        "/root/rel".to_owned(),
        format!("/root/slash{dir}"),
        dir.clone(),
        "/root/in/deep".to_owned(),
    ] {
        attack(&scope, &sandbox, &dir, &path).await?;
    }
    let _ = sandbox.write("/root/file", "overwritten").await;
    untouched(&dir)?;
    sandbox.remove("/root/in", true).await?;
    sandbox.remove("/root/abs", true).await?;
    untouched(&dir)
}

async fn magic_links_do_not_reach_the_host(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let dir = bait(&scope)?;
    sandbox.run("ln -s /proc/self/root /root/selfroot; ln -s /proc/1/root /root/initroot; ln -s /proc/self/cwd /root/cwd; ln -s /proc/self/fd /root/fd").await?;
    for path in [
        format!("/proc/self/root{dir}"),
        format!("/proc/1/root{dir}"),
        format!("/proc/thread-self/root{dir}"),
        format!("/root/selfroot{dir}"),
        format!("/root/initroot{dir}"),
        format!("/proc/self/cwd/{}{dir}", "../".repeat(20)),
        format!("/root/cwd/{}{dir}", "../".repeat(20)),
    ] {
        attack(&scope, &sandbox, &dir, &path).await?;
    }
    for number in 0..20 {
        for base in ["/proc/self/fd", "/proc/1/fd", "/root/fd"] {
            attack(&scope, &sandbox, &dir, &format!("{base}/{number}{dir}")).await?;
        }
    }
    Ok(())
}

async fn a_swapped_directory_does_not_reach_the_host(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let dir = bait(&scope)?;
    // A directory that turns into a link to the host's folder and back, as fast as it can.
    let script = format!(
        "mkdir -p /root/real/folder /root/swap; ln -s {dir} /root/evil; \
         while :; do mv -T /root/swap /root/s1; mv -T /root/evil /root/swap; \
         mv -T /root/swap /root/evil; mv -T /root/s1 /root/swap; done 2>/dev/null"
    );
    let _racer = sandbox.spawn(&sandscript::sandbox::Command::shell(script)).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..60 {
        attack(&scope, &sandbox, &dir, "/root/swap").await?;
    }
    Ok(())
}
