//! Trees that are stacks of layers, for file systems that share nothing themselves: what an image holds is unpacked
//! once, and each machine has a layer of its own above it. A snapshot is a layer that nobody writes to any more.
//!
//! Each machine has other ids on disk, since the layer that it writes to has those of its users. Layers of others
//! are mapped to them by mounts, which the kernel can do for the lower ones only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};
use serde::{Deserialize, Serialize};

use super::super::super::guest::token;
use super::super::super::local::{idmap_mount, load, save, store_error};
use super::super::image::blocking;
use super::super::store::{Lock, hold};
use super::copy;
use super::links::{self, Link, is_mounted};
use super::owners::map_of;
use crate::sandbox::{Error, Result};

/// The folder of the store that machines' trees are mounted in.
const MOUNTS: &str = "mounts";
/// Longer stacks are merged by the next snapshot: the kernel's limit is 500.
const LONG: usize = 60;
/// Where the lower layers of a tree are while it is mounted.
const STAGES: &str = "/run/sandscript/nspawn";

/// Where they are.
#[derive(Debug)]
pub(in super::super) struct Overlay {
    root: PathBuf,
}

/// What is known of a layer, beside its files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Layer {
    /// The first of the ids that its files have; none for one that nobody has written to yet.
    base: Option<u32>,
    /// Those below it, top first.
    lower: Vec<String>,
}

impl Overlay {
    /// Whether layers can be mapped and stacked here; it is tried once after each boot of the host.
    pub async fn probe(root: &Path) -> Result<Option<Overlay>> {
        let overlay = Overlay { root: root.to_owned() };
        for name in ["layers", MOUNTS] {
            let folder = root.join(name);
            let mut maker = fs::DirBuilder::new();
            maker.recursive(true).mode(0o700);
            maker.create(&folder).map_err(|error| store_error("making", &folder, error))?;
        }
        let hash = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        let note = Path::new(STAGES).join(format!("layers-{}", &hash[..8]));
        let known = fs::read_to_string(&note).unwrap_or_default();
        if known == "no" {
            return Ok(None);
        }
        if known == "yes" {
            return Ok(Some(overlay));
        }
        let works = overlay.works().await;
        let word = if works { "yes" } else { "no" };
        let _ = fs::create_dir_all(STAGES).and_then(|()| fs::write(&note, word));
        Ok(works.then_some(overlay))
    }

    /// Stacks an empty tree on another one, with other ids.
    async fn works(&self) -> bool {
        let tried = async {
            let _lock = self.lock().await?;
            let below = self.new_layer(&Layer { base: Some(0), lower: Vec::new() })?;
            let above = self.new_layer(&Layer { base: None, lower: vec![below.clone()] })?;
            let file = self.files(&below).join("f");
            fs::write(&file, "").map_err(|error| store_error("writing", &file, error))?;
            let mounted = self.mount(&above, 1 << 30, true).await;
            let place = self.place(&above);
            let seen = fs::metadata(place.join("f")).map(|found| found.uid());
            let wrote = fs::write(place.join("g"), "");
            self.unmount(&above);
            for id in [&above, &below] {
                copy::remove(&self.folder(id)).await?;
            }
            mounted.map(|()| seen.is_ok_and(|uid| uid == 1 << 30) && wrote.is_ok())
        };
        tried.await.unwrap_or(false)
    }

    async fn lock(&self) -> Result<Lock> {
        hold(&self.root.join("layers.lock")).await
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.root.join("layers").join(id)
    }

    fn files(&self, id: &str) -> PathBuf {
        self.folder(id).join("files")
    }

    fn place(&self, id: &str) -> PathBuf {
        self.root.join(MOUNTS).join(id)
    }

    fn layer(&self, id: &str) -> Result<Layer> {
        load(&self.folder(id).join("layer.json"))?
            .ok_or_else(|| Error::internal(format!("the store has no layer {id}")))
    }

    fn new_layer(&self, layer: &Layer) -> Result<String> {
        let id = token();
        let (folder, files) = (self.folder(&id), self.files(&id));
        let made = fs::create_dir(&folder).and_then(|()| fs::create_dir(&files));
        made.map_err(|error| store_error("making", &files, error))?;
        let above_all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&files, above_all)
            .map_err(|error| store_error("making", &files, error))?;
        save(&folder.join("layer.json"), layer)?;
        Ok(id)
    }

    /// Makes an empty tree; where it is.
    pub async fn make(&self, tree: &Path) -> Result<PathBuf> {
        let _lock = self.lock().await?;
        let id = self.new_layer(&Layer { base: Some(0), lower: Vec::new() })?;
        let files = self.files(&id);
        Link::Still(id).put(tree, MOUNTS)?;
        Ok(files)
    }

    /// Makes a tree's state of now one that stays. One that nobody uses goes on in a new layer; of one that a
    /// machine `runs` in, which can't be changed below it, what was written is copied.
    pub async fn keep(&self, from: &Path, to: &Path, runs: bool) -> Result<()> {
        match Link::read(from) {
            None => copy::copy(from, to).await,
            Some(still @ Link::Still(_)) => still.put(to, MOUNTS),
            Some(Link::Live(id)) => {
                let (kept, done) = {
                    let _lock = self.lock().await?;
                    let (kept, source) = self.keep_in_lock(from, &id, runs)?;
                    // What a link says stays, so that the others need not wait for the copy.
                    Link::Still(kept.clone()).put(to, MOUNTS)?;
                    (kept, source)
                };
                match done {
                    Some(source) => self.fill(&source, &kept).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// The layer that has a tree's state of now, and what is to be copied into it.
    fn keep_in_lock(&self, from: &Path, id: &str, runs: bool) -> Result<(String, Option<PathBuf>)> {
        let layer = self.layer(id)?;
        if !runs && layer.lower.len() < LONG {
            self.unmount(id);
            let lower = [vec![id.to_owned()], layer.lower].concat();
            let next = self.new_layer(&Layer { base: None, lower })?;
            Link::Live(next).put(from, MOUNTS)?;
            return Ok((id.to_owned(), None));
        }
        let merged = layer.lower.len() >= LONG && is_mounted(&self.place(id));
        match merged {
            true => {
                let kept = self.new_layer(&Layer { lower: Vec::new(), ..layer })?;
                Ok((kept, Some(self.place(id))))
            }
            false => Ok((self.new_layer(&layer)?, Some(self.files(id)))),
        }
    }

    async fn fill(&self, from: &Path, id: &str) -> Result<()> {
        let files = self.files(id);
        fs::remove_dir(&files).map_err(|error| store_error("copying", &files, error))?;
        copy::copy(from, &files).await
    }

    /// Copies a tree to one that can be written to.
    pub async fn copy(&self, from: &Path, to: &Path, runs: bool) -> Result<()> {
        let (still, source) = match Link::read(from) {
            None => return copy::copy(from, to).await,
            Some(link) => {
                let _lock = self.lock().await?;
                let (still, source) = match link {
                    Link::Still(id) => (id, None),
                    Link::Live(id) => self.keep_in_lock(from, &id, runs)?,
                };
                let lower = [vec![still.clone()], self.layer(&still)?.lower].concat();
                let next = self.new_layer(&Layer { base: None, lower })?;
                Link::Live(next).put(to, MOUNTS)?;
                (still, source)
            }
        };
        match source {
            Some(source) => self.fill(&source, &still).await,
            None => Ok(()),
        }
    }

    /// How many bytes go with a tree.
    pub async fn size(&self, tree: &Path) -> Result<u64> {
        match Link::read(tree) {
            Some(Link::Live(id) | Link::Still(id)) => copy::size(&self.files(&id)).await,
            None => copy::size(tree).await,
        }
    }

    /// Deletes a folder with all the trees in it.
    pub async fn remove(&self, folder: &Path) -> Result<()> {
        let all = links::inside(folder);
        let _lock = self.lock().await?;
        for link in &all {
            if let Link::Live(id) = link {
                self.unmount(id);
            }
        }
        copy::remove(folder).await?;
        match all.is_empty() {
            true => Ok(()),
            false => self.collect().await,
        }
    }

    /// Takes away the layers that no link needs any more.
    pub async fn sweep(&self) -> Result<()> {
        let _lock = self.lock().await?;
        self.collect().await
    }

    async fn collect(&self) -> Result<()> {
        let failed = |error| store_error("reading", &self.root, error);
        let (live, still) = links::all(&self.root).map_err(failed)?;
        let mut needed = BTreeSet::new();
        for id in live.iter().chain(&still) {
            needed.insert(id.clone());
            // One that is gone needs nothing.
            needed.extend(self.layer(id).map(|layer| layer.lower).unwrap_or_default());
        }
        for entry in fs::read_dir(self.root.join("layers")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if !needed.contains(&id) {
                self.unmount(&id);
                copy::remove(&entry.path()).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that a tree is there, for a machine whose ids begin at `base`. What is not `lasting` is lost when
    /// the host's power is, and need not be written to its disk before.
    pub async fn ready(&self, tree: &Path, base: u32, lasting: bool) -> Result<()> {
        let Some(Link::Live(id)) = Link::read(tree) else { return Ok(()) };
        if is_mounted(&self.place(&id)) {
            return Ok(());
        }
        self.mount(&id, base, !lasting).await
    }

    /// Lets go of a tree's mount; processes that still see it keep it.
    fn unmount(&self, id: &str) {
        let place = self.place(id);
        let _ = unmount(&place, UnmountFlags::DETACH);
        let _ = fs::remove_dir(place);
    }

    async fn mount(&self, id: &str, base: u32, volatile: bool) -> Result<()> {
        let layer = self.layer(id)?;
        let mut below = Vec::new();
        for lower in &layer.lower {
            below.push((self.files(lower), self.layer(lower)?.base.unwrap_or(base)));
        }
        let (files, work) = (self.files(id), self.folder(id).join("work"));
        let place = self.place(id);
        if layer.base.is_none() {
            let own = below.first().and_then(|(top, _)| fs::metadata(top).ok());
            let mode = own.map_or(0o755, |own| own.mode() & 0o7777);
            let done = fs::set_permissions(&files, fs::Permissions::from_mode(mode))
                .and_then(|()| std::os::unix::fs::chown(&files, Some(base), Some(base)));
            done.map_err(|error| store_error("preparing", &files, error))?;
            save(&self.folder(id).join("layer.json"), &Layer { base: Some(base), ..layer })?;
        }
        // What the last one left is of no use, and refused where the host went down with it.
        copy::remove(&work).await?;
        blocking(move || {
            let doing = format!("mounting {}", place.display());
            mount(&below, &files, &work, &place, base, volatile)
                .map_err(|error| Error::io(doing, error))
        })
        .await
    }
}

/// Where lower layers are attached for as long as it takes.
struct Stage(PathBuf, usize);

impl Drop for Stage {
    fn drop(&mut self) {
        for number in 0..self.1 {
            let place = self.0.join(number.to_string());
            let _ = unmount(&place, UnmountFlags::DETACH);
            let _ = fs::remove_dir(place);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn mount(
    below: &[(PathBuf, u32)],
    files: &Path,
    work: &Path,
    place: &Path,
    base: u32,
    volatile: bool,
) -> io::Result<()> {
    for folder in [work, place] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut stage = Stage(Path::new(STAGES).join(format!("s{}", token())), 0);
    fs::create_dir_all(&stage.0)?;
    let mut maps = BTreeMap::new();
    let mut lower = Vec::new();
    for (layer, own) in below {
        if *own == base {
            lower.push(layer.clone());
            continue;
        }
        let map: &OwnedFd = match maps.entry(*own) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(map_of(*own, base)?),
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, layer, flags)?;
        idmap_mount(mount.as_fd(), map.as_fd())?;
        let at = stage.0.join(stage.1.to_string());
        fs::create_dir(&at)?;
        stage.1 += 1;
        move_mount(mount, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        lower.push(at);
    }
    let mounted = stacked(&lower, files, work, volatile)?;
    move_mount(&mounted, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// A mount that is nowhere yet.
fn stacked(lower: &[PathBuf], upper: &Path, work: &Path, volatile: bool) -> io::Result<OwnedFd> {
    let open = || fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
    let mut overlay = open()?;
    let one_by_one = |overlay: &OwnedFd| {
        lower.iter().try_for_each(|layer| fsconfig_set_string(overlay.as_fd(), "lowerdir+", layer))
    };
    if one_by_one(&overlay).is_err() {
        // Before Linux 6.5 they are one word, of no more than 256 bytes.
        overlay = open()?;
        let all: Vec<_> = lower.iter().map(|layer| layer.display().to_string()).collect();
        fsconfig_set_string(overlay.as_fd(), "lowerdir", all.join(":"))?;
    }
    fsconfig_set_string(overlay.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(overlay.as_fd(), "workdir", work)?;
    for (name, value) in [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")] {
        fsconfig_set_string(overlay.as_fd(), name, value)?;
    }
    if volatile {
        fsconfig_set_flag(overlay.as_fd(), "volatile")?;
    }
    fsconfig_create(overlay.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(fsmount(overlay.as_fd(), flags, MountAttrFlags::empty())?)
}
