//! `sandscript init`: what it writes, and that it runs.

use insta::assert_snapshot;

use crate::environment::TestEnvironment;

#[test]
fn a_project_in_rhai_runs() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["init", "--lang", "rhai", "demo"]), @"
    exit code 0
    -- stderr
    wrote demo/main.rhai
    wrote demo/sandscript.toml
    wrote demo/stubs/sandscript.d.lua
    wrote demo/stubs/sandscript.d.rhai
    wrote demo/stubs/rhai.d.rhai
    wrote demo/stubs/std
    wrote demo/.luarc.json
    wrote demo/Rhai.toml
    now: cd demo && sandscript run main.rhai
    ");
    let script = environment.path("project/demo/main.rhai");
    let script = script.to_str().unwrap();
    let run = environment.run(["run", script]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "2 of 2 cells passed\n"), "{run}");
    environment.ok(["check", "demo"]);
}

#[test]
fn a_project_in_lua_runs() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["init"]), @"
    exit code 0
    -- stderr
    wrote main.lua
    wrote sandscript.toml
    wrote stubs/sandscript.d.lua
    wrote stubs/sandscript.d.rhai
    wrote stubs/rhai.d.rhai
    wrote stubs/std
    wrote .luarc.json
    wrote Rhai.toml
    now: sandscript run main.lua
    ");
    let run = environment.run(["run", "main.lua", "--set", "greeting=hi"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "2 of 2 cells passed\n"), "{run}");
    environment.ok(["check"]);
}

#[test]
fn nothing_is_overwritten() {
    let environment = TestEnvironment::fake();
    environment.write("sandscript.toml", "jobs = 2\n");
    assert_snapshot!(environment.run(["init"]), @"
    exit code 2
    -- stderr
    error: 'sandscript.toml' is there already
    hint: begin in another folder, or move it away
    ");
    assert!(!environment.path("project/main.lua").exists());
    assert!(!environment.path("project/stubs").exists());
    environment.write("there/main.rhai", "print(1);\n");
    assert_snapshot!(environment.run(["init", "--lang", "rhai", "there"]), @"
    exit code 2
    -- stderr
    error: 'there/main.rhai' is there already
    hint: begin in another folder, or move it away
    ");
}
