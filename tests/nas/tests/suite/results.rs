//! Every method of every release, called so that it succeeds: what it gives is held against its
//! model by the simulator itself (`check_results`), and one that does not fit is an error.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use nas_sim::{Release, Sim, totp};
use serde_json::{Value, json};

use crate::client::{Client, http};
use crate::pool_traps::form;
use crate::rig::{big, small, test};
use crate::{shell, traps_25, traps_26};

pub fn tests() -> Vec<Trial> {
    let mut all = vec![test("results::misfit", || Box::pin(misfit()))];
    for release in Release::ALL {
        all.push(test(&format!("results::plain_{release:?}"), move || Box::pin(plain(release))));
        let name = format!("results::containers_{release:?}");
        all.push(big(&name, release, move |sim| Box::pin(containers(sim, release))));
    }
    all
}

/// What needs containers or a host.
fn needs_host(method: &str) -> bool {
    let spaces = [
        "virt.",
        "container.",
        "lxc.",
        "cronjob.run",
        "core.job_download_logs",
        "core.resize_shell",
    ];
    spaces.iter().any(|s| method.starts_with(s))
}

/// A client that notes what it called.
struct Caller {
    client: Client,
    called: BTreeSet<String>,
}

impl Caller {
    async fn ok(&mut self, method: &str, params: Value) -> Value {
        self.called.insert(method.to_owned());
        self.client.ok(method, params).await
    }

    async fn done(&mut self, method: &str, params: Value) -> Value {
        self.called.insert(method.to_owned());
        self.client.done(method, params).await
    }

    /// A row through its life: made, shown, changed, and its id.
    async fn row(&mut self, space: &str, new: Value, change: Value) -> Value {
        let row = self.ok(&format!("{space}.create"), json!([new])).await;
        let id = row["id"].clone();
        assert_eq!(self.ok(&format!("{space}.get_instance"), json!([id])).await["id"], id);
        let shown = self.ok(&format!("{space}.update"), json!([id, change])).await;
        assert_eq!(shown["id"], id);
        let rows = self.ok(&format!("{space}.query"), json!([[["id", "=", id]]])).await;
        assert_eq!(rows.as_array().map(Vec::len), Some(1));
        id
    }

    /// What was told of rows fits, too; of 25.x' containers only a part is told of changes.
    fn events(&self, sim: &Sim, release: Release) {
        let methods = sim.methods();
        let mut seen = BTreeSet::new();
        for event in &self.client.events {
            let params = &event["params"];
            let collection = params["collection"].as_str().unwrap_or_default();
            let part = collection == "virt.instance.query" && params["msg"] == "changed";
            if part || params["msg"] == "removed" || !methods.iter().any(|m| m == collection) {
                continue;
            }
            let rows = json!([params["fields"]]);
            let misfits = nas_sim::misfits(release, collection, &json!([]), &rows);
            assert!(misfits.is_empty(), "{collection}: {misfits:?} in {params}");
            seen.insert(collection.to_owned());
        }
        assert!(seen.contains("core.get_jobs"), "{seen:?}");
        let host = if release.is_26() { "container.query" } else { "virt.instance.query" };
        assert!(seen.contains("pool.dataset.query") || seen.contains(host), "{seen:?}");
    }

    /// All methods that `which` holds for were called.
    fn all(&self, sim: &Sim, which: impl Fn(&str) -> bool) {
        let methods = sim.methods();
        let missed: Vec<_> =
            methods.iter().filter(|m| which(m) && !self.called.contains(*m)).collect();
        assert!(missed.is_empty(), "not called: {missed:?}");
    }
}

/// A result that does not fit is noticed: trap 30's absence makes an id of the wrong kind, but the
/// check is off then; so look at the check itself.
async fn misfit() {
    let wrong = nas_sim::misfits(Release::V25_10, "system.version", &json!([]), &json!(5));
    assert_eq!(wrong, ["result: Input should be a valid string"]);
    let row = json!([[{"enabled": true}], {"count": true}]);
    assert_eq!(
        nas_sim::misfits(Release::V26Rc, "cronjob.query", &json!([[], {}]), &row[0]).len(),
        7
    );
    let count = nas_sim::misfits(Release::V26Rc, "cronjob.query", &row, &json!(1));
    assert!(count.is_empty(), "{count:?}");
    assert_eq!(nas_sim::misfits(Release::V26Rc, "virt.no", &json!([]), &row), ["no such method"]);
}

async fn plain(release: Release) {
    let secret = "GEZDGNBVGY3TQOJQ";
    let set = small(release, |o| {
        o.add_user("second", &["READONLY_ADMIN"]);
        o.users[1].otp = Some(secret.into());
    })
    .await;
    let sim = &set.sim;
    let client = Client::root(sim).await;
    let mut c = Caller { client, called: BTreeSet::from(["auth.login_ex".to_owned()]) };
    c.client.ok("core.subscribe", json!(["*"])).await;
    logins(sim, &mut c, secret).await;
    core(sim, &mut c).await;
    for method in ["version", "version_short", "info", "boot_id", "ready", "state", "global.id"] {
        c.ok(&format!("system.{method}"), json!([])).await;
    }
    let key =
        json!({"name": "k", "username": "root", "expires_at": {"$date": 4_102_444_800_000_i64}});
    let id = c.row("api_key", key, json!({"reset": true})).await;
    c.ok("api_key.delete", json!([id])).await;
    c.ok("interface.query", json!([])).await;
    c.ok("interface.get_instance", json!(["eno1"])).await;
    c.ok("network.general.summary", json!([])).await;
    c.ok("network.configuration.config", json!([])).await;
    let cron = json!({"user": "root", "command": "true"});
    let id = c.row("cronjob", cron, json!({"enabled": false})).await;
    c.ok("cronjob.delete", json!([id])).await;
    let script = json!({"type": "COMMAND", "command": "true", "when": "POSTINIT"});
    let id = c.row("initshutdownscript", script, json!({"enabled": false})).await;
    c.ok("initshutdownscript.delete", json!([id])).await;
    files(sim, &mut c).await;
    datasets(release, &mut c).await;
    c.events(sim, release);
    c.all(sim, |m| !needs_host(m));
}

async fn logins(sim: &Sim, c: &mut Caller, secret: &str) {
    let mut other = Caller {
        client: Client::anonymous(sim, "/api/current", true).await,
        called: BTreeSet::new(),
    };
    let password =
        json!([{"mechanism": "PASSWORD_PLAIN", "username": "second", "password": "second"}]);
    // A code may run out between here and there.
    for attempt in 0.. {
        let answer = other.ok("auth.login_ex", password.clone()).await;
        assert_eq!(answer["response_type"], "OTP_REQUIRED");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let code = totp(secret, now.as_millis() as i64).unwrap();
        let code = json!([{"mechanism": "OTP_TOKEN", "otp_token": code}]);
        let answer = other.ok("auth.login_ex_continue", code).await;
        if answer["response_type"] == "SUCCESS" {
            break;
        }
        assert!(attempt < 2, "{answer}");
    }
    assert_eq!(other.ok("auth.logout", json!([])).await, true);
    assert_eq!(other.ok("auth.login", json!(["root", "root"])).await, true);
    assert_eq!(other.ok("auth.login_with_api_key", json!([sim.keys[0]])).await, true);
    let token = other.ok("auth.generate_token", json!([])).await;
    assert_eq!(other.ok("auth.login_with_token", json!([token])).await, true);
    other.ok("auth.me", json!([])).await;
    other.ok("auth.sessions", json!([])).await;
    other.ok("auth.mechanism_choices", json!([])).await;
    c.called.append(&mut other.called);
}

async fn core(sim: &Sim, c: &mut Caller) {
    c.ok("core.ping", json!([])).await;
    c.ok("core.set_options", json!([{"py_exceptions": false}])).await;
    let id = c.ok("core.subscribe", json!(["core.get_jobs"])).await;
    let job = c.ok("core.bulk", json!(["core.ping", [[]]])).await;
    c.client.wait(&job).await;
    c.ok("core.job_abort", json!([job])).await;
    c.ok("core.unsubscribe", json!([id])).await;
    c.done("core.job_wait", json!([job])).await;
    c.ok("core.get_jobs", json!([[["id", "=", job]], {"get": true}])).await;
    c.ok("core.get_jobs", json!([[], {"select": ["id"]}])).await;
    let error = c.client.fails("core.job_download_logs", json!([job, "log"])).await;
    assert_eq!(error["data"]["reason"], "[EFAULT] This job has no logs");
    let about = c.ok("core.get_methods", json!([])).await["filesystem.stat"].clone();
    let path = json!({"type": "string", "minLength": 1, "maxLength": 1024, "title": "path",
        "_name_": "path", "_required_": true});
    assert_eq!(about["accepts"], json!([path]));
    assert_eq!(about["returns"][0]["properties"]["size"], json!({"type": "integer"}));
    c.ok("core.get_services", json!([])).await;
    let link = c.ok("core.download", json!(["filesystem.get", ["/etc/hostname"], "name"])).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", link[1].as_str().unwrap());
    assert_eq!(http(sim, request.as_bytes()).await.0, 200);
    assert_eq!(c.client.wait(&link[0]).await["state"], "SUCCESS");
    // Without a request at its other end there is no pipe.
    let error = c.client.fails("filesystem.get", json!(["/etc/hostname"])).await;
    assert_eq!(error["data"]["reason"], "Pipe 'output' is not open");
    let error = c.client.fails("filesystem.put", json!(["/mnt/tank/f"])).await;
    assert_eq!(error["data"]["reason"], "Pipe 'input' is not open");
    c.called.extend(["filesystem.get".to_owned(), "filesystem.put".to_owned()]);
}

async fn files(sim: &Sim, c: &mut Caller) {
    let path = "/mnt/tank/folder";
    c.ok("filesystem.mkdir", json!([{"path": path}])).await;
    c.ok("filesystem.file_receive", json!([format!("{path}/file"), "aGVsbG8K"])).await;
    c.ok("filesystem.stat", json!([format!("{path}/file")])).await;
    c.ok("filesystem.listdir", json!([path])).await;
    c.ok("filesystem.listdir", json!([path, [], {"count": true}])).await;
    c.ok("filesystem.statfs", json!([path])).await;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    c.done("filesystem.chown", json!([{"path": path, "uid": own.0, "gid": own.1}])).await;
    c.done("filesystem.setperm", json!([{"path": path, "mode": "755"}])).await;
    let data = json!({"method": "filesystem.put", "params": [format!("{path}/up")]}).to_string();
    let (status, body) =
        http(sim, &form(&sim.keys[0], &[("data", &data), ("file", "hello")])).await;
    assert_eq!(status, 200, "{body}");
    let id = serde_json::from_str::<Value>(&body).unwrap()["job_id"].clone();
    assert_eq!(c.client.wait(&id).await["result"], true);
}

async fn datasets(release: Release, c: &mut Caller) {
    c.ok("pool.query", json!([])).await;
    let row = c.row("pool.dataset", json!({"name": "tank/a"}), json!({"comments": "b"})).await;
    assert_eq!(row, "tank/a");
    let child = json!([{"name": "tank/a/b"}]);
    c.ok("pool.dataset.create", child).await;
    let tree = json!([[["id", "=", "tank"]], {"extra": {"flat": false}, "get": true}]);
    let tree = c.ok("pool.dataset.query", tree).await;
    assert_eq!(tree["children"][0]["children"][0]["id"], "tank/a/b");
    let flat = json!([[], {"extra": {"retrieve_children": false}, "order_by": ["id"]}]);
    let flat = c.ok("pool.dataset.query", flat).await;
    assert_eq!((&flat[2]["id"], &flat[0]["children"]), (&json!("tank/a/b"), &json!([])));
    c.ok("pool.dataset.delete", json!(["tank/a/b"])).await;
    let volume = json!([{"name": "tank/v", "type": "VOLUME", "volsize": 1 << 30}]);
    let row = c.ok("pool.dataset.create", volume).await;
    assert_eq!((&row["volsize"]["parsed"], &row["mountpoint"]), (&json!(1 << 30), &Value::Null));
    let families: &[&str] = match release {
        Release::V25_04 => &["zfs.snapshot"],
        Release::V25_10 => &["zfs.snapshot", "pool.snapshot"],
        _ => &["pool.snapshot"],
    };
    for family in families {
        snapshots(family, c).await;
    }
    if release >= Release::V25_10 {
        let rows = c.ok("zfs.resource.query", json!([{"get_source": true}])).await;
        assert_eq!(rows[0]["name"], "tank");
        let all = json!({"get_children": true, "nest_results": true, "properties": ["used"]});
        let rows = c.ok("zfs.resource.query", json!([all])).await;
        assert_eq!(rows[0]["children"][0]["name"], "tank/a");
        let keys: Vec<_> = rows[0]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["used"]);
        let none = json!([{"paths": ["tank/a"], "properties": null}]);
        assert_eq!(c.ok("zfs.resource.query", none).await[0]["properties"], json!({}));
        c.ok("pool.dataset.rename", json!(["tank/a", {"new_name": "tank/b", "force": true}])).await;
        c.ok("pool.dataset.rename", json!(["tank/b", {"new_name": "tank/a", "force": true}])).await;
    }
    if release.is_26() {
        let create = json!({"dataset": "tank/a", "name": "r", "user_properties": {"a:b": "c"}});
        c.ok("zfs.resource.snapshot.create", json!([create])).await;
        let all = json!([{"paths": ["tank/a"], "get_holds": true, "get_user_properties": true}]);
        c.ok("zfs.resource.snapshot.hold", json!([{"path": "tank/a@r"}])).await;
        c.ok("zfs.resource.snapshot.query", all).await;
        c.ok("zfs.resource.snapshot.count", json!([{}])).await;
        c.ok("zfs.resource.snapshot.holds", json!([{"path": "tank/a@r"}])).await;
        c.ok("zfs.resource.snapshot.release", json!([{"path": "tank/a@r"}])).await;
        let clone = json!([{"snapshot": "tank/a@r", "dataset": "tank/c"}]);
        c.ok("zfs.resource.snapshot.clone", clone).await;
        c.ok("zfs.resource.destroy", json!([{"path": "tank/c"}])).await;
        let rename = json!([{"current_name": "tank/a@r", "new_name": "tank/a@s"}]);
        c.ok("zfs.resource.snapshot.rename", rename).await;
        c.ok("zfs.resource.snapshot.rollback", json!([{"path": "tank/a@s"}])).await;
        c.ok("zfs.resource.snapshot.destroy", json!([{"path": "tank/a@s"}])).await;
    }
    assert_eq!(c.ok("pool.dataset.delete", json!(["tank/a", {"recursive": true}])).await, true);
}

async fn snapshots(family: &str, c: &mut Caller) {
    let m = |verb: &str| format!("{family}.{verb}");
    c.ok(&m("create"), json!([{"dataset": "tank/a", "name": "one"}])).await;
    c.ok(&m("query"), json!([[], {"extra": {"holds": true, "retention": true}}])).await;
    c.ok(&m("get_instance"), json!(["tank/a@one"])).await;
    let change = json!({"user_properties_update": [{"key": "a:b", "value": "c"}]});
    c.ok(&m("update"), json!(["tank/a@one", change])).await;
    c.ok(&m("hold"), json!(["tank/a@one"])).await;
    c.ok(&m("release"), json!(["tank/a@one"])).await;
    c.ok(&m("rollback"), json!(["tank/a@one"])).await;
    let clone = json!([{"snapshot": "tank/a@one", "dataset_dst": "tank/clone"}]);
    assert_eq!(c.ok(&m("clone"), clone).await, true);
    c.ok("pool.dataset.promote", json!(["tank/clone"])).await;
    c.ok("pool.dataset.promote", json!(["tank/a"])).await;
    c.ok("pool.dataset.delete", json!(["tank/clone"])).await;
    let name = match family {
        "pool.snapshot" => {
            let rename = json!(["tank/a@one", {"new_name": "tank/a@two", "force": true}]);
            c.ok(&m("rename"), rename).await;
            "tank/a@two"
        }
        _ => "tank/a@one",
    };
    assert_eq!(c.ok(&m("delete"), json!([name])).await, true);
}

async fn containers(sim: &Sim, release: Release) {
    let client = Client::root(sim).await;
    let mut c = Caller { client, called: BTreeSet::new() };
    c.client.ok("core.subscribe", json!(["*"])).await;
    let cron =
        json!([{"user": "root", "command": "echo hello", "enabled": false, "stdout": false}]);
    let id = c.client.ok("cronjob.create", cron).await["id"].clone();
    let job = c.ok("cronjob.run", json!([id])).await;
    assert_eq!(c.client.wait(&job).await["logs_excerpt"], "hello\n");
    let link = c.ok("core.job_download_logs", json!([job, "log"])).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", link.as_str().unwrap());
    assert_eq!(http(sim, request.as_bytes()).await, (200, "6\r\nhello\n\r\n0\r\n\r\n".into()));
    c.client.ok("cronjob.delete", json!([id])).await;
    shell::talk(sim, json!({}), "exit\n", "").await;
    c.called.insert("core.resize_shell".into());
    match release.is_26() {
        true => new(&mut c, release).await,
        false => old(&mut c, release).await,
    }
    c.events(sim, release);
    c.all(sim, needs_host);
}

async fn old(c: &mut Caller, release: Release) {
    let config = c.ok("virt.global.config", json!([])).await;
    c.done("virt.global.update", json!([{"bridge": "[AUTO]"}])).await;
    assert_eq!(c.ok("virt.global.config", json!([])).await, config);
    for choices in ["pool_choices", "bridge_choices"] {
        c.ok(&format!("virt.global.{choices}"), json!([])).await;
    }
    c.ok("virt.global.get_network", json!(["incusbr0"])).await;
    for (choices, params) in [
        ("nic", json!(["MACVLAN"])),
        ("disk", json!([])),
        ("gpu", json!(["PHYSICAL"])),
        ("usb", json!([])),
        ("pci", json!([])),
    ] {
        c.ok(&format!("virt.device.{choices}_choices"), params).await;
    }
    c.ok("virt.instance.image_choices", json!([])).await;
    let new = json!([{"name": "models", "image": "debian/12", "autostart": false, "environment": {"A": "b"}}]);
    c.done("virt.instance.create", new).await;
    c.done("virt.instance.start", json!(["models"])).await;
    for options in [json!({}), json!({"extra": {"raw": true}}), json!({"count": true})] {
        c.ok("virt.instance.query", json!([[], options])).await;
    }
    c.ok("virt.instance.get_instance", json!(["models"])).await;
    c.done("virt.instance.restart", json!(["models", {"force": true}])).await;
    c.done("virt.instance.stop", json!(["models", {"force": true}])).await;
    c.done("virt.instance.update", json!(["models", {"cpu": "1", "autostart": false}])).await;
    let mut proxy = json!({"dev_type": "PROXY", "name": "web", "source_proto": "TCP",
        "source_port": 18080, "dest_proto": "TCP", "dest_port": 80});
    c.ok("virt.instance.device_add", json!(["models", proxy])).await;
    proxy["dest_port"] = json!(81);
    c.ok("virt.instance.device_update", json!(["models", proxy])).await;
    let devices = c.ok("virt.instance.device_list", json!(["models"])).await;
    assert_eq!(devices.as_array().map(Vec::len), Some(3));
    c.ok("virt.instance.device_delete", json!(["models", "web"])).await;
    assert_eq!(c.done("virt.instance.delete", json!(["models"])).await, true);
    if release == Release::V25_10 {
        // There is nothing that it could succeed on.
        traps_25::dev(&mut c.client, false).await;
        let disk = json!(["dev", {"disk": "root"}]);
        c.client.fails("virt.instance.set_bootable_disk", disk).await;
        c.called.insert("virt.instance.set_bootable_disk".into());
    }
    volumes(c).await;
}

async fn volumes(c: &mut Caller) {
    let add = |name: &str| json!([{"name": name, "size": 512}]);
    c.client.ok("core.subscribe", json!(["virt.volume.query"])).await;
    let row = c.ok("virt.volume.create", add("disk-a")).await;
    assert_eq!((&row["content_type"], &row["config"]["size"]), (&json!("BLOCK"), &json!(512)));
    let error = c.client.fails("virt.volume.create", add("disk-a")).await;
    let exists = "Volume with this name already exists";
    let extra = json!([["virt_volume_create.name", exists, 22]]);
    assert_eq!(error["data"]["extra"], extra);
    let error = c.client.fails("virt.volume.create", add("-a")).await;
    assert_eq!(error["data"]["extra"][0][0], "virt_volume_create.name");
    let error = c.client.fails("virt.volume.create", json!([{"name": "b2", "size": 511}])).await;
    let text = "Input should be greater than or equal to 512";
    assert_eq!(error["data"]["extra"], json!([["virt_volume_create.size", text, 22]]));
    c.ok("virt.volume.get_instance", json!(["disk-a"])).await;
    let row = c.ok("virt.volume.update", json!(["disk-a", {"size": 600}])).await;
    assert_eq!(row["config"]["size"], 600);
    // One of the pool's own becomes one: renamed, or by a copy.
    let zvol = json!([{"name": "tank/vol", "type": "VOLUME", "volsize": 1 << 30}]);
    c.client.ok("pool.dataset.create", zvol).await;
    let choices = c.ok("virt.device.disk_choices", json!([])).await;
    assert_eq!(choices, json!({"/dev/zvol/tank/vol": "/dev/zvol/tank/vol"}));
    let import = |path: &str, name: &str, clone: bool| json!([{"to_import": [{"virt_volume_name": name, "zvol_path": path}], "clone": clone}]);
    c.done("virt.volume.import_zvol", import("/dev/zvol/tank/vol", "copied", true)).await;
    c.done("virt.volume.import_zvol", import("/dev/zvol/tank/vol", "moved", false)).await;
    let row =
        c.client.job("virt.volume.import_zvol", import("/dev/zvol/tank/vol", "x1", false)).await;
    let extra = &row["exc_info"]["extra"][0];
    assert_eq!(extra[0], "virt_volume_import_zvol.import.0.entry.zvol_path");
    // An image for a machine's first boot.
    c.client.ok("filesystem.file_receive", json!(["/mnt/tank/boot.iso", "aGVsbG8K"])).await;
    let iso = json!([{"name": "boot", "iso_location": "/mnt/tank/boot.iso"}]);
    let row = c.done("virt.volume.import_iso", iso.clone()).await;
    assert_eq!(row["content_type"], "ISO");
    let row = c.client.job("virt.volume.import_iso", iso).await;
    assert_eq!(row["exc_info"]["errno"], 17);
    let row =
        c.client.job("virt.volume.import_iso", json!([{"name": "up", "upload_iso": true}])).await;
    assert_eq!(row["error"], "Pipe 'input' is not open");
    let rows =
        c.ok("virt.volume.query", json!([[], {"order_by": ["name"], "select": ["name"]}])).await;
    assert_eq!(
        rows,
        json!([{"name": "boot"}, {"name": "copied"}, {"name": "disk-a"}, {"name": "moved"}])
    );
    for name in ["boot", "copied", "disk-a", "moved"] {
        assert_eq!(c.ok("virt.volume.delete", json!([name])).await, true);
    }
    let error = c.client.fails("virt.volume.delete", json!(["boot"])).await;
    assert_eq!(error["data"]["extra"], json!([[null, "VirtVolume boot does not exist", 2]]));
    c.client.ok("filesystem.stat", json!(["/mnt/tank/boot.iso"])).await;
    let told: Vec<_> = c
        .client
        .events
        .iter()
        .filter(|e| e["params"]["collection"] == "virt.volume.query")
        .map(|e| (e["params"]["msg"].clone(), e["params"]["id"].clone()))
        .collect();
    assert_eq!(told[0], (json!("added"), json!("disk-a")));
    assert_eq!(told.last(), Some(&(json!("removed"), json!("moved"))));
}

async fn new(c: &mut Caller, release: Release) {
    c.ok("lxc.config", json!([])).await;
    c.ok("lxc.update", json!([{"bridge": null}])).await;
    c.ok("lxc.bridge_choices", json!([])).await;
    c.ok("container.pool_choices", json!([])).await;
    c.ok("container.image.query_registry", json!([])).await;
    c.done("container.migrate", json!([])).await;
    let id = c.done("container.create", traps_26::create("models")).await["id"].clone();
    c.ok("container.query", json!([[["id", "=", id]], {"get": true}])).await;
    for choices in ["nic_attach", "usb", "gpu"] {
        c.ok(&format!("container.device.{choices}_choices"), json!([])).await;
    }
    let nic = json!({"container": id, "attributes": {"dtype": "NIC", "type": "VIRTIO"}});
    let change = json!({"attributes": {"dtype": "NIC", "type": "E1000"}});
    let device = c.row("container.device", nic, change).await;
    c.ok("container.update", json!([id, {"description": "changed", "cpuset": "0"}])).await;
    c.ok("container.start", json!([id])).await;
    let row = c.ok("container.get_instance", json!([id])).await;
    assert_eq!(row["status"]["state"], "RUNNING");
    c.ok("container.nsenter", json!([row])).await;
    c.done("container.stop", json!([id, {"force": true}])).await;
    c.ok("container.device.delete", json!([device])).await;
    let dataset = "tank/.truenas_containers/containers/second";
    let host = "zfs snapshot tank/.truenas_containers/containers/models@m && \
        zfs clone tank/.truenas_containers/containers/models@m";
    let row = c.client.host(&format!("{host} {dataset}")).await;
    assert_eq!(row["state"], "SUCCESS", "{}", row["logs_excerpt"]);
    let second = json!([{"name": "second", "dataset": dataset, "autostart": false}]);
    let second = c.ok("container.create_with_dataset", second).await["id"].clone();
    c.called.insert("container.delete".into());
    match release {
        Release::V26Rc => {
            c.client.done("container.delete", json!([second])).await;
            c.client.done("container.delete", json!([id, {"recursive": true}])).await;
        }
        _ => {
            c.client.ok("container.delete", json!([second])).await;
            c.client.host("zfs destroy tank/.truenas_containers/containers/models@m").await;
            c.client.ok("container.delete", json!([id])).await;
        }
    }
}
