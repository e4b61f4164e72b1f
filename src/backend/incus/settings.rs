//! An instance's settings, changed as they are now. Whoever changes them says what they were when it read
//! them: where somebody else, maybe on another machine, was faster, the server refuses, and they are read again.

use serde_json::{Map, Value, json};

use super::Inner;
use super::record::Record;
use super::restoring::is_half;
use crate::backend::guest::Guests;
use crate::sandbox::{Error, Result};

/// How often settings are changed that somebody else changes meanwhile.
pub(super) const TRIES: u32 = 10;

/// What there is to say when that was not often enough.
pub(super) fn contended(name: &str) -> Error {
    Error::Busy { name: name.to_owned(), what: "somebody else changes its settings".into() }
}

impl Inner {
    /// An instance, and the tag of the state that it is in. What is half restored is made whole, and then has
    /// another tag.
    pub(super) async fn settings(&self, name: &str, doing: &str) -> Result<(Value, String)> {
        let path = format!("/1.0/instances/{name}");
        match self.client.get_tagged(&path).await {
            Ok((now, tag)) => match is_half(&now) {
                true => Ok((self.whole(name, now).await?, tag)),
                false => Ok((now, tag)),
            },
            Err(fail) => Err(self.explain(name, fail, doing).await),
        }
    }

    /// Replaces an instance's settings, if they are still what they were; whether they were.
    pub(super) async fn replace(
        &self,
        name: &str,
        doing: &str,
        tag: &str,
        settings: &Value,
    ) -> Result<bool> {
        let path = format!("/1.0/instances/{name}");
        match self.client.put_tagged(&path, tag, settings).await {
            Ok(done) => Ok(done),
            Err(fail) => Err(self.explain(name, fail, doing).await),
        }
    }

    /// Changes an instance's settings. `change` says whether there is anything to change.
    pub(super) async fn alter(
        &self,
        name: &str,
        doing: &str,
        mut change: impl FnMut(&mut Value) -> Result<bool>,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let (mut now, tag) = self.settings(name, doing).await?;
            if !change(&mut now)? || self.replace(name, doing, &tag, &now).await? {
                return Ok(());
            }
        }
        Err(contended(name))
    }

    /// Writes a record down, and with it devices, if what is written there is still `before`; whether it was.
    pub(super) async fn write_down(
        &self,
        name: &str,
        before: &Record,
        record: &Record,
        devices: &Map<String, Value>,
    ) -> Result<bool> {
        const DOING: &str = "setting the policy";
        let path = format!("/1.0/instances/{name}");
        let body = json!({"config": record.keys()?, "devices": devices});
        for _ in 0..TRIES {
            let (now, tag) = self.settings(name, DOING).await?;
            if Record::read(&now).as_ref() != Some(before) {
                return Ok(false);
            }
            if record == before && devices.is_empty() {
                return Ok(true);
            }
            match self.client.patch_tagged(&path, &tag, &body).await {
                Ok(true) => return Ok(true),
                // Something else was changed.
                Ok(false) => {}
                Err(fail) => return Err(self.explain(name, fail, DOING).await),
            }
        }
        Err(contended(name))
    }

    /// Changes what is written down of a sandbox.
    pub(super) async fn rewrite(&self, name: &str, change: impl Fn(&mut Record)) -> Result<()> {
        for _ in 0..TRIES {
            let (_, before) = self.instance(name).await?;
            let mut record = before.clone();
            change(&mut record);
            if self.write_down(name, &before, &record, &Map::new()).await? {
                return Ok(());
            }
        }
        Err(contended(name))
    }
}
