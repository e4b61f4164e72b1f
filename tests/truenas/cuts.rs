//! Connections that are cut at every message of a call: what was begun is done or taken back, never half.

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::backend::truenas::TrueNasBackend;
use sandscript::sandbox::{Backend, Cancel, CloneSpec, Restore, SnapshotSpec, Spec};

use crate::rig::{Small, big, names, say, until, works};

const TWO: &[Release] = &[Release::V25_10, Release::V26Rc];

/// One of each kind, Incus and containers of 26, where there is time for it: each cut takes seconds.
fn of(one: Release) -> Vec<Release> {
    match std::env::var_os("SANDSCRIPT_ALL_CASES") {
        Some(_) => TWO.to_vec(),
        None => vec![one],
    }
}

/// These where there is time for it.
pub fn all(releases: &[Release]) -> Vec<Release> {
    match std::env::var_os("SANDSCRIPT_ALL_CASES") {
        Some(_) => releases.to_vec(),
        None => Vec::new(),
    }
}

pub fn trials() -> Vec<Trial> {
    [
        big("cut_create", &of(Release::V25_10), |nas, _| Box::pin(create(nas))),
        big("cut_clone", &of(Release::V26Rc), |nas, _| Box::pin(clone(nas))),
        big("cut_restore", &of(Release::V25_10), |nas, _| Box::pin(restore(nas))),
        big("restart_mid_job", TWO, |nas, release| Box::pin(restart(nas, release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Cuts at the next message, and so on, until nothing is left to cut. At every other one what was asked
/// for is done, and the answer is lost.
struct Cuts<'a> {
    nas: &'a Small,
    at: u32,
}

impl Cuts<'_> {
    async fn next(&mut self) -> bool {
        if self.at > 0 {
            let status = self.nas.sim.control("status").await.unwrap();
            if !status["faults"]["drop_once"].is_null() {
                self.nas.sim.control("clear").await.unwrap();
                assert!(self.at > 3, "hardly anything is called");
                return false;
            }
        }
        self.at += 1;
        assert!(self.at < 60, "it does not come to an end");
        let done = if self.at.is_multiple_of(2) { " done" } else { "" };
        self.nas.sim.control("forgive").await.unwrap();
        self.nas.sim.control(&format!("drop-once {}{done}", self.at)).await.unwrap();
        true
    }
}

/// Deletes one, in peace.
async fn delete(nas: &Small, backend: &TrueNasBackend, name: &str) {
    let status = nas.sim.control("status").await.unwrap();
    nas.sim.control("clear").await.unwrap();
    backend.delete(name, &Cancel::new()).await.unwrap();
    if let Some(left) = status["faults"]["drop_once"].as_u64() {
        nas.sim.control(&format!("drop-once {left}")).await.unwrap();
    }
}

async fn create(nas: &Small) {
    let backend = nas.backend().await;
    let mut cuts = Cuts { nas, at: 0 };
    while cuts.next().await {
        match backend.create(&Spec::new("cut"), &Cancel::new()).await {
            Ok(_) => {
                let left = nas.sim.control("status").await.unwrap();
                let fired = left["faults"]["drop_once"].is_null();
                if fired {
                    works(&backend, "cut").await;
                }
                delete(nas, &backend, "cut").await;
            }
            Err(error) => println!("cut at {}: {error}", cuts.at),
        }
        assert!(names(&backend).await.is_empty(), "cut at {}", cuts.at);
    }
}

async fn clone(nas: &Small) {
    let backend = nas.backend().await;
    backend.create(&Spec::new("source"), &Cancel::new()).await.unwrap();
    backend.snapshot("source", &SnapshotSpec::new("l"), &Cancel::new()).await.unwrap();
    let mut cuts = Cuts { nas, at: 0 };
    while cuts.next().await {
        let spec = CloneSpec::of("l", "twin");
        match Backend::clone(&*backend, "source", &spec, &Cancel::new()).await {
            Ok(_) => {
                works(&backend, "twin").await;
                delete(nas, &backend, "twin").await;
            }
            Err(error) => println!("cut at {}: {error}", cuts.at),
        }
        assert_eq!(names(&backend).await, ["source"], "cut at {}", cuts.at);
    }
    works(&backend, "source").await;
    backend.delete("source", &Cancel::new()).await.unwrap();
}

async fn restore(nas: &Small) {
    let backend = nas.backend().await;
    backend.create(&Spec::new("back"), &Cancel::new()).await.unwrap();
    say(&backend, "back", "echo old > /state; sync").await;
    backend.snapshot("back", &SnapshotSpec::new("l"), &Cancel::new()).await.unwrap();
    let mut cuts = Cuts { nas, at: 0 };
    loop {
        nas.sim.control("clear").await.unwrap();
        say(&backend, "back", "echo new > /state; sync").await;
        cuts.at += 1;
        let done = if cuts.at.is_multiple_of(2) { " done" } else { "" };
        nas.sim.control("forgive").await.unwrap();
        nas.sim.control(&format!("drop-once {}{done}", cuts.at)).await.unwrap();
        let done = backend.restore("back", "l", Restore::default(), &Cancel::new()).await;
        let state = say(&backend, "back", "cat /state").await;
        match &done {
            Ok(()) => assert_eq!(state, "old\n", "cut at {}", cuts.at),
            Err(error) => {
                println!("cut at {}: {error}", cuts.at);
                assert!(
                    ["old\n", "new\n"].contains(&state.as_str()),
                    "cut at {}: {state}",
                    cuts.at
                );
            }
        }
        let status = nas.sim.control("status").await.unwrap();
        if !status["faults"]["drop_once"].is_null() {
            break;
        }
        assert!(cuts.at < 40, "it does not come to an end");
    }
    assert!(cuts.at > 3, "hardly anything is called");
    nas.sim.control("clear").await.unwrap();
    backend.delete("back", &Cancel::new()).await.unwrap();
}

/// The middleware is started anew while it makes one.
async fn restart(nas: &Small, release: Release) {
    let backend = nas.backend().await;
    let watcher = nas.client().await;
    let method = if release.is_26() { "container.create" } else { "virt.instance.create" };
    let making = tokio::spawn({
        let backend = backend.clone();
        async move { backend.create(&Spec::new("mid"), &Cancel::new()).await }
    });
    until(|| async {
        let of = serde_json::json!([[["method", "=", method], ["state", "=", "RUNNING"]]]);
        let jobs = watcher.read("core.get_jobs", of).await.unwrap();
        making.is_finished() || !jobs.as_array().unwrap().is_empty()
    })
    .await;
    nas.sim.control("restart").await.unwrap();
    match making.await.unwrap() {
        Ok(_) => {
            works(&backend, "mid").await;
            backend.delete("mid", &Cancel::new()).await.unwrap();
        }
        Err(error) => println!("restart: {error}"),
    }
    assert!(names(&backend).await.is_empty());
    backend.create(&Spec::new("mid"), &Cancel::new()).await.unwrap();
    works(&backend, "mid").await;
    backend.delete("mid", &Cancel::new()).await.unwrap();
}
