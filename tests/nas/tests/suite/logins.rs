//! Who may come in, and what they may do: logins, tokens, roles.

use libtest_mimic::Trial;
use nas_sim::Release;
use serde_json::{Value, json};

use crate::client::{Client, socket};
use crate::rig::{small, test};

pub fn tests() -> Vec<Trial> {
    let mut all = Vec::new();
    for release in Release::ALL {
        all.push(test(&format!("logins::every_role::{release:?}"), move || {
            Box::pin(every_role(release))
        }));
    }
    all.push(test("logins::roles", || Box::pin(roles())));
    all.push(test("logins::scram", || Box::pin(scram())));
    all.push(test("logins::second_factor", || Box::pin(second_factor())));
    all.push(test("logins::tokens", || Box::pin(tokens())));
    all.push(test("logins::shell_rights", || Box::pin(shell_rights())));
    all
}

/// Who has no role is refused each method that asks for one, and each private one; who has just
/// those that it asks for is not.
async fn every_role(release: Release) {
    let first = small(release, |_| {}).await;
    let mut root = Client::root(&first.sim).await;
    let about = root.ok("core.get_methods", json!([])).await;
    let wanted = |method: &str| -> Vec<String> {
        serde_json::from_value(about[method]["roles"].clone()).unwrap_or_default()
    };
    let methods = first.sim.methods();
    let mut sets: Vec<Vec<String>> = methods.iter().map(|m| wanted(m)).collect();
    sets.sort();
    sets.dedup();
    let mut keys = Vec::new();
    let set = small(release, |o| {
        for (n, roles) in sets.iter().enumerate() {
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            keys.push(o.add_user(&format!("user{n}"), &roles));
        }
    })
    .await;
    assert!(sets[0].is_empty() && sets.len() > 15, "{sets:?}");
    let refused = "[EACCES] Not authorized";
    for (n, key) in keys.iter().enumerate() {
        let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
        // A minute's logins are soon used up.
        set.sim.control("forgive").await.unwrap();
        client.login(&format!("user{n}"), key).await;
        for method in methods.iter().filter(|m| !m.starts_with("auth.log")) {
            let roles = wanted(method);
            // Somebody else's roles tell nothing: some hold others.
            if n > 0 && roles != sets[n] {
                continue;
            }
            let answer = client.call(method, json!([])).await;
            let no = answer.is_err_and(|e| e["data"]["reason"] == refused);
            let private = about.get(method).is_none();
            let should = private || (n == 0 && !roles.is_empty());
            // 25.04's list of methods is private, and open to all.
            if method != "core.get_methods" && !roles.contains(&"FULL_ADMIN".to_owned()) {
                assert_eq!(no, should, "{method} for {:?}", sets[n]);
            }
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
