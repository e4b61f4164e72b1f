//! Definitions for the Rhai language server.

use std::fmt::Write;

use super::{Arg, MARK, calls, doc_lines, forms, properties, receivers};
use crate::api::{FnSpec, Registry, Type};

/// Everything in the registry in the manner of Rhai's own definition files.
pub fn stubs_rhai(registry: &Registry) -> String {
    let mut out = format!("// {MARK}\n\nmodule static;\n");
    for receiver in receivers(registry) {
        for spec in properties(registry, receiver) {
            documented(&mut out, spec);
            let handle = handle(receiver);
            let result = word(&spec.returns);
            let _ = writeln!(out, "fn get {}({handle}: {receiver}) -> {result};", spec.name);
        }
        calls(registry, Some(receiver)).for_each(|spec| function(&mut out, spec));
    }
    calls(registry, None).for_each(|spec| function(&mut out, spec));
    out
}

/// The name of the parameter that a method is called on.
fn handle(receiver: &str) -> String {
    match receiver {
        "Sandbox" => "box".into(),
        other => other.to_lowercase(),
    }
}

fn documented(out: &mut String, spec: &FnSpec) {
    out.push('\n');
    for line in doc_lines(spec, "rhai", spec.example) {
        let _ = writeln!(out, "{}", format!("/// {line}").trim_end());
    }
}

fn function(out: &mut String, spec: &FnSpec) {
    for form in forms(spec) {
        documented(out, spec);
        if form.iter().any(|arg| matches!(arg, Arg::Options)) {
            out.push_str("///\n/// Options:\n///\n");
            for option in &spec.options {
                let _ =
                    writeln!(out, "/// - `{}`: {}. {}", option.name, option.ty.word(), option.doc);
            }
        }
        let own = spec.receiver.map(|receiver| format!("{}: {receiver}", handle(receiver)));
        let typed = form.iter().map(|arg| match arg {
            Arg::Options => "options: Map".into(),
            Arg::Param(param) => format!("{}: {}", param.name, word(&param.ty)),
        });
        let words: Vec<String> = own.into_iter().chain(typed).collect();
        let result = match &spec.returns {
            Type::Unit => String::new(),
            ty => format!(" -> {}", word(ty)),
        };
        let _ = writeln!(out, "fn {}({}){result};", spec.name, words.join(", "));
    }
}

/// The type as the language server knows it: it has no words for what is in lists and maps.
fn word(ty: &Type) -> String {
    match ty {
        Type::Any => "?".into(),
        Type::Bool => "bool".into(),
        Type::Bytes => "Blob".into(),
        Type::Callback(_) => "FnPtr".into(),
        Type::Command => "String | Array".into(),
        Type::Data => "String | Blob".into(),
        Type::Duration => "String | int | float".into(),
        Type::Int => "int".into(),
        Type::List(_) => "Array".into(),
        Type::Map | Type::MapOf(_) => "Map".into(),
        Type::Number => "int | float".into(),
        Type::Object(name) => (*name).into(),
        Type::OneOf(types) => types.iter().map(word).collect::<Vec<_>>().join(" | "),
        Type::Option(_) => "?".into(),
        Type::Size => "String | int".into(),
        Type::String | Type::Word(_) => "String".into(),
        Type::Unit => "()".into(),
    }
}
