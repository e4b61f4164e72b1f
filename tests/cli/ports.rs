//! Ports and networks of sandboxes, on the command line.

use std::net::TcpListener;

use insta::assert_snapshot;

use crate::environment::{TestEnvironment, skip};

#[test]
fn ports_of_a_new_sandbox() {
    let create = |args: &[&str]| {
        TestEnvironment::fake().run([&["create", "web"][..], args].concat()).to_string()
    };
    assert_snapshot!(create(&["--publish", "8080", "--publish", "9000:80"]));
    assert_snapshot!(create(&["--publish", "0.0.0.0:9000:80", "--publish", "192.0.2.1::81"]));
    assert_snapshot!(create(&["--publish", "80:0"]));
    assert_snapshot!(create(&["--publish", "65536"]));
    assert_snapshot!(create(&["--publish", "localhost:9000:80"]));
    assert_snapshot!(create(&["--publish", "80", "--bare"]));
    // What is half made is not left.
    assert_snapshot!(create(&["--publish", "9000:80", "--publish", "9000:81"]));
    let json =
        TestEnvironment::fake().ok(["create", "web", "--format", "json", "--publish", "9000:80"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ports"].to_string(), r#"[{"at":"127.0.0.1:9000","port":80}]"#);
}

#[test]
fn a_sandbox_that_is_not_there() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["publish", "nope", "80"]));
    assert_snapshot!(environment.run(["publish", "nope"]));
    assert_snapshot!(environment.run(["publish", "nope", "80", "--format", "json"]));
}

/// On a real sandbox, one call after the other.
#[test]
fn a_port_over_its_life() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !environment.has("publish") {
        return skip("the local backend publishes nothing here");
    }
    let ports = || -> String {
        let all = environment.ok(["list", "--format", "json"]);
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        all[0]["ports"].to_string()
    };
    environment.ok(["create", "web"]);
    let at = environment.ok(["publish", "web", "8080"]);
    let at = at.trim();
    assert!(at.starts_with("127.0.0.1:"), "{at}");
    assert_eq!(environment.ok(["publish", "web", "8080"]).trim(), at);
    assert_eq!(ports(), format!(r#"[{{"at":"{at}","port":8080}}]"#));
    let shown = environment.ok(["show", "web"]);
    assert!(shown.contains(&format!("ports         {at} -> 8080\n")), "{shown}");
    let shown = environment.ok(["show", "web", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["ports"][0]["at"], at);

    let wrong = |port: &str| {
        let run = environment.run(["publish", "web", port]);
        format!("{}{}", run.code.unwrap(), run.stderr.replace(at, "AT"))
    };
    let port = at.rsplit_once(':').unwrap().1;
    assert_snapshot!(wrong(&format!("{port}:81")));
    assert_snapshot!(wrong("192.0.2.1:9000:80"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let said = wrong(&format!("{taken}:80")).replace(&taken.to_string(), "TAKEN");
    assert_snapshot!(said);
    if !rustix::process::geteuid().is_root() && TcpListener::bind("127.0.0.1:81").is_err() {
        assert_eq!(
            wrong("81:81"),
            "2error: at: port 81 of this machine is root's\nhint: choose one from 1024 on: \"8081:81\"\n"
        );
    }

    let close = |port: &str| environment.run(["publish", "web", port, "--close"]).stderr;
    environment.ok(["publish", "web", "8081"]);
    assert_eq!(close("8080"), format!("{at} is closed\n"));
    assert!(std::net::TcpStream::connect(at).is_err());
    let said = close("8080");
    let other = said.rsplit_once("127.0.0.1:").unwrap().1.split(' ').next().unwrap();
    assert_snapshot!(said.replace(other, "PORT"));
    close("8081");
    assert_eq!(ports(), "[]");
    environment.ok(["publish", "web", &format!("{at}:8080")]);

    environment.ok(["stop", "web"]);
    assert_eq!(ports(), "[]");
    assert_snapshot!(wrong("80"));
    environment.ok(["start", "web"]);
    assert_eq!(ports(), "[]");
    environment.ok(["delete", "web", "--yes"]);
}

#[test]
fn who_is_in_which_network() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !environment.has("networks") {
        return skip("the local backend has no networks here");
    }
    environment.write(
        "x.rhai",
        "let net = network(\"net\");\n\
         sandbox(\"db\", #{ network: [net, network(\"other\")], keep: true });\n\
         sandbox(\"gone\", #{ network: net });",
    );
    environment.ok(["run", "x.rhai"]);
    let shown = environment.ok(["show", "db", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let run = shown["networks"][0]["run"].as_str().unwrap().to_owned();
    assert_eq!(shown["networks"][0]["name"], "net");
    let shown = environment.ok(["show", "db"]);
    let line = format!("networks      net of run {run}, other of run {run}\n");
    assert!(shown.contains(&line), "{shown}");
    // What is kept is in them to its end.
    environment.ok(["stop", "db"]);
    environment.ok(["start", "db"]);
    assert!(environment.ok(["show", "db"]).contains(&line));
    environment.ok(["clone", "db", "twin"]);
    assert!(!environment.ok(["show", "twin"]).contains("networks"));
    environment.ok(["delete", "db", "twin", "--yes"]);
}

#[test]
fn a_network_by_hand() {
    assert_snapshot!(TestEnvironment::fake().run(["create", "web", "--network", "No"]));
    assert_snapshot!(TestEnvironment::fake().run([
        "create",
        "web",
        "--network",
        "n",
        "--network",
        "n"
    ]));
    let Some(environment) = TestEnvironment::local() else { return };
    if !environment.has("networks") {
        return skip("the local backend has no networks here");
    }
    environment.ok(["create", "db", "--network", "back"]);
    environment.ok(["create", "app", "--network", "front", "--network", "back"]);
    environment.ok(["create", "alone"]);
    environment.ok(["clone", "db", "twin", "--network", "back"]);
    environment.ok(["clone", "db", "other"]);
    // Another one, although it has the same name.
    environment.write("x.rhai", "sandbox(\"run\", #{ network: network(\"back\"), keep: true });");
    environment.ok(["run", "x.rhai"]);
    let shown = environment.ok(["show", "app"]);
    assert!(shown.contains("networks      front, back\n"), "{shown}");
    let finds = |from: &str, to: &str| {
        let look = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))";
        let run = environment.run(["exec", from, "--", "python3", "-c", look, to]);
        run.code == Some(0) && run.stdout.starts_with("198.1")
    };
    for (from, to) in [("db", "app"), ("app", "db"), ("twin", "app"), ("app", "twin")] {
        assert!(finds(from, to), "{from} {to}");
    }
    for (from, to) in [
        ("alone", "db"),
        ("db", "alone"),
        ("other", "db"),
        ("db", "other"),
        ("run", "db"),
        ("db", "run"),
    ] {
        assert!(!finds(from, to), "{from} {to}");
    }
    environment.ok(["delete", "db", "app", "alone", "twin", "other", "run", "--yes"]);
}

/// A service in one sandbox, its user in another one, which reaches nothing else.
#[test]
fn a_service_is_reached_by_its_name() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !environment.has("networks") {
        return skip("the local backend has no networks here");
    }
    environment.write(
        "x.rhai",
        r#"import "std/services" as services;
let net = network("net");
let web = sandbox(#{ hostname: "web", network: net });
web.write("/srv/a", "hello");
web.spawn(["python3", "-m", "http.server", "8080", "--directory", "/srv"]);
services::wait_port(web, 8080);
matrix("m", #{ network: net, axes: #{ peer: ["web", web.name, "other"] } }, |cell| {
    if cell.peer == "other" { expect_fail("it is in no network"); }
    let get = "import sys, urllib.request as r; print(r.urlopen('http://' + sys.argv[1] + ':8080/a').read())";
    assert_eq(cell.sandbox.run(["python3", "-c", get, cell.peer]).stdout, "b'hello'\n");
});"#,
    );
    environment.write(
        "x.lua",
        r#"local services = require("std/services")
local net = network("net")
local web <close> = sandbox({ hostname = "web", network = net })
web:write("/srv/a", "hello")
web:spawn({ "python3", "-m", "http.server", "8080", "--directory", "/srv" })
services.wait_port(web, 8080)
matrix("m", { network = net, axes = { peer = { "web", web.name, "other" } } }, function(cell)
  if cell.peer == "other" then expect_fail("it is in no network") end
  local get = "import sys, urllib.request as r; print(r.urlopen('http://' + sys.argv[1] + ':8080/a').read())"
  assert_eq(cell.sandbox:run({ "python3", "-c", get, cell.peer }).stdout, "b'hello'\n")
end)"#,
    );
    for script in ["x.rhai", "x.lua"] {
        let run = environment.run(["run", script]);
        assert_eq!(run.code, Some(0), "{run}");
        assert!(run.to_string().contains("2 passed"), "{run}");
    }
}
