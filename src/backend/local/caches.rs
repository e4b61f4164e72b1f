//! Caches: folders of the store that outlive sandboxes. One that runs holds the lock of each of its
//! own: process 1 has the descriptor, so the lock goes with it, however it ends.
//!
//! What is in a cache is the guest's word: nothing here opens or follows anything in it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::Inner;
use super::protocol::Task;
use super::record::store_error;
use crate::sandbox::{CacheInfo, CacheMount, Error, Kind, Mount, Result, check_label};

/// A sandbox that has just ended may hold its lock a little longer.
const PATIENCE: Duration = Duration::from_millis(50);
/// The same where a sandbox waits for itself as it was before.
const OWN: Duration = Duration::from_secs(5);

/// The caches of a sandbox that is about to start.
#[derive(Default)]
pub struct Caches {
    /// What holds them.
    pub locks: Vec<OwnedFd>,
    /// Where they go, those that hold others first.
    pub mounts: Vec<Mount>,
}

impl Inner {
    /// Takes caches for a sandbox, all or none.
    pub(super) async fn take_caches(&self, sandbox: &str, wanted: &[CacheMount]) -> Result<Caches> {
        let mut caches = Caches::default();
        let mut wanted: Vec<&CacheMount> = wanted.iter().collect();
        wanted.sort_by(|a, b| a.target.cmp(&b.target));
        let began = Instant::now();
        for cache in wanted {
            let lock = loop {
                match self.lock_cache(cache, sandbox)? {
                    Ok(lock) => break lock,
                    Err(by) => {
                        let own = by.as_deref() == Some(sandbox);
                        if began.elapsed() >= if own { OWN } else { PATIENCE } {
                            return Err(Error::CacheInUse { name: cache.name.clone(), by });
                        }
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            };
            caches.locks.push(lock);
            caches.mounts.push(Mount {
                source: self.store.cache(&cache.name).join("data"),
                target: cache.target.clone(),
                readonly: false,
            });
        }
        Ok(caches)
    }

    /// Locks a cache, making it when there is none; who has it when somebody else does.
    fn lock_cache(
        &self,
        cache: &CacheMount,
        sandbox: &str,
    ) -> Result<std::result::Result<OwnedFd, Option<String>>> {
        let folder = self.store.cache(&cache.name);
        let failed = |error: io::Error| store_error("opening the cache", &folder, error);
        let how = match cache.shared {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let path = self.make_cache(&cache.name)?;
            let file = File::options().read(true).append(true).create(true).open(&path);
            let mut file = match file {
                // Deleted in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            match flock(&file, how) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Err(holder(&mut file))),
                Err(error) => return Err(failed(error.into())),
            }
            let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
            if inode(file.metadata()) != inode(fs::metadata(&path)) {
                continue;
            }
            // Only who is alone says so. Nothing depends on it.
            let _ = file.set_len(0);
            if !cache.shared {
                let _ = file.write_all(sandbox.as_bytes());
            }
            let _ = file.set_modified(SystemTime::now());
            return Ok(Ok(file.into()));
        }
    }

    /// The lock file of a cache whose folders are there.
    fn make_cache(&self, name: &str) -> Result<PathBuf> {
        let folder = self.store.cache(name);
        let data = folder.join("data");
        if !data.is_dir() {
            let failed = |error: io::Error| store_error("making the cache", &folder, error);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
            match fs::create_dir(&data) {
                // Any user of the guest may write there, as in /tmp. The umask is not asked.
                Ok(()) => fs::set_permissions(&data, fs::Permissions::from_mode(0o1777))
                    .map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(folder.join("lock"))
    }

    pub(super) async fn caches(&self) -> Result<Vec<CacheInfo>> {
        let mut all = Vec::new();
        for name in self.store.cache_names()? {
            let folder = self.store.cache(&name);
            let Ok(mut file) = File::open(folder.join("lock")) else { continue };
            let used = file.metadata().and_then(|found| found.modified());
            let busy = flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
            let by = if busy { holder(&mut file) } else { None };
            // Before the measuring, which takes its time.
            drop(file);
            let paths = vec![folder.join("data")];
            let task = Task::Measure { paths };
            let size = self.keeper().await?.perform(&task, &self.mode).await?;
            let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
            all.push(CacheInfo { name, size, used, busy, by });
        }
        Ok(all)
    }

    pub(super) async fn delete_cache(&self, name: &str) -> Result<()> {
        let missing = || Error::not_found(Kind::Cache, name);
        check_label(name).map_err(|_| missing())?;
        let folder = self.store.cache(name);
        let mut file = match File::open(folder.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            file => file.map_err(|error| store_error("opening the cache", &folder, error))?,
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let by = holder(&mut file);
            return Err(Error::CacheInUse { name: name.into(), by });
        }
        let trash = self.store.discard(&folder)?.into_iter().collect();
        self.throw_away(trash, Vec::new()).await
    }
}

/// Who wrote its name into a lock file.
fn holder(file: &mut File) -> Option<String> {
    let mut name = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(64).read_to_string(&mut name).ok()?;
    (!name.is_empty()).then_some(name)
}
