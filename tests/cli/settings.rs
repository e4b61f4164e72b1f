//! Flag over environment over project file over user file over default; colour.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

fn store(environment: &TestEnvironment, args: &[&str]) -> String {
    let answer = environment.ok(["doctor", "--format", "json"].iter().chain(args));
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    answer["store"].as_str().unwrap().to_owned()
}

#[test]
fn the_nearest_word_on_the_store_wins() {
    let environment = TestEnvironment::fake().env("SANDSCRIPT_STORE", "");
    std::fs::create_dir(environment.path("config/sandscript")).unwrap();
    std::fs::write(environment.path("config/sandscript/config.toml"), "store = '/u'").unwrap();
    assert_eq!(store(&environment, &[]), "/u");
    environment.write("sandscript.toml", "store = 'p'");
    assert_eq!(store(&environment, &[]), "$T/project/p");
    let environment = environment.env("SANDSCRIPT_STORE", "/e");
    assert_eq!(store(&environment, &[]), "/e");
    assert_eq!(store(&environment, &["--store", "f"]), "$T/project/f");
}

#[test]
fn a_backend_from_the_project_file() {
    let environment = TestEnvironment::fake().env("SANDSCRIPT_BACKEND", "");
    environment.write("sandscript.toml", "backend = \"fake\"\n");
    assert!(environment.ok(["doctor"]).contains("backend        fake"));
}

#[test]
fn the_doctor_says_which_profile_holds() {
    let line = |environment: &TestEnvironment, args: &[&str]| {
        let answer = environment.ok(["doctor"].iter().chain(args));
        let lines = answer.lines().skip_while(|line| !line.starts_with("egress "));
        let lines =
            lines.take_while(|line| !line.starts_with("at once")).map(|line| format!("{line}\n"));
        lines.collect::<String>()
    };
    let environment = TestEnvironment::fake();
    assert_snapshot!(line(&environment, &[]), @"
    egress         enforced by the host, whatever root in the guest does
    profile        none: what names no policy has 'none'
    ");
    std::fs::create_dir(environment.path("config/sandscript")).unwrap();
    let config = "profile = 'strict'\n[profiles.strict]\n\
                  egress = { preset = 'git', allow = ['a.test'], deny = ['gist.github.com'] }\n\
                  forbid = ['b.test', '10.0.0.0/8']\n";
    std::fs::write(environment.path("config/sandscript/config.toml"), config).unwrap();
    assert_snapshot!(line(&environment, &[]), @"
    egress         enforced by the host, whatever root in the guest does
    profile        strict, chosen by $T/config/sandscript/config.toml; what names no policy has 'git (deny gist.github.com, a.test)'
                   forbidden: b.test, 10.0.0.0/8
    ");
    assert_snapshot!(line(&environment, &["--profile", "agents"]), @"
    egress         enforced by the host, whatever root in the guest does
    profile        agents, chosen by --profile; what names no policy has 'agent'
    ");
    let environment = environment.env("SANDSCRIPT_PROFILE", "agents");
    assert_snapshot!(line(&environment, &[]), @"
    egress         enforced by the host, whatever root in the guest does
    profile        agents, chosen by SANDSCRIPT_PROFILE; what names no policy has 'agent'
    ");
    let answer = environment.ok(["doctor", "--format", "json", "--profile", "strict"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_snapshot!(answer["profile"], @r#"{"egress":"git (deny gist.github.com, a.test)","forbid":["b.test","10.0.0.0/8"],"from":"--profile","name":"strict"}"#);
    let Some(local) = TestEnvironment::local() else { return };
    assert_snapshot!(line(&local, &[]), @"
    egress         enforced by the host, whatever root in the guest does: a sandbox has the loopback
                   interface alone, and what it connects to there is the gate, a process without privileges
    profile        none: what names no policy has 'none'
    ");
}

#[test]
fn a_backend_on_this_machine_takes_no_host() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["list", "--host", "nas"]), @"
    exit code 2
    -- stderr
    error: host: backend 'fake' is on this machine and can't be on 'nas'
    hint: leave the host out, or name a backend that drives another machine
    ");
    environment.write("x.lua", "print(1)");
    assert_snapshot!(environment.run(["run", "x.lua", "--backend", "local", "--host", "nas"]), @"
    exit code 2
    -- stderr
    error: host: backend 'local' is on this machine and can't be on 'nas'
    hint: leave the host out, or name a backend that drives another machine
    ");
    assert_snapshot!(environment.run_with(["repl", "--host", "nas"], b"1"), @"
    exit code 2
    -- stderr
    error: host: backend 'fake' is on this machine and can't be on 'nas'
    hint: leave the host out, or name a backend that drives another machine
    ");
    assert_snapshot!(environment.run_with(["repl"], b":backend fake nas"), @"
    exit code 2
    -- stderr
    error: host: backend 'fake' is on this machine and can't be on 'nas'; still on fake
    hint: leave the host out, or name a backend that drives another machine
    ");
    let named = TestEnvironment::fake().env("SANDSCRIPT_HOST", "nas");
    assert_eq!(named.run(["list"]).code, Some(2));
    // A host of another backend's is not meant.
    environment.write("sandscript.toml", "backend = \"truenas\"\nhost = \"nas\"\n");
    assert_eq!(environment.run(["list"]).code, Some(0));
    environment.write("sandscript.toml", "host = \"nas\"\nbackend = \"fake\"\n");
    assert_eq!(environment.run(["list"]).code, Some(2));
}

/// A script of each language that takes `what` without end.
fn endless(what: &str) -> [(&'static str, String); 2] {
    match what {
        "memory" => [
            ("x.rhai", "let all = []; let s = \"\"; s.pad(1000, \"x\"); loop { try { all.push(s + 1); s += s; } catch { s = \"x\"; } }".into()),
            ("x.lua", "local all = {} while true do pcall(function() all[#all + 1] = ('x'):rep(1000000) .. #all end) end".into()),
        ],
        _ => [
            ("x.rhai", "loop { try { loop { } } catch { } }".into()),
            ("x.lua", "while true do pcall(function() while true do end end) end".into()),
        ],
    }
}

#[test]
fn limits_of_the_script() {
    let environment = TestEnvironment::fake();
    for (flag, what, limit) in
        [("--max-memory", "memory", "64MiB"), ("--max-operations", "operations", "100000")]
    {
        for (file, text) in endless(what) {
            environment.write(file, &text);
            let run = environment.run(["run", file, flag, limit]);
            assert_eq!(run.code, Some(3), "{run}");
            assert!(run.stderr.contains("error: the script "), "{run}");
            let key = flag.trim_start_matches("--").replace('-', "_");
            let value = if what == "memory" { format!("{limit:?}") } else { limit.to_owned() };
            environment.write("sandscript.toml", &format!("{key} = {value}\n"));
            assert_eq!(environment.run(["run", file]).code, Some(3));
            // The flag counts more; so many operations it needs for nothing.
            if what == "operations" {
                environment.write(
                    file,
                    if file == "x.lua" {
                        "for i = 1, 300000 do end"
                    } else {
                        "for i in 0..300000 { let x = i; }"
                    },
                );
                assert_eq!(environment.run(["run", file]).code, Some(3));
                assert_eq!(environment.run(["run", file, flag, "10000000"]).code, Some(0));
            }
            let lang = file.trim_start_matches("x.");
            let run = environment.run_with(["repl", "--lang", lang], text.as_bytes());
            assert_eq!(run.code, Some(3), "{run}");
            std::fs::remove_file(environment.path("project/sandscript.toml")).unwrap();
        }
    }
    assert_snapshot!(environment.run(["run", "x.lua", "--max-memory", "lots"]), @r#"
    exit code 2
    -- stderr
    error: invalid value 'lots' for '--max-memory <SIZE>': 'lots' is not a size; write it as "512MiB", "2GB" or a number of bytes

    For more information, try '--help'.
    "#);
    assert_snapshot!(environment.run(["run", "x.lua", "--max-operations", "0"]), @"
    exit code 2
    -- stderr
    error: invalid value '0' for '--max-operations <COUNT>': 0 is not in 1..18446744073709551615

    For more information, try '--help'.
    ");
    environment.write("sandscript.toml", "max_memory = \"lots\"\n");
    assert_snapshot!(environment.run(["run", "x.lua"]), @r#"
    exit code 2
    -- stderr
    error: $T/project/sandscript.toml:1:14: 'lots' is not a size; write it as "512MiB", "2GB" or a number of bytes
    "#);
}

#[test]
fn an_unknown_key() {
    let environment = TestEnvironment::fake();
    environment.write("sandscript.toml", "backend = \"fake\"\njbos = 4\n");
    assert_snapshot!(environment.run(["list"]), @"
    exit code 2
    -- stderr
    error: $T/project/sandscript.toml:2:1: unknown key 'jbos'
    hint: did you mean 'jobs'?
    ");
}

#[test]
fn a_wrong_type() {
    let environment = TestEnvironment::fake();
    environment.write("sandscript.toml", "jobs = \"four\"\n");
    assert_snapshot!(environment.run(["list"]), @r#"
    exit code 2
    -- stderr
    error: $T/project/sandscript.toml:1:8: a whole number goes here, not string "four"
    "#);
}

#[test]
fn a_wrong_variable() {
    assert_snapshot!(TestEnvironment::fake().env("SANDSCRIPT_JOBS", "many").run(["list"]), @"
    exit code 2
    -- stderr
    error: SANDSCRIPT_JOBS: 'many' is not a number of cells
    hint: use 1 or more, or unset it
    ");
}

#[test]
fn colour_only_where_it_is_wanted() {
    let colour = |environment: TestEnvironment, args: &[&str]| {
        environment.run(args).stderr.contains("\x1b[")
    };
    let fake = TestEnvironment::fake;
    assert!(!colour(fake(), &["show", "x"]));
    assert!(colour(fake(), &["show", "x", "--color", "always"]));
    assert!(colour(fake().env("FORCE_COLOR", "1"), &["show", "x"]));
    assert!(!colour(fake().env("FORCE_COLOR", "1").env("NO_COLOR", "1"), &["show", "x"]));
    assert!(!colour(fake().env("FORCE_COLOR", "1"), &["show", "x", "--color", "never"]));
}
