//! What the store knows of a sandbox and of a snapshot: one JSON file each, replaced by rename.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::protocol::Tree;
use super::sys;
use crate::sandbox::{Error, Published, Result, Snapshot, Spec};

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Of this format.
    pub version: u32,
    /// What it was made from, with all defaults filled in.
    pub spec: Spec,
    /// Digest of the image.
    pub fingerprint: String,
    /// Its trees, root first.
    pub trees: Vec<Tree>,
    /// Layers, top first; the image's own at the end.
    pub layers: Vec<String>,
    /// How many of them are the image's.
    pub image_layers: usize,
    /// The layer it writes to.
    pub upper: String,
    /// When it was made.
    pub created: SystemTime,
    /// Content of `/etc/machine-id`.
    pub machine_id: String,
    /// Its identity is still to be written.
    pub fresh: bool,
    /// It has not run yet: SSH host keys in it are another machine's.
    pub new: bool,
    /// Layers of its own are below the upper.
    pub sealed: bool,
    /// `NAME` or `NAME/LABEL` it was cloned from.
    pub source: Option<String>,
    /// Its cgroups since its last start, inner before outer.
    pub groups: Vec<PathBuf>,
    /// All its connections go through the gate, since its last start.
    #[serde(default)]
    pub gated: bool,
    /// Its ports that are open on this host since its last start, and where.
    #[serde(default)]
    pub published: Vec<Published>,
    /// The run that is making it; none when it is made.
    pub maker: Option<String>,
}

/// The version written.
pub const VERSION: u32 = 1;

impl Record {
    /// The same with other marks of what is still to be done to its identity: `fresh` and `new`.
    pub fn identified(&self, (fresh, new): (bool, bool)) -> Record {
        Record { fresh, new, ..self.clone() }
    }
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// Its label.
    pub label: String,
    /// When it was taken.
    pub created: SystemTime,
    /// How long processes stood still.
    pub frozen: Duration,
    /// Layers, top first.
    pub layers: Vec<String>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// When it may be deleted.
    #[serde(default)]
    pub expires: Option<SystemTime>,
    /// Which boot of the machine it was taken in: overlays are volatile, so its files are sure to be
    /// on disk only in that boot, or when its layer is marked as written.
    #[serde(default)]
    pub boot: String,
    /// Bytes of the layer that it added, once measured.
    pub size: Option<u64>,
}

impl Saved {
    /// As the contract reports it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            label: self.label.clone(),
            created: self.created,
            size: self.size.unwrap_or(0),
            frozen: self.frozen,
            labels: self.labels.clone(),
            expires: self.expires,
        }
    }
}

/// The id of this boot of the machine.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Reads a record; `None` when there is none.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::internal(format!("{} is damaged: {error}", path.display()))),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(store_error("reading", path, error)),
    }
}

/// Writes a record into a folder that nobody else knows yet.
pub fn save_new(path: &Path, record: &impl Serialize) -> Result<()> {
    let bytes = encoded(path, record)?;
    // An old one is written over, not emptied: ext4 would begin to write the new one to the disk.
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let written = file.and_then(|mut file| {
        io::Write::write_all(&mut file, &bytes)?;
        file.set_len(bytes.len() as u64)
    });
    written.map_err(|error| store_error("writing", path, error))
}

fn encoded(path: &Path, record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record)
        .map_err(|error| Error::internal(format!("{}: {error}", path.display())))
}

/// Replaces a record in one step: a reader sees the old one or the new one. The new one is on its way to
/// the disk soon after.
pub fn save(path: &Path, record: &impl Serialize) -> Result<()> {
    save_for_a_run(path, record)?;
    let path = path.to_owned();
    let write = move || {
        if let Ok(file) = fs::File::open(path) {
            // Whoever waits for the disk says so with a sync; this is for a power cut.
            let _ = sys::start_writing(file.as_fd());
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(write)),
        Err(_) => write(),
    }
    Ok(())
}

/// Like [`save`], for what need not outlive a power cut: the old and the new file change places. At
/// a rename over a file, ext4 first begins to write the new one to the disk, which takes long while
/// the disk is busy.
pub fn save_for_a_run(path: &Path, record: &impl Serialize) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let prepared = Prepared::write(path, record)?;
    match renameat_with(CWD, &prepared.temporary, CWD, path, RenameFlags::EXCHANGE) {
        // What was the old one is deleted with the rest of the preparation.
        Ok(()) => Ok(()),
        // It is the first, or the file system can't exchange.
        Err(_) => prepared.put(),
    }
}

/// A record that is written but not in place yet: the disk may be full before it, not after it.
pub struct Prepared {
    path: PathBuf,
    temporary: PathBuf,
}

impl Prepared {
    /// Writes it beside its place.
    pub fn write(path: &Path, record: &impl Serialize) -> Result<Prepared> {
        let mut temporary = path.as_os_str().to_owned();
        // A name of its own: two writers must not write into one file.
        temporary.push(format!(".{}", super::store::random_id()));
        let prepared = Prepared { path: path.to_owned(), temporary: temporary.into() };
        let bytes = encoded(path, record)?;
        fs::write(&prepared.temporary, bytes)
            .map_err(|error| store_error("writing", path, error))?;
        Ok(prepared)
    }

    /// Puts it in place.
    pub fn put(self) -> Result<()> {
        fs::rename(&self.temporary, &self.path)
            .map_err(|error| store_error("writing", &self.path, error))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A failure of the store's file system.
pub fn store_error(doing: &str, path: &Path, error: io::Error) -> Error {
    if let Some(libc::EMFILE | libc::ENFILE) = error.raw_os_error() {
        return Error::too_many_files(&format!("{doing} {}", path.display()));
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Exhausted {
            what: format!("no space left {doing} {}", path.display()),
            hint: "free some space, or choose another folder with --store".into(),
        },
        io::ErrorKind::ReadOnlyFilesystem => Error::invalid_hint(
            "store",
            format!("{doing} {}: {error}", path.display()),
            "name another folder with --store",
        ),
        io::ErrorKind::PermissionDenied => Error::Permission { what: path.display().to_string() },
        _ => Error::io(format!("{doing} {}", path.display()), error),
    }
}
