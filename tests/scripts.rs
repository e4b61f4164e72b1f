//! Runs `tests/scripts/NAME/case.EXT` on the fake backend, in every language there is, and compares
//! what it prints, with its error at the end, to `expected` (or `expected.EXT`, where a language shows
//! its own line of the script). Beside such places all languages say the same; a file `differs` in the
//! folder says why where they do not. `NAME` is a registry entry, such as `sandbox` or `Sandbox.run`, optionally with
//! `-something` after it; every entry has at least one.
//!
//! A script may begin with lines such as `// set: jobs=2`, `// args: a b`, `// env: KEY=value` and
//! `// timeout: 1s` (`--` in Lua). A folder `project` beside it is copied to where it runs.
//!
//! `SANDSCRIPT_BLESS=1` writes what came out; read the difference before you keep it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sandscript::api::{Host, Opener, Registry};
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};
use sandscript::sandbox::{Backend, Error};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn name(case: &Path) -> String {
    case.file_name().unwrap().to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// What was said, without the places in the script.
fn said(text: &str) -> String {
    let place = |line: &&str| {
        let line = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        line.starts_with("--> ") || line.starts_with(" |") || line.starts_with("|")
    };
    let mut said = String::new();
    for line in text.lines().filter(|line| !place(line)) {
        let (line, end) = match line.split_once(" (at case.") {
            Some((line, place)) => (line, place.split_once(')').map_or("", |(_, end)| end)),
            None => line.split_once(" called at case.").map_or((line, ""), |(line, _)| (line, "")),
        };
        said.push_str(&format!("{line}{end}\n"));
    }
    said
}

/// Knows fake on the machine `nas`, and that `away` does not answer.
struct Machines;

#[async_trait::async_trait]
impl Opener for Machines {
    async fn open(&self, name: &str, host: Option<&str>) -> Result<Arc<dyn Backend>, Error> {
        match (name, host) {
            ("fake", Some("nas")) => Ok(Arc::new(FakeBackend::new())),
            ("fake", Some("cluster")) => {
                Ok(Arc::new(FakeBackend::builder().cluster(["a", "b"], 2).build()))
            }
            ("fake", Some(host)) => Err(Error::Transport { message: format!("{host}: no answer") }),
            _ => sandscript::backend::open(name, &sandscript::backend::Config::default()).await,
        }
    }
}

async fn run(case: &Path, file: &str) -> String {
    let text = std::fs::read_to_string(case.join(file)).unwrap();
    let (project, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if case.join("project").exists() {
        copy(&case.join("project"), project.path());
    }
    let backend = Arc::new(FakeBackend::builder().counter_clock().build());
    let printed = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&printed);
    let mut host = Host::builder(Arc::clone(&backend) as Arc<dyn Backend>)
        .project(project.path())
        .cache(cache.path())
        .opener(Arc::new(Machines))
        .env([("GREETING", "hello"), ("API_TOKEN", "s3cr3t/t0ken+of tests")])
        .print(move |line| {
            let mut text = sink.lock().unwrap();
            text.push_str(line);
            text.push('\n');
        });
    for line in text.lines() {
        let Some(line) = line.strip_prefix("// ").or(line.strip_prefix("-- ")) else { break };
        let Some((key, value)) = line.split_once(": ") else { break };
        host = match key {
            "set" => {
                let (name, value) = value.split_once('=').unwrap();
                host.param(name, value)
            }
            "args" => host.args(value.split(' ')),
            "timeout" => host.timeout(sandscript::sandbox::parse_duration(value).unwrap()),
            _ => host,
        };
    }
    let host = host.build().unwrap();
    let outcome = lang::run(&Source::new(file, text), &host).await;
    let mut out = std::mem::take(&mut *printed.lock().unwrap());
    if let Err(error) = &outcome.result {
        out.push_str(&error.render());
    }
    for name in &outcome.leftovers.kept {
        out.push_str(&format!("kept {name}\n"));
    }
    assert!(outcome.leftovers.failed.is_empty(), "{:?}", outcome.leftovers);
    out.replace(&project.path().canonicalize().unwrap().display().to_string(), "PROJECT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_gives_what_is_expected() {
    let bless = std::env::var_os("SANDSCRIPT_BLESS").is_some();
    let only = std::env::var("SANDSCRIPT_CASE").unwrap_or_default();
    let mut wrong = String::new();
    for case in cases().into_iter().filter(|case| name(case).contains(&only)) {
        // The last one first: its output is what is expected of all.
        for language in lang::languages().iter().rev() {
            let ext = language.extensions()[0];
            let file = format!("case.{ext}");
            if !case.join(&file).exists() {
                wrong.push_str(&format!("{}: {file} is missing\n", name(&case)));
                continue;
            }
            let got = run(&case, &file).await;
            let own = case.join(format!("expected.{ext}"));
            let shared = std::fs::read_to_string(case.join("expected")).unwrap_or_default();
            let alike = said(&got) == said(&shared);
            if bless && ext != "rhai" && got != shared && (alike || case.join("differs").exists()) {
                std::fs::write(&own, "").unwrap();
            }
            if !alike && !case.join("differs").exists() && ext != "rhai" {
                wrong.push_str(&format!("{}/{file} says otherwise than the others\n", name(&case)));
            }
            let expected = if own.exists() { own } else { case.join("expected") };
            if bless && (alike || ext == "rhai" || expected != case.join("expected")) {
                std::fs::write(&expected, &got).unwrap();
            }
            let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
            if got != wanted {
                wrong.push_str(&format!(
                    "{}/{file}\n--- expected\n{wanted}--- got\n{got}\n",
                    name(&case)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_registry_entry_has_a_case() {
    let cases: Vec<String> =
        cases().iter().map(|case| name(case).split('-').next().unwrap().to_owned()).collect();
    let mut known = Vec::new();
    for spec in Registry::standard().specs() {
        let title = spec.title().trim_end_matches("()").to_owned();
        assert!(cases.contains(&title), "tests/scripts/{title}/ is missing");
        known.push(title);
    }
    for case in cases {
        assert!(known.contains(&case), "tests/scripts/{case}/ is about nothing in the registry");
    }
}

#[test]
fn every_registry_entry_is_documented() {
    for spec in Registry::standard().specs() {
        let title = spec.title();
        assert!(spec.doc.ends_with('.'), "{title}: doc");
        assert!(!spec.example.is_empty(), "{title}: example");
        let params = spec.params.iter().map(|p| (p.name, p.doc));
        let mut seen = std::collections::BTreeSet::new();
        for (name, doc) in params.chain(spec.options.iter().map(|o| (o.name, o.doc))) {
            assert!(doc.ends_with('.'), "{title}: {name}");
            assert!(seen.insert(name), "{title}: {name} is there twice");
        }
    }
}
