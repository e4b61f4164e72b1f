//! `[variables]`: what a template leaves open, and `{{name}}` in its texts.

use std::collections::BTreeMap;

use super::error::{MachineError, Result};
use super::reader::{Reader, scalar};
use super::tree::{Node, Origin, Table, Value};
use crate::suggest;

/// What a template leaves open.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name: small letters, digits and `_`.
    pub name: String,
    /// What it is for.
    pub about: Option<String>,
    /// What it is; without one it must be given.
    pub value: Option<Value>,
    /// What it may be; anything where none are listed.
    pub choices: Vec<String>,
    /// Where its value stands, where that is a file that may not speak for the host.
    pub(super) lent: Option<Origin>,
}

/// Whether `name` can be a variable's.
fn is_name(name: &str) -> bool {
    let mut all = name.chars();
    all.next().is_some_and(|c| c.is_ascii_lowercase())
        && all.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The variables of a file, in its order.
pub fn read(root: &Table) -> Result<Vec<Variable>> {
    let Some(node) = root.get("variables") else { return Ok(Vec::new()) };
    let reader = Reader::new(node)?;
    let mut all = Vec::new();
    for (name, node) in reader.entries() {
        if !is_name(name) {
            return Err(MachineError::invalid(
                node.origin.place(),
                format!("'{name}' can't be the name of a variable"),
            )
            .or_hint("use small letters, digits and '_', and begin with a letter"));
        }
        let name = name.to_owned();
        let variable = match &node.value {
            Value::Table(_) => {
                let inner = Reader::new(node)?;
                let about = inner.text("about")?;
                let choices = inner.texts("choices")?;
                let default = inner.node("default");
                inner.finish()?;
                let value = default.map(|node| scalar(node).map(|_| node.value.clone()));
                let lent = default.and_then(lent);
                Variable { name, about, value: value.transpose()?, choices, lent }
            }
            value => {
                scalar(node)?;
                let value = Some(value.clone());
                Variable { name, about: None, value, choices: Vec::new(), lent: lent(node) }
            }
        };
        if let Some(value) = &variable.value {
            variable
                .check(&shown(value))
                .map_err(|message| MachineError::invalid(node.origin.place(), message))?;
        }
        all.push(variable);
    }
    Ok(all)
}

fn lent(node: &Node) -> Option<Origin> {
    (!node.origin.source.trusted).then(|| node.origin.clone())
}

impl Variable {
    /// Refuses what is none of its choices.
    fn check(&self, value: &str) -> Result<(), String> {
        if self.choices.is_empty() || self.choices.iter().any(|one| one == value) {
            return Ok(());
        }
        let choices = self.choices.join(", ");
        Err(format!("{} can't be '{value}': it is one of {choices}", self.name))
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::List(_) | Value::Table(_) => String::new(),
    }
}

/// Puts values into every text but those of `[variables]`. A text that is nothing but one `{{name}}`
/// becomes the value itself, so that numbers and flags can be variables; `{{{{` stands for `{{`.
///
/// # Errors
/// `Invalid` for a name that is no variable, and for one that has no value.
pub fn fill(root: &mut Table, given: &BTreeMap<String, String>) -> Result<Vec<Variable>> {
    let mut all = read(root)?;
    let place = root.get("variables").map(|node| node.origin.place());
    for (name, value) in given {
        let Some(variable) = all.iter_mut().find(|one| one.name == *name) else {
            let error = MachineError::invalid(
                place.unwrap_or_default(),
                format!("there is no variable '{name}' to be set"),
            );
            let hint = suggest::hint(name, all.iter().map(|one| one.name.as_str()));
            return Err(error.or_hint(hint.unwrap_or_else(|| "it has no [variables]".into())));
        };
        variable
            .check(value)
            .map_err(|message| MachineError::invalid(place.clone().unwrap_or_default(), message))?;
        variable.value = Some(Value::Text(value.clone()));
        variable.lent = None;
    }
    for (key, node) in &mut root.0 {
        if !matches!(key.name.as_str(), "variables" | "extends") {
            walk(node, &all)?;
        }
    }
    Ok(all)
}

fn walk(node: &mut Node, all: &[Variable]) -> Result<()> {
    match &mut node.value {
        Value::List(list) => list.iter_mut().try_for_each(|node| walk(node, all)),
        Value::Table(table) => table.0.iter_mut().try_for_each(|(_, node)| walk(node, all)),
        Value::Text(text) if text.contains("{{") => {
            let whole = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            let filled = match whole.filter(|name| is_name(name)) {
                Some(name) => value(name, all).map(|(value, lent)| (value.clone(), lent.cloned())),
                None => replace(text, all).map(|(text, lent)| (Value::Text(text), lent.cloned())),
            };
            let (value, lent) = filled.map_err(|(message, hint)| {
                MachineError::invalid(node.origin.place(), message).or_hint(hint)
            })?;
            node.value = value;
            // It is then said by the file that may not speak for the host.
            if let Some(origin) = lent.filter(|_| node.origin.source.trusted) {
                node.origin = origin;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is wrong, and what would be right.
type Wrong = (String, String);

/// The value, and where it stands if it is lent.
fn value<'a>(name: &str, all: &'a [Variable]) -> Result<(&'a Value, Option<&'a Origin>), Wrong> {
    let Some(variable) = all.iter().find(|one| one.name == name) else {
        let near = suggest::nearest(name, all.iter().map(|one| one.name.as_str()));
        let hint = match near {
            Some(near) => format!("did you mean '{{{{{near}}}}}'?"),
            None => {
                format!("list it below [variables], or write '{{{{{{{{{name}}}}}' for the text")
            }
        };
        return Err((format!("'{name}' is not a variable"), hint));
    };
    variable.value.as_ref().map(|value| (value, variable.lent.as_ref())).ok_or_else(|| {
        let about = variable.about.as_deref().map_or(String::new(), |about| format!(" ({about})"));
        let hint = format!("give it: --set {name}=VALUE, or {name} = \"VALUE\" below [variables]");
        (format!("the variable '{name}'{about} has no value"), hint)
    })
}

/// The text with its values, and where the first of them stands that is lent.
fn replace<'a>(text: &str, all: &'a [Variable]) -> Result<(String, Option<&'a Origin>), Wrong> {
    let mut done = String::with_capacity(text.len());
    let mut lender = None;
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        done.push_str(&rest[..at]);
        rest = &rest[at + 2..];
        if let Some(after) = rest.strip_prefix("{{") {
            done.push_str("{{");
            rest = after;
            continue;
        }
        match rest.split_once("}}").filter(|(name, _)| is_name(name)) {
            Some((name, after)) => {
                let (value, lent) = value(name, all)?;
                done.push_str(&shown(value));
                lender = lender.or(lent);
                rest = after;
            }
            // Other programs' templates, such as {{.Names}} of Docker or {{ ds.x }} of cloud-init.
            None => done.push_str("{{"),
        }
    }
    done.push_str(rest);
    Ok((done, lender))
}

/// A text that means itself, whatever braces are in it.
pub fn escape(text: &str) -> String {
    text.replace("{{", "{{{{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_text_is_read_as_it_was() {
        for text in ["{{name}}", "a {{name}} b", "{{{", "{{{{x}}", "docker {{.Names}}", "{ {"] {
            let (read, lent) = replace(&escape(text), &[]).unwrap();
            assert_eq!((read.as_str(), lent), (text, None));
        }
    }
}
