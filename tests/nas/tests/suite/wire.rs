//! What is on the wire besides traps: endpoints, logins, roles, files, every method.

use libtest_mimic::Trial;
use nas_sim::Release;
use serde_json::{Value, json};

use crate::client::{Client, http, socket};
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
    all.push(test("wire::roles", || Box::pin(roles())));
    all.push(test("wire::scram", || Box::pin(scram())));
    all.push(test("wire::second_factor", || Box::pin(second_factor())));
    all.push(test("wire::tokens", || Box::pin(tokens())));
    all.push(test("wire::shell_rights", || Box::pin(shell_rights())));
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

async fn roles() {
    let mut key = String::new();
    let set = small(Release::V25_10, |o| {
        key = o.add_user("reader", &["VIRT_INSTANCE_READ", "SNAPSHOT_WRITE"])
    })
    .await;
    let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
    client.login("reader", &key).await;
    client.ok("virt.instance.query", json!([])).await;
    client.ok("pool.snapshot.query", json!([])).await;
    client.ok("pool.snapshot.create", json!([{"dataset": "tank", "name": "a"}])).await;
    for (method, params) in [
        ("virt.instance.start", json!(["dev"])),
        ("pool.snapshot.delete", json!(["tank@a"])),
        ("pool.dataset.query", json!([])),
        ("cronjob.query", json!([])),
        ("filesystem.file_receive", json!(["/mnt/tank/x", "eA=="])),
        ("core.subscribe", json!(["cronjob.query"])),
        ("core.bulk", json!(["cronjob.query", [[]]])),
    ] {
        match client.call(method, params).await {
            Err(error) => {
                assert_eq!(error["data"]["reason"], "[EACCES] Not authorized", "{method}")
            }
            Ok(id) => {
                assert_eq!(client.wait(&id).await["error"], "[EACCES] Not authorized", "{method}")
            }
        }
    }
    // Somebody else's jobs are not shown.
    let mut root = Client::root(&set.sim).await;
    root.done("core.bulk", json!(["core.ping", [[]]])).await;
    let mine = client.ok("core.get_jobs", json!([])).await;
    assert!(
        mine.as_array().unwrap().iter().all(|j| j["credentials"]["data"]["username"] == "reader")
    );
}

async fn second_factor() {
    let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let set = small(Release::V26Rc, |o| o.users[0].otp = Some(secret.into())).await;
    let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
    let login = json!([{"mechanism": "PASSWORD_PLAIN", "username": "root", "password": "root"}]);
    let answer = client.ok("auth.login_ex", login.clone()).await;
    assert_eq!(answer, json!({"response_type": "OTP_REQUIRED", "username": "root"}));
    let code = |code: &str| json!([{"mechanism": "OTP_TOKEN", "otp_token": code}]);
    assert_eq!(client.ok("auth.login_ex", code("000000")).await["response_type"], "AUTH_ERR");
    // That ended the attempt.
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        nas_sim::totp(secret, since.as_millis() as i64).unwrap()
    };
    assert_eq!(client.ok("auth.login_ex", code(&now())).await["response_type"], "AUTH_ERR");
    let mut answer = json!(null);
    // A code may run out between here and there.
    for _ in 0..3 {
        client.ok("auth.login_ex", login.clone()).await;
        answer = client.ok("auth.login_ex_continue", code(&now())).await;
        if answer["response_type"] == "SUCCESS" {
            break;
        }
    }
    assert_eq!(
        (&answer["response_type"], &answer["authenticator"]),
        (&json!("SUCCESS"), &json!("LEVEL_2"))
    );
    // Thirty days later it is over.
    client.ok("system.info", json!([])).await;
    set.sim.control("skew 2592001000").await.unwrap();
    assert_eq!(client.fails("system.info", json!([])).await["data"]["error"], 207);
}

async fn tokens() {
    let set = small(Release::V26Rc, |_| {}).await;
    let mut root = Client::root(&set.sim).await;
    let token = root.ok("auth.generate_token", json!([300, {}, true, true])).await;
    let bound = root.ok("auth.generate_token", json!([300, {"job": 1}])).await;
    let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
    let login = |t: &Value| json!([{"mechanism": "TOKEN_PLAIN", "token": t, "login_options": {"user_info": false, "reconnect_token": true}}]);
    assert_eq!(client.ok("auth.login_ex", login(&bound)).await["response_type"], "AUTH_ERR");
    let answer = client.ok("auth.login_ex", login(&token)).await;
    assert_eq!(answer["response_type"], "SUCCESS");
    assert_eq!(client.ok("auth.login_ex", login(&token)).await["response_type"], "AUTH_ERR");
    assert_eq!(
        client.ok("auth.login_ex", login(&answer["reconnect_token"])).await["response_type"],
        "SUCCESS"
    );
    assert_eq!(client.ok("auth.logout", json!([])).await, true);
    assert_eq!(client.fails("system.info", json!([])).await["data"]["error"], 207);
    // The shell wants a token of its own, too.
    use futures_util::{SinkExt, StreamExt};
    let mut shell = socket(&set.sim, "/websocket/shell", true).await;
    shell.send(tokio_tungstenite::tungstenite::Message::text(r#"{"token":"x"}"#)).await.unwrap();
    let answer = shell.next().await.unwrap().unwrap();
    let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    assert_eq!(
        answer,
        json!({"msg": "failed", "error": {"error": 207, "reason": "Invalid token"}})
    );
}

/// On 26 a container's shell asks for a role, beside the right to have a shell at all.
async fn shell_rights() {
    use futures_util::{SinkExt, StreamExt};
    let mut keys = Vec::new();
    let set = small(Release::V26Rc, |o| {
        keys = ["CONTAINER_READ", "CONTAINER_WRITE"].map(|r| o.add_user(r, &[r])).into();
        o.users.iter_mut().for_each(|u| u.web_shell = true);
    })
    .await;
    for (name, key) in ["CONTAINER_READ", "CONTAINER_WRITE"].iter().zip(&keys) {
        let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
        client.login(name, key).await;
        let token = client.ok("auth.generate_token", json!([])).await;
        let mut shell = socket(&set.sim, "/websocket/shell", true).await;
        let hello = json!({"token": token, "options": {"container_id": 1}}).to_string();
        shell.send(tokio_tungstenite::tungstenite::Message::text(hello)).await.unwrap();
        let answer = shell.next().await.unwrap().unwrap();
        let refused = json!({"msg": "failed", "error": {"error": 13, "reason": "Not authorized"}});
        match serde_json::from_str::<Value>(answer.to_text().unwrap_or_default()) {
            Ok(said) => assert_eq!((*name, said), ("CONTAINER_READ", refused)),
            // There is no such container: the connection closes.
            Err(_) => assert_eq!((*name, answer.is_close()), ("CONTAINER_WRITE", true)),
        }
    }
}

async fn scram() {
    use base64::Engine as _;
    use ring::{digest, hmac, pbkdf2};
    let set = small(Release::V26Rc, |_| {}).await;
    let (id, secret) = set.sim.keys[0].split_once('-').unwrap();
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
    let bare = format!("n=root:{id},r=clientnonce");
    let say = |kind: &str, text: &str| json!([{"mechanism": "SCRAM", "scram_type": kind, "rfc_str": text}]);
    let first =
        client.ok("auth.login_ex", say("CLIENT_FIRST_MESSAGE", &format!("n,,{bare}"))).await;
    assert_eq!(first["scram_type"], "SERVER_FIRST_RESPONSE");
    let first = first["rfc_str"].as_str().unwrap().to_owned();
    let part = |key: &str| first.split(',').find_map(|p| p.strip_prefix(key)).unwrap().to_owned();
    let mac = |key: &[u8], text: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), text).as_ref().to_vec()
    };
    let mut salted = [0; 64];
    let rounds = std::num::NonZeroU32::new(part("i=").parse().unwrap()).unwrap();
    let salt = base64.decode(part("s=")).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds, &salt, secret.as_bytes(), &mut salted);
    let key = mac(&salted, b"Client Key");
    let without = format!("c=biws,r={}", part("r="));
    let all = format!("{bare},{first},{without}");
    let signature = mac(digest::digest(&digest::SHA512, &key).as_ref(), all.as_bytes());
    let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let last = format!("{without},p={}", base64.encode(proof));
    let answer = client.ok("auth.login_ex", say("CLIENT_FINAL_MESSAGE", &last)).await;
    let server = format!("v={}", base64.encode(mac(&mac(&salted, b"Server Key"), all.as_bytes())));
    assert_eq!(
        (&answer["scram_type"], &answer["rfc_str"]),
        (&json!("SERVER_FINAL_RESPONSE"), &json!(server))
    );
    client.ok("system.info", json!([])).await;
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
