//! `sandscript run --plan`: what would be done, and that nothing is.

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

const RHAI: &str = r#"let app = base("app", |b| {
    b.run("mkdir -p /opt/app");
    b.write("/opt/app/version", "1\n", #{ owner: "root" });
    b.run("cat /opt/app/version");
});
let box = sandbox(#{ from: app });
assert_eq!(box.run("cat /opt/app/version").stdout, "1\n");
box.pull("/opt/app/version", "pulled");
print(`made ${app.steps} steps`);
matrix("tests", #{ from: app, axes: #{ db: ["sqlite", "postgres"] } }, |cell| {
    cell.sandbox.run("test -f /opt/app/version");
});
"#;

const LUA: &str = r#"local app = base("app", function(b)
    b:run("mkdir -p /opt/app")
    b:write("/opt/app/version", "1\n", { owner = "root" })
    b:run("cat /opt/app/version")
end)
local box = sandbox({ from = app })
assert_eq(box:run("cat /opt/app/version").stdout, "1\n")
box:pull("/opt/app/version", "pulled")
print("made " .. app.steps .. " steps")
matrix("tests", { from = app, axes = { db = { "sqlite", "postgres" } } }, function(cell)
    cell.sandbox:run("test -f /opt/app/version")
end)
"#;

const SCRIPTS: [(&str, &str); 2] = [("x.rhai", RHAI), ("x.lua", LUA)];

fn plan(environment: &TestEnvironment, script: &str) -> Run {
    environment.run(["run", script, "--plan"])
}

/// All that is there: sandboxes with their snapshots.
fn store(environment: &TestEnvironment) -> Vec<String> {
    let all = environment.ok(["list", "--format", "json"]);
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let names = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
    names.map(|name| environment.ok(["show", name, "--format", "json"])).collect()
}

#[test]
fn a_plan_says_what_is_cached_and_makes_nothing() {
    for (name, script) in SCRIPTS {
        let Some(environment) = TestEnvironment::local() else { return };
        environment.write(name, script);
        let first = plan(&environment, name);
        assert_eq!(store(&environment), Vec::<String>::new(), "{first}");
        assert!(!environment.path("project/pulled").exists());
        insta::allow_duplicates! {
            assert_snapshot!(first, @"
            exit code 0
            -- stdout
            base app from host
              miss  1 run mkdir -p /opt/app: it was never built
              miss  2 write /opt/app/version: an earlier step was done
              miss  3 run cat /opt/app/version: an earlier step was done
            matrix tests
              cell  db=sqlite
              cell  db=postgres
            -- stderr
            made 3 steps
            0 hits, 3 misses, 2 cells; nothing was made: commands were not run, assertions not judged
            ");
        }

        environment.ok(["run", name]);
        let before = store(&environment);
        assert_eq!(before.len(), 1);
        std::fs::remove_file(environment.path("project/pulled")).unwrap();
        let second = plan(&environment, name);
        insta::allow_duplicates! {
            assert_snapshot!(second, @"
            exit code 0
            -- stdout
            base app from host
              hit   1 run mkdir -p /opt/app
              hit   2 write /opt/app/version
              hit   3 run cat /opt/app/version
            matrix tests
              cell  db=sqlite
              cell  db=postgres
            -- stderr
            made 3 steps
            3 hits, 0 misses, 2 cells; nothing was made: commands were not run, assertions not judged
            ");
        }

        environment.write(name, &script.replace("\"1\\n\"", "\"2\\n\""));
        let third = plan(&environment, name);
        insta::allow_duplicates! {
            assert_snapshot!(third, @"
            exit code 0
            -- stdout
            base app from host
              hit   1 run mkdir -p /opt/app
              miss  2 write /opt/app/version: content of /opt/app/version changed
              miss  3 run cat /opt/app/version: an earlier step was done
            matrix tests
              cell  db=sqlite
              cell  db=postgres
            -- stderr
            made 3 steps
            1 hit, 2 misses, 2 cells; nothing was made: commands were not run, assertions not judged
            ");
        }
        assert_eq!(store(&environment), before);
        assert!(!environment.path("project/pulled").exists());
    }
}

#[test]
fn as_json() {
    for (name, script) in SCRIPTS {
        let environment = TestEnvironment::fake();
        environment.write(name, script);
        let mut run =
            environment.run(["run", name, "--plan", "--format", "json", "--filter", "db=s*"]);
        let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        for step in document["bases"][0]["steps"].as_array().unwrap() {
            let key = step["key"].as_str().unwrap();
            assert_eq!(key.len(), 64, "{run}");
            run.stdout = run.stdout.replace(key, "KEY");
        }
        insta::allow_duplicates! {
            assert_snapshot!(run, @r#"
            exit code 0
            -- stdout
            {
              "bases": [
                {
                  "base": "app",
                  "from": "fake",
                  "steps": [
                    {
                      "cached": false,
                      "key": "KEY",
                      "reason": "it was never built",
                      "step": 1,
                      "title": "run mkdir -p /opt/app"
                    },
                    {
                      "cached": false,
                      "key": "KEY",
                      "reason": "an earlier step was done",
                      "step": 2,
                      "title": "write /opt/app/version"
                    },
                    {
                      "cached": false,
                      "key": "KEY",
                      "reason": "an earlier step was done",
                      "step": 3,
                      "title": "run cat /opt/app/version"
                    }
                  ]
                }
              ],
              "cells": 1,
              "hits": 0,
              "matrices": [
                {
                  "cells": [
                    {
                      "id": "db=sqlite",
                      "values": {
                        "db": "sqlite"
                      }
                    }
                  ],
                  "matrix": "tests"
                }
              ],
              "misses": 3,
              "v": 1
            }
            -- stderr
            made 3 steps
            "#);
        }
    }
}

#[test]
fn commands_are_not_run_and_assertions_not_judged() {
    let scripts = [
        (
            "x.rhai",
            "let box = sandbox(\"a\");\nbox.run(\"exit 7\");\nassert(box.read(\"/made\") == \"x\");\nfail(\"no\");\nprint(box.list(\"/made.d\").len());\nbox.delete();\n",
        ),
        (
            "x.lua",
            "local box = sandbox(\"a\")\nbox:run(\"exit 7\")\nassert(box:read(\"/made\") == \"x\")\nfail(\"no\")\nprint(#box:list(\"/made.d\"))\nbox:delete()\n",
        ),
    ];
    for (name, script) in scripts {
        let environment = TestEnvironment::fake();
        environment.write(name, script);
        insta::allow_duplicates! {
            assert_snapshot!(plan(&environment, name), @"
            exit code 0
            -- stderr
            0
            0 hits, 0 misses, 0 cells; nothing was made: commands were not run, assertions not judged
            ");
        }
    }
}

#[test]
fn what_is_there_stays_as_it_is() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.ok(["create", "web"]);
    environment.ok(["snapshot", "create", "web", "clean"]);
    let before = store(&environment);
    let changes = [
        (
            "x.rhai",
            "let web = open(\"web\");\nweb.write(\"/f\", \"x\");\nweb.snapshot(\"more\");\nweb.restore(\"clean\");\nweb.delete_snapshot(\"clean\");\nprint(web.snapshots().map(|s| s.label));\nweb.stop();\nweb.delete();\nprint(sandboxes().len());\nsandbox(\"web\");\n",
        ),
        (
            "x.lua",
            "local web = open(\"web\")\nweb:write(\"/f\", \"x\")\nweb:snapshot(\"more\")\nweb:restore(\"clean\")\nweb:delete_snapshot(\"clean\")\nfor _, s in ipairs(web:snapshots()) do print(json_stringify({ s.label })) end\nweb:stop()\nweb:delete()\nprint(#sandboxes())\nsandbox(\"web\")\n",
        ),
    ];
    for (name, script) in changes {
        environment.write(name, script);
        let run = plan(&environment, name);
        assert_eq!(run.code, Some(0), "{run}");
        assert!(run.stderr.starts_with("[\"more\"]\n0\n"), "{run}");
        assert_eq!(store(&environment), before);
    }
}

#[test]
fn a_script_that_ends_early_tells_what_it_has_planned() {
    let environment = TestEnvironment::fake();
    let script = "base(\"a\", #{}, |b| { b.run(\"true\"); });\nsandbox(3);\n";
    environment.write("x.rhai", script);
    assert_snapshot!(plan(&environment, "x.rhai"), @"
    exit code 3
    -- stdout
    base a from fake
      miss  1 run true: it was never built
    -- stderr
    0 hits, 1 miss, 0 cells; nothing was made: commands were not run, assertions not judged
    error: 'name' of sandbox() must be a string, got int 3
      --> x.rhai:2:1
       |
     2 | sandbox(3);
       | ^^^^^^^
    hint: it is sandbox(name?: string, options?: map) -> Sandbox
    ");
    let run = environment.run(["run", "x.rhai", "--plan", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &document["misses"]), (Some(3), &1.into()), "{run}");
    assert_eq!(document["error"]["exit"], 3, "{run}");
}

#[test]
fn a_filter_that_selects_nothing_leaves_no_cells() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| {});\n");
    assert_snapshot!(environment.run(["run", "x.rhai", "--plan", "--filter", "a=2"]), @"
    exit code 0
    -- stdout
    matrix m
    -- stderr
    0 hits, 0 misses, 0 cells; nothing was made: commands were not run, assertions not judged
    ");
}

#[test]
fn what_does_not_go_together() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "");
    for more in [["--plan", "--list"], ["--plan", "--keep"], ["--format", "json"]] {
        let run = environment.run(["run", "x.rhai"].iter().chain(&more));
        assert_eq!(run.code, Some(2), "{run}");
    }
    let run = environment.run(["watch", "x.rhai", "--plan"]);
    assert_eq!(run.code, Some(2), "{run}");
}
