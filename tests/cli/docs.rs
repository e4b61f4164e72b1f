//! Documents that repeat what the program knows must not drift from it.

use std::fmt::Write;

use crate::environment::{TestEnvironment, repository};

fn help(path: &[&str]) -> String {
    let run = TestEnvironment::fake().run(path.iter().chain(&["--help"]));
    assert_eq!(run.code, Some(0), "{run}");
    // An empty line inside a list of values carries spaces.
    run.stdout.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn chapters(out: &mut String, command: &clap::Command, path: &mut Vec<String>) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        path.push(verb.get_name().to_owned());
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let _ =
            write!(out, "\n## {}\n\n```text\n{}\n```\n", words.join(" "), help(&words).trim_end());
        chapters(out, verb, path);
        path.pop();
    }
}

#[test]
fn the_command_line_reference() {
    let mut text = String::from(
        "# The command line\n\nThis page is what `--help` says; `UPDATE_DOCS=1 cargo test --test cli docs` writes it.\n",
    );
    let _ = write!(text, "\n## sandscript\n\n```text\n{}\n```\n", help(&[]).trim_end());
    chapters(&mut text, &sandscript::cli::command(), &mut Vec::new());
    let file = repository().join("docs/cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == text,
        "docs/cli.md is not what --help says; UPDATE_DOCS=1 cargo test --test cli docs writes it"
    );
}

#[test]
fn the_exit_codes() {
    let rows = |text: &str, prefix: &str| -> Vec<String> {
        let row = |line: &str| Some(line.strip_prefix(prefix)?.to_owned());
        text.lines()
            .filter_map(row)
            .filter(|row| row.starts_with(|c: char| c.is_ascii_digit()))
            .filter(|row| !row.starts_with("12") || row.starts_with("12 "))
            .collect()
    };
    let code = std::fs::read_to_string(repository().join("src/workflow/exit.rs")).unwrap();
    let page = std::fs::read_to_string(repository().join("docs/exit-codes.md")).unwrap();
    let (code, page) = (rows(&code, "//! | "), rows(&page, "| "));
    assert!(code.len() >= 10);
    assert_eq!(code, page);
}
