//! Archives as images: what is accepted, what is refused, and where they come from.

#![cfg(feature = "local")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sandscript::image::{
    Fetch, LayerOptions, OciImage, Reference, Source, Tarball, unpack_layer, unpack_layers,
};
use sandscript::sandbox::Error;
use sandscript::transfer::Owners;
use sha2::{Digest, Sha256};

struct Entry(tar::EntryType, &'static str, &'static str, u32);

use tar::EntryType::{Char, Directory as Dir, Fifo, Link, Regular as File, Symlink};

/// A small root file system as distributions pack it: entries below linked folders, devices in
/// `dev`, absolute links, setuid files.
fn rootfs() -> Vec<Entry> {
    vec![
        Entry(Dir, "./", "", 0o755),
        Entry(Dir, "./usr/", "", 0o755),
        Entry(Dir, "./usr/bin/", "", 0o755),
        Entry(Dir, "./usr/lib/", "", 0o555),
        Entry(Symlink, "./bin", "usr/bin", 0o777),
        Entry(Symlink, "./lib", "/usr/lib", 0o777),
        Entry(File, "./bin/dash", "shell", 0o755),
        Entry(Symlink, "./bin/sh", "/bin/dash", 0o777),
        Entry(Dir, "./lib/", "", 0o755),
        Entry(File, "./lib/libc.so", "library", 0o644),
        Entry(File, "./usr/bin/su", "su", 0o4755),
        Entry(Link, "./usr/bin/sg", "./bin/su", 0o4755),
        Entry(Dir, "./dev/", "", 0o755),
        Entry(Char, "./dev/null", "", 0o666),
        Entry(Dir, "./etc/", "", 0o755),
        Entry(File, "./etc/.wh.plain", "name", 0o600),
        Entry(Symlink, "./etc/mtab", "/proc/mounts", 0o777),
        Entry(Fifo, "./etc/pipe", "", 0o600),
        Entry(Dir, "./tmp/", "", 0o1777),
    ]
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Entry(kind, name, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(1_600_000_000);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let body = if *kind == File { content.as_bytes() } else { b"" };
        if *kind != File {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpack(bytes: &[u8], dest: &Path) -> Result<(), Error> {
    unpack_layer(bytes, dest, &LayerOptions::new("test", Owners::Mine)).map(drop)
}

#[test]
fn a_real_root_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    unpack(&archive(&rootfs()), root).unwrap();
    assert_eq!(fs::read(root.join("usr/lib/libc.so")).unwrap(), b"library");
    assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("/usr/lib"));
    assert_eq!(fs::read(root.join("usr/bin/dash")).unwrap(), b"shell");
    let mode = |path: &str| root.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode("usr/bin/su"), 0o4755);
    assert_eq!(mode("usr/lib"), 0o555);
    assert_eq!(mode("tmp"), 0o1777);
    assert_eq!(root.join("usr/bin/su").metadata().unwrap().nlink(), 2);
    assert_eq!(root.join("usr/lib").metadata().unwrap().mtime(), 1_600_000_000);
    assert_eq!(fs::read_dir(root.join("dev")).unwrap().count(), 0);
    assert!(root.join("etc/.wh.plain").exists());
    assert!(fs::symlink_metadata(root.join("etc/mtab")).unwrap().is_symlink());
    fs::set_permissions(root.join("usr/lib"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn owners() {
    let folder = tempfile::tempdir().unwrap();
    let options = LayerOptions::new("test", Owners::Archive);
    let outcome = unpack_layer(archive(&rootfs()).as_slice(), folder.path(), &options);
    if rustix::process::geteuid().is_root() {
        outcome.unwrap();
        let meta = folder.path().join("usr/bin/su").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1, 2, 0o4755));
        let meta = folder.path().join("bin/sh").symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1, 2));
    } else {
        assert!(matches!(outcome, Err(Error::Permission { .. })));
    }
}

#[test]
fn what_is_refused() {
    let mut with_device = rootfs();
    with_device.push(Entry(Char, "./etc/disk", "", 0o666));
    let mut leaving = rootfs();
    leaving.push(Entry(Link, "./etc/own", "/etc/shadow", 0o600));
    let mut dots = rootfs();
    dots.push(Entry(File, "./etc/../../x", "x", 0o600));
    let mut no_shell = rootfs();
    no_shell.retain(|entry| entry.1 != "./bin/dash");
    for (entries, says) in [
        (with_device, "etc/disk"),
        (leaving, "/etc/shadow"),
        (dots, "'..'"),
        (no_shell, "not a root file system"),
        (vec![], "not a root file system"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = unpack(&archive(&entries), folder.path()).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }));
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.hint().is_some());
    }
    let folder = tempfile::tempdir().unwrap();
    let error = unpack(&[7; 4096], folder.path()).unwrap_err();
    assert!(error.to_string().contains("can't be read"), "{error}");
    let mut options = LayerOptions::new("test", Owners::Mine);
    options.max_entries = 5;
    let error = unpack_layer(archive(&rootfs()).as_slice(), folder.path(), &options).unwrap_err();
    assert!(error.to_string().contains("more than 5 entries"), "{error}");
    options.max_entries = 100;
    options.max_bytes = 10;
    let error = unpack_layer(archive(&rootfs()).as_slice(), folder.path(), &options).unwrap_err();
    assert!(error.to_string().contains("more than 10 B"), "{error}");
}

struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    fn new() -> Store {
        Store { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, image: &str, sha256: Option<&str>) -> Result<Tarball, Error> {
        let cache = self.folder.path().join("cache");
        let fetch = Fetch { cache: &cache, max_bytes: 1 << 20, progress: &|_, _| true };
        Tarball::open(&Source::parse(image).unwrap(), sha256, &fetch)
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn compressions_are_told_by_content() {
    let store = Store::new();
    let plain = archive(&rootfs());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    let mut xz =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&plain).unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let (first, second) = plain.split_at(5000);
    // Two frames with a skippable one between them, as parallel compressors write.
    let mut zst = ruzstd::encoding::compress_to_vec(first, level);
    zst.extend([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
    zst.extend(ruzstd::encoding::compress_to_vec(second, level));
    let all = [plain.clone(), gz.finish().unwrap(), xz.finish().unwrap(), zst];
    for (index, bytes) in all.iter().enumerate() {
        let path = store.file(&format!("{index}.tar"), bytes);
        let tarball = store.open(path.to_str().unwrap(), None).unwrap();
        assert_eq!(tarball.fingerprint(), format!("sha256:{}", sha256(bytes)));
        let mut content = Vec::new();
        tarball.reader().unwrap().read_to_end(&mut content).unwrap();
        assert!(content == plain, "{index}");
        let dest = tempfile::tempdir().unwrap();
        unpack(&content, dest.path()).unwrap();
        if index > 0 {
            let cut = store.file("cut.tar", &bytes[..bytes.len() / 2]);
            let tarball = store.open(cut.to_str().unwrap(), None).unwrap();
            let dest = tempfile::tempdir().unwrap();
            let options = LayerOptions::new("cut", Owners::Mine);
            let error = unpack_layer(tarball.reader().unwrap(), dest.path(), &options).unwrap_err();
            assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
        }
    }
}

#[test]
fn files_and_digests() {
    let store = Store::new();
    let path = store.file("image.tar", &archive(&rootfs()));
    let name = path.to_str().unwrap().to_string();
    let right = sha256(&archive(&rootfs()));
    assert!(store.open(&name, Some(&right)).is_ok());
    assert!(store.open(&name, Some(&format!("sha256:{}", right.to_uppercase()))).is_ok());
    let wrong = "0".repeat(64);
    let error = store.open(&name, Some(&wrong)).unwrap_err().to_string();
    assert!(error.contains(&wrong) && error.contains(&right), "{error}");
    assert!(matches!(store.open(&name, Some("12")), Err(Error::InvalidInput { .. })));
    assert!(matches!(store.open("/nowhere/x.tar", None), Err(Error::NotFound { .. })));
    assert!(matches!(store.open("/etc", None), Err(Error::InvalidInput { .. })));
    // A change is seen at once, however soon it comes, also when the old digest is remembered.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    for content in ["one", "two", "six"] {
        store.file("image.tar", content.as_bytes());
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let found = store.open(&name, None).unwrap().fingerprint();
        assert_eq!(found, format!("sha256:{}", sha256(content.as_bytes())));
    }
    assert_eq!(Source::parse("host"), None);
    assert_eq!(Source::parse("debian/12"), None);
    assert!(matches!(Source::parse("images/my.tar.zst"), Some(Source::File(_))));
    assert!(matches!(Source::parse("https://a/b"), Some(Source::Url(_))));
}

/// Serves `answers`, one a connection, and then refuses.
fn serve(answers: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image.tar", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let count = answers.len();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).unwrap();
            stream.write_all(&answer).unwrap();
        }
        count
    });
    (url, thread)
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())
            .into_bytes();
    answer.extend(body);
    answer
}

#[test]
fn downloads() {
    let store = Store::new();
    let image = archive(&rootfs());
    let sum = sha256(&image);
    let mut short = ok(&image);
    short.truncate(2000);
    let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec();
    let chunked = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n".to_vec(),
        vec![0; 0x200000],
        b"\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    let (url, server) =
        serve(vec![missing, short, huge, chunked, ok(b"something else"), ok(&image)]);
    assert!(matches!(store.open(&url, None), Err(Error::InvalidInput { .. })));
    let open = || store.open(&url, Some(&sum));
    assert!(matches!(open(), Err(Error::NotFound { .. })));
    assert!(matches!(open(), Err(Error::Transport { .. })));
    for says in ["larger than 1.0 MiB", "larger than 1.0 MiB", &sha256(b"something else")] {
        let error = open().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let tarball = open().unwrap();
    assert_eq!(fs::read(tarball.path()).unwrap(), image);
    assert_eq!(server.join().unwrap(), 6);
    // From the cache now: the server is gone.
    assert_eq!(open().unwrap().fingerprint(), format!("sha256:{sum}"));
    let other = "1".repeat(64);
    assert!(matches!(store.open(&url, Some(&other)), Err(Error::Transport { .. })));
}

#[test]
fn layers_over_each_other() {
    let base = [
        Entry(Dir, "usr/", "", 0o755),
        Entry(Dir, "usr/bin/", "", 0o755),
        Entry(Symlink, "bin", "usr/bin", 0o777),
        Entry(File, "bin/sh", "shell", 0o755),
        Entry(Dir, "opt/", "", 0o755),
        Entry(File, "opt/kept", "1", 0o644),
        Entry(File, "opt/gone", "1", 0o644),
        Entry(Dir, "opt/emptied/", "", 0o555),
        Entry(File, "opt/emptied/old", "1", 0o644),
        Entry(Dir, "opt/tree/", "", 0o755),
        Entry(Dir, "opt/tree/below/", "", 0o500),
        Entry(File, "opt/tree/below/x", "1", 0o644),
        Entry(Dir, "opt/becomes-a-file/", "", 0o755),
        Entry(File, "opt/becomes-a-file/x", "1", 0o644),
        Entry(File, "opt/becomes-a-folder", "1", 0o644),
        Entry(File, "bin/tool", "1", 0o755),
    ];
    let above = [
        // It acts on the layer below, though this one has such a file, too.
        Entry(File, "opt/emptied/new", "2", 0o644),
        Entry(File, "opt/emptied/.wh..wh..opq", "", 0o644),
        Entry(File, "opt/.wh.gone", "", 0o644),
        Entry(File, "opt/.wh.tree", "", 0o644),
        Entry(File, "opt/.wh.never-there", "", 0o644),
        Entry(File, "nowhere/.wh.x", "", 0o644),
        Entry(File, "opt/.wh..wh.plnk", "", 0o644),
        Entry(File, "opt/becomes-a-file", "2", 0o644),
        Entry(Dir, "opt/becomes-a-folder/", "", 0o755),
        Entry(File, "opt/becomes-a-folder/x", "2", 0o644),
        Entry(File, "bin/.wh.tool", "", 0o644),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (base, above) = (archive(&base), archive(&above));
    let layers = [base.as_slice(), above.as_slice()];
    let options = LayerOptions::new("test", Owners::Mine);
    let open = layers.iter().map(|layer| move || Ok(*layer));
    let stats = unpack_layers(open.clone(), folder.path(), &options).unwrap();
    assert_eq!(stats.entries, 27);
    let text = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    assert_eq!(text("opt/kept"), "1");
    assert_eq!(
        (text("opt/becomes-a-file"), text("opt/becomes-a-folder/x")),
        ("2".into(), "2".into())
    );
    let names = |path: &str| {
        let entries = fs::read_dir(folder.path().join(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("opt"), ["becomes-a-file", "becomes-a-folder", "emptied", "kept"]);
    assert_eq!(names("opt/emptied"), ["new"]);
    assert_eq!(names("usr/bin"), ["sh"]);

    // The limits are those of all layers together.
    let folder = tempfile::tempdir().unwrap();
    let few = LayerOptions { max_entries: 20, ..options };
    let error = unpack_layers(open, folder.path(), &few).unwrap_err();
    assert!(error.to_string().contains("entries"), "{error}");
}

/// What a registry answers that gives a token to everybody; the token goes to nobody else.
#[test]
fn a_registry_that_wants_a_token() {
    let layer = archive(&rootfs());
    let manifest = format!(
        r#"{{"schemaVersion": 2, "layers": [{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:{}"}}]}}"#,
        sha256(&layer)
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let (here, there) = (listener.local_addr().unwrap(), elsewhere.local_addr().unwrap());
    let head = |stream: &mut std::net::TcpStream| {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).to_lowercase()
    };
    let (body, text) = (layer.clone(), manifest.clone());
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for stream in listener.incoming().take(5) {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let known = head.contains("authorization: bearer word");
            let line = head.lines().next().unwrap().replace(" http/1.1", "");
            let answer = match &line {
                line if line.starts_with("get /token?") => {
                    let fits = line.contains("service=me") && line.contains("scope=repository%3aa%3apull");
                    assert!(fits && !known, "{line}");
                    ok(br#"{"token": "word"}"#)
                }
                _ if !known => format!(
                    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{here}/token\",service=\"me\",scope=\"repository:a:pull\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                .into_bytes(),
                line if line.starts_with("get /v2/a/manifests/") => ok(text.as_bytes()),
                line if line.starts_with("head ") => {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
                }
                _ => format!(
                    "HTTP/1.1 307 Elsewhere\r\nlocation: http://{there}/layer\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                .into_bytes(),
            };
            stream.write_all(&answer).unwrap();
            asked.push(line);
        }
        asked
    });
    let store = std::thread::spawn(move || {
        let (mut stream, _) = elsewhere.accept().unwrap();
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).unwrap();
        stream.write_all(&ok(&body)).unwrap();
        String::from_utf8_lossy(&buffer[..length]).to_lowercase()
    });
    let cache = tempfile::tempdir().unwrap();
    let fetch = Fetch { cache: cache.path(), max_bytes: 1 << 20, progress: &|_, _| true };
    let reference = Reference::parse(&format!("oci:{here}/a:1")).unwrap().unwrap();
    let image = OciImage::look_up(&reference, None, &fetch).unwrap();
    assert_eq!(image.fingerprint(), format!("sha256:{}", sha256(manifest.as_bytes())));
    let layers = image.layers(&fetch).unwrap();
    assert_eq!(fs::read(&layers[0]).unwrap(), layer);
    assert!(!store.join().unwrap().contains("authorization"));
    let asked: Vec<String> =
        server.join().unwrap().iter().map(|line| line[..8].to_owned()).collect();
    assert_eq!(asked, ["get /v2/", "get /tok", "get /v2/", "head /v2", "get /v2/"]);
}
