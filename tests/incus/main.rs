//! What only an Incus daemon of one's own can show: the command line, hardening, what a daemon that
//! dies does. The contract itself is in `tests/conformance`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod cluster;
#[path = "../compiler/mod.rs"]
mod compiler;
mod devices;
mod faults;
mod hardware;
mod images;
mod proxy;
mod remotes;
mod rig;
mod session;
mod settings;
mod workflows;

use std::path::Path;
use std::process::{Command as Program, ExitCode};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{Backend, Cancel, CloneSpec, Command, Error, Kind, Policy, Spec, exec};

/// How long what must come may take.
const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    sandscript::backend::local::init();
    let mut arguments = Arguments::from_args();
    // They share a daemon, and some kill it.
    arguments.test_threads = Some(1);
    if let Some(why) = rig::lacks() {
        println!("skip: {why}");
        let ours = std::env::var("CI").is_ok_and(|ci| ci == "true")
            && rustix::process::geteuid().is_root();
        return if ours { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    if arguments.list {
        let all = all(&Arc::default(), &cluster::Lazy::default());
        return libtest_mimic::run(&arguments, all).exit_code();
    }
    let folder = tempfile::Builder::new().prefix("sandscript-incus-").tempdir().unwrap();
    let only_clusters = arguments.filter.as_ref().is_some_and(|word| word.starts_with("cluster"));
    let daemon = match (!only_clusters).then(|| rig::Daemon::start(folder.path())).transpose() {
        Ok(daemon) => Arc::new(Mutex::new(daemon)),
        Err(error) => {
            eprintln!("no daemon: {error}");
            return ExitCode::FAILURE;
        }
    };
    let cluster = cluster::Lazy::default();
    let conclusion = libtest_mimic::run(&arguments, all(&daemon, &cluster));
    cluster.stop();
    drop(daemon.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    conclusion.exit_code()
}

type Test = (&'static str, fn(&mut rig::Daemon));
type Shared = Arc<Mutex<Option<rig::Daemon>>>;

fn all(daemon: &Shared, cluster: &cluster::Lazy) -> Vec<Trial> {
    trials(daemon).into_iter().chain(cluster::trials(cluster)).collect()
}

fn trials(daemon: &Shared) -> Vec<Trial> {
    let tests: [Test; 36] = [
        ("the_command_line", the_command_line),
        ("commands_share_a_process", session::commands_share_a_process),
        ("a_run_leaves_some_for_the_next", session::a_run_leaves_some_for_the_next),
        ("a_remote_by_token", remotes::by_token),
        ("the_incus_clients_own_remotes", remotes::the_incus_clients_own),
        ("a_server_with_another_certificate", remotes::another_certificate),
        ("an_image_of_an_image_server", images::of_an_image_server),
        ("a_disk_that_is_limited", images::a_disk_that_is_limited),
        ("devices_of_the_server", devices::of_the_server),
        ("devices_that_are_refused", devices::that_are_refused),
        ("mistakes_with_devices", devices::mistakes),
        ("a_pool_of_its_own", hardware::a_pool_of_its_own),
        ("a_card_of_its_own", hardware::a_card_of_its_own),
        ("a_project_that_is_restricted", hardware::a_project_that_is_restricted),
        ("network_acls_are_tried", hardware::network_acls_are_tried),
        ("ports_that_the_server_opens", devices::ports_that_the_server_opens),
        ("a_snapshot_on_other_storage", images::a_snapshot_on_other_storage),
        ("the_scripts_that_people_start_from", workflows::the_scripts),
        ("a_guest_is_hardened", a_guest_is_hardened),
        ("a_clone_with_systemd_is_another_machine", a_clone_with_systemd_is_another_machine),
        ("foreign_instances_are_not_touched", foreign_instances_are_not_touched),
        ("two_clients_make_one_name", two_clients_make_one_name),
        ("two_clients_change_one_policy", settings::two_clients_change_one_policy),
        ("a_change_beside_another", settings::a_change_beside_another),
        ("a_daemon_that_dies_mid_exec", a_daemon_that_dies_mid_exec),
        ("a_daemon_that_dies_mid_create", a_daemon_that_dies_mid_create),
        ("a_daemon_that_dies_mid_copy", faults::a_daemon_that_dies_mid_copy),
        ("a_daemon_that_dies_mid_matrix", workflows::a_daemon_that_dies_mid_matrix),
        ("a_daemon_that_is_gone", a_daemon_that_is_gone),
        ("a_daemon_that_stands_still", faults::a_daemon_that_stands_still),
        ("a_restore_that_is_killed", faults::a_restore_that_is_killed),
        ("an_answer_that_is_cut_off", faults::an_answer_that_is_cut_off),
        ("events_that_break_off", faults::events_that_break_off),
        ("one_stream_tells_of_all", faults::one_stream_tells_of_all),
        ("an_operation_that_fails_later", faults::an_operation_that_fails_later),
        ("a_pool_that_is_full", faults::a_pool_that_is_full),
    ];
    tests
        .map(|(name, test)| {
            let daemon = Arc::clone(daemon);
            Trial::test(name, move || {
                let mut daemon = daemon.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                test(daemon.as_mut().ok_or("there is no daemon")?);
                Ok(())
            })
        })
        .into()
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

async fn open(daemon: &rig::Daemon, image: &str) -> IncusBackend {
    open_at(&daemon.socket(), image).await
}

/// As with a server elsewhere: sandboxes have interfaces.
async fn open_elsewhere(daemon: &rig::Daemon, image: &str) -> IncusBackend {
    let config = IncusConfig {
        socket: Some(daemon.socket()),
        image: Some(image.into()),
        elsewhere: true,
        ..IncusConfig::default()
    };
    IncusBackend::open(config).await.unwrap()
}

async fn open_at(socket: &Path, image: &str) -> IncusBackend {
    let config = IncusConfig {
        socket: Some(socket.to_owned()),
        image: Some(image.into()),
        ..IncusConfig::default()
    };
    IncusBackend::open(config).await.unwrap()
}

async fn sh(backend: &dyn Backend, name: &str, line: &str) -> String {
    let output = exec(backend, name, &Command::shell(line), &Cancel::new()).await.unwrap();
    assert!(output.exit.ok(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A user who has nothing but the program.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    /// The user's own folder.
    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A call, from a folder.
    fn command(&self, folder: &Path, env: &[(&str, &Path)], args: &[&str]) -> Program {
        let mut program = Program::new(env!("CARGO_BIN_EXE_sandscript"));
        program
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.0.path())
            .env("SANDSCRIPT_BACKEND", "incus")
            .env("SANDSCRIPT_GC_EVERY", "never")
            .env("SANDSCRIPT_NO_SESSION", "1")
            .envs(env.iter().copied())
            .current_dir(folder);
        program
    }

    /// Exit code, output and errors of a call from the user's own folder.
    fn run(&self, env: &[(&str, &Path)], args: &[&str]) -> (Option<i32>, String, String) {
        self.run_in(self.0.path(), env, args)
    }

    fn run_in(
        &self,
        folder: &Path,
        env: &[(&str, &Path)],
        args: &[&str],
    ) -> (Option<i32>, String, String) {
        let output = self.command(folder, env, args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

fn the_command_line(daemon: &mut rig::Daemon) {
    let home = Home::new();
    let run = |args: &[&str]| home.run(&[("INCUS_SOCKET", &daemon.socket())], args);
    let ok = |args: &[&str]| {
        let (code, out, err) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };
    ok(&["create", "one", "--image", "small"]);
    assert_eq!(ok(&["exec", "one", "--", "sh", "-c", "echo $0; hostname"]), "sh\none\n");
    let (code, out, err) =
        run(&["exec", "one", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(7), "out\n", "err\n"));
    ok(&["snapshot", "create", "one", "clean"]);
    ok(&["clone", "one", "two", "--label", "clean"]);
    let list: serde_json::Value = serde_json::from_str(&ok(&["list", "--format", "json"])).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["one", "two"]);
    let (code, _, err) = run(&["exec", "one", "--", "no-such-program"]);
    assert_eq!(code, Some(127), "{err}");
    for name in ["one", "two"] {
        ok(&["delete", name, "--yes"]);
    }
    assert_eq!(ok(&["list", "--format", "json"]).trim(), "[]");
    // A workflow with cached steps: the second time nothing is built.
    let script = "let b = base(\"b\", #{ from: \"small\" }, |b| { b.run(\"echo 1 > /root/f\"); });\n\
        let s = sandbox(\"s\", #{ from: b });\nprint(s.run(\"cat /root/f\").stdout);\n";
    std::fs::write(home.0.path().join("x.rhai"), script).unwrap();
    for _ in 0..2 {
        assert!(ok(&["run", "x.rhai"]).contains('1'));
    }
    let (code, _, err) = run(&["--host", "/no/such/socket", "list"]);
    assert_eq!(code, Some(10), "{err}");
    assert!(err.contains("/no/such/socket can't be reached"), "{err}");
    let (code, _, err) = run(&["--host", "nas", "list"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("there is no remote 'nas'"), "{err}");
}

fn a_guest_is_hardened(daemon: &mut rig::Daemon) {
    wait(async {
        let backend = open(daemon, "small").await;
        let name = "hardened";
        backend.create(&Spec::new(name), &Cancel::new()).await.unwrap();
        for (key, value) in [
            ("security.guestapi", "false"),
            ("security.nesting", "false"),
            ("security.privileged", "false"),
        ] {
            assert_eq!(daemon.incus(&["config", "get", name, key]).unwrap().trim(), value, "{key}");
        }
        assert_eq!(sh(&backend, name, "ls -d /dev/incus 2>/dev/null || echo none").await, "none");
        // Sockets of no other kinds than those that its network namespace separates: EPERM, which the kernel
        // says of none that it does not know. Nor by the calls that make one without `socket`.
        let kinds = "for my $kind (0 .. 60, 0x7fffffff) { my $made = syscall(41, $kind, 1, 0); \
            print \"$kind \" if $made >= 0 || $! != 1 } \
            print 'uring ' if syscall(425, 1, 0) >= 0 || $! != 1;";
        let open = sh(&backend, name, &format!("perl -e '{kinds}'")).await;
        assert_eq!(
            open, "1 2 10 16 17",
            "of these kinds of sockets something else than EPERM came"
        );
        let map = sh(&backend, name, "cat /proc/self/uid_map").await;
        assert!(map.split_whitespace().nth(1).is_some_and(|host| host != "0"), "{map}");
        // What is run is in no argument list that others in the guest can read.
        let mut command = Command::shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; true");
        command.env.insert("TOKEN".into(), "hunter2".into());
        let output = exec(&backend, name, &command, &Cancel::new()).await.unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"));
        backend.delete(name, &Cancel::new()).await.unwrap();
    });
    // Where the server's profile says so, no two have the same user ids.
    daemon.incus(&["profile", "set", "default", "security.idmap.isolated=true"]).unwrap();
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let mut maps = Vec::new();
        for name in ["apart-1", "apart-2"] {
            backend.create(&Spec::new(name), &cancel).await.unwrap();
            maps.push(sh(&backend, name, "cat /proc/self/uid_map").await);
        }
        assert_ne!(maps[0], maps[1]);
        for name in ["apart-1", "apart-2"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    daemon.incus(&["profile", "unset", "default", "security.idmap.isolated"]).unwrap();
}

fn a_clone_with_systemd_is_another_machine(daemon: &mut rig::Daemon) {
    wait(async {
        let backend = open_elsewhere(daemon, "debian/12").await;
        let cancel = Cancel::new();
        let mut spec = Spec::new("source");
        spec.egress = Policy::Unrestricted;
        backend.create(&spec, &cancel).await.unwrap();
        sh(&backend, "source", "ssh-keygen -A >/dev/null; cat /proc/1/comm | grep systemd").await;
        let identity = "cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; \
            cat /sys/class/net/eth0/address; hostname; cat /etc/hostname";
        Backend::clone(&backend, "source", &CloneSpec::new("twin"), &cancel).await.unwrap();
        let (one, two) =
            (sh(&backend, "source", identity).await, sh(&backend, "twin", identity).await);
        for (one, two) in one.lines().zip(two.lines()) {
            assert!(!one.is_empty() && one != two, "both have {one}");
        }
        assert_eq!((one.lines().count(), two.lines().last()), (5, Some("twin")));
        // A restart changes nothing of it.
        backend.stop("twin", Default::default(), &cancel).await.unwrap();
        backend.start("twin", &cancel).await.unwrap();
        assert_eq!(sh(&backend, "twin", identity).await, two);
        for name in ["source", "twin"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
}

fn foreign_instances_are_not_touched(daemon: &mut rig::Daemon) {
    daemon.incus(&["create", "small", "foreign"]).unwrap();
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let all = backend.list(&cancel).await.unwrap();
        assert!(all.iter().all(|info| info.name != "foreign"));
        let error = backend.delete("foreign", &cancel).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { kind: Kind::Sandbox, .. }));
        insta::assert_snapshot!(error.hint().unwrap(), @"there is an instance of this name that sandscript did not make");
        let error = backend.create(&Spec::new("foreign"), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { kind: Kind::Sandbox, .. }));
    });
    daemon.incus(&["delete", "foreign"]).unwrap();
}

fn two_clients_make_one_name(daemon: &mut rig::Daemon) {
    wait(async {
        let backends = [open(daemon, "small").await, open(daemon, "small").await].map(Arc::new);
        let tries: Vec<_> = (0..6)
            .map(|at| {
                let backend = Arc::clone(&backends[at % 2]);
                tokio::spawn(async move { backend.create(&Spec::new("won"), &Cancel::new()).await })
            })
            .collect();
        let mut won = 0;
        for done in tries {
            match done.await.unwrap() {
                Ok(_) => won += 1,
                Err(Error::AlreadyExists { .. } | Error::Busy { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(sh(backends[0].as_ref(), "won", "hostname").await, "won");
        backends[1].delete("won", &Cancel::new()).await.unwrap();
    });
}

fn a_daemon_that_dies_mid_exec(daemon: &mut rig::Daemon) {
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        backend.create(&Spec::new("lives"), &cancel).await.unwrap();
        let mut process =
            backend.spawn("lives", &Command::argv(["sleep", "1000"]), &cancel).await.unwrap();
        daemon.kill().unwrap();
        let down = backend.list(&cancel).await;
        assert!(matches!(down, Err(Error::Transport { .. })), "{down:?}");
        daemon.again().unwrap();
        // Nobody knows how it ended: that is an error and no exit code.
        let end = tokio::time::timeout(SOON, process.control.wait()).await.unwrap();
        assert!(matches!(end, Err(Error::Transport { .. })), "{end:?}");
        // The sandbox went on, and the same connection works again.
        assert_eq!(sh(&backend, "lives", "echo $((1 + 1))").await, "2");
        backend.delete("lives", &cancel).await.unwrap();
    });
}

fn a_daemon_that_dies_mid_create(daemon: &mut rig::Daemon) {
    wait(async {
        let backend = Arc::new(open(daemon, "small").await);
        let cancel = Cancel::new();
        backend.list(&cancel).await.unwrap();
        let making = {
            let backend = Arc::clone(&backend);
            tokio::spawn(async move { backend.create(&Spec::new("half"), &Cancel::new()).await })
        };
        tokio::time::sleep(Duration::from_millis(60)).await;
        daemon.kill().unwrap();
        daemon.again().unwrap();
        let made = tokio::time::timeout(SOON, making).await.unwrap().unwrap();
        // Made or not made; what is there is whole, or can be deleted.
        match backend.get("half", &cancel).await {
            Ok(_) => {
                if made.is_ok() {
                    assert_eq!(sh(backend.as_ref(), "half", "hostname").await, "half");
                }
                backend.delete("half", &cancel).await.unwrap();
            }
            Err(error) => {
                assert!(made.is_err(), "it was made, and is gone");
                assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
            }
        }
        backend.create(&Spec::new("half"), &cancel).await.unwrap();
        backend.delete("half", &cancel).await.unwrap();
    });
}

fn a_daemon_that_is_gone(daemon: &mut rig::Daemon) {
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        daemon.kill().unwrap();
        let error = backend.create(&Spec::new("never"), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        std::fs::remove_file(daemon.socket()).unwrap();
        let error = backend.list(&cancel).await.unwrap_err();
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        daemon.again().unwrap();
        let error = backend.get("never", &cancel).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    });
}
