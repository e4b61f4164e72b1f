//! A machine file that is being written, with what could not be taken over.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

use crate::backend::nspawn::machine::variables::escape;

/// A machine file that is being written.
#[derive(Debug, Default)]
pub struct Draft {
    document: DocumentMut,
    /// What a person should know: what is not as it was.
    pub notes: Vec<String>,
}

impl Draft {
    /// Gives a key below tables a value, of which every text means itself.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        self.put(path, literal(value.into()));
    }

    fn put(&mut self, path: &[&str], value: Value) {
        let Some((last, above)) = path.split_last() else { return };
        let mut table = self.document.as_table_mut();
        for part in above {
            let item = table.entry(part).or_insert_with(|| {
                let mut new = Table::new();
                new.set_implicit(true);
                Item::Table(new)
            });
            match item.as_table_mut() {
                Some(inner) => table = inner,
                None => return,
            }
        }
        table.insert(last, Item::Value(value));
    }

    /// Adds to a list.
    pub fn push(&mut self, path: &[&str], value: impl Into<Value>) {
        let mut list = match self.get(path) {
            Some(Value::Array(list)) => list.clone(),
            Some(one) => Array::from_iter([one.clone()]),
            None => Array::new(),
        };
        list.push(literal(value.into()));
        // One a line where they are not words.
        if list.iter().any(|one| one.is_inline_table()) || list.to_string().len() > 80 {
            for one in list.iter_mut() {
                one.decor_mut().set_prefix("\n    ");
            }
            list.set_trailing("\n");
            list.set_trailing_comma(true);
        }
        self.put(path, list.into());
    }

    /// The value of a key.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let mut item = self.document.as_item();
        for part in path {
            item = item.get(part)?;
        }
        item.as_value()
    }

    /// Says that something is not as it was.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The file: `head` and the notes as comments, then the keys.
    pub fn text(&self, head: &str) -> String {
        let mut text = format!("# {head}\n");
        for note in &self.notes {
            text.push_str(&format!("# - {}\n", note.replace(char::is_control, " ")));
        }
        text.push('\n');
        text.push_str(&self.document.to_string());
        text
    }
}

/// A value whose texts are no templates.
fn literal(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) if text.value().contains("{{") => {
            return Value::from(escape(text.value()));
        }
        Value::Array(list) => {
            for one in list.iter_mut() {
                *one = literal(one.clone());
            }
        }
        Value::InlineTable(table) => {
            for (_, one) in table.iter_mut() {
                *one = literal(one.clone());
            }
        }
        _ => {}
    }
    value
}

/// A table on one line.
pub fn inline<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::InlineTable(InlineTable::from_iter(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_template() {
        let mut draft = Draft::default();
        draft.set(&["hooks", "host", "pre_start"], "echo {{name}} {{.Names}}");
        draft.push(&["binds"], inline([("source", "/a{{b}}".into())]));
        draft.push(&["binds"], "/{{c}}:/c");
        draft.push(&["binds"], "/d:/d");
        let text = draft.text("web");
        let machine = crate::backend::nspawn::machine::Machine::parse(
            "web.toml",
            &text,
            "web",
            std::path::Path::new("/"),
            &Default::default(),
        )
        .unwrap();
        assert_eq!(machine.hooks[0].script, "echo {{name}} {{.Names}}");
        let sources: Vec<&str> = machine.binds.iter().map(|one| one.source.as_str()).collect();
        assert_eq!(sources, ["/a{{b}}", "/{{c}}", "/d"]);
    }
}
