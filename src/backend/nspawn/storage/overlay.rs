//! Trees that are stacks of layers, for file systems that share nothing themselves: what an image holds is unpacked
//! once, and each machine has a layer of its own above it. A snapshot is a layer that nobody writes to any more.
//!
//! Each machine has other ids on disk, since the layer that it writes to has those of its users. Layers of others
//! are mapped to them by mounts, which the kernel can do for the lower ones only.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree, unmount,
};
use serde::{Deserialize, Serialize};

use super::super::super::guest::token;
use super::super::super::local::{idmap_mount, load, save, store_error};
use super::super::store::{Lock, hold};
use super::copy;
use super::links::{self, Link, is_mounted};
use super::owners::map_of;
use crate::backend::local::blocking;
use crate::sandbox::{Error, Result};

/// The folder of the store that machines' trees are mounted in.
const MOUNTS: &str = "mounts";
/// Longer stacks are merged by the next snapshot: the kernel's limit is 500.
const LONG: usize = 60;
/// How long the names of lower layers may be together before they get short ones.
const SPELLED: usize = 2000;
/// How much text an older kernel takes.
const PAGE: usize = 4096;
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
    /// Whether layers can be mapped and stacked here; it is tried once after each boot of the host. Where it only
    /// fails for the moment, a store that has layers has them all the same.
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
        if known == "yes" {
            return Ok(Some(overlay));
        }
        // Where there are layers it went once, and may go again.
        if known == "no" && !links::are_in(root)? {
            return Ok(None);
        }
        let works = match overlay.works().await {
            Ok(works) => works,
            Err(_) if links::are_in(root)? => return Ok(Some(overlay)),
            Err(error) => return Err(error),
        };
        let word = if works { "yes" } else { "no" };
        let _ = fs::create_dir_all(STAGES).and_then(|()| fs::write(&note, word));
        Ok(works.then_some(overlay))
    }

    /// Whether the kernel stacks an empty tree on another one, with other ids.
    async fn works(&self) -> Result<bool> {
        let _lock = self.lock().await?;
        let below = self.new_layer(&Layer { base: Some(0), lower: Vec::new() })?;
        let above = self.new_layer(&Layer { base: None, lower: vec![below.clone()] })?;
        let tried = self.stacks(&below, &above).await;
        self.unmount(&above);
        for id in [&above, &below] {
            copy::remove(&self.folder(id)).await?;
        }
        match tried? {
            Ok(mapped) => Ok(mapped),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(store_error("stacking layers in", &self.root, error)),
        }
    }

    async fn stacks(&self, below: &str, above: &str) -> Result<io::Result<bool>> {
        let file = self.files(below).join("f");
        fs::write(&file, "").map_err(|error| store_error("writing", &file, error))?;
        let (place, base) = (self.place(above), 1 << 30);
        Ok(self.try_mount(above, base, true).await?.and_then(|()| {
            let seen = fs::metadata(place.join("f"))?.uid();
            fs::write(place.join("g"), "")?;
            Ok(seen == base)
        }))
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
        match Link::read(from)? {
            None => copy::copy(from, to).await,
            Some(still @ Link::Still(_)) => {
                let _lock = self.lock().await?;
                still.put(to, MOUNTS)
            }
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
        let (still, source) = match Link::read(from)? {
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
        match Link::read(tree)? {
            Some(Link::Live(id) | Link::Still(id)) => copy::size(&self.files(&id)).await,
            None => copy::size(tree).await,
        }
    }

    /// Deletes a folder with all the trees in it.
    pub async fn remove(&self, folder: &Path) -> Result<()> {
        let all = links::inside(folder)?;
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
        let (live, still) = links::all(&self.root)?;
        let mut needed = BTreeSet::new();
        for id in live.iter().chain(&still) {
            needed.insert(id.clone());
            // One that is gone needs nothing; of one that can't be read nobody knows.
            let layer: Option<Layer> = load(&self.folder(id).join("layer.json"))?;
            needed.extend(layer.map(|layer| layer.lower).unwrap_or_default());
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
        let Some(Link::Live(id)) = Link::read(tree)? else { return Ok(()) };
        if is_mounted(&self.place(&id)) {
            // The kernel makes this for a mount that is volatile, and each mount of ours begins without it.
            let volatile =
                self.folder(&id).join("work").join("work").join("incompat/volatile").exists();
            if volatile != lasting {
                return Ok(());
            }
            self.unmount(&id);
            if volatile {
                self.write_out(&id).await?;
            }
        }
        self.mount(&id, base, !lasting).await
    }

    /// Has all that a layer has written to the disk.
    async fn write_out(&self, id: &str) -> Result<()> {
        let files = self.files(id);
        blocking(move || {
            let written = fs::File::open(&files).and_then(|disk| Ok(rustix::fs::syncfs(disk)?));
            written.map_err(|error| store_error("writing", &files, error))
        })
        .await
    }

    /// Lets go of a tree's mount; processes that still see it keep it.
    fn unmount(&self, id: &str) {
        let place = self.place(id);
        let _ = unmount(&place, UnmountFlags::DETACH);
        let _ = fs::remove_dir(place);
    }

    async fn mount(&self, id: &str, base: u32, volatile: bool) -> Result<()> {
        let place = self.place(id);
        let done = self.try_mount(id, base, volatile).await?;
        done.map_err(|error| Error::io(format!("mounting {}", place.display()), error))
    }

    /// What could not be prepared is an error, what the kernel said is told.
    async fn try_mount(&self, id: &str, base: u32, volatile: bool) -> Result<io::Result<()>> {
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
        blocking(move || Ok(mount(&below, &files, &work, &place, base, volatile))).await
    }
}

/// Whether the kernel does not do it here, and will not the next time.
fn is_refusal(error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(errno) => [
            Errno::ACCESS,
            Errno::INVAL,
            Errno::NODEV,
            Errno::NOSYS,
            Errno::OPNOTSUPP,
            Errno::OVERFLOW,
            Errno::PERM,
            Errno::ROFS,
        ]
        .contains(&errno),
        // It makes no namespaces of users.
        None => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe),
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
    let long = below.iter().map(|(layer, _)| layer.as_os_str().len()).sum::<usize>() > SPELLED;
    for (layer, own) in below {
        if *own == base && !long {
            lower.push(layer.clone());
            continue;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, layer, flags)?;
        if *own != base {
            let map: &OwnedFd = match maps.entry(*own) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(free) => free.insert(map_of(*own, base)?),
            };
            idmap_mount(mount.as_fd(), map.as_fd())?;
        }
        let at = stage.0.join(stage.1.to_string());
        fs::create_dir(&at)?;
        stage.1 += 1;
        move_mount(mount, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        lower.push(at);
    }
    match stacked(&lower, files, work, volatile) {
        Ok(mounted) => {
            move_mount(&mounted, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            Ok(())
        }
        // Before Linux 6.7 it does not take layers one by one.
        Err(Errno::INVAL) => stack_at_once(&lower, files, work, place, volatile),
        Err(error) => Err(error.into()),
    }
}

/// What is asked for beside the folders.
const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")];

/// A mount that is nowhere yet.
fn stacked(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    volatile: bool,
) -> rustix::io::Result<OwnedFd> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(overlay.as_fd(), "lowerdir+", layer)?;
    }
    fsconfig_set_string(overlay.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(overlay.as_fd(), "workdir", work)?;
    for (name, value) in OPTIONS {
        fsconfig_set_string(overlay.as_fd(), name, value)?;
    }
    if volatile {
        fsconfig_set_flag(overlay.as_fd(), "volatile")?;
    }
    fsconfig_create(overlay.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    fsmount(overlay.as_fd(), flags, MountAttrFlags::empty())
}

/// The same as one text, which a page has to hold.
fn stack_at_once(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    place: &Path,
    volatile: bool,
) -> io::Result<()> {
    let spelled = |path: &Path| {
        let mut text = Vec::new();
        for byte in path.as_os_str().as_encoded_bytes() {
            if [b'\\', b',', b':'].contains(byte) {
                text.push(b'\\');
            }
            text.push(*byte);
        }
        text
    };
    let lower: Vec<_> = lower.iter().map(|layer| spelled(layer)).collect();
    let mut text = [b"lowerdir=".to_vec(), lower.join(&b':')].concat();
    for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
        text.extend_from_slice(name.as_bytes());
        text.extend(spelled(path));
    }
    for (name, value) in OPTIONS {
        text.extend_from_slice(format!(",{name}={value}").as_bytes());
    }
    if volatile {
        text.extend_from_slice(b",volatile");
    }
    if text.len() >= PAGE {
        return Err(io::Error::other("its layers are too many for this kernel: use Linux 6.7"));
    }
    let text = CString::new(text)?;
    Ok(rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), text.as_c_str())?)
}
