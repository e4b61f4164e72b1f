//! The store: a folder that every process of one user shares.
//!
//! ```text
//! lock            shared while layers are being referred to, exclusive while they are collected
//! boxes/NAME/     record.json, snapshots/LABEL.json, control (socket); made (a file): its maker is done;
//!                 egress.json: what it was refused and reached
//! gate            socket of the process that carries what sandboxes send
//! layers/ID/      one subfolder a tree; .work-N of the overlay that writes to it
//! caches/NAME/    data, the folder that guests write to; lock, held while one has it: who, and since when
//! images/KEY.json which layers an image is
//! runs/ID         locked while that run lives
//! spare/          emptied folders, for the next sandboxes
//! trash/          on its way out
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::record::{self, Record, Saved, store_error};
use super::spare::{self, Spares};
use crate::sandbox::{Error, Kind, Result};

/// The folder.
pub struct Store {
    root: PathBuf,
    handle: OwnedFd,
    spares: Spares,
}

/// The file that says that a sandbox is made.
const MADE: &str = "made";

/// A lock that its holder's death releases.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its lock")] OwnedFd);

impl Store {
    /// Opens it, making what is missing. It holds real setuid programs, so nobody else may enter.
    pub fn open(root: &Path) -> Result<Store> {
        Store::with(root, &["boxes", "caches", "layers", "images", "runs", "spare", "trash"])
    }

    /// One of guests whose files are elsewhere.
    #[cfg(any(feature = "incus", feature = "nspawn"))]
    pub fn open_for_guests(root: &Path) -> Result<Store> {
        Store::with(root, &["boxes"])
    }

    fn with(root: &Path, folders: &[&str]) -> Result<Store> {
        let failed = |error: io::Error| match error.kind() {
            _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                store_error("opening the store", root, error)
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                store_error("opening the store", root, error)
            }
            _ => Error::invalid_hint(
                "store",
                format!("{} can't be used: {error}", root.display()),
                "name another folder with --store",
            ),
        };
        if root.to_str().is_none() {
            return Err(failed(io::Error::other("its name is not UTF-8")));
        }
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        for name in folders {
            folder.create(root.join(name)).map_err(failed)?;
            spread(&root.join(name));
        }
        let handle = File::open(&root).map_err(failed)?;
        let metadata = handle.metadata().map_err(failed)?;
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::Permission {
                what: format!("the store {} belongs to another user", root.display()),
            });
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let spares = Spares::new(root.join("spare"));
        Ok(Store { root, handle: handle.into(), spares })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Refuses a file system that overlays can't have their layers on.
    pub fn check_file_system(&self) -> Result<()> {
        let kind = match rustix::fs::fstatfs(&self.handle).map(|found| found.f_type) {
            Ok(0x794c_7630) => "an overlay",
            Ok(0x6969) => "NFS",
            Ok(0x4d44) => "FAT",
            _ => return Ok(()),
        };
        Err(Error::unsupported(
            format!("a store on {kind} ({})", self.root.display()),
            "local",
            "put the store on ext4, xfs, btrfs or tmpfs with --store",
        ))
    }

    /// The folder of all layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// A layer's folder.
    pub fn layer(&self, id: &str) -> PathBuf {
        self.root.join("layers").join(id)
    }

    /// A sandbox's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join("boxes").join(name)
    }

    /// A cache's folder.
    pub fn cache(&self, name: &str) -> PathBuf {
        self.root.join("caches").join(name)
    }

    /// Names of all caches, sorted.
    pub fn cache_names(&self) -> Result<Vec<String>> {
        list(&self.root.join("caches"))
    }

    /// Where images are recorded.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where a run's lock is.
    pub fn run(&self, id: &str) -> PathBuf {
        self.root.join("runs").join(id)
    }

    /// A path to a sandbox's socket that is short enough for a socket address.
    pub fn socket(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/boxes/{name}/control", self.handle.as_raw_fd()).into()
    }

    /// A path to the gate's socket.
    pub fn gate_socket(&self) -> PathBuf {
        format!("/proc/self/fd/{}/gate", self.handle.as_raw_fd()).into()
    }

    /// One at a time may start the gate.
    pub async fn gate_lock(&self) -> Result<Lock> {
        self.lock_file("gate.lock", FlockOperation::NonBlockingLockExclusive).await
    }

    /// Names of all sandboxes, sorted. A store that was moved away is an error, not an empty one.
    pub fn names(&self) -> Result<Vec<String>> {
        let folder = self.root.join("boxes");
        if let Err(error) = fs::metadata(&folder) {
            return Err(store_error("reading the store", &self.root, error));
        }
        list(&folder)
    }

    /// Ids of all layers.
    pub fn layer_ids(&self) -> Result<Vec<String>> {
        list(&self.layers())
    }

    /// What waits to be deleted.
    pub fn trash(&self) -> Result<Vec<PathBuf>> {
        let trash = self.root.join("trash");
        Ok(list(&trash)?.into_iter().map(|name| trash.join(name)).collect())
    }

    /// Where folders are kept for the next sandboxes.
    pub fn spare_folder(&self) -> PathBuf {
        self.root.join("spare")
    }

    /// The folders there.
    pub fn spares(&self) -> Vec<PathBuf> {
        self.spares.all()
    }

    /// A sandbox's record.
    pub fn record(&self, name: &str) -> Result<Record> {
        let folder = self.folder(name);
        let mut record: Record = record::load(&folder.join("record.json"))?
            .ok_or_else(|| Error::not_found(Kind::Sandbox, name))?;
        if record.maker.is_some() {
            match folder.join(MADE).exists() {
                true => record.maker = None,
                // Nobody knows how far it came.
                false => (record.fresh, record.new) = (true, true),
            }
        }
        Ok(record)
    }

    /// When a sandbox was last changed, started or touched.
    pub fn used(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.folder(name).join("record.json")).ok()?.modified().ok()
    }

    /// Notes that a sandbox is used now; to the minute, since it is done at each command.
    pub fn touch(&self, name: &str) {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
        let age = self.used(name).and_then(|used| used.elapsed().ok());
        if age.is_some_and(|age| age < Duration::from_secs(60)) {
            return;
        }
        let stamp = |nanos| Timespec { tv_sec: 0, tv_nsec: nanos };
        let times =
            Timestamps { last_access: stamp(UTIME_OMIT), last_modification: stamp(UTIME_NOW) };
        let _ = utimensat(CWD, self.folder(name).join("record.json"), &times, AtFlags::empty());
    }

    /// Says that a sandbox is made as its record has it.
    pub fn mark_made(&self, name: &str) -> Result<()> {
        let path = self.folder(name).join(MADE);
        File::create(&path).map(drop).map_err(|error| store_error("writing", &path, error))
    }

    /// Replaces it.
    pub fn save(&self, record: &Record) -> Result<()> {
        let path = self.folder(&record.spec.name).join("record.json");
        match record.spec.owner {
            Some(_) => record::save_for_a_run(&path, record),
            None => record::save(&path, record),
        }
    }

    /// A sandbox's snapshots, oldest first.
    pub fn snapshots(&self, name: &str) -> Result<Vec<Saved>> {
        let folder = self.folder(name).join("snapshots");
        let mut all = Vec::new();
        for file in list(&folder)? {
            if file.ends_with(".json")
                && let Some(saved) = record::load::<Saved>(&folder.join(file))?
            {
                all.push(saved);
            }
        }
        all.sort_by_key(|saved| saved.created);
        Ok(all)
    }

    /// Where a snapshot is recorded.
    pub fn snapshot_file(&self, name: &str, label: &str) -> PathBuf {
        self.folder(name).join("snapshots").join(format!("{label}.json"))
    }

    /// Makes the folder of a sandbox's snapshots: most sandboxes never have one.
    pub fn make_snapshot_folder(&self, name: &str) -> Result<()> {
        let folder = self.folder(name).join("snapshots");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(store_error("making", &folder, error))
            }
            _ => Ok(()),
        }
    }

    /// The time of a new snapshot: now, but after those that are there, also where the clock was set
    /// back since.
    pub fn next_time(&self, name: &str) -> SystemTime {
        let now = crate::sandbox::wall_clock();
        let folder = self.folder(name).join("snapshots");
        match fs::metadata(folder).and_then(|found| found.modified()) {
            Ok(changed) => now.max(changed + Duration::from_micros(1)),
            Err(_) => now,
        }
    }

    /// Remembers the time of a new snapshot where the clock is behind it, for [`Store::next_time`].
    pub fn note_time(&self, name: &str, created: SystemTime) {
        if created > crate::sandbox::wall_clock()
            && let Ok(folder) = File::open(self.folder(name).join("snapshots"))
        {
            let _ = folder.set_modified(created);
        }
    }

    /// One snapshot.
    pub fn saved(&self, name: &str, label: &str) -> Result<Saved> {
        record::load(&self.snapshot_file(name, label))?
            .ok_or_else(|| Error::not_found(Kind::Snapshot, format!("{name}/{label}")))
    }

    /// A folder for a new layer with the given trees.
    pub fn new_layer(&self, trees: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<String> {
        let trees: Vec<_> = trees.into_iter().collect();
        let id = random_id();
        let folder = self.layer(&id);
        if !trees.is_empty() && self.spares.take(&spare::of_trees(&trees), &folder) {
            return Ok(id);
        }
        let made = fs::create_dir(&folder).and_then(|()| {
            trees.into_iter().try_for_each(|tree| fs::create_dir(folder.join(tree)))
        });
        match made {
            Ok(()) => Ok(id),
            Err(error) => {
                let _ = fs::remove_dir_all(&folder);
                Err(store_error("making a layer in", &folder, error))
            }
        }
    }

    /// Moves something out of the way, to be deleted later. Missing is fine.
    pub fn discard(&self, path: &Path) -> Result<Option<PathBuf>> {
        let place = self.root.join("trash").join(random_id());
        match fs::rename(path, &place) {
            Ok(()) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(store_error("deleting", path, error)),
        }
    }

    /// Puts a prepared folder in place as a sandbox, unless the name is taken.
    pub fn publish(&self, prepared: &Path, name: &str) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let place = self.folder(name);
        match renameat_with(CWD, prepared, CWD, &place, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => Err(Error::exists(Kind::Sandbox, name)),
            Err(error) => Err(store_error("making", &place, error.into())),
        }
    }

    /// A folder to prepare a sandbox in; what is left there is trash.
    pub fn scratch(&self) -> Result<PathBuf> {
        let place = self.root.join("trash").join(random_id());
        if self.spares.take(spare::BOX, &place) {
            // The gate may have written once more while it was emptied.
            let _ = fs::remove_file(place.join(super::gate::LOG));
            return Ok(place);
        }
        match fs::create_dir(&place) {
            Ok(()) => Ok(place),
            Err(error) => Err(store_error("making", &place, error)),
        }
    }

    /// Holds off collection while something that refers to layers is being written.
    pub async fn referring(&self) -> Result<Lock> {
        self.lock_file("lock", FlockOperation::NonBlockingLockShared).await
    }

    /// Like [`Store::referring`], if nobody is collecting right now.
    pub fn referring_now(&self) -> Option<Lock> {
        self.lock_now(FlockOperation::NonBlockingLockShared)
    }

    /// Waits for all that refer to layers.
    pub async fn collecting(&self) -> Result<Lock> {
        self.lock_file("lock", FlockOperation::NonBlockingLockExclusive).await
    }

    /// Like [`Store::collecting`], if nobody refers to layers right now.
    pub fn collecting_now(&self) -> Option<Lock> {
        self.lock_now(FlockOperation::NonBlockingLockExclusive)
    }

    fn lock_now(&self, operation: FlockOperation) -> Option<Lock> {
        let file = File::options().create(true).append(true).open(self.root.join("lock")).ok()?;
        flock(&file, operation).ok()?;
        Some(Lock(file.into()))
    }

    /// One at a time may prepare this image.
    pub async fn image_lock(&self, key: &str) -> Result<Lock> {
        self.lock_file(&format!("images/{key}.lock"), FlockOperation::NonBlockingLockExclusive)
            .await
    }

    async fn lock_file(&self, name: &str, operation: FlockOperation) -> Result<Lock> {
        let path = self.root.join(name);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| store_error("opening", &path, error))?;
        let deadline = Instant::now() + Duration::from_secs(600);
        match wait_for(file.as_fd(), operation, deadline).await {
            true => Ok(Lock(file.into())),
            false => Err(Error::Timeout {
                what: format!("waiting for {}", path.display()),
                after: Duration::from_secs(600),
            }),
        }
    }

    /// One at a time may change a sandbox. Waits for up to half a minute.
    pub async fn changing(&self, name: &str) -> Result<Lock> {
        let path = self.folder(name);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let folder = match File::open(&path) {
                Ok(folder) => folder,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::not_found(Kind::Sandbox, name));
                }
                Err(error) => return Err(store_error("opening", &path, error)),
            };
            if !wait_for(folder.as_fd(), FlockOperation::NonBlockingLockExclusive, deadline).await {
                let what = "another command is working on it".into();
                return Err(Error::Busy { name: name.into(), what });
            }
            // Meanwhile it may have been deleted, or deleted and made anew.
            use std::os::unix::fs::MetadataExt;
            let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
            if inode(folder.metadata()) == inode(fs::metadata(&path)) {
                return Ok(Lock(folder.into()));
            }
        }
    }

    /// Whether another process is changing it right now.
    pub fn being_changed(&self, name: &str) -> bool {
        File::open(self.folder(name))
            .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Takes the lock of a folder or file that nobody else knows yet.
    pub fn lock_new(&self, path: &Path) -> Result<Lock> {
        let file = File::open(path).map_err(|error| store_error("opening", path, error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| store_error("locking", path, error.into()))?;
        Ok(Lock(file.into()))
    }

    /// Marks a run as alive for as long as the lock is held.
    pub fn enter_run(&self, id: &str) -> Result<Lock> {
        use std::os::unix::fs::MetadataExt;
        let path = self.run(id);
        loop {
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(|error| store_error("opening", &path, error))?;
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                // A collector looks for an instant whether anybody holds it.
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(error) => return Err(store_error("locking", &path, error.into())),
            }
            // A collector may have taken the file away between the two.
            let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
            if inode(file.metadata()) == inode(fs::metadata(&path)) {
                return Ok(Lock(file.into()));
            }
        }
    }

    /// Whether a run's process lives.
    pub fn run_lives(&self, id: &str) -> bool {
        let Ok(file) = File::options().append(true).open(self.run(id)) else { return false };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// Forgets the marks of dead runs.
    pub fn forget_dead_runs(&self) -> Result<()> {
        for id in list(&self.root.join("runs"))? {
            if !self.run_lives(&id) {
                let _ = fs::remove_file(self.run(&id));
            }
        }
        Ok(())
    }
}

/// Asks ext4 to spread what is in a folder over the disk. It does not give out inodes again soon after
/// they were deleted, but looks at each of them: with all in one place, making a sandbox gets slower
/// with every one that was deleted in the last minutes.
fn spread(folder: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    if let Ok(folder) = File::open(folder)
        && let Ok(flags) = ioctl_getflags(&folder)
        && !flags.contains(IFlags::TOPDIR)
    {
        // Other file systems have no such flag, nor such a need.
        let _ = ioctl_setflags(&folder, flags | IFlags::TOPDIR);
    }
}

async fn wait_for(file: std::os::fd::BorrowedFd<'_>, how: FlockOperation, until: Instant) -> bool {
    let mut pause = Duration::from_micros(200);
    while flock(file, how).is_err() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    true
}

fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(store_error("reading", folder, error)),
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Sixteen random hex digits.
pub fn random_id() -> String {
    let mut bytes = [0; 8];
    // The kernel's pool is ready long before any program of ours runs.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("{:016x}", u64::from_ne_bytes(bytes))
}
