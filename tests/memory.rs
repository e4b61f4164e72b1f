//! Which cells run again: those of which something changed, in whatever way they depend on it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use sandscript::api::{Memory, Recorder};
use sandscript::backend::fake::FakeBackend;
use sandscript::sandbox::Backend;
use sandscript::workflow::{Event, EventSink};
use sandscript::{Host, Source};
use tokio::sync::mpsc;

/// A project whose script is run again and again.
struct Project {
    fake: Arc<FakeBackend>,
    memory: Arc<Memory>,
    folder: tempfile::TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// How a run went.
#[derive(Debug, Default, PartialEq)]
struct Ran {
    /// The cells that ran and passed, failed, and did not have to run.
    passed: Vec<String>,
    failed: Vec<String>,
    unchanged: Vec<String>,
    /// Names of the files that were read.
    inputs: Vec<String>,
    error: Option<String>,
}

impl Project {
    fn new() -> Project {
        Project {
            fake: Arc::new(FakeBackend::new()),
            memory: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn run(&self, script: &str) -> Ran {
        // A function's head tells the languages apart.
        let name = if script.contains("function(cell)") { "x.lua" } else { "x.rhai" };
        let (sink, mut events) = EventSink::channel("r");
        let (tell, mut inputs) = mpsc::unbounded_channel();
        let source = Source::new(name, script);
        let recorder = Recorder::new(Arc::clone(&self.memory), name, script, tell);
        let host = Host::builder(Arc::clone(&self.fake) as Arc<dyn Backend>)
            .events(sink)
            .project(self.path())
            .args(self.args.clone())
            .env(self.env.clone())
            .recorder(recorder)
            .build()
            .unwrap();
        let outcome = sandscript::run(&source, &host).await;
        let mut ran =
            Ran { error: outcome.result.err().map(|e| e.message.clone()), ..Ran::default() };
        for record in events.drain() {
            if let Event::CellEnded { cell, outcome, unchanged, .. } = record.event {
                let list = match (unchanged, outcome.to_string().as_str()) {
                    (true, _) => &mut ran.unchanged,
                    (false, "passed") => &mut ran.passed,
                    _ => &mut ran.failed,
                };
                list.push(cell);
            }
        }
        while let Ok((input, _)) = inputs.try_recv() {
            // Modules are looked for in the working directory, too.
            if let Ok(name) = input.path.strip_prefix(self.path().canonicalize().unwrap()) {
                ran.inputs.push(name.display().to_string());
            }
        }
        for list in [&mut ran.passed, &mut ran.failed, &mut ran.unchanged, &mut ran.inputs] {
            list.sort();
        }
        ran.inputs.dedup();
        ran
    }

    /// Runs it twice; the second time all cells must be unchanged.
    #[track_caller]
    fn settled<'a>(&'a self, script: &'a str) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let first = self.run(script).await;
            assert_eq!(first.error, None, "{place}");
            let again = self.run(script).await;
            assert!(again.passed.is_empty() && !again.unchanged.is_empty(), "{place}: {again:?}");
        }
    }
}

const CELLS: &str = "matrix(\"m\", #{ axes: #{ a: [1, 2] } }, |cell| {
    cell.sandbox.push(`in-${cell.a}`, \"/tmp/in\");
    assert(cell.sandbox.read(\"/tmp/in\") != \"bad\");
});";

const LUA: &str = "matrix('m', { axes = { a = { 1, 2 } } }, function(cell)
    cell.sandbox:push('in-' .. cell.a, '/tmp/in')
    assert(cell.sandbox:read('/tmp/in') ~= 'bad')
end)";

#[tokio::test(flavor = "multi_thread")]
async fn in_lua() {
    changed_and_failed(LUA).await;
    let mut project = Project::new();
    let script = "local who = env('WHO', 'nobody')
        matrix('m', { axes = { a = { 1 } } }, function(cell) cell.sandbox:run({ 'echo', who }) end)";
    project.settled(script).await;
    project.env = vec![("WHO".into(), "me".into())];
    assert_eq!(project.run(script).await.passed, ["a=1"]);
    for (before, body) in [
        ("", "now()"),
        ("local start = now()", "cell.sandbox:run('true')"),
        ("local box = sandbox()", "box:run('true')"),
        ("", "sandboxes()"),
    ] {
        let script = format!(
            "{before} matrix('m', {{ axes = {{ a = {{ 1 }} }} }}, function(cell) {body} end)"
        );
        for _ in 0..2 {
            assert_eq!(project.run(&script).await.passed, ["a=1"], "{script}");
        }
    }
    project
        .settled(
            "local b = base('b', function(b) b:run('true') end)
             matrix('m', { from = b, axes = { a = { 1 } } }, function(cell)
                local other <close> = sandbox({ from = b })
                local process = other:spawn('echo x')
                assert_eq(process:wait().code, 0)
                local ok, why = pcall(function() other:run('false') end)
                assert(not ok and why.code == 'command_failed')
             end)",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_whose_input_changed_runs_and_one_that_failed() {
    changed_and_failed(CELLS).await;
}

async fn changed_and_failed(script: &str) {
    let project = Project::new();
    project.write("in-1", "good");
    project.write("in-2", "bad");
    let first = project.run(script).await;
    assert_eq!((first.passed, first.failed), (vec!["a=1".into()], vec!["a=2".into()]));
    assert_eq!(first.inputs, ["in-1", "in-2"]);
    let second = project.run(script).await;
    assert_eq!((second.unchanged, second.failed), (vec!["a=1".into()], vec!["a=2".into()]));
    assert_eq!(second.inputs, ["in-1", "in-2"], "what did not run is watched, too");

    project.write("in-2", "good");
    let third = project.run(script).await;
    assert_eq!((third.unchanged, third.passed), (vec!["a=1".into()], vec!["a=2".into()]));
    project.write("in-1", "good, too");
    let fourth = project.run(script).await;
    assert_eq!((fourth.passed, fourth.unchanged), (vec!["a=1".into()], vec!["a=2".into()]));
    project.write("in-1", "bad");
    assert_eq!(project.run(script).await.failed, ["a=1"]);
    // As it was when it passed: but the last word on it is a failure of another content.
    project.write("in-1", "good, too");
    assert_eq!(project.run(script).await.passed, ["a=1"]);
    project.memory.forget_cells();
    assert_eq!(project.run(script).await.passed, ["a=1", "a=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_was_missing() {
    let project = Project::new();
    project.write("in-1", "good");
    let first = project.run(CELLS).await;
    assert_eq!(
        (first.failed, first.inputs),
        (vec!["a=2".into()], vec!["in-1".into(), "in-2".into()])
    );
    project.write("in-2", "good");
    assert_eq!(project.run(CELLS).await.passed, ["a=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_counts_as_it_is_pushed() {
    let project = Project::new();
    let script = "matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| {
        cell.sandbox.push(\"src\", \"/src\", #{ exclude: [\"*.log\"] });
        cell.sandbox.run(\"test -e /src/main.c\");
    });";
    project.write("src/main.c", "1");
    project.write("src/.gitignore", "*.o\n");
    project.settled(script).await;
    for (name, text) in [("src/a.o", "ignored"), ("src/a.log", "excluded"), ("other", "not in it")]
    {
        project.write(name, text);
        assert_eq!(project.run(script).await.unchanged, ["a=1"], "{name}");
    }
    for (name, text) in [("src/main.c", "2"), ("src/sub/new.c", ""), ("src/.gitignore", "*.c~\n")] {
        project.write(name, text);
        assert_eq!(project.run(script).await.passed, ["a=1"], "{name}");
    }
    std::fs::remove_file(project.path().join("src/sub/new.c")).unwrap();
    assert_eq!(project.run(script).await.passed, ["a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_its_arguments_and_its_base() {
    let mut project = Project::new();
    let script = |step: &str, body: &str| {
        format!(
            "let b = base(\"b\", #{{}}, |b| {{ b.run(\"{step}\"); }});
             matrix(\"m\", #{{ from: b, axes: #{{ a: [1] }} }}, |cell| {{ cell.sandbox.run(\"{body}\"); }});"
        )
    };
    let one = script("true", "true");
    project.settled(&one).await;
    assert_eq!(project.run(&script("true", "echo x")).await.passed, ["a=1"]);
    assert_eq!(project.run(&script("echo x", "true")).await.passed, ["a=1"]);
    // As it was before: the key is the same again.
    assert_eq!(project.run(&one).await.unchanged, ["a=1"]);
    project.args = vec!["x".into()];
    assert_eq!(project.run(&one).await.passed, ["a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_image() {
    let project = Project::new();
    let plain = "matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { cell.sandbox.run(\"true\"); });";
    let second = "matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { sandbox(#{ from: \"debian/12\" }).run(\"true\"); });";
    project.settled(plain).await;
    project.settled(second).await;
    project.fake.set_image("debian/12", "newer");
    assert_eq!(project.run(plain).await.unchanged, ["a=1"]);
    assert_eq!(project.run(second).await.passed, ["a=1"]);
    project.fake.set_image("fake", "newer");
    assert_eq!(project.run(plain).await.passed, ["a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_script_was_told_before() {
    let mut project = Project::new();
    let script = "let box = sandbox();
        box.push(\"in\", \"/tmp/in\");
        let text = box.run(\"cat /tmp/in\").stdout;
        matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { cell.sandbox.run([\"echo\", text]); });";
    project.write("in", "1");
    project.settled(script).await;
    project.write("in", "2");
    assert_eq!(project.run(script).await.passed, ["a=1"]);

    let script = "let who = env(\"WHO\", \"nobody\");
        matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { cell.sandbox.run([\"echo\", who]); });";
    project.settled(script).await;
    project.env = vec![("WHO".into(), "me".into())];
    assert_eq!(project.run(script).await.passed, ["a=1"]);

    // How the matrix before ended is known to the one after it.
    let script = "let first = matrix(\"one\", #{ axes: #{ a: [1] } }, |cell| {
            cell.sandbox.push(\"in\", \"/tmp/in\");
            assert(cell.sandbox.read(\"/tmp/in\") == \"2\");
        });
        matrix(\"two\", #{ axes: #{ b: [1] } }, |cell| { cell.sandbox.run(`echo ${first.passed}`); });";
    project.settled(script).await;
    project.write("in", "3");
    let run = project.run(script).await;
    assert_eq!((run.failed, run.passed), (vec!["a=1".into()], vec!["b=1".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cell_asks_for_itself() {
    let mut project = Project::new();
    let script = "matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| {
        cell.sandbox.run([\"echo\", env(\"WHO\", \"nobody\")]);
    });";
    project.settled(script).await;
    project.env = vec![("WHO".into(), "me".into())];
    assert_eq!(project.run(script).await.passed, ["a=1"]);
    project.env = vec![("OTHER".into(), "me".into())];
    assert_eq!(project.run(script).await.passed, ["a=1"]);
    project.settled(script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_that_depend_on_what_nobody_can_compare_run_every_time() {
    let project = Project::new();
    let body = |before: &str, body: &str| {
        format!("{before} matrix(\"m\", #{{ axes: #{{ a: [1] }} }}, |cell| {{ {body} }});")
    };
    for script in [
        body("", "now();"),
        body("", "sandboxes();"),
        body("", "gc(#{ dry_run: true });"),
        body("let box = sandbox();", "box.run(\"true\");"),
        body("let box = sandbox();", "sandbox(#{ from: box }).run(\"true\");"),
        body("let box = sandbox(); let p = box.spawn(\"sleep 1\");", "p.running;"),
        body("", "matrix(\"inner\", #{ axes: #{ b: [1] } }, |cell| { });"),
        body("", "base(\"b\", #{}, |b| { b.run(\"true\"); });"),
        // It may be used in the function.
        body("let start = now();", "cell.sandbox.run(\"true\");"),
        "let box = sandbox(); box.snapshot(\"s\");
         matrix(\"m\", #{ from: box, label: \"s\", axes: #{ a: [1] } }, |cell| { });"
            .into(),
    ] {
        for _ in 0..2 {
            let run = project.run(&script).await;
            assert_eq!(run.error, None, "{script}");
            assert!(run.passed.contains(&"a=1".to_owned()), "{script}: {run:?}");
            assert!(run.unchanged.is_empty(), "{script}: {run:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_that_use_what_is_their_own() {
    let project = Project::new();
    for script in [
        "matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| {
            let other = sandbox();
            let twin = cell.sandbox.clone();
            let process = other.spawn(\"echo x\");
            for line in process.lines() { assert_eq(line, \"x\"); }
            assert_eq(process.wait().code, 0);
            try { twin.run(\"false\"); } catch (e) { assert(e.code == \"command_failed\"); }
            twin.snapshot(\"s\"); twin.restore(\"s\"); other.delete();
        });",
        "let b = base(\"b\", #{}, |b| { b.run(\"true\"); });
         print(`${b.hits} ${b.duration}`);
         let r = sandbox(#{ from: b }).exec(\"echo x\");
         print(r.duration);
         matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { sandbox(#{ from: b }).run(r.stdout + \"true\"); });",
    ] {
        // What a command that does not know `x` says is the same every time.
        project.run(script).await;
        let again = project.run(&script.replace("r.stdout + ", "")).await;
        assert_eq!(again.error, None);
        project.settled(&script.replace("r.stdout + ", "")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cell_pulls_out_is_no_input_and_has_to_stay() {
    let project = Project::new();
    let script = "matrix(\"m\", #{ axes: #{ a: [1, 2] }, parallel: 1 }, |cell| {
        cell.sandbox.push(\".\", \"/src\");
        cell.sandbox.run(`echo made ${cell.a} > /tmp/report`);
        cell.sandbox.pull(\"/tmp/report\", `out/${cell.a}/report`);
    });";
    project.write("main.c", "1");
    project.settled(script).await;
    project.write("main.c", "2");
    assert_eq!(project.run(script).await.passed, ["a=1", "a=2"]);
    std::fs::remove_file(project.path().join("out/1/report")).unwrap();
    assert_eq!(project.run(script).await.passed, ["a=1"]);
    // Somebody else's words in its place are an input of all that push the folder.
    project.write("out/2/report", "mine");
    assert_eq!(project.run(script).await.passed, ["a=1", "a=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_are_part_of_the_script() {
    let project = Project::new();
    let script = "import \"lib/steps\" as steps;
        matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { steps::test(cell); });";
    assert!(project.run(script).await.error.is_some());
    project.write("lib/steps.rhai", "fn test(cell) { cell.sandbox.run(\"true\"); }");
    project.settled(script).await;
    assert_eq!(project.run(script).await.inputs, ["lib/steps.rhai"]);
    project.write("lib/steps.rhai", "fn test(cell) { cell.sandbox.run(\"false\"); }");
    assert_eq!(project.run(script).await.failed, ["a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_matrices_of_one_name_are_two() {
    let project = Project::new();
    let script = "for text in [\"true\", \"false\"] {
        matrix(\"m\", #{ axes: #{ a: [1] } }, |cell| { cell.sandbox.run(text); });
    }";
    for _ in 0..3 {
        let run = project.run(script).await;
        assert_eq!(run.failed, ["a=1"], "{run:?}");
    }
    assert_eq!(project.run(script).await.unchanged, ["a=1"]);
}
