//! The contract, kept by an Incus server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::record::{self, Record};
use super::{IncusBackend, Inner};
use crate::backend::guest::{Ask, Exec, Files, Guests, guarded, until};
use crate::sandbox::{
    Adoption, Backend, CacheInfo, Cancel, Capabilities, CloneSpec, Command, EgressLog, Error,
    FileEntry, GcReport, Info, Member, Placement, Policy, Process, Published, ReadOptions, Reader,
    Restore, Result, Rule, Snapshot, SnapshotSpec, Spec, State, Stock, StopOptions, Usage,
    WriteOptions, check_label, check_name, check_path,
};

impl Inner {
    /// Freezes or thaws; nothing when it is so already.
    async fn freeze(&self, name: &str, still: bool) -> Result<()> {
        self.capabilities.require(crate::sandbox::Capability::Freeze)?;
        let (instance, _) = self.instance(name).await?;
        match (record::state(&instance), still) {
            (State::Frozen, true) | (State::Running, false) => return Ok(()),
            (State::Running, true) | (State::Frozen, false) => {}
            _ => return Err(Error::NotRunning { name: name.to_owned() }),
        }
        let action = if still { "freeze" } else { "unfreeze" };
        match self.act(name, action, 0, false).await {
            Ok(()) => Ok(()),
            Err(fail) => Err(self.explain(name, fail, action).await),
        }
    }

    /// Takes over what was made ahead. The server refuses the change where somebody else made one since.
    async fn adopt(&self, name: &str, adoption: &Adoption) -> Result<bool> {
        self.instance(name).await?;
        let _lock = self.changing(name).await?;
        let path = format!("/1.0/instances/{name}");
        let adopted = async {
            let (instance, tag) = self.client.get_tagged(&path).await?;
            let Some(mut record) = Record::read(&instance) else { return Ok(false) };
            if !adoption.fits_state(&record::state(&instance))
                || !adoption.fits_labels(&record.labels, record.owner.as_ref(), record.expires)
            {
                return Ok(false);
            }
            record.owner.clone_from(&adoption.owner);
            record.labels.clone_from(&adoption.labels);
            record.expires = adoption.expires;
            let keys = record.keys().map_err(|error| super::Fail::Lost(error.to_string()))?;
            self.client.patch_tagged(&path, &tag, &json!({"config": keys})).await
        };
        match adopted.await {
            Ok(adopted) => Ok(adopted),
            Err(fail) => Err(self.explain(name, fail, "taking it over").await),
        }
    }

    /// Changes what is known of a sandbox.
    async fn change(&self, name: &str, change: impl Fn(&mut Record)) -> Result<()> {
        self.instance(name).await?;
        let _lock = self.changing(name).await?;
        self.rewrite(name, change).await
    }
}

impl Inner {
    /// Changes a policy, to the end even when the caller goes away.
    async fn policy_by<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        cancel: &Cancel,
        name: &str,
        by: T,
        change: fn(&T, &mut Policy) -> Result<()>,
    ) -> Result<()> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        guarded(
            cancel,
            move |_| async move { inner.change_policy(&name, |now| change(&by, now)).await },
        )
        .await
    }
}

#[async_trait]
impl Backend for IncusBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn fingerprint(
        &self,
        image: &str,
        _sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        until(cancel, self.0.fingerprint(image)).await
    }

    async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        self.0.create(spec, cancel).await
    }

    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>> {
        until(cancel, self.0.list()).await
    }

    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        check_name(name)?;
        until(cancel, self.0.info(name)).await
    }

    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.0.start(name, cancel).await
    }

    async fn stop(&self, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.0.stop(name, options, cancel).await
    }

    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        guarded(cancel, move |_| async move { inner.delete(&name).await }).await
    }

    async fn ready(&self, name: &str, timeout: Duration, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        let ready = async {
            let (_, record) = self.0.instance(name).await?;
            let request = ["identity", record.hostname.as_str()];
            let asked = self.0.ask_once(name, &request);
            match tokio::time::timeout(timeout, asked).await {
                Ok(done) => done.map(drop),
                Err(_) => Err(Error::Timeout { what: format!("sandbox '{name}'"), after: timeout }),
            }
        };
        until(cancel, ready).await
    }

    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        until(cancel, self.0.freeze(name, true)).await
    }

    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        until(cancel, self.0.freeze(name, false)).await
    }

    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process> {
        check_name(name)?;
        command.check()?;
        let spawn = async {
            // While the same agent is there, so is the same sandbox.
            let known = self.0.agents.running(name).await;
            if let Some(record) = known.as_ref().and_then(|known| known.record.get()) {
                self.0.keep_serving(name, record).await?;
                self.0.keep_fresh(name, record);
                return self.0.spawn(name, record.defaults(), command).await;
            }
            let (found, ()) = tokio::join!(self.0.instance(name), self.0.client.listen());
            let (_, record) = found?;
            self.0.keep_serving(name, &record).await?;
            self.0.keep_fresh(name, &record);
            if let Some(known) = known {
                let _ = known.record.set(record.clone());
            }
            self.0.spawn(name, record.defaults(), command).await
        };
        until(cancel, spawn).await
    }

    async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Reader> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.read(name, path, options)).await
    }

    async fn write(
        &self,
        name: &str,
        path: &str,
        content: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.write(name, path, content, options)).await
    }

    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.read_dir(name, path)).await
    }

    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.stat(name, path)).await
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.remove(name, path, recursive)).await
    }

    async fn mkdir(
        &self,
        name: &str,
        path: &str,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.mkdir(name, path, options)).await
    }

    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.unpack(name, path, tar, options)).await
    }

    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader> {
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.pack(name, path)).await
    }

    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot> {
        check_name(name)?;
        check_label(&spec.label)?;
        self.0.snapshot(name, spec, cancel).await
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        check_name(name)?;
        until(cancel, self.0.snapshots(name)).await
    }

    async fn find_snapshots(
        &self,
        prefix: &str,
        cancel: &Cancel,
    ) -> Result<Vec<(String, Snapshot)>> {
        until(cancel, self.0.find_snapshots(prefix)).await
    }

    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        until(cancel, self.0.delete_snapshot(name, label)).await
    }

    async fn restore(
        &self,
        name: &str,
        label: &str,
        options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        self.0.restore(name, label, options, cancel).await
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        check_name(name)?;
        self.0.clone_box(name, spec, cancel).await
    }

    async fn members(&self, cancel: &Cancel) -> Result<Vec<Member>> {
        match &self.0.cluster {
            Some(cluster) => until(cancel, cluster.members()).await,
            None => Ok(Vec::new()),
        }
    }

    async fn away(&self, name: &str, cancel: &Cancel) -> Result<Option<String>> {
        check_name(name)?;
        match &self.0.cluster {
            Some(cluster) => until(cancel, async { Ok(cluster.away(name).await) }).await,
            None => Ok(None),
        }
    }

    async fn prepare(
        &self,
        stock: &Stock,
        target: Option<&Placement>,
        cancel: &Cancel,
    ) -> Result<()> {
        let (inner, stock, target) = (Arc::clone(&self.0), stock.clone(), target.cloned());
        guarded(cancel, move |cancel| async move {
            inner.prepare(&stock, target.as_ref(), &cancel).await
        })
        .await
    }

    async fn usage(&self, name: &str, cancel: &Cancel) -> Result<Usage> {
        check_name(name)?;
        let usage = async {
            let (instance, _) = self.0.instance(name).await?;
            if record::state(&instance) == State::Stopped {
                return Err(Error::NotRunning { name: name.to_owned() });
            }
            match self.0.client.get(&format!("/1.0/instances/{name}/state")).await {
                Ok(state) => Ok(Usage {
                    cpu: state["cpu"]["usage"].as_u64().map(Duration::from_nanos),
                    memory: state["memory"]["usage_peak"].as_u64().filter(|bytes| *bytes > 0),
                }),
                Err(fail) => Err(self.0.explain(name, fail, "measuring").await),
            }
        };
        until(cancel, usage).await
    }

    async fn set_policy(&self, name: &str, policy: &Policy, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.0
            .policy_by(cancel, name, policy.clone(), |policy, now| {
                now.clone_from(policy);
                Ok(())
            })
            .await
    }

    async fn allow(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.0.policy_by(cancel, name, rule.clone(), |rule, now| now.allow(rule)).await
    }

    async fn deny(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        self.0.policy_by(cancel, name, rule.clone(), |rule, now| now.deny(rule)).await
    }

    async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<SocketAddr> {
        check_name(name)?;
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        guarded(cancel, move |_| async move { inner.publish(&name, port, at).await }).await
    }

    async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        check_name(name)?;
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        guarded(cancel, move |_| async move { inner.unpublish(&name, port, at).await }).await
    }

    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        check_name(name)?;
        until(cancel, self.0.egress_log(name)).await
    }

    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        until(cancel, self.0.change(name, |record| record.owner = None)).await
    }

    async fn adopt(&self, name: &str, adoption: &Adoption, cancel: &Cancel) -> Result<bool> {
        check_name(name)?;
        until(cancel, self.0.adopt(name, adoption)).await
    }

    async fn caches(&self, cancel: &Cancel) -> Result<Vec<CacheInfo>> {
        until(cancel, self.0.caches()).await
    }

    async fn delete_cache(&self, name: &str, cancel: &Cancel) -> Result<()> {
        until(cancel, self.0.delete_cache(name)).await
    }

    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        until(cancel, self.0.gc(dry_run)).await
    }
}
