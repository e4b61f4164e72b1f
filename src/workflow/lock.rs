//! The lock file: which image a name stood for when it was written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Event, EventSink};
use crate::sandbox::{Error, Result};

/// The name of the lock file, in the project folder.
pub const LOCK_FILE: &str = "sandscript.lock";
/// The version of the lock file that is written.
const VERSION: u32 = 1;

/// What a lock file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    /// [`VERSION`].
    version: u32,
    /// The pins, sorted.
    pub images: Vec<Pin>,
}

/// An image, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The backend that says so.
    pub backend: String,
    /// The image as scripts name it.
    pub image: String,
    /// The checksum that scripts give with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its fingerprint.
    pub fingerprint: String,
}

impl LockFile {
    /// Reads it; `None` when there is none.
    pub fn read(path: &Path) -> Result<Option<LockFile>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("{} can't be read: {error}", path.display());
                return Err(Error::invalid(LOCK_FILE, message));
            }
        };
        let wrong = |why: String| {
            Error::invalid_hint(
                LOCK_FILE,
                format!("{}: {why}", path.display()),
                "write it anew: delete it, then sandscript lock update SCRIPT",
            )
        };
        let found: LockFile =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if found.version != VERSION {
            return Err(wrong(format!("version {} is not known here", found.version)));
        }
        Ok(Some(found))
    }

    /// Writes it in one step.
    pub fn write(&mut self, path: &Path) -> Result<()> {
        self.version = VERSION;
        self.images.sort();
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        let draft = path.with_extension(format!("lock.{}", std::process::id()));
        let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&draft);
            Error::invalid(LOCK_FILE, format!("{} can't be written: {error}", path.display()))
        })
    }

    /// What is pinned of an image.
    pub fn pin(&self, backend: &str, image: &str, sha256: Option<&str>) -> Option<&Pin> {
        let same = |pin: &&Pin| {
            (pin.backend.as_str(), pin.image.as_str(), pin.sha256.as_deref())
                == (backend, image, sha256)
        };
        self.images.iter().find(same)
    }

    /// Pins an image anew; what it was before.
    pub fn set(&mut self, pin: Pin) -> Option<Pin> {
        let before = self.pin(&pin.backend, &pin.image, pin.sha256.as_deref()).cloned();
        self.images.retain(|old| Some(old) != before.as_ref());
        self.images.push(pin);
        before
    }
}

/// How images are held against the lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinMode {
    /// Another image than the pinned one, or one that is not pinned, is an error.
    Locked,
    /// It is only written down.
    Record,
    /// Another image than the pinned one is a warning.
    Warn,
}

/// The pins of a run, and the images that it asked for.
#[derive(Debug)]
pub struct Pins {
    file: PathBuf,
    lock: LockFile,
    mode: PinMode,
    /// Answers so far, by image and checksum.
    seen: Mutex<BTreeMap<(String, Option<String>), Pin>>,
}

impl Pins {
    /// Holds images against `lock`, which was read from `file`.
    pub fn new(file: PathBuf, lock: LockFile, mode: PinMode) -> Pins {
        Pins { file, lock, mode, seen: Mutex::default() }
    }

    /// What was asked for.
    pub fn seen(&self) -> Vec<Pin> {
        self.all().values().cloned().collect()
    }

    /// Whether this image was held against the lock file already.
    pub(super) fn knows(&self, image: &str, sha256: Option<&str>) -> bool {
        self.all().contains_key(&(image.to_owned(), sha256.map(str::to_owned)))
    }

    /// Holds an image against the lock file.
    pub(super) fn check(&self, now: Pin, events: &EventSink) -> Result<()> {
        let pinned = self.lock.pin(&now.backend, &now.image, now.sha256.as_deref());
        let message = match pinned {
            Some(pinned) if pinned.fingerprint == now.fingerprint => None,
            Some(pinned) => Some(format!(
                "image '{}' is not the one in {}: {} is locked, it is {} now",
                now.image,
                self.shown(),
                pinned.fingerprint,
                now.fingerprint
            )),
            None => Some(format!(
                "image '{}' of backend '{}' is not in {}",
                now.image,
                now.backend,
                self.shown()
            )),
        };
        let missing = pinned.is_none();
        let first = self.all().insert((now.image.clone(), now.sha256.clone()), now).is_none();
        let hint = "to take it as it is now: sandscript lock update SCRIPT";
        match (self.mode, message) {
            (PinMode::Locked, Some(message)) => Err(Error::invalid_hint("locked", message, hint)),
            (PinMode::Warn, Some(message)) if !missing && first => {
                events.send(Event::Warning { message, hint: Some(hint.into()) });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn shown(&self) -> String {
        let name = self.file.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, Option<String>), Pin>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
