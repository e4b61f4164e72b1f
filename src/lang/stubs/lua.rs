//! Annotations for the Lua language server.

use std::fmt::Write;

use super::{Arg, MARK, arguments, calls, doc_lines, forms, properties, receivers};
use crate::api::{FnSpec, Registry, Type};

/// Everything in the registry as annotations in the manner of LuaLS, which EmmyLua's tools read, too.
pub fn stubs_lua(registry: &Registry) -> String {
    let mut out = format!("---@meta sandscript\n\n-- {MARK}\n\n");
    out.push_str(
        "---A number of seconds, or a string such as \"250ms\", \"5m\", \"1h30m\".\n\
         ---@alias Duration number|string\n\n\
         ---A number of bytes, or a string such as \"512MiB\", \"2GB\".\n\
         ---@alias Size integer|string\n\n\
         ---A string for the shell, or a list of strings that is delivered exactly as it is.\n\
         ---@alias Command string|string[]\n",
    );
    for receiver in receivers(registry) {
        let _ = write!(out, "\n---@class {receiver}\n");
        for spec in properties(registry, receiver) {
            let _ = writeln!(out, "---@field {} {} {}", spec.name, word(&spec.returns), spec.doc);
        }
        match receiver {
            "Cell" => out.push_str("---@field [string] any Its value on an axis.\n"),
            "Lines" => out.push_str("---@overload fun(): string?\n"),
            _ => {}
        }
        let _ = writeln!(out, "local {receiver} = {{}}");
        calls(registry, Some(receiver)).for_each(|spec| function(&mut out, spec));
    }
    calls(registry, None).for_each(|spec| function(&mut out, spec));
    out
}

/// The name of the class of a function's options.
fn options_class(spec: &FnSpec) -> String {
    match spec.receiver {
        Some(receiver) => format!("{receiver}.{}.Options", spec.name),
        None => format!("{}.Options", spec.name),
    }
}

fn function(out: &mut String, spec: &FnSpec) {
    out.push('\n');
    if !spec.options.is_empty() {
        let _ = writeln!(out, "---@class (exact) {}", options_class(spec));
        for option in &spec.options {
            let _ = writeln!(out, "---@field {}? {} {}", option.name, word(&option.ty), option.doc);
        }
        out.push('\n');
    }
    for line in doc_lines(spec, "lua", spec.example_lua) {
        let _ = writeln!(out, "---{line}");
    }
    let all = arguments(spec);
    for arg in &all {
        let _ = match arg {
            Arg::Options => writeln!(out, "---@param options? {}", options_class(spec)),
            Arg::Param(param) => {
                let mark = if param.optional { "?" } else { "" };
                writeln!(out, "---@param {}{mark} {} {}", param.name, word(&param.ty), param.doc)
            }
        };
    }
    let result = match &spec.returns {
        Type::Unit => None,
        ty => Some(word(ty)),
    };
    if let Some(result) = &result {
        let _ = writeln!(out, "---@return {result}");
    }
    // What is left out at the end needs no form of its own.
    let whole = |form: &[Arg<'_>]| form.iter().zip(&all).all(|(a, b)| name(*a) == name(*b));
    for form in forms(spec).iter().filter(|form| !whole(form)) {
        let own = spec.receiver.map(|receiver| format!("self: {receiver}"));
        let typed = form.iter().map(|arg| match arg {
            Arg::Options => format!("options: {}", options_class(spec)),
            Arg::Param(param) => format!("{}: {}", param.name, word(&param.ty)),
        });
        let words: Vec<String> = own.into_iter().chain(typed).collect();
        let result = result.as_ref().map(|result| format!(": {result}")).unwrap_or_default();
        let _ = writeln!(out, "---@overload fun({}){result}", words.join(", "));
    }
    let names: Vec<&str> = all.iter().map(|arg| name(*arg)).collect();
    let prefix = spec.receiver.map(|receiver| format!("{receiver}:")).unwrap_or_default();
    let _ = writeln!(out, "function {prefix}{}({}) end", spec.name, names.join(", "));
}

fn name(arg: Arg<'_>) -> &str {
    match arg {
        Arg::Options => "options",
        Arg::Param(param) => param.name,
    }
}

fn word(ty: &Type) -> String {
    match ty {
        Type::Any => "any".into(),
        Type::Bool => "boolean".into(),
        Type::Bytes | Type::Data | Type::String => "string".into(),
        Type::Callback(params) => {
            let params: Vec<String> =
                params.iter().map(|(name, ty)| format!("{name}: {}", word(ty))).collect();
            format!("fun({})", params.join(", "))
        }
        Type::Command => "Command".into(),
        Type::Duration => "Duration".into(),
        Type::Int => "integer".into(),
        Type::List(of) => match word(of) {
            simple if simple.chars().all(|c| c.is_alphanumeric() || c == '.') => {
                format!("{simple}[]")
            }
            other => format!("({other})[]"),
        },
        Type::Map => "table<string, any>".into(),
        Type::MapOf(of) => format!("table<string, {}>", word(of)),
        Type::Number => "number".into(),
        Type::Object(name) => (*name).into(),
        Type::OneOf(types) => types.iter().map(word).collect::<Vec<_>>().join("|"),
        Type::Option(of) => format!("{}?", word(of)),
        Type::Size => "Size".into(),
        Type::Unit => "nil".into(),
        Type::Word(words) => {
            words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join("|")
        }
    }
}
