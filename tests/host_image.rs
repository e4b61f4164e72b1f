//! The `host` image, made from the machine the tests run on.

#![cfg(feature = "local")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sandscript::image::HostImage;
use sandscript::sandbox::Error;

fn all(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn the_layer_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let hide = rustix::process::geteuid().is_root();
    let plan = HostImage::plan(&[], hide).unwrap();
    let started = Instant::now();
    let stats = plan.generate(folder.path()).unwrap();
    println!("{stats:?} in {:?}", started.elapsed());
    let root = folder.path().join(HostImage::ROOT);
    let mode = |name: &str| root.join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("tmp"), mode("var/tmp"), mode("root"), mode("var")),
        (0o1777, 0o1777, 0o700, 0o755)
    );
    for name in
        ["shadow", "gshadow", "machine-id", "hostname", "hosts", "resolv.conf", "ssl/private"]
    {
        assert!(!root.join("etc").join(name).exists(), "{name}");
    }
    // Every file is the host's word for word, and readable for everybody there.
    let made = ["etc/passwd", "etc/group", "etc/fstab"];
    for path in all(&root) {
        let name = path.strip_prefix(&root).unwrap();
        let meta = path.symlink_metadata().unwrap();
        if !meta.is_file() || made.iter().any(|made| name == Path::new(made)) {
            continue;
        }
        let host = Path::new("/").join(name);
        assert!(host.metadata().unwrap().mode() & 0o004 != 0, "{}", host.display());
        assert!(meta.mode() & 0o7022 == 0, "{}", host.display());
        assert!(meta.size() < 64 << 20 && name.starts_with("etc") || name.starts_with("var/lib"));
    }
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:*:0:0:root:/root:") && passwd.contains("\nnobody:"));
    for line in passwd.lines() {
        let uid: u32 = line.split(':').nth(2).unwrap().parse().unwrap();
        assert!(uid < 1000 || uid == 65534, "{line}");
    }
    for tree in plan.trees() {
        let layer = folder.path().join(&tree.folder);
        assert_eq!(layer.metadata().unwrap().mode(), tree.path.metadata().unwrap().mode());
        assert!(root.join(tree.path.strip_prefix("/").unwrap()).is_dir());
        // A tree's layer is folders and whiteouts, nothing else.
        for path in all(&layer) {
            let meta = path.symlink_metadata().unwrap();
            let whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
            assert!(meta.is_dir() || whiteout, "{}", path.display());
        }
    }
    assert!(folder.path().join("usr/local/bin").is_dir());
}

#[test]
fn private_files_of_a_tree_are_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(folder.path()).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
    let tree = base.join("tree");
    let put = |name: &str, mode: u32| {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    put("bin/tool", 0o755);
    put("bin/secret", 0o640);
    put("bin/only-run", 0o711);
    put("a/b/c/key", 0o600);
    put("closed/file", 0o644);
    put("listed/file", 0o644);
    for (name, mode) in [("closed", 0o750), ("listed", 0o711), ("a/b", 0o751), ("a", 0o755)] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink("bin/secret", tree.join("link")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();

    let plan = HostImage::plan(std::slice::from_ref(&tree), true).unwrap();
    let dest = base.join("layer");
    fs::create_dir(&dest).unwrap();
    let outcome = plan.generate(&dest);
    if !rustix::process::geteuid().is_root() && outcome.is_err() {
        println!("skipped: an ordinary user can't look into root's folders of /usr");
        return;
    }
    outcome.unwrap();
    drop(listener);
    let layer = dest.join(&plan.trees().last().unwrap().folder);
    let mut hidden: Vec<String> = all(&layer)
        .iter()
        .filter(|path| path.symlink_metadata().unwrap().file_type().is_char_device())
        .map(|path| path.strip_prefix(&layer).unwrap().display().to_string())
        .collect();
    hidden.sort();
    assert_eq!(hidden, ["a/b", "bin/only-run", "bin/secret", "closed", "listed", "socket"]);
    assert_eq!(
        layer.join("bin").metadata().unwrap().mtime(),
        tree.join("bin").metadata().unwrap().mtime()
    );
}

#[test]
fn the_fingerprint_is_cheap_and_sees_changes() {
    let folder = tempfile::tempdir().unwrap();
    let tree = fs::canonicalize(folder.path()).unwrap().join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    let more = [tree.clone()];
    let plan = HostImage::plan(&more, true).unwrap();
    let first = plan.fingerprint();
    let started = Instant::now();
    assert_eq!(plan.fingerprint(), first);
    println!("fingerprint in {:?}", started.elapsed());
    fs::write(tree.join("bin/new"), "x").unwrap();
    let second = plan.fingerprint();
    assert_ne!(first, second);
    assert_ne!(HostImage::plan(&more, false).unwrap().fingerprint(), second);
    assert_ne!(HostImage::plan(&[], true).unwrap().fingerprint(), second);
}

#[test]
fn trees_that_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(folder.path()).unwrap();
    fs::create_dir_all(base.join("real/below")).unwrap();
    std::os::unix::fs::symlink("real", base.join("link")).unwrap();
    for bad in ["/", "/etc", "/etc/ssl", "/proc", "/root", "/var", "relative"] {
        let outcome = HostImage::plan(&[bad.into()], true);
        assert!(matches!(outcome, Err(Error::InvalidInput { .. })), "{bad}");
    }
    assert!(HostImage::plan(&[base.join("link")], true).is_err());
    assert!(HostImage::plan(&[base.join("missing")], true).is_err());
    assert!(HostImage::plan(&[base.join("real/below"), base.join("real")], true).is_err());
    // What lies in a listed tree needs no tree of its own.
    let plan = HostImage::plan(&["/usr/lib".into()], true).unwrap();
    assert!(plan.trees().iter().all(|tree| tree.path != Path::new("/usr/lib")));
}
