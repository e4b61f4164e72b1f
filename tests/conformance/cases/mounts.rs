//! Host folders in the guest.

use sandscript::sandbox::{Capability, Error, Kind, Mount, Spec};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;

cases!["mounts";
    read_and_write [Mounts],
    read_only [Mounts],
    a_single_file [Mounts],
    behind_a_closed_folder [Mounts],
    missing_source [Mounts],
    survive_restart_and_clone [Mounts],
    are_not_in_snapshots [Mounts],
    bad_ones_are_refused,
    unsupported_is_said,
];

fn mount(source: &std::path::Path, target: &str, readonly: bool) -> Mount {
    Mount { source: source.to_owned(), target: target.to_owned(), readonly }
}

async fn read_and_write(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    std::fs::create_dir_all(host.join("sub"))?;
    std::fs::write(host.join("sub/f"), "from the host")?;
    let sandbox =
        scope.sandbox_of(|spec| spec.mounts = vec![mount(&host, "/mnt/deep/er", false)]).await?;
    assert_eq!(sandbox.run("cat /mnt/deep/er/sub/f").await?, "from the host");
    assert_eq!(sandbox.read_text("/mnt/deep/er/sub/f").await?, "from the host");
    sandbox.run("echo back > /mnt/deep/er/g").await?;
    assert_eq!(std::fs::read_to_string(host.join("g"))?, "back\n");
    std::fs::write(host.join("later"), "later")?;
    assert_eq!(sandbox.run("cat /mnt/deep/er/later").await?, "later");
    assert_eq!(sandbox.info().await?.mounts, [mount(&host, "/mnt/deep/er", false)]);
    sandbox.delete().await?;
    assert_eq!(
        std::fs::read_to_string(host.join("sub/f"))?,
        "from the host",
        "delete followed a mount"
    );
    Ok(())
}

async fn read_only(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    std::fs::write(host.join("f"), "host")?;
    let sandbox = scope.sandbox_of(|spec| spec.mounts = vec![mount(&host, "/mnt", true)]).await?;
    assert_eq!(sandbox.run("cat /mnt/f").await?, "host");
    for script in
        ["echo x > /mnt/f", "echo x > /mnt/new", "rm -f /mnt/f", "mkdir /mnt/d", "chmod 777 /mnt/f"]
    {
        assert!(!sandbox.sh(script).await?.exit.ok(), "{script}");
    }
    assert!(sandbox.write("/mnt/f", "x").await.is_err());
    assert!(sandbox.remove("/mnt/f", false).await.is_err());
    let _ =
        sandbox.sh("mount -o remount,rw /mnt; mount -o remount,rw,bind /mnt; umount /mnt").await?;
    assert!(!sandbox.sh("echo x > /mnt/f").await?.exit.ok(), "root inside made it writable");
    assert_eq!(std::fs::read_to_string(host.join("f"))?, "host");
    Ok(())
}

async fn a_single_file(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    std::fs::write(host.join("one"), "one")?;
    std::fs::write(host.join("two"), "two")?;
    let at = "/root/config/file";
    let sandbox =
        scope.sandbox_of(|spec| spec.mounts = vec![mount(&host.join("one"), at, true)]).await?;
    assert_eq!(
        sandbox.run("cat /root/config/file; ls /root/config").await?,
        "one\nfile".replace("one\n", "one")
    );
    Ok(())
}

async fn behind_a_closed_folder(scope: Scope) -> CaseResult {
    use std::os::unix::fs::PermissionsExt;
    let host = scope.host_dir()?;
    std::fs::set_permissions(&host, PermissionsExt::from_mode(0o700))?;
    std::fs::create_dir(host.join("folder"))?;
    std::fs::write(host.join("folder/f"), "one")?;
    std::fs::write(host.join("file"), "two")?;
    let mounts = vec![
        mount(&host.join("folder"), "/mnt/folder", true),
        mount(&host.join("file"), "/mnt/file", true),
    ];
    let sandbox = scope.sandbox_of(|spec| spec.mounts = mounts).await?;
    assert_eq!(sandbox.run("cat /mnt/folder/f /mnt/file").await?, "onetwo");
    Ok(())
}

async fn missing_source(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    let mut spec = Spec::new(scope.name());
    spec.mounts = vec![mount(&host.join("none"), "/mnt", true)];
    let made = scope.backend().create(&spec, &scope.cancel).await;
    fails!(made, Error::NotFound { kind: Kind::File, .. } | Error::InvalidInput { .. });
    assert!(!scope.exists(&spec.name).await?);
    Ok(())
}

async fn survive_restart_and_clone(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    std::fs::write(host.join("f"), "host")?;
    let sandbox = scope.sandbox_of(|spec| spec.mounts = vec![mount(&host, "/mnt", true)]).await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    assert_eq!(sandbox.run("cat /mnt/f").await?, "host");
    sandbox.snapshot("s").await?;
    assert_eq!(sandbox.run("cat /mnt/f").await?, "host", "the snapshot lost the mount");
    sandbox.restore("s").await?;
    assert_eq!(sandbox.run("cat /mnt/f").await?, "host", "the restore lost the mount");
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    assert_eq!(clone.run("cat /mnt/f").await?, "host");
    assert!(!clone.sh("echo x > /mnt/f").await?.exit.ok(), "the clone may write");
    Ok(())
}

async fn are_not_in_snapshots(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    std::fs::write(host.join("big"), vec![1; 3 << 20])?;
    let sandbox = scope.sandbox_of(|spec| spec.mounts = vec![mount(&host, "/mnt", false)]).await?;
    sandbox.run("true").await?;
    sandbox.snapshot("s").await?;
    sandbox.run("echo after > /mnt/g").await?;
    sandbox.restore("s").await?;
    assert_eq!(std::fs::read_to_string(host.join("g"))?, "after\n", "a restore changed the host");
    let all = scope.backend().snapshots(&sandbox.name, &scope.cancel).await?;
    assert!(all[0].size < 1 << 20, "the host's folder is in the snapshot");
    Ok(())
}

async fn bad_ones_are_refused(scope: Scope) -> CaseResult {
    let host = scope.host_dir()?;
    for target in ["", "relative", "/", "/a/../b", "//", "/a\0b", "/proc", "/./sys/fs", "/dev/"] {
        let mut spec = Spec::new(scope.name());
        spec.mounts = vec![mount(&host, target, true)];
        fails!(scope.backend().create(&spec, &scope.cancel).await, Error::InvalidInput { .. });
        assert!(!scope.exists(&spec.name).await?);
    }
    let mut spec = Spec::new(scope.name());
    spec.mounts = vec![mount(std::path::Path::new("relative"), "/mnt", true)];
    fails!(scope.backend().create(&spec, &scope.cancel).await, Error::InvalidInput { .. });
    Ok(())
}

async fn unsupported_is_said(scope: Scope) -> CaseResult {
    if scope.has(Capability::Mounts) {
        return Ok(());
    }
    let host = scope.host_dir()?;
    let mut spec = Spec::new(scope.name());
    spec.mounts = vec![mount(&host, "/mnt", true)];
    let made = scope.backend().create(&spec, &scope.cancel).await;
    fails!(&made, Error::Unsupported { .. });
    assert!(made.unwrap_err().hint().is_some());
    Ok(())
}
