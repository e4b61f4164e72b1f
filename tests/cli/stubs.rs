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
    wrote stubs/rhai.d.rhai
    wrote stubs/std
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
    stubs/rhai.d.rhai is up to date
    stubs/std is up to date
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
    types/rhai.d.rhai is up to date
    types/std is up to date
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
    wrote stubs/rhai.d.rhai
    wrote stubs/std
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

#[test]
fn modules_are_known_where_scripts_are() {
    let environment = TestEnvironment::fake();
    environment.write("scripts/x.rhai", "import \"std/apt\" as apt;\n");
    environment.write("ignored/x.rhai", "");
    environment.write(".gitignore", "ignored\n");
    environment.ok(["stubs"]);
    // From the folder of the definitions to where the language server looks for the module.
    for (file, module) in [
        ("stubs/std/apt.d.rhai", "../../std/apt"),
        ("stubs/scripts/std/apt.d.rhai", "../../../scripts/std/apt"),
    ] {
        let text = read(&environment, file);
        assert!(text.contains(&format!("\nmodule \"{module}\";\n")), "{file}: {text}");
        assert!(text.contains("\nfn install(box: Sandbox | Builder, packages: Array) -> ?;\n"));
    }
    assert!(!environment.path("project/stubs/ignored").exists());
    assert!(read(&environment, "stubs/std/apt.d.lua").starts_with("---@meta std.apt\n"));
    assert!(read(&environment, "stubs/rhai.d.rhai").contains("\nfn to_upper("));
    // Outside the project a path from the root is all that can lead there.
    let out = environment.path("elsewhere");
    environment.ok(["stubs", "--out", out.to_str().unwrap()]);
    let text = std::fs::read_to_string(out.join("std/apt.d.rhai")).unwrap();
    let project = environment.path("project").canonicalize().unwrap();
    assert!(text.contains(&format!("\nmodule \"{}/std/apt\";\n", project.display())), "{text}");
    // They are no scripts.
    assert!(environment.run(["check"]).stderr.contains("1 script, "));
}
