//! Images by alias from a server on loopback.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use insta::assert_snapshot;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::environment::TestEnvironment;

/// Names and contents.
type Files = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A simplestreams server.
struct Server {
    url: String,
    files: Files,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let files: Files = Arc::default();
        let asked: Arc<AtomicUsize> = Arc::default();
        let (serving, count) = (Arc::clone(&files), Arc::clone(&asked));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 4096];
                let Ok(length) = stream.read(&mut buffer) else { continue };
                let head = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
                count.fetch_add(1, Ordering::SeqCst);
                let files = serving.lock().unwrap();
                let found = files.iter().find(|(name, _)| format!("/{name}") == path);
                let (status, body) = match found {
                    Some((_, body)) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", b"".as_slice()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        Server { url, files, asked }
    }

    fn put(&self, name: &str, body: Vec<u8>) {
        let mut files = self.files.lock().unwrap();
        files.retain(|(old, _)| old != name);
        files.push((name.into(), body));
    }

    /// Serves these versions of `debian/12`, and an image for a machine of another kind.
    fn publish(&self, versions: &[(&str, &[u8])]) {
        let mut all = serde_json::Map::new();
        for (version, archive) in versions {
            let path = format!("images/{version}/rootfs.tar.xz");
            let sum = sum(archive);
            self.put(&path, archive.to_vec());
            all.insert(
                (*version).into(),
                json!({"items": {
                    "root.squashfs": {"ftype": "squashfs", "path": "x", "sha256": "00"},
                    "root.tar.xz": {"ftype": "root.tar.xz", "path": path, "sha256": sum},
                }}),
            );
        }
        let products = json!({
            "debian:bookworm": {"aliases": "debian/12,debian/bookworm", "arch": arch(), "versions": Value::Object(all)},
            "other:1": {"aliases": "other/1", "arch": "vax", "versions": {}},
            "only:1": {"aliases": "disk/1", "arch": arch(), "versions": {"1": {"items": {"disk.qcow2": {"ftype": "disk-kvm.img"}}}}},
        });
        self.put("streams/v1/images.json", json!({"products": products}).to_string().into_bytes());
        self.put(
            "streams/v1/index.json",
            json!({"index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json"}}})
                .to_string()
                .into_bytes(),
        );
    }
}

/// What the server calls this machine's architecture.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sum(archive: &[u8]) -> String {
    Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Programs of this machine with the libraries they need, and a marker.
fn archive(marker: &str) -> Vec<u8> {
    let mut files = BTreeSet::new();
    for program in ["sh", "cat"] {
        let path = ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(program));
        let path = path.into_iter().find(|path| path.exists()).unwrap();
        let output = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
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
        builder.append_data(&mut header, name.trim_start_matches('/'), content).unwrap();
    };
    for path in files {
        add(&path.display().to_string(), 0o755, &std::fs::read(&path).unwrap());
    }
    add("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    add("etc/group", 0o644, b"root:x:0:\n");
    add("etc/marker", 0o644, marker.as_bytes());
    add("root/.keep", 0o644, b"");
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(&builder.into_inner().unwrap()).unwrap();
    writer.finish().unwrap()
}

#[test]
fn from_a_server() {
    let Some(environment) = TestEnvironment::local() else { return };
    let server = Server::start();
    let (one, two) = (archive("one"), archive("two"));
    server.publish(&[("20260101_00:00", &one)]);
    environment.write("sandscript.toml", &format!("image_server = \"{}\"", server.url));
    environment.ok(["create", "first", "--image", "debian/12"]);
    let marker = |name: &str| environment.ok(["exec", name, "--", "cat", "/etc/marker"]);
    assert_eq!(marker("first"), "one");
    assert!(environment.ok(["show", "first"]).contains("debian/12"));
    // The list and the archive are here now.
    let before = server.asked.load(Ordering::SeqCst);
    environment.ok(["create", "second", "--image", "images:debian/bookworm"]);
    assert_eq!((marker("second").as_str(), server.asked.load(Ordering::SeqCst)), ("one", before));

    // Another store has not seen the old one.
    let environment = TestEnvironment::local().unwrap();
    environment.write("sandscript.toml", &format!("image_server = \"{}\"", server.url));
    environment.write(
        "x.lua",
        "local b = base('b', { from = 'debian/12' }, function(b) b:run('cat /etc/marker > /etc/seen') end)\n\
         local box <close> = sandbox({ from = b })\nprint(box:read('/etc/seen'))",
    );
    environment.ok(["lock", "update", "x.lua"]);
    assert!(environment.ok(["run", "--locked", "x.lua"]).contains("one"));
    server.publish(&[("20260101_00:00", &one), ("20260202_00:00", &two)]);
    let environment = TestEnvironment::local().unwrap();
    environment.write("sandscript.toml", &format!("image_server = \"{}\"", server.url));
    environment.ok(["create", "new", "--image", "debian/12"]);
    assert_eq!(environment.ok(["exec", "new", "--", "cat", "/etc/marker"]), "two");
    // By its digest the old one is still to be had.
    environment.ok(["create", "old", "--image", "debian/12", "--sha256", &sum(&one)]);
    assert_eq!(environment.ok(["exec", "old", "--", "cat", "/etc/marker"]), "one");
}

#[test]
fn what_a_server_does_not_have() {
    let Some(environment) = TestEnvironment::local() else { return };
    let server = Server::start();
    environment.write("sandscript.toml", &format!("image_server = \"{}\"", server.url));
    let archive_one = archive("one");
    server.publish(&[("20260101_00:00", &archive_one)]);
    let sum = sum(&archive_one);
    let said = |args: &[&str]| {
        let run = environment.run(["create", "x"].iter().chain(args));
        let text = run.to_string().replace(&server.url, "http://SERVER").replace(&sum, "SUM");
        text.replace(&format!("for {}", arch()), "for ARCH")
    };
    assert_snapshot!(said(&["--image", "debian/21"]), @r#"
    exit code 2
    -- stderr
    error: image: http://SERVER has no image 'debian/21'
    hint: did you mean 'debian/12'?
    "#);
    assert_snapshot!(said(&["--image", "other/1"]), @r#"
    exit code 2
    -- stderr
    error: image: http://SERVER has no 'other/1' for ARCH
    hint: it has it for other architectures only
    "#);
    assert_snapshot!(said(&["--image", "disk/1"]), @r#"
    exit code 11
    -- stderr
    error: starting from 'disk/1' is not supported by backend 'local' here
    hint: http://SERVER has it as a disk or another form only, not as root.tar.xz: take another image
    "#);
    assert_snapshot!(said(&["--image", "debian/12", "--sha256", &"1".repeat(64)]), @r#"
    exit code 2
    -- stderr
    error: sha256: 'debian/12' is not what was asked for: expected 1111111111111111111111111111111111111111111111111111111111111111, found SUM
    hint: it changed at its source, or the digest was mistyped; check it with the publisher
    "#);
    // Somebody changed what lies there.
    server.put("images/20260101_00:00/rootfs.tar.xz", archive("evil"));
    let run = environment.run(["create", "x", "--image", "debian/12"]);
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.stderr.contains("is not what was asked for"), "{run}");
    server.put("streams/v1/index.json", b"<html>".to_vec());
    let environment = TestEnvironment::local().unwrap();
    environment.write("sandscript.toml", &format!("image_server = \"{}\"", server.url));
    let run = environment.run(["create", "x", "--image", "debian/12"]);
    assert_snapshot!(run.to_string().replace(&server.url, "http://SERVER"), @r#"
    exit code 10
    -- stderr
    error: lost contact: http://SERVER/streams/v1/index.json is not a list of images
    "#);
    environment.write("sandscript.toml", "image_server = 'http://images.example.com'");
    assert_snapshot!(environment.run(["create", "x", "--image", "debian/12"]), @r#"
    exit code 2
    -- stderr
    error: image_server: 'http://images.example.com' is not an https address
    hint: anybody on the way could change the digests that images are checked against
    "#);
    assert_snapshot!(environment.run(["create", "x", "--image", "debian"]), @r#"
    exit code 2
    -- stderr
    error: image: 'debian' is not an image that backend 'local' can start from
    hint: use "host", an alias such as "debian/12", a path to a .tar, .tar.gz, .tar.xz or .tar.zst, or an https:// address with its sha256
    "#);
    assert_eq!(environment.ok(["list", "--format", "json"]).trim(), "[]");
}
