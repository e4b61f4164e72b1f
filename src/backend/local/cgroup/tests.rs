use super::*;

fn put_all(root: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// A folder that looks like a version 2 hierarchy, with this process at `/user/app/me`.
fn unified(root: &Path, own_procs: &str) -> Found {
    put_all(
        root,
        &[
            ("cgroup.controllers", "cpu memory pids"),
            ("cgroup.subtree_control", "cpu memory pids"),
            ("cgroup.procs", "1"),
            ("user/cgroup.type", "domain"),
            ("user/cgroup.controllers", "cpu memory pids"),
            ("user/cgroup.subtree_control", "memory pids"),
            ("user/cgroup.procs", "77"),
            ("user/app/cgroup.controllers", "memory pids"),
            ("user/app/cgroup.subtree_control", "pids"),
            ("user/app/cgroup.procs", "78"),
            ("user/app/me/cgroup.controllers", "pids"),
            ("user/app/me/cgroup.subtree_control", ""),
            ("user/app/me/cgroup.procs", own_procs),
        ],
    );
    let mountinfo = format!("31 23 0:28 / {} rw,nosuid - cgroup2 cgroup2 rw\n", root.display());
    find("0::/user/app/me\n", &mountinfo, 500)
}

#[test]
fn the_nearest_ancestor_that_allows_most() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let found = unified(root, "500\n501\n");
    let base = found.unified.clone().unwrap();
    // The top has no `cgroup.type`, so it may hand everything down with processes in it.
    assert_eq!(base.path, root);
    assert_eq!(base.controllers, Controller::ALL);
    // Not the top of the machine: what was handed down already is what there is.
    fs::write(root.join("cgroup.type"), "domain").unwrap();
    fs::write(root.join("cgroup.subtree_control"), "cpu").unwrap();
    let base = unified_again(root);
    assert_eq!(base.path, root.join("user"));
    assert_eq!(base.controllers, [Controller::Memory, Controller::Pids]);
    // Alone in its own group: that is nearest, but it has fewer controllers.
    fs::write(root.join("user/app/me/cgroup.procs"), "500\n").unwrap();
    fs::write(root.join("user/app/me/cgroup.controllers"), "cpu memory pids").unwrap();
    let base = unified_again(root);
    assert_eq!(base.path, root.join("user/app/me"));
    assert_eq!(base.controllers, Controller::ALL);
}

fn unified_again(root: &Path) -> hierarchy::Base {
    let mountinfo = format!("31 23 0:28 / {} rw,nosuid - cgroup2 cgroup2 rw\n", root.display());
    find("0::/user/app/me\n", &mountinfo, 500).unified.unwrap()
}

#[test]
fn limits_in_version_2() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let groups = Cgroups::from("t", unified(root, "500\n"));
    // The kernel makes these files with the folder.
    let own = root.join("sandscript-t/box");
    for name in
        ["sandscript-t", "sandscript-t/box", "sandscript-t/box/init", "sandscript-t/box/payload"]
    {
        for file in [
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.freeze",
            "cgroup.events",
            "memory.max",
            "memory.swap.max",
            "pids.max",
            "cpu.max",
        ] {
            put_all(&root.join(name), &[(file, "")]);
        }
    }
    let limits =
        Limits { cpu: Some(1.5), memory: Some(1 << 20), pids: Some(7), ..Limits::default() };
    let group = groups.create("box", &limits).unwrap();
    let read = |name: &str| fs::read_to_string(own.join(name)).unwrap();
    assert_eq!(read("payload/cpu.max"), "150000 100000");
    assert_eq!(read("payload/memory.max"), "1048576");
    assert_eq!(read("payload/memory.swap.max"), "0");
    assert_eq!(read("payload/pids.max"), "7");
    assert_eq!(read("cgroup.subtree_control"), "+cpu +memory +pids");
    assert_eq!((group.init.len(), group.payload.len()), (1, 1));
    assert!(group.freeze.is_some());
    assert_eq!(group.folders, [own.join("init"), own.join("payload"), own.clone()]);
    assert_eq!(groups.stale(&HashSet::from(["box".to_string()])), Vec::<PathBuf>::new());
    assert_eq!(groups.stale(&HashSet::new()), [own.join("payload"), own.join("init"), own]);
}

#[test]
fn what_is_not_there_says_why() {
    let groups = Cgroups::from("t", find("", "", 1));
    let limits = Limits { memory: Some(1), ..Limits::default() };
    let error = groups.create("box", &limits).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    assert!(error.hint().unwrap().contains("mount cgroup2"));
    let group = groups.create("box", &Limits::default()).unwrap();
    assert!(group.init.is_empty() && group.payload.is_empty() && group.freeze.is_none());
    // A process outside of what is mounted.
    let folder = tempfile::tempdir().unwrap();
    let mountinfo = format!("31 23 0:28 /a {} rw - cgroup2 cgroup2 rw\n", folder.path().display());
    assert!(find("0::/b\n", &mountinfo, 1).unified.is_none());
    assert!(find("0::/../b\n", &mountinfo, 1).unified.is_none());
}

/// The real thing, where this process may make groups.
#[test]
fn on_this_machine() {
    let scope = format!("test{}", std::process::id());
    let groups = Cgroups::probe(&scope);
    let (mut limits, mut set) = (Limits::default(), 0);
    for controller in Controller::ALL {
        match groups.missing(*controller) {
            Some(why) => println!("skipped: {}: {why}", controller.name()),
            None => {
                set += 1;
                match controller {
                    Controller::Cpu => limits.cpu = Some(0.5),
                    Controller::Memory => limits.memory = Some(64 << 20),
                    Controller::Pids => limits.pids = Some(5),
                }
            }
        }
    }
    let plain = groups.create("plain", &Limits::default()).unwrap();
    let started = std::time::Instant::now();
    let again = groups.create("second", &Limits::default()).unwrap();
    println!("create without limits: {:?}", started.elapsed());
    assert!(plain.payload.len() <= 1);
    let group = groups.create("box", &limits).unwrap();
    assert!(group.payload.len() >= usize::from(set > 0));
    let mut tops = HashSet::new();
    for folder in &group.folders {
        assert!(folder.is_dir());
        tops.extend(
            folder.ancestors().find(|path| path.ends_with(groups.folder())).map(PathBuf::from),
        );
    }
    if limits.pids.is_some() {
        let mut sleeper = std::process::Command::new("sh");
        sleeper.args(["-c", "read go; for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait"]);
        sleeper.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = sleeper.spawn().unwrap();
        for procs in &group.payload {
            rustix::io::write(procs, child.id().to_string().as_bytes()).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        // dash ends when it can't fork; bash goes on: either way fewer than nine sleep.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let folder = group.folders.iter().find(|path| path.join("pids.max").exists()).unwrap();
        let count = words(&folder.join("cgroup.procs")).len();
        assert!((1..=5).contains(&count), "{count}");
        for pid in words(&folder.join("cgroup.procs")) {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
    }
    for folders in [&plain.folders, &again.folders, &group.folders] {
        assert!(remove(folders));
        assert!(folders.iter().all(|folder| !folder.exists()));
    }
    assert!(groups.stale(&HashSet::new()).is_empty());
    tops.iter().for_each(|top| fs::remove_dir(top).unwrap());
}
