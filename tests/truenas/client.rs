//! Coming in, calling, being told no.

use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::sandbox;
use sandscript::transport::jsonrpc::{Address, Client, Login, NasConfig, RpcError};
use sandscript::transport::{Fingerprint, Trust};
use serde_json::{Value, json};

use crate::rig::{each, small, until};

const ALL: &[Release] = &Release::ALL;
const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        each("login", ALL, |release| Box::pin(logins(release))),
        each("key_stays_here", &[Release::V26Beta, Release::V26Rc], |release| {
            Box::pin(key_stays_here(release))
        }),
        each("one_time_code", ALL, |release| Box::pin(one_time_code(release))),
        each("who_may_not", ALL, |release| Box::pin(who_may_not(release))),
        each("standby", ALL, |release| Box::pin(standby(release))),
        each("certificates", ONE, |release| Box::pin(certificates(release))),
        each("plain_text_only_here", ONE, |release| Box::pin(plain_text_only_here(release))),
        each("refusals", ALL, |release| Box::pin(refusals(release))),
        each("many_calls_at_once", ALL, |release| Box::pin(many_calls_at_once(release))),
        each("too_long", ALL, |release| Box::pin(too_long(release))),
        each("large_answer", ALL, |release| Box::pin(large_answer(release))),
        each("silence", ONE, |release| Box::pin(silence(release))),
        each("restart", ALL, |release| Box::pin(restart(release))),
        each("deadline", ONE, |release| Box::pin(deadline(release))),
        each("events", ALL, |release| Box::pin(events(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn logins(release: Release) {
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    assert_eq!(client.versions().major(), if release.is_26() { 26 } else { 25 });
    assert_eq!(client.call("core.ping", json!([])).await.unwrap(), "pong");
    let me = client.read("auth.me", json!([])).await.unwrap();
    assert_eq!(me["pw_name"], "root");
    let password = Login::Password { user: "root".into(), password: "root".into(), otp: None };
    Client::open(nas.config(password)).await.unwrap();
    let token = client.call("auth.generate_token", json!([300, {}, true, false])).await.unwrap();
    let token = Login::Token(token.as_str().unwrap().to_owned());
    Client::open(nas.config(token)).await.unwrap();
}

/// A NAS that can do without is not told the key.
async fn key_stays_here(release: Release) {
    let nas = small(release, |o| o.transcript = Some(o.state.with_extension("said"))).await;
    let client = nas.client().await;
    client.call("core.ping", json!([])).await.unwrap();
    let secret = nas.sim.keys[0].split_once('-').unwrap().1.to_owned();
    let mut said = String::new();
    for entry in std::fs::read_dir(nas.folder.path().join("state.said")).unwrap() {
        said += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    assert!(said.contains("CLIENT_FINAL_MESSAGE"), "{said}");
    assert!(!said.contains(&secret));
    let wrong = Login::ApiKey { user: "root".into(), key: format!("1-{}", "x".repeat(64)) };
    let why = nas.refuses(wrong).await;
    assert_eq!(
        why,
        "NAS does not take an API key of root: look at the key, whether it is that user's, and whether it has expired or was revoked (Credentials > Users > API Keys)"
    );
}

async fn one_time_code(release: Release) {
    const SECRET: &str = "JBSWY3DPEHPK3PXP";
    let nas = small(release, |o| o.users[0].otp = Some(SECRET.into())).await;
    let password =
        |otp: Option<String>| Login::Password { user: "root".into(), password: "root".into(), otp };
    let code = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        nas_sim::totp(SECRET, now.as_millis() as i64).unwrap()
    };
    // The code may be another one a moment later.
    let mut entered = false;
    for _ in 0..3 {
        entered = entered || Client::open(nas.config(password(Some(code())))).await.is_ok();
    }
    assert!(entered);
    let why = nas.refuses(password(Some("1".into()))).await;
    assert_eq!(why, "NAS does not take the one-time code of root");
    if !release.is_26() {
        let why = nas.refuses(password(None)).await;
        assert_eq!(why, "NAS asks for a one-time code: use an API key instead, which needs none");
    }
}

async fn who_may_not(release: Release) {
    let nas = small(release, |o| {
        o.add_user("late", &["FULL_ADMIN"]);
        o.add_user("shut", &["FULL_ADMIN"]);
        o.keys[1].expires = Some(1);
        o.users[2].denied = true;
    })
    .await;
    let key =
        |user: &str, at: usize| Login::ApiKey { user: user.into(), key: nas.sim.keys[at].clone() };
    let unknown = |user: &str| {
        format!(
            "NAS does not take an API key of {user}: look at the key, whether it is that user's, and whether it has expired or was revoked (Credentials > Users > API Keys)"
        )
    };
    let why = nas.refuses(key("late", 1)).await;
    match release.is_26() {
        // A proof is not told apart from a wrong one.
        true => assert_eq!(why, unknown("late")),
        false => assert_eq!(
            why,
            "NAS says that the key has expired or was revoked: make another one there \
             (Credentials > Users > API Keys)"
        ),
    }
    // 25.x does not say that it is the account; 26 does.
    match release.is_26() {
        true => {
            let password = Login::Password {
                user: "shut".into(),
                password: "shut".into(),
                otp: Some("none".into()),
            };
            assert_eq!(
                nas.refuses(password).await,
                "NAS does not let this account use its API: give it a role (Credentials > Groups > Privileges)"
            );
        }
        false => assert_eq!(nas.refuses(key("shut", 2)).await, unknown("shut")),
    }
    assert_eq!(nas.refuses(key("root", 1)).await, unknown("root"));
    let config = nas.config(key("root", 1));
    let error: sandbox::Error = Client::open(config).await.err().unwrap().into();
    assert!(matches!(error, sandbox::Error::Auth { .. }));
}

async fn standby(release: Release) {
    let active = small(release, |o| o.loopback_is_local = true).await;
    let secret = active.sim.keys[0].split_once('-').unwrap().1.to_owned();
    let standby = async |urls: Vec<String>, local: bool| {
        small(release, |o| {
            o.redirect = urls;
            o.keys[0].secret.clone_from(&secret);
            o.loopback_is_local = local;
        })
        .await
    };
    // Who proves that it knows the key is let in here; passwords are sent on.
    let password = || Login::Password {
        user: "root".into(),
        password: "root".into(),
        otp: release.is_26().then(|| "none".into()),
    };
    let plain = standby(vec![format!("http://{}", active.sim.address)], true).await;
    let address = Address::parse(&format!("http://{}", plain.sim.address)).unwrap();
    let config = NasConfig::new(address, Trust::System, password());
    let client = Client::open(config).await.unwrap();
    client.call("cronjob.create", json!([{"user": "root", "command": "true"}])).await.unwrap();
    let direct = Address::parse(&format!("http://{}", active.sim.address)).unwrap();
    let direct = NasConfig::new(direct, Trust::System, password());
    let direct = Client::open(direct).await.unwrap();
    let made = direct.read("cronjob.query", json!([])).await.unwrap();
    assert_eq!(made.as_array().unwrap().len(), 1);
    // Each has a certificate of its own, and only one is pinned.
    let pinned = standby(vec![format!("https://{}", active.sim.address)], false).await;
    let error = Client::open(pinned.config(password())).await.err().unwrap();
    assert!(matches!(error, RpcError::Untrusted(_)), "{error:?}");
    // Nobody is sent from TLS to plain text.
    let plain = standby(vec![format!("http://{}", active.sim.address)], false).await;
    let why = plain.refuses(password()).await;
    assert!(why.starts_with("NAS sends its clients to 'http://"), "{why}");
}

async fn certificates(release: Release) {
    let nas = small(release, |_| {}).await;
    let address = Address::parse(&nas.sim.address.to_string()).unwrap();
    let open = async |trust: Trust| {
        let config = NasConfig::new(address.clone(), trust, nas.key());
        Client::open(config).await.err().unwrap()
    };
    let error = open(Trust::System).await;
    let fingerprint = nas.sim.fingerprint.replace(':', "").to_lowercase();
    let text = nas.without_place(&error).replace(&fingerprint, "SHOWN");
    assert_eq!(
        text,
        "NAS is not trusted: its certificate can't be verified: UnknownIssuer; \
         it shows one with the fingerprint SHOWN"
    );
    assert!(matches!(error, RpcError::Untrusted(_)));
    let error = open(Trust::Fingerprint(Fingerprint::of(b"another"))).await;
    let text = nas.without_place(&error).replace(&fingerprint, "SHOWN");
    let why = "NAS is not trusted: its certificate is another one than the one that is known: \
               it has the fingerprint SHOWN, and ";
    assert!(text.starts_with(why), "{text}");
}

async fn plain_text_only_here(release: Release) {
    let nas = small(release, |o| o.loopback_is_local = true).await;
    let address = Address::parse(&format!("ws://{}", nas.sim.address)).unwrap();
    let client = Client::open(NasConfig::new(address, Trust::System, nas.key())).await.unwrap();
    assert_eq!(client.call("core.ping", json!([])).await.unwrap(), "pong");
    for text in ["ws://192.0.2.1", "http://nas.lan"] {
        assert!(matches!(Address::parse(text), Err(sandbox::Error::InvalidInput { .. })));
    }
    // A tunnel begins here, and ends elsewhere than on the NAS.
    let nas = small(release, |_| {}).await;
    let address = Address::parse(&format!("http://{}", nas.sim.address)).unwrap();
    let opened = Client::open(NasConfig::new(address, Trust::System, nas.key())).await;
    let error = opened.map(drop).unwrap_err().to_string();
    assert!(error.contains("a NAS revokes one that it is shown in plain text"), "{error}");
}

async fn refusals(release: Release) {
    let nas = small(release, |o| drop(o.add_user("reader", &["VIRT_INSTANCE_READ"]))).await;
    let client = nas.client().await;
    let fails = async |method: &str, params| client.call(method, params).await.unwrap_err();
    let error = fails("cronjob.get_instance", json!([77])).await;
    assert!(error.refusal().unwrap().is_missing(), "{error:?}");
    assert_eq!(error.to_string(), "CronJob 77 does not exist");
    let error = fails("no.such", json!([])).await;
    assert!(error.refusal().unwrap().is_no_method(), "{error:?}");
    let error = fails("cronjob.get_instance", json!(["x"])).await;
    let refusal = error.refusal().unwrap();
    assert!(refusal.is(22) && !refusal.is_missing() && !refusal.is_denied(), "{error:?}");
    let reader = Login::ApiKey { user: "reader".into(), key: nas.sim.keys[1].clone() };
    let reader = Client::open(nas.config(reader)).await.unwrap();
    let error = reader.call("cronjob.delete", json!([1])).await.unwrap_err();
    assert!(error.refusal().unwrap().is_denied(), "{error:?}");
    assert!(matches!(sandbox::Error::from(error), sandbox::Error::Auth { .. }));
    // What passes by itself is asked again, where it only looks.
    nas.sim.control("fail cronjob.query=EBUSY:2").await.unwrap();
    assert_eq!(client.read("cronjob.query", json!([])).await.unwrap(), json!([]));
}

async fn many_calls_at_once(release: Release) {
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    let calls = (0..200).map(|_| client.call("core.ping", json!([])));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), "pong");
    }
}

/// What the server would cut the line for is never sent: as many characters as it takes are, one more is not.
async fn too_long(release: Release) {
    let nas = small(release, |o| o.transcript = Some(o.state.with_extension("said"))).await;
    let client = nas.client().await;
    let query: fn(String) -> Value = |text| json!([[["command", "=", text]]]);
    let file: fn(String) -> Value = |text| json!(["/mnt/tank/f", text, {}]);
    for (method, limit, params) in
        [("cronjob.query", 65_536, query), ("filesystem.file_receive", 2_097_152, file)]
    {
        // Characters count, not bytes.
        let call = async |count: usize| client.call(method, params("ü".repeat(count))).await;
        let error = call(limit).await.unwrap_err();
        let RpcError::TooLong { size, most, .. } = error else { panic!("{error:?}") };
        assert_eq!(most, limit);
        let fits = limit - (size - limit);
        let done = call(fits).await;
        assert!(matches!(done, Ok(_) | Err(RpcError::Refused(_))), "{method}: {done:?}");
        let error = call(fits + 1).await.unwrap_err();
        assert!(matches!(error, RpcError::TooLong { size, .. } if size == limit + 1), "{error:?}");
        let error = sandbox::Error::from(error);
        assert!(matches!(error, sandbox::Error::InvalidInput { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "{method}: a call of {method} has {} characters, and the server takes {limit}",
                limit + 1
            )
        );
        assert_eq!(client.call("core.ping", json!([])).await.unwrap(), "pong");
    }
    // Before the login it is less.
    let user = "x".repeat(9000);
    let login = Login::ApiKey { user: user.clone(), key: nas.sim.keys[0].clone() };
    let error = Client::open(nas.config(login)).await.err().unwrap();
    assert!(matches!(error, RpcError::TooLong { most: 8192, .. }), "{error:?}");
    for entry in std::fs::read_dir(nas.folder.path().join("state.said")).unwrap() {
        let said = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!said.contains(&user));
    }
}

/// An answer has no limit: this one is longer than any message that the server itself would take.
async fn large_answer(release: Release) {
    const COUNT: usize = 10_000;
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    let folder = nas.sim.root().join("mnt/tank/many");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..COUNT {
        std::fs::File::create(folder.join(format!("{number:0>240}"))).unwrap();
    }
    let all = client.read("filesystem.listdir", json!(["/mnt/tank/many"])).await.unwrap();
    assert_eq!(all.as_array().unwrap().len(), COUNT);
    let size = all.to_string().len();
    assert!(size > 4 << 20, "{size}");
}

/// What is silent is cut, and what asks for signs of life is not.
async fn silence(release: Release) {
    let nas = small(release, |o| o.idle = Duration::from_secs(2)).await;
    let mut config = nas.config(nas.key());
    config.ping = Duration::from_millis(200);
    let awake = Client::open(config).await.unwrap();
    let mut told = awake.subscribe("core.get_jobs").await.unwrap();
    let asleep = nas.client().await;
    let mut lost = asleep.subscribe("core.get_jobs").await.unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(60), lost.recv()).await.unwrap();
    assert!(cut.is_err());
    assert!(matches!(told.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Empty)));
    // A cut connection is replaced when it is needed.
    assert_eq!(asleep.call("core.ping", json!([])).await.unwrap(), "pong");
}

async fn restart(release: Release) {
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    nas.sim.control("restart").await.unwrap();
    assert_eq!(client.read("core.ping", json!([])).await.unwrap(), "pong");
    // A call that only looks is asked again when it is cut off, another is not.
    nas.sim.control("drop-at cronjob.query").await.unwrap();
    let error = client.call("cronjob.query", json!([])).await.unwrap_err();
    assert!(matches!(error, RpcError::Broken { .. }) && error.is_unsure(), "{error:?}");
    nas.sim.control("clear").await.unwrap();
    assert_eq!(client.read("cronjob.query", json!([])).await.unwrap(), json!([]));
}

async fn deadline(release: Release) {
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    nas.sim.control("latency 60000").await.unwrap();
    let error = client.call_within("core.ping", json!([]), Duration::from_millis(50)).await;
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "core.ping has no answer after 50ms");
    assert!(matches!(sandbox::Error::from(error), sandbox::Error::Timeout { .. }));
}

async fn events(release: Release) {
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    let mut told = client.subscribe("cronjob.query").await.unwrap();
    let row = json!([{"user": "root", "command": "true", "enabled": false}]);
    let made = client.call("cronjob.create", row).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert_eq!((event.kind.as_str(), &event.id), ("added", &made["id"]));
    client.call("cronjob.delete", json!([made["id"]])).await.unwrap();
    until(|| {
        let kind = told.try_recv().ok().map(|event| event.kind.clone());
        async move { kind.as_deref() == Some("removed") }
    })
    .await;
}
