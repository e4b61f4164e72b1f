//! Traps 23 and 36 to 49, those of them that show without containers: the pool, files, the frame.

use libtest_mimic::Trial;
use nas_sim::{Release, Sim};
use serde_json::{Value, json};

use crate::client::{Client, http};
use crate::trap::wire;

pub fn tests() -> Vec<Trial> {
    use Release::{V25_04, V25_10, V26Beta, V26Rc};
    let mut all = vec![
        wire(23, V25_04, |s| Box::pin(stop_without_time(s))),
        wire(23, V25_10, |s| Box::pin(stop_without_time(s))),
        wire(36, V26Rc, |s| Box::pin(protected(s))),
        wire(37, V25_10, |s| Box::pin(hidden(s, "tank/.ix-virt/containers"))),
        wire(37, V26Beta, |s| Box::pin(hidden(s, "tank/.truenas_containers/containers"))),
        wire(38, V25_04, |s| Box::pin(exists(s, "zfs", false))),
        wire(38, V25_10, |s| Box::pin(exists(s, "pool", false))),
        wire(38, V26Rc, |s| Box::pin(exists(s, "pool", true))),
        wire(39, V25_04, |s| Box::pin(newer(s, "zfs", false))),
        wire(39, V26Rc, |s| Box::pin(newer(s, "pool", true))),
        wire(40, V25_04, |s| Box::pin(txg(s, "zfs"))),
        wire(40, V25_10, |s| Box::pin(txg(s, "pool"))),
        wire(42, V25_10, |s| Box::pin(links(s, false))),
        wire(42, V26Rc, |s| Box::pin(links(s, true))),
        wire(44, V25_10, |s| Box::pin(upload(s))),
    ];
    for release in [V25_04, V25_10, V26Beta, V26Rc] {
        all.push(wire(43, release, |s| Box::pin(mkdir(s))));
        all.push(wire(48, release, |s| Box::pin(dates(s))));
    }
    all.push(wire(49, V25_10, |s| Box::pin(trace(s, true))));
    all.push(wire(49, V26Beta, |s| Box::pin(trace(s, false))));
    all
}

async fn stop_without_time(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let text = "Value error, Timeout should be set if force is disabled";
    let refused = client.call("virt.instance.stop", json!(["dev", {}])).await;
    refused.is_err_and(|e| e["data"]["extra"] == json!([["", text, 22]]))
}

async fn protected(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let path = "tank/.truenas_containers/containers";
    let create = json!([{"dataset": path, "name": "a"}]);
    let error = client.call("pool.snapshot.create", create).await.err().unwrap_or_default();
    let refused = error["code"] == -32602
        && error["data"]["extra"][0][1] == format!("'{path}' is a protected path.")
        && error["data"]["extra"][0][2] == 13;
    // The pool itself may be snapshotted with everything in it.
    let all = json!([{"dataset": "tank", "name": "all", "recursive": true}]);
    client.ok("pool.snapshot.create", all).await;
    refused
}

async fn hidden(sim: &Sim, path: &str) -> bool {
    let mut client = Client::root(sim).await;
    let rows = client.ok("pool.dataset.query", json!([[["id", "=", path]]])).await;
    client.ok("pool.snapshot.create", json!([{"dataset": path, "name": "a"}])).await;
    rows == json!([])
}

async fn exists(sim: &Sim, family: &str, new: bool) -> bool {
    let mut client = Client::root(sim).await;
    let (create, params) =
        (format!("{family}.snapshot.create"), json!([{"dataset": "tank", "name": "a"}]));
    client.ok(&create, params.clone()).await;
    let error = client.fails(&create, params).await;
    if new {
        error["code"] == -32602 && error["data"]["extra"][0][2] == 17
    } else {
        error["code"] == -32001 && error["data"]["error"] == 17
    }
}

async fn newer(sim: &Sim, family: &str, new: bool) -> bool {
    let mut client = Client::root(sim).await;
    client.ok("pool.dataset.create", json!([{"name": "tank/a"}])).await;
    for name in ["a", "b"] {
        let create = json!([{"dataset": "tank/a", "name": name}]);
        client.ok(&format!("{family}.snapshot.create"), create).await;
    }
    let rollback = format!("{family}.snapshot.rollback");
    let error = client.fails(&rollback, json!(["tank/a@a"])).await;
    let reason = error["data"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("more recent snapshots or bookmarks exist"));
    client.ok(&rollback, json!(["tank/a@a", {"recursive": true}])).await;
    if new {
        error["data"]["error"] == 22 && reason.starts_with("Cannot rollback")
    } else {
        error["data"]["error"] == 14
    }
}

async fn txg(sim: &Sim, family: &str) -> bool {
    let mut client = Client::root(sim).await;
    let create = json!([{"dataset": "tank", "name": "a"}]);
    let row = client.ok(&format!("{family}.snapshot.create"), create).await;
    // 25.10 alone does not know `suspend_vms`.
    let suspend = json!([{"dataset": "tank", "name": "b", "suspend_vms": false}]);
    let accepted = client.call(&format!("{family}.snapshot.create"), suspend).await.is_ok();
    assert_eq!(accepted, family == "zfs");
    row["createtxg"].is_string()
}

async fn links(sim: &Sim, refused: bool) -> bool {
    let mut client = Client::root(sim).await;
    let folder = sim.root().join("mnt/tank");
    std::os::unix::fs::symlink("/etc/target", folder.join("link")).unwrap();
    let written = client.call("filesystem.file_receive", json!(["/mnt/tank/link", "aGk="])).await;
    // Nothing can be written that is empty.
    client.fails("filesystem.file_receive", json!(["/mnt/tank/empty", ""])).await;
    // A link leads to the NAS' own root, not to this machine's.
    let inside = sim.root().join("etc/target").exists();
    assert!(!std::path::Path::new("/etc/target").exists());
    match written {
        Ok(_) => inside && !refused,
        Err(error) => {
            assert!(
                error["data"]["reason"].as_str().unwrap_or_default().starts_with("[Errno 40]"),
                "{error}"
            );
            refused && !inside
        }
    }
}

async fn mkdir(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let make = |path: &str| json!([{"path": path, "options": {"mode": "750"}}]);
    let made = client.ok("filesystem.mkdir", make("/mnt/tank/a")).await;
    assert_eq!(made["mode"].as_u64().unwrap_or(0) & 0o777, 0o750);
    assert_eq!(client.fails("filesystem.mkdir", make("/mnt/tank/a")).await["data"]["error"], 17);
    let deep = client.call("filesystem.mkdir", make("/mnt/tank/b/c")).await.is_err();
    let outside = client.call("filesystem.mkdir", make("/etc/a")).await;
    deep && outside.is_err_and(|e| e["data"]["error"] == 1)
}

/// A form of these parts, to `/_upload`.
pub fn form(key: &str, parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (name, text) in parts {
        body += &format!(
            "--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n{text}\r\n"
        );
    }
    body += "--XX--\r\n";
    let head = format!(
        "POST /_upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

async fn upload(sim: &Sim) -> bool {
    let data =
        json!({"method": "filesystem.put", "params": ["/mnt/tank/up", {"mode": 384}]}).to_string();
    let (status, body) =
        http(sim, &form(&sim.keys[0], &[("data", &data), ("file", "hello")])).await;
    assert_eq!(status, 200, "{body}");
    let id = serde_json::from_str::<Value>(&body).unwrap_or_default()["job_id"].clone();
    let mut client = Client::root(sim).await;
    assert_eq!(client.wait(&id).await["state"], "SUCCESS");
    assert_eq!(std::fs::read_to_string(sim.root().join("mnt/tank/up")).unwrap(), "hello");
    let (status, _) = http(sim, &form(&sim.keys[0], &[("file", "hello"), ("data", &data)])).await;
    status == 405
}

async fn dates(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let info = client.ok("system.info", json!([])).await;
    info["datetime"]["$date"].as_i64().is_some_and(|ms| ms % 1000 == 0)
}

async fn trace(sim: &Sim, frames: bool) -> bool {
    let mut client = Client::root(sim).await;
    let error = client.fails("cronjob.get_instance", json!([1])).await;
    let trace = &error["data"]["trace"];
    assert!(
        trace["class"].is_string() && trace["formatted"].is_string() && trace["repr"].is_string()
    );
    trace.get("frames").is_some() == frames
}
