//! Methods that scripts name, and releases that are not known.

use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::api::Host;
use sandscript::backend::truenas::{TrueNasBackend, TrueNasConfig};
use sandscript::lang::{self, Source};
use sandscript::sandbox::{Backend, Cancel, Error, Spec};
use serde_json::{Value, json};

use crate::rig::{Small, each, small};

const ALL: &[Release] = &Release::ALL;
const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        each("call", ALL, |release| Box::pin(calls(release))),
        each("call_in_scripts", ONE, |release| Box::pin(scripts(release))),
        each("older_release", ONE, |release| Box::pin(older(release))),
        each("unknown_release", ALL, |release| Box::pin(unknown(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn backend(nas: &Small, assume: Option<&str>) -> Result<TrueNasBackend, Error> {
    let mut config = TrueNasConfig::new(nas.config(nas.key()));
    config.assume_release = assume.map(str::to_owned);
    TrueNasBackend::open(config).await
}

/// A job that an ordinary user's simulator can do, too.
fn own(path: &str) -> Value {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    json!({"path": path, "uid": uid, "gid": gid})
}

async fn calls(release: Release) {
    let nas = small(release, |_| {}).await;
    let backend = backend(&nas, None).await.unwrap();
    let cancel = Cancel::new();
    let call = async |method: &str, params: Value, change| {
        let params = params.as_array().unwrap().clone();
        backend.call(method, params, change, &cancel).await
    };
    let version = call("system.version_short", json!([]), false).await.unwrap();
    assert_eq!(version, release.version());
    // A number that is no job's.
    let count = call("pool.query", json!([[], {"count": true}]), false).await.unwrap();
    assert_eq!(count, 1);
    let row = json!([{"user": "root", "command": "true", "enabled": false}]);
    let error = call("cronjob.create", row.clone(), false).await.unwrap_err();
    assert_eq!(error.to_string(), "method: 'cronjob.create' may change the NAS");
    assert_eq!(error.hint().unwrap(), "if it is meant, allow that: --allow-call");
    assert_eq!(call("cronjob.query", json!([]), false).await.unwrap(), json!([]));
    let made = call("cronjob.create", row, true).await.unwrap();
    assert_eq!(made["command"], "true");
    // A job is waited for: what it gives, and what it fails with.
    call("filesystem.file_receive", json!(["/mnt/tank/f", "eA==", {}]), true).await.unwrap();
    assert_eq!(
        call("filesystem.chown", json!([own("/mnt/tank/f")]), true).await.unwrap(),
        Value::Null
    );
    let error = call("filesystem.chown", json!([own("/mnt/tank/none")]), true).await.unwrap_err();
    assert!(error.to_string().starts_with("filesystem.chown: the NAS says: "), "{error}");
    let error = call("cronjob.querry", json!([]), true).await.unwrap_err();
    assert_eq!(error.to_string(), "method: this NAS has no method 'cronjob.querry'");
    assert_eq!(error.hint().unwrap(), "did you mean 'cronjob.query'?");
    let error = call("pool.query; x", json!([]), true).await.unwrap_err();
    assert_eq!(error.to_string(), "method: 'pool.query; x' is no name of a method");
    let error = call("pool.query", json!([1]), false).await.unwrap_err();
    assert!(error.to_string().starts_with("pool.query: the NAS says: "), "{error}");
}

/// The same program in both languages.
async fn scripts(release: Release) {
    let nas = small(release, |_| {}).await;
    let backend: Arc<dyn Backend> = Arc::new(backend(&nas, None).await.unwrap());
    let programs = [
        (
            "a.rhai",
            r#"let nas = host();
for pool in nas.call("pool.query", [[["name", "=", "tank"]]]) { print(pool.name + " " + pool.healthy); }
let made = nas.call("cronjob.create", [#{ user: "root", command: "true", enabled: false }]);
print(nas.call("cronjob.query", [[["id", "=", made.id]]]).len());
print(nas.call("cronjob.delete", [made.id]));"#,
        ),
        (
            "a.lua",
            r#"local nas = host()
for _, pool in ipairs(nas:call("pool.query", { { { "name", "=", "tank" } } })) do print(pool.name .. " " .. tostring(pool.healthy)) end
local made = nas:call("cronjob.create", { { user = "root", command = "true", enabled = false } })
print(#nas:call("cronjob.query", { { { "id", "=", made.id } } }))
print(nas:call("cronjob.delete", { made.id }))"#,
        ),
    ];
    for (file, text) in programs {
        for allowed in [true, false] {
            let printed = Arc::new(Mutex::new(String::new()));
            let sink = Arc::clone(&printed);
            let host = Host::builder(Arc::clone(&backend))
                .project(nas.folder.path())
                .allow_call(allowed)
                .print(move |line| *sink.lock().unwrap() += &format!("{line}\n"))
                .build()
                .unwrap();
            let outcome = lang::run(&Source::new(file, text), &host).await;
            let printed = printed.lock().unwrap().clone();
            match allowed {
                true => {
                    outcome.result.unwrap();
                    assert_eq!(printed, "tank true\n1\ntrue\n", "{file}");
                }
                false => {
                    let error = outcome.result.unwrap_err();
                    let (text, at) = (error.render(), error.position.clone());
                    assert!(text.contains("'cronjob.create' may change the NAS"), "{text}");
                    assert_eq!(at.unwrap().line, 3, "{text}");
                    assert_eq!(printed, "tank true\n", "{file}");
                }
            }
        }
    }
}

async fn older(release: Release) {
    let versions = |of: &[&str]| Some(of.iter().map(|v| (*v).to_owned()).collect());
    let nas = small(release, |o| o.versions = versions(&["v24.10.2"])).await;
    let error = backend(&nas, Some("26")).await.err().unwrap();
    assert_eq!(error.to_string(), "TrueNAS 24.10 is not supported by backend 'truenas' here");
    assert_eq!(error.hint().unwrap(), "it is too old: update it to 25.04, 25.10 or 26");
}

/// It is looked at, and nothing of it is changed unless somebody says which release it is like.
async fn unknown(release: Release) {
    let newer = |o: &mut nas_sim::Options| {
        let own = release.versions().into_iter().map(str::to_owned);
        let newest = if release.is_26() { "v27.0.0" } else { "v25.12.0" };
        o.versions = Some(own.chain([newest.to_owned()]).collect());
    };
    let nas = small(release, newer).await;
    let cancel = Cancel::new();
    let only = backend(&nas, None).await.unwrap();
    assert_eq!(only.list(&cancel).await.unwrap(), Vec::new());
    only.call("pool.query", Vec::new(), true, &cancel).await.unwrap();
    assert_eq!(only.gc(true, &cancel).await.unwrap().sandboxes, Vec::<String>::new());
    let name = if release.is_26() { "27" } else { "25.12" };
    let refused = |error: Error| {
        let Error::Unsupported { verb, .. } = &error else { panic!("{error:?}") };
        assert!(verb.ends_with(&format!(" on TrueNAS {name}")), "{verb}");
        let known = if release.is_26() { "26" } else { "25.10" };
        assert!(error.hint().unwrap().ends_with(&format!("--assume-release {known}")));
    };
    refused(only.create(&Spec::new("a"), &cancel).await.unwrap_err());
    refused(only.delete("a", &cancel).await.unwrap_err());
    refused(only.read_dir("a", "/", &cancel).await.unwrap_err());
    refused(only.gc(false, &cancel).await.unwrap_err());
    let row = json!({"user": "root", "command": "true"});
    refused(only.call("cronjob.create", vec![row.clone()], true, &cancel).await.unwrap_err());
    let assumed = if release.is_26() { "26" } else { "25.10" };
    let taken = backend(&nas, Some(assumed)).await.unwrap();
    taken.call("cronjob.create", vec![row], true, &cancel).await.unwrap();
    let error = taken.delete("a", &cancel).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let error = backend(&nas, Some("28")).await.err().unwrap();
    assert_eq!(error.to_string(), "assume-release: there is no release '28' that is known here");
}
