//! Trees that are datasets of ZFS, below one of the store's own. A snapshot is one of ZFS, wherever it went by
//! promotions: it is found by its name, which no other one has. Links say which is which.
//!
//! Nothing is ever deleted with what depends on it: clones of it are promoted first, and what is still needed by
//! a snapshot, or is still in use, stays behind as *retired*, until the last of these goes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::super::guest::token;
use super::super::super::local::store_error;
use super::super::store::{Lock, hold};
use super::super::{BACKEND, command};
use super::copy;
use super::links::{self, Link, is_mounted};
use super::owners;
use crate::backend::local::blocking;
use crate::sandbox::{Error, Result};

/// The folder of the store that datasets are mounted in.
const TREES: &str = "trees";
/// Says that nobody needs a dataset but for its snapshots.
const RETIRED: &str = "sandscript:retired";
/// How often what is busy is tried again before it is left for the next time.
const TRIES: u32 = 8;

/// Where they are.
#[derive(Debug)]
pub(in super::super) struct Zfs {
    root: PathBuf,
    /// The dataset that has those of the store.
    container: String,
    program: PathBuf,
    /// Whether its mounts can map ids.
    maps: bool,
}

/// What there is in it.
#[derive(Debug, Default, PartialEq)]
struct View {
    datasets: Vec<Dataset>,
    /// Of which dataset, and their names, oldest first.
    snapshots: Vec<(String, String)>,
}

#[derive(Debug, Default, PartialEq)]
struct Dataset {
    id: String,
    /// The snapshot that it is a clone of: its dataset, and its name.
    origin: Option<(String, String)>,
    retired: bool,
}

impl View {
    fn parse(container: &str, text: &str) -> View {
        let mut view = View::default();
        let below = |name: &str| Some(name.strip_prefix(container)?.strip_prefix('/')?.to_owned());
        let snapshot = |name: &str| {
            let (dataset, own) = name.split_once('@')?;
            Some((below(dataset)?, own.to_owned()))
        };
        for line in text.lines() {
            let mut words = line.split('\t');
            let (name, origin) =
                (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if let Some(found) = snapshot(name) {
                view.snapshots.push(found);
            } else if let Some(id) = below(name) {
                let retired = words.next() == Some("on");
                view.datasets.push(Dataset { id, origin: snapshot(origin), retired });
            }
        }
        view
    }

    /// Whether one of these has snapshots of somebody else's, such as those of a task of the host's.
    fn has_others(&self, ids: &[&str]) -> bool {
        let of_these = |dataset: &str| ids.contains(&dataset);
        self.snapshots.iter().any(|(dataset, own)| of_these(dataset) && !is_ours(own))
    }

    fn holder(&self, name: &str) -> Option<&str> {
        let found = self.snapshots.iter().find(|(_, own)| own == name);
        found.map(|(dataset, _)| dataset.as_str())
    }

    fn of<'a>(&'a self, id: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.snapshots.iter().filter(move |(dataset, _)| dataset == id).map(|(_, own)| own.as_str())
    }

    fn is_cloned(&self, id: &str, name: &str) -> bool {
        let origins = self.datasets.iter().filter_map(|one| one.origin.as_ref());
        origins.into_iter().any(|(of, own)| of == id && own == name)
    }

    /// The clone of a dataset's newest snapshot that has one: promoted, it takes that and all older ones.
    fn heir(&self, id: &str) -> Option<&str> {
        let clone_of = |name: &str| {
            let is = |one: &&Dataset| {
                one.origin.as_ref().is_some_and(|(of, own)| of == id && own == name)
            };
            self.datasets.iter().find(is).map(|one| one.id.as_str())
        };
        self.of(id).rev().find_map(clone_of)
    }
}

/// Whether a name is one that we give.
fn is_ours(name: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.len() == 16 && name.bytes().all(is_hex)
}

impl Zfs {
    /// Where the store is on ZFS and its program is there: makes the dataset for its trees, if there is none.
    pub async fn probe(root: &Path) -> Result<Option<Zfs>> {
        let table = "/proc/self/mountinfo";
        let mounts = fs::read_to_string(table)
            .map_err(|error| Error::io(format!("reading {table}"), error))?;
        let Some(dataset) = dataset_of(&mounts, root) else { return Ok(None) };
        let folders = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
        let program = folders.map(|folder| Path::new(folder).join("zfs"));
        let Some(program) = program.into_iter().find(|program| program.exists()) else {
            return Ok(None);
        };
        let scope = &blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex()[..8];
        let container = format!("{dataset}/sandscript-{scope}");
        let trees = root.join(TREES);
        let mut zfs = Zfs { root: root.to_owned(), container, program, maps: false };
        if dataset_at(&mounts, &trees).as_deref() != Some(&zfs.container) {
            zfs.mount(&dataset, &trees).await?;
        }
        zfs.maps = owners::can_map(&trees);
        Ok(Some(zfs))
    }

    /// Mounts the dataset for trees, made if there is none.
    async fn mount(&self, dataset: &str, trees: &Path) -> Result<()> {
        let _lock = self.lock().await?;
        let there = self.zfs(["list", "-H", "-o", "name", &self.container], "looking for it").await;
        let pool = dataset.split('/').next().unwrap_or_default();
        let place = self.mount_point(pool, trees).await;
        let place = format!("mountpoint={}", place.display());
        if there.is_err() {
            let doing = "making a dataset for the store";
            self.zfs(["create", "-o", &place, &self.container], doing).await?;
            for wish in ["atime=off", "xattr=sa", "acltype=posixacl"] {
                // Not each release has all of them.
                let _ = self.zfs(["set", wish, &self.container], doing).await;
            }
        } else {
            self.zfs(["set", &place, &self.container], "mounting the store's dataset").await?;
            if !is_mounted(trees) {
                self.zfs(["mount", &self.container], "mounting the store's dataset").await?;
            }
        }
        Ok(())
    }

    /// Whether mounts of its datasets can map ids.
    pub fn maps(&self) -> bool {
        self.maps
    }

    /// A folder as a pool with an alternative root takes it.
    async fn mount_point(&self, pool: &str, place: &Path) -> PathBuf {
        let zpool = self.program.with_file_name("zpool");
        let asked = ["get", "-H", "altroot", pool];
        let said = command::run(&zpool.to_string_lossy(), asked, "looking at the pool").await;
        let said = said.unwrap_or_default();
        let other = said.split('\t').nth(2).filter(|other| other.starts_with('/'));
        let below = other.and_then(|other| place.strip_prefix(other).ok());
        below.map_or_else(|| place.to_owned(), |below| Path::new("/").join(below))
    }

    async fn zfs<const N: usize>(&self, args: [&str; N], doing: &str) -> Result<String> {
        command::run(&self.program.to_string_lossy(), args, doing).await
    }

    async fn lock(&self) -> Result<Lock> {
        hold(&self.root.join("trees.lock")).await
    }

    fn name(&self, id: &str) -> String {
        format!("{}/{id}", self.container)
    }

    fn place(&self, id: &str) -> PathBuf {
        self.root.join(TREES).join(id)
    }

    async fn view(&self) -> Result<View> {
        let columns = format!("name,origin,{RETIRED}");
        let args =
            ["list", "-H", "-t", "filesystem,snapshot", "-s", "creation", "-o", &columns, "-r"];
        let args = args.into_iter().chain([self.container.as_str()]);
        let said = command::run(&self.program.to_string_lossy(), args, "listing datasets").await?;
        Ok(View::parse(&self.container, &said))
    }

    /// Makes an empty tree; where it is.
    pub async fn make(&self, tree: &Path) -> Result<PathBuf> {
        let _lock = self.lock().await?;
        let id = token();
        self.zfs(["create", &self.name(&id)], "making a dataset").await?;
        Link::Live(id.clone()).put(tree, TREES)?;
        Ok(self.place(&id))
    }

    /// From now on nobody writes to a tree.
    pub async fn seal(&self, tree: &Path) -> Result<()> {
        let Some(Link::Live(id)) = Link::read(tree)? else { return Ok(()) };
        let _lock = self.lock().await?;
        let snapshot = token();
        self.snapshot_as(&id, &snapshot).await?;
        Link::Still(snapshot).put(tree, TREES)?;
        self.retire(&id).await
    }

    async fn snapshot_as(&self, id: &str, snapshot: &str) -> Result<()> {
        let name = format!("{}@{snapshot}", self.name(id));
        self.zfs(["snapshot", &name], "taking a snapshot").await.map(drop)
    }

    /// Makes a tree's state of now one that stays.
    pub async fn keep(&self, from: &Path, to: &Path) -> Result<()> {
        let Some(link) = Link::read(from)? else { return copy::copy(from, to).await };
        let _lock = self.lock().await?;
        match link {
            Link::Live(id) => {
                let snapshot = token();
                self.snapshot_as(&id, &snapshot).await?;
                Link::Still(snapshot).put(to, TREES)
            }
            still => still.put(to, TREES),
        }
    }

    /// Copies a tree to one that can be written to.
    pub async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let doing = "copying a dataset";
        let (snapshot, holder) = match Link::read(from)? {
            None => return copy::copy(from, to).await,
            Some(Link::Still(snapshot)) => (snapshot, None),
            Some(Link::Live(id)) => (token(), Some(id)),
        };
        let _lock = self.lock().await?;
        let passing = holder.is_some();
        let holder = match holder {
            Some(id) => {
                self.snapshot_as(&id, &snapshot).await?;
                id
            }
            None => match self.view().await?.holder(&snapshot) {
                Some(holder) => holder.to_owned(),
                None => {
                    return Err(Error::internal(format!("{doing}: there is no @{snapshot}")));
                }
            },
        };
        let (source, id) = (format!("{}@{snapshot}", self.name(&holder)), token());
        let done = self.zfs(["clone", &source, &self.name(&id)], doing).await.map(drop);
        if passing {
            // It goes with the last of its clones.
            let _ = self.zfs(["destroy", "-d", &source], doing).await;
        }
        done?;
        Link::Live(id).put(to, TREES)
    }

    /// Deletes a folder with all the trees in it.
    pub async fn remove(&self, folder: &Path) -> Result<()> {
        let _lock = self.lock().await?;
        copy::remove(folder).await?;
        self.collect().await
    }

    /// Takes away what no link says any more.
    pub async fn sweep(&self) -> Result<()> {
        let _lock = self.lock().await?;
        self.collect().await
    }

    async fn collect(&self) -> Result<()> {
        let (live, still) = links::all(&self.root)?;
        let mut failed = None;
        let view = self.view().await?;
        for (holder, snapshot) in &view.snapshots {
            // One that others were cloned from stays until the last of them goes.
            let needed = still.contains(snapshot) || view.is_cloned(holder, snapshot);
            if !needed && is_ours(snapshot) {
                let name = format!("{}@{snapshot}", self.name(holder));
                failed = failed.or(self.zfs(["destroy", "-d", &name], "deleting it").await.err());
            }
        }
        let over = |one: &&Dataset| is_ours(&one.id) && !live.contains(&one.id);
        for dataset in view.datasets.iter().filter(over) {
            failed = failed.or(self.take_away(&dataset.id, dataset.retired, &still).await.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// Deletes a dataset, or retires it as long as it has what is needed.
    async fn take_away(&self, id: &str, retired: bool, still: &BTreeSet<String>) -> Result<()> {
        let (name, doing) = (self.name(id), "deleting a dataset");
        let aside = async || if retired { Ok(()) } else { self.retire(id).await };
        let mut view = self.view().await?;
        if view.of(id).any(|snapshot| still.contains(snapshot)) {
            return aside().await;
        }
        for _ in 0..view.datasets.len() {
            let Some(heir) = view.heir(id) else { break };
            if let Err(error) = self.zfs(["promote", &self.name(heir)], doing).await {
                // Two may have snapshots of one name.
                let others = view.has_others(&[id, heir]);
                return if others { aside().await } else { Err(error) };
            }
            view = self.view().await?;
        }
        // It goes when whoever took them has deleted them.
        if view.has_others(&[id]) {
            return aside().await;
        }
        // Processes that were killed may have it open for a moment, and others for as long as they like.
        let mut tries = if retired { 1 } else { TRIES };
        while self.zfs(["destroy", &name], doing).await.is_err() {
            tries -= 1;
            if self.zfs(["list", "-H", &name], doing).await.is_err() {
                break;
            }
            if tries == 0 {
                return aside().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ = fs::remove_dir(self.place(id));
        Ok(())
    }

    /// Notes that nobody needs a dataset but for its snapshots, and lets go of what these do not have.
    async fn retire(&self, id: &str) -> Result<()> {
        let (name, doing) = (self.name(id), "putting a dataset aside");
        if let Some(newest) = self.view().await?.of(id).next_back() {
            let _ = self.zfs(["rollback", &format!("{name}@{newest}")], doing).await;
        }
        let _ = self.zfs(["set", "canmount=noauto", &name], doing).await;
        let _ = self.zfs(["unmount", &name], doing).await;
        self.zfs(["set", &format!("{RETIRED}=on"), &name], doing).await.map(drop)
    }

    /// Sees to it that a tree is there, which after a boot of the host may not be mounted, and that it can be used by
    /// users whose ids begin at `base`.
    pub async fn ready(&self, tree: &Path, base: u32) -> Result<()> {
        let Some(Link::Live(id)) = Link::read(tree)? else { return Ok(()) };
        let place = self.place(&id);
        if !is_mounted(&place) {
            self.zfs(["mount", &self.name(&id)], "mounting a dataset").await?;
        }
        if self.maps {
            return Ok(());
        }
        blocking(move || {
            let doing = "giving a tree to its users";
            owners::give(&place, base).map_err(|error| store_error(doing, &place, error))
        })
        .await
    }

    async fn number(&self, property: &str, name: &str) -> Result<u64> {
        let asked = ["get", "-H", "-p", "-o", "value", property, name];
        let said = self.zfs(asked, "measuring a dataset").await?;
        Ok(said.trim().parse().unwrap_or_default())
    }

    /// How many bytes go with a tree.
    pub async fn size(&self, tree: &Path) -> Result<u64> {
        match Link::read(tree)? {
            Some(Link::Live(id)) => self.number("used", &self.name(&id)).await,
            Some(Link::Still(snapshot)) => match self.view().await?.holder(&snapshot) {
                Some(holder) => {
                    self.number("used", &format!("{}@{snapshot}", self.name(holder))).await
                }
                None => Ok(0),
            },
            None => copy::size(tree).await,
        }
    }

    /// How many bytes a tree has, shared or not.
    pub async fn referenced(&self, tree: &Path) -> Result<u64> {
        match Link::read(tree)? {
            Some(Link::Live(id)) => self.number("referenced", &self.name(&id)).await,
            _ => Ok(0),
        }
    }

    /// Lets a tree have so many bytes and no more.
    pub async fn limit(&self, tree: &Path, bytes: u64) -> Result<()> {
        let Some(Link::Live(id)) = Link::read(tree)? else {
            let why =
                "its files are a folder that was made before the store had datasets: make it anew";
            return Err(Error::unsupported("limiting this machine's files", BACKEND, why));
        };
        let quota = format!("refquota={bytes}");
        self.zfs(["set", &quota, &self.name(&id)], "limiting a dataset").await.map(drop)
    }
}

/// The mounts of ZFS in a table of mounts: where, and the dataset.
fn mounted(mounts: &str) -> impl Iterator<Item = (PathBuf, String)> {
    mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, source) = (right.next()?, right.next()?);
        let mut left = left.split(' ').skip(3);
        let (top, place) = (left.next()?, left.next()?);
        let fits = ["zfs", "fuse.zfs"].contains(&kind) && top == "/";
        fits.then(|| (unescaped(place).into(), unescaped(source)))
    })
}

/// Without the octal escapes of such a table.
fn unescaped(word: &str) -> String {
    ["\\040 ", "\\011\t", "\\134\\"].iter().fold(word.to_owned(), |word, pair| {
        let (code, plain) = pair.split_at(4);
        word.replace(code, plain)
    })
}

/// The dataset that is mounted at a place.
fn dataset_at(mounts: &str, place: &Path) -> Option<String> {
    mounted(mounts).filter(|(own, _)| own == place).last().map(|(_, dataset)| dataset)
}

/// The dataset that a folder is on; none if its name is not one that may be in a command.
fn dataset_of(mounts: &str, folder: &Path) -> Option<String> {
    let found = mounted(mounts).filter(|(place, _)| folder.starts_with(place));
    let (_, dataset) = found.max_by_key(|(place, _)| place.as_os_str().len())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/ -".contains(&byte);
    let fits = dataset.bytes().all(plain) && !dataset.starts_with(['-', '/']);
    (fits && !dataset.is_empty()).then_some(dataset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
43 27 0:40 / /mnt/tank rw - fuse.zfs tank rw
44 43 0:41 / /mnt/tank/my\\040apps rw - zfs tank/my\\040apps rw
45 43 0:42 / /mnt/other rw - ext4 /dev/sda rw
";

    #[test]
    fn the_dataset_of_a_folder_is_the_innermost() {
        let of = |folder: &str| dataset_of(MOUNTS, Path::new(folder));
        assert_eq!(of("/mnt/tank/store"), Some("tank".into()));
        assert_eq!(of("/mnt/tank/my apps/store"), Some("tank/my apps".into()));
        assert_eq!(of("/mnt/other"), None);
        assert_eq!(of("/mnt/tanks"), None);
        assert_eq!(dataset_of("1 1 0:1 / /x rw - zfs -rf rw", Path::new("/x")), None);
        assert_eq!(dataset_of("1 1 0:1 / /x rw - zfs a;b rw", Path::new("/x")), None);
        assert_eq!(dataset_at(MOUNTS, Path::new("/mnt/tank")), Some("tank".into()));
    }

    #[test]
    fn the_heir_of_a_dataset_is_the_clone_of_its_newest_snapshot() {
        let text = "t/c\t-\t-\nt/c/a\t-\t-\nt/c/a@one\t-\t-\nt/c/b\tt/c/a@one\t-\n\
            t/c/a@two\t-\t-\nt/c/d\tt/c/a@two\ton\nt/c/a@three\t-\t-\n";
        let view = View::parse("t/c", text);
        assert_eq!(view.datasets.len(), 3);
        assert_eq!(view.of("a").collect::<Vec<_>>(), ["one", "two", "three"]);
        assert_eq!(view.holder("two"), Some("a"));
        assert_eq!(view.heir("a"), Some("d"));
        assert_eq!(view.heir("b"), None);
        assert!(view.datasets[2].retired && !view.datasets[1].retired);
        assert!(view.has_others(&["a"]) && !view.has_others(&["b", "d"]));
        assert!(is_ours("00ff00ff00ff00ff"));
        assert!(!is_ours("auto-2026-01-01_") && !is_ours("00ff00ff00ff00ff/x"));
    }
}
