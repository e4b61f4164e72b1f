//! The manual, and that both languages are alike.

use sandscript::lang::{self, stdlib};

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
