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
fn tar_archive(marker: &str) -> Vec<u8> {
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
    builder.into_inner().unwrap()
}

/// The same, compressed.
fn archive(marker: &str) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(&tar_archive(marker)).unwrap();
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
    hint: use "host", an alias such as "debian/12", an image of a registry such as "oci:debian:12", a path to a .tar, .tar.gz, .tar.xz or .tar.zst, or an https:// address with its sha256
    "#);
    assert_eq!(environment.ok(["list", "--format", "json"]).trim(), "[]");
}

/// Debian's registry on loopback, filled by the tools that others fill theirs with.
struct Registry {
    server: std::process::Child,
    address: String,
    folder: PathBuf,
}

impl Registry {
    fn start(environment: &TestEnvironment) -> Option<Registry> {
        let missing = ["docker-registry", "skopeo", "umoci"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_err());
        if let Some(missing) = missing {
            crate::environment::skip(&format!("{missing} is not installed: images of a registry"));
            return None;
        }
        let folder = environment.path("registry");
        std::fs::create_dir_all(folder.join("store")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = folder.join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
                folder.join("store").display()
            ),
        )
        .unwrap();
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(&config).stdout(std::process::Stdio::null());
        let server = serve.stderr(std::process::Stdio::null()).spawn().unwrap();
        let begin = std::time::Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begin.elapsed().as_secs() < 30, "the registry does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(Registry { server, address, folder })
    }

    /// Publishes an image of these layers under a tag, and says its digest.
    fn publish(&self, tag: &str, layers: &[Vec<u8>]) -> String {
        let run = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).current_dir(&self.folder).env("HOME", &self.folder);
            let output = command.env("XDG_RUNTIME_DIR", &self.folder).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} {args:?}: {said}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let layout = format!("layout-{tag}");
        let image = format!("{layout}:{tag}");
        run("umoci", &["init", "--layout", &layout]);
        run("umoci", &["new", "--image", &image]);
        for layer in layers {
            std::fs::write(self.folder.join("layer.tar"), layer).unwrap();
            run("umoci", &["raw", "add-layer", "--image", &image, "layer.tar"]);
        }
        let to = format!("docker://{}/a/base:{tag}", self.address);
        let local = format!("oci:{image}");
        run("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", &local, &to]);
        run("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to])
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn from_a_registry() {
    let Some(environment) = TestEnvironment::local() else { return };
    let Some(registry) = Registry::start(&environment) else { return };
    let layer = |files: &[(&str, &str)]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(content.len() as u64);
            header.set_mtime(1_600_000_000);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let root = tar_archive("one");
    let first = registry.publish(
        "1",
        &[
            root.clone(),
            layer(&[("opt/gone", "1"), ("opt/kept", "1"), ("opt/dir/old", "1")]),
            layer(&[("opt/.wh.gone", ""), ("opt/dir/.wh..wh..opq", ""), ("opt/dir/new", "2")]),
        ],
    );
    let image = format!("oci:{}/a/base", registry.address);
    environment.ok(["create", "one", "--image", &format!("{image}:1")]);
    let seen = ["exec", "one", "--", "sh", "-c", "cat /etc/marker; echo; echo /opt/* /opt/dir/*"];
    assert_eq!(environment.ok(seen), "one\n/opt/dir /opt/kept /opt/dir/new\n");
    let shown: Value =
        serde_json::from_str(&environment.ok(["show", "one", "--format", "json"])).unwrap();
    assert_eq!(shown["fingerprint"], Value::String(first.clone()));

    // A tag that moved is seen by another store; by its digest the old one is still to be had.
    let second = registry.publish("2", &[root, layer(&[("etc/marker", "two")])]);
    let moved = format!("docker://{}/a/base:1", registry.address);
    let from = format!("docker://{}/a/base:2", registry.address);
    let copy = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let copied = Command::new("skopeo").args(copy).args([&from, &moved]).output().unwrap();
    assert!(copied.status.success());
    assert_ne!(first, second);
    environment.ok(["create", "again", "--image", &format!("{image}:1")]);
    assert_eq!(environment.ok(["exec", "again", "--", "cat", "/etc/marker"]), "one");
    let other = TestEnvironment::local().unwrap();
    other.ok(["create", "new", "--image", &format!("{image}:1")]);
    assert_eq!(other.ok(["exec", "new", "--", "cat", "/etc/marker"]), "two");
    other.ok(["create", "old", "--image", &format!("{image}:1"), "--sha256", &first]);
    assert_eq!(other.ok(["exec", "old", "--", "cat", "/etc/marker"]), "one");
    other.ok(["create", "pinned", "--image", &format!("{image}@{first}")]);
    assert_eq!(other.ok(["exec", "pinned", "--", "cat", "/etc/marker"]), "one");

    let said = |image: &str, more: &[&str]| {
        let run = other.run(["create", "x", "--image", image].iter().chain(more));
        run.to_string().replace(&registry.address, "REGISTRY").replace(&first, "FIRST")
    };
    assert_snapshot!(said(&format!("{image}:3"), &[]), @"
    exit code 1
    -- stderr
    error: image 'oci:REGISTRY/a/base:3' not found
    ");
    assert_snapshot!(said("oci:Debian", &[]), @"
    exit code 2
    -- stderr
    error: image: 'oci:Debian' is not the name of an image in a registry
    hint: write it as oci:debian:12, oci:REGISTRY/NAME:TAG or oci:NAME@sha256:DIGEST
    ");
    assert_snapshot!(said(&format!("{image}:1"), &["--sha256", &"1".repeat(64)]), @"
    exit code 1
    -- stderr
    error: image 'oci:REGISTRY/a/base:1@sha256:1111111111111111111111111111111111111111111111111111111111111111' not found
    ");
    // What is known goes on without it.
    drop(registry);
    environment.ok(["create", "third", "--image", &format!("{image}:1")]);
    assert_eq!(environment.ok(["exec", "third", "--", "cat", "/etc/marker"]), "one");
}
