//! `docs/api.md` and `stubs/` are what the registry says, and the examples run: on the fake backend,
//! in every language there is. `UPDATE_DOCS=1` writes them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use sandscript::api::{FnSpec, Host, Registry, ScriptError, Use};
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};
use sandscript::workflow::SecretSource;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_files_are_what_the_registry_says() {
    let registry = Registry::standard();
    let mut files = vec![("docs/api.md".to_owned(), lang::manual(&registry))];
    // What Rhai itself has is made anew each time, and so can't differ.
    for (name, text) in lang::stub_files(&registry) {
        if name != "rhai.d.rhai" {
            files.push((format!("stubs/{name}"), text));
        }
    }
    for name in lang::stdlib::names() {
        let text = lang::stub_rhai_module(name, &format!("../../std/{name}"));
        files.push((format!("stubs/std/{name}.d.rhai"), text));
    }
    for (name, text) in files {
        let file = repository().join(&name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == text,
            "{name} is not what the registry says; UPDATE_DOCS=1 cargo test --test manual writes it"
        );
    }
}

#[test]
fn the_stubs_know_every_function_and_option() {
    let (lua, rhai) =
        (lang::stubs_lua(&Registry::standard()), lang::stubs_rhai(&Registry::standard()));
    for spec in Registry::standard().specs() {
        let title = spec.title();
        let (in_lua, in_rhai) = match (spec.receiver, spec.usage) {
            (Some(_), Use::Property) => {
                (format!("---@field {} ", spec.name), format!("fn get {}(", spec.name))
            }
            (Some(of), Use::Call) => {
                (format!("function {of}:{}(", spec.name), format!("fn {}(", spec.name))
            }
            _ => (format!("function {}(", spec.name), format!("fn {}(", spec.name)),
        };
        assert!(lua.contains(&in_lua), "{title}: {in_lua}");
        assert!(rhai.contains(&in_rhai), "{title}: {in_rhai}");
        for option in &spec.options {
            assert!(lua.contains(&format!("---@field {}? ", option.name)), "{title}");
            assert!(rhai.contains(&format!("/// - `{}`: ", option.name)), "{title}");
        }
    }
}

/// Each line is one that Rhai's language server knows: a comment, the head, or a definition.
#[test]
fn the_rhai_stubs_are_definitions() {
    let mut all = lang::stub_files(&Registry::standard());
    all.retain(|(name, _)| name.ends_with(".d.rhai"));
    assert_eq!(all.len(), 2);
    for name in lang::stdlib::names() {
        all.push((name.into(), lang::stub_rhai_module(name, &format!("../../std/{name}"))));
    }
    for (name, text) in all {
        let heads = text.lines().filter(|line| line.starts_with("module ")).count();
        assert_eq!(heads, 1, "{name}");
        for line in text.lines() {
            let called = line.starts_with("fn ") || line.starts_with("op ");
            let function = called && line.ends_with(';') && line.contains('(');
            let constant = line.starts_with("const ") && line.ends_with(": String;");
            let head = line == "module static;" || line == format!("module \"../../std/{name}\";");
            let comment = line.is_empty() || line.starts_with("//");
            assert!(function || constant || head || comment, "{name}: {line}");
        }
    }
}

/// What the language servers know of the standard library is what modules give to a script.
#[test]
fn the_stubs_know_every_function_of_every_module() {
    let registry = Registry::standard();
    for name in lang::stdlib::names() {
        let lua = lang::stub_lua_module(name);
        let rhai = lang::stub_rhai_module(name, "x");
        assert!(lua.starts_with(&format!("---@meta std.{name}\n")), "{name}");
        for end in ["lua", "rhai"] {
            let language = lang::language(&format!("x.{end}")).unwrap();
            let source = Source::new(format!("x.{end}"), lang::stdlib::text(name, end).unwrap());
            let exports = language.tree(&source, &registry).exports.unwrap();
            for function in exports.functions.keys() {
                assert!(lua.contains(&format!("function {name}.{function}(")), "{name}.{function}");
                assert!(rhai.contains(&format!("\nfn {function}(")), "{name}::{function}");
            }
            for constant in &exports.variables {
                assert!(lua.contains(&format!("---@field {constant} ")), "{name}.{constant}");
                assert!(rhai.contains(&format!("\nconst {constant}: ")), "{name}::{constant}");
            }
        }
        // Lua's own parser reads them.
        let source = Source::new(format!("{name}.lua"), lua);
        assert!(lang::check(&source, &registry).is_empty(), "{name}");
    }
}

async fn run(language: &str, script: String) -> Result<(), ScriptError> {
    let project = tempfile::tempdir().unwrap();
    std::fs::write(project.path().join("requirements.txt"), "requests\n").unwrap();
    std::fs::create_dir(project.path().join("src")).unwrap();
    std::fs::write(project.path().join("src/main.c"), "int main(void) {}\n").unwrap();
    std::fs::write(project.path().join("setup.sh"), "echo set up\n").unwrap();
    if script.contains("lib.git") {
        repository_at(&project.path().join("vendor/lib.git"));
    }
    let backend = Arc::new(FakeBackend::builder().counter_clock().build());
    let token = SecretSource::File(project.path().join("requirements.txt"));
    let host = Host::builder(backend).project(project.path()).args(["one"]);
    let host = host.cache(project.path().join("cache"));
    let host = host.secret("API_TOKEN", token).build().unwrap();
    let outcome = lang::run(&Source::new(format!("example.{language}"), script), &host).await;
    let failed = host.take_reports().iter().any(|report| !report.ok());
    assert!(!failed, "a cell failed");
    outcome.result.map(drop)
}

/// A repository with one commit, which is called v1.0.
fn repository_at(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
            .args(args)
            .current_dir(folder)
            .output();
        assert!(done.as_ref().is_ok_and(|done| done.status.success()), "{args:?}: {done:?}");
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "one"]);
    git(&["tag", "v1.0"]);
}

fn script(spec: &FnSpec, language: &str) -> String {
    let (setting, example) = match language {
        "lua" => (lang::setting_lua(spec.receiver), spec.example_lua),
        _ => (lang::setting_rhai(spec.receiver), spec.example),
    };
    setting.replace('%', example)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_runs() {
    let mut wrong = String::new();
    for spec in Registry::standard().specs() {
        for language in lang::languages().iter().map(|language| language.extensions()[0]) {
            let script = script(spec, language);
            if let Err(error) = run(language, script).await {
                wrong.push_str(&format!("{} in {language}\n{}\n", spec.title(), error.render()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_example_shows_its_function_in_both_languages() {
    let known = [
        "already_exists",
        "assert",
        "command_failed",
        "invalid_input",
        "not_found",
        "not_running",
        "runtime",
        "timeout",
        "transport",
        "unsupported",
        "usage",
    ];
    for spec in Registry::standard().specs() {
        let title = spec.title();
        for example in [spec.example, spec.example_lua] {
            assert!(example.contains(spec.name), "{title}: {example}");
        }
        assert!(!spec.example_lua.ends_with(';'), "{title}: Rhai where Lua should be");
        for error in &spec.errors {
            assert!(known.contains(&error.code), "{title}: {}", error.code);
            assert!(error.when.ends_with('.'), "{title}: {}", error.when);
        }
    }
}

#[test]
fn the_page_about_check_lists_what_it_finds() {
    let page = std::fs::read_to_string(repository().join("docs/check.md")).unwrap();
    let rows: String =
        lang::FINDINGS.iter().map(|(code, what)| format!("| `{code}` | {what} |\n")).collect();
    assert!(page.contains(&rows), "docs/check.md has no longer all of:\n{rows}");
}
