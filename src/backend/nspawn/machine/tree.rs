//! What TOML files say, each value with the place where it stands: several files are laid over each
//! other, and a mistake is still told where it is.

use std::sync::Arc;

use toml_edit::{Document, Item};

use super::error::{MachineError, Place, Result};

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As it was named.
    pub name: String,
    /// What is in it.
    pub text: String,
    /// Whether what it says may hold on the host without being asked for: it is the machine's own file,
    /// or one of ours.
    pub trusted: bool,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub source: Arc<Source>,
    /// The byte at which it begins.
    pub offset: usize,
}

impl Origin {
    /// As a person counts.
    pub fn place(&self) -> Place {
        Place::at(&self.source.name, &self.source.text, self.offset)
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub origin: Origin,
    /// What it is.
    pub value: Value,
}

/// What TOML has, without dates.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `"text"`.
    Text(String),
    /// `1`.
    Integer(i64),
    /// `1.5`.
    Float(f64),
    /// `true`.
    Bool(bool),
    /// `[…]`, or several `[[…]]`.
    List(Vec<Node>),
    /// `{…}`, or `[…]` above keys.
    Table(Table),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Keys and values in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(pub Vec<(Key, Node)>);

/// A key with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
}

impl Table {
    /// The value behind a key.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// Takes a key out.
    pub fn remove(&mut self, name: &str) -> Option<(Key, Node)> {
        let at = self.0.iter().position(|(key, _)| key.name == name)?;
        Some(self.0.remove(at))
    }
}

/// Reads a file.
///
/// # Errors
/// `Invalid` where it is no TOML, with what the parser says.
pub fn parse(source: &Arc<Source>) -> Result<Node> {
    let document = Document::parse(source.text.as_str()).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let place = Place::at(&source.name, &source.text, offset);
        MachineError::invalid(place, error.message().trim().replace('\n', ", "))
    })?;
    let origin = Origin { source: source.clone(), offset: 0 };
    Ok(Node { value: Value::Table(table(document.as_table(), &origin)?), origin })
}

fn table(from: &dyn toml_edit::TableLike, parent: &Origin) -> Result<Table> {
    let mut entries = Vec::new();
    for (name, item) in from.iter() {
        let span = from.key(name).and_then(toml_edit::Key::span);
        let origin = at(parent, span);
        if let Some(value) = node(item, &origin)? {
            entries.push((Key { name: name.to_owned(), origin }, value));
        }
    }
    Ok(Table(entries))
}

fn at(parent: &Origin, span: Option<std::ops::Range<usize>>) -> Origin {
    Origin { offset: span.map_or(parent.offset, |span| span.start), ..parent.clone() }
}

/// Nothing where the item is none.
fn node(item: &Item, key: &Origin) -> Result<Option<Node>> {
    use toml_edit::Value as From;
    let origin = at(key, item.span());
    let each = |items: &mut dyn Iterator<Item = Item>| -> Result<Vec<Node>> {
        let mut list = Vec::new();
        for item in items {
            list.extend(node(&item, &origin)?);
        }
        Ok(list)
    };
    let value = match item {
        Item::None => return Ok(None),
        Item::Table(from) => Value::Table(table(from, &origin)?),
        Item::ArrayOfTables(from) => {
            Value::List(each(&mut from.iter().map(|one| Item::Table(one.clone())))?)
        }
        Item::Value(value) => match value {
            From::String(text) => Value::Text(text.value().clone()),
            From::Integer(number) => Value::Integer(*number.value()),
            From::Float(number) => Value::Float(*number.value()),
            From::Boolean(flag) => Value::Bool(*flag.value()),
            From::Array(from) => {
                Value::List(each(&mut from.iter().map(|one| Item::Value(one.clone())))?)
            }
            From::InlineTable(from) => Value::Table(table(from, &origin)?),
            From::Datetime(_) => {
                return Err(MachineError::invalid(
                    origin.place(),
                    "a machine file has no use for a date",
                )
                .or_hint("put it in quotes if it is a text"));
            }
        },
    };
    Ok(Some(Node { origin, value }))
}

/// Lists that a file adds to where it extends another; every other list it replaces.
const ADDED: &[&str] = &[
    "binds",
    "devices",
    "needs.modules",
    "security.add",
    "security.drop",
    "security.allow",
    "security.deny",
    "setup.steps",
];

/// Lays a file over the one that it extends: tables key by key, some lists one after the other, and
/// everything else instead of what was there.
pub fn over(below: Node, above: Node) -> Node {
    merge(below, above, "")
}

fn merge(below: Node, above: Node, path: &str) -> Node {
    let Node { origin, value } = above;
    let value = match (below.value, value) {
        (Value::Table(mut table), Value::Table(above)) => {
            for (key, node) in above.0 {
                let inner =
                    if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
                match table.remove(&key.name) {
                    Some((_, below)) => table.0.push((key, merge(below, node, &inner))),
                    None => table.0.push((key, node)),
                }
            }
            Value::Table(table)
        }
        (Value::List(mut list), Value::List(above)) if ADDED.contains(&path) => {
            for node in above {
                // What both say is said by the one above.
                match list.iter_mut().find(|one| same(&one.value, &node.value)) {
                    Some(one) => *one = node,
                    None => list.push(node),
                }
            }
            Value::List(list)
        }
        // A variable that is described keeps its description and gets another value.
        (Value::Table(mut table), value)
            if path.strip_prefix("variables.").is_some_and(|name| !name.contains('.')) =>
        {
            table.remove("default");
            let key = Key { name: "default".into(), origin: origin.clone() };
            table.0.push((key, Node { origin: origin.clone(), value }));
            Value::Table(table)
        }
        (_, value) => value,
    };
    Node { origin, value }
}

/// Whether two say the same, wherever they stand.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::List(one), Value::List(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(a, b)| same(&a.value, &b.value))
        }
        (Value::Table(one), Value::Table(two)) => {
            one.0.len() == two.0.len()
                && one.0.iter().all(|(key, node)| {
                    two.get(&key.name).is_some_and(|other| same(&node.value, &other.value))
                })
        }
        (one, two) => one == two,
    }
}
