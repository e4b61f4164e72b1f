//! A cluster of two members: where sandboxes go, what is made ready, and a member that dies.

use std::io::BufRead;
use std::process::{Command as Program, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::Trial;
use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{
    Backend, Cancel, Capability, CloneSpec, Command, Error, Info, MemberState, Placement, Policy,
    Spec, Stock, exec,
};
use serde_json::Value;

use super::proxy::Proxy;
use super::rig::cluster::Cluster;
use super::{SOON, open_at, sh, wait};

type Test = (&'static str, fn(&mut Cluster));
/// Started by the first test that is run.
type Shared = Arc<Mutex<Option<(Cluster, tempfile::TempDir)>>>;

/// The cluster of the tests, for the end of them all.
#[derive(Clone, Default)]
pub struct Lazy(Shared);

impl Lazy {
    pub fn stop(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

pub fn trials(shared: &Lazy) -> Vec<Trial> {
    let tests: [Test; 7] = [
        ("cluster_sandboxes_go_where_they_should", sandboxes_go_where_they_should),
        ("cluster_images_are_brought_to_members", images_are_brought_to_members),
        ("cluster_a_members_network_is_its_own", a_members_network_is_its_own),
        ("cluster_evacuated_members_are_not_used", evacuated_members_are_not_used),
        ("cluster_a_member_dies_mid_exec", a_member_dies_mid_exec),
        ("cluster_a_member_dies_mid_matrix", a_member_dies_mid_matrix),
        ("cluster_the_member_that_is_asked_dies", the_member_that_is_asked_dies),
    ];
    tests
        .map(|(name, test)| {
            let shared = shared.clone();
            Trial::test(name, move || {
                let mut all = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                if all.is_none() {
                    let folder =
                        tempfile::Builder::new().prefix("sandscript-cluster-").tempdir()?;
                    *all = Some((Cluster::start(folder.path())?, folder));
                }
                test(&mut all.as_mut().ok_or("there is no cluster")?.0);
                Ok(())
            })
        })
        .into()
}

async fn open(cluster: &Cluster) -> IncusBackend {
    let config = IncusConfig {
        socket: Some(cluster.socket("a")),
        image: Some("small".into()),
        ..IncusConfig::default()
    };
    IncusBackend::open(config).await.unwrap()
}

fn program(cluster: &Cluster, home: &std::path::Path, args: &[&str]) -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_sandscript"));
    program
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .env("SANDSCRIPT_BACKEND", "incus")
        .env("SANDSCRIPT_GC_EVERY", "never")
        .env("SANDSCRIPT_NO_SESSION", "1")
        .env("INCUS_SOCKET", cluster.socket("a"))
        .current_dir(home);
    program
}

fn on(target: &str) -> Option<Placement> {
    Some(target.parse().unwrap())
}

fn sandboxes_go_where_they_should(cluster: &mut Cluster) {
    let home = tempfile::tempdir().unwrap();
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        let can = backend.capabilities();
        assert!(can.has(Capability::Cluster));
        // What the machine of the program has says nothing of the members'.
        for unknown in [Capability::Freeze, Capability::Mounts] {
            assert!(can.missing.contains_key(&unknown), "{unknown:?}");
        }
        let members = backend.members(&cancel).await.unwrap();
        let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let cpus = std::thread::available_parallelism().unwrap().get();
        for member in &members {
            assert_eq!((member.state, member.cpus), (MemberState::Online, cpus));
            assert!((1..=2 * cpus).contains(&member.capacity()));
        }
        assert!((2..=4 * cpus).contains(&can.parallelism), "{}", can.parallelism);

        let create = async |name: &str, target: Option<Placement>| {
            backend.create(&Spec { target, ..Spec::new(name) }, &cancel).await
        };
        let place = |info: &sandscript::sandbox::Info| info.member.clone().unwrap();
        assert_eq!(place(&create("on-b", on("b")).await.unwrap()), "b");
        assert_eq!(place(&create("in-blue", on("@blue")).await.unwrap()), "a");
        assert_eq!(sh(&backend, "on-b", "hostname").await, "on-b");
        // The cluster's own choice: its members have as many each.
        for name in ["one", "two"] {
            create(name, None).await.unwrap();
        }
        let all = backend.list(&cancel).await.unwrap();
        let here = |at: &str| all.iter().filter(|info| info.member.as_deref() == Some(at)).count();
        assert_eq!((here("a"), here("b")), (2, 2));

        // A clone is beside its source, where it shares the disk; or it is copied, when that is asked for.
        sh(&backend, "on-b", "echo kept > /root/f").await;
        let clone = async |name: &str, target: Option<Placement>| {
            let spec = CloneSpec { target, ..CloneSpec::new(name) };
            Backend::clone(&backend, "on-b", &spec, &cancel).await
        };
        assert_eq!(place(&clone("twin", None).await.unwrap()), "b");
        assert_eq!(place(&clone("far", on("a")).await.unwrap()), "a");
        for name in ["twin", "far"] {
            assert_eq!(sh(&backend, name, "cat /root/f; hostname").await, format!("kept\n{name}"));
        }
        // A copy that is refused leaves nothing behind, either.
        let taken = clone("twin", on("a")).await.unwrap_err();
        assert!(matches!(taken, Error::AlreadyExists { .. }), "{taken:?}");
        assert_eq!(backend.snapshots("on-b", &cancel).await.unwrap(), []);

        let refused = async |target: &str| {
            let error = create("never", on(target)).await.unwrap_err();
            format!("{error} ({})", error.hint().unwrap_or_default())
        };
        insta::assert_snapshot!(refused("c").await, @"member of the cluster 'c' not found (its members are a, b)");
        insta::assert_snapshot!(refused("@green").await, @"target: no member of the cluster is in group '@green' (its groups are blue, default)");
    });
    let run = |args: &[&str]| {
        let output = program(cluster, home.path(), args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["create", "by-flag", "--image", "small", "--target", "@blue"]);
    run(&["clone", "by-flag", "by-flag-too", "--target", "b"]);
    let list: Value = serde_json::from_str(&run(&["list", "--format", "json"])).unwrap();
    let member = |name: &str| {
        let found = list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        found["member"].clone()
    };
    assert_eq!((member("on-b"), member("far")), ("b".into(), "a".into()));
    assert_eq!((member("by-flag"), member("by-flag-too")), ("a".into(), "b".into()));
    assert!(run(&["list"]).contains("MEMBER"));
    for name in ["on-b", "in-blue", "one", "two", "twin", "far", "by-flag", "by-flag-too"] {
        run(&["delete", name, "--yes"]);
    }
}

/// On which members an image is ready to make sandboxes from.
fn holders(cluster: &Cluster, fingerprint: &str) -> Vec<String> {
    let all = cluster.incus(&["query", "/1.0/storage-pools/default/volumes/image?recursion=1"]);
    let all: Value = serde_json::from_str(&all.unwrap()).unwrap();
    let volumes = all.as_array().unwrap().iter().filter(|volume| volume["name"] == fingerprint);
    let mut places: Vec<String> =
        volumes.map(|volume| volume["location"].as_str().unwrap().to_owned()).collect();
    places.sort();
    places
}

fn images_are_brought_to_members(cluster: &mut Cluster) {
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        let image = backend.fingerprint("debian/12", None, &cancel).await.unwrap();
        assert_eq!(holders(cluster, &image), ["a"]);
        let stock = Stock::Image(Some("debian/12".into()));
        backend.prepare(&stock, on("@blue").as_ref(), &cancel).await.unwrap();
        assert_eq!(holders(cluster, &image), ["a"]);
        backend.prepare(&stock, None, &cancel).await.unwrap();
        assert_eq!(holders(cluster, &image), ["a", "b"]);

        // A snapshot is on one member; what is made of it can then be on any.
        let cancel = Cancel::new();
        let spec = Spec { target: on("b"), ..Spec::new("source") };
        backend.create(&spec, &cancel).await.unwrap();
        sh(&backend, "source", "echo base > /root/f; chmod 4711 /root/f").await;
        backend
            .snapshot("source", &sandscript::sandbox::SnapshotSpec::new("s"), &cancel)
            .await
            .unwrap();
        let stock = Stock::Snapshot { sandbox: "source".into(), label: "s".into() };
        backend.prepare(&stock, None, &cancel).await.unwrap();
        backend.prepare(&stock, None, &cancel).await.unwrap();
        for (name, target) in [("far", on("a")), ("near", on("b"))] {
            let spec =
                CloneSpec { spread: true, target: target.clone(), ..CloneSpec::of("s", name) };
            let made = Backend::clone(&backend, "source", &spec, &cancel).await.unwrap();
            assert_eq!(made.member, target.map(|target| target.to_string()));
            assert_eq!(made.source.as_deref(), Some("source/s"));
            let line = "cat /root/f; stat -c %a /root/f; hostname";
            assert_eq!(sh(&backend, name, line).await, format!("base\n4711\n{name}"));
        }
        let ids = [
            sh(&backend, "source", "cat /etc/machine-id").await,
            sh(&backend, "far", "cat /etc/machine-id").await,
            sh(&backend, "near", "cat /etc/machine-id").await,
        ];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");

        // A member that has lost an image's files says so; the other one has them still.
        let volume = format!("/1.0/storage-pools/default/volumes/image/{image}?target=b");
        cluster.incus(&["query", "-X", "DELETE", &volume]).unwrap();
        for entry in std::fs::read_dir(cluster.folder("b").join("images")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(&image) {
                std::fs::remove_file(path).unwrap();
            }
        }
        let create = async |name: &str, target| {
            let image = Some("debian/12".to_owned());
            backend.create(&Spec { image, target, ..Spec::new(name) }, &cancel).await
        };
        let error = create("lost", on("b")).await.unwrap_err();
        assert!(
            matches!(&error, Error::Internal { message } if message.contains(&image)),
            "{error}"
        );
        assert!(matches!(backend.get("lost", &cancel).await, Err(Error::NotFound { .. })));
        create("after", on("a")).await.unwrap();

        for name in ["far", "near", "after"] {
            backend.delete(name, &cancel).await.unwrap();
        }
        // The image of a snapshot stays as long as that does.
        let images =
            || cluster.incus(&["image", "list", "--format", "csv"]).unwrap().lines().count();
        let before = images();
        backend.gc(false, &cancel).await.unwrap();
        assert_eq!(images(), before);
        backend.delete("source", &cancel).await.unwrap();
        assert_eq!(backend.gc(false, &cancel).await.unwrap().leftovers, 1);
        assert_eq!(images(), before - 1);
    });
}

/// Each member has addresses of its own: they are closed to its guests, and its ports are opened at one of them.
fn a_members_network_is_its_own(cluster: &mut Cluster) {
    for member in ["a", "b"] {
        cluster.incus(&["network", "create", "lan", "--target", member]).unwrap();
    }
    let lan = ["ipv4.address=10.77.0.1/24", "ipv4.nat=false", "ipv6.address=none"];
    cluster.incus(&[["network", "create", "lan"].as_slice(), &lan].concat()).unwrap();
    cluster.incus(&["profile", "device", "add", "default", "eth0", "nic", "network=lan"]).unwrap();
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        for (member, own) in [("a", "10.99.0.1"), ("b", "10.99.0.2")] {
            let name = format!("on-{member}");
            let egress = Policy::allowlist(["10.99.0.0/24"]).unwrap();
            let spec = Spec { target: on(member), egress, ..Spec::new(&name) };
            backend.create(&spec, &cancel).await.unwrap();
            let rules = sh(&backend, &name, "nft list table inet sandscript").await;
            assert!(rules.contains(own), "{own} is not in {rules}");
            backend.set_policy(&name, &Policy::Unrestricted, &cancel).await.unwrap();
            let at = backend.publish(&name, 80, None, &cancel).await.unwrap();
            assert_eq!(at.ip().to_string(), own);
            backend.delete(&name, &cancel).await.unwrap();
        }
    });
    cluster.incus(&["profile", "device", "remove", "default", "eth0"]).unwrap();
    cluster.incus(&["network", "delete", "lan"]).unwrap();
}

fn evacuated_members_are_not_used(cluster: &mut Cluster) {
    cluster.incus(&["cluster", "evacuate", "b", "--force"]).unwrap();
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        let members = backend.members(&cancel).await.unwrap();
        assert_eq!(members[1].state, MemberState::Evacuated);
        for name in ["one", "two", "three"] {
            let made = backend.create(&Spec::new(name), &cancel).await.unwrap();
            assert_eq!(made.member.as_deref(), Some("a"));
        }
        let spec = Spec { target: on("b"), ..Spec::new("never") };
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        insta::assert_snapshot!(format!("{error} ({})", error.hint().unwrap()), @"target: member 'b' of the cluster is evacuated (choose another one, or bring it back: incus cluster restore b)");
        for name in ["one", "two", "three"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    cluster.incus(&["cluster", "restore", "b", "--force"]).unwrap();
    cluster.online("b").unwrap();
}

fn a_member_dies_mid_exec(cluster: &mut Cluster) {
    let home = tempfile::tempdir().unwrap();
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        let proxy = Proxy::new(home.path(), cluster.socket("a"));
        let by_proxy = open_at(&proxy.socket, "small").await;
        let spec = Spec { target: on("b"), ..Spec::new("lives") };
        backend.create(&spec, &cancel).await.unwrap();
        let mut process =
            backend.spawn("lives", &Command::argv(["sleep", "1000"]), &cancel).await.unwrap();
        cluster.kill("b").unwrap();
        let end = tokio::time::timeout(SOON, process.control.wait()).await.unwrap();
        assert!(matches!(&end, Err(Error::MemberAway { member, .. }) if member == "b"), "{end:?}");
        assert_eq!(backend.away("lives", &cancel).await.unwrap().as_deref(), Some("b"));
        let failed = exec(&backend, "lives", &Command::argv(["true"]), &cancel).await.unwrap_err();
        insta::assert_snapshot!(failed, @"looking at sandbox 'lives': member 'b' of the cluster does not answer");
        let failed = backend.delete("lives", &cancel).await.unwrap_err();
        assert!(matches!(failed, Error::MemberAway { .. }), "{failed:?}");
        // As soon as the cluster knows, new ones go elsewhere.
        cluster.offline("b").unwrap();
        let members = backend.members(&cancel).await.unwrap();
        assert_eq!(members[1].state, MemberState::Offline);
        for name in ["one", "two"] {
            let made = backend.create(&Spec::new(name), &cancel).await.unwrap();
            assert_eq!(made.member.as_deref(), Some("a"));
            backend.delete(name, &cancel).await.unwrap();
        }
        let spec = Spec { target: on("b"), ..Spec::new("never") };
        let failed = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(matches!(failed, Error::MemberAway { .. }), "{failed:?}");
        // Nobody knows what became of a create that is lost meanwhile: it is not sent again.
        proxy.lose("POST /1.0/instances ");
        let failed = by_proxy.create(&Spec::new("never"), &cancel).await.unwrap_err();
        assert!(matches!(failed, Error::Transport { .. }), "{failed:?}");
        let sent = proxy.seen.lock().unwrap().clone();
        let made = sent.iter().filter(|line| line.starts_with("POST /1.0/instances "));
        assert_eq!(made.count(), 1);
    });
    let output = program(cluster, home.path(), &["list"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("member 'b' of the cluster is offline"), "{said}");
    cluster.again("b").unwrap();
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        // It went on all the time.
        assert_eq!(sh(&backend, "lives", "hostname").await, "lives");
        assert_eq!(backend.away("lives", &cancel).await.unwrap(), None);
        backend.delete("lives", &cancel).await.unwrap();
    });
}

const MATRIX: &str = r#"
let b = base("b", #{ from: "small" }, |b| { b.run("echo base > /root/f"); });
let all = [];
for n in 0..24 { all.push(n); }
let report = matrix("m", #{ from: b, axes: #{ n: all }, parallel: 6, order: "given" }, |cell| {
    let member = cell.sandbox.info().member;
    cell.sandbox.run("grep -q base /root/f");
    if cell.n >= 6 && cell.attempt == 1 && member == "b" {
        print(`hangs ${cell.n}`);
        cell.sandbox.run("sleep 1000");
    }
    print(`done ${cell.n} on ${member}`);
});
let moved = 0;
for cell in report.cells { if cell.moved == ["b"] { moved += 1; } }
print(`passed ${report.passed} of ${report.total}, moved ${moved}`);
"#;

fn a_member_dies_mid_matrix(cluster: &mut Cluster) {
    let home = tempfile::tempdir().unwrap();
    let program = program(cluster, home.path(), &["run", "m.rhai", "--report", "jsonl=events"]);
    outlives_a_member(cluster, home.path(), program);
    let left = cells(cluster);
    assert!(left.iter().all(|info| info.member.as_deref() == Some("b")), "{left:?}");
    clean(cluster);
}

/// The same, where the requests go to the one that dies: the other one is asked from then on.
fn the_member_that_is_asked_dies(cluster: &mut Cluster) {
    let home = tempfile::tempdir().unwrap();
    let token = cluster.incus(&["config", "trust", "add", "ann", "--quiet"]).unwrap();
    let token = token.lines().last().unwrap_or_default().to_owned();
    let [enter, arguments @ ..] = cluster.beside();
    let beside = |words: &[&str]| {
        let mut program = Program::new(&enter);
        program.args(&arguments).arg(env!("CARGO_BIN_EXE_sandscript")).args(words).env_clear();
        for (name, value) in [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("SANDSCRIPT_BACKEND", "incus"),
            ("SANDSCRIPT_GC_EVERY", "never"),
            ("SANDSCRIPT_NO_SESSION", "1"),
        ] {
            program.env(name, value);
        }
        program.env("HOME", home.path()).current_dir(home.path());
        program
    };
    let added = beside(&["remote", "add", "both", "https://10.99.0.2:8443", "--token", &token]);
    let added = { added }.output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let run = ["run", "m.rhai", "--host", "both", "--report", "jsonl=events"];
    outlives_a_member(cluster, home.path(), beside(&run));
    clean(cluster);
}

/// Runs a matrix, in the midst of which a member's daemon is killed.
fn outlives_a_member(cluster: &mut Cluster, home: &std::path::Path, mut program: Program) {
    std::fs::write(home.join("m.rhai"), MATRIX).unwrap();
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let errors = std::thread::spawn({
        let mut stderr = child.stderr.take().unwrap();
        move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stderr, &mut text).map(|_| text)
        }
    });
    let (mut killed, mut hangs, mut done) = (None, 0, 0);
    for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        hangs += usize::from(line.contains("hangs "));
        done += usize::from(line.contains("done "));
        said.push_str(&line);
        said.push('\n');
        if killed.is_none() && hangs >= 2 && done >= 6 {
            cluster.kill("b").unwrap();
            killed = Some(Instant::now());
        }
    }
    let status = child.wait().unwrap();
    let errors = errors.join().unwrap().unwrap();
    assert!(killed.is_some(), "{said}{errors}");
    assert!(status.success(), "{status:?}: {said}{errors}");
    let events = std::fs::read_to_string(home.join("events")).unwrap();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ended: Vec<_> = events.iter().filter(|event| event["type"] == "cell_ended").collect();
    assert_eq!(ended.len(), 24);
    assert!(ended.iter().all(|event| event["outcome"] == "passed"), "{ended:?}");
    let moved: Vec<_> =
        ended.iter().filter(|event| event["moved"] == serde_json::json!(["b"])).collect();
    assert!(moved.len() >= hangs.min(2), "{said}");
    let told = events.iter().filter(|event| event["away"] == "b").count();
    assert!(told >= moved.len(), "{events:?}");
    let last = format!("passed 24 of 24, moved {}", moved.len());
    assert!(said.contains(&last), "{last}: {said}");
    for member in ["a", "b"] {
        assert!(said.contains(&format!(" on {member}\n")), "{said}");
    }
    assert!(
        said.contains("member 'b' of the cluster went away")
            || errors.contains("member 'b' of the cluster went away"),
        "{said}{errors}"
    );
    cluster.again("b").unwrap();
    // What the dead member held is still there, and belongs to a run that is over.
    let left = cells(cluster);
    assert!(left.iter().all(|info| info.owner.is_some()), "{left:?}");
}

/// The cells that are left.
fn cells(cluster: &Cluster) -> Vec<Info> {
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        let mut left = backend.list(&cancel).await.unwrap();
        left.retain(|info| info.labels.contains_key("sandscript.cell"));
        left
    })
}

fn clean(cluster: &Cluster) {
    wait(async {
        let (backend, cancel) = (open(cluster).await, Cancel::new());
        for info in backend.list(&cancel).await.unwrap() {
            backend.delete(&info.name, &cancel).await.unwrap();
        }
    });
}
