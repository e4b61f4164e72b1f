//! `sandscript machine`: files in, files out.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

#[test]
fn a_new_file_is_one_that_explains_itself() {
    let environment = TestEnvironment::fake();
    environment.ok(["machine", "new", "build", "--template", "docker", "--set", "bridge=br1"]);
    let text = std::fs::read_to_string(environment.path("project/build.toml")).unwrap();
    assert_snapshot!(text, @r#"
    # Docker CE with compose, from Docker's own packages
    extends = "docker"

    [variables]
    bridge = "br1"
    # image = "debian/12"  # a Debian or Ubuntu with systemd
    "#);
    let nspawn = environment.ok(["machine", "explain", "build.toml", "--part", "nspawn"]);
    assert!(nspawn.starts_with("# sandscript ") && nspawn.contains("\nBridge=br1\n"), "{nspawn}");
    let command = environment.ok(["machine", "explain", "build.toml", "--part", "command"]);
    assert!(command.contains("'--system-call-filter=add_key keyctl bpf'"), "{command}");
    // What is there is not written over.
    let again = environment.run(["machine", "new", "build", "--template", "agent"]);
    assert_snapshot!(again, @"
    exit code 1
    -- stderr
    error: build.toml is there already
    hint: give another with --output, or -: to print it
    ");
    assert_snapshot!(environment.run(["machine", "new", "x", "--template", "dokcer"]), @"
    exit code 2
    -- stderr
    error: --template: there is no template 'dokcer'
    hint: did you mean 'docker'?
    ");
}

#[test]
fn templates_say_what_they_leave_open() {
    let answer = TestEnvironment::fake().ok(["machine", "templates", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let names: Vec<&str> =
        answer.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["agent", "docker", "incus", "k3s", "lxd", "nixos", "podman", "router"]);
    let lan = answer[7]["variables"].as_array().unwrap().iter().find(|one| one["name"] == "lan");
    assert_eq!(lan.unwrap()["needed"], true);
}

#[test]
fn a_mistake_is_where_it_stands() {
    let environment = TestEnvironment::fake();
    environment.write("web.toml", "image = \"debian/12\"\n\n[limits]\nmemmory = \"1GiB\"\n");
    assert_snapshot!(environment.run(["machine", "check", "web.toml"]), @"
    exit code 2
    -- stderr
    error: web.toml:4:1: unknown key 'memmory'
    hint: did you mean 'memory'?
    ");
    environment.write("web.toml", "network = \"host\"\nsecurity.privileged = true\n");
    let run = environment.run(["machine", "check", "web.toml"]);
    assert_eq!(run.code, Some(11), "{run}");
    assert!(run.stderr.contains("it can change the host's firewall"), "{run}");
}

#[test]
fn a_host_that_lacks_something_is_told() {
    let environment = TestEnvironment::fake();
    environment.write("web.toml", "nics = [{ bridge = \"nobr7\" }]\n");
    let run = environment.run(["machine", "check", "web.toml", "--format", "json"]);
    assert_eq!(run.code, Some(1), "{run}");
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&answer["machine"], &answer["starts"]), (&"web".into(), &false.into()));
    let checks = answer["checks"].as_array().unwrap();
    let bridge = checks.iter().find(|one| one["what"] == "bridge nobr7").unwrap();
    assert_eq!(bridge["verdict"], "bad");
}

#[test]
fn a_change_leaves_the_rest_alone() {
    let environment = TestEnvironment::fake();
    environment.write("web.toml", "# mine\nimage = \"debian/12\" # stable\n\n[limits]\ncpu = 1\n");
    environment.ok(["machine", "set", "web.toml", "limits.memory=1GiB", "--unset", "limits.cpu"]);
    let text = std::fs::read_to_string(environment.path("project/web.toml")).unwrap();
    assert_eq!(text, "# mine\nimage = \"debian/12\" # stable\n\n[limits]\nmemory = \"1GiB\"\n");
    let run = environment.run(["machine", "set", "web.toml", "limits.memory=lots"]);
    assert_eq!(run.code, Some(2), "{run}");
    assert_eq!(std::fs::read_to_string(environment.path("project/web.toml")).unwrap(), text);
}

#[test]
fn what_a_gui_wrote_stays_unless_it_is_adopted() {
    let environment = TestEnvironment::fake();
    environment.write("web.toml", "image = \"debian/12\"\nnics = [{ veth = true }]\n");
    let render = ["machine", "render", "web.toml", "--into", "out"];
    environment.ok(render);
    let path = environment.path("project/out/run/systemd/nspawn/web.nspawn");
    let theirs = std::fs::read_to_string(&path).unwrap() + "Port=tcp:80\n";
    std::fs::write(&path, &theirs).unwrap();
    assert_snapshot!(environment.run(render), @"
    exit code 1
    -- stderr
    error: out/run/systemd/nspawn/web.nspawn was changed by somebody else, and is left as it is
    hint: --adopt takes it over into the machine file; or move it away, then render again
    ");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
    environment.ok(["machine", "render", "web.toml", "--into", "out", "--adopt"]);
    let text = std::fs::read_to_string(environment.path("project/web.toml")).unwrap();
    assert!(text.contains("[nspawn.Network]\nPort = \"tcp:80\"\n"), "{text}");
    assert!(std::fs::read_to_string(&path).unwrap().contains("\nPort=tcp:80\n"));
}

#[test]
fn a_jail_is_imported_and_says_what_is_not_as_it_was() {
    let environment = TestEnvironment::fake();
    environment.write(
        "jails/web/config",
        "startup=1\nseccomp=1\nsystemd_nspawn_user_args=--network-bridge=br1 --frobnicate\n",
    );
    environment.write("jails/web/rootfs/etc/os-release", "ID=debian\n");
    let run = environment.run(["machine", "import", "jails/web"]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.stderr.contains("warning: --frobnicate is not taken over"), "{run}");
    let text = std::fs::read_to_string(environment.path("project/web.toml")).unwrap();
    assert!(text.contains("autostart = true") && text.contains("bridge = \"br1\""), "{text}");
    let explained = environment.ok(["machine", "explain", "web.toml", "--part", "unit"]);
    assert!(explained.contains("/jails/web/rootfs"), "{explained}");
    let run = environment.run(["machine", "import", "nothing"]);
    assert!(run.stderr.contains("nothing: is not there"), "{run}");
}
