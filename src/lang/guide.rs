//! The manual of the standard library, made from the doc comments of its modules.

use std::fmt::Write;

use super::stdlib;

/// A function of a module.
pub(super) struct Function {
    /// Its name.
    pub name: String,
    /// Its parameters, of each form that it has.
    pub forms: Vec<Vec<String>>,
    /// Its comment.
    pub doc: String,
}

/// The manual, as Markdown. Both languages have the same functions; the comments are those of the
/// modules in Rhai.
pub fn guide() -> String {
    let mut out = String::from(
        "# The standard library\n\n\
         Modules that scripts import: `import \"std/apt\" as apt;` in Rhai, `local apt = require(\"std.apt\")` in Lua. \
         They are written in the\nscript languages themselves and are inside the program; `stdlib/` of the repository has \
         their text. Both languages have the\nsame functions: `apt::install(…)` in Rhai is `apt.install(…)` in Lua. \
         `options?` is a map that may be left out.\n\n\
         This page is made from their comments; `UPDATE_DOCS=1 cargo test --test stdlib manual` writes it.\n\n",
    );
    let first = |text: &str| text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    for name in stdlib::names() {
        let about = about(stdlib::text(name, "rhai").unwrap_or_default());
        let _ = writeln!(out, "- [std/{name}](#std{name}): {}", first(&about));
    }
    for name in stdlib::names() {
        let text = stdlib::text(name, "rhai").unwrap_or_default();
        let _ = write!(out, "\n## std/{name}\n\n{}\n", about(text));
        for function in functions(text) {
            let most = function.forms.iter().max_by_key(|form| form.len()).cloned();
            let least = function.forms.iter().min_by_key(|form| form.len()).cloned();
            let least = least.unwrap_or_default();
            let params: Vec<String> = most
                .unwrap_or_default()
                .into_iter()
                .map(|param| if least.contains(&param) { param } else { format!("{param}?") })
                .collect();
            let title = format!("{}({})", function.name, params.join(", "));
            let _ = write!(out, "\n### {name}: {title}\n\n{}\n", function.doc);
        }
    }
    out
}

/// What a module in Rhai says about itself.
pub(super) fn about(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The public functions of a module in Rhai, as they come.
pub(super) fn functions(text: &str) -> Vec<Function> {
    let mut found: Vec<Function> = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("///") {
            doc.push(rest.strip_prefix(' ').unwrap_or(rest));
            continue;
        }
        let own = std::mem::take(&mut doc).join("\n");
        let Some((name, rest)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
        else {
            continue;
        };
        let inside = rest.split(')').next().unwrap_or_default();
        let form = inside.split(", ").filter(|one| !one.is_empty()).map(str::to_owned).collect();
        match found.iter_mut().find(|function| function.name == name) {
            Some(function) => {
                function.forms.push(form);
                if !own.is_empty() && function.doc != own {
                    function.doc = format!("{}\n\n{own}", function.doc);
                }
            }
            None => found.push(Function { name: name.to_owned(), forms: vec![form], doc: own }),
        }
    }
    found
}
