//! A guest that tries to get out, or to stay.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use sandscript::sandbox::{Capability, Command, Error, Exit, Spec};

use crate::Test;
use crate::rig::{Outcome, Rig, empty, is_root, program, scratch};

pub const TESTS: &[Test] = &[
    ("guest_every_known_way_out", every_known_way_out),
    ("guest_paths_through_descriptors", paths_through_descriptors),
    ("guest_privileges", privileges),
    ("guest_can_not_write_to_the_program", program_is_read_only),
    ("guest_odd_identity_files", odd_identity_files),
    ("guest_daemons_do_not_outlive_a_timeout", daemons_do_not_outlive_a_timeout),
    ("guest_headless_process", headless_process),
    ("guest_fork_bomb", fork_bomb),
    ("guest_memory_bomb", memory_bomb),
    ("guest_fills_what_it_has", fills_what_it_has),
];

fn every_known_way_out(rig: &Rig) -> Outcome {
    let Some(attack) = rig.compiled("attack", include_str!("attack.c")) else {
        return Outcome::Skipped("no C compiler (cc)".into());
    };
    for user in ["0", "65534"] {
        if user != "0" && rig.lacks(Capability::Users).is_some() {
            continue;
        }
        let sandbox = rig.sandbox("attack");
        sandbox.put("/attack", &attack, 0o755).unwrap();
        let mut command = Command::argv(["/attack"]);
        command.user = Some(user.into());
        let output = sandbox.exec(&command).unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!((printed.as_ref(), output.exit), ("tried\n", Exit::Code(0)), "as user {user}");
        // Process 1 has got signals of all kinds.
        assert_eq!(sandbox.run("echo alive"), "alive");
        sandbox.snapshot("after").unwrap();
    }
    Outcome::Done
}

/// Process 1 has descriptors that lead to the host; no path may lead through them.
fn paths_through_descriptors(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("descriptors");
    for number in 3..24 {
        for way in ["", "/..", "/../..", "/../../root"] {
            let home = format!("/proc/self/fd/{number}{way}");
            let passwd = format!("root:x:0:0:root:{home}:/bin/sh\n");
            sandbox.put("/etc/passwd", passwd.as_bytes(), 0o644).unwrap();
            // Where there is no such home it works in the root.
            let at = sandbox.sh("[ . -ef / ] && pwd -P");
            assert_eq!(String::from_utf8_lossy(&at.stdout), "/\n", "{home}");
        }
        let mut command = Command::shell("ls");
        command.cwd = Some(format!("/proc/self/fd/{number}/.."));
        let refused = sandbox.exec(&command);
        assert!(refused.is_err(), "worked in descriptor {number}: {refused:?}");
    }
    Outcome::Done
}

/// An ordinary user's guest has the ids of the one who owns the program. What it could get hold of on its
/// way in is the file that the keeper runs from.
fn program_is_read_only(rig: &Rig) -> Outcome {
    if is_root() {
        return Outcome::Skipped("as root no guest has the ids that own the program".into());
    }
    use sandscript::backend::local::{LocalBackend, LocalConfig};
    use sandscript::sandbox::{Backend, Cancel, Spec};
    let folder = scratch();
    let helper = folder.path().join("program");
    std::fs::copy(program(), &helper).unwrap();
    let store = folder.path().join("store");
    let name = rig.name("program");
    let backend = rig.wait(async {
        let config = LocalConfig {
            store: store.clone(),
            helper: Some(helper.clone()),
            ..LocalConfig::default()
        };
        let backend = LocalBackend::open(config).unwrap();
        backend.create(&Spec::new(&name), &Cancel::new()).await.unwrap();
        backend
    });
    let ours = format!("PPid:\t{}\n", std::process::id());
    let mut keepers = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let exe = entry.path().join("exe");
        let runs = std::fs::metadata(&exe).is_ok_and(|exe| {
            let helper = std::fs::metadata(&helper).unwrap();
            (exe.dev(), exe.ino()) == (helper.dev(), helper.ino())
        });
        if status.contains("Name:\tsandscript-keep") && status.contains(&ours) && runs {
            keepers += 1;
            // To be opened for writing, it must not be running; to change its mode is as good a question.
            let mode = std::fs::metadata(&exe).unwrap().permissions();
            let refused = std::fs::set_permissions(&exe, mode).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{refused}");
        }
    }
    assert_eq!(keepers, 1, "keepers that can be looked at");
    rig.wait(backend.delete(&name, &Cancel::new())).unwrap();
    drop(backend);
    empty(rig, &store);
    Outcome::Done
}

fn privileges(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("privileges");
    let status = sandbox.run("cat /proc/self/status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    let bounding = u64::from_str_radix(bounding, 16).unwrap();
    for (name, bit) in [
        ("net_admin", 12),
        ("sys_module", 16),
        ("sys_ptrace", 19),
        ("sys_admin", 21),
        ("mknod", 27),
    ] {
        assert_eq!(bounding & (1 << bit), 0, "CAP_{name} can be had");
    }
    let mounts = sandbox.run("cat /proc/self/mountinfo");
    let store = rig.store.parent().unwrap().to_str().unwrap();
    assert!(!mounts.contains(store), "the guest sees where the store is:\n{mounts}");
    assert!(!sandbox.run("cat /proc/net/unix").contains("control"));
    if rig.lacks(Capability::Users).is_none() {
        sandbox.run("cp /bin/sh /suid && cp /usr/bin/id /id && chmod 4755 /id");
        let mut command = Command::argv(["/id", "-u"]);
        command.user = Some("65534".into());
        assert_eq!(sandbox.exec(&command).unwrap().stdout, b"65534\n", "setuid works");
    }
    Outcome::Done
}

fn odd_identity_files(rig: &Rig) -> Outcome {
    let mut spec = Spec::new(rig.name("odd"));
    spec.owner = None;
    let sandbox = rig.make(spec).unwrap();
    for odd in
        ["mkfifo {}", "mkdir {}", "ln -s {} {}", "ln -s /dev/zero {}", "ln -s /proc/1/mem {}"]
    {
        for file in
            ["/etc/passwd", "/etc/group", "/etc/machine-id", "/etc/resolv.conf", "/etc/hosts"]
        {
            sandbox.run(&format!("rm -rf {file}; {}", odd.replace("{}", file)));
        }
        assert_eq!(sandbox.run("echo $HOME"), "/root", "{odd}");
        rig.wait(async {
            use sandscript::sandbox::{Backend, Cancel, StopOptions};
            let force = StopOptions { force: true, ..StopOptions::default() };
            rig.backend.stop(&sandbox.name, force, &Cancel::new()).await.unwrap();
            rig.backend.start(&sandbox.name, &Cancel::new()).await.unwrap();
        });
        assert_eq!(sandbox.run("echo alive"), "alive", "{odd}");
        sandbox.snapshot("odd").unwrap();
        let clone = sandbox.clone_of("odd");
        assert_eq!(clone.run("head -c 4 /etc/machine-id | wc -c"), "4", "{odd}");
        rig.wait(async {
            use sandscript::sandbox::{Backend, Cancel};
            rig.backend.delete_snapshot(&sandbox.name, "odd", &Cancel::new()).await.unwrap();
        });
    }
    Outcome::Done
}

fn timed_out(sandbox: &crate::rig::Sandbox<'_>, line: &str) {
    let mut command = Command::shell(line);
    command.timeout = Some(Duration::from_millis(400));
    let result = sandbox.exec(&command);
    assert!(matches!(result, Err(Error::Timeout { .. })), "{line}: {result:?}");
    for _ in 0..100 {
        if sandbox.processes() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!(
        "after the timeout of '{line}' there runs:\n{}",
        sandbox.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    );
}

fn daemons_do_not_outlive_a_timeout(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("daemons");
    for line in [
        "sleep 1000",
        "(setsid sleep 1000 >/dev/null 2>&1 &) ; sleep 1000",
        "setsid sh -c 'trap \"\" TERM INT HUP; (sleep 1000 & sleep 1000 &) ; wait; sleep 1000'",
        "ulimit -x 1; while :; do (sleep 1000 &) ; sleep 0.01; done",
        "while :; do (sh -c 'sleep 0.02' &) ; done",
    ] {
        timed_out(&sandbox, line);
    }
    Outcome::Done
}

/// The kernel shows a process as a zombie when its first thread has ended.
fn headless_process(rig: &Rig) -> Outcome {
    let Some(program) = rig.compiled("headless", include_str!("headless.c")) else {
        return Outcome::Skipped("no C compiler (cc)".into());
    };
    let sandbox = rig.sandbox("headless");
    sandbox.put("/headless", &program, 0o755).unwrap();
    timed_out(&sandbox, "/headless /tmp/count");
    sandbox.background("exec /headless /count");
    std::thread::sleep(Duration::from_millis(200));
    sandbox.snapshot("running").unwrap();
    let read = || sandbox.clone_of("running").run("cat /count");
    let first = read();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(first, read(), "the snapshot changes");
    assert_ne!(first, sandbox.run("cat /count"), "it went on");
    Outcome::Done
}

fn fork_bomb(rig: &Rig) -> Outcome {
    if let Some(skipped) = rig.lacks(Capability::LimitPids) {
        return skipped;
    }
    let mut spec = Spec::new(rig.name("forks"));
    spec.limits.pids = Some(40);
    let sandbox = rig.make(spec).unwrap();
    sandbox.background("bomb() { bomb | bomb & }; bomb; sleep 60 & wait");
    std::thread::sleep(Duration::from_millis(500));
    assert!(sandbox.processes() <= 41, "{}", sandbox.processes());
    sandbox.snapshot("bombed").unwrap();
    Outcome::Done
}

fn memory_bomb(rig: &Rig) -> Outcome {
    if let Some(skipped) = rig.lacks(Capability::LimitMemory) {
        return skipped;
    }
    let mut spec = Spec::new(rig.name("memory"));
    spec.limits.memory = Some(48 << 20);
    let sandbox = rig.make(spec).unwrap();
    let output = sandbox.sh("head -c 400m /dev/zero | tail -c 300m | wc -c");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("314572800"), "{output:?}");
    assert_eq!(sandbox.run("echo alive"), "alive");
    // Memory of a tmpfs counts too, and goes with the file.
    sandbox.sh("dd if=/dev/zero of=/dev/shm/big bs=1M count=200");
    let size: u64 = sandbox.run("stat -c %s /dev/shm/big; rm /dev/shm/big").parse().unwrap();
    assert!(size < 60 << 20, "{size}");
    assert_eq!(sandbox.run("echo alive"), "alive");
    Outcome::Done
}

fn fills_what_it_has(rig: &Rig) -> Outcome {
    let sandbox = rig.sandbox("fills");
    for line in [
        "dd if=/dev/zero of=/dev/big bs=64k count=1000",
        "dd if=/dev/zero of=/run/big bs=1M count=1000",
        "i=0; while mkdir /dev/d$i; do i=$((i+1)); done; false",
    ] {
        assert_ne!(sandbox.sh(line).exit, Exit::Code(0), "{line}");
        assert_eq!(sandbox.run("echo alive"), "alive");
    }
    sandbox.snapshot("filled").unwrap();
    Outcome::Done
}
