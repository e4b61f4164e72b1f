//! What is on the wire besides traps: endpoints, certificates, files, every method.

use libtest_mimic::Trial;
use nas_sim::Release;
use serde_json::{Value, json};

use crate::client::{Client, http};
use crate::rig::{small, test};

pub fn tests() -> Vec<Trial> {
    let mut all = Vec::new();
    for release in Release::ALL {
        all.push(test(&format!("wire::endpoints::{release:?}"), move || {
            Box::pin(endpoints(release))
        }));
        all.push(test(&format!("wire::every_method_answers::{release:?}"), move || {
            Box::pin(every_method(release))
        }));
        all.push(test(&format!("wire::old_versions::{release:?}"), move || {
            Box::pin(old_versions(release))
        }));
    }
    all.push(test("wire::certificate", || Box::pin(certificate())));
    all.push(test("wire::download", || Box::pin(download())));
    all.push(test("wire::queries", || Box::pin(queries())));
    all.push(test("wire::holds_and_promotion", || Box::pin(holds())));
    all
}

async fn endpoints(release: Release) {
    let set = small(release, |_| {}).await;
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let (status, body) = http(&set.sim, &get("/api/versions")).await;
    let versions: Vec<String> = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, versions.as_slice()),
        (200, release.versions().iter().map(|v| (*v).to_owned()).collect::<Vec<_>>().as_slice())
    );
    let (status, _) = http(&set.sim, &get("/api/boot_id")).await;
    assert_eq!(status, if release == Release::V25_04 { 404 } else { 200 });
    let (status, _) = http(&set.sim, &get("/api/v99")).await;
    assert_eq!(status, 404);
    let mut client = Client::root(&set.sim).await;
    let version = client.ok("system.version", json!([])).await;
    assert_eq!(version, format!("TrueNAS-{}", release.version()));
}

/// Every method of the table is answered by somebody: none is a name only.
async fn every_method(release: Release) {
    let set = small(release, |_| {}).await;
    let mut client = Client::root(&set.sim).await;
    let methods = client.ok("core.get_methods", json!([])).await;
    let methods = methods.as_object().unwrap().clone();
    assert!(methods.len() > 80, "{}", methods.len());
    for (name, about) in &methods {
        // The first would log out, the second would wait for itself.
        if name.starts_with("auth.log") || name == "core.job_wait" {
            continue;
        }
        for params in [json!([]), json!([1]), json!(["a"]), json!([{}]), json!(["a", "b"])] {
            let answer = match client.call(name, params).await {
                Ok(id)
                    if about["job"] == true
                        && id.is_i64()
                        && name != "filesystem.put"
                        && name != "filesystem.get" =>
                {
                    client.wait(&id).await["error"].clone()
                }
                Ok(_) => Value::Null,
                Err(error) => error["data"]["reason"].clone(),
            };
            let text = answer.as_str().unwrap_or_default();
            assert!(!text.contains("is not simulated"), "{name}: {text}");
        }
    }
}

async fn old_versions(release: Release) {
    let set = small(release, |_| {}).await;
    for version in release.versions() {
        let mut client = Client::anonymous(&set.sim, &format!("/api/{version}"), true).await;
        client.login("root", &set.sim.keys[0]).await;
        client.ok("pool.dataset.query", json!([])).await;
        let methods = client.ok("core.get_methods", json!([]));
        if version >= "v25.10" {
            let methods = methods.await;
            assert_eq!(methods.get("container.query").is_some(), version == "v26.0.0", "{version}");
        }
    }
}

/// A certificate that is given is shown; one that is not there is told.
async fn certificate() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = ["chain.pem", "key.pem"].map(|f| folder.path().join(f));
    std::fs::write(&files[0], made.cert.pem()).unwrap();
    std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
    let [chain, key] = files;
    let set = small(Release::V25_10, |o| o.identity = Some((chain.clone(), key))).await;
    assert_eq!(set.sim.certificate, made.cert.pem());
    // The client trusts that one and no other.
    Client::root(&set.sim).await.ok("core.ping", json!([])).await;
    let mut options = nas_sim::Options::new(Release::V25_10, folder.path());
    let none = folder.path().join("none.pem");
    options.identity = Some((chain, none.clone()));
    let Err(text) = nas_sim::Sim::start(options, crate::rig::program()).await else {
        panic!("it starts without a key")
    };
    assert!(text.starts_with(&none.display().to_string()), "{text}");
}

async fn download() {
    let set = small(Release::V25_10, |_| {}).await;
    let mut client = Client::root(&set.sim).await;
    let link =
        client.ok("core.download", json!(["filesystem.get", ["/etc/hostname"], "name"])).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", link[1].as_str().unwrap());
    let (status, body) = http(&set.sim, request.as_bytes()).await;
    assert_eq!((status, body.as_str()), (200, "8\r\ntruenas\n\r\n0\r\n\r\n"));
    assert_eq!(client.wait(&link[0]).await["state"], "SUCCESS");
    // Once only.
    assert_eq!(http(&set.sim, request.as_bytes()).await.0, 401);
}

async fn queries() {
    let set = small(Release::V25_10, |_| {}).await;
    let mut client = Client::root(&set.sim).await;
    for (name, minute) in [("c", "3"), ("a", "1"), ("b", "2")] {
        let cron = json!([{"user": "root", "command": name, "schedule": {"minute": minute}}]);
        client.ok("cronjob.create", cron).await;
    }
    let mut query = async |filters: Value, options: Value| {
        client.ok("cronjob.query", json!([filters, options])).await
    };
    let select = |order: &str| json!({"select": ["command"], "order_by": [order]});
    assert_eq!(
        query(json!([]), select("-command")).await,
        json!([{"command": "c"}, {"command": "b"}, {"command": "a"}])
    );
    assert_eq!(query(json!([["schedule.minute", ">", "1"]]), json!({"count": true})).await, 2);
    assert_eq!(
        query(
            json!([["OR", [["command", "=", "a"], ["command", "^", "b"]]]]),
            json!({"count": true})
        )
        .await,
        2
    );
    assert_eq!(
        query(json!([["command", "in", ["a", "x"]]]), json!({"get": true})).await["command"],
        "a"
    );
    assert_eq!(
        query(
            json!([["command", "~", "[ab]"]]),
            json!({"limit": 1, "offset": 1, "select": [["schedule.minute", "m"]]})
        )
        .await,
        json!([{"m": "2"}])
    );
    assert_eq!(
        query(json!([["command", "nin", ["a"]], ["user", "!$", "x"]]), json!({"count": true}))
            .await,
        2
    );
}

async fn holds() {
    let set = small(Release::V26Beta, |_| {}).await;
    let mut client = Client::root(&set.sim).await;
    let snapshot = |v: &str, p: Value| (format!("pool.snapshot.{v}"), p);
    for (method, params) in [
        ("pool.dataset.create".to_owned(), json!([{"name": "tank/a"}])),
        snapshot("create", json!([{"dataset": "tank/a", "name": "one"}])),
        snapshot("hold", json!(["tank/a@one"])),
    ] {
        client.ok(&method, params).await;
    }
    let error = client.fails("pool.snapshot.delete", json!(["tank/a@one"])).await;
    assert_eq!(error["data"]["extra"][0][2], 16);
    client.ok("pool.snapshot.release", json!(["tank/a@one"])).await;
    client
        .ok("pool.snapshot.clone", json!([{"snapshot": "tank/a@one", "dataset_dst": "tank/b"}]))
        .await;
    // Deferred: it goes with its clone.
    client.ok("pool.snapshot.delete", json!(["tank/a@one", {"defer": true}])).await;
    client.ok("pool.dataset.promote", json!(["tank/b"])).await;
    client.ok("pool.dataset.delete", json!(["tank/a"])).await;
    assert_eq!(client.ok("pool.snapshot.query", json!([])).await, json!([]));
    let error = client.fails("pool.dataset.promote", json!(["tank/b"])).await;
    assert_eq!(error["data"]["error"], 74);
}
