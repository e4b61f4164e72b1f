//! Where a sandbox's disk comes from, and how large it may become.

use std::path::Path;
use std::sync::Arc;

use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command, Error, Kind, Restore, SnapshotSpec, Spec, exec,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::proxy::Proxy;
use crate::rig::Daemon;
use crate::{open, open_at, sh, wait};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn packed(folder: &Path, names: &[&str]) -> Vec<u8> {
    let tar = std::process::Command::new("tar")
        .args(["-c", "-J", "-C"])
        .arg(folder)
        .args(names)
        .output()
        .unwrap();
    assert!(tar.status.success());
    tar.stdout
}

/// An image server on the loopback interface, with one small image; its port and its certificate.
async fn image_server(folder: &Path) -> (u16, String) {
    std::fs::create_dir_all(folder.join("root/sbin")).unwrap();
    std::fs::create_dir_all(folder.join("root/etc")).unwrap();
    std::fs::write(folder.join("root/etc/from"), "afar\n").unwrap();
    std::fs::write(
        folder.join("metadata.yaml"),
        "architecture: x86_64\ncreation_date: 1785571200\nproperties: {description: tiny}\n",
    )
    .unwrap();
    let meta = packed(folder, &["metadata.yaml"]);
    let root = packed(&folder.join("root"), &["."]);
    let both = [meta.clone(), root.clone()].concat();
    let item = |kind: &str, path: &str, bytes: &[u8]| json!({"ftype": kind, "path": path, "sha256": hex(bytes), "size": bytes.len()});
    let mut first = item("incus.tar.xz", "meta.tar.xz", &meta);
    first["combined_rootxz_sha256"] = hex(&both).into();
    first["combined_sha256"] = hex(&both).into();
    let products = json!({
        "content_id": "images", "datatype": "image-downloads", "format": "products:1.0",
        "products": {"tiny:1:amd64:default": {
            "aliases": "tiny/1,tiny/1/default", "arch": "amd64", "os": "Tiny", "release": "1",
            "release_title": "1", "variant": "default",
            "versions": {"20261122_00:00": {"items": {
                "incus.tar.xz": first, "root.tar.xz": item("root.tar.xz", "root.tar.xz", &root),
            }}},
        }},
    });
    let index = json!({
        "format": "index:1.0",
        "index": {"images": {"datatype": "image-downloads", "format": "products:1.0",
            "path": "streams/v1/images.json", "products": ["tiny:1:amd64:default"]}},
    });
    let files = Arc::new(vec![
        ("/streams/v1/index.json", index.to_string().into_bytes()),
        ("/streams/v1/images.json", products.to_string().into_bytes()),
        ("/meta.tar.xz", meta),
        ("/root.tar.xz", root),
    ]);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, files) = (acceptor.clone(), Arc::clone(&files));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let found = files.iter().find(|(name, _)| *name == path);
                let (status, body) = match found {
                    Some((_, body)) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", &b""[..]),
                };
                let body = if head.starts_with("HEAD") { &b""[..] } else { body };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.write_all(body).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, certificate)
}

pub fn of_an_image_server(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    std::fs::create_dir_all(conf.join("servercerts")).unwrap();
    wait(async {
        let (port, certificate) = image_server(folder.path()).await;
        let remotes = format!(
            "remotes:\n  shelf: {{addr: 'https://127.0.0.1:{port}', protocol: simplestreams, public: true}}\n"
        );
        std::fs::write(conf.join("config.yml"), remotes).unwrap();
        let open = async || {
            let config = IncusConfig {
                socket: Some(daemon.socket()),
                folders: vec![conf.clone()],
                ..IncusConfig::default()
            };
            IncusBackend::open(config).await.unwrap()
        };
        let (backend, cancel) = (open().await, Cancel::new());
        // Nobody vouches for its certificate.
        let error = backend.fingerprint("shelf:tiny/1", None, &cancel).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { kind: Kind::Image, .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("certificate"), "{error:?}");
        std::fs::write(conf.join("servercerts/shelf.crt"), certificate).unwrap();
        let mut spec = Spec::new("shelved");
        (spec.image, spec.bare) = (Some("shelf:tiny/1".into()), true);
        let made = backend.create(&spec, &cancel).await.unwrap();
        assert_eq!(made.image, "shelf:tiny/1");
        assert_eq!(
            backend.fingerprint("shelf:tiny/1", None, &cancel).await.unwrap(),
            made.fingerprint
        );
        assert_eq!(daemon.incus(&["file", "pull", "shelved/etc/from", "-"]).unwrap(), "afar\n");
        // By its fingerprint it is the server's own now, and by a part of it.
        for image in [made.fingerprint.as_str(), &made.fingerprint[..12]] {
            assert_eq!(backend.fingerprint(image, None, &cancel).await.unwrap(), made.fingerprint);
        }
        backend.delete("shelved", &cancel).await.unwrap();
        let again = open().await.fingerprint("shelf:tiny/1", None, &cancel).await.unwrap();
        assert_eq!(again, made.fingerprint);
        for (image, words) in [
            ("shelf:huge/1", "incus image list shelf:"),
            ("nobody:tiny/1", "there is no image server 'nobody'"),
            ("tiny/1", "images:tiny/1"),
        ] {
            let error = backend.fingerprint(image, None, &cancel).await.unwrap_err();
            assert!(matches!(&error, Error::NotFound { kind: Kind::Image, .. }), "{error:?}");
            assert!(error.hint().unwrap().contains(words), "{image}: {error:?}");
        }
        let error = backend.fingerprint("oci:debian:12", None, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        daemon.incus(&["image", "delete", &made.fingerprint]).unwrap();
    });
}

pub fn a_disk_that_is_limited(daemon: &mut Daemon) {
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("narrow");
        spec.limits.disk = Some(32 << 20);
        backend.create(&spec, &cancel).await.unwrap();
        let fill = async |name: &str, count: u32| {
            let line = format!("dd if=/dev/urandom of=/root/f bs=1M count={count} conv=fsync");
            exec(&backend, name, &Command::shell(line), &cancel).await.unwrap().exit.ok()
        };
        assert!(fill("narrow", 8).await);
        assert!(!fill("narrow", 64).await);
        sh(&backend, "narrow", "rm /root/f; sync").await;
        backend.snapshot("narrow", &SnapshotSpec::new("s"), &cancel).await.unwrap();
        // It holds in a clone, and after a restore and a restart.
        Backend::clone(&backend, "narrow", &CloneSpec::of("s", "twin"), &cancel).await.unwrap();
        assert!(!fill("twin", 96).await);
        backend.restore("narrow", "s", Restore::default(), &cancel).await.unwrap();
        assert!(!fill("narrow", 96).await);
        sh(&backend, "narrow", "rm /root/f; sync").await;
        backend.stop("narrow", Default::default(), &cancel).await.unwrap();
        backend.start("narrow", &cancel).await.unwrap();
        assert!(!fill("narrow", 96).await);
        // A clone may get more.
        let mut wide = CloneSpec::of("s", "wide");
        wide.limits =
            Some(sandscript::sandbox::Limits { disk: Some(200 << 20), ..Default::default() });
        Backend::clone(&backend, "narrow", &wide, &cancel).await.unwrap();
        assert!(fill("wide", 96).await);
        for name in ["narrow", "twin", "wide"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
}

/// Any snapshot can be restored on folders, too; of what can only go back to the newest, newer ones must be
/// allowed to go.
pub fn a_snapshot_on_other_storage(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let take = async |backend: &IncusBackend, name: &str| {
        for label in ["one", "two", "three"] {
            sh(backend, name, &format!("echo {label} > /root/f; echo {label} >> /root/all")).await;
            backend.snapshot(name, &SnapshotSpec::new(label), &Cancel::new()).await.unwrap();
        }
    };
    let labels = async |backend: &IncusBackend, name: &str| {
        let all = backend.snapshots(name, &Cancel::new()).await.unwrap();
        all.into_iter().map(|one| one.label).collect::<Vec<_>>()
    };
    // This kernel has no ZFS: the server says that it had.
    wait(async {
        let proxy = Proxy::new(folder.path(), daemon.socket());
        proxy.replace("\"storage\":\"btrfs\"", "\"storage\":\"zfs\"");
        proxy.replace("\"driver\":\"btrfs\"", "\"driver\":\"zfs\"");
        let (backend, cancel) = (open_at(&proxy.socket, "small").await, Cancel::new());
        backend.create(&Spec::new("newest"), &cancel).await.unwrap();
        take(&backend, "newest").await;
        let to = async |label: &str, discard_newer: bool| {
            let options = Restore { discard_newer };
            backend.restore("newest", label, options, &cancel).await
        };
        let error = to("one", false).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        insta::assert_snapshot!(error, @"restoring 'one' without losing three, two is not supported by backend 'incus' here");
        assert_eq!(labels(&backend, "newest").await, ["one", "two", "three"]);
        assert_eq!(sh(&backend, "newest", "cat /root/f").await, "three");
        sh(&backend, "newest", "echo four > /root/f").await;
        to("three", false).await.unwrap();
        assert_eq!(sh(&backend, "newest", "cat /root/f").await, "three");
        to("one", true).await.unwrap();
        assert_eq!(sh(&backend, "newest", "cat /root/all").await, "one");
        assert_eq!(labels(&backend, "newest").await, ["one"]);
        backend.delete("newest", &cancel).await.unwrap();
    });
    daemon.incus(&["storage", "create", "plain", "dir"]).unwrap();
    daemon.incus(&["profile", "device", "set", "default", "root", "pool=plain"]).unwrap();
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("any");
        spec.limits.disk = Some(32 << 20);
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        backend.create(&Spec::new("any"), &cancel).await.unwrap();
        take(&backend, "any").await;
        for (label, all) in [("one", "one"), ("three", "one\ntwo\nthree"), ("two", "one\ntwo")] {
            backend.restore("any", label, Restore::default(), &cancel).await.unwrap();
            let found = sh(&backend, "any", "cat /root/all").await;
            assert_eq!(found, all, "{label}");
            assert_eq!(labels(&backend, "any").await, ["one", "two", "three"]);
        }
        Backend::clone(&backend, "any", &CloneSpec::of("three", "twin"), &cancel).await.unwrap();
        assert_eq!(sh(&backend, "twin", "cat /root/f; hostname").await, "three\ntwin");
        for name in ["any", "twin"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    daemon.incus(&["profile", "device", "set", "default", "root", "pool=default"]).unwrap();
    daemon.incus(&["storage", "delete", "plain"]).unwrap();
}
