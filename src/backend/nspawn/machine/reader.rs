//! Typed values out of a table; a key that nobody asked for is an error with the nearest one.

use std::cell::RefCell;
use std::time::Duration;

use super::error::{MachineError, Place, Result};
use super::tree::{Node, Table, Value};
use crate::sandbox::{parse_duration, parse_size};
use crate::suggest;

/// Reads one table.
#[derive(Debug)]
pub struct Reader<'a> {
    table: &'a Table,
    place: Place,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    /// Of a value that must be a table.
    pub fn new(node: &'a Node) -> Result<Reader<'a>> {
        match &node.value {
            Value::Table(table) => {
                Ok(Reader { table, place: node.origin.place(), known: RefCell::default() })
            }
            other => Err(wrong(node, "a table", other.kind())),
        }
    }

    /// Where the table begins.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// The value behind a key.
    pub fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Where the key's value is, or the table where there is none.
    pub fn place_of(&self, key: &str) -> Place {
        self.table.get(key).map_or_else(|| self.place(), |node| node.origin.place())
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Result<Option<String>> {
        self.node(key).map(text).transpose()
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        self.node(key).map(flag).transpose()
    }

    /// A whole number, not below 0.
    pub fn count(&self, key: &'static str) -> Result<Option<u64>> {
        self.node(key).map(count).transpose()
    }

    /// A number.
    pub fn number(&self, key: &'static str) -> Result<Option<f64>> {
        let number = |node: &Node| match &node.value {
            Value::Float(number) => Ok(*number),
            Value::Integer(number) => Ok(*number as f64),
            Value::Text(text) => {
                text.trim().parse().map_err(|_| wrong(node, "a number", &format!("\"{text}\"")))
            }
            other => Err(wrong(node, "a number", other.kind())),
        };
        self.node(key).map(number).transpose()
    }

    /// Bytes, as `"512MiB"` or a number.
    pub fn size(&self, key: &'static str) -> Result<Option<u64>> {
        let size = |node: &Node| match &node.value {
            Value::Text(text) => parse_size(text).map_err(|error| domain(node, &error)),
            _ => count(node),
        };
        self.node(key).map(size).transpose()
    }

    /// A duration, as `"30s"` or a number of seconds.
    pub fn duration(&self, key: &'static str) -> Result<Option<Duration>> {
        let duration = |node: &Node| match &node.value {
            Value::Text(text) => parse_duration(text).map_err(|error| domain(node, &error)),
            _ => count(node).map(Duration::from_secs),
        };
        self.node(key).map(duration).transpose()
    }

    /// Texts: a list of them, or one.
    pub fn texts(&self, key: &'static str) -> Result<Vec<String>> {
        self.list(key)?.into_iter().map(text).collect()
    }

    /// Values: a list of them, or one.
    pub fn list(&self, key: &'static str) -> Result<Vec<&'a Node>> {
        Ok(match self.node(key) {
            None => Vec::new(),
            Some(Node { value: Value::List(all), .. }) => all.iter().collect(),
            Some(one) => vec![one],
        })
    }

    /// A table of texts, numbers and flags, as texts.
    pub fn map(&self, key: &'static str) -> Result<Vec<(String, String)>> {
        let Some(node) = self.node(key) else { return Ok(Vec::new()) };
        let inner = Reader::new(node)?;
        inner.entries().map(|(name, node)| Ok((name.to_owned(), scalar(node)?))).collect()
    }

    /// All keys and values; with it every key is known.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.table.0.iter().map(|(key, node)| (key.name.as_str(), node))
    }

    /// Refuses the first key that nobody asked for.
    pub fn finish(self) -> Result<()> {
        let known = self.known.borrow();
        let stray = self.table.0.iter().find(|(key, _)| !known.contains(&key.name.as_str()));
        let Some((key, _)) = stray else { return Ok(()) };
        let error =
            MachineError::invalid(key.origin.place(), format!("unknown key '{}'", key.name));
        Err(match suggest::hint(&key.name, known.iter().copied()) {
            Some(hint) => error.or_hint(hint),
            None => error,
        })
    }
}

/// A text.
pub fn text(node: &Node) -> Result<String> {
    match &node.value {
        Value::Text(text) if text.contains('\0') => {
            Err(MachineError::invalid(node.origin.place(), "a text may not hold a NUL byte"))
        }
        Value::Text(text) => Ok(text.clone()),
        other => Err(wrong(node, "a text", other.kind())),
    }
}

/// A text, number or flag, as text.
pub fn scalar(node: &Node) -> Result<String> {
    match &node.value {
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(if *flag { "yes" } else { "no" }.into()),
        _ => text(node),
    }
}

/// `true` or `false`, also as a text that came out of a variable.
pub fn flag(node: &Node) -> Result<bool> {
    match &node.value {
        Value::Bool(flag) => Ok(*flag),
        Value::Text(text) if text == "true" => Ok(true),
        Value::Text(text) if text == "false" => Ok(false),
        other => Err(wrong(node, "true or false", other.kind())),
    }
}

/// A whole number, not below 0.
pub fn count(node: &Node) -> Result<u64> {
    let parsed = match &node.value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| {
        let got = match &node.value {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => format!("\"{text}\""),
            other => other.kind().into(),
        };
        wrong(node, "a whole number, 0 or more", &got)
    })
}

/// The value is of another kind.
pub fn wrong(node: &Node, wanted: &str, got: &str) -> MachineError {
    MachineError::invalid(node.origin.place(), format!("this must be {wanted}, and is {got}"))
}

/// The domain does not take the value.
pub fn domain(node: &Node, error: &crate::sandbox::Error) -> MachineError {
    let message = match error {
        crate::sandbox::Error::InvalidInput { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let wrong = MachineError::invalid(node.origin.place(), message);
    match error.hint() {
        Some(hint) => wrong.or_hint(hint),
        None => wrong,
    }
}
