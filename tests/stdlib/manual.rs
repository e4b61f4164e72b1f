//! The manual, and that both languages are alike.

use sandscript::Registry;
use sandscript::lang::{self, Source, stdlib};

use crate::environment::repository;

#[test]
fn manual() {
    let file = repository().join("docs/stdlib.md");
    let text = lang::guide();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == text,
        "docs/stdlib.md is not what the modules say; UPDATE_DOCS=1 cargo test --test stdlib manual writes it"
    );
}

/// The scripts for the shell in a module: texts in `open` and `close` that begin with a comment.
fn shell(text: &str, open: &str, close: &str) -> Vec<String> {
    let open = format!("{open}# ");
    let parts = text.split(open.as_str()).skip(1);
    let mut found: Vec<String> =
        parts.filter_map(|part| Some(part.split_once(close)?.0.to_owned())).collect();
    found.sort();
    found
}

/// The public functions with their comments, in order of their names.
fn documented(
    text: &str,
    comment: &str,
    start: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let (mut found, mut doc) = (Vec::<(String, String)>::new(), Vec::new());
    for line in text.lines() {
        match line.strip_prefix(comment) {
            Some(rest) => doc.push(rest.to_owned()),
            None => {
                let doc = std::mem::take(&mut doc).join("\n");
                if let Some(name) = start(line) {
                    match found.iter_mut().find(|(known, _)| *known == name) {
                        Some(_) => {}
                        None => found.push((name, doc)),
                    }
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn both_languages_have_the_same_functions_comments_and_commands() {
    assert!(stdlib::names().count() >= 14);
    for name in stdlib::names() {
        let (rhai, lua) = (stdlib::text(name, "rhai").unwrap(), stdlib::text(name, "lua").unwrap());
        let word = |line: &str, before: &str| {
            let rest = line.strip_prefix(before)?;
            Some(rest.split_once('(')?.0.to_owned())
        };
        let rhai_functions = documented(rhai, "///", |line| word(line, "fn "));
        let lua_functions = documented(lua, "---", |line| word(line, &format!("function {name}.")));
        assert!(!rhai_functions.is_empty(), "{name}");
        for (name, doc) in &rhai_functions {
            assert!(!doc.is_empty(), "{name} has no comment");
        }
        assert_eq!(rhai_functions, lua_functions, "{name}");
        assert_eq!(shell(rhai, "`", "`"), shell(lua, "[[", "]]"), "{name}");
        let about = |text: &str, mark: &str| -> Vec<String> {
            text.lines().map_while(|line| line.strip_prefix(mark).map(str::to_owned)).collect()
        };
        assert_eq!(about(rhai, "//!"), about(lua, "---"), "{name}");
    }
}

/// Every module has a case, and every case is about a module.
#[test]
fn every_module_has_a_case_in_every_language() {
    let cases = repository().join("tests/stdlib/cases");
    for name in stdlib::names() {
        for language in lang::languages() {
            let file = cases.join(format!("{name}.{}", language.extensions()[0]));
            assert!(file.exists(), "{} is missing", file.display());
        }
    }
    for entry in std::fs::read_dir(&cases).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(stdlib::names().any(|name| name == stem), "{} is about no module", path.display());
    }
}

/// The examples in a module's comments that are in this language.
fn examples(text: &str, comment: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}");
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut inside = false;
    for line in text.lines().filter_map(|line| line.strip_prefix(comment)) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        match (inside, line) {
            (false, line) if line == open => {
                inside = true;
                found.push(Vec::new());
            }
            (true, "```") => inside = false,
            (true, line) => found.last_mut().unwrap().push(line),
            _ => {}
        }
    }
    found.into_iter().map(|lines| lines.join("\n")).collect()
}

/// Nothing is wrong in the examples, as far as that can be seen without running them: functions,
/// options, numbers of arguments, of modules, too.
#[test]
fn the_examples_of_every_module_are_right_in_every_language() {
    let registry = Registry::standard();
    for name in stdlib::names() {
        let mut counts = Vec::new();
        for (end, comment, setting) in [
            ("rhai", "///", "let box = sandbox(); let process = box.spawn(\"x\");\n"),
            ("lua", "---", "local box = sandbox(); local process = box:spawn('x')\n"),
        ] {
            let examples = examples(stdlib::text(name, end).unwrap(), comment, end);
            assert!(!examples.is_empty(), "{name} in {end}");
            counts.push(examples.len());
            for example in examples {
                let source = Source::new(format!("{name}.{end}"), format!("{setting}{example}\n"));
                let found: Vec<String> =
                    lang::check(&source, &registry).iter().map(|one| one.error.render()).collect();
                assert!(found.is_empty(), "{name} in {end}: {example}\n{}", found.join("\n"));
            }
        }
        assert_eq!(counts[0], counts[1], "{name}");
    }
}
