//! Traps 1 to 22: the wire, jobs, logins.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nas_sim::{Release, Sim};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::trap::{Seen, wire, with};

pub fn tests() -> Vec<Trial> {
    use Release::{V25_04, V25_10, V26Beta, V26Rc};
    let mut all = vec![
        wire(7, V25_10, |s| Box::pin(blocking_jobs(s))),
        wire(16, V25_10, |s| Box::pin(rate_limit(s))),
        wire(19, V25_04, |s| Box::pin(ping(s))),
        with(20, V25_04, |o| o.idle = Duration::from_secs(1), |s| Box::pin(idle(s))),
        with(20, V25_10, |o| o.idle = Duration::from_secs(1), |s| Box::pin(idle(s))),
        wire(21, V25_10, |s| Box::pin(gone(s, "container.query"))),
        wire(21, V26Beta, |s| Box::pin(gone(s, "virt.instance.query"))),
        wire(22, V25_10, |s| Box::pin(private(s, "/api/v25.04.0"))),
        wire(22, V26Rc, |s| Box::pin(private(s, "/api/v25.10.0"))),
        wire(3, V25_10, |s| Box::pin(fails_at_once(s))),
        wire(17, V26Rc, |s| Box::pin(wrong_login(s))),
        wire(18, V25_10, |s| Box::pin(plain_text(s))),
        wire(18, V26Rc, |s| Box::pin(plain_text(s))),
    ];
    type See = for<'a> fn(&'a Sim) -> Seen<'a>;
    let everywhere: [(u8, See); 12] = [
        (1, |s| Box::pin(added_first(s))),
        (2, |s| Box::pin(success_twice(s))),
        (4, |s| Box::pin(job_wait(s))),
        (5, |s| Box::pin(restart(s))),
        (6, |s| Box::pin(jobs_survive(s))),
        (8, |s| Box::pin(not_found(s))),
        (9, |s| Box::pin(no_match(s))),
        (10, |s| Box::pin(strict(s))),
        (11, |s| Box::pin(too_many(s))),
        (13, |s| Box::pin(binary(s))),
        (14, |s| Box::pin(concurrent(s))),
        (15, |s| Box::pin(silent(s))),
    ];
    for release in [V25_04, V26Rc] {
        all.extend(everywhere.iter().map(|(number, see)| wire(*number, release, *see)));
    }
    all.push(wire(12, V25_10, |s| Box::pin(long(s))));
    all
}

/// A job that takes a moment and succeeds.
const BULK: (&str, fn() -> Value) = ("core.bulk", || json!(["system.version", [[], []]]));

async fn added_first(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    client.ok("core.subscribe", json!(["core.get_jobs"])).await;
    let id = client.start(BULK.0, BULK.1()).await;
    loop {
        let message = client.next().await.unwrap();
        if message["id"] == id {
            return false;
        }
        if message["params"]["msg"] == "added" {
            assert_eq!(message["params"]["fields"]["method"], BULK.0);
            return true;
        }
    }
}

async fn success_twice(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let first = client.ok(BULK.0, BULK.1()).await;
    client.wait(&first).await;
    client.ok("core.subscribe", json!(["core.get_jobs"])).await;
    let id = client.ok("core.job_wait", json!([first])).await;
    let mut ends = Vec::new();
    client.ok("system.version", json!([])).await;
    loop {
        let message = match client.events.pop_front() {
            Some(message) => message,
            None => match client.within(Duration::from_millis(700)).await {
                Some(message) => message,
                None => break,
            },
        };
        let fields = &message["params"]["fields"];
        if fields["id"] == id && fields["state"] == "SUCCESS" {
            ends.push(fields.clone());
        }
    }
    assert!(!ends.is_empty());
    ends.len() == 2 && ends[0]["logs_excerpt"].is_null() && ends[0]["progress"]["percent"] == 100
}

async fn fails_at_once(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let create = json!([{"name": "dev", "image": "debian/12"}]);
    match client.call("virt.instance.create", create).await {
        Ok(id) => {
            // No daemon: it fails in the job.
            assert_eq!(client.wait(&id).await["state"], "FAILED");
            true
        }
        Err(_) => false,
    }
}

async fn job_wait(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let first = client.ok(BULK.0, BULK.1()).await;
    let second = client.ok("core.job_wait", json!([first])).await;
    if !second.is_i64() {
        return false;
    }
    assert_ne!(first, second);
    client.wait(&second).await["result"].is_array()
}

async fn restart(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let first = client.ok(BULK.0, BULK.1()).await;
    client.wait(&first).await;
    let token = client.ok("auth.generate_token", json!([])).await;
    sim.control("restart").await.unwrap();
    assert_eq!(client.closed().await, 1001);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut client = Client::anonymous(sim, "/api/current", true).await;
    let valid = client.ok("auth.login_with_token", json!([token])).await;
    let mut client = Client::root(sim).await;
    let rows = client.ok("core.get_jobs", json!([])).await;
    let again = client.ok(BULK.0, BULK.1()).await;
    rows == json!([]) && again == 1 && valid == json!(false)
}

/// A job that goes on until its output is fetched.
async fn waiting_job(client: &mut Client) -> Value {
    let download = json!(["filesystem.get", ["/etc/hostname"], "x"]);
    client.ok("core.download", download).await[0].clone()
}

async fn jobs_survive(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = waiting_job(&mut client).await;
    client.ok("core.subscribe", json!(["core.get_jobs"])).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut client = Client::root(sim).await;
    let rows = client.ok("core.get_jobs", json!([[["id", "=", id]]])).await;
    // Nothing is told to the new connection.
    client.ok(BULK.0, BULK.1()).await;
    assert!(client.within(Duration::from_millis(300)).await.is_none());
    rows[0]["state"] == "RUNNING"
}

async fn blocking_jobs(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    client.ok("core.set_options", json!([{"legacy_jobs": false}])).await;
    let result = client.ok(BULK.0, BULK.1()).await;
    if let Some(rows) = result.as_array() {
        assert_eq!(rows.len(), 2);
    }
    result.is_array()
}

async fn not_found(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let error = client.fails("cronjob.get_instance", json!([77])).await;
    error["code"] == -32602
        && error["data"]["error"] == 22
        && error["data"]["extra"] == json!([[null, "CronJob 77 does not exist", 2]])
}

async fn no_match(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let query = json!([[["id", "=", 77]], {"get": true}]);
    match client.call("cronjob.query", query).await {
        Ok(value) => {
            assert!(value.is_null());
            false
        }
        Err(error) => error["code"] == -32001 && error["data"]["reason"] == "MatchNotFound()",
    }
}

async fn strict(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let mut seen = Vec::new();
    for (params, attribute, text) in [
        (
            json!([{"command": "true", "user": "root", "bogus": 1}]),
            "data.bogus",
            "Extra inputs are not permitted",
        ),
        (
            json!([{"command": "true", "user": "root", "stdout": 1}]),
            "data.stdout",
            "Input should be a valid boolean",
        ),
        (
            json!([{"command": "x".repeat(1025), "user": "root"}]),
            "data.command",
            "String should have at most 1024 characters",
        ),
        (json!([{"user": "root"}]), "data.command", "Field required"),
    ] {
        let error = client.call("cronjob.create", params).await.err().unwrap_or_default();
        seen.push(
            error["code"] == -32602 && error["data"]["extra"] == json!([[attribute, text, 22]]),
        );
    }
    let all = seen.iter().all(|s| *s);
    assert!(all || seen.iter().all(|s| !*s), "{seen:?}");
    all
}

async fn too_many(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    match client.call("system.version", json!([1])).await {
        Ok(_) => false,
        Err(error) => {
            let text = "Too many arguments (expected 0, found 1)";
            error["data"]["extra"] == json!([["", text, 22]])
        }
    }
}

async fn long(sim: &Sim) -> bool {
    let text = |n: usize, method: &str| {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": ["x".repeat(n)]});
        Message::text(call.to_string())
    };
    let mut client = Client::anonymous(sim, "/api/current", true).await;
    client.send(text(8200, "core.ping")).await;
    let anonymous = tokio::time::timeout(Duration::from_millis(500), client.closed()).await;
    let mut client = Client::root(sim).await;
    client.send(text(65_600, "core.ping")).await;
    let known = tokio::time::timeout(Duration::from_millis(500), client.closed()).await;
    // Files may be longer, and the connection stays.
    let mut client = Client::root(sim).await;
    client.send(text(100_000, "filesystem.file_receive")).await;
    assert!(client.next().await.is_some());
    let mut client = Client::root(sim).await;
    client.send(text(2_097_152, "filesystem.file_receive")).await;
    let longest = tokio::time::timeout(Duration::from_millis(500), client.closed()).await;
    (anonymous, known, longest) == (Ok(1007), Ok(1009), Ok(1009))
}

async fn binary(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let call = json!({"jsonrpc": "2.0", "id": 9, "method": "core.ping", "params": []});
    client.send(Message::text(json!([call]).to_string())).await;
    let batch = client.next().await.unwrap();
    let refused = batch["error"]["code"] == -32700 && batch["id"].is_null();
    client.send(Message::binary(call.to_string().into_bytes())).await;
    let closed = tokio::time::timeout(Duration::from_millis(500), client.closed()).await;
    refused && closed == Ok(1003)
}

async fn concurrent(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    sim.control("latency 400").await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..21 {
        ids.push(client.start("system.version", json!([])).await);
    }
    let mut refused = 0;
    for id in ids {
        if let Err(error) = client.reply(id).await {
            assert_eq!(error["code"], -32000, "{error}");
            refused += 1;
        }
    }
    sim.control("latency 0").await.unwrap();
    refused == 1
}

async fn silent(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let call = json!({"jsonrpc": "2.0", "method": "no.such", "params": []});
    client.send(Message::text(call.to_string())).await;
    let answered = client.within(Duration::from_millis(300)).await;
    answered.is_none()
}

async fn rate_limit(sim: &Sim) -> bool {
    let mut client = Client::anonymous(sim, "/api/current", true).await;
    let error = client.fails("system.version", json!([])).await;
    assert_eq!(error["data"]["error"], 207);
    for _ in 0..20 {
        client.ok("core.ping", json!([])).await;
    }
    let started = Instant::now();
    match client.call("core.ping", json!([])).await {
        Ok(_) => false,
        Err(error) => {
            error["data"]["error"] == 16 && started.elapsed() > Duration::from_millis(900)
        }
    }
}

async fn wrong_login(sim: &Sim) -> bool {
    let mut client = Client::anonymous(sim, "/api/current", true).await;
    let login = json!([{"mechanism": "PASSWORD_PLAIN", "username": "root", "password": "wrong"}]);
    let started = Instant::now();
    match client.call("auth.login_ex", login).await {
        Ok(answer) => {
            answer["response_type"] == "AUTH_ERR" && started.elapsed() > Duration::from_millis(900)
        }
        Err(_) => false,
    }
}

async fn plain_text(sim: &Sim) -> bool {
    let login = json!([{"mechanism": "API_KEY_PLAIN", "username": "root", "api_key": sim.keys[0]}]);
    let mut client = Client::anonymous(sim, "/api/current", false).await;
    let first = client.ok("auth.login_ex", login.clone()).await["response_type"].clone();
    let mut client = Client::anonymous(sim, "/api/current", true).await;
    let second = client.ok("auth.login_ex", login).await["response_type"].clone();
    first == "EXPIRED" && second != "SUCCESS"
}

async fn ping(sim: &Sim) -> bool {
    let mut client = Client::anonymous(sim, "/api/current", true).await;
    client.call("core.ping", json!([])).await.is_err_and(|e| e["data"]["error"] == 207)
}

async fn idle(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    tokio::time::timeout(Duration::from_secs(3), client.closed()).await == Ok(1006)
}

async fn gone(sim: &Sim, method: &str) -> bool {
    let mut client = Client::root(sim).await;
    let error = client.fails(method, json!([])).await;
    error["code"] == -32601 && error.get("data").is_none()
}

async fn private(sim: &Sim, path: &str) -> bool {
    let mut client = Client::anonymous(sim, path, true).await;
    client.login("root", &sim.keys[0]).await;
    let file = json!(["/mnt/tank/x", "eA=="]);
    client.call("filesystem.file_receive", file).await.is_err_and(|e| e["data"]["error"] == 201)
}
