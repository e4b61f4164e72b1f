//! Secrets: where they come from, and that nothing that is told or kept holds them.

use std::path::Path;

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

const SECRET: &str = "hunter2/and+more=";
/// The same in base64 after `user:`, and in a URL.
const FORMS: &[&str] =
    &[SECRET, "aHVudGVyMi9hbmQrbW9yZT0", "odW50ZXIyL2FuZCttb3JlP", "hunter2%2Fand%2Bmore%3D"];

const RHAI: &str = r#"let token = secret("TOKEN");
print(`in a script: ${env("TOKEN")}`);
let b = base("b", |b| {
    b.run("printf 'step %s\\n' $TOKEN; printf %s $TOKEN | base64; printf $TOKEN | head -c 5; sleep 0.05; printf %s $TOKEN | tail -c +6", #{ env: #{ TOKEN: token } });
    b.run("cat >/dev/null", #{ stdin: token });
});
matrix("m", #{ from: b, axes: #{ n: [1, 2] } }, |cell| {
    cell.sandbox.run("printf 'user:%s' $TOKEN | base64 >&2; echo hunter2%2Fand%2Bmore%3D; exit 1", #{ env: #{ TOKEN: token } });
});
let box = sandbox(#{ from: b });
box.run("echo $TOKEN; exit 3", #{ env: #{ TOKEN: token } });
"#;

const LUA: &str = r#"local token = secret("TOKEN")
print("in a script: " .. env("TOKEN"))
local b = base("b", function(b)
    b:run("printf 'step %s\\n' $TOKEN; printf %s $TOKEN | base64; printf $TOKEN | head -c 5; sleep 0.05; printf %s $TOKEN | tail -c +6", { env = { TOKEN = token } })
    b:run("cat >/dev/null", { stdin = token })
end)
matrix("m", { from = b, axes = { n = { 1, 2 } } }, function(cell)
    cell.sandbox:run("printf 'user:%s' $TOKEN | base64 >&2; echo hunter2%2Fand%2Bmore%3D; exit 1", { env = { TOKEN = token } })
end)
local box = sandbox({ from = b })
box:run("echo $TOKEN; exit 3", { env = { TOKEN = token } })
"#;

fn assert_clean(what: &str, bytes: &[u8]) {
    for form in FORMS {
        let found = bytes.windows(form.len()).any(|part| part == form.as_bytes());
        assert!(!found, "{form} is in {what}: {}", String::from_utf8_lossy(bytes));
    }
}

fn assert_clean_run(run: &Run) {
    assert_clean("stdout", run.stdout.as_bytes());
    assert_clean("stderr", run.stderr.as_bytes());
}

/// Every file below a folder.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), visit),
            Ok(kind) if kind.is_file() => visit(&entry.path()),
            _ => {}
        }
    }
}

#[test]
fn nothing_that_is_told_or_kept_holds_it() {
    for (name, script) in [("x.rhai", RHAI), ("x.lua", LUA)] {
        let Some(environment) = TestEnvironment::local() else { return };
        let environment = environment.env("TOKEN", SECRET);
        environment.write(name, script);
        let run = environment.run([
            "run",
            name,
            "--verbose",
            "--report",
            "jsonl=events.jsonl",
            "--report",
            "junit=j.xml",
            "--report",
            "html=h.html",
            "--show",
            "all",
        ]);
        assert_eq!(run.code, Some(1), "{run}");
        assert!(run.stdout.contains("in a script: ***"), "{run}");
        assert!(run.stderr.contains("step ***"), "{run}");
        assert_clean_run(&run);
        let events = std::fs::read(environment.path("project/events.jsonl")).unwrap();
        assert!(String::from_utf8_lossy(&events).matches("***").count() >= 8);
        assert_clean("the events", &events);
        // What is recorded of the run, and what becomes of a failed cell, too.
        for folder in ["store", "home", "project", "config"] {
            files(&environment.path(folder), &mut |path| {
                // The script has one in its own text.
                if path.ends_with(name) {
                    return;
                }
                assert_clean(&path.display().to_string(), &std::fs::read(path).unwrap_or_default());
            });
        }
        // Another value is the same step.
        let environment = environment.env("TOKEN", "something-else");
        let run = environment.run(["run", name, "--plan"]);
        assert!(run.stderr.contains("2 hits, 0 misses"), "{run}");
        assert!(run.stdout.matches("  hit ").count() == 2, "{run}");
    }
}

#[test]
fn from_files_and_commands_and_not_where_a_project_may_not() {
    let environment = TestEnvironment::fake();
    let script = "print(sandbox().run(\"cat\", #{ stdin: secret(\"A\") }).stdout.len());";
    environment.write("x.rhai", script);
    environment.write("token", "from-a-file\n");
    environment.write("sandscript.toml", "[secrets]\nA = { file = \"token\" }\n");
    assert_eq!(environment.ok(["run", "x.rhai"]), "11\n");
    assert_eq!(environment.ok(["run", "x.rhai", "--secret", "A=command:echo 1234"]), "4\n");
    environment.write("sandscript.toml", "[secrets]\nA = { command = [\"echo\", \"12345\"] }\n");
    let run = environment.run(["run", "x.rhai"]);
    assert_snapshot!(run, @"
    exit code 2
    -- stderr
    error: $T/project/sandscript.toml: secrets.A: a project file may not name a command to run
    hint: put it into $T/config/sandscript/config.toml, or give it with --secret
    ");
    environment.write("sandscript.toml", "");
    std::fs::create_dir(environment.path("config/sandscript")).unwrap();
    let user = environment.path("config/sandscript/config.toml");
    std::fs::write(user, "[secrets]\nA = { command = [\"echo\", \"12345\"] }\n").unwrap();
    assert_eq!(environment.ok(["run", "x.rhai"]), "5\n");
    let run = environment.run(["run", "x.rhai", "--secret", "A=vault:x"]);
    assert_snapshot!(run, @"
    exit code 2
    -- stderr
    error: invalid value 'A=vault:x' for '--secret <NAME=SOURCE>': 'vault:x' does not say where a secret comes from; write env:NAME, file:PATH or command:LINE

    For more information, try '--help'.
    ");
    let run = environment.run(["run", "x.rhai", "--secret", "A=env:NOT_SET"]);
    assert_snapshot!(run, @r#"
    exit code 3
    -- stderr
    error: secret: 'A' comes from the environment, where NOT_SET is not set
      --> x.rhai:1:38
       |
     1 | print(sandbox().run("cat", #{ stdin: secret("A") }).stdout.len());
       |                                      ^^^^^^
    hint: set NOT_SET, or say where it comes from: --secret A=file:PATH, or [secrets] in sandscript.toml
    "#);
    let run = environment.run(["run", "x.rhai", "--secret", "A=command:echo ab"]);
    assert_snapshot!(run, @r#"
    exit code 3
    -- stderr
    error: secret: 'A' has less than 4 characters
      --> x.rhai:1:38
       |
     1 | print(sandbox().run("cat", #{ stdin: secret("A") }).stdout.len());
       |                                      ^^^^^^
    hint: it could not be masked: every such text would look like it
    "#);
}

#[test]
fn the_repl_shows_none() {
    for (language, entries) in [
        (
            "rhai",
            "secret(\"TOKEN\")\nlet s = env(\"TOKEN\");\ns\nsandbox(\"a\").exec(\"echo $T\", #{ env: #{ T: secret(\"TOKEN\") } })\n[s]\nfail(s)\n",
        ),
        (
            "lua",
            "secret(\"TOKEN\")\ns = env(\"TOKEN\")\ns\nsandbox(\"a\"):exec(\"echo $T\", { env = { T = secret(\"TOKEN\") } })\n{s}\nfail(s)\n",
        ),
    ] {
        let environment = TestEnvironment::fake().env("TOKEN", SECRET);
        let run = environment.run_with(["repl", "--lang", language], entries.as_bytes());
        assert_clean_run(&run);
        assert_eq!(run.stdout, "<secret TOKEN>\n\"***\"\n***\n[\"***\"]\n", "{run}");
        assert!(run.stderr.contains("error: ***"), "{run}");
    }
}

/// GitHub masks what it was told to, line by line, from then on: so that comes first.
#[test]
fn github_is_told_what_to_mask_before_anything_else() {
    let environment = TestEnvironment::fake()
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", "summary.md")
        .env("KEY", "-----BEGIN KEY-----\r\n100% of it\n\nlast line\n")
        .env("TOKEN", SECRET);
    environment.write(
        "x.rhai",
        r#"let key = secret("KEY");
        print("first");
        let token = secret("TOKEN");
        matrix("m", #{ axes: #{ n: [1] } }, |cell| {
            cell.sandbox.run("echo $KEY $TOKEN; exit 1", #{ env: #{ KEY: key, TOKEN: token } });
        });"#,
    );
    environment.write("summary.md", "");
    // A report in a file is kept and passed on: it says no secret, not even to hide it.
    let run = environment.run(["run", "x.rhai", "--report", "github=log.txt"]);
    assert_eq!(run.code, Some(1), "{run}");
    let kept = std::fs::read_to_string(environment.path("project/log.txt")).unwrap();
    assert!(kept.contains("::error") && !kept.contains("::add-mask::"), "{kept}");
    assert!(!kept.contains(SECRET), "{kept}");
    let run = environment.run(["run", "x.rhai"]);
    assert_eq!(run.code, Some(1), "{run}");
    let said = if run.stdout.contains("::add-mask::") { &run.stdout } else { &run.stderr };
    let masks: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("::add-mask::")).collect();
    assert_eq!(masks, ["-----BEGIN KEY-----", "100%25 of it", "last line", SECRET]);
    let place = |text: &str| {
        said.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {run}"))
    };
    assert!(place("::add-mask::last line") < place("::group::"));
    assert!(place(&format!("::add-mask::{SECRET}")) < place("::group::"));
    if said.contains("first") {
        assert!(place("::add-mask::last line") < place("first"), "{run}");
    }
    // Nothing else has them, not even one line of them.
    let rest: String = [run.stdout.as_str(), run.stderr.as_str()]
        .concat()
        .lines()
        .filter(|line| !line.starts_with("::add-mask::"))
        .map(|line| format!("{line}\n"))
        .collect();
    for part in ["BEGIN KEY", "100% of it", "last line", SECRET] {
        assert!(!rest.contains(part), "{part} is in: {rest}");
    }
}
