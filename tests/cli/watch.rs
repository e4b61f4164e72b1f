//! `sandscript watch`: what makes a script run again, what of it runs, and what is survived.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment, program, skip};
use crate::terminal::{Terminal, tmux_is_there};

/// A `watch` on its way, and what it said so far on both streams.
struct Watch {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Watch {
    fn start(environment: &TestEnvironment, args: &[&str]) -> Watch {
        let args = ["watch"].iter().chain(args);
        Watch::follow(environment.command(args))
    }

    /// Both streams are one, so that lines are in the order in which they were said.
    fn follow(mut command: Command) -> Watch {
        let (reader, writer) = std::io::pipe().unwrap();
        let child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        // It holds the ends that are written to.
        drop(command);
        let said = Arc::<Mutex<String>>::default();
        let shared = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                shared.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Watch { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// What was said from this line on, up to where the run ended and it waits again.
    #[track_caller]
    fn run(&self, number: usize) -> String {
        let begin = format!("--- run {number}: ");
        self.wait_for(&begin);
        self.until(|said| {
            let run = &said[said.find(&begin)?..];
            let end = run.find("\n--- watching")?;
            Some(run[..end].to_owned())
        })
    }

    #[track_caller]
    fn wait_for(&self, what: &str) {
        self.until(|said| said.contains(what).then_some(()));
    }

    #[track_caller]
    fn until<T>(&self, holds: impl Fn(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let said = self.said();
            if let Some(found) = holds(&said) {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "it never came:\n{said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = self.child.id().to_string();
            let _ = Command::new("kill").args(["-INT", &pid]).status();
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) {
                if start.elapsed() > Duration::from_secs(20) {
                    let _ = self.child.kill();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Replaces a file as most editors do: another one is renamed over it.
fn save(environment: &TestEnvironment, name: &str, text: &str) {
    environment.write(&format!("{name}.new"), text);
    let path = environment.path("project").join(name);
    std::fs::rename(
        path.with_file_name(format!("{}.new", path.file_name().unwrap().display())),
        path,
    )
    .unwrap();
}

#[test]
fn a_change_of_the_script_runs_it_again() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "print(\"one\");");
    let watch = Watch::start(&environment, &["x.rhai"]);
    let first = watch.run(1);
    assert!(first.starts_with("--- run 1: x.rhai\n") && first.contains("one\n"), "{first}");
    environment.write("x.rhai", "print(\"two\");");
    let second = watch.run(2);
    assert!(second.starts_with("--- run 2: x.rhai changed\n"), "{second}");
    assert!(second.contains("two\n") && second.contains("--- run 2 passed in "), "{second}");
    // By renaming, and with the same content first: that is no change.
    save(&environment, "x.rhai", "print(\"two\");");
    save(&environment, "x.rhai", "print(\"three\");");
    assert!(watch.run(3).contains("three\n"));
}

#[test]
fn a_content_that_is_the_same_is_no_change() {
    let environment = TestEnvironment::fake();
    environment.write("in", "1");
    environment.write("x.rhai", "sandbox().push(\"in\", \"/tmp/in\"); print(\"done\");");
    let watch = Watch::start(&environment, &["x.rhai"]);
    watch.run(1);
    save(&environment, "in", "1");
    environment.write("x.rhai.swp", "");
    environment.write(".x.rhai.swp", "");
    environment.write("other", "nobody reads it");
    let text = std::fs::read_to_string(environment.path("project/x.rhai")).unwrap();
    environment.write("x.rhai", &text);
    // All that was looked at by the time that this is seen.
    environment.write("in", "2");
    assert!(watch.run(2).starts_with("--- run 2: in changed\n"), "{}", watch.said());
}

#[test]
fn inputs_are_watched_and_ignore_files_honoured() {
    let environment = TestEnvironment::fake();
    environment.write("src/main.c", "1");
    environment.write("src/.gitignore", "*.o\n/build/\n");
    environment.write("one.txt", "1");
    environment.write(
        "x.rhai",
        "base(\"b\", #{}, |b| { b.copy(\"one.txt\", \"/tmp/one\"); });
         sandbox().push(\"src\", \"/src\", #{ exclude: [\"*.log\"] });",
    );
    let watch = Watch::start(&environment, &["x.rhai"]);
    watch.run(1);
    environment.write("one.txt", "2");
    let run = watch.run(2);
    assert!(run.starts_with("--- run 2: one.txt changed\n"), "{run}");
    environment.write("src/a.o", "");
    environment.write("src/a.log", "");
    environment.write("src/build/deep/x.c", "");
    environment.write("src/.git/index", "");
    environment.write("src/main.c", "2");
    let run = watch.run(3);
    assert!(run.starts_with("--- run 3: src/main.c changed\n"), "{run}");
    // A folder that is new is watched like the others.
    environment.write("src/new/deeper/a.c", "1");
    assert!(watch.run(4).contains("src/new"), "{}", watch.said());
    environment.write("src/new/deeper/a.c", "2");
    let run = watch.run(5);
    assert!(run.starts_with("--- run 5: src/new/deeper/a.c changed\n"), "{run}");
    std::fs::remove_dir_all(environment.path("project/src/new")).unwrap();
    assert!(watch.run(6).contains("src/new"), "{}", watch.said());
}

#[test]
fn an_input_that_was_missing_comes() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "sandbox().push(\"data/in\", \"/tmp/in\"); print(\"pushed\");");
    let watch = Watch::start(&environment, &["x.rhai"]);
    let run = watch.run(1);
    assert!(run.contains("error: file '") && run.contains("(exit code 3)"), "{run}");
    environment.write("data/in", "1");
    watch.wait_for("pushed\n");
}

#[test]
fn many_changes_at_once_are_one() {
    let environment = TestEnvironment::fake();
    environment.write("src/0", "");
    environment.write("x.rhai", "sandbox().push(\"src\", \"/src\"); print(\"pushed\");");
    let watch = Watch::start(&environment, &["x.rhai", "--on-busy", "queue"]);
    watch.run(1);
    for number in 0..100 {
        environment.write(&format!("src/{number}"), "new");
    }
    watch.wait_for("--- run 2: ");
    environment.write("x.rhai", "print(\"last\");");
    watch.wait_for("last\n");
    let runs = watch.said().matches("\n--- run ").count();
    assert!(runs < 50, "{}", watch.said());
}

#[test]
fn a_change_of_the_configuration() {
    let environment = TestEnvironment::fake().env("SANDSCRIPT_BACKEND", "");
    environment.write("sandscript.toml", "backend = \"fake\"\n");
    environment.write("x.rhai", "print(backend().name);");
    std::fs::create_dir(environment.path("config/sandscript")).unwrap();
    let watch = Watch::start(&environment, &["x.rhai"]);
    assert!(watch.run(1).contains("fake\n"));
    environment.write("sandscript.toml", "backend = \"fake\"\njbos = 3\n");
    let run = watch.run(2);
    assert!(run.starts_with("--- run 2: sandscript.toml changed\n"), "{run}");
    assert!(run.contains("sandscript.toml:2:1: unknown key 'jbos'\n"), "{run}");
    environment.write("sandscript.toml", "backend = \"fake\"\njobs = 3\n");
    assert!(watch.run(3).contains("passed"));
    // The user's file counts, too.
    environment.put(&environment.path("config/sandscript/config.toml"), "jobs = 2");
    let run = watch.run(4);
    assert!(run.contains("config.toml changed"), "{run}");
    std::fs::remove_file(environment.path("project/sandscript.toml")).unwrap();
    assert!(watch.run(5).starts_with("--- run 5: sandscript.toml changed\n"));
}

#[test]
fn an_imported_module() {
    for (end, script, one) in [
        ("rhai", "import \"lib/words\" as words; print(words::one());", "fn one() { \"%\" }"),
        (
            "lua",
            "print(require(\"lib.words\").one())",
            "return { one = function() return \"%\" end }",
        ),
    ] {
        let environment = TestEnvironment::fake();
        let (main, module) = (format!("x.{end}"), format!("lib/words.{end}"));
        environment.write(&main, script);
        let watch = Watch::start(&environment, &[&main]);
        assert!(watch.run(1).contains("lib"), "{}", watch.said());
        environment.write(&module, &one.replace('%', "eins"));
        watch.wait_for("eins\n");
        environment.write(&module, &one.replace('%', "uno"));
        watch.wait_for("uno\n");
        assert!(watch.said().contains(&format!(": {module} changed\n")), "{}", watch.said());
        // A mistake in it, and one that goes and comes back.
        environment.write(&module, "= =");
        watch.wait_for(&format!("--> {module}:1"));
        std::fs::remove_file(environment.path("project").join(&module)).unwrap();
        watch.wait_for("there is no module 'lib");
        save(&environment, &module, &one.replace('%', "en"));
        watch.wait_for("en\n--- run");
    }
}

/// Waits for a minute where the file `mode` says so.
const SLOW: &str = "let box = sandbox();
    box.push(\"mode\", \"/tmp/mode\");
    let mode = box.read(\"/tmp/mode\");
    print(`begun ${mode}`);
    if mode != \"go\" { sleep(mode); }
    print(`done ${mode}`);";

#[test]
fn a_change_that_comes_while_it_runs_stops_it_and_runs_again() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SLOW);
    environment.write("mode", "60s");
    let watch = Watch::start(&environment, &["x.rhai"]);
    watch.wait_for("begun 60s\n");
    environment.write("mode", "go");
    watch.wait_for("done go\n");
    let said = watch.said();
    assert!(said.contains("mode changed: stopping, to run again\n"), "{said}");
    assert!(said.contains("--- run 1 stopped\n--- run 2: mode changed\n"), "{said}");
    assert!(!said.contains("done 60s") && !said.contains("error"), "{said}");
}

#[test]
fn a_run_that_is_stopped_leaves_nothing() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", &SLOW.replace("sandbox()", "sandbox(\"left\")"));
    environment.write("mode", "60s");
    let mut watch = Watch::start(&environment, &["x.rhai"]);
    watch.wait_for("begun 60s\n");
    environment.write("mode", "go");
    // It has the same name: it could not be made while the other one was there.
    watch.wait_for("done go\n");
    watch.run(2);
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
    environment.write("mode", "61s");
    watch.wait_for("begun 61s\n");
    watch.signal("INT");
    assert_eq!(watch.code(), Some(130));
    assert!(watch.said().contains("stopping and cleaning up"), "{}", watch.said());
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
}

#[test]
fn queue_lets_it_come_to_its_end() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SLOW);
    environment.write("mode", "4s");
    let watch = Watch::start(&environment, &["x.rhai", "--on-busy", "queue"]);
    watch.wait_for("begun 4s\n");
    environment.write("mode", "go");
    watch.wait_for("done go\n");
    let said = watch.said();
    assert!(said.contains("mode changed: running again after this\n"), "{said}");
    assert!(said.find("done 4s\n") < said.find("--- run 2: mode changed\n"), "{said}");
}

#[test]
fn ignore_forgets_what_comes_while_it_runs() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SLOW);
    environment.write("mode", "1s");
    let watch = Watch::start(&environment, &["x.rhai", "--on-busy", "ignore"]);
    watch.wait_for("begun 1s\n");
    environment.write("mode", "go");
    assert!(watch.run(1).contains("done 1s\n"));
    environment.write("x.rhai", &format!("{SLOW}\n"));
    let run = watch.run(2);
    assert!(run.starts_with("--- run 2: x.rhai changed\n") && run.contains("done go\n"), "{run}");
}

const MATRIX: &str = "let b = base(\"b\", #{}, |b| { b.run(\"echo base > /tmp/b\"); });
matrix(\"m\", #{ from: b, axes: #{ a: [1, 2, 3] } }, |cell| {
    cell.sandbox.push(`in/${cell.a}`, \"/tmp/in\");
    assert(cell.sandbox.read(\"/tmp/in\") != \"bad\", \"it is bad\");
});
";

fn matrix(environment: &TestEnvironment) {
    environment.write("x.rhai", MATRIX);
    for (name, text) in [("in/1", "good"), ("in/2", "good"), ("in/3", "bad")] {
        environment.write(name, text);
    }
}

#[test]
fn only_what_changed_or_failed_runs_again() {
    let environment = TestEnvironment::fake();
    matrix(&environment);
    let watch = Watch::start(&environment, &["x.rhai", "--jobs", "1"]);
    let first = watch.run(1);
    assert!(first.contains("2 passed, 1 failed") && first.contains("none cached"), "{first}");
    environment.write("in/2", "better");
    let second = watch.run(2);
    // The backend stayed open, so that the base is there.
    assert!(second.contains("all cached"), "{second}");
    let second: Vec<&str> = second.lines().skip_while(|line| !line.starts_with("matrix")).collect();
    let second = second.join("\n");
    for word in ["  ✓ a=2  passed in ", "  ✗ a=3  failed in ", "  ✓ 1  unchanged\n"] {
        assert!(second.contains(word), "{word}: {second}");
    }
    assert!(!second.contains("a=1"), "{second}");
    assert!(second.contains("3 cells: 2 passed (1 unchanged), 1 failed"), "{second}");
    environment.write("in/3", "good");
    let third = watch.run(3);
    assert!(
        third.contains("3 passed (2 unchanged)") && third.contains("--- run 3 passed"),
        "{third}"
    );
    // A comment is part of the text, too.
    environment.write("x.rhai", &format!("{MATRIX}// more\n"));
    let fourth = watch.run(4);
    assert!(fourth.contains("3 cells: 3 passed in "), "{fourth}");
}

#[test]
fn only_steps_from_the_first_that_changed_run_again() {
    let environment = TestEnvironment::fake();
    environment.write("two.txt", "1");
    environment.write(
        "x.rhai",
        "base(\"b\", #{}, |b| {
            b.run(\"echo one > /tmp/1\");
            b.copy(\"two.txt\", \"/tmp/2\");
            b.run(\"echo three > /tmp/3\");
        });",
    );
    let watch = Watch::start(&environment, &["x.rhai"]);
    assert!(watch.run(1).contains("ready: 3 steps, none cached"), "{}", watch.said());
    environment.write("two.txt", "2");
    let run = watch.run(2);
    assert!(run.contains("ready: 3 steps, 1 cached"), "{run}");
    environment.write("two.txt", "1");
    let run = watch.run(3);
    assert!(run.contains("ready: 3 steps, all cached"), "{run}");
}

#[test]
fn what_a_cell_pulls_out_does_not_run_it_again() {
    let environment = TestEnvironment::fake();
    environment.write("in", "1");
    environment.write(
        "x.rhai",
        "matrix(\"m\", #{ axes: #{ a: [1, 2] } }, |cell| {
            cell.sandbox.push(\".\", \"/src\");
            cell.sandbox.run(`cat /src/in > /tmp/report`);
            cell.sandbox.pull(\"/tmp/report\", `out/${cell.a}/report`);
        });",
    );
    let watch = Watch::start(&environment, &["x.rhai"]);
    assert!(watch.run(1).contains("2 passed in "));
    environment.write("in", "2");
    let run = watch.run(2);
    assert!(run.starts_with("--- run 2: in changed\n") && run.contains("2 passed in "), "{run}");
    let report = std::fs::read_to_string(environment.path("project/out/1/report")).unwrap();
    assert_eq!(report, "2");
}

#[test]
fn mistakes_and_files_that_go_away_are_survived() {
    let environment = TestEnvironment::fake();
    environment.write("sub/x.rhai", "let x = (1;");
    let watch = Watch::start(&environment, &["sub/x.rhai"]);
    let run = watch.run(1);
    assert!(run.contains("error: ") && run.contains("--> sub/x.rhai:1:"), "{run}");
    environment.write("sub/x.rhai", "print(\"mended\");");
    assert!(watch.run(2).contains("mended\n"));
    std::fs::remove_file(environment.path("project/sub/x.rhai")).unwrap();
    let run = watch.run(3);
    assert!(run.contains("error: file 'sub/x.rhai' not found\n"), "{run}");
    environment.write("sub/x.rhai", "print(\"back\");");
    assert!(watch.run(4).contains("back\n"));
    // With its folder, too.
    std::fs::remove_dir_all(environment.path("project/sub")).unwrap();
    watch.run(5);
    environment.write("sub/x.rhai", "print(\"again\");");
    watch.wait_for("again\n");
    std::fs::write(environment.path("project/sub/x.rhai"), b"\xff\xfe").unwrap();
    watch.wait_for("is not UTF-8 text");
    environment.write("sub/x.rhai", "print(\"text\");");
    watch.wait_for("text\n");
}

#[test]
fn lua_is_watched_alike() {
    let environment = TestEnvironment::fake();
    environment.write("mode", "60s");
    environment.write("in/1", "good");
    environment.write("in/2", "bad");
    environment.write(
        "x.lua",
        "local box = sandbox()
        box:push('mode', '/tmp/mode')
        local mode = box:read('/tmp/mode')
        print('begun ' .. mode)
        if mode ~= 'go' then sleep(mode) end
        local b = base('b', function(b) b:run('echo base > /tmp/b') end)
        matrix('m', { from = b, axes = { a = { 1, 2 } } }, function(cell)
            cell.sandbox:push('in/' .. cell.a, '/tmp/in')
            assert(cell.sandbox:read('/tmp/in') ~= 'bad', 'it is bad')
        end)",
    );
    let watch = Watch::start(&environment, &["x.lua"]);
    watch.wait_for("begun 60s\n");
    environment.write("mode", "go");
    let run = watch.run(2);
    assert!(watch.said().contains("mode changed: stopping, to run again\n"), "{}", watch.said());
    assert!(run.contains("1 passed, 1 failed"), "{run}");
    environment.write("in/2", "good");
    let run = watch.run(3);
    assert!(run.contains("all cached") && run.contains("2 passed (1 unchanged)"), "{run}");
    environment.write("x.lua", "print(");
    let run = watch.run(4);
    assert!(run.contains("error: ") && run.contains("--> x.lua:1"), "{run}");
    save(&environment, "x.lua", "print('mended')");
    watch.wait_for("mended\n");
}

#[test]
fn a_script_that_was_never_there_is_an_error() {
    assert_snapshot!(TestEnvironment::fake().run(["watch", "nope.rhai"]), @"
    exit code 2
    -- stderr
    error: file 'nope.rhai' not found
    ");
}

#[test]
fn a_backend_that_goes_away_and_comes_back() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", "print(sandbox().run(\"echo alive\").stdout); //");
    let watch = Watch::start(&environment, &["x.rhai"]);
    watch.run(1);
    let (store, away) = (environment.path("store"), environment.path("away"));
    std::fs::rename(&store, &away).unwrap();
    environment.write("x.rhai", "print(sandbox().run(\"echo alive\").stdout); // 2");
    watch.wait_for("warning: backend 'local' is away: ");
    assert!(!store.exists(), "another store in its place");
    std::fs::rename(&away, &store).unwrap();
    let run = watch.run(3);
    assert!(run.starts_with("--- run 3: the backend is back\n"), "{run}");
    assert!(run.contains("alive\n") && run.contains("--- run 3 passed"), "{run}");
    drop(watch);
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
}

#[test]
fn where_nothing_can_be_watched_it_says_so_and_looks() {
    let limits = [
        ("max_inotify_watches", "fs.inotify.max_user_watches"),
        ("max_inotify_instances", "fs.inotify.max_user_instances"),
    ];
    for (limit, setting) in limits {
        let environment = TestEnvironment::fake();
        environment.write("x.rhai", "print(\"one\");");
        let command = environment.command(["watch", "x.rhai"]);
        let line = format!("echo 0 > /proc/sys/user/{limit} && exec \"$0\" watch x.rhai");
        let mut limited = Command::new("unshare");
        limited.args(["--user", "--map-root-user", "sh", "-c", &line]).arg(program());
        limited.current_dir(environment.path("project")).env_clear();
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.stdin(std::process::Stdio::null());
        let probe = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c"])
            .arg(format!("echo 0 > /proc/sys/user/{limit}"))
            .output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            skip("no user namespace: the limits of inotify");
            return;
        }
        let watch = Watch::follow(limited);
        watch.wait_for(&format!("sysctl {setting}="));
        environment.write("x.rhai", "print(\"two\");");
        watch.wait_for("two\n");
        let said = watch.said();
        assert_eq!(said.matches("warning: ").count(), 1, "{said}");
    }
}

#[test]
fn signals_end_it() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let environment = TestEnvironment::fake();
        environment.write("x.rhai", "print(\"one\");");
        let mut watch = Watch::start(&environment, &["x.rhai"]);
        watch.run(1);
        watch.signal(name);
        assert_eq!(watch.code(), Some(code));
        assert!(watch.said().ends_with("--- watching 1 file\n"), "{}", watch.said());
    }
}

#[test]
fn reports_hold_all_runs() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "print(\"one\");");
    let watch = Watch::start(&environment, &["x.rhai", "--report", "jsonl=events.jsonl"]);
    watch.run(1);
    environment.write("x.rhai", "print(\"two\");");
    watch.run(2);
    let text = std::fs::read_to_string(environment.path("project/events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let started: Vec<_> = events.iter().filter(|event| event["type"] == "run_started").collect();
    assert_eq!(started.len(), 2);
    assert_ne!(started[0]["run"], started[1]["run"]);
}

#[test]
fn what_it_writes_itself_is_no_change() {
    let environment = TestEnvironment::fake();
    environment.write("in", "1");
    environment.write("x.rhai", "sandbox().push(\".\", \"/src\"); print(\"pushed\");");
    let watch = Watch::start(&environment, &["x.rhai", "--report", "jsonl=events.jsonl"]);
    watch.run(1);
    environment.write("in", "2");
    assert!(watch.run(2).starts_with("--- run 2: in changed\n"), "{}", watch.said());
    environment.write("in", "3");
    assert!(watch.run(3).starts_with("--- run 3: in changed\n"), "{}", watch.said());
}

#[test]
fn quiet_says_only_what_went_wrong() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "print(\"one\");");
    let watch = Watch::start(&environment, &["x.rhai", "--quiet"]);
    watch.wait_for("one\n");
    environment.write("x.rhai", "fail(\"no luck\");");
    watch.wait_for("error: no luck\n");
    assert!(!watch.said().contains("---"), "{}", watch.said());
}

fn in_terminal(environment: &TestEnvironment, args: &str) -> Terminal {
    let line = format!(
        "trap : INT; SANDSCRIPT_BACKEND=fake {} watch {args}; echo \"exit code $?\"; \
         stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo | tr '\\n' ' '; sleep 60",
        program().display()
    );
    Terminal::open(environment, &line)
}

#[test]
fn keys() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    matrix(&environment);
    let terminal = in_terminal(&environment, "x.rhai --clear");
    let waiting = "watching 4 files: Enter runs again, f what failed, a all, q quits, h helps";
    let screen = terminal.wait_for(waiting);
    assert!(screen.starts_with("── run 1 ── "), "{screen}");
    assert!(screen.contains("2 passed, 1 failed"), "{screen}");
    terminal.keys("h");
    terminal.wait_for("  f         run the cells that failed");
    for (key, run, what, cells) in [
        ("Enter", 2, "again", "2 passed (2 unchanged), 1 failed"),
        ("r", 3, "again", "2 passed (2 unchanged), 1 failed"),
        ("f", 4, "what failed", "matrix m 1 cell: 1 failed"),
        ("a", 5, "all cells", "matrix m 3 cells: 2 passed, 1 failed"),
    ] {
        terminal.keys(key);
        terminal.wait_until(|terminal| {
            let screen = terminal.screen();
            screen.starts_with(&format!("── run {run} ── ")) && screen.contains(waiting)
        });
        let screen = terminal.screen();
        let head = screen.lines().next().unwrap();
        assert!(head.contains(&format!(" ── {what} ──")), "{screen}");
        assert!(screen.contains(cells), "{screen}");
    }
    environment.write("in/3", "good");
    terminal.wait_for("3 passed (2 unchanged)");
    terminal.wait_for(waiting);
    terminal.keys("f");
    terminal.wait_for("nothing failed in the last run");
    terminal.keys("q");
    let screen = terminal.wait_for("exit code 0");
    // The last line is gone, and the terminal is as it was.
    assert!(!screen.contains("\nwatching"), "{screen}");
    terminal.wait_for("icanon echo");
}

#[test]
fn keys_while_it_runs() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SLOW);
    environment.write("mode", "60s");
    let terminal = in_terminal(&environment, "x.rhai");
    terminal.wait_for("begun 60s");
    terminal.keys("h");
    terminal.wait_for("  q         quit");
    terminal.keys("r");
    terminal.wait_for("again: stopping, to run again");
    terminal.wait_for("── run 2 ── ");
    terminal.wait_until(|terminal| terminal.screen().matches("begun 60s").count() == 2);
    terminal.keys("q");
    terminal.wait_for("exit code 0");
    terminal.wait_for("icanon echo");
}

#[test]
fn ctrl_c_in_a_terminal() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", SLOW);
    environment.write("mode", "60s");
    let terminal = in_terminal(&environment, "x.rhai");
    terminal.wait_for("begun 60s");
    terminal.keys("C-c");
    let screen = terminal.wait_for("exit code 130");
    assert!(screen.contains("stopping and cleaning up"), "{screen}");
    terminal.wait_for("icanon echo");

    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "print(\"one\");");
    let terminal = in_terminal(&environment, "x.rhai");
    terminal.wait_for("watching 1 file");
    terminal.keys("C-c");
    let screen = terminal.wait_for("exit code 130");
    assert!(!screen.contains("stopping"), "{screen}");
    terminal.wait_for("icanon echo");
}

#[test]
fn options_are_those_of_run() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "print(param(\"who\", \"x\")); print(args());");
    let watch = Watch::start(&environment, &["x.rhai", "--set", "who=me", "--", "-a", "b"]);
    let run = watch.run(1);
    assert!(run.contains("me\n[\"-a\", \"b\"]\n"), "{run}");
    let wrong: Run = environment.run(["watch", "x.rhai", "--on-busy", "later"]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
}
