//! Egress on the command line, in settings and in `check`.

use insta::assert_snapshot;

use crate::environment::{TestEnvironment, skip};

fn egress(args: &[&str]) -> String {
    let answer = TestEnvironment::fake().ok(["create", "web", "--format", "json"]
        .iter()
        .chain(args)
        .copied()
        .collect::<Vec<_>>());
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    answer["egress"].as_str().unwrap().to_owned()
}

#[test]
fn a_sandbox_gets_the_policy_that_was_asked_for() {
    assert_eq!(egress(&[]), "none");
    assert_eq!(
        egress(&["--allow", "a.test", "--allow", "*.b.test:443"]),
        "allowlist (a.test, *.b.test:443)"
    );
    assert_eq!(egress(&["--egress", "git"]), "git");
    let merged = ["--egress", "agent", "--allow", "a.test", "--deny", "gist.github.com"];
    assert_eq!(egress(&merged), "agent (deny gist.github.com, a.test)");
    assert_eq!(egress(&["--egress", "allowlist", "--allow", "a.test"]), "allowlist (a.test)");
    // A profile holds, or is the policy by its name.
    assert_eq!(egress(&["--profile", "agents"]), "agent");
    assert_eq!(egress(&["--egress", "agents", "--allow", "a.test"]), "agent (a.test)");
    let with = ["--profile", "agents", "--allow", "a.test", "--deny", "gist.github.com"];
    assert_eq!(egress(&with), "agent (deny gist.github.com, a.test)");
    let instead = ["--profile", "agents", "--egress", "allowlist", "--allow", "a.test"];
    assert_eq!(egress(&instead), "allowlist (a.test)");
}

#[test]
fn a_clone_has_its_sources_policy_and_what_is_said_beside_it() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !environment.has("egress-allowlist") {
        return skip("the local backend enforces no rules here");
    }
    environment.ok(["create", "web", "--bare", "--egress", "git", "--allow", "a.test"]);
    environment.ok(["create", "open", "--bare", "--egress", "unrestricted"]);
    let clone = |args: &[&str]| {
        let answer = environment.ok([&["clone", "--bare", "--format", "json"][..], args].concat());
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["egress"].as_str().unwrap().to_owned()
    };
    assert_eq!(clone(&["web", "a"]), "git (a.test)");
    let more = ["web", "b", "--allow", "b.test", "--deny", "github.com"];
    assert_eq!(clone(&more), "git (deny github.com, b.test, a.test)");
    assert_eq!(clone(&["web", "c", "--egress", "none"]), "none");
    assert_eq!(
        clone(&["web", "d", "--egress", "allowlist", "--allow", "c.test"]),
        "allowlist (c.test)"
    );
    assert_eq!(clone(&["open", "e"]), "unrestricted");
    assert_snapshot!(environment.run(["clone", "open", "f", "--deny", "a.test"]));
    assert_snapshot!(
        environment.run(["clone", "web", "g", "--egress", "none", "--allow", "a.test"])
    );
    environment.ok(["delete", "web", "open", "a", "b", "c", "d", "e", "--yes"]);
}

#[test]
fn what_is_no_policy_says_what_would_be_one() {
    let run = |args: &[&str]| {
        TestEnvironment::fake().run([&["create", "web"][..], args].concat()).to_string()
    };
    assert_snapshot!(run(&["--egress", "agnet"]));
    assert_snapshot!(run(&["--egress", "example.com"]));
    assert_snapshot!(run(&["--egress", "unrestricted", "--deny", "a.test"]));
    assert_snapshot!(run(&["--allow", "http://a.test"]));
    assert_snapshot!(run(&["--egress", "allowlist"]));
    assert_snapshot!(run(&["--egress", "none", "--allow", "a.test"]));
    assert_snapshot!(run(&["--profile", "agnets"]));
}

#[test]
fn the_verbs_say_what_is_wrong() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["egress", "show", "nope"]));
    assert_snapshot!(environment.run(["egress", "log", "nope", "--format", "json"]));
    assert_snapshot!(environment.run(["egress", "allow", "web", "a test"]));
    assert_snapshot!(environment.run(["egress", "set", "web"]));
    assert_snapshot!(environment.run(["egress", "set", "web", "none", "--allow", "a.test"]));
    assert_snapshot!(environment.run(["egress", "set", "web", "allowlist"]));
}

#[test]
fn presets_and_profiles_of_the_settings() {
    let environment = TestEnvironment::fake();
    std::fs::create_dir(environment.path("config/sandscript")).unwrap();
    let user = environment.path("config/sandscript/config.toml");
    std::fs::write(
        &user,
        "profile = 'strict'\n[egress.presets.corp]\nallow = ['git.corp@10.0.0.0/8']\n\
         [profiles.strict]\negress = 'corp'\nforbid = ['gist.github.com']\n",
    )
    .unwrap();
    environment
        .write("sandscript.toml", "[egress.presets.ci]\ninclude = ['corp']\nallow = ['ci.test']\n");
    let policy = |environment: &TestEnvironment, args: &[&str]| {
        let answer = environment.ok([&["create", "web", "--format", "json"][..], args].concat());
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["egress"].as_str().unwrap().to_owned()
    };
    assert_eq!(policy(&environment, &[]), "corp (deny gist.github.com)");
    assert_eq!(policy(&environment, &["--egress", "ci"]), "ci (deny gist.github.com)");
    assert_eq!(policy(&environment, &["--egress", "none"]), "none");
    assert_snapshot!(environment.run(["create", "web", "--egress", "unrestricted"]));
    environment.write("sandscript.toml", "[egress.presets.corp]\nallow = ['*']\n");
    assert_snapshot!(environment.run(["create", "web"]));
    environment.write("sandscript.toml", "profile = 'agents'\n");
    assert_snapshot!(environment.run(["create", "web"]));
    environment.write("sandscript.toml", "");
    let environment = environment.env("SANDSCRIPT_PROFILE", "agents");
    assert_eq!(policy(&environment, &[]), "agent");
    // What it forbids comes with it, by its name or by the flag, which is nearer than the environment.
    assert_eq!(policy(&environment, &["--egress", "strict"]), "corp (deny gist.github.com)");
    assert_eq!(policy(&environment, &["--profile", "strict"]), "corp (deny gist.github.com)");
    assert_eq!(
        policy(&environment, &["--egress", "strict", "--allow", "a.test"]),
        "corp (deny gist.github.com, a.test)"
    );
    let environment = environment.env("SANDSCRIPT_PROFILE", "agent");
    assert_snapshot!(environment.run(["create", "web"]));
}

#[test]
fn a_script_has_the_profiles_policy_and_the_presets() {
    let environment = TestEnvironment::fake();
    environment.write("sandscript.toml", "[egress.presets.ci]\nallow = ['ci.test']\n");
    environment.write(
        "x.rhai",
        "let a = sandbox(); print(a.info().egress); let b = sandbox(#{ egress: \"ci\" }); print(b.info().egress);\n\
         print(sandbox(#{ egress: #{ preset: \"agents\", deny: \"a.test\" } }).info().egress);\n\
         matrix(\"m\", #{ axes: #{ egress: [\"ci\", \"none\"] } }, |cell| { print(cell.sandbox.info().egress); });",
    );
    let environment = environment.env("SANDSCRIPT_PROFILE", "agents");
    let said = environment.ok(["run", "x.rhai"]);
    let mut lines: Vec<&str> = said.lines().take(5).collect();
    lines[3..].sort_unstable();
    let wanted = ["agent", "ci", "agent (deny a.test)", "ci", "none"];
    assert_eq!(lines, wanted, "{said}");
    // By the flag as by the environment.
    let environment = environment.env("SANDSCRIPT_PROFILE", "");
    let said = environment.ok(["run", "--profile", "agents", "x.rhai"]);
    assert_eq!(said.lines().take(3).collect::<Vec<_>>(), wanted[..3], "{said}");
}

#[test]
fn check_knows_policies() {
    let environment = TestEnvironment::fake();
    environment.write("sandscript.toml", "[egress.presets.ci]\nallow = ['ci.test']\n");
    environment.write(
        "x.rhai",
        r#"let fine = "computed";
let box = sandbox("a", #{ egress: "ci" });
sandbox("b", #{ egress: #{ preset: fine, allow: ["a.test", fine], deny: "b.test" } });
sandbox("c", #{ egress: "agnet" });
sandbox("d", #{ egress: ["a.test", "http://b.test"] });
sandbox("e", #{ egress: #{ preste: "git", allow: ["a b"] } });
box.set_egress("example.com");
box.allow("10.0.0.0/99");
box.set_egress(#{ preset: "none", allow: ["a.test"] });
box.set_egress(#{ preset: "unrestricted", deny: [] });
matrix("m", #{ egress: 3 }, |cell| { cell.sandbox.deny(["a:99999"]); });
"#,
    );
    environment.write(
        "y.lua",
        r#"local box = sandbox("a", { egress = { preset = "ci", allow = { "a.test" } } })
box:set_egress({ "a.test", "*.*.test" })
box:clone({ egress = { alow = { "a.test" } } })
"#,
    );
    assert_snapshot!(environment.run(["check"]));
}

/// On a real sandbox, one call after the other: as it was set, changed, logged and refreshed.
#[test]
fn a_policy_over_its_life() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !environment.has("egress-allowlist") {
        return skip("the local backend enforces no rules here");
    }
    environment
        .write("sandscript.toml", "[egress.presets.ci]\nallow = ['old.test', 'both.test']\n");
    environment.ok(["create", "web", "--egress", "ci", "--allow", "10.9.0.0/16:443"]);
    assert_snapshot!(environment.ok(["egress", "show", "web"]), @"
    policy    ci
    rules     10.9.0.0/16:443
    preset    old.test
              both.test
    ");
    environment.ok(["egress", "allow", "web", "a.test:80", "10.9.0.0/16:443"]);
    environment.ok(["egress", "deny", "web", "both.test"]);
    // What a preset stands for changes with nothing but a refresh.
    environment
        .write("sandscript.toml", "[egress.presets.ci]\nallow = ['new.test', 'both.test']\n");
    environment.ok(["stop", "web"]);
    environment.ok(["start", "web"]);
    assert_snapshot!(environment.ok(["egress", "show", "web", "--format", "json"]), @r#"
    {
      "name": "web",
      "policy": "ci",
      "preset": {
        "name": "ci",
        "rules": [
          "old.test",
          "both.test"
        ]
      },
      "rules": [
        "deny both.test",
        "10.9.0.0/16:443",
        "a.test:80"
      ]
    }
    "#);
    assert_snapshot!(environment.run(["egress", "refresh", "web"]), @"
    exit code 2
    -- stdout
    - old.test
    + new.test
    -- stderr
    error: not asked whether to change what web may reach
    hint: this is no terminal; add --yes to change it without a question
    ");
    assert_snapshot!(environment.run(["egress", "refresh", "web", "--yes"]), @"
    exit code 0
    -- stdout
    - old.test
    + new.test
    -- stderr
    web may reach: ci (deny both.test, 10.9.0.0/16:443, a.test:80)
    ");
    assert_snapshot!(environment.run(["egress", "refresh", "web", "--yes"]), @"
    exit code 0
    -- stderr
    nothing changes: ci (deny both.test, 10.9.0.0/16:443, a.test:80)
    ");
    let run = environment.run(["egress", "deny", "web", "nope.test"]);
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.stderr.contains("nothing of 'nope.test' is allowed"), "{run}");

    environment.run(["exec", "web", "--", "getent", "hosts", "refused.test"]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let log = loop {
        let log = environment.ok(["egress", "log", "web", "--format", "json"]);
        let log: serde_json::Value = serde_json::from_str(&log).unwrap();
        if log["refused"].as_u64() > Some(0) || std::time::Instant::now() > end {
            break log;
        }
    };
    assert_eq!(log["denied"][0]["host"], "refused.test", "{log}");
    assert_eq!(log["denied"][0]["rule"], "refused.test", "{log}");
    let run = environment.run(["egress", "log", "web"]);
    assert!(
        run.stderr.contains("to allow it: sandscript egress allow web refused.test\n"),
        "{run}"
    );

    environment.ok(["egress", "set", "web", "none"]);
    assert_eq!(environment.ok(["egress", "show", "web"]), "policy    none\n");
    environment.ok(["delete", "web", "--yes"]);
}
