//! `sandscript stubs`: what it writes, and what it leaves alone.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

fn read(environment: &TestEnvironment, name: &str) -> String {
    std::fs::read_to_string(environment.path("project").join(name)).unwrap()
}

#[test]
fn an_empty_project_is_set_up() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["stubs"]), @"
    exit code 0
    -- stderr
    wrote stubs/sandscript.d.lua
    wrote stubs/sandscript.d.rhai
    wrote .luarc.json
    wrote Rhai.toml
    ");
    assert!(read(&environment, "stubs/sandscript.d.lua").contains("---@class Sandbox\n"));
    assert!(read(&environment, "stubs/sandscript.d.rhai").contains("fn get name(box: Sandbox)"));
    assert_snapshot!(read(&environment, ".luarc.json"), @r#"
    {
      "runtime.version": "Lua 5.4",
      "workspace.checkThirdParty": false,
      "workspace.library": ["stubs"]
    }
    "#);
    assert_snapshot!(read(&environment, "Rhai.toml"), @r#"
    [source]
    include = ["**/*.rhai"]
    "#);
    assert_snapshot!(environment.run(["stubs"]), @"
    exit code 0
    -- stderr
    stubs/sandscript.d.lua is up to date
    stubs/sandscript.d.rhai is up to date
    .luarc.json is up to date
    Rhai.toml is up to date
    ");
}

#[test]
fn what_an_older_version_wrote_is_updated() {
    let environment = TestEnvironment::fake();
    environment.ok(["stubs", "--out", "types"]);
    let old =
        read(&environment, "types/sandscript.d.lua").replace("---@class Result", "---@class Old");
    environment.write("types/sandscript.d.lua", &old);
    assert_snapshot!(environment.run(["stubs", "--out", "types"]), @"
    exit code 0
    -- stderr
    updated types/sandscript.d.lua
    types/sandscript.d.rhai is up to date
    .luarc.json is up to date
    Rhai.toml is up to date
    ");
    assert!(read(&environment, "types/sandscript.d.lua").contains("---@class Result\n"));
}

#[test]
fn settings_of_your_own_get_one_line_more() {
    let environment = TestEnvironment::fake();
    let own = "{\n  // my own\n  \"diagnostics.globals\": [\"x\"]\n}\n";
    environment.write(".luarc.json", own);
    environment.write("Rhai.toml", "# nothing\n");
    environment.ok(["stubs"]);
    assert_snapshot!(read(&environment, ".luarc.json"), @r#"
    {
      "workspace.library": ["stubs"],
      // my own
      "diagnostics.globals": ["x"]
    }
    "#);
    assert_eq!(read(&environment, "Rhai.toml"), "# nothing\n");
    environment.write(".luarc.json", "{}");
    environment.ok(["stubs"]);
    let json: serde_json::Value = serde_json::from_str(&read(&environment, ".luarc.json")).unwrap();
    assert_eq!(json["workspace.library"][0], "stubs");
}

#[test]
fn what_would_have_to_be_changed_is_left_with_a_hint() {
    let environment = TestEnvironment::fake();
    let own = "{ \"workspace\": { \"library\": [\"mine\"] } }";
    environment.write(".luarc.json", own);
    environment.write("Rhai.toml", "[source]\ninclude = [\"src/*\"]\n");
    assert_snapshot!(environment.run(["stubs"]), @r#"
    exit code 0
    -- stderr
    wrote stubs/sandscript.d.lua
    wrote stubs/sandscript.d.rhai
    warning: .luarc.json is your own and was left as it is; add to it: "workspace.library": ["stubs"]
    warning: Rhai.toml is your own and was left as it is; let include name "**/*.rhai", too
    "#);
    assert_eq!(read(&environment, ".luarc.json"), own);
}

#[test]
fn a_file_that_somebody_else_wrote_is_not_overwritten() {
    let environment = TestEnvironment::fake();
    environment.write("stubs/sandscript.d.rhai", "my own");
    assert_snapshot!(environment.run(["stubs"]), @"
    exit code 2
    -- stderr
    error: '$T/project/stubs/sandscript.d.rhai' was not made by sandscript stubs
    hint: move it away, or write to another folder with --out
    ");
    assert_eq!(read(&environment, "stubs/sandscript.d.rhai"), "my own");
    assert!(!environment.path("project/stubs/sandscript.d.lua").exists());
}
