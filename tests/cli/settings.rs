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
    error: $T/project/sandscript.toml:1:8: invalid type: string "four", expected usize
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
