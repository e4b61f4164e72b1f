//! Commands by SSH: the same contract, another way.

use std::sync::Arc;

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::backend::truenas::{Jump, TrueNasBackend, Ways};
use sandscript::sandbox::{
    Backend, Cancel, Command, Error, Exit, Policy, ReadOptions, Signal, Spec, Stdin, exec,
};
use tokio::io::AsyncReadExt;

use crate::rig::{Small, big, say, until, works};

const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        big("ssh_contract", &Release::ALL, |nas, _| Box::pin(contract(nas))),
        big("ssh_other_machine", ONE, |nas, _| Box::pin(other_machine(nas))),
        big("ssh_port", ONE, |nas, _| Box::pin(port(nas))),
        big("ssh_late", ONE, |nas, _| Box::pin(late(nas))),
        big("ssh_liar", ONE, |nas, _| Box::pin(liar(nas))),
        big("ssh_jump", ONE, |nas, _| Box::pin(jump(nas))),
        big("ssh_jump_nas", ONE, |nas, _| Box::pin(jump_nas(nas))),
        big("ssh_agent", ONE, |nas, _| Box::pin(agent(nas))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How many of those sleep that are to be killed.
const SLEEPERS: &str =
    "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '777[7]' | wc -l";

fn open(name: &str) -> Spec {
    Spec { egress: Policy::Unrestricted, ..Spec::new(name) }
}

async fn way(backend: &TrueNasBackend, name: &str) -> String {
    backend.get(name, &Cancel::new()).await.unwrap().exec.unwrap()
}

async fn said(backend: &TrueNasBackend, name: &str, command: Command) -> (Vec<u8>, Vec<u8>, Exit) {
    let output = exec(backend, name, &command, &Cancel::new()).await.unwrap();
    (output.stdout, output.stderr, output.exit)
}

/// What holds for a command holds for one by SSH, and afterwards nothing of it runs.
async fn contract(nas: &Small) {
    let folder = tempfile::tempdir().unwrap();
    let backend = nas.by(Ways::Ssh, folder.path()).await;
    let cancel = Cancel::new();
    backend.create(&open("keyed"), &cancel).await.unwrap();
    assert!(way(&backend, "keyed").await.starts_with("ssh root@"));
    let words = ["printf", "[%s]", "a b", "*", "", "quo'te\"", "new\nline", "雪", "-n", "$HOME"];
    let (out, ..) = said(&backend, "keyed", Command::argv(words)).await;
    assert_eq!(String::from_utf8(out).unwrap(), "[a b][*][][quo'te\"][new\nline][雪][-n][$HOME]");
    // Ten megabytes of noise each way.
    let mut bytes = vec![0; 10 << 20];
    rustix::rand::getrandom(&mut bytes[..32], rustix::rand::GetRandomFlags::empty()).unwrap();
    let mut state = u64::from_le_bytes(bytes[..8].try_into().unwrap()) | 1;
    for eight in bytes[32..].chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    bytes.extend(b"\0\x01sandscript\x02~.\r\n\x04");
    let mut cat = Command::argv(["sh", "-c", "cat; echo wrong >&2; exit 126"]);
    cat.stdin = Stdin::Bytes(bytes.clone().into());
    let (out, err, exit) = said(&backend, "keyed", cat).await;
    assert!(out == bytes);
    assert_eq!((err.as_slice(), exit), (b"wrong\n".as_slice(), Exit::Code(126)));
    let mut other =
        Command::shell("id -un; pwd; echo $WORD; echo $SSH_CONNECTION$SSH_CLIENT; umask");
    other.user = Some("nobody".into());
    other.cwd = Some("/tmp".into());
    other.env.insert("WORD".into(), "a 'b'\n".into());
    let (out, ..) = said(&backend, "keyed", other).await;
    assert_eq!(String::from_utf8(out).unwrap(), "nobody\n/tmp\na 'b'\n\n0022\n");
    let (.., exit) = said(&backend, "keyed", Command::shell("kill -9 $$")).await;
    assert_eq!(exit, Exit::Signal(9));
    let error = exec(&*backend, "keyed", &Command::argv(["/no/such"]), &cancel).await;
    assert!(matches!(error, Err(Error::NotFound { .. })));
    let tree = Command::shell(
        "n=7777; (setsid sleep $n & sleep $n) & trap '' TERM; echo here; sleep $n; true",
    );
    let mut process = backend.spawn("keyed", &tree, &cancel).await.unwrap();
    let mut here = [0; 5];
    process.stdout.as_mut().unwrap().read_exact(&mut here).await.unwrap();
    process.control.signal(Signal(15)).await.unwrap();
    assert_ne!(say(&backend, "keyed", SLEEPERS).await, "0\n");
    process.control.kill().await.unwrap();
    assert_eq!(process.control.wait().await.unwrap(), Exit::Signal(9));
    until(|| async { say(&backend, "keyed", SLEEPERS).await == "0\n" }).await;
    // Twelve at once, by one connection: a server takes ten sessions.
    let many: Vec<_> = (0..12)
        .map(|n| {
            let backend = Arc::clone(&backend);
            tokio::spawn(
                async move { say(&backend, "keyed", &format!("sleep 0.2; echo {n}")).await },
            )
        })
        .collect();
    for (n, one) in many.into_iter().enumerate() {
        assert_eq!(one.await.unwrap(), format!("{n}\n"));
    }
    assert_eq!(
        say(&backend, "keyed", "ss -Htn state established '( sport = :22 )' | wc -l").await,
        "1\n"
    );
    // Without a network there is no SSH, and no other way was asked for.
    backend.create(&Spec::new("closed"), &cancel).await.unwrap_err();
    backend.set_policy("keyed", &Policy::None, &cancel).await.unwrap();
    let error = exec(&*backend, "keyed", &Command::shell("true"), &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("leaves it without a network"), "{error}");
    let shell = nas.backend().await;
    works(&shell, "keyed").await;
    backend.delete("keyed", &cancel).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("known")).unwrap().count(), 0);
}

/// How often the NAS's shell was opened.
fn shells(nas: &Small) -> usize {
    nas.called().iter().filter(|method| *method == "auth.generate_token").count()
}

/// A machine whose key is not known is let in once, by the NAS's shell; who is at the other end is what
/// the NAS says.
async fn other_machine(nas: &Small) {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cancel = Cancel::new();
    let first = nas.by(Ways::Ssh, one.path()).await;
    first.create(&open("met"), &cancel).await.unwrap();
    works(&first, "met").await;
    let second = nas.by(Ways::Any, two.path()).await;
    works(&second, "met").await;
    assert!(way(&second, "met").await.starts_with("ssh root@"));
    let keys = "grep -c ' sandscript$' /root/.ssh/authorized_keys; stat -c %a /root/.ssh /root/.ssh/authorized_keys";
    assert_eq!(say(&second, "met", keys).await, "2\n700\n600\n");
    // What was found out is remembered: nobody is asked again.
    let before = shells(nas);
    let again = nas.by(Ways::Any, two.path()).await;
    works(&again, "met").await;
    let mut reader =
        again.read("met", "/etc/hostname", ReadOptions::default(), &cancel).await.unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), shells(nas)), ("met\n", before));
    // Its own keys of SSH are others than they were, and ours is gone: both are told anew.
    let plain = nas.backend().await;
    let change = "cd /etc/ssh && rm ssh_host_* /root/.ssh/authorized_keys && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key \
                  && systemctl restart ssh";
    say(&plain, "met", change).await;
    let before = shells(nas);
    for _ in 0..2 {
        let again = nas.by(Ways::Ssh, two.path()).await;
        works(&again, "met").await;
        assert_eq!(shells(nas), before + 1);
    }
    // One that lets nobody in as root: then it is not the way.
    say(
        &plain,
        "met",
        "echo 'PermitRootLogin no' >/etc/ssh/sshd_config.d/no.conf; systemctl restart ssh",
    )
    .await;
    let picky = nas.by(Ways::Ssh, two.path()).await;
    let error = exec(&*picky, "met", &Command::shell("true"), &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("does not let our key in"), "{error}");
    let any = nas.by(Ways::Any, two.path()).await;
    works(&any, "met").await;
    let said = way(&any, "met").await;
    assert!(said.starts_with("the NAS's shell, not SSH: root@"), "{said}");
    let shell = nas.by(Ways::Shell, two.path()).await;
    works(&shell, "met").await;
    assert_eq!(way(&shell, "met").await, "the NAS's shell");
    first.delete("met", &cancel).await.unwrap();
}

/// A guest whose root says that it is another machine: nothing of what is meant for it is done there.
async fn liar(nas: &Small) {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let direct = nas.by(Ways::Ssh, folder.path()).await;
    direct.create(&open("victim"), &cancel).await.unwrap();
    let key = say(&direct, "victim", "cat /etc/ssh/ssh_host_ed25519_key.pub").await;
    let place = way(&direct, "victim").await;
    let address = place.strip_prefix("ssh root@").unwrap();
    let plain = nas.backend().await;
    plain.create(&open("liar"), &cancel).await.unwrap();
    let lie = format!(
        "rm /etc/ssh/ssh_host_*.pub; echo '{}' >/etc/ssh/ssh_host_x_key.pub; ip=$(command -v ip); mv $ip $ip.not; \
         printf '#!/bin/sh\necho \"2: eth0 inet {address}/24 scope global eth0\"\n' >$ip; chmod 755 $ip",
        key.trim()
    );
    say(&plain, "liar", &lie).await;
    let any = nas.by(Ways::Any, folder.path()).await;
    assert_eq!(say(&any, "liar", "hostname").await, "liar\n");
    let why = format!("root@{address} is another machine than this sandbox");
    assert_eq!(way(&any, "liar").await, format!("the NAS's shell, not SSH: {why}"));
    let only = nas.by(Ways::Ssh, folder.path()).await;
    let error = exec(&*only, "liar", &Command::shell("hostname"), &cancel).await.unwrap_err();
    assert_eq!(error.hint(), Some(why));
    // Only the victim is remembered; and no word is left where it was read.
    assert_eq!(std::fs::read_dir(folder.path().join("known")).unwrap().count(), 1);
    let left = "ls -a /run | grep -c sandscript-met || true";
    assert_eq!(say(&plain, "victim", left).await, "0\n");
    // Nor is anybody asked who has the NAS's address.
    let nas_there = plain.call("interface.query", Vec::new(), false, &cancel).await.unwrap();
    let aliases = nas_there[0]["state"]["aliases"].as_array().unwrap().clone();
    let own = aliases.iter().find(|one| one["type"] == "INET").unwrap()["address"].clone();
    let lie = format!("sed -i 's/{address}/{}/' $(command -v ip)", own.as_str().unwrap());
    say(&plain, "liar", &lie).await;
    let any = nas.by(Ways::Any, folder.path()).await;
    works(&any, "liar").await;
    assert_eq!(
        way(&any, "liar").await,
        "the NAS's shell, not SSH: its addresses are those of the NAS or of no other machine"
    );
    for name in ["liar", "victim"] {
        plain.delete(name, &cancel).await.unwrap();
    }
}

/// A server that comes late is waited for when there is to be no other way.
async fn late(nas: &Small) {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    nas.sim.control("sshd-delay 6000").await.unwrap();
    let any = nas.by(Ways::Any, folder.path()).await;
    any.create(&open("slow"), &cancel).await.unwrap();
    let said = way(&any, "slow").await;
    assert_eq!(said, "the NAS's shell, not SSH: its sshd does not listen");
    let backend = nas.by(Ways::Ssh, folder.path()).await;
    works(&backend, "slow").await;
    assert!(way(&backend, "slow").await.starts_with("ssh root@"));
    backend.delete("slow", &cancel).await.unwrap();
    nas.sim.control("clear").await.unwrap();
}

/// A server that listens elsewhere is reached there, under rules, too.
async fn port(nas: &Small) {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let plain = nas.backend().await;
    plain.create(&open("moved"), &cancel).await.unwrap();
    let line = "echo 'Port 2222' >/etc/ssh/sshd_config.d/port.conf; systemctl restart ssh";
    say(&plain, "moved", line).await;
    let rules = Policy::allowlist(["198.51.100.1"]).unwrap();
    plain.set_policy("moved", &rules, &cancel).await.unwrap();
    let backend = nas.by(Ways::Ssh, folder.path()).await;
    works(&backend, "moved").await;
    let said = way(&backend, "moved").await;
    assert!(said.starts_with("ssh root@") && said.ends_with(":2222"), "{said}");
    plain.delete("moved", &cancel).await.unwrap();
}

/// By way of another machine, whose own key is known.
async fn jump(nas: &Small) {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let direct = nas.by(Ways::Ssh, folder.path()).await;
    direct.create(&open("gate"), &cancel).await.unwrap();
    direct.create(&open("inner"), &cancel).await.unwrap();
    works(&direct, "inner").await;
    let line = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2";
    let key = say(&direct, "gate", line).await.trim().to_owned();
    let place = way(&direct, "gate").await;
    let jump = Jump::parse(place.strip_prefix("ssh ").unwrap(), Some(key)).unwrap();
    let over = nas.by_way_of(Ways::Ssh, folder.path(), Some(jump.clone())).await;
    let from =
        "ss -Htn state established '( sport = :22 )' | awk '{print $4}' | cut -d: -f1 | sort -u";
    let seen = say(&over, "inner", from).await;
    assert!(seen.contains(&jump.host), "{seen} by {}", jump.host);
    let wrong = Jump { key: Some(format!("SHA256:{}", "A".repeat(43))), ..jump.clone() };
    let other = nas.by_way_of(Ways::Ssh, folder.path(), Some(wrong)).await;
    let error = exec(&*other, "inner", &Command::shell("true"), &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("has another host key than it should"), "{error}");
    // Where the key is not told, the NAS is asked; this is not the NAS.
    let none = Jump { key: None, ..jump };
    let other = nas.by_way_of(Ways::Any, folder.path(), Some(none)).await;
    works(&other, "inner").await;
    assert!(way(&other, "inner").await.starts_with("the NAS's shell, not SSH: "));
    for name in ["gate", "inner"] {
        direct.delete(name, &cancel).await.unwrap();
    }
}

/// By way of the NAS itself, whose host key its own shell tells.
async fn jump_nas(nas: &Small) {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let direct = nas.by(Ways::Ssh, folder.path()).await;
    direct.create(&open("behind"), &cancel).await.unwrap();
    // The SSH server of the NAS, where it lets our key in.
    let key = std::process::Command::new("ssh-keygen")
        .arg("-y")
        .arg("-f")
        .arg(folder.path().join("id_ed25519"))
        .output()
        .unwrap();
    let root = nas.sim.root();
    std::fs::create_dir_all(root.join("root/.ssh")).unwrap();
    std::fs::write(root.join("root/.ssh/authorized_keys"), key.stdout).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!(
        "mkdir -p /run/sshd && chmod 700 /root/.ssh && ssh-keygen -A >/dev/null && \
         /usr/sbin/sshd -o ListenAddress=127.0.0.1:{port} -o PidFile=/run/own-sshd.pid </dev/null >/dev/null 2>&1"
    );
    crate::forks::on_the_nas(&direct, &line).await;
    let jump = Jump { user: "root".into(), host: "127.0.0.1".into(), port, key: None };
    let over = nas.by_way_of(Ways::Ssh, folder.path(), Some(jump.clone())).await;
    works(&over, "behind").await;
    assert!(way(&over, "behind").await.starts_with("ssh root@"));
    let through = std::process::Command::new("ss")
        .args(["-Htn", "state", "established", &format!("( sport = :{port} )")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(through.stdout).unwrap().lines().count(), 1);
    drop(over);
    // Somebody who is not let in there goes by the NAS's shell, or not at all.
    std::fs::remove_file(root.join("root/.ssh/authorized_keys")).unwrap();
    let shut = nas.by_way_of(Ways::Ssh, folder.path(), Some(jump)).await;
    let error = exec(&*shut, "behind", &Command::shell("true"), &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("does not let our key in"), "{error}");
    crate::forks::on_the_nas(&direct, "kill $(cat /run/own-sshd.pid)").await;
    direct.delete("behind", &cancel).await.unwrap();
}

/// The keys of an agent.
async fn agent(nas: &Small) {
    struct Agent(std::process::Child);
    impl Drop for Agent {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let (socket, key) = (folder.path().join("agent"), folder.path().join("key"));
    let _agent = Agent(
        std::process::Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).spawn().unwrap(),
    );
    until(|| async { socket.exists() }).await;
    let mut made = std::process::Command::new("ssh-keygen");
    made.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    assert!(made.status().unwrap().success());
    let mut config = sandscript::backend::truenas::TrueNasConfig::new(nas.config(nas.key()));
    config.ways = Ways::Ssh;
    config.ssh = Some(sandscript::backend::truenas::SshConfig {
        key: sandscript::transport::KeySource::Agent(socket.clone()),
        known: None,
        jump: None,
    });
    let backend = TrueNasBackend::open(config).await.unwrap();
    // An agent without a key.
    let error = backend.create(&open("asked"), &cancel).await.unwrap_err();
    assert!(error.hint().unwrap().contains("it has no key that can be used here"), "{error}");
    let mut add = std::process::Command::new("ssh-add");
    add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    backend.create(&open("asked"), &cancel).await.unwrap();
    works(&backend, "asked").await;
    assert!(way(&backend, "asked").await.starts_with("ssh root@"));
    backend.delete("asked", &cancel).await.unwrap();
}
