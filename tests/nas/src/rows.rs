//! Configuration that is rows with numbers: cron jobs, scripts, containers and their devices.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// All tables by name.
#[derive(Default)]
pub struct Rows {
    inner: Mutex<BTreeMap<&'static str, Rowset>>,
}

#[derive(Default)]
struct Rowset {
    next: i64,
    rows: BTreeMap<i64, Value>,
}

impl Rows {
    fn with<T>(&self, table: &'static str, look: impl FnOnce(&mut Rowset) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        look(inner.entry(table).or_default())
    }

    /// All rows of a table, by number.
    pub fn all(&self, table: &'static str) -> Vec<Value> {
        self.with(table, |set| set.rows.values().cloned().collect())
    }

    /// One row.
    pub fn get(&self, table: &'static str, id: i64) -> Option<Value> {
        self.with(table, |set| set.rows.get(&id).cloned())
    }

    /// Adds a row and gives it back with its number.
    pub fn add(&self, table: &'static str, mut row: Value) -> Value {
        self.with(table, |set| {
            set.next += 1;
            row["id"] = set.next.into();
            set.rows.insert(set.next, row.clone());
            row
        })
    }

    /// Puts the keys of `change` into a row and gives it back.
    pub fn update(&self, table: &'static str, id: i64, change: &Value) -> Option<Value> {
        self.with(table, |set| {
            let row = set.rows.get_mut(&id)?;
            for (key, value) in change.as_object()? {
                row[key] = value.clone();
            }
            Some(row.clone())
        })
    }

    /// Removes a row; `false` when there was none.
    pub fn remove(&self, table: &'static str, id: i64) -> bool {
        self.with(table, |set| set.rows.remove(&id).is_some())
    }
}
