//! The reference of all functions, made from the registry.

use std::fmt::Write;

use crate::api::{FnSpec, Registry, Type, Use};

/// The chapters, in order: the type of handle (none for plain functions), and what it is.
const CHAPTERS: &[(Option<&str>, &str)] = &[
    (None, "Plain functions, called by their name."),
    (Some("Sandbox"), "A sandbox: what `sandbox`, `open` and `clone` give, and a cell has."),
    (Some("Result"), "How a command ended: what `run`, `exec` and `wait` give."),
    (Some("Process"), "A command that goes on: what `spawn` gives."),
    (Some("Lines"), "Output line by line: what `lines` gives. A for loop walks over it."),
    (Some("Builder"), "What the function of `base` gets; its calls are the steps."),
    (Some("Base"), "A base that is done: what `base` gives."),
    (Some("Cell"), "What the function of `matrix` gets."),
    (Some("Secret"), "A value that is used and never shown: what `secret` gives."),
    (Some("Error"), "What `catch` gets in Rhai, and `pcall` gives in Lua."),
];

const INTRODUCTION: &str = "\
# Script functions

Every function that scripts can call, in Rhai and in Lua. This page is made from the table that both languages are made
from; `UPDATE_DOCS=1 cargo test --test manual` writes it, and runs every example.

How to read it:

- `name?` may be left out. Options come as one map, after the arguments and before a function: `#{ memory: \"1GiB\" }` in
  Rhai, `{ memory = \"1GiB\" }` in Lua. An unknown option is an error.
- Rhai calls a method with a dot, `box.run(\"make\")`; Lua with a colon, `box:run(\"make\")`. Properties have a dot in both.
- Lists are `[1, 2]` in Rhai and `{ 1, 2 }` in Lua; nothing is `()` in Rhai and `nil` in Lua, and
  `null` inside of a Lua list. `local box <close> = sandbox()` in Lua deletes the sandbox when its scope is left.
- A *duration* is a number of seconds or a string such as `\"250ms\"`, `\"5m\"`, `\"1h30m\"`; a *size* is a number of bytes or a
  string such as `\"512MiB\"`, `\"2GB\"`; *bytes* is a blob in Rhai and a string in Lua.
- Every call can fail with the codes `invalid_input` (an argument is not what it must be), `unsupported` (the backend
  can't do it), `internal` and `transport`; only more specific ones are listed. A stopped or timed-out run ends the
  script, and no `try` and no `pcall` catches that.
";

/// What the examples of [`manual`] use without making it, as Rhai; `%` stands for the example.
///
/// Those of a type of handle stand where such a handle is.
pub fn setting_rhai(receiver: Option<&str>) -> String {
    let before = "let box = sandbox(\"web\");\nlet tools = base(\"tools\", |b| b.run(\"true\"));\n\
                  let process = box.spawn(\"cat\");\n";
    match receiver {
        Some("Builder") => "base(\"app\", |b| {\n%\n});\n".into(),
        Some("Cell") => {
            "matrix(\"tests\", #{ axes: #{ db: [\"sqlite\"] } }, |cell| {\n%\n});\n".into()
        }
        _ => format!("{before}%\n"),
    }
}

/// The same as Lua.
pub fn setting_lua(receiver: Option<&str>) -> String {
    let before = "local box = sandbox(\"web\")\n\
                  local tools = base(\"tools\", function(b) b:run(\"true\") end)\n\
                  local process = box:spawn(\"cat\")\n";
    match receiver {
        Some("Builder") => "base(\"app\", function(b)\n%\nend)\n".into(),
        Some("Cell") => {
            "matrix(\"tests\", { axes = { db = { \"sqlite\" } } }, function(cell)\n%\nend)\n".into()
        }
        _ => format!("{before}%\n"),
    }
}

/// The reference of all functions in the registry, as Markdown.
pub fn manual(registry: &Registry) -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("- The examples begin after this:\n\n");
    both(&mut out, &setting_rhai(None).replace("%\n", ""), &setting_lua(None).replace("%\n", ""));
    let mut receivers: Vec<Option<&str>> = CHAPTERS.iter().map(|(receiver, _)| *receiver).collect();
    for spec in registry.specs() {
        if !receivers.contains(&spec.receiver) {
            receivers.push(spec.receiver);
        }
    }
    out.push('\n');
    for receiver in &receivers {
        let specs = of(registry, *receiver);
        let names: Vec<String> =
            specs.iter().map(|spec| format!("[{}](#{})", spec.name, anchor(spec))).collect();
        let _ = writeln!(out, "- {}: {}", receiver.unwrap_or("Functions"), names.join(", "));
    }
    for receiver in receivers {
        let _ = write!(out, "\n## {}\n", receiver.unwrap_or("Functions"));
        if let Some((_, about)) = CHAPTERS.iter().find(|(one, _)| *one == receiver) {
            let _ = write!(out, "\n{about}\n");
        }
        of(registry, receiver).into_iter().for_each(|spec| entry(&mut out, spec));
    }
    out
}

fn of<'a>(registry: &'a Registry, receiver: Option<&str>) -> Vec<&'a FnSpec> {
    let mut specs: Vec<&FnSpec> = registry
        .specs()
        .iter()
        .map(|spec| &**spec)
        .filter(|spec| spec.receiver == receiver)
        .collect();
    specs.sort_by_key(|spec| spec.name);
    specs
}

fn title(spec: &FnSpec) -> String {
    match spec.receiver {
        Some(receiver) => format!("{receiver}.{}", spec.name),
        None => spec.name.to_owned(),
    }
}

/// As web pages of repositories name headings.
fn anchor(spec: &FnSpec) -> String {
    title(spec).to_lowercase().replace('.', "")
}

fn entry(out: &mut String, spec: &FnSpec) {
    let _ = write!(out, "\n### {}\n\n{}\n", title(spec), spec.doc);
    let (rhai, lua) = spellings(spec);
    let _ = write!(out, "\n```text\nRhai: {rhai}\nLua:  {lua}\n```\n");
    let cell = |text: &str| text.replace('|', "\\|");
    if !spec.params.is_empty() {
        out.push_str("\n| argument | type | |\n|---|---|---|\n");
        for param in &spec.params {
            let mark = if param.optional { "?" } else { "" };
            let _ = writeln!(
                out,
                "| `{}{mark}` | {} | {} |",
                param.name,
                cell(&param.ty.word()),
                cell(param.doc)
            );
        }
    }
    if !spec.options.is_empty() {
        out.push_str("\n| option | type | |\n|---|---|---|\n");
        for option in &spec.options {
            let (word, doc) = (cell(&option.ty.word()), cell(option.doc));
            let _ = writeln!(out, "| `{}` | {word} | {doc} |", option.name);
        }
    }
    if spec.returns != Type::Unit {
        let what = if spec.usage == Use::Call { "Gives" } else { "Is" };
        let _ = write!(out, "\n{what}: {}\n", spec.returns.word());
    }
    if !spec.errors.is_empty() {
        out.push_str("\nErrors:\n\n");
        for error in &spec.errors {
            let _ = writeln!(out, "- `{}`: {}", error.code, error.when);
        }
    }
    out.push('\n');
    both(out, spec.example, spec.example_lua);
}

fn both(out: &mut String, rhai: &str, lua: &str) {
    for (language, text) in [("rhai", rhai), ("lua", lua)] {
        if !text.is_empty() {
            let _ = write!(out, "```{language}\n{}\n```\n", text.trim_end());
        }
    }
}

/// How a call of it is written in Rhai and in Lua.
pub fn spellings(spec: &FnSpec) -> (String, String) {
    let Some(receiver) = spec.receiver else { return (spec.signature(), spec.signature()) };
    let signature = spec.signature();
    let rest = &signature[receiver.len() + 1..];
    let handle = match receiver {
        "Sandbox" => "box".to_owned(),
        "Builder" => "b".to_owned(),
        other => other.to_lowercase(),
    };
    let mark = if spec.usage == Use::Call { ':' } else { '.' };
    (format!("{handle}.{rest}"), format!("{handle}{mark}{rest}"))
}
