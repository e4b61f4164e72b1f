//! Caches on this machine: `sandscript cache`, and who has one when its run is killed.

use std::time::{Duration, Instant};

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

const SCRIPT: &str = r#"base("b", |b| {
    b.cache("pip", "/root/.cache/pip");
    b.run("echo one >> /root/.cache/pip/log");
});
matrix("m", #{ axes: #{ n: [1, 2, 3] }, parallel: 3, caches: #{ pip: "/c" } }, |cell| {
    cell.sandbox.run("echo " + cell.n + " >> /c/log; sleep 0.2");
});
print(sandbox(#{ caches: #{ pip: "/c" } }).run("cat /c/log | sort | tr '\n' ' '").stdout);
"#;

fn caches(environment: &TestEnvironment) -> Vec<serde_json::Value> {
    serde_json::from_str(&environment.ok(["cache", "list", "--format", "json"])).unwrap()
}

/// A store that an ordinary user throws away must hold nothing of other ids.
fn empty(environment: &TestEnvironment) {
    let start = Instant::now();
    while environment.run(["cache", "rm", "--all", "--yes"]).code != Some(0)
        || !caches(environment).is_empty()
    {
        assert!(start.elapsed() < Duration::from_secs(20), "a cache is left");
    }
}

#[test]
fn a_cache_is_filled_listed_and_deleted() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", SCRIPT);
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.stdout.contains("1 2 3 one"), "{run}");
    assert!(run.stderr.contains("waits for cache 'pip', which sandbox m-"), "{run}");
    let listed = caches(&environment);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["name"], &listed[0]["busy"]), (&"pip".into(), &false.into()));
    assert!(listed[0]["size"].as_u64().unwrap() > 0);
    let text = environment.ok(["cache", "list"]);
    assert!(text.starts_with("CACHE  SIZE") && text.contains("pip"), "{text}");

    environment.ok(["create", "web", "--cache", "pip=/srv/c"]);
    assert_eq!(environment.ok(["exec", "web", "--", "sh", "-c", "wc -l < /srv/c/log"]), "4\n");
    let shown = environment.ok(["show", "web", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["caches"][0]["target"], "/srv/c");
    let said = [
        environment.run(["cache", "rm", "pip", "--yes"]),
        environment.run(["create", "two", "--cache", "pip=/srv/c"]),
        environment.run(["cache", "rm", "pop", "--yes"]),
        environment.run(["cache", "rm", "pip"]),
        environment.run(["cache", "rm", "--all", "--yes"]),
        environment.run(["create", "two", "--cache", "../pip=/srv/c"]),
    ];
    assert_snapshot!(said.map(|run| run.to_string()).join("\n"), @r"
    exit code 1
    -- stderr
    error: cache 'pip' is in use by sandbox 'web'
    hint: wait until it is done, or stop it: sandscript stop web

    exit code 1
    -- stderr
    error: cache 'pip' is in use by sandbox 'web'
    hint: wait until it is done, or stop it: sandscript stop web

    exit code 1
    -- stderr
    error: there is no cache 'pop'
    hint: did you mean 'pip'?

    exit code 2
    -- stderr
    error: not asked whether to delete pip
    hint: this is no terminal; add --yes to delete without a question

    exit code 0
    -- stderr
    there is nothing to delete

    exit code 2
    -- stderr
    error: caches: '../pip' is not a name of a cache
    hint: use 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or a digit
    ");
    environment.ok(["delete", "web", "--yes"]);
    let start = Instant::now();
    while caches(&environment)[0]["busy"] == true {
        assert!(start.elapsed() < Duration::from_secs(20), "the cache is not given back");
    }
    assert!(environment.run(["cache", "rm", "pip", "--yes"]).stderr.contains("'pip' is deleted"));
    assert!(environment.run(["cache", "list"]).stderr.contains("there are no caches"));
    empty(&environment);
}

#[test]
fn what_a_killed_run_had_is_free() {
    let Some(environment) = TestEnvironment::local() else { return };
    let script = "let box = sandbox(#{ caches: #{ pip: \"/c\" } });\n\
                  box.write(\"/c/f\", \"left\");\nprint(\"has it\");\nbox.run(\"sleep 1000\");\n";
    environment.write("x.rhai", script);
    environment.write("y.rhai", "print(sandbox(#{ caches: #{ pip: \"/c\" } }).read(\"/c/f\"));");
    let mut first = environment.command(["run", "x.rhai"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(first.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "has it\n");
    let mut second = environment.command(["run", "y.rhai"]).spawn().unwrap();
    let mut stderr = std::io::BufReader::new(second.stderr.take().unwrap());
    line.clear();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert!(line.contains("waits for cache 'pip', which sandbox box-"), "{line}");
    first.kill().unwrap();
    first.wait().unwrap();
    let done = environment.finish(second);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "left\n"), "{done}");
    environment.ok(["gc", "--yes"]);
    empty(&environment);
}
