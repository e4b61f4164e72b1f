//! Sandboxes from a tarball, and what the host's image must not show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command as HostCommand;

use sandscript::sandbox::{Capability, Error, Kind, Spec};

use crate::case::{CaseResult, Failure, cases, fails};
use crate::rig::Scope;

cases!["images";
    a_tarball [TarImage, Programs],
    a_tarball_is_its_content [TarImage, Programs],
    clones_of_a_tarball [TarImage, Programs],
    broken_tarballs_are_refused [TarImage],
    the_host_shows_no_secrets [HostImage, Programs],
    the_host_does_not_change [HostImage, SystemWritable, Programs],
    unsupported_ones_say_so,
];

/// Programs of this machine with the libraries they need: the smallest image that works.
fn rootfs(marker: &str) -> CaseResult<Vec<u8>> {
    let mut files = BTreeSet::new();
    for program in ["sh", "cat", "id", "rm"] {
        let path = ["/usr/bin", "/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(program))
            .find(|path| path.exists())
            .ok_or_else(|| Failure(format!("this machine has no {program}")))?;
        let linked = HostCommand::new("ldd").arg(&path).output()?;
        let text = String::from_utf8_lossy(&linked.stdout).into_owned();
        files.extend(
            text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from),
        );
        files.insert(Path::new("/bin").join(program));
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        builder.append_data(&mut header, name.trim_start_matches('/'), content)
    };
    for path in files {
        add(&path.display().to_string(), 0o755, &std::fs::read(&path)?)?;
    }
    add("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    add("etc/group", 0o644, b"root:x:0:\n")?;
    add("etc/marker", 0o644, marker.as_bytes())?;
    add("root/kept", 0o600, b"kept")?;
    Ok(builder.into_inner()?)
}

fn tarball(scope: &Scope, name: &str, bytes: &[u8]) -> CaseResult<String> {
    let path = scope.host_dir()?.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path.display().to_string())
}

async fn a_tarball(scope: Scope) -> CaseResult {
    let image = tarball(&scope, "image.tar", &rootfs("one")?)?;
    let sandbox = scope.sandbox_of(|spec| spec.image = Some(image.clone())).await?;
    assert_eq!(sandbox.run("cat /etc/marker; cat /root/kept; id -u").await?, "onekept0");
    assert_eq!(sandbox.info().await?.image, image);
    assert_eq!(sandbox.stat("/root/kept").await?.mode, 0o600);
    sandbox.write("/bin/ours", "x").await?;
    sandbox
        .run("rm -f /etc/marker; echo x > /bin/new; cat /dev/null /proc/self/status > /root/f")
        .await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    fails!(sandbox.stat("/etc/marker").await, Error::NotFound { .. });
    let again = scope.sandbox_of(|spec| spec.image = Some(image)).await?;
    assert_eq!(again.run("cat /etc/marker").await?, "one", "a sandbox changed its image");
    Ok(())
}

async fn a_tarball_is_its_content(scope: Scope) -> CaseResult {
    let backend = scope.backend();
    let first = tarball(&scope, "first.tar", &rootfs("one")?)?;
    let same = tarball(&scope, "same.tar", &rootfs("one")?)?;
    let other = tarball(&scope, "other.tar", &rootfs("two")?)?;
    let print = async |image: &str| backend.fingerprint(image, None, &scope.cancel).await;
    let one = print(&first).await?;
    assert_eq!(print(&same).await?, one);
    assert_ne!(print(&other).await?, one);
    std::fs::write(&first, rootfs("two")?)?;
    assert_eq!(print(&first).await?, print(&other).await?, "the file has changed");
    Ok(())
}

async fn clones_of_a_tarball(scope: Scope) -> CaseResult {
    let image = tarball(&scope, "image.tar", &rootfs("one")?)?;
    let sandbox = scope.sandbox_of(|spec| spec.image = Some(image.clone())).await?;
    sandbox.run("rm -f /root/kept; echo 1 > /root/f").await?;
    sandbox.snapshot("s").await?;
    std::fs::remove_file(&image)?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    sandbox.delete().await?;
    assert_eq!(clone.ls("/root").await?, ["f"]);
    clone.stop().await?;
    clone.start().await?;
    assert_eq!(clone.run("cat /etc/marker").await?, "one");
    Ok(())
}

async fn broken_tarballs_are_refused(scope: Scope) -> CaseResult {
    use super::trees::{Member, archive};
    let dots = archive(&[Member::file("../evil", "x")])?;
    let good = archive(&[Member::file("etc/a", &"x".repeat(9000))])?;
    for (name, bytes) in
        [("garbage.tar", vec![0x5a; 5000]), ("cut.tar", good[..3000].to_vec()), ("dots.tar", dots)]
    {
        let mut spec = Spec::new(scope.name());
        spec.image = Some(tarball(&scope, name, &bytes)?);
        let made = scope.backend().create(&spec, &scope.cancel).await;
        fails!(made, Error::InvalidInput { .. });
        assert!(!scope.exists(&spec.name).await?, "{name}");
    }
    let mut spec = Spec::new(scope.name());
    spec.image = Some(scope.host_dir()?.join("none.tar").display().to_string());
    let made = scope.backend().create(&spec, &scope.cancel).await;
    fails!(
        made,
        Error::NotFound { kind: Kind::Image, .. } | Error::NotFound { kind: Kind::File, .. }
    );
    assert!(!scope.exists(&spec.name).await?);
    Ok(())
}

async fn the_host_shows_no_secrets(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.image = Some("host".to_owned())).await?;
    for path in ["/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/sudoers", "/etc/ssl/private"]
    {
        let inside =
            sandbox.run(&format!("cat {path} 2>/dev/null; ls {path}/ 2>/dev/null; true")).await?;
        let outside = std::fs::read_to_string(path).unwrap_or_default();
        for line in outside.lines().filter(|line| line.len() > 8 && line.contains(['$', '!', '*']))
        {
            assert!(!inside.contains(line), "a line of the host's {path} is readable inside");
        }
    }
    let keys = sandbox.run("ls /etc/ssh 2>/dev/null | grep -c 'ssh_host_.*_key$'; true").await?;
    assert_eq!(keys, "0", "the host's SSH keys are inside");
    for folder in ["/home", "/root"] {
        let inside = sandbox.ls(folder).await?;
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let common = name.starts_with(".bash") || name.starts_with(".profile");
            assert!(common || !inside.contains(&name), "{folder}/{name} of the host is inside");
        }
    }
    Ok(())
}

async fn the_host_does_not_change(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.image = Some("host".to_owned())).await?;
    let marker = format!("conformance-{}", std::process::id());
    sandbox
        .run(&format!("echo x > /usr/bin/{marker}; echo x > /etc/{marker}; rm -f /usr/bin/head"))
        .await?;
    for folder in ["/usr/bin", "/etc"] {
        assert!(
            !Path::new(folder).join(&marker).exists(),
            "the guest wrote to the host's {folder}"
        );
    }
    assert!(Path::new("/usr/bin/head").exists(), "the guest removed a program of the host");
    let other = scope.sandbox_of(|spec| spec.image = Some("host".to_owned())).await?;
    other.stat("/usr/bin/head").await?;
    fails!(other.stat(&format!("/etc/{marker}")).await, Error::NotFound { .. });
    Ok(())
}

async fn unsupported_ones_say_so(scope: Scope) -> CaseResult {
    let images = [(Capability::HostImage, "host")];
    for (capability, image) in images {
        if scope.has(capability) {
            continue;
        }
        let mut spec = Spec::new(scope.name());
        spec.image = Some(image.to_owned());
        let made = scope.backend().create(&spec, &scope.cancel).await;
        fails!(&made, Error::Unsupported { .. });
        assert!(made.unwrap_err().hint().is_some(), "{image} is refused without a hint");
    }
    Ok(())
}
