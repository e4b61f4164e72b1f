//! A machine file that is being written, with what could not be taken over.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

/// A machine file that is being written.
#[derive(Debug, Default)]
pub struct Draft {
    document: DocumentMut,
    /// What a person should know: what is not as it was.
    pub notes: Vec<String>,
}

impl Draft {
    /// Gives a key below tables a value.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
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
        table.insert(last, Item::Value(value.into()));
    }

    /// Adds to a list.
    pub fn push(&mut self, path: &[&str], value: impl Into<Value>) {
        let mut list = match self.get(path) {
            Some(Value::Array(list)) => list.clone(),
            Some(one) => Array::from_iter([one.clone()]),
            None => Array::new(),
        };
        list.push(value);
        // One a line where they are not words.
        if list.iter().any(|one| one.is_inline_table()) || list.to_string().len() > 80 {
            for one in list.iter_mut() {
                one.decor_mut().set_prefix("\n    ");
            }
            list.set_trailing("\n");
            list.set_trailing_comma(true);
        }
        self.set(path, list);
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
            text.push_str(&format!("# - {}\n", note.replace('\n', " ")));
        }
        text.push('\n');
        text.push_str(&self.document.to_string());
        text
    }
}

/// A table on one line.
pub fn inline<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::InlineTable(InlineTable::from_iter(entries))
}
