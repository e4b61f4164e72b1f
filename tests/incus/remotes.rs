//! Servers that are reached by HTTPS: who they are, and who we are to them.

use std::path::Path;

use crate::Home;
use crate::rig::Daemon;

fn said(home: &Home, args: &[&str]) -> String {
    let (code, out, err) = home.run(&[], args);
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out + err.as_str()
}

pub fn token(daemon: &Daemon, name: &str) -> String {
    let said = daemon.incus(&["config", "trust", "add", name, "--quiet"]).unwrap();
    said.lines().last().unwrap_or_default().trim().to_owned()
}

fn fingerprint(daemon: &Daemon) -> String {
    let server = daemon.incus(&["query", "/1.0"]).unwrap();
    let server: serde_json::Value = serde_json::from_str(&server).unwrap();
    server["environment"]["certificate_fingerprint"].as_str().unwrap().to_owned()
}

/// Fails with exit code 10 and these words.
fn refused(home: &Home, env: &[(&str, &Path)], args: &[&str], words: &[&str]) {
    let (code, out, err) = home.run(env, args);
    assert_eq!(code, Some(10), "{args:?}: {out}{err}");
    // Messages are wrapped to the terminal's width.
    let err = err.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(err.contains(word), "{word:?} is not in {err}");
    }
}

pub fn by_token(daemon: &mut Daemon) {
    let port = daemon.https().unwrap();
    let (home, token) = (Home::new(), token(daemon, "laptop"));
    let added = said(&home, &["remote", "add", "nas", "--token", &token]);
    assert!(added.contains(&format!("https://127.0.0.1:{port}")), "{added}");
    assert!(added.contains(&fingerprint(daemon)), "{added}");
    let listed = said(&home, &["remote", "list"]);
    assert!(listed.contains("nas"), "{listed}");
    // Everything goes by TLS: requests, events, the streams of commands, files.
    said(&home, &["create", "far", "--image", "small", "--host", "nas"]);
    let exec = ["exec", "far", "--host", "nas", "--", "sh", "-c", "echo out; echo err >&2; exit 7"];
    let (code, out, err) = home.run(&[], &exec);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(7), "out\n", "err\n"));
    said(&home, &["snapshot", "create", "far", "clean", "--host", "nas"]);
    // By the address that the server is reached at.
    let opened = said(&home, &["publish", "far", "8080", "--host", "nas"]);
    assert!(opened.contains("127.0.0.1:"), "{opened}");
    let devices = daemon.incus(&["config", "device", "show", "far"]).unwrap();
    assert!(devices.contains("listen: tcp:127.0.0.1:"), "{devices}");
    let url = format!("https://127.0.0.1:{port}");
    let listed = said(&home, &["list", "--host", &url]);
    assert!(listed.contains("far"), "{listed}");
    // A token is good for one use, and a name for one server.
    let again = ["remote", "add", "twin", "--token", &token];
    refused(&Home::new(), &[], &again, &["does not take the token", "incus config trust add"]);
    let (code, _, err) = home.run(&[], &["remote", "add", "nas", "--token", &token]);
    assert_eq!(code, Some(2), "{err}");

    // Somebody whom the server does not know, and who does not know the server.
    let stranger = Home::new();
    let add = ["remote", "add", "nas", &url];
    refused(&stranger, &[], &add, &["is not trusted", "--fingerprint SHA256"]);
    let wrong = "0".repeat(64);
    let add = ["remote", "add", "nas", &url, "--fingerprint", &wrong];
    refused(&stranger, &[], &add, &["is another one than the one that is known"]);
    let add = ["remote", "add", "nas", &url, "--fingerprint", &fingerprint(daemon)];
    let added = said(&stranger, &add);
    assert!(added.contains("does not know you yet"), "{added}");
    refused(&stranger, &[], &["list", "--host", "nas"], &["does not know you", "remote add"]);
    // Until its certificate is added there.
    let certificate = stranger.0.path().join(".config/sandscript/incus/client.crt");
    daemon.incus(&["config", "trust", "add-certificate", &certificate.to_string_lossy()]).unwrap();
    said(&stranger, &["delete", "far", "--yes", "--host", "nas"]);
    said(&stranger, &["remote", "remove", "nas"]);
    let (code, _, err) = stranger.run(&[], &["list", "--host", "nas"]);
    assert_eq!(code, Some(2), "{err}");
}

pub fn the_incus_clients_own(daemon: &mut Daemon) {
    let port = daemon.https().unwrap();
    let (home, token) = (Home::new(), token(daemon, "client"));
    let conf = home.0.path().join("conf");
    let incus = |args: &[&str]| {
        let mut client = std::process::Command::new("/usr/bin/incus");
        let client = client.args(args).env("INCUS_CONF", &conf).stdin(std::process::Stdio::null());
        let output = client.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    incus(&["remote", "add", "srv", &token]);
    daemon
        .incus(&[
            "project",
            "create",
            "tests",
            "-c",
            "features.images=false",
            "-c",
            "features.profiles=false",
        ])
        .unwrap();
    let env = [("INCUS_CONF", conf.as_path())];
    let ok = |args: &[&str]| {
        let (code, out, err) = home.run(&env, args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };
    ok(&["create", "apart", "--image", "small", "--host", "srv/tests"]);
    assert_eq!(ok(&["exec", "apart", "--host", "srv/tests", "--", "hostname"]), "apart\n");
    assert!(!ok(&["list", "--host", "srv"]).contains("apart"));
    let url = format!("https://127.0.0.1:{port}/tests");
    assert!(ok(&["list", "--host", &url]).contains("apart"));
    // A remote may have a project of its own.
    incus(&["project", "switch", "srv:tests"]);
    assert!(ok(&["list", "--host", "srv"]).contains("apart"));
    // The settings of the client are where it has them, too, and so is its project.
    incus(&["project", "switch", "srv:default"]);
    let (folder, usual) = (home.path().join(".config"), home.path().join(".config/incus"));
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(&conf, &usual).unwrap();
    let list = |env: &[(&str, &Path)]| {
        let (code, out, err) = home.run(env, &["list", "--host", "srv"]);
        assert_eq!(code, Some(0), "{out}{err}");
        out
    };
    assert!(!list(&[]).contains("apart"));
    assert!(list(&[("INCUS_PROJECT", Path::new("tests"))]).contains("apart"));
    std::fs::remove_file(&usual).unwrap();
    ok(&["delete", "apart", "--yes", "--host", "srv/tests"]);
    daemon.incus(&["project", "delete", "tests"]).unwrap();
    // Without a word to the contrary it is this machine's daemon, and images have no sandboxes.
    let (code, _, err) = home.run(&env, &["list", "--host", "images"]);
    assert_eq!(code, Some(2), "{err}");
    // The server no longer knows us.
    let mine = std::fs::read(conf.join("client.crt")).unwrap();
    let mine = sandscript::transport::fingerprint(&mine).unwrap().to_string();
    daemon.incus(&["config", "trust", "remove", &mine]).unwrap();
    refused(&home, &env, &["list", "--host", "srv"], &["does not know you"]);
}

pub fn another_certificate(daemon: &mut Daemon) {
    daemon.https().unwrap();
    let (home, token) = (Home::new(), token(daemon, "before"));
    said(&home, &["remote", "add", "nas", "--token", &token]);
    said(&home, &["list", "--host", "nas"]);
    let before = fingerprint(daemon);
    daemon.kill().unwrap();
    for file in ["server.crt", "server.key"] {
        std::fs::remove_file(daemon.folder().join(file)).unwrap();
    }
    daemon.again().unwrap();
    let after = fingerprint(daemon);
    assert_ne!(before, after);
    let words = ["is another one than the one that is known", &before, &after, "remote remove"];
    refused(&home, &[], &["list", "--host", "nas"], &words);
    // Nor is anything made there.
    refused(&home, &[], &["create", "never", "--image", "small", "--host", "nas"], &[]);
    let token = self::token(daemon, "after");
    said(&home, &["remote", "remove", "nas"]);
    said(&home, &["remote", "add", "nas", "--token", &token]);
    assert!(!said(&home, &["list", "--host", "nas"]).contains("never"));
}
