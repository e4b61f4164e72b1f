//! The contract every backend keeps.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Adoption, CacheInfo, Cancel, Capabilities, Capability, CloneSpec, Command, EgressLog, Error,
    FileEntry, Info, Kind, Member, Placement, Policy, Process, Published, ReadOptions, Reader,
    Restore, Result, Rule, Snapshot, SnapshotSpec, Spec, Stock, StopOptions, Usage, WriteOptions,
};

/// What a `gc` found, or would delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Sandboxes whose run is dead or whose time is over.
    pub sandboxes: Vec<String>,
    /// Layers, leases and folders that nothing refers to, and snapshots whose time is over.
    pub leftovers: usize,
    /// Bytes freed, where the backend knows.
    pub bytes: u64,
}

/// What a sandbox has to be like; see [`Backend::delete_if`].
pub type Condition<'a> = dyn Fn(&Info) -> bool + Send + Sync + 'a;

/// A kind of machine that sandboxes run on.
///
/// Every call takes a cancel token and ends soon after it is cancelled with
/// [`super::Error::Cancelled`], leaving nothing half made. Dropping a future leaks nothing.
/// Names are checked before any I/O. Calls on a missing sandbox are
/// [`super::Error::NotFound`]; calls that need a running one are [`super::Error::NotRunning`].
#[async_trait]
pub trait Backend: Send + Sync {
    /// What can be done here. Cheap: probed once.
    fn capabilities(&self) -> &Capabilities;

    /// Whether the sources of mounts are folders of the machine that it drives: then it checks itself which
    /// ones there may be.
    fn mounts_its_own(&self) -> bool {
        false
    }

    /// What the image is now: a digest that changes with its content. Part of every step key.
    async fn fingerprint(
        &self,
        image: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String>;

    /// Makes a sandbox and starts it; when this returns, a command has run in it. With
    /// [`Spec::bare`] it is left stopped. On failure or cancel nothing is left behind.
    ///
    /// A sandbox has its caches for as long as it runs. While somebody else has one of them, this,
    /// [`Backend::start`] and [`Backend::clone`] fail with [`Error::CacheInUse`] and do nothing.
    async fn create(&self, spec: &Spec, cancel: &Cancel) -> Result<Info>;

    /// All sandboxes of this backend, by name.
    async fn list(&self, cancel: &Cancel) -> Result<Vec<Info>>;

    /// One sandbox.
    async fn get(&self, name: &str, cancel: &Cancel) -> Result<Info>;

    /// Starts it and waits until a command has run. A running one is left as it is; a frozen one is thawed.
    async fn start(&self, name: &str, cancel: &Cancel) -> Result<()>;

    /// Stops it: SIGTERM to all, SIGKILL after the grace. A stopped one is left as it is; a frozen one is stopped.
    async fn stop(&self, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()>;

    /// Deletes it with its snapshots, whatever state it is in. Clones of it live on.
    async fn delete(&self, name: &str, cancel: &Cancel) -> Result<()>;

    /// Deletes it if it is as `wanted` has it, and says whether it did; one that is not there is not.
    /// A backend that can look and delete in one step should: with this, somebody else may use the
    /// sandbox, or take its name, between the two.
    async fn delete_if(&self, name: &str, wanted: &Condition<'_>, cancel: &Cancel) -> Result<bool> {
        let done = match self.get(name, cancel).await {
            Ok(info) if wanted(&info) => self.delete(name, cancel).await,
            Ok(_) => return Ok(false),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(true),
            Err(Error::NotFound { kind: Kind::Sandbox, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until a command has run in it.
    async fn ready(&self, name: &str, timeout: Duration, cancel: &Cancel) -> Result<()>;

    /// Lets its processes stand still.
    async fn freeze(&self, name: &str, cancel: &Cancel) -> Result<()>;

    /// Lets them go on.
    async fn thaw(&self, name: &str, cancel: &Cancel) -> Result<()>;

    /// Starts a command. The argv arrives exactly; the streams are binary safe.
    async fn spawn(&self, name: &str, command: &Command, cancel: &Cancel) -> Result<Process>;

    /// Reads a file. Following links is done inside the sandbox.
    async fn read(
        &self,
        name: &str,
        path: &str,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Reader>;

    /// Replaces a file atomically with the bytes of `content`.
    async fn write(
        &self,
        name: &str,
        path: &str,
        content: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()>;

    /// The entries of a directory, by name.
    async fn read_dir(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Vec<FileEntry>>;

    /// One entry; a link is not followed.
    async fn stat(&self, name: &str, path: &str, cancel: &Cancel) -> Result<FileEntry>;

    /// Deletes a file or, with `recursive`, a tree. A link is deleted, not followed.
    async fn remove(&self, name: &str, path: &str, recursive: bool, cancel: &Cancel) -> Result<()>;

    /// Makes a directory and its parents; one that is there already is fine.
    async fn mkdir(
        &self,
        name: &str,
        path: &str,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()>;

    /// Unpacks a tar stream into directory `path`, which is made when missing. Mode, mtime and
    /// links are kept; owners become root unless `options.owner` says otherwise.
    async fn unpack(
        &self,
        name: &str,
        path: &str,
        tar: Reader,
        options: &WriteOptions,
        cancel: &Cancel,
    ) -> Result<()>;

    /// The tree or file at `path` as a tar stream, its names relative to `path` (a single file
    /// has its own name). The stream is the guest's word: unpack it with care.
    async fn pack(&self, name: &str, path: &str, cancel: &Cancel) -> Result<Reader>;

    /// Takes a snapshot; the sandbox goes on as it was. Works running and stopped.
    async fn snapshot(&self, name: &str, spec: &SnapshotSpec, cancel: &Cancel) -> Result<Snapshot>;

    /// Its snapshots, oldest first.
    async fn snapshots(&self, name: &str, cancel: &Cancel) -> Result<Vec<Snapshot>>;

    /// Every snapshot whose label starts with `prefix`, with the name of its sandbox. A backend that
    /// can answer by fewer calls should; this asks for each sandbox's snapshots.
    async fn find_snapshots(
        &self,
        prefix: &str,
        cancel: &Cancel,
    ) -> Result<Vec<(String, Snapshot)>> {
        let mut found = Vec::new();
        for info in self.list(cancel).await? {
            let snapshots = match self.snapshots(&info.name, cancel).await {
                Ok(snapshots) => snapshots,
                // Deleted since it was listed.
                Err(Error::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let fits = |snapshot: &Snapshot| snapshot.label.starts_with(prefix);
            found.extend(snapshots.into_iter().filter(fits).map(|s| (info.name.clone(), s)));
        }
        Ok(found)
    }

    /// Deletes a snapshot. Clones of it live on.
    async fn delete_snapshot(&self, name: &str, label: &str, cancel: &Cancel) -> Result<()>;

    /// Takes the sandbox back to a snapshot, any of them. One that ran is running again when this
    /// returns. Newer snapshots stay; a backend that can't keep them refuses unless
    /// [`Restore::discard_newer`].
    async fn restore(
        &self,
        name: &str,
        label: &str,
        options: Restore,
        cancel: &Cancel,
    ) -> Result<()>;

    /// Makes a new machine from a snapshot or from the current state: own hostname, machine-id
    /// and addresses; the source's limits, mounts, environment and policy. The source keeps running.
    async fn clone(&self, name: &str, spec: &CloneSpec, cancel: &Cancel) -> Result<Info>;

    /// The caches there are, by name.
    async fn caches(&self, _cancel: &Cancel) -> Result<Vec<CacheInfo>> {
        self.capabilities().require(Capability::Caches)?;
        Ok(Vec::new())
    }

    /// Deletes a cache with all that is in it. One that is in use is [`Error::CacheInUse`].
    async fn delete_cache(&self, name: &str, _cancel: &Cancel) -> Result<()> {
        self.capabilities().require(Capability::Caches)?;
        Err(Error::not_found(Kind::Cache, name))
    }

    /// What it has taken of the machine since it was started: what of it this backend knows. With
    /// [`super::Capability::Usage`] that is the processor time at least.
    async fn usage(&self, _name: &str, _cancel: &Cancel) -> Result<Usage> {
        Ok(Usage::default())
    }

    /// Its egress policy, exactly as it was set. Works running and stopped, as all calls on it do.
    async fn policy(&self, name: &str, cancel: &Cancel) -> Result<Policy> {
        self.get(name, cancel).await.map(|info| info.egress)
    }

    /// Replaces its egress policy, all of it, at once. Connections that the new one does not allow
    /// are cut. Where the policy can't be enforced, this fails and the old one stays in force.
    async fn set_policy(&self, _name: &str, _policy: &Policy, _cancel: &Cancel) -> Result<()> {
        Err(Error::unsupported("set_policy", &self.capabilities().backend, ""))
    }

    /// Adds a rule to its policy as [`Policy::allow`] does; in force when this returns. All other
    /// rules are in force all the time.
    async fn allow(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        let mut policy = self.policy(name, cancel).await?;
        policy.allow(rule)?;
        self.set_policy(name, &policy, cancel).await
    }

    /// Closes what a rule matches as [`Policy::deny`] does, and cuts what is open of it.
    async fn deny(&self, name: &str, rule: &Rule, cancel: &Cancel) -> Result<()> {
        let mut policy = self.policy(name, cancel).await?;
        policy.deny(rule)?;
        self.set_policy(name, &policy, cancel).await
    }

    /// Opens a port of this host's for one that a running sandbox's programs listen on, by its loopback
    /// interface too, and says where. Where `at` says nothing else that is a free port of this host's
    /// loopback interface, or the one there that is open for it already; port 0 of `at` is a free one.
    /// It is open under every policy, and ends with the sandbox: at a stop, a restore and a delete. Then
    /// nothing opens it again but another call.
    async fn publish(
        &self,
        _name: &str,
        _port: u16,
        _at: Option<SocketAddr>,
        _cancel: &Cancel,
    ) -> Result<SocketAddr> {
        self.capabilities().require(Capability::Publish)?;
        Err(Error::unsupported("publish", &self.capabilities().backend, ""))
    }

    /// Closes what is open for one of its ports, at one place or, without `at`, everywhere, and cuts what is
    /// connected there; gives what it has closed. The place is free when this returns. A port that is not
    /// open is [`Error::InvalidInput`].
    async fn unpublish(
        &self,
        _name: &str,
        _port: u16,
        _at: Option<SocketAddr>,
        _cancel: &Cancel,
    ) -> Result<Vec<Published>> {
        self.capabilities().require(Capability::Publish)?;
        Err(Error::unsupported("unpublish", &self.capabilities().backend, ""))
    }

    /// What it was refused and what it reached since it was made or restored.
    async fn egress_log(&self, name: &str, cancel: &Cancel) -> Result<EgressLog> {
        self.get(name, cancel).await.map(|_| EgressLog::default())
    }

    /// The members of the cluster; none where there is one machine only.
    async fn members(&self, _cancel: &Cancel) -> Result<Vec<Member>> {
        Ok(Vec::new())
    }

    /// The member of the cluster that holds a sandbox, if that member does not answer. Where it is gone
    /// for good, what was in the sandbox is lost.
    async fn away(&self, _name: &str, _cancel: &Cancel) -> Result<Option<String>> {
        Ok(None)
    }

    /// Calls a method of the machine's own interface by its name, with these parameters in order, and
    /// gives what it answers; where it is a job, waits for its end. One that may change something is
    /// refused unless `change`.
    async fn call(
        &self,
        _method: &str,
        _params: Vec<serde_json::Value>,
        _change: bool,
        _cancel: &Cancel,
    ) -> Result<serde_json::Value> {
        Err(Error::unsupported(
            "host().call()",
            &self.capabilities().backend,
            "it calls the methods of a NAS: use backend 'truenas'",
        ))
    }

    /// Makes ready what many sandboxes are about to be made from, on each member of the cluster where
    /// they may be, so that the first of them is made as fast as the last. May be called again.
    async fn prepare(
        &self,
        _stock: &Stock,
        _target: Option<&Placement>,
        _cancel: &Cancel,
    ) -> Result<()> {
        Ok(())
    }

    /// Keeps a sandbox whose run ends: takes the owner off.
    async fn keep(&self, name: &str, cancel: &Cancel) -> Result<()>;

    /// Takes over a sandbox that was made ahead, if it still can be taken ([`Adoption::fits`]); says
    /// whether it did. Of several who try at once, one does.
    async fn adopt(&self, name: &str, _adoption: &Adoption, cancel: &Cancel) -> Result<bool> {
        self.get(name, cancel).await?;
        self.capabilities().require(Capability::Pool).map(|()| false)
    }

    /// Finds what dead runs left and what has expired; deletes it unless `dry_run`. Never touches
    /// what a live run owns.
    async fn gc(&self, dry_run: bool, cancel: &Cancel) -> Result<GcReport>;
}
