//! What the guest can't see or do.

use sandscript::sandbox::Capability;

use crate::case::{CaseResult, cases};
use crate::rig::Scope;

cases!["isolation";
    only_its_own_processes [Programs],
    init_can_not_be_killed [Programs],
    no_host_files [Programs],
    devices_can_not_be_made [Programs],
    kernel_settings_are_read_only [Programs],
    no_sockets_past_the_network [Programs],
    sandboxes_do_not_see_each_other [Programs],
    descriptors_of_init_are_closed_to_it [Programs],
];

async fn only_its_own_processes(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let count: usize = sandbox.run("ls -d /proc/[0-9]* | wc -l").await?.parse()?;
    // A machine with an init system has some of its own.
    let most = if scope.has(Capability::Init) { 40 } else { 6 };
    assert!(count <= most, "{count} processes in a fresh sandbox");
    Ok(())
}

async fn init_can_not_be_killed(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    // An init system ends, restarts or stands still when the guest's root tells it to.
    let told = match scope.has(Capability::Init) {
        true => "",
        false => "; kill -TERM 1; kill -SEGV 1; kill -INT 1",
    };
    sandbox.sh(&format!("kill -9 1; kill -STOP 1{told}")).await?;
    sandbox.run("true").await?;
    // All the processes it can reach, but init goes on.
    let _ = sandbox.sh("kill -9 -1").await;
    sandbox.run("true").await?;
    Ok(())
}

async fn no_host_files(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let host = scope.host_dir()?;
    std::fs::write(host.join("secret"), "secret")?;
    let path = host.join("secret").display().to_string();
    for view in [path.clone(), format!("/proc/1/root{path}"), format!("/proc/self/root{path}")] {
        let output = sandbox.sh(&format!("cat {view}")).await?;
        assert!(!output.exit.ok() && output.stdout.is_empty(), "{view}");
    }
    let marker = "conformance-marker-of-the-host";
    std::fs::write(std::env::temp_dir().join(marker), "x")?;
    let seen = sandbox.sh(&format!("ls /tmp /var/tmp /dev/shm | grep {marker}")).await?;
    std::fs::remove_file(std::env::temp_dir().join(marker))?;
    assert!(seen.stdout.is_empty());
    Ok(())
}

/// A virtual machine's way to its host and other families that no network namespace holds, as root.
async fn no_sockets_past_the_network(scope: Scope) -> CaseResult {
    // A NAS makes its containers as it likes.
    if scope.backend().capabilities().backend == "truenas" {
        return Ok(());
    }
    let sandbox = scope.sandbox().await?;
    let perl = "for (0..45) { print \"$_ \" if socket(my $s, $_, 1, 0) || socket($s, $_, 2, 0) || socket($s, $_, 5, 0) }";
    let made =
        sandbox.run(&format!("command -v perl >/dev/null || exit 0; perl -e '{perl}'")).await?;
    let past: Vec<&str> = made
        .split_whitespace()
        .filter(|family| !["1", "2", "10", "16", "17"].contains(family))
        .collect();
    assert!(past.is_empty(), "{past:?}");
    // io_uring makes sockets that no filter of system calls sees.
    let ring = "$! = 0; syscall(425, 1, $p = qq(\\0) x 120); print $!+0";
    let said =
        sandbox.run(&format!("command -v perl >/dev/null || exit 0; perl -e '{ring}'")).await?;
    assert!(["", "1", "38"].contains(&said.trim()), "{said}");
    Ok(())
}

async fn devices_can_not_be_made(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for kind in ["b 8 0", "c 1 1", "b 7 0"] {
        let output =
            sandbox.sh(&format!("mknod /root/device {kind} && head -c 1 /root/device")).await?;
        assert!(!output.exit.ok(), "mknod {kind} gave a device that works");
    }
    Ok(())
}

async fn kernel_settings_are_read_only(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for path in
        ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger"]
    {
        let output = sandbox.sh(&format!("echo x > {path}")).await?;
        assert!(!output.exit.ok(), "{path} can be written");
    }
    Ok(())
}

async fn sandboxes_do_not_see_each_other(scope: Scope) -> CaseResult {
    let (one, two) = (scope.sandbox().await?, scope.sandbox().await?);
    one.run("echo x > /root/f; echo x > /tmp/f; sleep 4242 > /dev/null 2>&1 &").await?;
    assert_eq!(two.count("sleep 4242").await?, 0);
    assert!(!two.sh("cat /root/f /tmp/f").await?.exit.ok());
    assert_eq!(one.count("sleep 4242").await?, 1);
    Ok(())
}

async fn descriptors_of_init_are_closed_to_it(scope: Scope) -> CaseResult {
    if scope.has(Capability::Init) {
        // The init system is the guest's own: its root may look into it.
        return Ok(());
    }
    let sandbox = scope.sandbox().await?;
    for path in [
        "/proc/1/fd",
        "/proc/1/exe",
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/1/mem",
        "/proc/1/environ",
    ] {
        let output = sandbox.sh(&format!("ls {path}/ || cat {path}")).await?;
        assert!(!output.exit.ok(), "{path} of init is open: {output:?}");
    }
    Ok(())
}
