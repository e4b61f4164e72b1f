//! Traps of 26's containers.

use libtest_mimic::Trial;
use nas_sim::{Release, Sim};
use serde_json::{Value, json};

use crate::client::Client;
use crate::shell;
use crate::trap::big;

pub fn tests() -> Vec<Trial> {
    let (beta, rc) = (Release::V26Beta, Release::V26Rc);
    vec![
        big(24, rc, |s| Box::pin(duplicate(s))),
        big(30, rc, |s| Box::pin(numbers(s))),
        big(31, rc, |s| Box::pin(start_is_a_call(s))),
        big(32, rc, |s| Box::pin(stop_succeeds(s))),
        big(33, beta, |s| Box::pin(delete_is_a_job(s, false))),
        big(33, rc, |s| Box::pin(delete_is_a_job(s, true))),
        big(34, beta, |s| Box::pin(orphan(s))),
        big(34, rc, |s| Box::pin(snapshots_are_kept(s))),
        big(35, rc, |s| Box::pin(no_address(s))),
        big(36, rc, |s| Box::pin(protected(s))),
        big(41, rc, |s| Box::pin(rootfs(s))),
        big(46, rc, |s| Box::pin(script(s))),
        big(50, rc, |s| Box::pin(hostname(s))),
    ]
}

/// A new container's data.
pub fn create(name: &str) -> Value {
    let image = json!({"name": "debian:bookworm:amd64:default", "version": "20260801_05:24"});
    json!([{"name": name, "pool": "tank", "image": image, "shutdown_timeout": 5}])
}

/// A container that is there, stopped or running: its id.
pub async fn dev(client: &mut Client, running: bool) -> Value {
    let rows = client.ok("container.query", json!([[["name", "=", "dev"]]])).await;
    let row = match rows == json!([]) {
        true => client.done("container.create", create("dev")).await,
        false => rows[0].clone(),
    };
    let up = row["status"]["state"] == "RUNNING";
    if running && !up {
        let id = number(client).await;
        client.ok("container.start", json!([id])).await;
    }
    if !running && up {
        let stop = json!([number(client).await, {"force": true}]);
        client.done("container.stop", stop).await;
    }
    number(client).await
}

/// The number of the container, whatever `id` shows.
async fn number(client: &mut Client) -> Value {
    for id in 1..100 {
        if let Ok(row) = client.call("container.get_instance", json!([id])).await
            && row["name"] == "dev"
        {
            return id.into();
        }
    }
    panic!("there is no container");
}

async fn duplicate(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    let row = client.job("container.create", create("dev")).await;
    assert_eq!(row["exc_info"]["type"], "VALIDATION");
    row["exc_info"]["extra"][0][2] == 17
}

async fn numbers(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    client.ok("container.query", json!([])).await[0]["id"].is_i64()
}

async fn start_is_a_call(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, false).await;
    let answer = client.ok("container.start", json!([id])).await;
    client.fails("container.start", json!([id])).await;
    let error = client.fails("container.restart", json!([id])).await;
    assert_eq!(error["code"], -32601);
    answer.is_null()
}

async fn stop_succeeds(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, true).await;
    // Something that does not want to end.
    let unit =
        "[Service]\\nExecStart=/bin/sleep infinity\\nExecStop=/bin/sleep 30\\nTimeoutStopSec=60\\n";
    let command = format!(
        "truenas-nsexec -n dev -- sh -c 'printf \"{unit}\" >/run/systemd/system/stay.service; for i in $(seq 100); do systemctl start stay && exit 0; sleep 0.1; done; exit 1'"
    );
    let row = client.host(&command).await;
    assert_eq!(row["state"], "SUCCESS", "{} {}", row["error"], row["logs_excerpt"]);
    let row = client.job("container.stop", json!([id])).await;
    let still =
        client.ok("container.get_instance", json!([id])).await["status"]["state"] == "RUNNING";
    client.job("container.stop", json!([id, {"force": true}])).await;
    row["state"] == "SUCCESS" && still
}

async fn delete_is_a_job(sim: &Sim, job: bool) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, false).await;
    let answer = client.ok("container.delete", json!([id])).await;
    if answer.is_i64() {
        assert_eq!(client.wait(&answer).await["state"], "SUCCESS");
    }
    let rows = client.ok("container.query", json!([[["name", "=", "dev"]]])).await;
    assert_eq!(rows, json!([]));
    answer.is_i64() == job
}

const DATASET: &str = "tank/.truenas_containers/containers/dev";

async fn orphan(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, false).await;
    let snapshot = json!([{"dataset": DATASET, "name": "a"}]);
    client.ok("pool.snapshot.create", snapshot).await;
    let refused = client.call("container.delete", json!([id])).await.is_err();
    // The row is gone, the dataset is not.
    assert_eq!(client.ok("container.query", json!([[["name", "=", "dev"]]])).await, json!([]));
    let left = client.ok("zfs.resource.query", json!([{"paths": [DATASET]}])).await != json!([]);
    if left {
        client.ok("zfs.resource.destroy", json!([{"path": DATASET, "recursive": true}])).await;
    }
    refused && left
}

async fn snapshots_are_kept(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, false).await;
    let row =
        client.host(&format!("zfs snapshot {DATASET}@a && zfs clone {DATASET}@a tank/fork")).await;
    assert_eq!(row["state"], "SUCCESS", "{}", row["logs_excerpt"]);
    let row = client.job("container.delete", json!([id])).await;
    let kept = row["exc_info"]["extra"][0][2] == 39;
    if kept {
        client.done("container.delete", json!([id, {"recursive": true}])).await;
    }
    // The forks went with it.
    let forks = client.ok("pool.dataset.query", json!([[["id", "=", "tank/fork"]]])).await;
    assert_eq!(forks, json!([]));
    kept
}

async fn no_address(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, true).await;
    let row = client.ok("container.get_instance", json!([id])).await;
    row.get("aliases").is_none() && row.get("image").is_none()
}

async fn protected(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    let create = json!([{"dataset": DATASET, "name": "x"}]);
    let refused = client.call("pool.snapshot.create", create).await.is_err();
    // The host's shell may.
    let row = client
        .host(&format!(
            "zfs snapshot {DATASET}@y; zfs destroy {DATASET}@y; zfs destroy {DATASET}@x; true"
        ))
        .await;
    assert_eq!(row["state"], "SUCCESS");
    refused
}

async fn rootfs(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, true).await;
    let path = "/mnt/.truenas_containers/tank/containers/dev/root/marker";
    client.ok("filesystem.file_receive", json!([path, "aGk="])).await;
    let row = client.host("truenas-nsexec -n dev -- rm /root/marker").await;
    row["state"] == "SUCCESS"
}

async fn script(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, true).await;
    let options = json!({"container_id": id, "command": "stty -echo; hostname; echo __RC=$?__"});
    let said = shell::talk(sim, options, "", "").await;
    said.contains("dev\r\n") && said.contains("__RC=0__")
}

async fn hostname(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let id = dev(&mut client, true).await;
    let row = client.host("truenas-nsexec -n dev -- sh -c 'echo other >/etc/hostname'").await;
    assert_eq!(row["state"], "SUCCESS", "{}", row["logs_excerpt"]);
    client.done("container.stop", json!([id, {"force": true}])).await;
    client.ok("container.start", json!([id])).await;
    let row = client.host("truenas-nsexec -n dev -- cat /etc/hostname").await;
    assert_eq!(row["state"], "SUCCESS", "{}", row["logs_excerpt"]);
    eprintln!("/etc/hostname: {}", row["logs_excerpt"]);
    row["logs_excerpt"] == "dev\n"
}
