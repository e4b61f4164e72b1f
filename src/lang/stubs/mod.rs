//! Type stubs for editors, made from the registry.

mod lua;
mod modules;
mod rhai;

pub use lua::stubs_lua;
pub use modules::{stub_lua_module, stub_rhai_module};
pub use rhai::stubs_rhai;

use super::stdlib;
use crate::api::{FnSpec, Param, Registry, Type, Use};

/// What the first lines of every file say that is written again without asking.
pub const MARK: &str = "Made by sandscript stubs; what you change here is lost.";

/// The files that editors read, by their names in the folder of stubs. Those of Rhai's modules
/// depend on where scripts are: see [`stub_rhai_module`].
pub fn stub_files(registry: &Registry) -> Vec<(String, String)> {
    let mut files = vec![
        ("sandscript.d.lua".to_owned(), stubs_lua(registry)),
        ("sandscript.d.rhai".to_owned(), stubs_rhai(registry)),
        #[cfg(feature = "rhai")]
        ("rhai.d.rhai".to_owned(), super::rhai::definitions(registry)),
    ];
    for name in stdlib::names() {
        files.push((format!("std/{name}.d.lua"), stub_lua_module(name)));
    }
    files
}

/// One argument of a call.
#[derive(Clone, Copy)]
enum Arg<'a> {
    Options,
    Param(&'a Param),
}

impl Arg<'_> {
    fn may_be_left_out(self) -> bool {
        match self {
            Arg::Options => true,
            Arg::Param(param) => param.optional,
        }
    }
}

/// The arguments of a call that gives all of them, in order.
fn arguments(spec: &FnSpec) -> Vec<Arg<'_>> {
    let mut all: Vec<Arg<'_>> = spec.params.iter().map(Arg::Param).collect();
    if !spec.options.is_empty() {
        let callback = matches!(spec.params.last().map(|last| &last.ty), Some(Type::Callback(_)));
        all.insert(all.len() - usize::from(callback), Arg::Options);
    }
    all
}

/// Every list of arguments that a call may have, the longest first.
fn forms(spec: &FnSpec) -> Vec<Vec<Arg<'_>>> {
    let mut forms: Vec<Vec<Arg<'_>>> = vec![Vec::new()];
    for arg in arguments(spec) {
        let without = forms.clone();
        forms.iter_mut().for_each(|form| form.push(arg));
        if arg.may_be_left_out() {
            forms.extend(without);
        }
    }
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms
}

/// The types of handles, in the order they first appear.
fn receivers(registry: &Registry) -> Vec<&'static str> {
    let mut all = Vec::new();
    for receiver in registry.specs().iter().filter_map(|spec| spec.receiver) {
        if !all.contains(&receiver) {
            all.push(receiver);
        }
    }
    all
}

fn properties<'a>(registry: &'a Registry, receiver: &'a str) -> impl Iterator<Item = &'a FnSpec> {
    let all = registry.specs().iter().map(|spec| &**spec);
    all.filter(move |spec| spec.receiver == Some(receiver) && spec.usage == Use::Property)
}

fn calls<'a>(
    registry: &'a Registry,
    receiver: Option<&'a str>,
) -> impl Iterator<Item = &'a FnSpec> {
    let all = registry.specs().iter().map(|spec| &**spec);
    all.filter(move |spec| spec.receiver == receiver && spec.usage == Use::Call)
}

/// The lines of a doc comment: what it does, what can go wrong, an example.
fn doc_lines(spec: &FnSpec, language: &str, example: &str) -> Vec<String> {
    let mut lines = vec![spec.doc.to_owned()];
    if !spec.errors.is_empty() {
        lines.push(String::new());
        for error in &spec.errors {
            lines.push(format!("- error `{}`: {}", error.code, error.when));
        }
    }
    if !example.is_empty() {
        lines.extend([String::new(), format!("```{language}")]);
        lines.extend(example.lines().map(str::to_owned));
        lines.push("```".into());
    }
    lines
}
