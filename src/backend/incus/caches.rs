//! Caches: volumes of the server's storage pool that outlive sandboxes. Who has one is written with the volume,
//! and counts as long as that sandbox runs: whatever ends it, others get the cache.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Inner;
use super::client::{Fail, escape};
use super::devices::VOLUME;
use super::record::{self, Record};
use crate::sandbox::{
    CacheInfo, CacheMount, Capability, Error, Kind, Result, State, check_label, wall_clock,
};

/// The key that says that a volume is a cache, and which.
const NAME: &str = "user.sandscript.cache";
/// The key that says who has it.
const HOLDERS: &str = "user.sandscript.holders";
/// The key that says when somebody last took it, in seconds.
const USED: &str = "user.sandscript.used";
/// How long one may take to start who has taken it.
const STARTING: u64 = 60;
/// How often another's change is waited for.
const TRIES: u32 = 20;

/// Who has a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Holder {
    sandbox: String,
    token: String,
    shared: bool,
    at: u64,
    /// The sandbox's project: several may have the same volumes.
    #[serde(default)]
    project: Option<String>,
}

pub(super) fn now() -> u64 {
    wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The volume of a cache.
pub(super) fn volume(name: &str) -> String {
    format!("{VOLUME}cache-{name}")
}

/// Those devices of an instance that are caches.
pub(super) fn devices_of(instance: &Value) -> Map<String, Value> {
    let all = instance["devices"].as_object().into_iter().flatten();
    let ours = all.filter(|(_, device)| {
        device["source"].as_str().is_some_and(|source| source.starts_with(&volume("")))
    });
    ours.map(|(name, device)| (name.clone(), device.clone())).collect()
}

/// The name of a cache's device.
pub(super) fn device(at: usize) -> String {
    format!("cache{at}")
}

fn holders(volume: &Value) -> Vec<Holder> {
    let text = volume["config"][HOLDERS].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

impl Inner {
    fn cache_path(&self, name: &str) -> String {
        let (pool, volume) = (escape(&self.pool.name), escape(&volume(name)));
        format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")
    }

    fn project(&self) -> &str {
        self.client.project().unwrap_or("default")
    }

    /// Whether who has taken a cache still has it: it runs, or is about to.
    async fn holds(&self, holder: &Holder) -> Result<bool> {
        let starting = now().saturating_sub(holder.at) < STARTING;
        let path = format!("/1.0/instances/{}", escape(&holder.sandbox));
        let elsewhere = holder.project.as_deref().filter(|project| *project != self.project());
        let found = match elsewhere {
            Some(project) => self.client.get_in(project, &path).await,
            None => self.client.get(&path).await,
        };
        match found {
            Ok(instance) => {
                if Record::read(&instance).is_none_or(|record| record.token != holder.token) {
                    return Ok(false);
                }
                if starting || record::state(&instance) != State::Stopped {
                    return Ok(true);
                }
            }
            Err(_) if starting => return Ok(true),
            Err(fail) if fail.is_missing() => {}
            // Who may not look there can't say that it is over.
            Err(Fail::Refused(..)) if elsewhere.is_some() => return Ok(true),
            Err(fail) => return Err(fail.plain("looking who has a cache")),
        }
        Ok(elsewhere.is_none() && self.is_being_made(&holder.sandbox).await)
    }

    async fn live(&self, volume: &Value) -> Result<Vec<Holder>> {
        let mut live = Vec::new();
        for holder in holders(volume) {
            if self.holds(&holder).await? {
                live.push(holder);
            }
        }
        Ok(live)
    }

    /// Takes the caches of a sandbox that is about to start, all or none.
    pub(super) async fn take_caches(&self, sandbox: &str, record: &Record) -> Result<()> {
        let mut wanted: Vec<&CacheMount> = record.caches.iter().collect();
        // Two who want the same ones come in the same order.
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        for cache in wanted {
            if let Err(error) = self.take_cache(sandbox, &record.token, cache).await {
                self.leave_caches(record).await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn take_cache(&self, sandbox: &str, token: &str, cache: &CacheMount) -> Result<()> {
        let doing = format!("taking cache '{}'", cache.name);
        let path = self.cache_path(&cache.name);
        for _ in 0..TRIES {
            let (found, tag) = match self.client.get_tagged(&path).await {
                Ok(found) => found,
                Err(fail) if fail.is_missing() => {
                    self.make_cache(&cache.name).await.map_err(|fail| fail.plain(&doing))?;
                    continue;
                }
                Err(fail) => return Err(fail.plain(&doing)),
            };
            let mut all = self.live(&found).await?;
            all.retain(|holder| holder.token != token);
            if let Some(first) = all.iter().find(|holder| !(holder.shared && cache.shared)) {
                let by = (!first.shared).then(|| first.sandbox.clone());
                return Err(Error::CacheInUse { name: cache.name.clone(), by });
            }
            let at = now();
            let (sandbox, token) = (sandbox.to_owned(), token.to_owned());
            let project = Some(self.project().to_owned());
            all.push(Holder { sandbox, token, shared: cache.shared, at, project });
            let body =
                json!({"config": {(HOLDERS): json!(all).to_string(), (USED): at.to_string()}});
            match self.client.patch_tagged(&path, &tag, &body).await {
                Ok(true) => return Ok(()),
                // Somebody else was first with a change: that is looked at.
                Ok(false) => {}
                Err(fail) if fail.is_missing() => {}
                Err(fail) => return Err(fail.plain(&doing)),
            }
        }
        Err(Error::CacheInUse { name: cache.name.clone(), by: None })
    }

    async fn make_cache(&self, name: &str) -> std::result::Result<(), Fail> {
        let body = json!({
            "name": volume(name), "type": "custom", "content_type": "filesystem",
            // Any user of the guest may write there; files belong to the guest's own users, whoever
            // these are on the server's machine.
            "config": {(NAME): name, "initial.mode": "0777", "security.shifted": "true"},
        });
        let path = format!("/1.0/storage-pools/{}/volumes/custom", escape(&self.pool.name));
        match self.client.run(Method::POST, &path, &body).await {
            Ok(_) => Ok(()),
            Err(Fail::Refused(409, _)) => Ok(()),
            Err(Fail::Refused(_, text) | Fail::Failed(text, _)) if text.contains("already") => {
                Ok(())
            }
            Err(fail) => Err(fail),
        }
    }

    /// Leaves them to others. What can't be told is found out by who wants one next.
    pub(super) async fn leave_caches(&self, record: &Record) {
        self.leave_caches_of(record, u64::MAX).await;
    }

    /// The same after a stop that began then: what was taken since is of the next run.
    pub(super) async fn leave_caches_stopped(&self, name: &str, record: &Record, began: u64) {
        if record.caches.is_empty() {
            return;
        }
        match self.instance(name).await {
            Ok((instance, _)) if record::state(&instance) != State::Stopped => {}
            _ => self.leave_caches_of(record, began).await,
        }
    }

    async fn leave_caches_of(&self, record: &Record, until: u64) {
        for cache in &record.caches {
            let path = self.cache_path(&cache.name);
            for _ in 0..TRIES {
                let Ok((found, tag)) = self.client.get_tagged(&path).await else { break };
                let mut all = holders(&found);
                let before = all.len();
                let newer = |at: u64| until < at && at <= now();
                all.retain(|holder| holder.token != record.token || newer(holder.at));
                if all.len() == before {
                    break;
                }
                let body = json!({"config": {(HOLDERS): json!(all).to_string()}});
                match self.client.patch_tagged(&path, &tag, &body).await {
                    Ok(false) => {}
                    _ => break,
                }
            }
        }
    }

    /// Refuses places that lead elsewhere by a link of the guest's, which does not run.
    pub(super) async fn check_cache_targets(&self, name: &str, record: &Record) -> Result<()> {
        for cache in &record.caches {
            let mut place = String::new();
            for part in cache.target.split('/').filter(|part| !part.is_empty() && *part != ".") {
                place = format!("{place}/{part}");
                let path = format!("/1.0/instances/{name}/files?path={}", escape(&place));
                match self.client.file_kind(&path).await {
                    Ok(Some(kind)) if kind == "directory" => {}
                    Ok(Some(kind)) => {
                        let message = format!("'{place}' in the guest is no folder but a {kind}");
                        let hint = "name the place that it leads to";
                        return Err(Error::invalid_hint("caches", message, hint));
                    }
                    // It is made.
                    Ok(None) => break,
                    Err(fail) => return Err(fail.plain("looking where a cache goes")),
                }
            }
        }
        Ok(())
    }

    /// Gives a sandbox that does not run those of its caches' devices that it does not have. One in another's
    /// folder can't be there before that is.
    pub(super) async fn attach_caches(
        &self,
        name: &str,
        instance: &Value,
        record: &Record,
    ) -> Result<()> {
        let mut wanted = super::devices::caches(record, &self.pool, false);
        if wanted.keys().all(|device| instance["devices"][device]["type"] == "disk") {
            return Ok(());
        }
        let inner = super::devices::caches(record, &self.pool, true);
        wanted.extend(inner.into_iter().map(|(device, _)| (device, json!({"type": "none"}))));
        self.set_caches(name, wanted).await
    }

    /// Gives a sandbox that runs its caches in folders of others.
    pub(super) async fn plug_caches(&self, name: &str, record: &Record) -> Result<()> {
        let wanted = super::devices::caches(record, &self.pool, true);
        if wanted.is_empty() {
            return Ok(());
        }
        let (instance, _) = self.instance(name).await?;
        match wanted.keys().all(|device| instance["devices"][device]["type"] == "disk") {
            true => Ok(()),
            false => self.set_caches(name, wanted).await,
        }
    }

    async fn set_caches(&self, name: &str, devices: Map<String, Value>) -> Result<()> {
        let path = format!("/1.0/instances/{name}");
        match self.client.run(Method::PATCH, &path, &json!({"devices": devices})).await {
            Ok(_) => Ok(()),
            Err(fail) => Err(fail.plain(&format!("attaching the caches of sandbox '{name}'"))),
        }
    }

    pub(super) async fn caches(&self) -> Result<Vec<CacheInfo>> {
        self.capabilities.require(Capability::Caches)?;
        let doing = "listing caches";
        let pool = escape(&self.pool.name);
        let path = format!("/1.0/storage-pools/{pool}/volumes/custom?recursion=1");
        let volumes = self.client.get(&path).await.map_err(|fail| fail.plain(doing))?;
        let mut all = Vec::new();
        for found in volumes.as_array().into_iter().flatten() {
            let Some(name) = found["config"][NAME].as_str() else { continue };
            if found["name"] != volume(name) {
                continue;
            }
            let state = self.client.get(&format!("{}/state", self.cache_path(name))).await;
            // Some storage does not count.
            let size = state.unwrap_or_default()["usage"]["used"].as_u64().unwrap_or_default();
            let used = found["config"][USED].as_str().and_then(|text| text.parse().ok());
            let used = UNIX_EPOCH.checked_add(Duration::from_secs(used.unwrap_or_default()));
            let live = self.live(found).await?;
            all.push(CacheInfo {
                name: name.to_owned(),
                size,
                used: used.unwrap_or(SystemTime::UNIX_EPOCH),
                busy: !live.is_empty(),
                by: live.first().filter(|one| !one.shared).map(|one| one.sandbox.clone()),
            });
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    pub(super) async fn delete_cache(&self, name: &str) -> Result<()> {
        self.capabilities.require(Capability::Caches)?;
        let missing = || Error::not_found(Kind::Cache, name);
        check_label(name).map_err(|_| missing())?;
        let (path, doing) = (self.cache_path(name), format!("deleting cache '{name}'"));
        let found = match self.client.get(&path).await {
            Ok(found) if found["config"][NAME] == name => found,
            Ok(_) => return Err(missing()),
            Err(fail) if fail.is_missing() => return Err(missing()),
            Err(fail) => return Err(fail.plain(&doing)),
        };
        if let Some(first) = self.live(&found).await?.first() {
            let by = (!first.shared).then(|| first.sandbox.clone());
            return Err(Error::CacheInUse { name: name.into(), by });
        }
        // Sandboxes that do not run get it anew when they start.
        let users = found["used_by"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for user in users.filter_map(|path| path.split('?').next()?.strip_prefix("/1.0/instances/"))
        {
            let Ok((_, record)) = self.instance(user).await else { continue };
            let own = record.caches.iter().position(|cache| cache.name == name).map(device);
            let path = format!("/1.0/instances/{user}");
            for _ in 0..TRIES {
                let (mut kept, tag) = match self.client.get_tagged(&path).await {
                    Ok(found) => found,
                    Err(fail) if fail.is_missing() => break,
                    Err(fail) => return Err(fail.plain(&doing)),
                };
                if record::state(&kept) != State::Stopped {
                    return Err(Error::CacheInUse { name: name.into(), by: Some(user.into()) });
                }
                if let (Some(devices), Some(own)) = (kept["devices"].as_object_mut(), &own) {
                    devices.remove(own);
                }
                match self.client.put_tagged(&path, &tag, &kept).await {
                    Ok(true) => break,
                    // Somebody else has changed it in between: what they changed is read.
                    Ok(false) => {}
                    Err(fail) => return Err(fail.plain(&doing)),
                }
            }
        }
        match self.client.run(Method::DELETE, &path, &Value::Null).await {
            Ok(_) => Ok(()),
            Err(fail) if fail.is_missing() => Err(missing()),
            Err(fail) => Err(fail.plain(&doing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_is_read_back() {
        let (sandbox, token, project) = ("a".into(), "t".into(), Some("p".into()));
        let holder = Holder { sandbox, token, shared: true, at: 7, project };
        let volume = json!({"config": {(HOLDERS): json!([holder]).to_string()}});
        assert_eq!(holders(&volume), [holder]);
        assert_eq!(holders(&json!({"config": {(HOLDERS): "nonsense"}})), []);
        assert_eq!(holders(&json!({})), []);
    }
}
