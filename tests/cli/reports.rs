//! Reports: all of them tell the same, and each is what its readers take.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::environment::{Run, TestEnvironment, repository, skip};

/// Sixty cells: five broken, two flaky, and one each of the other ways to end.
const SIXTY: &str = r#"
let rows = []; for n in 0..10 { rows.push(n); }
matrix("sixty", #{ axes: #{ a: ["p", "q", "r", "s", "t", "u"], n: rows }, retries: 1, parallel: 8 }, |cell| {
    let id = cell.a + cell.n;
    cell.sandbox.run(`echo out of ${id}; echo err of ${id} >&2`);
    if id in ["p0", "q1", "r2", "s3", "t4"] { cell.sandbox.run("echo '<b>&broken</b> | pipe'; exit 3"); }
    if id in ["u5", "u6"] && cell.attempt == 1 { fail("shaky"); }
    if id == "p9" { skip("not here"); }
    if id == "q9" { expect_fail("known"); fail("as known"); }
    if id == "r9" {
        cell.sandbox.write("/tmp/junit.xml", "<testsuite><testcase classname='t' name='good'/><testcase classname='t' name='bad'><failure message='no'>src/t.py:7: no</failure></testcase></testsuite>");
        cell.results("/tmp/junit.xml");
    }
});
"#;

fn truth() -> BTreeMap<&'static str, usize> {
    BTreeMap::from([
        ("passed", 51),
        ("flaky", 2),
        ("expected_failure", 1),
        ("skipped", 1),
        ("failed", 5),
    ])
}

fn broken() -> [&'static str; 5] {
    ["a=p,n=0", "a=q,n=1", "a=r,n=2", "a=s,n=3", "a=t,n=4"]
}

fn read(environment: &TestEnvironment, file: &str) -> String {
    std::fs::read_to_string(environment.path("project").join(file)).unwrap()
}

fn sixty(environment: &TestEnvironment) -> Run {
    environment.write("x.rhai", SIXTY);
    environment.run([
        "run",
        "x.rhai",
        "--report",
        "junit=junit.xml",
        "--report",
        "jsonl=events.jsonl",
        "--report",
        "html=report.html",
        "--report",
        "trace=trace.json",
    ])
}

fn count<T>(all: impl Iterator<Item = T>) -> usize {
    all.count()
}

#[test]
fn all_reports_tell_the_same() {
    let environment = TestEnvironment::fake()
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", "summary.md");
    let run = sixty(&environment);
    assert_eq!(run.code, Some(1), "{run}");
    let truth = truth();
    // The terminal.
    let line = "60 cells: 51 passed, 2 flaky, 1 failed as expected, 1 skipped, 5 failed";
    assert!(run.stderr.contains(line), "{run}");

    // JSON lines.
    let text = read(&environment, "events.jsonl");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let mut counted = BTreeMap::new();
    for event in of("cell_ended") {
        *counted.entry(event["outcome"].as_str().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counted, truth);
    let ended = of("matrix_ended").next().unwrap();
    for (word, count) in &truth {
        assert_eq!(ended["counts"][word], *count, "{word}");
    }

    // JUnit, read by a parser that is not ours.
    let file = std::fs::File::open(environment.path("project/junit.xml")).unwrap();
    let suites = junit_parser::from_reader(std::io::BufReader::new(file)).unwrap().suites;
    let suite = suites.iter().find(|suite| suite.name == "sixty").unwrap();
    assert_eq!((suite.tests, suite.failures, suite.errors, suite.skipped), (60, 5, 0, 2));
    let cases = &suite.cases;
    let failed: Vec<&str> = cases
        .iter()
        .filter(|case| matches!(case.status, junit_parser::TestStatus::Failure(_)))
        .map(|case| case.original_name.as_str())
        .collect();
    assert_eq!(failed, broken());
    let xml = read(&environment, "junit.xml");
    assert_eq!(xml.matches("<flakyFailure").count(), 2);
    assert_eq!(xml.matches("<rerunFailure").count(), 5);
    for (word, count) in &truth {
        let property = format!("<property name=\"outcome\" value=\"{word}\"");
        assert_eq!(xml.matches(&property).count(), *count, "{word}");
    }
    let inner = suites.iter().find(|suite| suite.name == "sixty/a=r,n=9").unwrap();
    assert_eq!((inner.tests, inner.failures), (2, 1));

    // GitHub: the log and the summary.
    let cells = |level: &str| {
        let start = format!("::{level} ");
        count(
            run.stdout
                .lines()
                .filter(move |line| line.starts_with(&start) && line.contains("title=sixty%3A")),
        )
    };
    assert_eq!((cells("error"), cells("warning")), (5, 2), "{run}");
    assert!(run.stdout.contains("::error file=x.rhai,line=6,col="), "{run}");
    assert!(
        run.stdout.contains("::error file=src/t.py,line=7,title=t%3A%3Abad (a=r%2Cn=9)::"),
        "{run}"
    );
    let groups = count(run.stdout.lines().filter(|line| line.starts_with("::group::")));
    assert_eq!((groups, run.stdout.matches("::endgroup::").count()), (5, 5));
    let summary = read(&environment, "summary.md");
    assert!(summary.contains(line), "{summary}");
    for (word, sign) in
        [("failed", "✗"), ("flaky", "~"), ("expected failure", "✓"), ("skipped", "-")]
    {
        let rows = count(summary.lines().filter(|line| {
            line.starts_with(&format!("| {sign} ")) && line.contains(&format!("| {word} |"))
        }));
        assert_eq!(rows, truth[word.replace(' ', "_").as_str()], "{word}: {summary}");
    }

    // HTML: the data that it shows.
    let html = read(&environment, "report.html");
    let data = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    for (word, count) in &truth {
        assert_eq!(data["counts"][word], *count, "{word}");
    }
    assert!(!html.contains("http://") && !html.contains("https://"), "it loads something");

    // The trace: a slice for each attempt.
    let trace: Value = serde_json::from_str(&read(&environment, "trace.json")).unwrap();
    let slices = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
    assert_eq!(slices.count(), 60 + 5 + 2);

    // What was recorded tells it again.
    let again = environment.run(["runs", "export", "latest", "junit=again.xml", "html=again.html"]);
    assert_eq!(again.code, Some(0), "{again}");
    assert_eq!(read(&environment, "again.xml"), xml);
    let list: Value =
        serde_json::from_str(&environment.ok(["runs", "list", "--format", "json"])).unwrap();
    for (word, count) in &truth {
        assert_eq!(list[0]["counts"][word], *count, "{word}");
    }
    let shown = environment.run(["runs", "replay", "latest"]);
    assert!(shown.stderr.contains(line), "{shown}");
}

/// What a real browser makes of a page; `None` where there is none.
fn browse(page: &Path, more: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--virtual-time-budget=5000", "--host-resolver-rules=MAP * ~NOTFOUND"])
        // A test may run as root, and in a container.
        .args(["--no-sandbox"])
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .args(more)
        .arg(format!("file://{}", page.display()))
        .env("HOME", folder.path())
        .output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(_) => {
            skip("chromium is not installed: what the HTML report shows");
            None
        }
    }
}

#[test]
fn a_browser_shows_the_html_report() {
    let environment = TestEnvironment::fake();
    let run = sixty(&environment);
    assert_eq!(run.code, Some(1), "{run}");
    let page = environment.path("project/report.html");
    let Some(dom) = browse(&page, &["--dump-dom"]) else { return };
    let shown = dom.split_once("id=\"page\">").unwrap().1.split_once("</main>").unwrap().0;
    for (word, count) in truth() {
        let said = word.replace('_', " ").replace("expected failure", "failed as expected");
        let chip = format!("data-count=\"{word}\"");
        let chip = shown.split_once(&chip).unwrap_or_else(|| panic!("no {word}: {shown}")).1;
        assert!(chip.split_once('<').unwrap().0.ends_with(&format!("{count} {said}")), "{word}");
        let cells = shown.matches(&format!("data-outcome=\"{word}\"")).count();
        assert_eq!(cells, count, "{word}");
    }
    assert_eq!(shown.matches("class=\"cell ").count(), 60, "a square for each cell");
    assert_eq!(shown.matches("class=\"bar").count(), 60 + 5 + 2, "a bar for each attempt");
    for id in broken() {
        let cell = shown.split_once(&format!("data-cell=\"{id}\"")).unwrap().1;
        let cell = cell.split_once("</details>").unwrap().0;
        assert!(cell.contains("&lt;b&gt;&amp;broken&lt;/b&gt; | pipe"), "{id}: {cell}");
        assert!(cell.contains("sandscript enter r"), "{id}: {cell}");
    }
    assert!(!shown.contains("<b>"), "a guest's text is no markup");
    if let Some(to) = std::env::var_os("SANDSCRIPT_SCREENSHOT") {
        let shot = format!("--screenshot={}", to.display());
        browse(&page, &[&shot, "--window-size=1280,1600"]);
    }
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_anything_runs() {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", "print(\"it ran\");");
    for kind in ["junit", "jsonl", "html", "trace", "github"] {
        for path in ["nowhere/report", "x.rhai/report", ".", "/sys/report"] {
            let run = environment.run(["run", "x.rhai", "--report", &format!("{kind}={path}")]);
            assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{kind} {path}: {run}");
            assert!(run.stderr.contains("can't be written"), "{run}");
        }
    }
    let twice = ["run", "x.rhai", "--report", "junit=x.xml", "--report", "html=x.xml"];
    insta::assert_snapshot!(environment.run(twice), @"
    exit code 2
    -- stderr
    error: two reports are to go to 'x.xml'
    hint: name a file of its own for each
    ");
    insta::assert_snapshot!(environment.run(["run", "x.rhai", "--report", "junit=nowhere/x"]), @"
    exit code 2
    -- stderr
    error: the report 'nowhere/x' can't be written: No such file or directory (os error 2)
    hint: name a file in a folder that is there and can be written to
    ");
    insta::assert_snapshot!(environment.run(["run", "x.rhai", "--report", "juint=x"]), @"
    exit code 2
    -- stderr
    error: invalid value 'juint=x' for '--report <KIND=PATH>': 'juint' is no kind of report; did you mean 'junit'?

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(environment.run(["run", "x.rhai", "--report", "junit"]), @"
    exit code 2
    -- stderr
    error: invalid value 'junit' for '--report <KIND=PATH>': write it as junit=PATH

    For more information, try '--help'.
    ");
}

#[test]
fn a_disk_that_is_full_costs_the_report_and_is_told() {
    if !Path::new("/dev/full").exists() {
        return skip("there is no /dev/full");
    }
    let environment = TestEnvironment::fake();
    environment.write(
        "x.rhai",
        "matrix(\"m\", #{ axes: #{ a: [1, 2] } }, |cell| { cell.sandbox.run(\"true\"); });",
    );
    for kind in ["junit", "jsonl", "html", "trace"] {
        let run = environment.run(["run", "x.rhai", "--report", &format!("{kind}=/dev/full")]);
        assert_eq!(run.code, Some(70), "{run}");
        assert!(run.stderr.contains("2 cells: 2 passed"), "{run}");
        assert!(run.stderr.contains(&format!("the {kind} report is not complete: ")), "{run}");
    }
}

#[test]
fn events_are_as_their_schema_says() {
    let schema = std::fs::read_to_string(repository().join("docs/events.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let environment = TestEnvironment::fake();
    let run = sixty(&environment);
    assert_eq!(run.code, Some(1), "{run}");
    let mut lines = read(&environment, "events.jsonl");
    for step in ["one", "two"] {
        let script = format!("base(\"b\", |b| {{ b.write(\"/a\", \"{step}\"); }});");
        environment.write("b.rhai", &script);
        let args = ["run", "b.rhai", "--explain", "--report", "jsonl=base.jsonl"];
        let run = environment.run(args);
        assert_eq!(run.code, Some(0), "{run}");
        lines.push_str(&read(&environment, "base.jsonl"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&event).map(|e| e.to_string()).collect();
        assert!(wrong.is_empty(), "{line}\n{wrong:?}");
        seen.insert(event["type"].as_str().unwrap().to_owned());
    }
    assert!(seen.len() >= 8 && seen.contains("step_explained"), "{seen:?}");
    // It says no to what is none.
    for bad in ["{}", "{\"v\":1,\"at\":\"x\",\"t\":0,\"run\":\"r\",\"type\":\"no_such\"}"] {
        assert!(!validator.is_valid(&serde_json::from_str(bad).unwrap()), "{bad}");
    }
    // It knows every event there is.
    let source = std::fs::read_to_string(repository().join("src/workflow/event.rs")).unwrap();
    let body =
        source.split_once("pub enum Event {").unwrap().1.split_once("\nimpl Event").unwrap().0;
    for line in body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
        let name: String = line.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
        if !name.starts_with(|c: char| c.is_uppercase()) {
            continue;
        }
        let mut word = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !word.is_empty() {
                word.push('_');
            }
            word.push(c.to_ascii_lowercase());
        }
        assert!(schema["$defs"].get(&word).is_some(), "docs/events.schema.json has no {word}");
    }
}

/// A cell asks for what it may not reach: each report says which host was refused, and what would allow it.
#[test]
fn a_blocked_download_is_explained_in_every_report() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !Path::new("/usr/bin/curl").exists() {
        return skip("curl is not installed");
    }
    let environment =
        environment.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", "summary.md");
    environment.write(
        "x.lua",
        r#"matrix("m", { axes = { n = { 1 } }, egress = { "allowed.test" } }, function(cell)
            cell.sandbox:run("curl -sS --max-time 20 --resolve pkg.test:8080:203.0.113.7 http://pkg.test:8080/")
        end)"#,
    );
    let reports = ["junit=junit.xml", "jsonl=events.jsonl", "html=report.html"];
    let args = ["run", "x.lua"].into_iter();
    let run = environment.run(args.chain(reports.iter().flat_map(|kind| ["--report", *kind])));
    assert_eq!(run.code, Some(1), "{run}");
    let (said, remedy) = (
        "1 connection was refused: pkg.test:8080",
        r#"egress = { allow = { "allowed.test", "pkg.test:8080" } }"#,
    );
    let plain = |text: String| text.replace("&quot;", "\"").replace("\\\"", "\"");
    let all = [
        ("the terminal", plain(run.stderr.clone())),
        ("github", plain(format!("{}{}", run.stdout, read(&environment, "summary.md")))),
        ("junit", plain(read(&environment, "junit.xml"))),
        ("html", plain(read(&environment, "report.html"))),
    ];
    for (report, text) in all {
        assert!(text.contains(said) && text.contains(remedy), "{report}: {text}");
    }
    let events = read(&environment, "events.jsonl");
    let ended = events.lines().find(|line| line.contains("\"cell_ended\"")).unwrap();
    let ended: Value = serde_json::from_str(ended).unwrap();
    assert_eq!(ended["egress"]["denied"][0]["rule"], "pkg.test:8080", "{ended}");
}
