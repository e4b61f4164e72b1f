//! A restore whose client was killed in the middle: the server has put back the snapshot's settings with its
//! files, and the sandbox's own are still to follow. They are kept beside it, in a profile that nothing uses,
//! from before the restore until they are in force again. An instance whose place in time has changed without
//! them is found out by its generation, which the server changes with each restore.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::Fail;
use super::record::Record;
use super::{BACKEND, Inner};
use crate::backend::guest::{Guests, is_ruled};
use crate::sandbox::{Error, Result};

/// The key that says with which generation the sandbox's own settings are in force.
const GENERATION: &str = "user.sandscript.generation";
/// The key of the profile.
const SETTINGS: &str = "user.sandscript.settings";
/// How often settings are put in force that somebody else changes meanwhile.
const TRIES: u32 = 10;

/// What the server itself keeps.
fn is_volatile(key: &str) -> bool {
    key.starts_with("volatile.") || key.starts_with("image.")
}

fn split(instance: &Value, volatile: bool) -> Map<String, Value> {
    let all = instance["config"].as_object().into_iter().flatten();
    all.filter(|(key, _)| is_volatile(key) == volatile)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The settings of `before` for an instance that is `after` now.
fn kept(before: &Value, after: &Value) -> Value {
    let mut settings = after.clone();
    let mut config = split(after, true);
    config.extend(split(before, false));
    if let Some(generation) = after["config"]["volatile.uuid.generation"].as_str() {
        config.insert(GENERATION.into(), generation.into());
    }
    settings["config"] = Value::Object(config);
    settings["devices"] = before["devices"].clone();
    settings
}

/// Whether an instance was restored since its own settings were last put in force.
pub(super) fn is_half(instance: &Value) -> bool {
    let config = &instance["config"];
    let generation = &config["volatile.uuid.generation"];
    generation.is_string()
        && *generation != config["volatile.uuid"]
        && *generation != config[GENERATION]
}

impl Inner {
    fn keeper(&self, name: &str) -> String {
        let scope = format!("{name} {:?}", self.client.project());
        format!("{BACKEND}-restoring-{}", &blake3::hash(scope.as_bytes()).to_hex()[..24])
    }

    /// Keeps the settings that are in force, before a restore.
    pub(super) async fn keep_settings(&self, name: &str, before: &Value) -> Result<()> {
        let settings = json!({"config": split(before, false), "devices": before["devices"]});
        let profile = self.keeper(name);
        let about = format!("Settings of sandbox '{name}', which is being restored");
        let config = json!({SETTINGS: settings.to_string()});
        let body = json!({"name": profile, "description": about, "config": config, "devices": {}});
        if self.client.post("/1.0/profiles", &body).await.is_ok() {
            return Ok(());
        }
        // Of one that was cut off.
        let path = format!("/1.0/profiles/{profile}");
        match self.client.run(Method::PUT, &path, &body).await {
            // Who may make no profiles goes without.
            Ok(_) | Err(Fail::Refused(403, _)) => Ok(()),
            Err(fail) => Err(fail.plain(&format!("restoring sandbox '{name}'"))),
        }
    }

    /// The settings of `before` for an instance that is `after` now.
    pub(super) fn own_settings(&self, before: &Value, after: &Value) -> Value {
        let mut settings = kept(before, after);
        // Its files have the rules of another time: it gets its network when it has its own.
        if self.by_guests()
            && Record::read(&settings).is_some_and(|record| is_ruled(&record))
            && let Some(devices) = settings["devices"].as_object_mut()
        {
            devices.retain(|_, device| device["type"] != "nic");
        }
        settings
    }

    /// They are in force again, or the restore did not begin.
    pub(super) async fn forget_settings(&self, name: &str) {
        // One that stays is of no use to anybody, and is replaced by the next.
        let _ = self.client.remove(&format!("/1.0/profiles/{}", self.keeper(name))).await;
    }

    /// The instance with its own settings in force.
    pub(super) async fn whole(&self, name: &str, instance: Value) -> Result<Value> {
        let path = format!("/1.0/instances/{name}");
        let looking = |fail: Fail| fail.plain(&format!("looking at sandbox '{name}'"));
        let saved = match self.client.get(&format!("/1.0/profiles/{}", self.keeper(name))).await {
            Ok(profile) => profile["config"][SETTINGS]
                .as_str()
                .and_then(|settings| serde_json::from_str::<Value>(settings).ok()),
            Err(fail) if fail.is_missing() => None,
            Err(fail) => return Err(looking(fail)),
        };
        let token = |instance: &Value| Record::read(instance).map(|record| record.token);
        let read = async || match self.client.get_tagged(&path).await {
            Ok(found) => Ok(Some(found)),
            Err(fail) if fail.is_missing() => Ok(None),
            Err(fail) => Err(looking(fail)),
        };
        let Some((now, tag)) = read().await? else { return Ok(instance) };
        let Some(saved) = saved.filter(|saved| is_half(&now) && token(saved) == token(&now)) else {
            // Whoever restores it is done meanwhile; or it was somebody else's restore, who meant it so.
            return Ok(now);
        };
        let settings = self.own_settings(&saved, &now);
        match self.client.put_tagged(&path, &tag, &settings).await {
            Ok(done) => {
                if done {
                    self.forget_settings(name).await;
                }
                match read().await? {
                    Some((now, _)) => Ok(now),
                    None => Err(Error::not_found(crate::sandbox::Kind::Sandbox, name)),
                }
            }
            // Something else is under way: what holds is known, and is not in force before that.
            Err(_) => Ok(settings),
        }
    }

    /// Puts the settings of `before` in force for an instance that was just restored.
    pub(super) async fn take_settings_back(&self, name: &str, before: &Value) -> Result<()> {
        let path = format!("/1.0/instances/{name}");
        for attempt in 0..TRIES {
            let done = async {
                let (after, tag) = self.client.get_tagged(&path).await?;
                // Whoever looked at it meanwhile has done it.
                if attempt > 0 && !is_half(&after) {
                    return Ok(true);
                }
                let settings = self.own_settings(before, &after);
                self.client.put_tagged(&path, &tag, &settings).await
            };
            match done.await {
                Ok(true) => {
                    self.forget_settings(name).await;
                    return Ok(());
                }
                // Somebody else has changed it in between: what they changed is read.
                Ok(false) => {}
                Err(fail) => return Err(self.explain(name, fail, "keeping its settings").await),
            }
        }
        Err(Error::Busy {
            name: name.to_owned(),
            what: "somebody else changes its settings".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_hold_over_a_restore() {
        let before = json!({"config": {"a": "1", "volatile.x": "old", "volatile.uuid": "u",
            "volatile.uuid.generation": "u"}, "devices": {"root": {}}});
        assert!(!is_half(&before));
        let mut after = before.clone();
        after["config"]["volatile.x"] = "new".into();
        after["config"]["volatile.uuid.generation"] = "v".into();
        after["config"]["a"] = "0".into();
        after["config"]["b"] = "0".into();
        assert!(is_half(&after));
        let settings = kept(&before, &after);
        assert!(!is_half(&settings));
        let config = json!({"a": "1", "volatile.x": "new", "volatile.uuid": "u",
            "volatile.uuid.generation": "v", (GENERATION): "v"});
        assert_eq!(settings["config"], config);
        // Back once more, to a snapshot of the time before.
        let mut again = settings.clone();
        again["config"]["volatile.uuid.generation"] = "w".into();
        assert!(is_half(&again));
    }
}
