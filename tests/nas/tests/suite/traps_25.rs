//! Traps of 25.x' containers.

use std::time::Duration;

use libtest_mimic::Trial;
use nas_sim::{Release, Sim};
use serde_json::{Value, json};

use crate::client::Client;
use crate::shell;
use crate::trap::big;

pub fn tests() -> Vec<Trial> {
    let r = Release::V25_10;
    vec![
        big(24, r, |s| Box::pin(duplicate(s))),
        big(25, r, |s| Box::pin(not_initialized(s))),
        big(26, r, |s| Box::pin(partial(s))),
        big(27, r, |s| Box::pin(late_address(s))),
        big(28, r, |s| Box::pin(readonly(s))),
        big(29, r, |s| Box::pin(no_job(s))),
        big(30, r, |s| Box::pin(names(s))),
        big(41, r, |s| Box::pin(rootfs(s))),
        big(45, r, |s| Box::pin(cron(s))),
        big(46, r, |s| Box::pin(one_argument(s))),
        big(47, r, |s| Box::pin(queue(s))),
    ]
}

/// A container that is there, stopped or running.
pub async fn dev(client: &mut Client, running: bool) {
    let rows = client.ok("virt.instance.query", json!([[["name", "=", "dev"]]])).await;
    if rows == json!([]) {
        let create = json!([{"name": "dev", "image": "debian/12", "autostart": running}]);
        client.done("virt.instance.create", create).await;
    } else if running && rows[0]["status"] != "RUNNING" {
        client.done("virt.instance.start", json!(["dev"])).await;
    } else if !running && rows[0]["status"] == "RUNNING" {
        client.done("virt.instance.stop", json!(["dev", {"force": true}])).await;
    }
}

async fn duplicate(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    let create = json!([{"name": "dev", "image": "debian/12"}]);
    let row = client.job("virt.instance.create", create).await;
    assert_eq!(row["exc_info"]["type"], "VALIDATION");
    row["exc_info"]["extra"][0][2] == 22
}

async fn not_initialized(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    sim.control("virt-state ERROR").await.unwrap();
    let rows = client.ok("virt.instance.query", json!([])).await;
    let row = client.job("virt.instance.start", json!(["dev"])).await;
    assert_eq!(row["error"], "[EFAULT] Virtualization not initialized.");
    sim.control("virt-state auto").await.unwrap();
    rows == json!([])
}

async fn partial(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    client.ok("core.subscribe", json!(["virt.instance.query"])).await;
    client.done("virt.instance.start", json!(["dev"])).await;
    loop {
        let message = match client.events.pop_front() {
            Some(message) => message,
            None => client.next().await.unwrap(),
        };
        if message["params"]["msg"] == "changed" {
            assert_eq!(message["params"]["id"], "dev");
            return message["params"]["fields"] == json!({"status": "RUNNING"});
        }
    }
}

async fn addresses(client: &mut Client) -> Value {
    client.ok("virt.instance.get_instance", json!(["dev"])).await["aliases"].clone()
}

async fn late_address(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    sim.control("dhcp-delay 1500").await.unwrap();
    client.done("virt.instance.start", json!(["dev"])).await;
    let first = addresses(&mut client).await;
    sim.control("dhcp-delay 0").await.unwrap();
    for _ in 0..400 {
        if addresses(&mut client).await != json!([]) {
            return first == json!([]);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there is never an address");
}

async fn readonly(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    let devices = client.ok("virt.instance.device_list", json!(["dev"])).await;
    assert_eq!((&devices[0]["name"], &devices[1]["name"]), (&json!("eth0"), &json!("root")));
    client.fails("virt.instance.device_delete", json!(["dev", "eth0"])).await;
    devices[0]["readonly"] == true
}

async fn no_job(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    client.host("mkdir -p /mnt/tank/shared").await;
    let disk = json!({"dev_type": "DISK", "name": "work", "source": "/mnt/tank/shared", "destination": "/shared"});
    let added = client.ok("virt.instance.device_add", json!(["dev", disk])).await;
    let removed = client.ok("virt.instance.device_delete", json!(["dev", "work"])).await;
    let error = client.fails("virt.instance.device_delete", json!(["dev", "work"])).await;
    assert_eq!(error["data"]["reason"], "[ENOENT] Device not found.");
    added == true && removed == true
}

async fn names(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, false).await;
    client.ok("virt.instance.query", json!([])).await[0]["id"] == "dev"
}

async fn rootfs(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, true).await;
    let base = "/var/lib/incus/storage-pools/tank/containers/dev";
    let path = format!("{base}/rootfs/root/marker");
    client.ok("filesystem.file_receive", json!([path, "aGk="])).await;
    let row = client
        .host("incus exec dev -- cat /root/marker && incus exec dev -- rm /root/marker")
        .await;
    row["state"] == "SUCCESS"
}

async fn cron(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let mut run = async |command: &str, hide: bool| {
        let cron = json!([{"user": "root", "command": command, "stdout": hide, "enabled": false}]);
        let row = client.ok("cronjob.create", cron).await;
        let job = client.job("cronjob.run", json!([row["id"]])).await;
        client.ok("cronjob.delete", json!([row["id"]])).await;
        (row, job)
    };
    let (row, _) = run("echo a\n echo b", false).await;
    let dropped = row["command"] == "echo a echo b";
    let hidden = run("echo hello", true).await.1["logs_excerpt"] == "";
    let shown =
        run("seq 30", false).await.1["logs_excerpt"].as_str().unwrap_or_default().to_owned();
    let lines = shown.lines().count() == 21 && shown.starts_with("1\n") && shown.ends_with("30\n");
    let failed = run("exit 7", false).await.1;
    assert_eq!(
        failed["error"],
        "[EFAULT] CronTask \"exit 7\" exited with 7 (non-zero) exit status."
    );
    dropped && hidden && lines
}

async fn one_argument(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    dev(&mut client, true).await;
    let options = |command: &str| json!({"virt_instance_id": "dev", "command": command});
    let said = shell::talk(sim, options("hostname"), "", "").await;
    assert!(said.contains("dev\r\n"), "{said}");
    let said = shell::talk(sim, options("echo hello"), "", "").await;
    !said.contains("hello\r\n")
}

async fn queue(sim: &Sim) -> bool {
    let mut client = Client::root(sim).await;
    let cron = json!([{"user": "root", "command": "sleep 1", "enabled": false}]);
    let id = client.ok("cronjob.create", cron).await["id"].clone();
    let first = client.ok("cronjob.run", json!([id])).await;
    while client.ok("core.get_jobs", json!([[["id", "=", first]]])).await[0]["state"] == "WAITING" {
    }
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(client.ok("cronjob.run", json!([id])).await);
    }
    for job in &jobs {
        client.wait(job).await;
    }
    client.ok("cronjob.delete", json!([id])).await;
    jobs[0] == jobs[1] && jobs[1] == jobs[2] && jobs[0] != first
}
