//! Event sources: with arguments, again and again, until somebody has enough.

use libtest_mimic::Trial;
use nas_sim::{Release, Sim};
use serde_json::{Value, json};

use crate::client::Client;
use crate::rig::{big, small, test};
use crate::{traps_25, traps_26};

pub fn tests() -> Vec<Trial> {
    vec![
        test("sources::realtime", || Box::pin(realtime())),
        test("sources::rights", || Box::pin(rights())),
        big("sources::metrics_25", Release::V25_10, |s| Box::pin(metrics_25(s))),
        big("sources::metrics_26", Release::V26Rc, |s| Box::pin(metrics_26(s))),
    ]
}

/// The next event of a source.
async fn told(client: &mut Client, collection: &str) -> Value {
    loop {
        let message = match client.events.pop_front() {
            Some(message) => message,
            None => client.next().await.expect("the connection stays open"),
        };
        if message["params"]["collection"] == collection {
            return message;
        }
    }
}

async fn realtime() {
    let set = small(Release::V25_10, |_| {}).await;
    let mut client = Client::root(&set.sim).await;
    let name = r#"reporting.realtime:{"interval":2}"#;
    let id = client.ok("core.subscribe", json!([name])).await;
    // It comes again by itself.
    for _ in 0..2 {
        let event = told(&mut client, name).await;
        assert_eq!(
            (&event["method"], &event["params"]["msg"]),
            (&json!("collection_update"), &json!("added"))
        );
        assert!(event["params"].get("id").is_none());
        let fields = &event["params"]["fields"];
        let keys: Vec<_> = fields.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["cpu", "disks", "interfaces", "memory", "pools", "zfs"]);
        assert!(fields["memory"]["physical_memory_total"].as_u64().unwrap() > 0);
        assert!(fields["cpu"]["cpu0"]["usage"].is_number());
        assert!(fields["pools"]["tank"]["available"].as_i64().unwrap() > 0);
    }
    client.ok("core.unsubscribe", json!([id])).await;
    let end = told(&mut client, name).await;
    assert_eq!(end["method"], "notify_unsubscribed");
    assert_eq!(end["params"], json!({"collection": name, "error": null}));
    // `*` means plain events only.
    client.ok("core.subscribe", json!(["*"])).await;
    let mut other = Client::root(&set.sim).await;
    other.ok("core.subscribe", json!(["reporting.realtime"])).await;
    told(&mut other, "reporting.realtime").await;
    client.ok("core.ping", json!([])).await;
    assert!(client.events.iter().all(|e| e["params"]["collection"] != "reporting.realtime"));
    // What is wrong with the arguments is told as the end of the subscription.
    for (given, text) in [
        (r#"{"interval":1}"#, "Input should be greater than or equal to 2"),
        (r#"{"often":2}"#, "Extra inputs are not permitted"),
        ("2", "Input should be a valid dictionary"),
        ("every so often", "Input should be a valid dictionary"),
    ] {
        let name = format!("reporting.realtime:{given}");
        client.ok("core.subscribe", json!([name])).await;
        let end = told(&mut client, &name).await;
        assert_eq!(end["method"], "notify_unsubscribed");
        let error = &end["params"]["error"];
        assert_eq!((&error["error"], &error["errname"]), (&json!(22), &json!("EINVAL")));
        assert_eq!(error["extra"][0][1], text);
    }
}

async fn rights() {
    for release in [Release::V25_04, Release::V26Rc] {
        let mut key = String::new();
        let set = small(release, |o| key = o.add_user("guest", &["VIRT_INSTANCE_READ"])).await;
        let mut client = Client::anonymous(&set.sim, "/api/current", true).await;
        let error = client.fails("core.subscribe", json!(["reporting.realtime"])).await;
        assert_eq!(error["data"]["error"], 207);
        client.login("guest", &key).await;
        for no in ["reporting.realtime", "container.metrics", "no.such.event", "*", "cronjob.query"]
        {
            let error = client.fails("core.subscribe", json!([no])).await;
            assert_eq!(error["data"]["reason"], "[EACCES] Not authorized", "{no}");
        }
        for name in ["virt.instance.metrics", "virt.instance.agent_running"] {
            match release.is_26() {
                true => drop(client.fails("core.subscribe", json!([name])).await),
                false => assert!(client.ok("core.subscribe", json!([name])).await.is_string()),
            }
        }
        client.ok("core.subscribe", json!(["core.get_jobs"])).await;
    }
}

fn measured(of: &Value) {
    assert!(of["mem_usage"]["mem_usage_ram_mib"].is_number(), "{of}");
    assert!(of["cpu"]["cpu_user_percentage"].is_number(), "{of}");
    assert!(of["pids_current"]["pids_current_pids_pids"].as_f64().unwrap() > 0.0, "{of}");
}

async fn metrics_25(sim: &Sim) {
    let mut client = Client::root(sim).await;
    traps_25::dev(&mut client, true).await;
    client.ok("core.subscribe", json!(["virt.instance.metrics"])).await;
    measured(&told(&mut client, "virt.instance.metrics").await["params"]["fields"]["dev"]);
}

async fn metrics_26(sim: &Sim) {
    let mut client = Client::root(sim).await;
    let id = traps_26::dev(&mut client, true).await;
    let name = r#"container.metrics:{"interval":2}"#;
    client.ok("core.subscribe", json!([name])).await;
    measured(&told(&mut client, name).await["params"]["fields"][id.to_string()]);
}
