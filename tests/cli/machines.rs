//! Cells on several backends: what they are called, where they are found again, and which machines
//! a script may use.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

const TWO: &str = r#"matrix("m", { axes = { backend = { "local", "fake" }, from = { "host", "fake" }, db = { "sqlite", "postgres" } } }, function(cell) end)"#;

#[test]
fn ids_say_where_a_cell_runs_and_select_it() {
    let environment = TestEnvironment::fake();
    environment.write("x.lua", TWO);
    let listed = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        environment.ok(["run", "x.lua", "--list"].into_iter().chain(filters))
    };
    assert_snapshot!(listed(&[]), @"
    local:host/db=sqlite
    local:fake/db=sqlite
    local:host/db=postgres
    local:fake/db=postgres
    fake:host/db=sqlite
    fake:fake/db=sqlite
    fake:host/db=postgres
    fake:fake/db=postgres
    ");
    assert_snapshot!(listed(&["local:host/db=sqlite"]), @"local:host/db=sqlite");
    assert_snapshot!(listed(&["backend=local,db=post*"]), @"
    local:host/db=postgres
    local:fake/db=postgres
    ");
    assert_snapshot!(listed(&["*:host/db=sqlite", "fake:fake"]), @"
    local:host/db=sqlite
    fake:host/db=sqlite
    fake:fake/db=sqlite
    fake:fake/db=postgres
    ");
    assert_snapshot!(listed(&["host/db=sqlite"]), @"
    local:host/db=sqlite
    fake:host/db=sqlite
    ");
    let json = environment.ok([
        "run",
        "x.lua",
        "--list",
        "--format",
        "json",
        "--filter",
        "local:,db=sqlite",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["matrices"][0]["cells"][0]["id"], "local:host/db=sqlite");
    assert_eq!(json["matrices"][0]["cells"][0]["values"]["backend"], "local");
}

const BROKEN: &str = r#"local tools = base("tools", { lazy = true }, function(b) b:write("/root/base", "tools") end)
matrix("m", { axes = { backend = { "fake", "local" }, n = { 1, 2 } }, from = tools, artifacts = { "/root/state" } }, function(cell)
    assert_eq(cell.backend, backend().name)
    cell.sandbox:run("echo state " .. cell.n .. " > /root/state")
    if cell.n == 2 then cell.sandbox:run("exit 7") end
end)"#;

#[test]
fn a_failed_cell_is_entered_where_it_ran() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.lua", BROKEN);
    let on_fake = |args: &[&str]| environment.run(["--backend", "fake"].iter().chain(args));
    let run = on_fake(&["run", "x.lua", "--report", "junit=j.xml", "--artifacts", "out"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("2 passed, 2 failed"), "{run}");
    let place = run.stderr.lines().find_map(|line| line.split_once("sandscript enter ")).unwrap();
    assert!(place.1.ends_with("/local:n=2") || place.1.ends_with("/fake:n=2"), "{run}");
    // Whatever the settings say now.
    let inside =
        environment.ok(["enter", "latest/local:n=2", "--", "cat", "/root/state", "/root/base"]);
    assert_eq!(inside, "state 2\ntools");
    let entered = on_fake(&["enter", "latest/local:n=2", "--", "cat", "/root/state"]);
    assert_eq!((entered.code, entered.stdout.as_str()), (Some(0), "state 2\n"), "{entered}");
    // The base and the state that is kept; nothing else is left on the other backend.
    let left = environment.ok(["list", "--format", "json"]);
    let left: serde_json::Value = serde_json::from_str(&left).unwrap();
    assert_eq!(left.as_array().unwrap().len(), 2, "{left}");
    let junit = std::fs::read_to_string(environment.path("project/j.xml")).unwrap();
    assert!(junit.contains("\"local:n=2\"") && junit.contains("\"fake:n=1\""), "{junit}");
    let artifact = environment.path("project/out/m/local%3An=1/state");
    assert_eq!(std::fs::read_to_string(artifact).unwrap(), "state 1\n");
    // What failed is known by where it ran.
    let again = on_fake(&["run", "x.lua", "--failed", "--list"]);
    assert_eq!(again.stdout, "fake:n=2\nlocal:n=2\n", "{again}");
}

#[test]
fn only_you_say_which_machines_are_used() {
    let environment = TestEnvironment::fake();
    environment
        .write("x.lua", r#"matrix("m", { axes = { host = { "nas" } } }, function(cell) end)"#);
    let run = || environment.run(["run", "x.lua"]);
    assert_snapshot!(run(), @r#"
    exit code 3
    -- stderr
    error: host: the script names the machine 'nas', and you did not
      --> x.lua:1:34
       |
     1 | matrix("m", { axes = { host = { "nas" } } }, function(cell) end)
       |                                  ^^^
    hint: if it is meant, put hosts = ["nas"] into $T/config/sandscript/config.toml, or use --host nas
    "#);
    environment.write("sandscript.toml", "hosts = [\"nas\"]");
    assert_snapshot!(run(), @"
    exit code 2
    -- stderr
    error: $T/project/sandscript.toml: hosts: a project file may not say which machines scripts may use
    hint: put it into $T/config/sandscript/config.toml
    ");
    environment.write("sandscript.toml", "backend = \"fake\"\nhost = \"nas\"");
    assert_snapshot!(run(), @r#"
    exit code 2
    -- stderr
    error: the project's settings name the machine 'nas', and you did not
    hint: if it is meant, put hosts = ["nas"] into $T/config/sandscript/config.toml, or use --host nas
    "#);
    // Yours to say: then it is the backend that knows no such machine.
    std::fs::create_dir_all(environment.path("config/sandscript")).unwrap();
    environment.put(&environment.path("config/sandscript/config.toml"), "hosts = [\"nas\"]");
    assert_snapshot!(run(), @"
    exit code 2
    -- stderr
    error: host: backend 'fake' is on this machine and can't be on 'nas'
    hint: leave the host out, or name a backend that drives another machine
    ");
    environment.write("sandscript.toml", "");
    let known = run();
    assert!(known.stderr.contains("is on this machine and can't be on 'nas'"), "{known}");
}

#[test]
fn a_base_that_needs_itself_is_refused() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.lua",
        r#"local a, b, c
a = base("a", { lazy = true }, function(s) sandbox({ from = b }) end)
b = base("b", { lazy = true }, function(s) build_bases({ c }) end)
c = base("c", { lazy = true, from = a }, function(s) end)
build_bases({ a, b, c })"#,
    );
    let run = environment.run(["run", "x.lua", "--timeout", "60s"]);
    assert_eq!(run.code, Some(3), "{run}");
    let circle = run.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let circles = ["a → b → c → a", "b → c → a → b", "c → a → b → c"];
    assert!(
        circles.iter().any(|known| circle.ends_with(&format!("needs itself: {known}"))),
        "{run}"
    );
    // One that names itself.
    environment.write("y.lua", "local a\na = base('a', { lazy = true }, function() sandbox({ from = a }) end)\nprint(a.steps)");
    let run = environment.run(["run", "y.lua", "--timeout", "60s"]);
    assert!(run.stderr.contains("base 'a' needs itself: a → a"), "{run}");
}

#[test]
fn a_plan_and_a_build_have_the_bases_that_cells_need() {
    let environment = TestEnvironment::fake();
    environment.write(
        "x.lua",
        r#"local one = base("one", { lazy = true }, function(b) b:run("echo 1") end)
local two = base("two", { lazy = true, from = one }, function(b) b:run("echo 2") end)
local three = base("three", { lazy = true }, function(b) b:run("echo 3") end)
matrix("m", { axes = { n = { 2, 3 } }, from = function(cell) if cell.n == 2 then return two end end }, function(cell) end)"#,
    );
    assert_snapshot!(environment.run(["run", "x.lua", "--plan"]), @"
    exit code 0
    -- stdout
    base one from fake
      miss  1 run echo 1: it was never built
    base two from base one
      miss  1 run echo 2: it was never built
    matrix m
      cell  n=2
      cell  n=3
    -- stderr
    0 hits, 2 misses, 2 cells; nothing was made: commands were not run, assertions not judged
    ");
    assert_snapshot!(environment.run(["run", "x.lua", "--list"]), @"
    exit code 0
    -- stdout
    n=2
    n=3
    ");
    let built = environment.run(["base", "build", "x.lua"]);
    assert!(
        built.code == Some(0)
            && built.stderr.contains("base two")
            && !built.stderr.contains("three"),
        "{built}"
    );
    let named = environment.run(["base", "build", "x.lua", "--only", "three"]);
    assert!(named.code == Some(0) && named.stderr.contains("base three"), "{named}");
}
