//! Snapshots, restoring and cloning.
//!
//! On 25.x these are Incus's own, made by its command on the NAS: what ZFS alone knows of could not be
//! cloned there. On 26 they are ZFS's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::super::guest::{Ask, Record, Session, frame, guarded, token};
use super::api::Api;
use super::lifecycle::{TRIES, pause};
use super::row::{self, Found, Row};
use super::{BACKEND, Inner};
use crate::sandbox::{
    Cancel, Capability, CloneSpec, Error, Info, Kind, Policy, Restore, Result, Snapshot,
    SnapshotSpec, State,
};

/// What needs the NAS's shell here.
pub(super) const WORK: &str = "working with snapshots";

/// Before a snapshot's label: the labels of that snapshot.
const SNAPSHOT: &str = "user.sandscript.snapshot.";

pub(super) fn refused(what: &str, said: String) -> Error {
    Error::internal(format!("{what}: the NAS says: {said}"))
}

pub(super) fn instance(name: &str) -> String {
    format!("/1.0/instances/{name}")
}

impl Inner {
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        name: &str,
        spec: &SnapshotSpec,
        cancel: &Cancel,
    ) -> Result<Snapshot> {
        let (inner, name, spec) = (Arc::clone(self), name.to_owned(), spec.clone());
        guarded(cancel, move |_| async move { inner.take(&name, &spec).await }).await
    }

    async fn take(self: &Arc<Self>, name: &str, spec: &SnapshotSpec) -> Result<Snapshot> {
        if spec.expires.is_some() {
            self.capabilities.require(Capability::SnapshotExpiry)?;
        }
        let row = self.row(name).await?;
        let label = spec.label.as_str();
        if self.snapshots(name).await?.iter().any(|snapshot| snapshot.label == label) {
            return Err(Error::exists(Kind::Snapshot, label));
        }
        if self.api == Api::Container {
            return self.zfs_take(&row, spec).await;
        }
        // A snapshot has the settings of its moment, and with them these labels.
        if !spec.labels.is_empty() {
            self.set_labels(name, label, &json!(spec.labels).to_string()).await?;
        }
        let path = format!("{}/snapshots", instance(name));
        let body = json!({"name": label, "stateful": false});
        let turn = self.turns.of(name);
        let still = turn.write().await;
        let began = std::time::Instant::now();
        let standing = self.stand_still(&row).await?;
        let frozen = standing.is_some();
        let taken = self.incus(WORK, "POST", &path, Some(&body)).await;
        self.go_on(name, standing).await;
        let took = began.elapsed();
        drop(still);
        let (taken, lost) = match taken {
            // The line broke: it may have been taken all the same.
            Err(error @ Error::Transport { .. }) => (Err(String::new()), Some(error)),
            taken => (taken?, None),
        };
        let made = self.snapshots(name).await?.into_iter().find(|snapshot| snapshot.label == label);
        match (made, taken) {
            (Some(mut snapshot), Ok(_)) => {
                snapshot.frozen = if frozen { took } else { Duration::ZERO };
                Ok(snapshot)
            }
            (made, taken) => {
                if made.is_none() && !spec.labels.is_empty() {
                    let _ = self.set_labels(name, label, "").await;
                }
                Err(match (made, taken, lost) {
                    (_, _, Some(error)) => error,
                    (Some(_), ..) => Error::exists(Kind::Snapshot, label),
                    (None, Err(said), _) => refused("taking a snapshot", said),
                    (None, Ok(_), _) => Error::not_found(Kind::Snapshot, label),
                })
            }
        }
    }

    /// What the next snapshot of this label is to be known by; nothing takes it away.
    async fn set_labels(self: &Arc<Self>, name: &str, label: &str, labels: &str) -> Result<()> {
        let change = json!({"config": {format!("{SNAPSHOT}{label}"): labels}});
        let done = self.incus_again("PATCH", &instance(name), Some(&change)).await?;
        done.map(drop).map_err(|said| refused("keeping a snapshot's labels", said))
    }

    /// Asks the daemon of 25.x for what may be asked for twice, also where the line to it breaks. What it then still
    /// works on may be in its way for a moment.
    async fn incus_again(
        self: &Arc<Self>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<std::result::Result<Value, String>> {
        let mut broke = false;
        for tries in 0..TRIES {
            match self.incus(WORK, method, path, body).await {
                Err(Error::Transport { .. }) if tries < 3 => broke = true,
                Ok(Err(said)) if broke && said.contains("busy") => {}
                done => return done,
            }
            tokio::time::sleep(pause(tries)).await;
        }
        self.incus(WORK, method, path, body).await
    }

    /// Lets a running guest's processes stand still, so that what is copied is of one moment. They go
    /// on with the end of the session at the latest.
    pub(super) async fn stand_still(&self, row: &Row) -> Result<Option<Session>> {
        if row.state != State::Running {
            return Ok(None);
        }
        let session = self.session(&row.name, false).await?;
        match self.ask_in(&row.name, session, &["still"]).await {
            // A kept session's guest may have been restarted.
            Err(Error::Transport { .. }) => {
                let session = self.session(&row.name, true).await?;
                self.ask_in(&row.name, session, &["still"]).await.map(Some)
            }
            done => done.map(Some),
        }
    }

    /// Lets them go on.
    pub(super) async fn go_on(&self, name: &str, standing: Option<Session>) {
        if let Some(mut session) = standing
            && session.send(&frame(["go"])).await.is_ok()
            && session.answer().await.is_ok()
        {
            self.sessions.keep(name, session);
        }
    }

    pub(super) async fn snapshots(self: &Arc<Self>, name: &str) -> Result<Vec<Snapshot>> {
        self.all_of(&self.row(name).await?).await
    }

    /// The snapshots of a sandbox.
    async fn all_of(self: &Arc<Self>, row: &Row) -> Result<Vec<Snapshot>> {
        if self.api == Api::Container {
            return self.zfs_snapshots(row).await;
        }
        let path = format!("{}/snapshots?recursion=1", instance(&row.name));
        match self.incus(WORK, "GET", &path, None).await? {
            Ok(all) => {
                let mut all: Vec<Snapshot> =
                    all.as_array().into_iter().flatten().map(snapshot).collect();
                all.sort_by_key(|snapshot| snapshot.created);
                Ok(all)
            }
            Err(said) => {
                self.row(&row.name).await?;
                Err(refused("listing snapshots", said))
            }
        }
    }

    /// A snapshot that must be there.
    async fn snapshot_of(self: &Arc<Self>, name: &str, label: &str) -> Result<Vec<Snapshot>> {
        let all = self.snapshots(name).await?;
        match all.iter().any(|snapshot| snapshot.label == label) {
            true => Ok(all),
            false => Err(Error::not_found(Kind::Snapshot, label)),
        }
    }

    pub(super) async fn delete_snapshot(self: &Arc<Self>, name: &str, label: &str) -> Result<()> {
        let row = self.row(name).await?;
        let all = self.snapshot_of(name, label).await?;
        if self.api == Api::Container {
            return self.zfs_delete(&row, label).await;
        }
        let path = format!("{}/snapshots/{label}", instance(name));
        match self.incus(WORK, "DELETE", &path, None).await? {
            // Another one of this label is not to have its labels.
            Ok(_) if all.iter().any(|one| one.label == label && !one.labels.is_empty()) => {
                self.set_labels(name, label, "").await
            }
            Ok(_) => Ok(()),
            Err(said) => {
                self.snapshot_of(name, label).await?;
                Err(refused("deleting a snapshot", said))
            }
        }
    }

    pub(super) async fn restore(
        self: &Arc<Self>,
        name: &str,
        label: &str,
        options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        let row = self.row(name).await?;
        let all = self.snapshot_of(name, label).await?;
        if self.api == Api::Container {
            let (inner, label) = (Arc::clone(self), label.to_owned());
            let back = move |_| async move { inner.zfs_restore(&row, &label, options).await };
            return guarded(cancel, back).await;
        }
        let newer: Vec<String> = all
            .iter()
            .rev()
            .take_while(|snapshot| snapshot.label != label)
            .map(|snapshot| snapshot.label.clone())
            .collect();
        let mut discarded = Vec::new();
        if !newer.is_empty() && self.is_zfs().await? {
            if !options.discard_newer {
                return Err(Error::unsupported(
                    format!("restoring '{label}' without losing {}", newer.join(", ")),
                    BACKEND,
                    "clone the snapshot instead, or allow that newer ones go: discard_newer",
                ));
            }
            discarded = newer;
        }
        let (inner, label) = (Arc::clone(self), label.to_owned());
        let back = move |_| async move { inner.go_back(&row, &label, &discarded).await };
        guarded(cancel, back).await
    }

    /// Whether the pool goes back to its newest snapshot only.
    async fn is_zfs(self: &Arc<Self>) -> Result<bool> {
        let pools = self.incus(WORK, "GET", "/1.0/storage-pools?recursion=1", None).await?;
        let pools = pools.map_err(|said| refused("reading the storage pools", said))?;
        Ok(pools.as_array().into_iter().flatten().any(|pool| pool["driver"] == "zfs"))
    }

    async fn go_back(self: &Arc<Self>, row: &Row, label: &str, newer: &[String]) -> Result<()> {
        let name = row.name.as_str();
        let what = format!("restoring sandbox '{name}'");
        let before = self.read(name, &what).await?;
        for label in newer {
            self.delete_snapshot(name, label).await?;
        }
        if row.state != State::Stopped {
            self.halt(name).await?;
        }
        let done = self.put_back(name, label, &before, &what).await;
        // Its guard may hold what the snapshot's did.
        let closed = self.close(row).await;
        if row.state != State::Stopped && closed.is_ok() {
            self.boot(row, &what).await?;
            self.forget(name);
            self.settle(name, &row.record).await?;
        }
        done.and(closed)
    }

    async fn read(self: &Arc<Self>, name: &str, what: &str) -> Result<Value> {
        let read = self.incus_again("GET", &instance(name), None).await?;
        read.map_err(|said| refused(what, said))
    }

    /// Puts a snapshot's files in place. Its settings come with them: those that the sandbox has had hold.
    async fn put_back(
        self: &Arc<Self>,
        name: &str,
        label: &str,
        before: &Value,
        what: &str,
    ) -> Result<()> {
        let body = json!({"restore": label});
        if let Err(said) = self.incus_again("PUT", &instance(name), Some(&body)).await? {
            self.snapshot_of(name, label).await?;
            return Err(refused(what, said));
        }
        let after = self.read(name, what).await?;
        if let Some(settings) = kept(before, &after) {
            let put = self.incus_again("PUT", &instance(name), Some(&settings)).await?;
            put.map_err(|said| refused(what, said))?;
        }
        Ok(())
    }

    pub(super) async fn clone_box(
        self: &Arc<Self>,
        name: &str,
        spec: &CloneSpec,
        cancel: &Cancel,
    ) -> Result<Info> {
        spec.check()?;
        self.check_limits(spec.limits.as_ref().unwrap_or(&Default::default()))?;
        self.capabilities.require_egress(spec.egress.as_ref().unwrap_or(&Policy::None))?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.capabilities.require_target(spec.target.as_ref())?;
        if !spec.caches.is_empty() {
            self.capabilities.require(Capability::Caches)?;
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (source, there) = self.pair(name, &spec.name).await?;
        let from = match &spec.label {
            None => name.to_owned(),
            Some(label) => {
                let all = self.all_of(&source).await?;
                if !all.iter().any(|snapshot| snapshot.label == *label) {
                    return Err(Error::not_found(Kind::Snapshot, label));
                }
                format!("{name}/{label}")
            }
        };
        match there {
            Found::Nothing => {}
            _ => return Err(Error::exists(Kind::Sandbox, &spec.name)),
        }
        let mut record = source.record.of_clone(name, spec);
        record.created = Some(crate::sandbox::wall_clock());
        let (inner, spec) = (Arc::clone(self), spec.clone());
        guarded(cancel, move |cancel| async move {
            if inner.api == Api::Container {
                return inner.zfs_clone(&source, &spec, record, &cancel).await;
            }
            inner.copy(&source, &from, &spec, record, &cancel).await
        })
        .await
    }

    async fn copy(
        self: &Arc<Self>,
        source: &Row,
        from: &str,
        spec: &CloneSpec,
        record: Record,
        cancel: &Cancel,
    ) -> Result<Info> {
        let name = spec.name.as_str();
        let what = format!("making sandbox '{name}'");
        let before = self.incus(WORK, "GET", &instance(&source.name), None).await?;
        let before = before.map_err(|said| refused(&what, said))?;
        let body = json!({
            "name": name, "type": "container", "config": settings(&before, &record)?,
            "source": {"type": "copy", "source": from, "instance_only": true},
        });
        let turn = self.turns.of(&source.name);
        let still = turn.write().await;
        let standing = match spec.label {
            None => self.stand_still(source).await?,
            Some(_) => None,
        };
        let made = self.incus(WORK, "POST", "/1.0/instances", Some(&body)).await;
        self.go_on(&source.name, standing).await;
        drop(still);
        let made = match made {
            // The line broke: it may be there all the same, or soon.
            Err(error @ Error::Transport { .. }) => {
                for tries in 0..4 {
                    match self.find(name).await {
                        Ok(Found::Ours(row)) if row.record.token == record.token => {
                            let _ = self.delete(name).await;
                            break;
                        }
                        Ok(Found::Nothing) => tokio::time::sleep(pause(tries)).await,
                        _ => break,
                    }
                }
                return Err(error);
            }
            made => made?,
        };
        if let Err(said) = made {
            return Err(match self.find(name).await? {
                Found::Ours(row) if row.record.token == record.token => {
                    self.delete(name).await?;
                    refused(&what, said)
                }
                Found::Ours(_) | Found::Foreign => Error::exists(Kind::Sandbox, name),
                Found::Nothing => {
                    // The source may have gone meanwhile.
                    match &spec.label {
                        Some(label) => drop(self.snapshot_of(&source.name, label).await?),
                        None => drop(self.row(&source.name).await?),
                    }
                    refused(&what, said)
                }
            });
        }
        let row = Row {
            name: name.to_owned(),
            dataset: source
                .dataset
                .rsplit_once('/')
                .map_or(String::new(), |(parent, _)| format!("{parent}/{name}")),
            record,
            ..source.clone()
        };
        let done = self.become_another(row, spec.bare, cancel).await;
        if done.is_err() {
            self.delete(name).await?;
        }
        done
    }

    /// Makes a copy a machine of its own, before it starts for the first time.
    async fn become_another(
        self: &Arc<Self>,
        row: Row,
        bare: bool,
        cancel: &Cancel,
    ) -> Result<Info> {
        let (name, record) = (row.name.as_str(), &row.record);
        let over = || if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) };
        over()?;
        self.fit(&row).await?;
        let machine = format!("{}{}\n", token(), token());
        for (path, content) in
            [("etc/machine-id", machine), ("etc/hostname", format!("{}\n", record.hostname))]
        {
            let target = format!("{name}/{path}");
            self.host(WORK, &["incus", "file", "push", "-", &target], Some(content.into_bytes()))
                .await?
                .map_err(|said| refused(&format!("writing /{path} of sandbox '{name}'"), said))?;
        }
        over()?;
        if !bare {
            self.boot(&row, &format!("starting sandbox '{name}'")).await?;
            over()?;
            self.settle(name, record).await?;
            over()?;
        }
        self.as_made(row, bare).await
    }
}

/// The settings of a clone, over those of its source: those without a value take one away.
fn settings(source: &Value, record: &Record) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    for (key, _) in source["config"].as_object().into_iter().flatten() {
        if key.starts_with("environment.SANDSCRIPT_RECORD_") || key.starts_with(SNAPSHOT) {
            config.insert(key.clone(), "".into());
        }
    }
    for (key, value) in row::pieces(record)? {
        config.insert(format!("environment.{key}"), value);
    }
    let limits = &record.limits;
    let cpu = limits.cpu.map(|cpu| format!("{}", cpu as u64));
    let cpu = cpu
        .or_else(|| record.hardware.cpus.as_deref().map(super::hardware::pinned))
        .unwrap_or_default();
    let memory = limits.memory.map(|memory| memory.to_string()).unwrap_or_default();
    config.insert("limits.cpu".into(), cpu.into());
    config.insert("limits.memory".into(), memory.into());
    Ok(config)
}

/// A snapshot as Incus has it.
fn snapshot(value: &Value) -> Snapshot {
    let name = value["name"].as_str().unwrap_or_default();
    let label = name.rsplit('/').next().unwrap_or_default().to_owned();
    let labels = value["config"][format!("{SNAPSHOT}{label}")].as_str().unwrap_or_default();
    let labels: BTreeMap<String, String> = serde_json::from_str(labels).unwrap_or_default();
    let created = value["created_at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    Snapshot {
        created: created.map_or(SystemTime::UNIX_EPOCH, SystemTime::from),
        size: value["size"].as_u64().unwrap_or_default(),
        frozen: Duration::ZERO,
        labels,
        expires: None,
        label,
    }
}

/// The settings of `before` for an instance that is `after` now; nothing when they are the same.
fn kept(before: &Value, after: &Value) -> Option<Value> {
    let own = |instance: &Value, own: bool| -> Map<String, Value> {
        let all = instance["config"].as_object().into_iter().flatten();
        let is = |key: &str| !key.starts_with("volatile.") && !key.starts_with("image.");
        all.filter(|(key, _)| is(key) == own).map(|(key, v)| (key.clone(), v.clone())).collect()
    };
    let config = own(before, true);
    if config == own(after, true) && before["devices"] == after["devices"] {
        return None;
    }
    let mut all = own(after, false);
    all.extend(config);
    let mut settings = after.clone();
    settings["config"] = Value::Object(all);
    settings["devices"] = before["devices"].clone();
    Some(settings)
}
