//! The contract, kept by a TrueNAS.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::guest::{Ask, Exec, Files, guarded, until};
use super::TrueNasBackend;
use crate::sandbox::{
    Backend, Cancel, Capabilities, Capability, CloneSpec, Command, EgressLog, Error, FileEntry,
    GcReport, Info, Policy, Process, ReadOptions, Reader, Restore, Result, Rule, Snapshot,
    SnapshotSpec, Spec, StopOptions, WriteOptions, check_label, check_name, check_path,
};

impl TrueNasBackend {
    /// Changes a policy by something, to its end.
    async fn policy_by<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        name: &str,
        by: T,
        change: fn(T, &mut Policy) -> Result<()>,
    ) -> Result<()> {
        self.0.may("set_egress")?;
        check_name(name)?;
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        guarded(
            cancel,
            move |_| async move { inner.change_policy(&name, |now| change(by, now)).await },
        )
        .await
    }
}

#[async_trait]
impl Backend for TrueNasBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    fn mounts_its_own(&self) -> bool {
        true
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
        self.0.may("create")?;
        self.0.create(spec, cancel).await
    }

    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>> {
        let list =
            async { Ok(self.0.rows().await?.into_iter().map(super::row::Row::info).collect()) };
        until(cancel, list).await
    }

    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        check_name(name)?;
        until(cancel, self.0.info(name)).await
    }

    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.0.may("start")?;
        check_name(name)?;
        self.0.start(name, cancel).await
    }

    async fn stop(&self, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()> {
        self.0.may("stop")?;
        check_name(name)?;
        self.0.stop(name, options, cancel).await
    }

    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.0.may("delete")?;
        check_name(name)?;
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        guarded(cancel, move |_| async move { inner.delete(&name).await }).await
    }

    async fn ready(&self, name: &str, timeout: Duration, cancel: &Cancel) -> Result<()> {
        self.0.may("ready")?;
        check_name(name)?;
        let ready = async {
            let record = self.0.row(name).await?.record;
            let pairs = record.env.iter().flat_map(|(name, value)| [name.as_str(), value]);
            let request: Vec<&str> =
                ["identity", &record.hostname, ""].into_iter().chain(pairs).collect();
            let asked = self.0.ask_once(name, &request);
            match tokio::time::timeout(timeout, asked).await {
                Ok(done) => done.map(drop),
                Err(_) => Err(Error::Timeout { what: format!("sandbox '{name}'"), after: timeout }),
            }
        };
        until(cancel, ready).await
    }

    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.0.may("freeze")?;
        check_name(name)?;
        until(cancel, async {
            self.0.row(name).await?;
            self.0.capabilities.require(Capability::Freeze)
        })
        .await
    }

    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.0.may("thaw")?;
        check_name(name)?;
        until(cancel, async {
            self.0.row(name).await?;
            self.0.capabilities.require(Capability::Freeze)
        })
        .await
    }

    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process> {
        self.0.may("exec")?;
        check_name(name)?;
        command.check()?;
        let spawn = async {
            let record = self.0.record(name).await?;
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
        self.0.may("read")?;
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
        self.0.may("write")?;
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.write(name, path, content, options)).await
    }

    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>> {
        self.0.may("list")?;
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.read_dir(name, path)).await
    }

    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry> {
        self.0.may("stat")?;
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.stat(name, path)).await
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()> {
        self.0.may("remove")?;
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
        self.0.may("mkdir")?;
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
        self.0.may("push")?;
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.unpack(name, path, tar, options)).await
    }

    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader> {
        self.0.may("pull")?;
        check_name(name)?;
        check_path(path)?;
        until(cancel, self.0.pack(name, path)).await
    }

    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot> {
        self.0.may("snapshot")?;
        check_name(name)?;
        check_label(&spec.label)?;
        self.0.snapshot(name, spec, cancel).await
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        self.0.may("snapshots")?;
        check_name(name)?;
        until(cancel, self.0.snapshots(name)).await
    }

    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()> {
        self.0.may("delete_snapshot")?;
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
        self.0.may("restore")?;
        check_name(name)?;
        check_label(label)?;
        self.0.restore(name, label, options, cancel).await
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        self.0.may("clone")?;
        check_name(name)?;
        self.0.clone_box(name, spec, cancel).await
    }

    async fn set_policy(&self, name: &str, policy: &Policy, cancel: &Cancel) -> Result<()> {
        self.policy_by(cancel, name, policy.clone(), |policy, now| {
            *now = policy;
            Ok(())
        })
        .await
    }

    async fn allow(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        self.policy_by(cancel, name, rule.clone(), |rule, now| now.allow(&rule)).await
    }

    async fn deny(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        self.policy_by(cancel, name, rule.clone(), |rule, now| now.deny(&rule)).await
    }

    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        check_name(name)?;
        until(cancel, self.0.egress_log(name)).await
    }

    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()> {
        self.0.may("keep")?;
        check_name(name)?;
        until(cancel, self.0.keep(name)).await
    }

    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        if !dry_run {
            self.0.may("gc")?;
        }
        until(cancel, self.0.gc(dry_run)).await
    }

    async fn call(
        &self,
        method: &str,
        params: Vec<serde_json::Value>,
        change: bool,
        cancel: &Cancel,
    ) -> Result<serde_json::Value> {
        until(cancel, self.0.call(method, params, change)).await
    }
}
