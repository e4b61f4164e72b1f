//! The contract: reads go to the real backend, all else to memory.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::process::succeeded;
use super::{Place, PlanBackend, unknown};
use crate::sandbox::{
    Backend, CacheInfo, Cancel, Capabilities, Capability, CloneSpec, Command, Device, EgressLog,
    Error, FileEntry, GcReport, Info, Kind, Member, Policy, Process, Published, ReadOptions,
    Reader, Restore, Result, Snapshot, SnapshotSpec, Spec, StopOptions, WriteOptions,
};

/// As an archive ends; without anything before it, an empty one.
const END_OF_TAR: [u8; 1024] = [0; 1024];

/// Users are made by commands, so memory knows none of them.
fn anybody(options: &WriteOptions) -> WriteOptions {
    WriteOptions { owner: None, parents: true, ..options.clone() }
}

#[async_trait]
impl Backend for PlanBackend {
    fn capabilities(&self) -> &Capabilities {
        self.real.capabilities()
    }

    async fn fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        self.real.fingerprint(image, sha256, cancel).await
    }

    async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.can_cache(&spec.caches)?;
        self.capabilities().require_networks(&spec.networks)?;
        self.capabilities().require_devices(&spec.devices, spec.nesting)?;
        self.capabilities().require_target(spec.target.as_ref())?;
        self.capabilities().require_machine(spec)?;
        self.free(&spec.name, cancel).await?;
        let image = spec.image.clone();
        let image = image.unwrap_or_else(|| self.capabilities().default_image.clone());
        let fingerprint = self.fingerprint(&image, spec.sha256.as_deref(), cancel).await?;
        let plain = Spec { bare: spec.bare, ..Spec::new(&spec.name) };
        let made = self.memory.create(&plain, cancel).await?;
        let info = Info {
            image,
            fingerprint,
            hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            limits: spec.limits.clone(),
            mounts: spec.mounts.clone(),
            caches: spec.caches.clone(),
            devices: spec.devices.clone(),
            nesting: spec.nesting,
            egress: spec.egress.clone(),
            networks: spec.networks.clone(),
            env: spec.env.clone(),
            user: spec.user.clone(),
            cwd: spec.cwd.clone(),
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            ..made
        };
        self.remember(info.clone(), Vec::new());
        Ok(info)
    }

    async fn members(&self, cancel: &Cancel) -> Result<Vec<Member>> {
        self.real.members(cancel).await
    }

    fn mounts_its_own(&self) -> bool {
        self.real.mounts_its_own()
    }

    async fn call(
        &self,
        method: &str,
        params: Vec<serde_json::Value>,
        _change: bool,
        cancel: &Cancel,
    ) -> Result<serde_json::Value> {
        self.real.call(method, params, false, cancel).await
    }

    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>> {
        let mut all = self.real.list(cancel).await?;
        let twins: Vec<Info> = {
            let twins = self.twins();
            all.retain(|info| !twins.contains_key(&info.name));
            let infos = twins.values().filter_map(|place| match place {
                Place::Twin(twin) => Some(twin.info.clone()),
                Place::Deleted => None,
            });
            infos.collect()
        };
        for info in twins {
            all.push(self.now(info, cancel).await?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        match self.described(name)? {
            Some(info) => self.now(info, cancel).await,
            None => self.seen(name, cancel).await,
        }
    }

    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.start(name, cancel).await
    }

    async fn stop(&self, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.stop(name, options, cancel).await
    }

    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.delete(name, cancel).await?;
        self.twins().insert(name.to_owned(), Place::Deleted);
        Ok(())
    }

    async fn ready(&self, name: &str, timeout: Duration, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.ready(name, timeout, cancel).await
    }

    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.freeze(name, cancel).await
    }

    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.thaw(name, cancel).await
    }

    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process> {
        command.check()?;
        self.ready(name, Duration::ZERO, cancel).await?;
        Ok(succeeded(command))
    }

    async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Reader> {
        self.twin(name, cancel).await?;
        match self.memory.read(name, path, options, cancel).await {
            Err(error) if unknown(&error) => Ok(Box::new(tokio::io::empty())),
            read => read,
        }
    }

    async fn write(
        &self,
        name: &str,
        path: &str,
        content: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.write(name, path, content, &anybody(options), cancel).await
    }

    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>> {
        self.twin(name, cancel).await?;
        match self.memory.read_dir(name, path, cancel).await {
            Err(error) if unknown(&error) => Ok(Vec::new()),
            entries => entries,
        }
    }

    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry> {
        self.twin(name, cancel).await?;
        self.memory.stat(name, path, cancel).await
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        match self.memory.remove(name, path, recursive, cancel).await {
            Err(error) if unknown(&error) => Ok(()),
            removed => removed,
        }
    }

    async fn mkdir(
        &self,
        name: &str,
        path: &str,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.mkdir(name, path, &anybody(options), cancel).await
    }

    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.unpack(name, path, tar, &anybody(options), cancel).await
    }

    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader> {
        self.twin(name, cancel).await?;
        match self.memory.pack(name, path, cancel).await {
            Err(error) if unknown(&error) => Ok(Box::new(std::io::Cursor::new(END_OF_TAR))),
            packed => packed,
        }
    }

    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot> {
        self.twin(name, cancel).await?;
        self.memory.snapshot(name, spec, cancel).await
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        if self.described(name)?.is_none() {
            return self.real.snapshots(name, cancel).await;
        }
        let mut snapshots = self.memory.snapshots(name, cancel).await?;
        if let Some(Place::Twin(twin)) = self.twins().get(name) {
            for snapshot in &mut snapshots {
                let real = twin.real.iter().find(|real| real.label == snapshot.label);
                *snapshot = real.unwrap_or(snapshot).clone();
            }
        }
        Ok(snapshots)
    }

    async fn find_snapshots(
        &self,
        prefix: &str,
        cancel: &Cancel,
    ) -> Result<Vec<(String, Snapshot)>> {
        let mut found = self.real.find_snapshots(prefix, cancel).await?;
        let twins: Vec<String> = {
            let twins = self.twins();
            found.retain(|(name, _)| !twins.contains_key(name));
            let alive = twins.iter().filter(|(_, place)| matches!(place, Place::Twin(_)));
            alive.map(|(name, _)| name.clone()).collect()
        };
        for name in twins {
            let snapshots = self.snapshots(&name, cancel).await?.into_iter();
            let fits = snapshots.filter(|snapshot| snapshot.label.starts_with(prefix));
            found.extend(fits.map(|snapshot| (name.clone(), snapshot)));
        }
        Ok(found)
    }

    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.delete_snapshot(name, label, cancel).await?;
        if let Some(Place::Twin(twin)) = self.twins().get_mut(name) {
            twin.real.retain(|snapshot| snapshot.label != label);
        }
        Ok(())
    }

    async fn restore(
        &self,
        name: &str,
        label: &str,
        options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        self.twin(name, cancel).await?;
        self.memory.restore(name, label, options, cancel).await
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        spec.check()?;
        self.can_cache(&spec.caches)?;
        self.capabilities().require_networks(&spec.networks)?;
        self.capabilities().require_devices(&spec.devices, spec.nesting)?;
        self.capabilities().require_target(spec.target.as_ref())?;
        self.free(&spec.name, cancel).await?;
        let source = self.twin(name, cancel).await?;
        let plain =
            CloneSpec { label: spec.label.clone(), bare: spec.bare, ..CloneSpec::new(&spec.name) };
        let made = Backend::clone(&self.memory, name, &plain, cancel).await?;
        let mut env = source.env.clone();
        env.extend(spec.env.clone());
        let info = Info {
            image: source.image,
            fingerprint: source.fingerprint,
            hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            limits: spec.limits.clone().unwrap_or(source.limits),
            mounts: source.mounts,
            caches: spec.caches.clone(),
            devices: Device::all_of_clone(&source.devices, &spec.devices),
            nesting: source.nesting || spec.nesting,
            egress: spec.egress.clone().unwrap_or(source.egress),
            networks: spec.networks.clone(),
            env,
            user: source.user,
            cwd: source.cwd,
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            ..made
        };
        self.remember(info.clone(), Vec::new());
        Ok(info)
    }

    async fn set_policy(&self, name: &str, policy: &Policy, cancel: &Cancel) -> Result<()> {
        self.capabilities().require_egress(policy)?;
        self.twin(name, cancel).await?;
        if let Some(Place::Twin(twin)) = self.twins().get_mut(name) {
            twin.info.egress = policy.clone();
        }
        Ok(())
    }

    async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<SocketAddr> {
        self.capabilities().require(Capability::Publish)?;
        self.twin(name, cancel).await?;
        self.memory.publish(name, port, at, cancel).await
    }

    async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        self.capabilities().require(Capability::Publish)?;
        self.twin(name, cancel).await?;
        self.memory.unpublish(name, port, at, cancel).await
    }

    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        match self.described(name)? {
            Some(_) => Ok(EgressLog::default()),
            None => self.real.egress_log(name, cancel).await,
        }
    }

    async fn caches(&self, cancel: &Cancel) -> Result<Vec<CacheInfo>> {
        self.real.caches(cancel).await
    }

    /// Says whether it could be deleted.
    async fn delete_cache(&self, name: &str, cancel: &Cancel) -> Result<()> {
        let all = self.real.caches(cancel).await?;
        match all.into_iter().find(|cache| cache.name == name) {
            Some(CacheInfo { busy: true, name, by, .. }) => Err(Error::CacheInUse { name, by }),
            Some(_) => Ok(()),
            None => Err(Error::not_found(Kind::Cache, name)),
        }
    }

    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.twin(name, cancel).await?;
        if let Some(Place::Twin(twin)) = self.twins().get_mut(name) {
            twin.info.owner = None;
        }
        Ok(())
    }

    /// Always a dry run.
    async fn gc(&self, _dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        self.real.gc(true, cancel).await
    }
}
