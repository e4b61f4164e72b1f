//! A new machine file that extends a template.

use super::error::{MachineError, Place, Result};
use super::templates::{self, Template};
use super::tree::{self, Source, Value};
use super::variables::{self, Variable};
use crate::suggest;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use toml_edit::{DocumentMut, Item, Table};

/// The variables of a template, those of what it extends with them.
///
/// # Errors
/// None for our own templates; the tests read them all.
pub fn variables_of(template: &Template) -> Result<Vec<Variable>> {
    let source = Source {
        name: format!("template {}", template.name),
        text: template.text.into(),
        trusted: true,
    };
    let (root, _) = super::extends::resolve(&Arc::new(source), Path::new("/"))?;
    match &root.value {
        Value::Table(table) => variables::read(table),
        _ => Ok(Vec::new()),
    }
}

/// The text of a machine file: the template, the variables that are given, and the others as comments.
///
/// # Errors
/// `Invalid` for a template or a variable that there is not.
pub fn text(template: &str, given: &BTreeMap<String, String>) -> Result<String> {
    let found = templates::find(template).ok_or_else(|| {
        let hint = suggest::hint(template, templates::ALL.iter().map(|one| one.name));
        let message = format!("there is no template '{template}'");
        MachineError::invalid(Place::file("--template"), message).or_hint(hint.unwrap_or_default())
    })?;
    let variables = variables_of(found)?;
    for name in given.keys() {
        if !variables.iter().any(|one| one.name == *name) {
            let message = format!("template '{template}' has no variable '{name}'");
            let hint = suggest::hint(name, variables.iter().map(|one| one.name.as_str()));
            return Err(MachineError::invalid(Place::file("--set"), message)
                .or_hint(hint.unwrap_or_default()));
        }
    }
    let mut document = DocumentMut::new();
    document.insert("extends", toml_edit::value(template));
    let mut set = Table::new();
    for (name, value) in given {
        set.insert(name, Item::Value(value.as_str().into()));
    }
    document.insert("variables", Item::Table(set));
    let mut text = format!("# {}\n{document}", found.about);
    for variable in variables.iter().filter(|one| !given.contains_key(&one.name)) {
        let about = variable.about.as_deref().map_or(String::new(), |about| format!("  # {about}"));
        text.push_str(&match &variable.value {
            Some(value) => format!("# {} = {}{about}\n", variable.name, shown(value)),
            None => format!("# {} = \"\"{about}: must be given\n", variable.name),
        });
    }
    // What is made is read before anybody relies on it.
    let source = Source { name: template.into(), text: text.clone(), trusted: true };
    tree::parse(&Arc::new(source))?;
    Ok(text)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::List(_) | Value::Table(_) => "\"\"".into(),
    }
}
