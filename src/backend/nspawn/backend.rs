//! The contract, kept by systemd-nspawn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::guest::{Exec, Files, guarded, until};
use super::NspawnBackend;
use crate::sandbox::{
    Backend, Cancel, Capabilities, CloneSpec, Command, EgressLog, Error, FileEntry, GcReport, Info,
    Policy, Process, Published, ReadOptions, Reader, Restore, Result, Rule, Snapshot, SnapshotSpec,
    Spec, StopOptions, Usage, WriteOptions, check_label, check_name, check_path,
};

impl NspawnBackend {
    /// Changes a policy by something, to its end.
    async fn policy_by<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        name: &str,
        by: T,
        change: fn(T, &mut Policy) -> Result<()>,
    ) -> Result<()> {
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
impl Backend for NspawnBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        until(cancel, self.0.fingerprint(image, sha256, cancel)).await
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
            let machine = self.0.store.machine(name)?;
            match tokio::time::timeout(timeout, self.0.identify(name, &machine)).await {
                Ok(done) => done,
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
            let machine = self.0.known(name).await?;
            self.0.spawn(name, machine.record.defaults(), command).await
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
        self.0.in_store(name)?;
        self.0.snapshot(name, spec, cancel).await
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        check_name(name)?;
        until(cancel, self.0.snapshots(name)).await
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
        _options: Restore,
        cancel: &Cancel,
    ) -> Result<()> {
        check_name(name)?;
        check_label(label)?;
        self.0.restore(name, label, cancel).await
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        check_name(name)?;
        self.0.in_store(name)?;
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
        check_name(name)?;
        until(cancel, self.0.keep(name)).await
    }

    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        until(cancel, self.0.gc(dry_run)).await
    }

    async fn find_snapshots(
        &self,
        prefix: &str,
        cancel: &Cancel,
    ) -> Result<Vec<(String, Snapshot)>> {
        until(cancel, async { self.0.find_snapshots(prefix) }).await
    }

    async fn usage(&self, name: &str, cancel: &Cancel) -> Result<Usage> {
        check_name(name)?;
        until(cancel, async { self.0.usage(name) }).await
    }

    async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<SocketAddr> {
        check_name(name)?;
        until(cancel, self.0.publish(name, port, at)).await
    }

    async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
        cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        check_name(name)?;
        until(cancel, self.0.unpublish(name, port, at)).await
    }
}
