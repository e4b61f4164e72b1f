//! What a NAS does to those who work on it, and what it costs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::api::Host;
use sandscript::backend::truenas::{TrueNasBackend, TrueNasConfig};
use sandscript::lang::{self, Source};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Error, Mount, Owner, Policy, ReadOptions, Restore, SnapshotSpec,
    Spec, StopOptions, WriteOptions,
};
use sandscript::transport::jsonrpc::Login;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::forks::on_the_nas;
use crate::program::call;
use crate::rig::{Small, big, each, names, say, small, works};
use crate::walk::USER;

const ALL: &[Release] = &Release::ALL;
const TWO: &[Release] = &[Release::V25_10, Release::V26Rc];
const ONE: &[Release] = &[Release::V25_10];
/// Those on which nobody walks as the manual says, with more rights.
const NOT_WALKED: &[Release] = &[Release::V25_04, Release::V26Rc];
const VIRT: &[Release] = &[Release::V25_04];

pub fn trials() -> Vec<Trial> {
    [
        big("second_client", ALL, |nas, _| Box::pin(second_client(nas))),
        big("first_boot", TWO, |nas, _| Box::pin(first_boot(nas))),
        big("no_root", NOT_WALKED, |nas, release| Box::pin(no_root(nas, release))),
        big("two_change_a_policy", TWO, |nas, _| Box::pin(two_change_a_policy(nas))),
        big("others_wait_for_the_same", VIRT, |nas, _| Box::pin(others_wait_for_the_same(nas))),
        big("round_trips", TWO, |nas, release| Box::pin(round_trips(nas, release))),
        big("odds", TWO, |nas, _| Box::pin(odds(nas))),
        big("planted_links", ALL, |nas, release| Box::pin(planted_links(nas, release))),
        big("devices", TWO, |nas, release| Box::pin(devices(nas, release))),
        big("wrong_pool", TWO, |nas, release| Box::pin(wrong_pool(nas, release))),
        big("large_file", ONE, |nas, _| Box::pin(large_file(nas))),
        big("doctor_of_a_whole_one", TWO, |nas, _| Box::pin(doctor(nas))),
        each("no_pool", ALL, |release| Box::pin(no_pool(release))),
        each("revoked_meanwhile", ONE, |release| Box::pin(revoked(release))),
        each("login_limit", ONE, |release| Box::pin(login_limit(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs a script as a machine that was never here before does.
async fn script(backend: Arc<TrueNasBackend>, text: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let printed = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&printed);
    let host = Host::builder(backend)
        .project(home.path())
        .cache(home.path().join("cache"))
        .print(move |line| *sink.lock().unwrap() += &format!("{line}\n"))
        .build()
        .unwrap();
    let outcome = lang::run(&Source::new("a.rhai", text), &host).await;
    outcome.result.unwrap();
    assert!(outcome.leftovers.failed.is_empty(), "{:?}", outcome.leftovers);
    printed.lock().unwrap().clone()
}

/// Where a job waits for a machine already, the NAS gives its number to who calls for another one.
async fn others_wait_for_the_same(nas: &Small) {
    let (backend, cancel) = (nas.backend().await, Cancel::new());
    let mut spec = Spec::new("shared");
    spec.bare = true;
    backend.create(&spec, &cancel).await.unwrap();
    let other = Arc::new(nas.client().await);
    for _ in 0..3 {
        let updates: Vec<_> = (0..4)
            .map(|_| {
                let other = Arc::clone(&other);
                let change = json!(["shared", {"autostart": false}]);
                tokio::spawn(async move { other.job("virt.instance.update", change).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let started = other.job("virt.instance.start", json!(["shared"])).await.unwrap();
        let rows = other.read("virt.instance.query", json!([[["id", "=", "shared"]]])).await;
        assert_eq!(rows.unwrap()[0]["status"], "RUNNING", "{started}");
        for update in updates {
            update.await.unwrap().unwrap();
        }
        backend
            .stop("shared", StopOptions { force: true, ..StopOptions::default() }, &cancel)
            .await
            .unwrap();
    }
    backend.delete("shared", &cancel).await.unwrap();
}

/// All that is known is kept on the NAS: another machine finds what the first one built, and deletes
/// what it left.
async fn second_client(nas: &Small) {
    let text = r#"let b = base("kept", #{ from: "debian/12" }, |b| { b.run("echo one > /one"); b.run("echo two > /two"); });
print(b.hits);
let box = sandbox(#{ from: b });
print(box.run("cat /one /two").stdout.split("\n").len());"#;
    assert_eq!(script(nas.backend().await, text).await, "0\n3\n");
    assert_eq!(script(nas.backend().await, text).await, "2\n3\n");
    let first = nas.backend().await;
    let mut spec = Spec::new("left");
    spec.bare = true;
    let mut owner = Owner::new("dead", "elsewhere");
    owner.until = Some(SystemTime::now());
    spec.owner = Some(owner);
    spec.labels = BTreeMap::from([
        ("what".into(), "quote ' \" $(reboot) `id` \\ ;|& ü 雪 🐧".into()),
        ("-o".into(), "=\t=,".into()),
    ]);
    first.create(&spec, &Cancel::new()).await.unwrap();
    drop(first);
    let second = nas.backend().await;
    let info = second.get("left", &Cancel::new()).await.unwrap();
    assert_eq!(info.labels, spec.labels);
    assert!(info.dataset.unwrap().ends_with("/containers/left"));
    // A clock that is ahead deletes nothing that is in use.
    let mut live = Spec::new("live");
    live.bare = true;
    let mut owner = Owner::new("live", "elsewhere");
    owner.until = SystemTime::now().checked_add(Duration::from_secs(600));
    live.owner = Some(owner);
    nas.sim.control("skew 7200000").await.unwrap();
    second.create(&live, &Cancel::new()).await.unwrap();
    assert!(second.gc(false, &Cancel::new()).await.unwrap().sandboxes.contains(&"left".into()));
    let made = second.get("live", &Cancel::new()).await.unwrap().created;
    assert!(made < SystemTime::now().checked_add(Duration::from_secs(60)).unwrap());
    nas.sim.control("skew 0").await.unwrap();
    for name in names(&second).await {
        second.delete(&name, &Cancel::new()).await.unwrap();
    }
}

/// One without a network has had none from its first boot on: nothing ever brought one up in there.
async fn first_boot(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let bare = Spec { bare: true, egress: Policy::Unrestricted, ..Spec::new("bare") };
    backend.create(&bare, &cancel).await.unwrap();
    let twin = CloneSpec { egress: Some(Policy::None), ..CloneSpec::new("shy-too") };
    Backend::clone(&*backend, "bare", &twin, &cancel).await.unwrap();
    backend.create(&Spec::new("shy"), &cancel).await.unwrap();
    let units = "networking.service systemd-networkd.service systemd-networkd.socket NetworkManager.service dhcpcd.service";
    let began = format!(
        "systemctl show -p ActiveEnterTimestampMonotonic {units} | sed -n 's/.*=//p' | sort -u"
    );
    for name in ["shy", "shy-too"] {
        assert_eq!(say(&backend, name, &began).await.trim(), "0", "{name}");
    }
    backend.delete("shy-too", &cancel).await.unwrap();
    backend.delete("bare", &cancel).await.unwrap();
    // There is one as soon as it may have it, and nothing is left of what kept it away.
    backend.set_policy("shy", &Policy::Unrestricted, &cancel).await.unwrap();
    assert_ne!(say(&backend, "shy", &began).await.trim(), "0");
    let left = "find /etc -name '*sandscript-offline*'";
    assert_eq!(say(&backend, "shy", left).await, "");
    backend.delete("shy", &cancel).await.unwrap();
}

/// A user with the rights of the manual's table who is not root: what takes the NAS's own shell as its root can't be
/// done, and says so.
async fn no_root(nas: &Small, release: Release) {
    let root = nas.backend().await;
    let cancel = Cancel::new();
    on_the_nas(&root, &format!("id -u {USER} >/dev/null 2>&1 || useradd -m -s /bin/bash {USER}"))
        .await;
    let wanted = json!({"name": "no-root", "username": USER});
    let client: &dyn Backend = &*root;
    let made = client.call("api_key.create", vec![wanted], true, &cancel).await.unwrap();
    let key = made["key"].as_str().unwrap().to_owned();
    let login = Login::ApiKey { user: USER.into(), key };
    let config = TrueNasConfig::new(nas.config(login));
    let backend = Arc::new(TrueNasBackend::open(config).await.unwrap());
    backend.create(&Spec::new("lent"), &cancel).await.unwrap();
    works(&backend, "lent").await;
    let taken = backend.snapshot("lent", &SnapshotSpec::new("a"), &cancel).await.unwrap_err();
    let clone = Backend::clone(&*backend, "lent", &CloneSpec::new("twin"), &cancel).await;
    root.snapshot("lent", &SnapshotSpec::new("b"), &cancel).await.unwrap();
    let restored = backend.restore("lent", "b", Restore::default(), &cancel).await.unwrap_err();
    for error in [taken, clone.unwrap_err(), restored] {
        assert!(matches!(error, Error::Unsupported { .. }), "{release:?}: {error:?}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("as its root") || hint.contains("administrator"), "{hint}");
    }
    works(&backend, "lent").await;
    root.delete("lent", &cancel).await.unwrap();
}

/// What two clients allow at once is allowed, all of it, whether it runs or not.
async fn two_change_a_policy(nas: &Small) {
    let both = [nas.backend().await, nas.backend().await];
    let cancel = Cancel::new();
    let rules = Policy::allowlist(["198.51.100.1"]).unwrap();
    both[0].create(&Spec { egress: rules, ..Spec::new("shared") }, &cancel).await.unwrap();
    for round in 0..2 {
        let allow = |number: usize| {
            let (backend, cancel) = (&both[number % 2], &cancel);
            let rule = format!("198.51.100.{}", 10 * (round + 1) + number).parse().unwrap();
            async move { backend.allow("shared", &rule, cancel).await.unwrap() }
        };
        futures_util::future::join_all((0..4).map(allow)).await;
        let now = both[0].get("shared", &cancel).await.unwrap().egress;
        assert_eq!(now.rules().count(), 1 + 4 * (round + 1), "{now}");
        if round == 0 {
            both[1].stop("shared", Default::default(), &cancel).await.unwrap();
        }
    }
    both[0].start("shared", &cancel).await.unwrap();
    works(&both[1], "shared").await;
    both[0].delete("shared", &cancel).await.unwrap();
}

/// How often one goes there and back: at most, for some of it is side by side.
async fn round_trips(nas: &Small, release: Release) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let jobs: &[&str] = match release.is_26() {
        true => &["container.create", "container.delete", "container.stop"],
        false => &[
            "virt.instance.create",
            "virt.instance.delete",
            "virt.instance.start",
            "virt.instance.stop",
            "virt.instance.update",
        ],
    };
    let mut before = nas.called();
    let mut since = || {
        let mut now = nas.called();
        let all = now.clone();
        for method in &before {
            let at = now.iter().position(|one| one == method).unwrap();
            now.remove(at);
        }
        before = all;
        let began = now.iter().filter(|method| jobs.contains(&method.as_str())).count();
        (now, began)
    };
    // The first call of a connection subscribes to jobs, the first in the NAS's shell opens that.
    backend.create(&Spec::new("warm"), &cancel).await.unwrap();
    backend.snapshot("warm", &SnapshotSpec::new("l"), &cancel).await.unwrap();
    since();
    backend.create(&Spec::new("trip"), &cancel).await.unwrap();
    let (called, _) = since();
    assert!(called.len() <= 8, "create: {called:?}");
    backend.list(&cancel).await.unwrap();
    let (called, _) = since();
    assert_eq!(called.len(), 1, "list: {called:?}");
    works(&backend, "warm").await;
    let (called, _) = since();
    assert!(called.is_empty(), "exec: {called:?}");
    let spec = CloneSpec::of("l", "twin");
    Backend::clone(&*backend, "warm", &spec, &cancel).await.unwrap();
    let (called, began) = since();
    assert!(called.len() <= 5 && began <= 2, "clone: {began} jobs: {called:?}");
    backend.restore("warm", "l", Restore::default(), &cancel).await.unwrap();
    let (called, began) = since();
    assert!(began <= 3, "restore: {called:?}");
    backend.delete("trip", &cancel).await.unwrap();
    let (called, began) = since();
    assert_eq!(began, 1, "delete: {called:?}");
    for name in ["twin", "warm"] {
        backend.delete(name, &cancel).await.unwrap();
    }
}

/// Storage that is busy, an address that comes late, two who want the same.
async fn odds(nas: &Small) {
    let (one, two) = (nas.backend().await, nas.backend().await);
    let cancel = Cancel::new();
    nas.sim.control("dhcp-delay 3000").await.unwrap();
    let mut spec = Spec::new("late");
    spec.egress = Policy::Unrestricted;
    let info = one.create(&spec, &cancel).await.unwrap();
    assert!(!info.addresses.is_empty());
    nas.sim.control("clear").await.unwrap();
    nas.sim.control("busy-deletes 3").await.unwrap();
    one.delete("late", &cancel).await.unwrap();
    let spec = Spec { bare: true, ..Spec::new("same") };
    let (first, second) = tokio::join!(one.create(&spec, &cancel), two.create(&spec, &cancel));
    let taken = |error: &Error| matches!(error, Error::AlreadyExists { .. } | Error::Busy { .. });
    let (made, refused): (Vec<_>, Vec<_>) = [first, second].into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1, "{refused:?}");
    assert!(refused.iter().all(|one| one.as_ref().is_err_and(taken)), "{refused:?}");
    assert_eq!(names(&two).await, ["same"]);
    two.start("same", &cancel).await.unwrap();
    works(&one, "same").await;
    let (first, second) = tokio::join!(one.delete("same", &cancel), two.delete("same", &cancel));
    let gone = |done: &Result<(), Error>| match done {
        Ok(()) => true,
        Err(error) => matches!(error, Error::NotFound { .. }),
    };
    assert!(gone(&first) && gone(&second), "{first:?} {second:?}");
    assert!(names(&one).await.is_empty());
}

/// A guest puts links everywhere that something is written: none is followed out of it.
async fn planted_links(nas: &Small, release: Release) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    let trap = nas.sim.root().join("root/planted");
    std::fs::create_dir_all(&trap).unwrap();
    let below = |trap: &std::path::Path| std::fs::read_dir(trap).unwrap().count();
    backend.create(&Spec::new("plant"), &cancel).await.unwrap();
    let plant = "mkdir -p /root/planted; cd /etc; for f in hostname machine-id hosts resolv.conf; do \
         rm -f $f; ln -s /root/planted/$f $f; done; \
         rm -rf /etc/ssh && ln -s /root/planted /etc/ssh; ln -sfn /root/planted /etc/.sandscript; sync";
    say(&backend, "plant", plant).await;
    backend.snapshot("plant", &SnapshotSpec::new("l"), &cancel).await.unwrap();
    for label in [None, Some("l")] {
        let mut spec = CloneSpec::new("twin");
        spec.label = label.map(str::to_owned);
        if Backend::clone(&*backend, "plant", &spec, &cancel).await.is_ok() {
            works(&backend, "twin").await;
            backend.delete("twin", &cancel).await.unwrap();
        }
        assert_eq!(below(&trap), 0);
        assert_eq!(names(&backend).await, ["plant"]);
    }
    // Its folder as a whole leads outside.
    say(&backend, "plant", "cp -a /etc /etc.real; sync").await;
    let done = backend.restore("plant", "l", Restore::default(), &cancel).await;
    assert_eq!(below(&trap), 0, "{done:?}");
    let options = WriteOptions::default();
    let text = || Box::new(std::io::Cursor::new(b"x".to_vec()));
    let written = backend.write("plant", "/etc/ssh/key", text(), &options, &cancel).await;
    assert_eq!(below(&trap), 0, "{written:?}");
    if release.is_26() {
        // 26 itself writes the name at each start.
        backend.stop("plant", Default::default(), &cancel).await.unwrap();
        // It may not come up with what the guest made of itself.
        let _ = backend.start("plant", &cancel).await;
        assert_eq!(below(&trap), 0);
    }
    backend.delete("plant", &cancel).await.unwrap();
}

/// Folders of the NAS, its gateway's network, and what starts with it.
async fn devices(nas: &Small, release: Release) {
    let cancel = Cancel::new();
    let root = nas.sim.root();
    std::fs::create_dir_all(root.join("mnt/tank/code/in")).unwrap();
    std::fs::write(root.join("mnt/tank/code/in/said"), "from the NAS\n").unwrap();
    std::fs::create_dir_all(root.join("mnt/tank/other/in")).unwrap();
    std::os::unix::fs::symlink("../other", root.join("mnt/tank/code/link")).unwrap();
    let mut config = TrueNasConfig::new(nas.config(nas.key()));
    config.mounts = vec!["/mnt/tank/code".into()];
    config.network = Some("lan".into());
    config.autostart = true;
    let backend = TrueNasBackend::open(config.clone()).await.unwrap();
    let mount =
        |source: &str| Mount { source: source.into(), target: "/code".into(), readonly: false };
    for (source, why) in [
        ("/mnt/tank", "is none of the folders"),
        ("/mnt/tank/code/../other", "is none of the folders"),
        ("/mnt/tank/codeshop", "is none of the folders"),
        ("/etc", "is none of the folders"),
        ("/mnt/tank/code/link", "is a link, or below one"),
        ("/mnt/tank/code/link/in", "is a link, or below one"),
    ] {
        let spec = Spec { mounts: vec![mount(source)], ..Spec::new("nope") };
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let readonly = Mount { readonly: true, ..mount("/mnt/tank/code/in") };
    let spec = Spec { mounts: vec![readonly], ..Spec::new("nope") };
    let error = backend.create(&spec, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let spec = Spec { mounts: vec![mount("/mnt/tank/code/in")], ..Spec::new("with") };
    let info = backend.create(&spec, &cancel).await.unwrap();
    assert_eq!(info.mounts, spec.mounts);
    assert_eq!(say(&backend, "with", "cat /code/said").await, "from the NAS\n");
    let rows = match release.is_26() {
        true => backend.call("container.query", Vec::new(), false, &cancel).await.unwrap(),
        false => backend.call("virt.instance.query", Vec::new(), false, &cancel).await.unwrap(),
    };
    assert_eq!(rows[0]["autostart"], true, "{rows}");
    let cards = match release.is_26() {
        true => rows[0]["devices"].clone(),
        false => {
            let of = vec!["with".into()];
            backend.call("virt.instance.device_list", of, false, &cancel).await.unwrap()
        }
    };
    assert!(cards.to_string().contains("\"eno1\""), "{cards}");
    Backend::clone(&backend, "with", &CloneSpec::new("twin"), &cancel).await.unwrap();
    assert_eq!(say(&backend, "twin", "cat /code/said").await, "from the NAS\n");
    for name in ["twin", "with"] {
        backend.delete(name, &cancel).await.unwrap();
    }
    config.network = Some("eno7".into());
    let other = TrueNasBackend::open(config.clone()).await.unwrap();
    let error = other.create(&Spec::new("nope"), &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("the NAS has eno1"), "{error}");
    config.mounts.clear();
    let none = TrueNasBackend::open(config).await.unwrap();
    let error = none.create(&spec, &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("mounts = ["), "{error}");
    assert!(names(&none).await.is_empty());
}

async fn large_file(nas: &Small) {
    const SIZE: usize = 100 << 20;
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    backend.create(&Spec::new("large"), &cancel).await.unwrap();
    let mut bytes = vec![0; SIZE];
    let mut state = 1_u64;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    let there = Box::new(std::io::Cursor::new(bytes.clone()));
    backend.write("large", "/large", there, &WriteOptions::default(), &cancel).await.unwrap();
    assert_eq!(say(&backend, "large", "stat -c %s /large").await, format!("{SIZE}\n"));
    let mut reader =
        backend.read("large", "/large", ReadOptions::default(), &cancel).await.unwrap();
    let mut back = Vec::with_capacity(SIZE);
    reader.read_to_end(&mut back).await.unwrap();
    assert!(back == bytes);
    backend.delete("large", &cancel).await.unwrap();
}

/// Everything is as it should be, and what is tried works.
async fn doctor(nas: &Small) {
    let said = call(nas, &[], &["doctor", "--format", "json"]).await;
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let checks = answer["checks"].as_array().unwrap();
    let wrong: Vec<_> = checks.iter().filter(|one| one["verdict"] != "good").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!((&answer["works"], said.code), (&true.into(), 0), "{}", said.out);
}

async fn no_pool(release: Release) {
    let nas = small(release, |o| o.ready = false).await;
    let backend = nas.backend().await;
    let error = backend.create(&Spec::new("a"), &Cancel::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a NAS without a pool for containers is not supported by backend 'truenas' here"
    );
    assert!(error.hint().unwrap().starts_with("choose one there: "), "{error}");
}

/// A job that fails because of what it was given.
async fn wrong_pool(nas: &Small, release: Release) {
    let mut config = TrueNasConfig::new(nas.config(nas.key()));
    config.pool = Some("nope".into());
    let backend = TrueNasBackend::open(config).await.unwrap();
    let error = backend.create(&Spec::new("a"), &Cancel::new()).await.unwrap_err();
    let why = match release.is_26() {
        true => "pool: Pool not found.",
        false => "storage_pool: Not a valid ZFS pool",
    };
    assert_eq!(error.to_string(), format!("making sandbox 'a': the NAS says: {why}"));
    assert!(names(&backend).await.is_empty());
}

/// A key that is taken away in the middle of a session.
async fn revoked(release: Release) {
    let nas = small(release, |_| {}).await;
    let backend = nas.backend().await;
    for command in ["revoke 1", "drop"] {
        nas.sim.control(command).await.unwrap();
    }
    let error = backend.list(&Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    assert!(error.to_string().contains("the key has expired or was revoked"), "{error}");
}

/// More logins than a NAS takes: the one that is too much waits, and comes in.
async fn login_limit(release: Release) {
    let nas = small(release, |_| {}).await;
    for _ in 0..20 {
        nas.backend().await;
    }
    let late = nas.backend();
    let forgiven = async {
        // It has come too soon, and waits.
        tokio::time::sleep(Duration::from_millis(500)).await;
        nas.sim.control("forgive").await.unwrap();
    };
    let (backend, ()) = tokio::join!(late, forgiven);
    backend.list(&Cancel::new()).await.unwrap();
}
