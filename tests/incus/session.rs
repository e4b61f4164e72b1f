//! What goes from one command to the next, and from one run to the next.

use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::Home;
use crate::rig::Daemon;

/// The sessions of a home, which end with it.
struct Sessions<'a>(&'a Path);

impl Sessions<'_> {
    fn process(&self) -> Option<Pid> {
        let sockets = std::fs::read_dir(self.0.join("sandscript")).ok()?;
        let mut paths = sockets.map(|entry| entry.unwrap().path());
        let socket = paths.find(|path| path.extension().is_none())?;
        let stream = UnixStream::connect(socket).ok()?;
        Some(rustix::net::sockopt::socket_peercred(&stream).unwrap().pid)
    }
}

impl Drop for Sessions<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.process() {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

pub fn commands_share_a_process(daemon: &mut Daemon) {
    let home = Home::new();
    let own = home.0.path().to_owned();
    let sessions = Sessions(&own);
    let socket = daemon.socket();
    let env = [
        ("INCUS_SOCKET", socket.as_path()),
        ("SANDSCRIPT_NO_SESSION", Path::new("0")),
        ("XDG_RUNTIME_DIR", &own),
    ];
    let run = |args: &[&str]| home.run(&env, args);
    let ok = |args: &[&str]| {
        let (code, out, err) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };
    ok(&["create", "one", "--image", "small"]);
    let process = sessions.process().unwrap();
    for _ in 0..3 {
        assert_eq!(ok(&["exec", "one", "--", "hostname"]), "one\n");
    }
    // The command's parent has the guest's programs started: the server was asked for none of them.
    let asked = |daemon: &Daemon| {
        let all = daemon.incus(&["operation", "list", "--format", "csv"]).unwrap();
        let of = |line: &&str| line.contains("Executing command");
        let ids = all.lines().filter(of).map(|line| line.split(',').next().unwrap().to_owned());
        ids.collect::<std::collections::BTreeSet<String>>()
    };
    let before = asked(daemon);
    ok(&["exec", "one", "--", "true"]);
    let after = asked(daemon);
    assert!(after.is_subset(&before), "{before:?} {after:?}");
    assert_eq!(sessions.process(), Some(process));

    daemon.kill().unwrap();
    let (code, _, err) = run(&["list"]);
    assert_eq!(code, Some(10), "{err}");
    daemon.again().unwrap();
    assert_eq!(ok(&["exec", "one", "--", "hostname"]), "one\n");
    // What the guest's own end takes away comes again with it.
    ok(&["stop", "one", "--force"]);
    ok(&["start", "one"]);
    assert_eq!(ok(&["exec", "one", "--", "hostname"]), "one\n");
    assert_eq!(ok(&["exec", "one", "--", "hostname"]), "one\n");
    ok(&["delete", "one", "--yes"]);
}

pub fn a_run_leaves_some_for_the_next(daemon: &mut Daemon) {
    let home = Home::new();
    let socket = daemon.socket();
    let env = [("INCUS_SOCKET", socket.as_path())];
    let script = "let b = base(\"b\", #{ from: \"small\" }, |b| { b.run(\"echo 1 > /root/f\"); });
        matrix(\"m\", #{ from: b, axes: #{ n: [0, 1, 2] }, pool: 2 }, |cell| {
            cell.sandbox.run(\"test -e /root/f && test ! -e /root/used && touch /root/used\");
            print(cell.sandbox.info().name);
        });\n";
    std::fs::write(home.0.path().join("m.rhai"), script).unwrap();
    let names = || {
        let (code, out, err) = home.run(&env, &["run", "m.rhai"]);
        assert_eq!(code, Some(0), "{out}{err}");
        let words = out.split_whitespace().filter(|word| word.starts_with("pool-"));
        words.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let waiting = || {
        let (_, out, _) = home.run(&env, &["list"]);
        let words = out.split_whitespace().filter(|word| word.starts_with("pool-"));
        words.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names().len(), 0);
    let first = waiting();
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(names(), first);
    let second = waiting();
    assert!(second.len() == 2 && second.is_disjoint(&first), "{second:?}");
    for name in second {
        let (code, out, err) = home.run(&env, &["delete", &name, "--yes"]);
        assert_eq!(code, Some(0), "{out}{err}");
    }
    let (code, out, err) = home.run(&env, &["base", "prune", "--keep", "0", "--yes"]);
    assert_eq!(code, Some(0), "{out}{err}");
}
