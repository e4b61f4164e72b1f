//! What many sandboxes are about to be made from, on each member of a cluster before the first of them.
//!
//! An image is there when the member has unpacked it. A snapshot lies on one member only, and a clone
//! that shares its disk can be on no other; so an image is made of it, once, which the cluster itself
//! carries to its members, and from which it places cells wherever there is room.

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use super::Inner;
use super::client::{Fail, escape};
use super::cluster::{Ready, at};
use super::record::{Record, time, token};
use crate::sandbox::{Cancel, Error, Member, Placement, Result, Spec, Stock};

/// The property of an image that says what it was made of: the sandbox, its label, and which it was.
const SOURCE: &str = "sandscript.source";
/// After this time without use such an image goes.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// After this time a sandbox that was made to bring an image to a member goes, should it still be there.
const WARMING: Duration = Duration::from_secs(3600);

/// What a snapshot is, so that another one of the same name is not taken for it.
fn origin(record: &Record, sandbox: &str, label: &str, snapshot: &Value) -> String {
    let created = snapshot["created_at"].as_str().unwrap_or_default();
    format!("{sandbox}/{label} {} {created}", record.token)
}

impl Inner {
    pub(super) async fn prepare(
        &self,
        stock: &Stock,
        target: Option<&Placement>,
        cancel: &Cancel,
    ) -> Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let _preparing = cluster.preparing.lock().await;
        let roster = match target {
            Some(target) => cluster.check(target).await?,
            None => cluster.roster().await?,
        };
        let mut members: Vec<&Member> =
            roster.iter().filter(|member| member.fits(target)).collect();
        let (fingerprint, pool) = match stock {
            Stock::Image(image) => {
                let image = image.as_ref().unwrap_or(&self.capabilities.default_image);
                (self.fingerprint(image).await?, None)
            }
            Stock::Snapshot { sandbox, label } => {
                let (instance, record) = self.instance(sandbox).await?;
                let place = instance["location"].as_str().unwrap_or_default();
                members.retain(|member| member.name != place);
                if members.is_empty() {
                    return Ok(());
                }
                let snapshot = self.snapshot_of(sandbox, label).await?;
                let origin = origin(&record, sandbox, label, &snapshot);
                let fingerprint = self.image_of(sandbox, label, &origin).await?;
                let mut ready = cluster.ready.lock().unwrap_or_else(PoisonError::into_inner);
                let pool = record.hardware.pool.clone();
                let made = Ready { record, fingerprint: fingerprint.clone() };
                ready.insert((sandbox.clone(), label.clone()), made);
                drop(ready);
                members = roster.iter().filter(|member| member.fits(target)).collect();
                (fingerprint, pool)
            }
        };
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.bring(&fingerprint, pool.as_ref(), &members).await
    }

    /// Sees that members have an image, ready to make sandboxes from in a pool; in that of new sandboxes where
    /// none is said.
    async fn bring(
        &self,
        fingerprint: &str,
        pool: Option<&String>,
        members: &[&Member],
    ) -> Result<()> {
        let own = escape(pool.unwrap_or(&self.pool.name));
        let path = format!("/1.0/storage-pools/{own}/volumes/image?recursion=1");
        let all = self.client.get(&path).await;
        let all = all.map_err(|fail| fail.plain("looking for images on the members"))?;
        let has = |member: &Member| {
            let mut volumes = all.as_array().into_iter().flatten();
            volumes.any(|one| one["name"] == fingerprint && one["location"] == member.name.as_str())
        };
        let lacking: Vec<&&Member> = members.iter().filter(|member| !has(member)).collect();
        for done in
            join_all(lacking.iter().map(|member| self.warm(fingerprint, pool, member))).await
        {
            match done {
                // One that is gone needs none.
                Ok(()) | Err(Error::MemberAway { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A member unpacks an image when the first instance is made of it there: that is this one, which
    /// goes at once.
    async fn warm(&self, fingerprint: &str, pool: Option<&String>, member: &Member) -> Result<()> {
        let name = format!("warm-{}", token());
        let mut spec = Spec::new(&name);
        spec.expires = crate::sandbox::wall_clock().checked_add(WARMING);
        spec.hardware.pool = pool.cloned();
        let record = Record::new(&spec, String::new(), fingerprint.to_owned());
        let body = json!({
            "name": name, "type": "container", "profiles": [], "config": record.keys()?,
            "source": {"type": "image", "fingerprint": fingerprint},
            "devices": super::devices::devices(&record, &self.pool), "start": false,
        });
        let target = Placement::Member(member.name.clone());
        let path = at("/1.0/instances", Some(&target));
        if let Err(fail) = self.client.run(Method::POST, &path, &body).await {
            let doing = format!("bringing an image to member '{}'", member.name);
            let away = match &self.cluster {
                Some(cluster) => !cluster.answers(&member.name).await,
                None => false,
            };
            return Err(match away {
                true => Error::MemberAway { member: member.name.clone(), what: doing },
                false => self.exhausted_in(self.pool_of(&record), fail, &doing).await,
            });
        }
        self.delete(&name).await
    }

    /// The image of a snapshot: the one that is there, or a new one.
    async fn image_of(&self, sandbox: &str, label: &str, origin: &str) -> Result<String> {
        let doing = format!("making an image of '{sandbox}/{label}'");
        let digest = blake3::hash(origin.as_bytes()).to_hex();
        let alias = format!("sandscript-{}", &digest[..24]);
        let found = self.client.get(&format!("/1.0/images/aliases/{alias}")).await;
        match found {
            Ok(found) => {
                if let Some(fingerprint) = found["target"].as_str() {
                    return Ok(fingerprint.to_owned());
                }
            }
            Err(fail) if fail.is_missing() => {}
            Err(fail) => return Err(fail.plain(&doing)),
        }
        // It goes over the members' own network and is unpacked at once: packing it would take longer.
        let body = json!({
            "source": {"type": "snapshot", "name": format!("{sandbox}/{label}")},
            "compression_algorithm": "none", "properties": {SOURCE: origin},
            "aliases": [{"name": alias}],
        });
        match self.client.run(Method::POST, "/1.0/images", &body).await {
            Ok(made) => match made["metadata"]["fingerprint"].as_str() {
                Some(fingerprint) => Ok(fingerprint.to_owned()),
                None => Err(Fail::Lost("the server does not say which image".into()).plain(&doing)),
            },
            // Somebody else may have made it meanwhile.
            Err(fail) => match self.client.get(&format!("/1.0/images/aliases/{alias}")).await {
                Ok(Value::Object(found)) if found["target"].is_string() => {
                    Ok(found["target"].as_str().unwrap_or_default().to_owned())
                }
                _ => Err(self.exhausted(fail, &doing).await),
            },
        }
    }

    /// Deletes images of snapshots that are no more, or that nobody has used for long; how many.
    pub(super) async fn collect_images(&self, dry_run: bool) -> Result<(usize, u64)> {
        let doing = "looking for images";
        let images = self.client.get("/1.0/images?recursion=1").await;
        let images = images.map_err(|fail| fail.plain(doing))?;
        let ours: Vec<(&Value, &str)> = images
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|image| Some((image, image["properties"][SOURCE].as_str()?)))
            .collect();
        if ours.is_empty() {
            return Ok((0, 0));
        }
        let instances = self.client.get("/1.0/instances?recursion=2").await;
        let instances = instances.map_err(|fail| fail.plain(doing))?;
        let mut living = Vec::new();
        // What is on a member that does not answer may live on.
        let mut unknown = Vec::new();
        for instance in instances.as_array().into_iter().flatten() {
            let name = instance["name"].as_str().unwrap_or_default();
            let Some(record) = Record::read(instance) else {
                unknown.push(format!("{name}/"));
                continue;
            };
            for snapshot in instance["snapshots"].as_array().into_iter().flatten() {
                let label = snapshot["name"].as_str().unwrap_or_default();
                let label = label.rsplit('/').next().unwrap_or_default();
                living.push(origin(&record, name, label, snapshot));
            }
        }
        let now = crate::sandbox::wall_clock();
        let (mut count, mut bytes) = (0, 0);
        for (image, origin) in ours {
            let used = time(&image["last_used_at"]).or(time(&image["uploaded_at"]));
            let old = used.and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            let lives = living.iter().any(|one| one == origin)
                || unknown.iter().any(|name| origin.starts_with(name.as_str()));
            if lives && old < UNUSED {
                continue;
            }
            let fingerprint = image["fingerprint"].as_str().unwrap_or_default();
            if !dry_run {
                let path = format!("/1.0/images/{fingerprint}");
                match self.client.run(Method::DELETE, &path, &Value::Null).await {
                    Ok(_) => {}
                    Err(fail) if fail.is_missing() => continue,
                    Err(fail) => return Err(fail.plain("deleting an image")),
                }
            }
            count += 1;
            bytes += image["size"].as_u64().unwrap_or_default();
        }
        Ok((count, bytes))
    }
}
