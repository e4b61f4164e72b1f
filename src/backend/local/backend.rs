//! The contract, kept by [`LocalBackend`].

use std::time::Duration;

use async_trait::async_trait;

use super::LocalBackend;
use super::protocol::{FileRequest, Request};
use crate::sandbox::{
    Backend, CacheInfo, Cancel, Capabilities, CloneSpec, Command, Condition, EgressLog, Error,
    FileEntry, GcReport, Info, Policy, Process, Published, ReadOptions, Reader, Restore, Result,
    Rule, Snapshot, SnapshotSpec, Spec, StopOptions, Usage, WriteOptions, check_name, exec,
};

/// Ends a call when it is cancelled. Everything below cleans up when it is dropped.
async fn unless<T>(cancel: &Cancel, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        result = call => result,
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String> {
        unless(cancel, self.0.image_fingerprint(image, sha256, cancel)).await
    }

    async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info> {
        let info = unless(cancel, self.0.create(spec, cancel)).await?;
        self.0.prepare_next();
        Ok(info)
    }

    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>> {
        unless(cancel, self.0.list()).await
    }

    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info> {
        unless(cancel, self.0.get(name)).await
    }

    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.start(name)).await
    }

    async fn stop(&self, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.stop(name, options)).await
    }

    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.delete(name)).await
    }

    async fn delete_if(&self, name: &str, wanted: &Condition<'_>, cancel: &Cancel) -> Result<bool> {
        unless(cancel, self.0.delete_if(name, wanted)).await
    }

    async fn ready(&self, name: &str, timeout: Duration, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        let mut command = Command::shell(":");
        command.user = Some("0".into());
        command.cwd = Some("/".into());
        let probe = exec(self, name, &command, cancel);
        match tokio::time::timeout(timeout, probe).await {
            Ok(output) => output.map(drop),
            Err(_) => Err(Error::Timeout { what: format!("sandbox '{name}'"), after: timeout }),
        }
    }

    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        unless(cancel, self.0.request(name, &Request::Freeze)).await.map(drop)
    }

    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()> {
        check_name(name)?;
        unless(cancel, self.0.request(name, &Request::Thaw)).await.map(drop)
    }

    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process> {
        let process = unless(cancel, self.0.spawn(name, command)).await?;
        self.0.store.touch(name);
        Ok(process)
    }

    async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Reader> {
        unless(cancel, self.0.read(name, path, options)).await
    }

    async fn write(
        &self,
        name: &str,
        path: &str,
        content: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        unless(cancel, self.0.write(name, path, content, options)).await
    }

    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>> {
        let request = FileRequest::List { path: path.into() };
        unless(cancel, self.0.entries(name, path, request)).await
    }

    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry> {
        unless(cancel, self.0.stat(name, path)).await
    }

    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()> {
        let request = FileRequest::Remove { path: path.into(), recursive };
        unless(cancel, self.0.change(name, path, request)).await
    }

    async fn mkdir(
        &self,
        name: &str,
        path: &str,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        let request = FileRequest::Mkdir {
            path: path.into(),
            mode: options.mode,
            owner: options.owner.clone(),
        };
        unless(cancel, self.0.change(name, path, request)).await
    }

    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        unless(cancel, self.0.unpack(name, path, tar, options)).await
    }

    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader> {
        unless(cancel, self.0.pack(name, path)).await
    }

    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot> {
        unless(cancel, self.snapshot(name, spec)).await
    }

    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>> {
        unless(cancel, self.0.snapshots(name)).await
    }

    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.delete_snapshot(name, label)).await
    }

    async fn restore(&self, name: &str, label: &str, _: Restore, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.restore(name, label)).await
    }

    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info> {
        let info = unless(cancel, self.clone_box(name, spec)).await?;
        self.0.store.touch(name);
        Ok(info)
    }

    async fn usage(&self, name: &str, cancel: &Cancel) -> Result<Usage> {
        check_name(name)?;
        unless(cancel, self.0.usage(name)).await
    }

    async fn set_policy(&self, name: &str, policy: &Policy, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.set_policy(name, policy)).await
    }

    async fn caches(&self, cancel: &Cancel) -> Result<Vec<CacheInfo>> {
        unless(cancel, self.0.caches()).await
    }

    async fn delete_cache(&self, name: &str, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.delete_cache(name)).await
    }

    async fn allow(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.change_policy(name, |policy| policy.allow(rule))).await
    }

    async fn deny(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.change_policy(name, |policy| policy.deny(rule))).await
    }

    async fn publish(
        &self,
        name: &str,
        port: u16,
        at: Option<std::net::SocketAddr>,
        cancel: &Cancel,
    ) -> Result<std::net::SocketAddr> {
        unless(cancel, self.0.publish(name, port, at)).await
    }

    async fn unpublish(
        &self,
        name: &str,
        port: u16,
        at: Option<std::net::SocketAddr>,
        cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        unless(cancel, self.0.unpublish(name, port, at)).await
    }

    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        unless(cancel, self.0.egress_log(name)).await
    }

    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()> {
        unless(cancel, self.0.keep(name)).await
    }

    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport> {
        unless(cancel, self.0.gc(dry_run)).await
    }
}
