//! What is real behind the wire: sshd, Incus' own commands, events of guests, aborted commands.

use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::{Release, Sim};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::client::{Client, LIMIT};
use crate::rig::big;
use crate::shell;
use crate::traps_25::dev as old;
use crate::traps_26::dev as new;

pub fn tests() -> Vec<Trial> {
    vec![
        big("containers::sshd", Release::V25_10, |s| Box::pin(greets(s))),
        big("containers::incus_and_zfs", Release::V25_10, |s| Box::pin(incus_and_zfs(s))),
        big("containers::properties", Release::V26Rc, |s| Box::pin(properties(s))),
        big("containers::poweroff", Release::V26Rc, |s| Box::pin(poweroff(s))),
        big("containers::schedule", Release::V26Beta, |s| Box::pin(schedule(s))),
        big("containers::console", Release::V25_10, |s| Box::pin(console(s))),
        big("containers::abort", Release::V25_10, |s| Box::pin(abort(s))),
        big("containers::host_shell", Release::V26Rc, |s| Box::pin(host_shell(s))),
        big("containers::devices", Release::V26Rc, |s| Box::pin(devices(s))),
    ]
}

/// Waits until the sshd of `dev` says who it is.
pub async fn sshd(client: &mut Client) {
    let address = loop {
        let row = client.ok("virt.instance.get_instance", json!(["dev"])).await;
        if let Some(address) = row["aliases"][0]["address"].as_str() {
            break address.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let banner = async {
        loop {
            if let Ok(mut stream) = tokio::net::TcpStream::connect((address.as_str(), 22)).await {
                let mut banner = [0; 8];
                if stream.read_exact(&mut banner).await.is_ok() {
                    return banner;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(&tokio::time::timeout(LIMIT, banner).await.expect("sshd answers"), b"SSH-2.0-");
}

async fn greets(sim: &Sim) {
    let mut client = Client::root(sim).await;
    old(&mut client, true).await;
    sshd(&mut client).await;
}

async fn incus_and_zfs(sim: &Sim) {
    let mut client = Client::root(sim).await;
    old(&mut client, false).await;
    let dataset = "tank/.ix-virt/containers/dev";
    client.ok("pool.snapshot.create", json!([{"dataset": dataset, "name": "ours"}])).await;
    // Incus does not know what ZFS snapshotted; ZFS sees what Incus did.
    assert_eq!(client.host("incus copy dev/ours twin").await["state"], "FAILED");
    let row = client.host("incus snapshot create dev theirs && incus copy dev/theirs twin").await;
    assert_eq!(row["state"], "SUCCESS", "{}", row["logs_excerpt"]);
    let names = json!([[["dataset", "=", dataset]], {"select": ["snapshot_name"], "order_by": ["snapshot_name"]}]);
    let rows = client.ok("pool.snapshot.query", names.clone()).await;
    assert_eq!(rows, json!([{"snapshot_name": "ours"}, {"snapshot_name": "snapshot-theirs"}]));
    assert_eq!(
        client.ok("virt.instance.query", json!([[["id", "=", "twin"]], {"count": true}])).await,
        1
    );
    client.done("virt.instance.delete", json!(["twin"])).await;
    client.host("incus snapshot delete dev theirs").await;
    client.ok("pool.snapshot.delete", json!([format!("{dataset}@ours")])).await;
    assert_eq!(client.ok("pool.snapshot.query", names).await, json!([]));
}

async fn properties(sim: &Sim) {
    let mut client = Client::root(sim).await;
    new(&mut client, false).await;
    let dataset = "tank/.truenas_containers/containers/dev";
    let command = format!(
        "zfs set a:b=one {dataset} && zfs snapshot -o c:d=two {dataset}@p && zfs get -H -o property,value,source a:b,c:d,e:f {dataset}@p; zfs destroy {dataset}@p; zfs inherit a:b {dataset}"
    );
    let row = client.host(&command).await;
    let said = format!("a:b\tone\tinherited from {dataset}\nc:d\ttwo\tlocal\ne:f\t-\t-\n");
    assert_eq!(row["logs_excerpt"], said);
}

/// A guest that ends by itself is told of.
async fn poweroff(sim: &Sim) {
    let mut client = Client::root(sim).await;
    let id = new(&mut client, true).await;
    client.ok("core.subscribe", json!(["container.query"])).await;
    client.host("truenas-nsexec -n dev -- sh -c 'kill -s RTMIN+14 1'").await;
    let told = async {
        loop {
            let message = match client.events.pop_front() {
                Some(message) => message,
                None => client.next().await.unwrap(),
            };
            let fields = &message["params"]["fields"];
            if message["params"]["id"] == id && fields["status"]["state"] == "STOPPED" {
                return fields.clone();
            }
        }
    };
    // All of the entry, not a part.
    assert_eq!(tokio::time::timeout(LIMIT, told).await.expect("an event")["name"], "dev");
}

/// The console of a guest, with somebody at its other end.
async fn console(sim: &Sim) {
    let mut client = Client::root(sim).await;
    old(&mut client, true).await;
    let options = json!({"virt_instance_id": "dev", "use_console": true});
    shell::talk(sim, options, "\n", "login:").await;
}

/// A cron job whose minute comes is run as a job, one that is disabled is not.
async fn schedule(sim: &Sim) {
    let mut client = Client::root(sim).await;
    let mut ids = Vec::new();
    for enabled in [true, false] {
        let cron = json!([{"user": "root", "command": "echo due", "enabled": enabled, "stdout": false,
            "schedule": {"minute": "*", "hour": "*", "dom": "*", "month": "*", "dow": "*"}}]);
        ids.push(client.ok("cronjob.create", cron).await["id"].clone());
    }
    sim.control("skew 60000").await.unwrap();
    let job = loop {
        let rows = client
            .ok(
                "core.get_jobs",
                json!([[["method", "=", "cronjob.run"], ["arguments.0", "in", ids]]]),
            )
            .await;
        if let Some(row) = rows.as_array().and_then(|r| r.first()) {
            break row.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    sim.control("skew 0").await.unwrap();
    let row = client.wait(&job["id"]).await;
    assert_eq!(row["arguments"], json!([ids[0], true]));
    assert_eq!(row["logs_excerpt"], "due\n");
    assert_eq!(row["credentials"]["type"], "UNIX_SOCKET");
    for id in ids {
        client.ok("cronjob.delete", json!([id])).await;
    }
}

async fn abort(sim: &Sim) {
    let mut client = Client::root(sim).await;
    let cron = json!([{"user": "root", "command": "sleep 30", "enabled": false}]);
    let id = client.ok("cronjob.create", cron).await["id"].clone();
    let job = client.ok("cronjob.run", json!([id])).await;
    while client.ok("core.get_jobs", json!([[["id", "=", job]]])).await[0]["state"] != "RUNNING" {}
    client.ok("core.job_abort", json!([job])).await;
    let row = client.wait(&job).await;
    assert_eq!((&row["state"], &row["result"]), (&json!("ABORTED"), &json!(null)));
    client.ok("cronjob.delete", json!([id])).await;
}

async fn host_shell(sim: &Sim) {
    let keys =
        "stty -echo; echo $((40+2))-$(hostname)-$(tput cols 2>/dev/null || stty size); exit\n";
    let said = shell::talk(sim, json!({}), keys, "42-truenas-").await;
    assert!(said.contains("42-truenas-"), "{said}");
}

async fn devices(sim: &Sim) {
    let mut client = Client::root(sim).await;
    let id = new(&mut client, false).await;
    client.host("mkdir -p /mnt/tank/shared && echo hello >/mnt/tank/shared/file").await;
    let add = |attributes| json!([{"container": id, "attributes": attributes}]);
    let folder = json!({"dtype": "FILESYSTEM", "source": "/mnt/tank/shared", "target": "/shared"});
    let disk = client.ok("container.device.create", add(folder)).await;
    let mac = "00:A0-98.1a:2b:3c";
    let nic = client
        .ok("container.device.create", add(json!({"dtype": "NIC", "type": "VIRTIO", "mac": mac})))
        .await;
    assert_eq!(nic["attributes"]["mac"], "00:a0:98:1a:2b:3c");
    client.ok("container.start", json!([id])).await;
    let row = client
        .host("truenas-nsexec -n dev -- sh -c 'cat /shared/file /sys/class/net/eth0/address'")
        .await;
    assert_eq!(row["logs_excerpt"], "hello\n00:a0:98:1a:2b:3c\n");
    client.fails("container.device.delete", json!([nic["id"]])).await;
    client.done("container.stop", json!([id, {"force": true}])).await;
    for device in [nic, disk] {
        client.ok("container.device.delete", json!([device["id"], {"force": true}])).await;
    }
}
