//! What a program that was just started waits for: its login, and then one answer after another.

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::sandbox::{Backend, Cancel, Policy, Spec};

use crate::program::call;
use crate::rig::{Small, big, works};

pub fn trials() -> Vec<Trial> {
    [
        big("cold_commands", &Release::ALL, |nas, _| Box::pin(commands(nas))),
        big("cold_create", &Release::ALL, |nas, _| Box::pin(create(nas))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Calls of methods take their time from here on, so that what is sent at once is told from what is sent later.
async fn far_away(nas: &Small) {
    nas.sim.control("latency 100").await.unwrap();
}

/// `list` and `exec`, by either way, are a login and one round trip. The shell's own connection is opened meanwhile: what
/// goes over that is the command, as what goes over SSH is. (25.x lists nothing also when it can't look, so where
/// there is nothing it is asked why.)
async fn commands(nas: &Small) {
    let backend = nas.backend().await;
    let cancel = Cancel::new();
    backend.create(&Spec::new("closed"), &cancel).await.unwrap();
    let open = Spec { egress: Policy::Unrestricted, ..Spec::new("open") };
    backend.create(&open, &cancel).await.unwrap();
    far_away(nas).await;
    let run = async |args: &[&str]| {
        nas.sim.control("forgive").await.unwrap();
        let before = nas.connections();
        let said = call(nas, &[("SANDSCRIPT_GC_EVERY", "never")], args).await;
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        (said.out, nas.rounds(before))
    };
    let (out, (rounds, called)) = run(&["list", "--no-session"]).await;
    assert!(out.contains("closed") && out.contains("open"), "{out}");
    assert_eq!(rounds, 1, "list: {called:?}");
    let shell =
        ["exec", "--no-session", "closed", "--", "sh", "-c", "echo $SSH_CONNECTION; hostname"];
    let (out, (rounds, called)) = run(&shell).await;
    assert_eq!((out.as_str(), rounds), ("\nclosed\n", 1), "exec: {called:?}");
    // One whose keys are not known yet is met by the shell.
    let ssh = ["exec", "--no-session", "open", "--", "hostname"];
    let (out, (_, called)) = run(&ssh).await;
    let shells = |called: &[String]| called.iter().any(|one| one.ends_with("generate_token"));
    assert!(out == "open\n" && shells(&called), "{out} {called:?}");
    let (out, (rounds, called)) = run(&ssh).await;
    assert_eq!((out.as_str(), rounds), ("open\n", 1), "exec by SSH: {called:?}");
    assert!(!shells(&called), "it is known: {called:?}");
    for name in ["closed", "open"] {
        backend.delete(name, &cancel).await.unwrap();
    }
}

/// The first thing that a program does is to make a sandbox with rules.
async fn create(nas: &Small) {
    far_away(nas).await;
    let before = nas.connections();
    let backend = nas.backend().await;
    let rules = Policy::allowlist(["198.51.100.1"]).unwrap();
    let spec = Spec { egress: rules, ..Spec::new("ruled") };
    backend.create(&spec, &Cancel::new()).await.unwrap();
    let (rounds, called) = nas.rounds(before);
    assert!(rounds <= 8, "{rounds}: {called:?}");
    println!("{rounds} one after another: {called:?}");
    nas.sim.control("clear").await.unwrap();
    works(&backend, "ruled").await;
    backend.delete("ruled", &Cancel::new()).await.unwrap();
}
