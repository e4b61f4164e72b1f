//! Matrices whose axes stand in the script: whether every include changes something.

use std::rc::Rc;

use super::walk::Walk;
use crate::api::{ScriptError, Value};
use crate::lang::tree::{At, Kind, Node};
use crate::workflow::{AxisValue, MatrixSpec};

type Entries = [(String, At, Node)];
type Pairs = Vec<(String, AxisValue)>;

impl<'a> Walk<'a> {
    pub fn matrix(&mut self, options: &'a Entries, at: At) {
        let given = |name: &str| options.iter().find(|(key, ..)| key == name);
        let Some(axes) = axes(given("axes").map(|(_, _, node)| node)) else { return };
        let lists = |name: &str| match given(name) {
            None => Some(Vec::new()),
            Some((_, _, node)) => entries(node),
        };
        let (Some(include), Some(exclude)) = (lists("include"), lists("exclude")) else { return };
        let pairs = |all: &[(At, Pairs)]| all.iter().map(|(_, pairs)| pairs.clone()).collect();
        let spec = MatrixSpec {
            name: "matrix".into(),
            axes,
            include: pairs(&include),
            exclude: pairs(&exclude),
            ..MatrixSpec::default()
        };
        let all = match spec.expand() {
            Ok(cells) => cells,
            Err(error) => {
                let text = error.to_string();
                let (about, message) = text.split_once(": ").unwrap_or(("", &text));
                let place = given(about).map_or(at, |(_, at, _)| *at);
                let message = message.replace("matrix 'matrix'", "the matrix");
                let error = ScriptError::runtime(message).hint(error.hint().unwrap_or_default());
                return self.report("unreachable-include", place, error);
            }
        };
        for (index, (at, _)) in include.iter().enumerate() {
            let mut without = spec.clone();
            without.include.remove(index);
            if without.expand().is_ok_and(|cells| cells == all) {
                let error = ScriptError::runtime("this include changes no cell")
                    .hint("the axes or a later include have it already: leave it out");
                self.report("unreachable-include", *at, error);
            }
        }
    }

    /// The fields that the cells of a matrix have besides those of every cell; none when only the
    /// run knows.
    pub fn cell_fields(&self, args: &'a [Node]) -> Option<Rc<[String]>> {
        let options = args.iter().find_map(|arg| match &arg.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        })?;
        let mut fields = Vec::new();
        for (key, _, node) in options {
            match (key.as_str(), &node.kind) {
                ("axes", Kind::Map(axes)) => {
                    fields.extend(axes.iter().map(|(name, ..)| name.clone()));
                }
                ("include", Kind::List(entries)) => {
                    for entry in entries {
                        let Kind::Map(pairs) = &entry.kind else { return None };
                        fields.extend(pairs.iter().map(|(name, ..)| name.clone()));
                    }
                }
                ("axes" | "include", _) => return None,
                _ => {}
            }
        }
        Some(fields.into())
    }
}

fn axis(value: &Value) -> Option<AxisValue> {
    Some(match value {
        Value::Bool(value) => AxisValue::Bool(*value),
        Value::Int(value) => AxisValue::Int(*value),
        Value::Float(value) => AxisValue::Float(*value),
        Value::String(text) => AxisValue::Text(text.clone()),
        _ => return None,
    })
}

/// The axes in the order the run has them; none when not all of it is literal.
fn axes(node: Option<&Node>) -> Option<Vec<(String, Vec<AxisValue>)>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let Value::Map(map) = node.literal()? else { return None };
    map.iter()
        .map(|(name, values)| {
            let values = match values {
                Value::List(values) => values.iter().map(axis).collect::<Option<_>>()?,
                one => vec![axis(one)?],
            };
            Some((name.clone(), values))
        })
        .collect()
}

fn entries(node: &Node) -> Option<Vec<(At, Pairs)>> {
    let Kind::List(items) = &node.kind else { return None };
    items
        .iter()
        .map(|item| {
            let Value::Map(map) = item.literal()? else { return None };
            let pairs = map.iter().map(|(name, value)| Some((name.clone(), axis(value)?)));
            Some((item.at, pairs.collect::<Option<_>>()?))
        })
        .collect()
}
