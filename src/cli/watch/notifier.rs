//! Tells when something happens in a folder.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Watches folders, not what is below them: of a file that is saved by renaming another over it,
/// only its folder tells.
pub(super) struct Notifier {
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<notify::Result<Event>>,
    /// Which folder it was: one of the same name may have come into its place.
    watched: HashMap<PathBuf, (u64, u64)>,
    /// Why not everything is watched, and what to do; told once.
    trouble: Option<Trouble>,
}

/// Why not everything can be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub message: String,
    pub hint: String,
}

impl Notifier {
    /// One that watches nothing yet.
    pub fn new() -> Notifier {
        let (sender, events) = mpsc::unbounded_channel();
        let tell = move |event: notify::Result<Event>| {
            // Reading is no change; most of it is our own.
            let reads = matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(kind)
                if kind != AccessKind::Close(AccessMode::Write)));
            if !reads {
                let _ = sender.send(event);
            }
        };
        match RecommendedWatcher::new(tell, Config::default()) {
            Ok(watcher) => {
                Notifier { watcher: Some(watcher), events, watched: HashMap::new(), trouble: None }
            }
            Err(error) => Notifier {
                watcher: None,
                events,
                watched: HashMap::new(),
                trouble: Some(no_instance(&error)),
            },
        }
    }

    /// Whether some folders are not watched.
    pub fn is_blind(&self) -> bool {
        self.watcher.is_none() || self.trouble.is_some()
    }

    /// Why not everything is watched.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The folders that are watched.
    pub fn watched(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.watched.keys().cloned()
    }

    /// Watches these folders and no others. One that is missing is left out. Says whether any of them
    /// was not watched before.
    pub fn watch(&mut self, folders: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut new = false;
        let gone: Vec<PathBuf> =
            self.watched.keys().filter(|folder| !folders.contains(*folder)).cloned().collect();
        for folder in gone {
            self.watched.remove(&folder);
            let _ = watcher.unwatch(&folder);
        }
        self.trouble = None;
        for folder in folders {
            let Some(which) = identity(folder) else { continue };
            match self.watched.get(folder) {
                Some(known) if *known == which => continue,
                Some(_) => drop(watcher.unwatch(folder)),
                None => {}
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    new = true;
                    self.watched.insert(folder.clone(), which);
                }
                Err(error) => match error.kind {
                    ErrorKind::PathNotFound => {}
                    ErrorKind::MaxFilesWatch => {
                        self.trouble = Some(no_watches(folders.len()));
                        break;
                    }
                    _ => self.trouble = Some(not_watched(folder, &error)),
                },
            }
        }
        new
    }

    /// The paths that the next event is about; nothing when events were lost and anything may have
    /// happened.
    pub async fn next(&mut self) -> Vec<PathBuf> {
        match self.events.recv().await {
            Some(Ok(event)) => {
                if event.kind.is_remove() || event.kind.is_modify() {
                    for path in &event.paths {
                        self.recheck(path);
                    }
                }
                if event.need_rescan() { Vec::new() } else { event.paths }
            }
            Some(Err(_)) => Vec::new(),
            None => std::future::pending().await,
        }
    }

    /// A watch on a folder that was deleted or moved away is of no more use.
    fn recheck(&mut self, path: &Path) {
        if let Some(known) = self.watched.get(path)
            && identity(path) != Some(*known)
        {
            self.watched.remove(path);
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.unwatch(path);
            }
        }
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let meta = folder.metadata().ok().filter(std::fs::Metadata::is_dir)?;
    Some((meta.dev(), meta.ino()))
}

fn setting(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

fn no_watches(wanted: usize) -> Trouble {
    let allowed = setting("max_user_watches");
    let more = allowed.parse().unwrap_or(0).max(wanted * 2).max(524_288);
    Trouble {
        message: format!(
            "this machine lets a user watch {allowed} folders, and there are none left for the \
             {wanted} that are wanted here"
        ),
        hint: format!(
            "until there are, changes are looked for every 2 seconds; allow more:\n\
             sysctl fs.inotify.max_user_watches={more}"
        ),
    }
}

fn no_instance(error: &notify::Error) -> Trouble {
    let allowed = setting("max_user_instances");
    Trouble {
        message: format!(
            "no folder can be watched: {error} (a user may have {allowed} watchers on this machine)"
        ),
        hint: "until one can, changes are looked for every 2 seconds; allow more:\n\
               sysctl fs.inotify.max_user_instances=1024"
            .into(),
    }
}

fn not_watched(folder: &Path, error: &notify::Error) -> Trouble {
    Trouble {
        message: format!("{} can't be watched: {error}", folder.display()),
        hint: "changes in it are looked for every 2 seconds".into(),
    }
}
