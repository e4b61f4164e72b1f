//! Connections that are cut at every message of a call: what was begun is done or taken back, never half.

use libtest_mimic::Trial;
use nas_sim::Release;
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
        big("cut_create", &of(Release::V25_10), |nas, _| Box::pin(create(nas, LINE))),
        big("cut_clone", &of(Release::V26Rc), |nas, _| Box::pin(clone(nas, LINE))),
        big("cut_restore", &of(Release::V25_10), |nas, _| Box::pin(restore(nas, LINE))),
        big("cut_create_shell", &of(Release::V25_10), |nas, _| Box::pin(create(nas, SHELL))),
        big("cut_clone_shell", &of(Release::V25_10), |nas, _| Box::pin(clone(nas, SHELL))),
        big("cut_restore_shell", &of(Release::V26Rc), |nas, _| Box::pin(restore(nas, SHELL))),
        big("restart_mid_job", &Release::ALL, |nas, release| Box::pin(restart(nas, release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Which connections are cut: those that calls are made by, or the shells'.
type Which = (&'static str, &'static str);
const LINE: Which = ("drop-once", "drop_once");
const SHELL: Which = ("drop-shell-once", "drop_shell_once");

/// Cuts at the next message, and so on, until nothing is left to cut. At every other one what was asked
/// for is done, and the answer is lost.
struct Cuts<'a> {
    nas: &'a Small,
    which: Which,
    at: u32,
    over: bool,
}

impl Cuts<'_> {
    async fn next(&mut self) -> bool {
        if self.over {
            assert!(self.at > 3, "hardly anything is called");
            return false;
        }
        self.at += 1;
        assert!(self.at < 60, "it does not come to an end");
        let done = if self.at.is_multiple_of(2) { " done" } else { "" };
        self.nas.sim.control("forgive").await.unwrap();
        self.nas.sim.control(&format!("{} {}{done}", self.which.0, self.at)).await.unwrap();
        true
    }

    /// From here on nothing is cut until the next time.
    async fn rest(&mut self) {
        let status = self.nas.sim.control("status").await.unwrap();
        self.over = !status["faults"][self.which.1].is_null();
        self.nas.sim.control("clear").await.unwrap();
    }
}

async fn create(nas: &Small, which: Which) {
    let backend = nas.backend().await;
    let mut cuts = Cuts { nas, which, at: 0, over: false };
    while cuts.next().await {
        let done = backend.create(&Spec::new("cut"), &Cancel::new()).await;
        cuts.rest().await;
        match done {
            Ok(_) => {
                works(&backend, "cut").await;
                backend.delete("cut", &Cancel::new()).await.unwrap();
            }
            Err(error) => println!("cut at {}: {error}", cuts.at),
        }
        assert!(names(&backend).await.is_empty(), "cut at {}", cuts.at);
    }
}

async fn clone(nas: &Small, which: Which) {
    let backend = nas.backend().await;
    backend.create(&Spec::new("source"), &Cancel::new()).await.unwrap();
    backend.snapshot("source", &SnapshotSpec::new("l"), &Cancel::new()).await.unwrap();
    let mut cuts = Cuts { nas, which, at: 0, over: false };
    while cuts.next().await {
        let spec = CloneSpec::of("l", "twin");
        let done = Backend::clone(&*backend, "source", &spec, &Cancel::new()).await;
        cuts.rest().await;
        match done {
            Ok(_) => {
                works(&backend, "twin").await;
                backend.delete("twin", &Cancel::new()).await.unwrap();
            }
            Err(error) => println!("cut at {}: {error}", cuts.at),
        }
        assert_eq!(names(&backend).await, ["source"], "cut at {}", cuts.at);
    }
    works(&backend, "source").await;
    backend.delete("source", &Cancel::new()).await.unwrap();
}

async fn restore(nas: &Small, which: Which) {
    let backend = nas.backend().await;
    backend.create(&Spec::new("back"), &Cancel::new()).await.unwrap();
    say(&backend, "back", "echo old > /state; sync").await;
    backend.snapshot("back", &SnapshotSpec::new("l"), &Cancel::new()).await.unwrap();
    let mut cuts = Cuts { nas, which, at: 0, over: false };
    say(&backend, "back", "echo new > /state; sync").await;
    while cuts.next().await {
        let done = backend.restore("back", "l", Restore::default(), &Cancel::new()).await;
        cuts.rest().await;
        let state = say(&backend, "back", "cat /state").await;
        match &done {
            Ok(()) => assert_eq!(state, "old\n", "cut at {}", cuts.at),
            Err(error) => {
                println!("cut at {}: {error}", cuts.at);
                let known = ["old\n", "new\n"].contains(&state.as_str());
                assert!(known, "cut at {}: {state}", cuts.at);
            }
        }
        say(&backend, "back", "echo new > /state; sync").await;
    }
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
