//! Snapshots, restoring and cloning: a layer list each, at a cost that does not depend on the
//! size of the root file system.

use std::fs;
use std::time::{Duration, Instant};

use super::ahead::{Ahead, Shape};
use super::caches::Caches;
use super::control::ask;
use super::layers::is_unwritten;
use super::lifecycle::machine_id;
use super::protocol::{Reply, Request, Task};
use super::record::{self, Prepared, Record, Saved, VERSION};
use super::store::Lock;
use super::{Inner, LocalBackend, disk};
use crate::sandbox::{
    CloneSpec, Error, Info, Kind, Result, Snapshot, SnapshotSpec, Spec, State, check_label,
    check_name,
};
use crate::transport::Link;

/// The mark of a layer that is on disk for good.
const SYNCED: &str = "synced";

/// Layers of a sandbox's state at one moment.
struct Frozen {
    layers: Vec<String>,
    image_layers: usize,
    still: Duration,
}

impl LocalBackend {
    pub(super) async fn snapshot(&self, name: &str, spec: &SnapshotSpec) -> Result<Snapshot> {
        let (saved, image_layers) = self.0.snapshot(name, spec).await?;
        self.shorten(saved.layers.clone(), image_layers).await?;
        Ok(saved.snapshot())
    }

    pub(super) async fn clone_box(&self, name: &str, spec: &CloneSpec) -> Result<Info> {
        let (record, ahead, caches, _referring) = self.0.prepare_clone(name, spec).await?;
        self.shorten(record.layers.clone(), record.image_layers).await?;
        let info = self.0.make(record, ahead, caches).await?;
        self.0.prepare_next();
        Ok(info)
    }
}

impl Inner {
    async fn snapshot(&self, name: &str, spec: &SnapshotSpec) -> Result<(Saved, usize)> {
        check_name(name)?;
        check_label(&spec.label)?;
        let _lock = self.store.changing(name).await?;
        let file = self.store.snapshot_file(name, &spec.label);
        if file.exists() {
            return Err(Error::exists(Kind::Snapshot, format!("{name}/{}", spec.label)));
        }
        let _referring = self.store.referring().await?;
        let frozen = self.capture(name).await?;
        self.store.make_snapshot_folder(name)?;
        let saved = Saved {
            label: spec.label.clone(),
            created: self.store.next_time(name),
            frozen: frozen.still,
            layers: frozen.layers,
            labels: spec.labels.clone(),
            expires: spec.expires,
            boot: record::boot(),
            size: None,
        };
        record::save(&file, &saved)?;
        self.store.note_time(name, saved.created);
        Ok((saved, frozen.image_layers))
    }

    /// The sandbox's state as layers that no longer change. It goes on as it was.
    async fn capture(&self, name: &str) -> Result<Frozen> {
        let mut record = self.store.record(name)?;
        let (image_layers, still) = (record.image_layers, Duration::ZERO);
        let Some(mut link) = self.connect(name).await? else {
            if disk::wanted(&record.spec.limits) {
                // Its files are in a file system that only a running sandbox has mounted.
                self.start_stopped(&mut record).await?;
                let captured = Box::pin(self.capture(name)).await;
                self.stop_locked(name, Duration::ZERO).await?;
                return captured;
            }
            if !self.is_empty(&record) {
                self.seal_record(&mut record)?;
                self.store.save(&record)?;
            }
            return Ok(Frozen { layers: record.layers, image_layers, still });
        };
        let status = ask(&mut link, name, &Request::Status, &[]).await?.0;
        let Reply::Status { frozen, processes, upper, layers } = status else {
            return Err(Error::internal(format!("sandbox '{name}' answers nonsense")));
        };
        if processes == 0 && !frozen && !disk::wanted(&record.spec.limits) {
            if upper == record.upper && self.is_empty(&record) {
                return Ok(Frozen { layers: record.layers, image_layers, still });
            }
            let before = record.clone();
            self.seal_record(&mut record)?;
            // First the record, then the switch: whoever dies between leaves a sandbox whose files are all there.
            self.store.save(&record)?;
            let layers = self.effective(&record.layers)?;
            let request = Request::Seal { layers, upper: record.upper.clone() };
            match ask(&mut link, name, &request, &[]).await {
                Ok((Reply::Ok, _)) => {
                    return Ok(Frozen { layers: record.layers, image_layers, still });
                }
                Ok(_) => {
                    self.store.save(&before)?;
                    self.drop_layer(&record.upper).await?;
                }
                Err(error) => {
                    self.store.save(&before)?;
                    return Err(error);
                }
            }
        }
        self.copy_live(name, link, &record, &upper, layers).await
    }

    /// Copies the upper layer while the processes stand still.
    async fn copy_live(
        &self,
        name: &str,
        mut link: Link,
        record: &Record,
        upper: &str,
        effective: Vec<String>,
    ) -> Result<Frozen> {
        // Its init may still write to a layer that the record already counts as sealed.
        let below = match record.layers.iter().position(|layer| layer == upper) {
            Some(place) => record.layers[place + 1..].to_vec(),
            None if record.upper == upper => record.layers.clone(),
            None => effective,
        };
        let copy = super::store::random_id();
        let started = Instant::now();
        ask(&mut link, name, &Request::Hold, &[]).await?;
        let copied = ask(&mut link, name, &Request::Copy { to: copy.clone() }, &[]).await;
        let still = started.elapsed();
        let thawed = ask(&mut link, name, &Request::Thaw, &[]).await;
        copied?;
        thawed?;
        let mut layers = vec![copy];
        layers.extend(below);
        Ok(Frozen { layers, image_layers: record.image_layers, still })
    }

    /// Makes the upper a layer and allots a new one.
    fn seal_record(&self, record: &mut Record) -> Result<()> {
        let fresh = self.store.new_layer(record.trees.iter().map(|tree| &tree.name))?;
        let sealed = std::mem::replace(&mut record.upper, fresh);
        record.layers.insert(0, sealed);
        record.sealed = true;
        Ok(())
    }

    /// Nothing was written since the upper was made.
    fn is_empty(&self, record: &Record) -> bool {
        let layers = self.store.layers();
        !record.fresh
            && record
                .trees
                .iter()
                .all(|tree| is_unwritten(&layers, &record.upper, &record.layers, &tree.name))
    }

    async fn drop_layer(&self, id: &str) -> Result<()> {
        let trash = self.store.discard(&self.store.layer(id))?;
        self.throw_away(trash.into_iter().collect(), Vec::new()).await
    }

    pub(super) async fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        check_name(name)?;
        if !self.store.folder(name).is_dir() {
            return Err(Error::not_found(Kind::Sandbox, name));
        }
        let mut all = self.store.snapshots(name)?;
        // Labelled ones are somebody's cache: what a power cut may have cut short is no hit.
        let boot = record::boot();
        all.retain(|saved| {
            saved.labels.is_empty() || saved.boot == boot || self.is_written(&saved.layers)
        });
        for saved in &mut all {
            if saved.size.is_none() {
                let paths =
                    saved.layers.first().map(|id| self.store.layer(id)).into_iter().collect();
                let size =
                    self.keeper().await?.perform(&Task::Measure { paths }, &self.mode).await?;
                saved.size = Some(size);
                let file = self.store.snapshot_file(name, &saved.label);
                // Only a shortcut for the next time; and gone is gone.
                if let Ok(_lock) = self.store.lock_new(&self.store.folder(name))
                    && file.exists()
                {
                    let _ = record::save(&file, saved);
                }
            }
        }
        Ok(all.iter().map(Saved::snapshot).collect())
    }

    fn is_written(&self, layers: &[String]) -> bool {
        layers.first().is_none_or(|layer| self.store.layer(layer).join(SYNCED).exists())
    }

    /// Writes the layers of a sandbox's snapshots to disk for good.
    pub(super) async fn write_down(&self, name: &str) -> Result<()> {
        let saved = self.store.snapshots(name)?;
        let marks: Vec<_> = saved
            .iter()
            .filter(|saved| !self.is_written(&saved.layers))
            .filter_map(|saved| saved.layers.first())
            .map(|layer| self.store.layer(layer).join(SYNCED))
            .collect();
        if marks.is_empty() {
            return Ok(());
        }
        let task = Task::Sync { path: self.store.layers(), marks };
        self.keeper().await?.perform(&task, &self.mode).await.map(drop)
    }

    pub(super) async fn delete_snapshot(&self, name: &str, label: &str) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        let _lock = self.store.changing(name).await?;
        self.store.saved(name, label)?;
        let file = self.store.snapshot_file(name, label);
        fs::remove_file(&file).map_err(|error| record::store_error("deleting", &file, error))?;
        self.sweep_if_idle().await;
        Ok(())
    }

    pub(super) async fn restore(&self, name: &str, label: &str) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        let _lock = self.store.changing(name).await?;
        let saved = self.store.saved(name, label)?;
        let mut record = self.store.record(name)?;
        let running = matches!(self.state(name).await?, State::Running | State::Frozen);
        let _referring = self.store.referring().await?;
        let fresh = self.store.new_layer(record.trees.iter().map(|tree| &tree.name))?;
        self.limit_disk(&fresh, &record.spec.limits).await?;
        let old = std::mem::replace(&mut record.upper, fresh.clone());
        record.layers = saved.layers;
        record.fresh = true;
        record.sealed = true;
        record.groups = Vec::new();
        let prepared = Prepared::write(&self.store.folder(name).join("record.json"), &record);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.drop_layer(&fresh).await?;
                return Err(error);
            }
        };
        self.stop_locked(name, Duration::ZERO).await?;
        prepared.put()?;
        self.drop_layer(&old).await?;
        if running { self.start_stopped(&mut record).await } else { Ok(()) }
    }

    async fn prepare_clone(
        &self,
        name: &str,
        spec: &CloneSpec,
    ) -> Result<(Record, Option<Ahead>, Caches, Lock)> {
        check_name(name)?;
        spec.check()?;
        let source = self.store.record(name)?;
        if self.store.folder(&spec.name).exists() {
            return Err(Error::exists(Kind::Sandbox, &spec.name));
        }
        let limits = spec.limits.clone().unwrap_or(source.spec.limits);
        let egress = spec.egress.clone().unwrap_or(source.spec.egress);
        self.check_supported(&limits, &egress, &source.spec.mounts)?;
        self.capabilities.require_networks(&spec.networks)?;
        self.capabilities.require_devices(&spec.devices, spec.nesting)?;
        self.capabilities.require_target(spec.target.as_ref())?;
        let wanted = Spec { caches: spec.caches.clone(), bare: spec.bare, ..Spec::new(&spec.name) };
        let caches = self.caches_to_start(&wanted).await?;
        let referring = self.store.referring().await?;
        let layers = match &spec.label {
            Some(label) => self.store.saved(name, label)?.layers,
            None => {
                let _lock = self.store.changing(name).await?;
                self.capture(name).await?.layers
            }
        };
        let mut env = source.spec.env;
        env.extend(spec.env.clone());
        let made = Spec {
            target: None,
            hardware: Default::default(),
            machine: Default::default(),
            setup: Default::default(),
            name: spec.name.clone(),
            image: source.spec.image,
            sha256: source.spec.sha256,
            hostname: spec.hostname.clone(),
            limits,
            mounts: source.spec.mounts,
            caches: spec.caches.clone(),
            devices: Vec::new(),
            nesting: false,
            networks: spec.networks.clone(),
            egress,
            env,
            user: source.spec.user,
            cwd: source.spec.cwd,
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            bare: spec.bare,
        };
        let ahead = self.take_ahead(Shape::of(&made, &source.trees, &layers)).await;
        let upper = match &ahead {
            Some(ahead) => ahead.upper.clone(),
            None => self.store.new_layer(source.trees.iter().map(|tree| &tree.name))?,
        };
        self.limit_disk(&upper, &made.limits).await?;
        let record = Record {
            version: VERSION,
            spec: made,
            fingerprint: source.fingerprint,
            trees: source.trees,
            image_layers: source.image_layers,
            layers,
            upper,
            created: crate::sandbox::wall_clock(),
            machine_id: machine_id(),
            fresh: true,
            new: true,
            sealed: false,
            source: Some(match &spec.label {
                Some(label) => format!("{name}/{label}"),
                None => name.to_owned(),
            }),
            groups: Vec::new(),
            gated: false,
            published: Vec::new(),
            maker: None,
        };
        Ok((record, ahead, caches, referring))
    }
}
