//! What is left of a simulator that was killed: nothing, when the next one has started.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nas_sim::Release;
use serde_json::{Value, json};

use crate::alone::{Program, program};
use crate::client::{Client, LIMIT};
use crate::rig::{self, RUNTIME};

pub fn tests() -> Vec<Trial> {
    vec![rig::rooted("leftovers::after_sigkill".into(), leftovers)]
}

/// Waits for something that comes by itself.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "{what}");
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// What there is of a simulator of this name: bridge, cgroups, rules, mounts, loop devices.
fn remains(name: &str, disk: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, there: bool| {
        if there {
            found.push(format!("{what} of {name}"));
        }
    };
    note("the bridge", Path::new("/sys/class/net").join(name).exists());
    let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let trees = trees.map(|t| t.path()).chain(["/sys/fs/cgroup".into()]);
    note("cgroups", trees.into_iter().any(|t| t.join(name).exists()));
    // Chains are named after the bridge that they are for, and rules name it.
    note(
        "rules",
        said("nft", &["list", "ruleset"])
            .split(['"', '.', ' ', '{', '}'])
            .any(|w| w.trim() == name),
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let state = disk.parent().unwrap_or(disk).to_string_lossy().into_owned();
    note("mounts", mounts.contains(&state) || mounts.contains(&format!("/{name} ")));
    note("a loop device", !said("losetup", &["-j", &disk.to_string_lossy()]).is_empty());
    note("the registry's entry", Path::new("/var/tmp/nas-sim").join(name).exists());
    found
}

/// Whether another simulator has taken the name since: all that is there is its own.
fn taken(name: &str) -> bool {
    let path = Path::new("/var/tmp/nas-sim").join(name);
    let Ok(file) = std::fs::File::open(path) else { return false };
    let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
    rustix::fs::flock(&file, shared).is_err()
}

/// A container that runs, and a port of the host that leads into it: its number.
async fn furnish(sim: &Program) -> u16 {
    let mut client = Client::elsewhere(sim.about["address"].as_str().unwrap()).await;
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let proxy = json!({"dev_type": "PROXY", "name": "ssh", "source_proto": "TCP",
        "source_port": port, "dest_proto": "TCP", "dest_port": 22});
    let create = json!([{"name": "left", "image": "debian/12", "devices": [proxy]}]);
    client.done("virt.instance.create", create).await;
    let volume = json!([{"name": "left-volume", "size": 512}]);
    client.ok("virt.volume.create", volume).await;
    until("the port leads into the guest", || open(port)).await;
    port
}

fn open(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The first reply, in milliseconds after the daemon answered.
async fn first_reply(sim: &Program) -> u64 {
    let began = std::time::Instant::now();
    Client::elsewhere(sim.about["address"].as_str().unwrap()).await;
    sim.about["took_ms"]["rest"].as_u64().unwrap() + began.elapsed().as_millis() as u64
}

/// A simulator that is killed leaves nothing that the next start does not remove.
fn leftovers() -> Result<(), Failed> {
    let rootfs = match rig::needs() {
        Ok(rootfs) => rootfs,
        Err(why) => return why,
    };
    RUNTIME.block_on(async {
        let mut first = program(Release::V25_10, Some(&rootfs));
        let mut replies = vec![first_reply(&first).await];
        let name = first.about["bridge"].as_str().unwrap().to_owned();
        let port = furnish(&first).await;
        let own: u16 = address(&first.about);
        let disk = first.state.join("disk.img");
        let there = remains(&name, &disk);
        assert!(there.len() >= 5, "{there:?}");
        let root = first.about["root"].as_str().unwrap().to_owned();
        let keeper = format!("/proc/{}", root.split('/').nth(2).unwrap());
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        // Everything in its namespaces goes by itself: containers, mounts, what listens.
        until("its processes end", || !Path::new(&keeper).exists()).await;
        until("its disk is let go", || {
            said("losetup", &["-j", &disk.to_string_lossy()]).is_empty()
        })
        .await;
        assert!(!open(port) && !open(own), "somebody still listens");
        drop(first);
        let mut second = program(Release::V26Rc, Some(&rootfs));
        replies.push(first_reply(&second).await);
        let again = second.about["bridge"].as_str().unwrap().to_owned();
        let gone = |name: &str, disk: &Path| taken(name) || remains(name, disk).is_empty();
        assert!(gone(&name, &disk), "{:?}", remains(&name, &disk));
        // A decent end leaves nothing at all.
        let disk = second.state.join("disk.img");
        let pid = second.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        second.child.wait().unwrap();
        assert!(gone(&again, &disk), "{:?}", remains(&again, &disk));
        eprintln!("started: first replies {replies:?} ms after the daemon answered");
        // The machine may be busy at one of them.
        assert!(replies.iter().any(|ms| *ms <= 1000), "{replies:?} ms");
    });
    Ok(())
}

fn address(about: &Value) -> u16 {
    about["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}
