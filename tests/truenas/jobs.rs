//! Jobs, and how they are told of when connections end.

use std::sync::Arc;

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::transport::jsonrpc::{Client, RpcError};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::rig::{Small, each, small, until};

const ALL: &[Release] = &Release::ALL;

pub fn trials() -> Vec<Trial> {
    [
        each("job", ALL, |release| Box::pin(job(release))),
        each("job_goes_on_without_us", ALL, |release| Box::pin(goes_on_without_us(release))),
        each("job_ends_unseen", ALL, |release| Box::pin(ends_unseen(release))),
        each("job_is_forgotten", ALL, |release| Box::pin(is_forgotten(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn job(release: Release) {
    let nas = small(release, |_| {}).await;
    let client = nas.client().await;
    let file = json!(["/mnt/tank/f", "eA==", {}]);
    client.call("filesystem.file_receive", file).await.unwrap();
    // An ordinary user, too, may give a file to itself.
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let own = |path: &str| json!([{"path": path, "uid": uid, "gid": gid}]);
    // Many at once, so that some end before their numbers are known.
    let all = (0..30).map(|_| client.job("filesystem.chown", own("/mnt/tank/f")));
    for done in futures_util::future::join_all(all).await {
        assert_eq!(done.unwrap(), Value::Null);
    }
    let error = client.job("filesystem.chown", own("/mnt/tank/none")).await.unwrap_err();
    assert!(matches!(&error, RpcError::Refused(_)), "{error:?}");
    assert!(error.refusal().unwrap().is_missing(), "{error:?}");
}

/// A job that lasts until somebody fetches a file, and one that waits for its end.
struct Lasting {
    nas: Small,
    other: Client,
    id: Value,
    waiting: JoinHandle<Result<Value, RpcError>>,
}

async fn lasting(release: Release) -> Lasting {
    let nas = small(release, |_| {}).await;
    let client = Arc::new(nas.client().await);
    let other = nas.client().await;
    let file = json!(["/mnt/tank/f", "eA==", {}]);
    other.call("filesystem.file_receive", file).await.unwrap();
    let params = json!(["filesystem.get", ["/mnt/tank/f"], "f", true]);
    let id = other.call("core.download", params).await.unwrap()[0].clone();
    let (worker, params) = (Arc::clone(&client), json!([id]));
    let waiting = tokio::spawn(async move { worker.job("core.job_wait", params).await });
    until(async || {
        let jobs = json!([[["method", "=", "core.job_wait"], ["state", "=", "RUNNING"]]]);
        other.read("core.get_jobs", jobs).await.unwrap() != json!([])
    })
    .await;
    Lasting { nas, other, id, waiting }
}

async fn goes_on_without_us(release: Release) {
    let Lasting { nas, other, id, waiting } = lasting(release).await;
    nas.sim.control("drop").await.unwrap();
    other.read("core.ping", json!([])).await.unwrap();
    other.call("core.job_abort", json!([id])).await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, RpcError::Refused(_)), "{error:?}");
}

/// It ends while nobody is connected.
async fn ends_unseen(release: Release) {
    let Lasting { nas, other, id, waiting } = lasting(release).await;
    // The one who waits has no connection as long as it can't log in.
    nas.sim.control("fail auth.login_ex=EBUSY:4").await.unwrap();
    nas.sim.control("drop-at core.job_abort").await.unwrap();
    let _ = other.call("core.job_abort", json!([id])).await;
    nas.sim.control("clear").await.unwrap();
    let _ = other.read("core.ping", json!([])).await;
    other.call("core.job_abort", json!([id])).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(RpcError::Refused(_))));
}

/// After a restart the same number is another job's.
async fn is_forgotten(release: Release) {
    let Lasting { nas, other, waiting, .. } = lasting(release).await;
    nas.sim.control("restart").await.unwrap();
    other.read("core.ping", json!([])).await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, RpcError::Forgotten { .. }) && error.is_unsure(), "{error:?}");
    let place = nas.without_place(&error);
    assert_eq!(place, "NAS was restarted while it did core.job_wait");
}
