//! What editors need to know about the modules of the standard library.

use std::fmt::Write;

use super::MARK;
use crate::lang::guide::{Function, about, functions};
use crate::lang::stdlib;

/// The annotations of a module for the Lua language server, which finds it by its name.
pub fn stub_lua_module(name: &str) -> String {
    let text = stdlib::text(name, "rhai").unwrap_or_default();
    let mut out = format!("---@meta std.{name}\n\n-- {MARK}\n\n");
    about(text).lines().for_each(|line| comment(&mut out, "---", line));
    let _ = writeln!(out, "---@class std.{name}");
    for constant in constants(text) {
        let _ = writeln!(out, "---@field {constant} string");
    }
    let _ = writeln!(out, "local {name} = {{}}");
    for function in functions(text) {
        let class = format!("std.{name}.{}.Options", function.name);
        let options = options(&function.doc);
        if !options.is_empty() {
            let _ = write!(out, "\n---@class (exact) {class}\n");
            for (option, doc) in &options {
                let _ = writeln!(out, "---@field {option}? {} {doc}", lua_option(doc));
            }
        }
        out.push('\n');
        doc(&function.doc, "rhai").iter().for_each(|line| comment(&mut out, "---", line));
        let ty = |param: &str| match (param, options.is_empty()) {
            ("options", false) => class.clone(),
            _ => lua_type(param).to_owned(),
        };
        let longest = longest(&function);
        let shortest = function.forms.iter().min_by_key(|form| form.len()).unwrap_or(&longest);
        let needed = longest.iter().rposition(|param| shortest.contains(param));
        for (index, param) in longest.iter().enumerate() {
            let mark = if needed.is_none_or(|needed| index > needed) { "?" } else { "" };
            let _ = writeln!(out, "---@param {param}{mark} {}", ty(param));
        }
        let _ = writeln!(out, "---@return any");
        // What is left out at the end needs no form of its own.
        for form in function.forms.iter().filter(|form| !longest.starts_with(form)) {
            let typed: Vec<String> =
                form.iter().map(|param| format!("{param}: {}", ty(param))).collect();
            let _ = writeln!(out, "---@overload fun({}): any", typed.join(", "));
        }
        let _ = writeln!(out, "function {name}.{}({}) end", function.name, longest.join(", "));
    }
    let _ = write!(out, "\nreturn {name}\n");
    out
}

/// The definitions of a module for Rhai's language server, which looks for an import from the folder
/// of the script: `path` is where it looks, from the folder of these definitions.
pub fn stub_rhai_module(name: &str, path: &str) -> String {
    let text = stdlib::text(name, "rhai").unwrap_or_default();
    let mut out = format!("// {MARK}\n\n");
    about(text).lines().for_each(|line| comment(&mut out, "/// ", line));
    let _ = writeln!(out, "module {path:?};");
    for constant in constants(text) {
        let _ = write!(out, "\nconst {constant}: String;\n");
    }
    for function in functions(text) {
        for form in &function.forms {
            out.push('\n');
            doc(&function.doc, "lua").iter().for_each(|line| comment(&mut out, "/// ", line));
            let typed: Vec<String> =
                form.iter().map(|param| format!("{param}: {}", rhai_type(param))).collect();
            let _ = writeln!(out, "fn {}({}) -> ?;", function.name, typed.join(", "));
        }
    }
    out
}

fn comment(out: &mut String, mark: &str, line: &str) {
    let _ = writeln!(out, "{}", format!("{mark}{line}").trim_end());
}

/// A comment without the examples in the other language.
fn doc<'a>(doc: &'a str, other: &str) -> Vec<&'a str> {
    let open = format!("```{other}");
    let mut lines = Vec::new();
    let mut left_out = false;
    for line in doc.lines() {
        left_out = left_out || line == open;
        if !left_out {
            lines.push(line);
        }
        left_out = left_out && line != "```";
    }
    lines
}

fn longest(function: &Function) -> Vec<String> {
    function.forms.iter().max_by_key(|form| form.len()).cloned().unwrap_or_default()
}

fn constants(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("export const "));
    lines.filter_map(|rest| rest.split(' ').next())
}

/// The options that a comment lists, with what it says about each.
fn options(doc: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut last = 0;
    for line in doc.lines() {
        if let Some(rest) = line.strip_prefix("- `") {
            let Some((names, about)) = rest.split_once("`: ") else { continue };
            let names = names.split("`, `");
            last = names.clone().count();
            found.extend(names.map(|name| (name.to_owned(), about.to_owned())));
        } else if let Some(more) = line.strip_prefix("  ") {
            let from = found.len().saturating_sub(last);
            found[from..].iter_mut().for_each(|(_, about)| *about = format!("{about} {more}"));
        } else {
            last = 0;
        }
    }
    found
}

/// The type of an option, as far as its default tells.
fn lua_option(doc: &str) -> &'static str {
    let default =
        doc.rsplit_once("Default: ").map_or("", |(_, default)| default.trim_end_matches('.'));
    let lists = ["list", "packages to", "groups that", "arguments for"];
    match default {
        "true" | "false" => "boolean",
        "none" if lists.iter().any(|word| doc.contains(word)) => "string|string[]",
        "none" if doc.starts_with("variables") => "table<string, any>",
        _ if doc.contains("how long")
            || doc.contains("after this long")
            || doc.contains("longest wait") =>
        {
            "Duration"
        }
        text if text.starts_with('"') => "string",
        number if !number.is_empty() && number.parse::<f64>().is_ok() => "number",
        _ => "any",
    }
}

/// The type of a parameter; in all modules one name means one thing.
fn lua_type(param: &str) -> &'static str {
    match param {
        "args" | "packages" | "words" => "string[]",
        "box" => "Sandbox|Builder",
        "code" | "number" | "port" => "integer",
        "command" => "Command",
        "condition" | "work" => "function",
        "options" => "table<string, any>",
        "process" => "Process",
        _ => "string",
    }
}

fn rhai_type(param: &str) -> &'static str {
    match param {
        "args" | "packages" | "words" => "Array",
        "box" => "Sandbox | Builder",
        "code" | "number" | "port" => "int",
        "command" => "String | Array",
        "condition" | "work" => "FnPtr",
        "options" => "Map",
        "process" => "Process",
        _ => "String",
    }
}
