//! Moving trees: what is selected, what arrives, and what a hostile archive can't do.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sandscript::sandbox::{Error, Reader};
use sandscript::transfer::{
    Devices, Extractor, Owners, PackOptions, Rules, UnpackOptions, hash, pack, unpack,
};
use tokio::io::AsyncReadExt;

fn write(path: PathBuf, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Every path below `root` with kind, mode, mtime and content.
fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let text = if meta.is_symlink() {
            format!("link {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            format!("dir {:o}", meta.mode())
        } else {
            format!("file {:o} {} {:?}", meta.mode(), meta.mtime(), fs::read(&path).unwrap())
        };
        all.insert(path.strip_prefix(root).unwrap().to_path_buf(), text);
    }
    all
}

async fn bytes(mut reader: Reader) -> Vec<u8> {
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    all
}

async fn names(source: &Path, options: &PackOptions) -> Vec<String> {
    let all = bytes(pack(source, options).unwrap()).await;
    tar::Archive::new(Cursor::new(all))
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

#[tokio::test]
async fn a_tree_arrives_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("a/b/to"));
    write(from.join("run.sh"), "#!/bin/sh\n");
    fs::set_permissions(from.join("run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    let long = "n".repeat(200);
    write(from.join("deep").join(&long).join("file"), vec![7; 300_000]);
    write(from.join("empty"), "");
    write(from.join("grüße \n'\"x"), "unicode");
    symlink("../../etc/shadow", from.join("link")).unwrap();
    let file = fs::File::options().write(true).open(from.join("empty")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000)).unwrap();
    fs::create_dir(from.join("closed")).unwrap();
    write(from.join("closed/file"), "x");
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();

    let options = PackOptions::default();
    let stats =
        unpack(pack(&from, &options).unwrap(), &to, &UnpackOptions::default()).await.unwrap();
    let (mut before, mut after) = (picture(&from), picture(&to));
    before.remove(Path::new(""));
    after.remove(Path::new(""));
    assert_eq!(before, after);
    assert_eq!(stats.entries as usize, before.len());
    assert_eq!(hash(&from, &options).unwrap(), hash(&to, &options).unwrap());
    // Once more over what is there.
    unpack(pack(&from, &options).unwrap(), &to, &UnpackOptions::default()).await.unwrap();
    let mut again = picture(&to);
    again.remove(Path::new(""));
    assert_eq!(before, again);
}

#[tokio::test]
async fn a_single_file_has_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("data.txt"), "hello");
    symlink("data.txt", folder.path().join("alias")).unwrap();
    let options = PackOptions::default();
    assert_eq!(names(&folder.path().join("data.txt"), &options).await, ["data.txt"]);
    assert_eq!(names(&folder.path().join("alias"), &options).await, ["alias"]);
}

#[tokio::test]
async fn ignore_files_and_globs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write(folder.path().join(".gitignore"), "kept\n");
    write(root.join(".gitignore"), "*.o\n/build/\n");
    write(root.join(".ignore"), "notes\n");
    write(root.join(".sandscriptignore"), "huge\n");
    write(root.join("sub/.gitignore"), "!wanted.o\n");
    for name in
        ["kept", "a.o", "build/x", "notes", "huge", "sub/wanted.o", "sub/b.c", ".git/HEAD", ".env"]
    {
        write(root.join(name), name);
    }
    let options = PackOptions::default();
    let all = names(&root, &options).await;
    assert_eq!(
        all,
        [
            ".env",
            ".gitignore",
            ".ignore",
            ".sandscriptignore",
            "kept",
            "sub",
            "sub/.gitignore",
            "sub/b.c",
            "sub/wanted.o"
        ]
    );
    let options = PackOptions { exclude: vec!["sub/".into(), ".*".into()], ..options };
    assert_eq!(names(&root, &options).await, ["kept"]);
    let options = PackOptions { ignore_files: false, ..PackOptions::default() };
    assert!(names(&root, &options).await.contains(&".git/HEAD".to_string()));
    for bad in ["", "!x", "a[", "{"] {
        let options = PackOptions { exclude: vec![bad.into()], ..PackOptions::default() };
        assert!(matches!(pack(&root, &options), Err(Error::InvalidInput { .. })), "{bad}");
    }
}

#[test]
fn the_hash_sees_what_counts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root.join("a"), "one");
    write(root.join(".gitignore"), "out\n");
    symlink("a", root.join("link")).unwrap();
    let options = PackOptions::default();
    let mut seen = vec![hash(root, &options).unwrap()];
    let mut step = |change: &dyn Fn(), same: bool| {
        change();
        let now = hash(root, &options).unwrap();
        assert_eq!(seen.contains(&now), same);
        seen.push(now);
    };
    step(&|| write(root.join("out"), "ignored"), true);
    step(
        &|| {
            let file = fs::File::options().write(true).open(root.join("a")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        },
        true,
    );
    step(&|| write(root.join("a"), "two"), false);
    step(
        &|| fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o700)).unwrap(),
        false,
    );
    step(&|| fs::rename(root.join("a"), root.join("b")).unwrap(), false);
    step(
        &|| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("b", root.join("link")).unwrap();
        },
        false,
    );
    step(&|| fs::create_dir(root.join("empty")).unwrap(), false);
}

#[tokio::test]
async fn errors_name_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write(root.join("a"), "x");
    let options = PackOptions { confine: Some(root.clone()), ..PackOptions::default() };
    assert!(matches!(pack(&root.join("missing"), &options), Err(Error::NotFound { .. })));
    assert!(pack(&root, &options).is_ok());
    assert!(matches!(pack(folder.path(), &options), Err(Error::InvalidInput { .. })));
    // A file that vanishes between the walk and the read: the walker is far ahead of the pipe.
    for index in 0..100 {
        write(root.join(format!("big{index:03}")), vec![1; 100_000]);
    }
    let mut reader = pack(&root, &options).unwrap();
    reader.read_u8().await.unwrap();
    fs::remove_file(root.join("big099")).unwrap();
    fs::create_dir(root.join("big099")).unwrap();
    fs::remove_dir(root.join("big099")).unwrap();
    symlink("/etc/passwd", root.join("big098x")).unwrap();
    let mut rest = Vec::new();
    let error = reader.read_to_end(&mut rest).await.unwrap_err();
    assert!(error.to_string().contains("big099"), "{error}");
    // A dropped stream ends its thread: the runtime would hang at its end otherwise.
    drop(pack(&root, &options).unwrap());
}

#[tokio::test]
async fn a_broken_stream_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("from/a"), vec![3; 5000]);
    let all = bytes(pack(&folder.path().join("from"), &PackOptions::default()).unwrap()).await;
    for cut in [100, 600, 3000] {
        let reader: Reader = Box::new(Cursor::new(all[..cut].to_vec()));
        let to = folder.path().join(format!("to{cut}"));
        let error = unpack(reader, &to, &UnpackOptions::default()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{cut}: {error:?}");
    }
    let options = UnpackOptions { max_bytes: 4999, ..UnpackOptions::default() };
    let reader: Reader = Box::new(Cursor::new(all));
    let error = unpack(reader, &folder.path().join("to"), &options).await.unwrap_err();
    assert!(error.to_string().contains("4.9 KiB"), "{error}");
}

/// One entry of an archive that nobody decent would make.
#[derive(Clone, Debug)]
struct Evil {
    kind: tar::EntryType,
    name: String,
    target: String,
}

fn archive(entries: &[Evil]) -> Vec<u8> {
    let mut out = Vec::new();
    for evil in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(evil.kind);
        header.set_mode(0o4777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        let old = header.as_old_mut();
        old.name[..evil.name.len()].copy_from_slice(evil.name.as_bytes());
        old.linkname[..evil.target.len()].copy_from_slice(evil.target.as_bytes());
        let content: &[u8] = if evil.kind.is_file() { b"evil" } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.write_all(header.as_bytes()).unwrap();
        let mut block = content.to_vec();
        block.resize(content.len().div_ceil(512) * 512, 0);
        out.write_all(&block).unwrap();
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn rules(through_links: bool) -> Rules {
    Rules {
        through_links,
        layered: through_links,
        devices: if through_links { Devices::SkipDev } else { Devices::Refuse },
        owners: Owners::Mine,
        mode_mask: 0o7777,
        xattrs: true,
        max_bytes: 1 << 20,
        max_entries: 100,
        what: "test".into(),
    }
}

fn extract(dest: &Path, entries: &[Evil], through_links: bool) -> Result<(), Error> {
    let archive = archive(entries);
    let rules = rules(through_links);
    if rules.layered {
        Extractor::new(dest, &rules)?.take_away(archive.as_slice())?;
    }
    Extractor::new(dest, &rules)?.run(archive.as_slice()).map(drop)
}

fn evil() -> impl Strategy<Value = Evil> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "..",
        ".",
        "dev",
        "old",
        "outside",
        ".wh.a",
        ".wh.b",
        ".wh..",
        ".wh...",
        ".wh.",
        ".wh..wh..opq",
    ]);
    let path =
        (prop::sample::select(vec!["", "", "", "/", "./"]), prop::collection::vec(part, 1..4))
            .prop_map(|(start, parts)| format!("{start}{}", parts.join("/")));
    let kind = prop::sample::select(vec![
        tar::EntryType::Regular,
        tar::EntryType::Regular,
        tar::EntryType::Directory,
        tar::EntryType::Symlink,
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Fifo,
    ]);
    (kind, path.clone(), path).prop_map(|(kind, name, target)| Evil { kind, name, target })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_outside_changes(entries in prop::collection::vec(evil(), 1..8), links: bool) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join("outside/secret"), "host");
        write(folder.path().join("a"), "host");
        let dest = folder.path().join("dest");
        fs::create_dir(&dest).unwrap();
        symlink("../outside", dest.join("old")).unwrap();
        symlink(folder.path().join("outside"), dest.join("b")).unwrap();
        let see = || {
            let mut all = picture_lossy(folder.path());
            all.retain(|path, _| !path.starts_with("dest") );
            all.remove(Path::new(""));
            all
        };
        let before = see();
        let _ = extract(&dest, &entries, links);
        prop_assert_eq!(before, see());
        // Content of the outside has not come in, and no device was made.
        for (path, text) in picture_lossy(&dest) {
            prop_assert!(!text.contains("[104, 111, 115, 116]"), "{} {}", path.display(), text);
            prop_assert!(!text.contains("device"), "{} {}", path.display(), text);
        }
    }
}

/// [`picture`] for trees that may hold pipes and devices.
fn picture_lossy(root: &Path) -> BTreeMap<PathBuf, String> {
    use std::os::unix::fs::FileTypeExt;
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let text = if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            format!("dir {:o} {}", meta.mode(), meta.mtime())
        } else if kind.is_file() {
            format!("file {:o} {} {:?}", meta.mode(), meta.nlink(), fs::read(&path).unwrap())
        } else if kind.is_char_device() || kind.is_block_device() {
            "device".into()
        } else {
            "other".into()
        };
        all.insert(path.strip_prefix(root).unwrap().to_path_buf(), text);
    }
    all
}

#[test]
fn hostile_archives_are_refused_by_name() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    let one = |kind, name: &str, target: &str| {
        vec![Evil { kind, name: name.into(), target: target.into() }]
    };
    let two = |target: &str| {
        let mut both = one(Symlink, "out", target);
        both.extend(one(Regular, "out/x", ""));
        both
    };
    let cases = [
        (one(Regular, "../x", ""), "'..'"),
        (one(Regular, "a/../../x", ""), "'..'"),
        (one(Regular, "/x", ""), "absolute"),
        (one(Link, "x", "/etc/passwd"), "hard link that leaves"),
        (one(Link, "x", "../y"), "hard link that leaves"),
        (one(Char, "null", ""), "device"),
        (one(Fifo, "pipe", ""), "device"),
        (two("/"), "in the way"),
        (two(".."), "in the way"),
    ];
    for (entries, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        let error = extract(folder.path(), &entries, false).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::InvalidInput { .. }), "{text}");
        let name = &entries.last().unwrap().name;
        assert!(text.contains(says) && text.contains(name.as_str()), "{text}");
    }
}

#[test]
fn a_file_is_not_written_through_a_planted_link() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("victim"), "host");
    let dest = folder.path().join("dest");
    fs::create_dir(&dest).unwrap();
    symlink("../victim", dest.join("mine")).unwrap();
    let file = Evil { kind: tar::EntryType::Regular, name: "mine".into(), target: String::new() };
    extract(&dest, &[file], false).unwrap();
    assert_eq!(fs::read(folder.path().join("victim")).unwrap(), b"host");
    assert_eq!(fs::read(dest.join("mine")).unwrap(), b"evil");
}

#[test]
fn sparse_files_of_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    let file = fs::File::create(from.join("sparse")).unwrap();
    use std::os::unix::fs::FileExt;
    for index in 0..40u64 {
        file.write_all_at(b"data", index * 1_000_000).unwrap();
    }
    file.set_len(50_000_000).unwrap();
    drop(file);
    let wanted = fs::read(from.join("sparse")).unwrap();
    for (index, flags) in [
        vec!["--format=gnu"],
        vec!["--format=pax", "--sparse-version=1.0"],
        vec!["--format=pax", "--sparse-version=0.1"],
    ]
    .iter()
    .enumerate()
    {
        let tar = folder.path().join("sparse.tar");
        let status = std::process::Command::new("tar")
            .args(["-S", "-cf"])
            .arg(&tar)
            .args(flags)
            .arg("-C")
            .arg(&from)
            .arg("sparse")
            .status()
            .unwrap();
        assert!(status.success());
        assert!(tar.metadata().unwrap().len() < 1 << 20);
        let to = folder.path().join(format!("to{index}"));
        fs::create_dir(&to).unwrap();
        let mut rules = rules(true);
        rules.max_bytes = 50_000_000;
        let stats =
            Extractor::new(&to, &rules).unwrap().run(fs::File::open(&tar).unwrap()).unwrap();
        assert!(fs::read(to.join("sparse")).unwrap() == wanted, "{flags:?}");
        assert_eq!(stats.bytes, 50_000_000);
        assert!(to.join("sparse").metadata().unwrap().blocks() * 512 < 10_000_000, "{flags:?}");
        rules.max_bytes = 49_999_999;
        let bomb = Extractor::new(&to, &rules).unwrap().run(fs::File::open(&tar).unwrap());
        assert!(matches!(bomb, Err(Error::InvalidInput { .. })), "{flags:?}");
    }
}
