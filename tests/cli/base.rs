//! `sandscript base`, `sandscript lock`, `run --explain` and `run --locked`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use serde_json::Value;

use crate::environment::{Run, TestEnvironment};

const RHAI: &str = r#"let tools = base("tools", |b| { b.run("echo tools > /tools"); });
let app = base("app", #{ from: tools }, |b| {
    b.env("LEVEL", param("level", "1"));
    b.write("/app", param("text", "one"));
    b.run("cat /tools /app > /both");
});
print("bases are done");
matrix("m", #{ from: app, axes: #{ n: [1, 2] } }, |cell| { cell.sandbox.run("cat /both"); });
"#;

const LUA: &str = r#"local tools = base("tools", function(b) b:run("echo tools > /tools") end)
local app = base("app", { from = tools }, function(b)
    b:env("LEVEL", param("level", "1"))
    b:write("/app", param("text", "one"))
    b:run("cat /tools /app > /both")
end)
print("bases are done")
matrix("m", { from = app, axes = { n = { 1, 2 } } }, function(cell) cell.sandbox:run("cat /both") end)
"#;

const SCRIPTS: [(&str, &str); 2] = [("x.rhai", RHAI), ("x.lua", LUA)];

/// Digests and times are other ones each time.
fn steady(run: &Run) -> String {
    let mut out = String::new();
    let text = run.to_string();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let hex = rest.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).unwrap_or(rest.len());
        if hex >= 12 {
            out.push_str("DIGEST");
            rest = &rest[hex..];
        } else {
            let len = hex.max(first.len_utf8());
            out.push_str(&rest[..len]);
            rest = &rest[len..];
        }
    }
    out
}

fn entries(environment: &TestEnvironment) -> Vec<Value> {
    let all = environment.ok(["base", "list", "--format", "json"]);
    serde_json::from_str(&all).unwrap()
}

fn names(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["base"].as_str().unwrap()).collect()
}

/// Every file of the store that a run may change, by name.
fn sandboxes(environment: &TestEnvironment) -> BTreeSet<String> {
    let all = environment.ok(["list", "--format", "json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let names = all.as_array().unwrap().iter();
    names.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn bases_are_built_listed_and_deleted() {
    for (name, script) in SCRIPTS {
        let Some(environment) = TestEnvironment::local() else { return };
        environment.write(name, script);
        insta::allow_duplicates! {
            assert_snapshot!(environment.run(["base", "list"]), @"
            exit code 0
            -- stderr
            there are no bases
            ");
            assert_snapshot!(environment.run(["base", "rm", "app", "--yes"]), @"
            exit code 1
            -- stderr
            error: there is no base 'app'
            hint: there are none yet: a script makes them with base(…)
            ");
            assert_snapshot!(environment.run(["base", "build", name, "--only", "tool"]).stderr.lines().rev().take(2).collect::<Vec<_>>().join("\n"), @"
            hint: did you mean 'tools'?
            error: the script makes no base 'tool'
            ");
        }
        let build = environment.run(["base", "build", name]);
        assert_eq!(build.code, Some(0), "{build}");
        assert!(
            build.stdout.contains("bases are done") && !build.to_string().contains("cell"),
            "{build}"
        );
        let all = entries(&environment);
        assert_eq!(names(&all), ["app", "tools"]);
        let steps = all[0]["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1]["step"], 2);
        assert_eq!(steps[1]["digest"].as_str().unwrap().len(), 64);
        assert_eq!(steps[1]["key"]["step"]["kind"], "run");
        assert_eq!(steps[1]["key"]["env"]["LEVEL"], "1");
        assert_eq!(steps[1]["key"]["schema"], 1);
        let table = environment.ok(["base", "list"]);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[1]), ("app", "1-2"), "{table}");

        insta::allow_duplicates! {
            assert_snapshot!(environment.run(["base", "rm", "app"]), @"
            exit code 2
            -- stderr
            error: not asked whether to delete app
            hint: this is no terminal; add --yes to delete without a question
            ");
            assert_snapshot!(environment.run(["base", "rm", "ap", "--yes"]), @"
            exit code 1
            -- stderr
            error: there is no base 'ap'
            hint: did you mean 'app'?
            ");
            assert_snapshot!(steady(&environment.run(["base", "rm", "app", "--yes"])), @"
            exit code 0
            -- stderr
            base-app-DIGEST of base 'app' is deleted
            ");
        }
        assert_eq!(names(&entries(&environment)), ["tools"]);
        // What is not needed is not done.
        let build = environment.run(["base", "build", name, "--only", "tools"]);
        assert_eq!(build.code, Some(0), "{build}");
        assert!(!build.stdout.contains("bases are done"), "{build}");
        assert_eq!(names(&entries(&environment)), ["tools"]);
    }
}

#[test]
fn a_rebuild_does_every_step_anew_and_prune_takes_the_old_ones() {
    for (name, script) in SCRIPTS {
        let Some(environment) = TestEnvironment::local() else { return };
        environment.write(name, script);
        environment.ok(["base", "build", name]);
        let first = sandboxes(&environment);
        let rebuilt = environment.run(["base", "rebuild", name, "--only", "tools"]);
        assert_eq!(rebuilt.code, Some(0), "{rebuilt}");
        assert!(rebuilt.stderr.contains("it is built anew"), "{rebuilt}");
        assert_eq!(names(&entries(&environment)), ["app", "tools", "tools"]);
        environment.ok(["base", "rebuild", name]);
        assert_eq!(names(&entries(&environment)), ["app", "app", "tools", "tools", "tools"]);
        // The newest counts from now on, and all others may go.
        let plan = environment.run(["run", name, "--plan"]);
        assert!(plan.stderr.contains("3 hits, 0 misses"), "{plan}");
        insta::allow_duplicates! {
            assert_snapshot!(environment.run(["base", "prune"]), @"
            exit code 0
            -- stderr
            there is nothing to delete
            ");
        }
        let dry = environment.run(["base", "prune", "--keep", "1"]);
        assert!(dry.stderr.contains("would delete 3 entries; add --yes to do it"), "{dry}");
        assert_eq!(dry.stdout.lines().count(), 3);
        assert!(first.iter().all(|old| dry.stdout.contains(old)), "{dry}");
        environment.write("sandscript.toml", "[base]\nkeep = 1\nmax_age = \"30d\"\n");
        let pruned = environment.run(["base", "prune", "--yes", "--format", "json"]);
        let pruned: Value = serde_json::from_str(&pruned.stdout).unwrap();
        assert_eq!(
            (&pruned["dry_run"], pruned["entries"].as_array().unwrap().len()),
            (&Value::Bool(false), 3)
        );
        assert_eq!(names(&entries(&environment)), ["app", "tools"]);
        let plan = environment.run(["run", name, "--plan"]);
        assert!(plan.stderr.contains("3 hits, 0 misses"), "{plan}");
        let gone = environment.run(["base", "prune", "--yes", "--keep", "0"]);
        assert!(gone.stderr.contains("deleted 2 entries"), "{gone}");
        assert_eq!(sandboxes(&environment), BTreeSet::new());
    }
}

#[test]
fn why_and_explain_name_the_field() {
    for (name, script) in SCRIPTS {
        let Some(environment) = TestEnvironment::local() else { return };
        environment.write(name, script);
        environment.ok(["base", "build", name]);
        let before = sandboxes(&environment);
        insta::allow_duplicates! {
            assert_snapshot!(steady(&environment.run(["base", "why", name])), @"
            exit code 0
            -- stdout
            hit  tools 1 run echo tools > /tools
                 key DIGEST
            hit  app 1 write /app
                 key DIGEST
            hit  app 2 run cat /tools /app > /both
                 key DIGEST
            -- stderr
            bases are done
            ");
            assert_snapshot!(steady(&environment.run(["base", "why", name, "--set", "level=2", "--only", "app"])), @r#"
            exit code 0
            -- stdout
            hit  app 1 write /app
                 key DIGEST
            miss app 2 run cat /tools /app > /both: env LEVEL changed: `1` → `2`
                 key DIGEST
                 env.LEVEL: "1" → "2"
            "#);
        }
        let why = environment.run(["base", "why", name, "--set", "text=two", "--format", "json"]);
        let why: Value = serde_json::from_str(&why.stdout).unwrap();
        let step = &why.as_array().unwrap()[1];
        assert_eq!(
            (&step["base"], &step["step"], &step["cached"]),
            (&"app".into(), &1.into(), &false.into())
        );
        assert_eq!(step["changes"][0]["field"], "step.content");
        assert_eq!(step["key"]["step"]["target"], "/app");
        assert_eq!(step["against"].as_str().unwrap().len(), 64);
        assert_eq!(sandboxes(&environment), before, "nothing was made");
        // What a base starts from has changed: where, and what.
        environment.write(name, &script.replace("echo tools", "echo more tools"));
        insta::allow_duplicates! {
            assert_snapshot!(steady(&environment.run(["base", "why", name])), @r#"
            exit code 0
            -- stdout
            miss tools 1 run echo more tools > /tools: command changed: `echo tools > /tools` → `echo more tools > /tools`
                 key DIGEST
                 step.argv: "echo tools > /tools" → "echo more tools > /tools"
            miss app 1 write /app: base 'tools' changed in step 1: command changed: `echo tools > /tools` → `echo more tools > /tools`
                 key DIGEST
                 parent: "DIGEST" → "DIGEST"
            miss app 2 run cat /tools /app > /both: an earlier step was done
                 key DIGEST
                 parent: "DIGEST" → "DIGEST"
            -- stderr
            bases are done
            "#);
        }
        environment.ok(["base", "build", name, "--only", "tools"]);
        let why = environment.run(["base", "why", name]);
        let said = "miss app 1 write /app: base 'tools' changed in step 1: command changed: \
                    `echo tools > /tools` → `echo more tools > /tools`";
        assert!(why.stdout.contains(said), "{why}");
        let run = environment.run(["run", name, "--explain"]);
        assert!(run.stderr.contains(said) && run.stderr.contains("hit  tools 1"), "{run}");
        assert!(run.stderr.contains("     parent: \""), "{run}");
        assert_eq!(run.code, Some(0), "{run}");
    }
}

#[test]
fn images_are_locked() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", RHAI);
    environment.write("image.rhai", "sandbox(#{ image: \"./none.tar\" });");
    insta::allow_duplicates! {
        assert_snapshot!(environment.run(["lock", "update"]), @"
        exit code 2
        -- stderr
        error: there is no sandscript.lock yet
        hint: name a script whose images are to be pinned
        ");
        assert_snapshot!(environment.run(["run", "x.rhai", "--locked"]), @"
        exit code 2
        -- stderr
        error: there is no sandscript.lock in $T/project
        hint: make it with: sandscript lock update SCRIPT
        ");
    }
    let update = environment.run(["lock", "update", "x.rhai"]);
    assert_eq!(update.code, Some(0), "{update}");
    assert!(update.stderr.starts_with("host: "), "{update}");
    assert_eq!(sandboxes(&environment), BTreeSet::new(), "it is only planned");
    let file = environment.path("project/sandscript.lock");
    let locked = std::fs::read_to_string(&file).unwrap();
    let parsed: Value = serde_json::from_str(&locked).unwrap();
    assert_eq!((&parsed["version"], &parsed["images"][0]["image"]), (&1.into(), &"host".into()));
    let again = environment.run(["lock", "update"]);
    assert_eq!(again.stderr, "sandscript.lock is as the images are\n");
    environment.ok(["run", "x.rhai", "--locked"]);

    let fingerprint = parsed["images"][0]["fingerprint"].as_str().unwrap();
    std::fs::write(&file, locked.replace(fingerprint, "another")).unwrap();
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!(run.code, Some(0), "{run}");
    assert_eq!(run.stderr.matches("warning: image 'host' is not the one").count(), 1, "{run}");
    let run = environment.run(["run", "x.rhai", "--locked"]);
    assert_eq!(run.code, Some(3), "{run}");
    assert!(run.stderr.contains("another is locked, it is "), "{run}");
    for script in ["sandbox();", "matrix(\"m\", #{ axes: #{ n: [1] } }, |cell| {});"] {
        environment.write("y.rhai", script);
        let run = environment.run(["run", "y.rhai", "--locked"]);
        assert!(run.code != Some(0) && run.stderr.contains("another is locked"), "{run}");
    }
    std::fs::write(&file, "{\"version\":1,\"images\":[]}").unwrap();
    let run = environment.run(["run", "x.rhai", "--locked"]);
    assert!(
        run.stderr.contains("image 'host' of backend 'local' is not in sandscript.lock"),
        "{run}"
    );
    std::fs::write(&file, "{\"version\":7,\"images\":[]}").unwrap();
    assert_snapshot!(environment.run(["run", "x.rhai"]), @"
    exit code 2
    -- stderr
    error: sandscript.lock: $T/project/sandscript.lock: version 7 is not known here
    hint: write it anew: delete it, then sandscript lock update SCRIPT
    ");
}

#[test]
fn another_state_and_project_on_the_same_backend_hit() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", RHAI);
    environment.ok(["run", "x.rhai"]);
    // Another home, another state folder, another project: of the first only the backend's store.
    let other = TestEnvironment::local().unwrap();
    let other = other
        .env("SANDSCRIPT_STORE", environment.path("store").to_str().unwrap())
        .env("XDG_STATE_HOME", environment.path("other-state").to_str().unwrap());
    other.write("deep/y.lua", LUA);
    let run = other.run(["run", "deep/y.lua", "--report", "jsonl=events.jsonl"]);
    assert_eq!(run.code, Some(0), "{run}");
    let events = std::fs::read_to_string(other.path("project/events.jsonl")).unwrap();
    let ready: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["type"] == "base_ready")
        .collect();
    assert_eq!(ready.len(), 2);
    assert!(ready.iter().all(|event| event["hits"] == event["steps"]), "{ready:?}");
    assert_eq!(names(&entries(&other)), ["app", "tools"]);
}

const SLOW: &str = r#"base("slow", |b| {
    for n in 0..6 { b.run(`sleep 0.05; echo ${n} >> /log`); }
    b.run("test \"$(cat /log | wc -l)\" = 6");
});
"#;

#[test]
fn processes_with_states_of_their_own_build_each_step_once() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", SLOW);
    let runs: Vec<_> = (0..3)
        .map(|n| {
            let report = format!("jsonl=events-{n}.jsonl");
            let mut run = environment.command(["run", "x.rhai", "--report", &report]);
            // All that they share is the backend.
            for folder in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
                run.env(folder, environment.path(&format!("own-{n}/{folder}")));
            }
            run.spawn().unwrap()
        })
        .collect();
    for run in runs {
        let run = environment.finish(run);
        assert_eq!(run.code, Some(0), "{run}");
    }
    let mut done = Vec::new();
    for n in 0..3 {
        let path = environment.path(&format!("project/events-{n}.jsonl"));
        let events = std::fs::read_to_string(path).unwrap();
        for line in events.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            if event["type"] == "step_done" {
                done.push(event["step"].as_u64().unwrap());
            }
        }
    }
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_build_that_is_killed_leaves_no_half_step() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", SLOW);
    for round in 0..8 {
        let report = format!("events-{round}.jsonl");
        let kind = format!("jsonl={report}");
        let mut run = environment.command(["run", "x.rhai", "--report", &kind]).spawn().unwrap();
        // At another point each time, wherever in a step that is.
        let begun = Instant::now();
        let wait = Duration::from_millis(60 + 45 * round);
        while begun.elapsed() < wait && run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = run.kill();
        environment.finish(run);
        environment.ok(["gc", "--yes"]);
    }
    // The last step counts the lines: one that was done twice or half would show.
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!(run.code, Some(0), "{run}");
    let plan = environment.run(["run", "x.rhai", "--plan"]);
    assert!(plan.stderr.contains("7 hits, 0 misses"), "{plan}");
}
