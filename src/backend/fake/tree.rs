//! A file tree in memory. A copy of it is one pointer; a write copies only the path to the file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::sandbox::{Error, FileEntry, FileKind, Kind};

/// Why a file operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errno {
    Access,
    Exists,
    IsDir,
    Loop,
    NoEntry,
    NoSpace,
    NotDir,
    NotEmpty,
}

impl Errno {
    /// What the guest's programs print.
    pub fn text(self) -> &'static str {
        match self {
            Errno::Access => "Permission denied",
            Errno::Exists => "File exists",
            Errno::IsDir => "Is a directory",
            Errno::Loop => "Too many levels of symbolic links",
            Errno::NoEntry => "No such file or directory",
            Errno::NoSpace => "No space left on device",
            Errno::NotDir => "Not a directory",
            Errno::NotEmpty => "Directory not empty",
        }
    }

    /// What a caller of the backend gets.
    pub fn at(self, path: &str) -> Error {
        match self {
            Errno::Access => Error::Permission { what: path.to_owned() },
            Errno::Exists => Error::exists(Kind::File, path),
            Errno::NoEntry => Error::not_found(Kind::File, path),
            Errno::NoSpace => Error::Exhausted {
                what: format!("no space left in the sandbox for '{path}'"),
                hint: "raise the disk or inodes limit".to_owned(),
            },
            Errno::IsDir | Errno::Loop | Errno::NotDir | Errno::NotEmpty => {
                Error::invalid("path", format!("'{path}': {}", self.text().to_lowercase()))
            }
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Dir(BTreeMap<String, Arc<Node>>),
    File(Bytes),
    Symlink(String),
    /// `/dev/null`.
    Null,
}

/// A file with its metadata.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: SystemTime,
    pub data: Data,
}

impl Node {
    pub fn dir(mode: u32, modified: SystemTime) -> Self {
        Node { mode, uid: 0, gid: 0, modified, data: Data::Dir(BTreeMap::new()) }
    }

    pub fn file(content: impl Into<Bytes>, mode: u32, modified: SystemTime) -> Self {
        Node { mode, uid: 0, gid: 0, modified, data: Data::File(content.into()) }
    }

    pub fn symlink(target: impl Into<String>, modified: SystemTime) -> Self {
        Node { mode: 0o777, uid: 0, gid: 0, modified, data: Data::Symlink(target.into()) }
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.data, Data::Dir(_))
    }

    pub fn size(&self) -> u64 {
        match &self.data {
            Data::Dir(_) | Data::Null => 0,
            Data::File(bytes) => bytes.len() as u64,
            Data::Symlink(target) => target.len() as u64,
        }
    }

    pub fn entry(&self, name: &str) -> FileEntry {
        FileEntry {
            name: name.to_owned(),
            kind: match self.data {
                Data::Dir(_) => FileKind::Dir,
                Data::File(_) => FileKind::File,
                Data::Symlink(_) => FileKind::Symlink,
                Data::Null => FileKind::Other,
            },
            size: self.size(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            modified: self.modified,
            target: match &self.data {
                Data::Symlink(target) => Some(target.clone()),
                _ => None,
            },
        }
    }

    /// Whether a user may do `want` (4 read, 2 write, 1 execute) with it.
    pub fn allows(&self, uid: u32, gid: u32, want: u32) -> bool {
        let bits = match () {
            () if uid == 0 => return want & 1 == 0 || self.is_dir() || self.mode & 0o111 != 0,
            () if uid == self.uid => self.mode >> 6,
            () if gid == self.gid => self.mode >> 3,
            () => self.mode,
        };
        bits & want == want
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage { bytes: self.size(), inodes: 1 };
        if let Data::Dir(children) = &self.data {
            for child in children.values() {
                let below = child.usage();
                usage.bytes += below.bytes;
                usage.inodes += below.inodes;
            }
        }
        usage
    }
}

/// How much a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// A resolved path: no `.`, no `..`, every part but the last known to be a directory.
pub(super) type Parts = Vec<String>;

/// The whole tree.
#[derive(Clone, Debug)]
pub(super) struct Tree(Arc<Node>);

impl Tree {
    pub fn new(now: SystemTime) -> Self {
        Tree(Arc::new(Node::dir(0o755, now)))
    }

    /// One with this folder as its root.
    pub fn of(root: Arc<Node>) -> Self {
        Tree(root)
    }

    /// The place `path` names, seen from directory `cwd`. Links are followed inside the tree; the
    /// last part only with `follow`. The last part need not exist.
    pub fn resolve(&self, cwd: &str, path: &str, follow: bool) -> Result<Parts, Errno> {
        let mut todo: Vec<String> = Vec::new();
        let push = |todo: &mut Vec<String>, path: &str| {
            todo.extend(
                path.split('/').rev().filter(|p| !p.is_empty() && *p != ".").map(str::to_owned),
            );
        };
        if path.is_empty() {
            return Err(Errno::NoEntry);
        }
        let must_be_dir = path.ends_with('/') || path.ends_with("/.");
        push(&mut todo, path);
        if !path.starts_with('/') {
            push(&mut todo, cwd);
        }
        let mut done: Parts = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            let last = todo.is_empty();
            match self.get(&done).map(|node| &node.data) {
                None if last => {}
                None => return Err(Errno::NoEntry),
                Some(Data::Symlink(target)) if !last || follow || must_be_dir => {
                    links += 1;
                    if links > 40 {
                        return Err(Errno::Loop);
                    }
                    if target.starts_with('/') {
                        done.clear();
                    } else {
                        done.pop();
                    }
                    push(&mut todo, &target.clone());
                }
                Some(Data::Dir(_)) => {}
                Some(_) if last && !must_be_dir => {}
                Some(_) => return Err(Errno::NotDir),
            }
        }
        Ok(done)
    }

    pub fn get(&self, parts: &[String]) -> Option<&Arc<Node>> {
        let mut node = &self.0;
        for part in parts {
            match &node.data {
                Data::Dir(children) => node = children.get(part)?,
                _ => return None,
            }
        }
        Some(node)
    }

    pub fn find(&self, cwd: &str, path: &str, follow: bool) -> Result<(Parts, Arc<Node>), Errno> {
        let parts = self.resolve(cwd, path, follow)?;
        let node = self.get(&parts).cloned().ok_or(Errno::NoEntry)?;
        Ok((parts, node))
    }

    /// The node at `parts`, ready to be changed: shared nodes on the way are copied.
    pub fn get_mut(&mut self, parts: &[String]) -> Option<&mut Node> {
        let mut node = Arc::make_mut(&mut self.0);
        for part in parts {
            match &mut node.data {
                Data::Dir(children) => node = Arc::make_mut(children.get_mut(part)?),
                _ => return None,
            }
        }
        Some(node)
    }

    /// Puts `node` at `parts`, replacing what is there; a directory is never replaced.
    pub fn put(&mut self, parts: &[String], node: Node) -> Result<(), Errno> {
        let Some((name, parent)) = parts.split_last() else { return Err(Errno::IsDir) };
        match &mut self.get_mut(parent).ok_or(Errno::NoEntry)?.data {
            Data::Dir(children) => {
                if children.get(name).is_some_and(|old| old.is_dir()) {
                    return Err(Errno::IsDir);
                }
                children.insert(name.clone(), Arc::new(node));
                Ok(())
            }
            _ => Err(Errno::NotDir),
        }
    }

    pub fn remove(&mut self, parts: &[String]) -> Result<Arc<Node>, Errno> {
        let Some((name, parent)) = parts.split_last() else { return Err(Errno::Access) };
        match &mut self.get_mut(parent).ok_or(Errno::NoEntry)?.data {
            Data::Dir(children) => children.remove(name).ok_or(Errno::NoEntry),
            _ => Err(Errno::NotDir),
        }
    }

    /// Makes directory `path` and its parents; says which ones are new.
    pub fn mkdirs(&mut self, cwd: &str, path: &str, new: &Node) -> Result<Vec<Parts>, Errno> {
        let mut made = Vec::new();
        let mut prefix = if path.starts_with('/') { String::new() } else { cwd.to_owned() };
        for part in path.split('/').filter(|p| !p.is_empty()) {
            prefix = format!("{prefix}/{part}");
            let parts = self.resolve("/", &prefix, true)?;
            match self.get(&parts) {
                Some(node) if node.is_dir() => {}
                Some(_) => return Err(Errno::NotDir),
                None => {
                    self.put(&parts, new.clone())?;
                    made.push(parts);
                }
            }
        }
        Ok(made)
    }

    /// Every node below and including `parts`, parents first, with its path relative to it.
    pub fn walk(&self, parts: &[String]) -> Vec<(String, Arc<Node>)> {
        fn go(node: &Arc<Node>, path: &str, out: &mut Vec<(String, Arc<Node>)>) {
            out.push((path.to_owned(), node.clone()));
            if let Data::Dir(children) = &node.data {
                for (name, child) in children {
                    let below =
                        if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    go(child, &below, out);
                }
            }
        }
        let mut out = Vec::new();
        if let Some(node) = self.get(parts) {
            go(node, "", &mut out);
        }
        out
    }

    pub fn usage(&self) -> Usage {
        self.0.usage()
    }

    /// Bytes of files that none of `others` shares.
    pub fn unique(&self, others: &[&Tree]) -> u64 {
        fn go(node: &Arc<Node>, others: &[&Arc<Node>]) -> u64 {
            if others.iter().any(|other| Arc::ptr_eq(node, other)) {
                return 0;
            }
            match &node.data {
                Data::Dir(children) => children
                    .iter()
                    .map(|(name, child)| {
                        let below: Vec<_> = others
                            .iter()
                            .filter_map(|other| match &other.data {
                                Data::Dir(children) => children.get(name),
                                _ => None,
                            })
                            .collect();
                        go(child, &below)
                    })
                    .sum(),
                _ => node.size(),
            }
        }
        go(&self.0, &others.iter().map(|tree| &tree.0).collect::<Vec<_>>())
    }
}

/// `/a/b` from parts.
pub(super) fn join(parts: &[String]) -> String {
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let now = SystemTime::UNIX_EPOCH;
        let mut tree = Tree::new(now);
        tree.mkdirs("/", "/a/b", &Node::dir(0o755, now)).unwrap();
        tree.put(&["a".into(), "f".into()], Node::file("x", 0o644, now)).unwrap();
        tree.put(&["up".into()], Node::symlink("../../../a/b", now)).unwrap();
        tree.put(&["abs".into()], Node::symlink("/a", now)).unwrap();
        tree.put(&["loop".into()], Node::symlink("loop", now)).unwrap();
        tree
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let tree = tree();
        let at = |path: &str| tree.resolve("/", path, true).map(|parts| join(&parts));
        assert_eq!(at("/up"), Ok("/a/b".into()));
        assert_eq!(at("/abs/../../../a/f"), Ok("/a/f".into()));
        assert_eq!(at("abs/b/."), Ok("/a/b".into()));
        assert_eq!(at("/loop"), Err(Errno::Loop));
        assert_eq!(at("/a/f/x"), Err(Errno::NotDir));
        assert_eq!(at("/a/f/"), Err(Errno::NotDir));
        assert_eq!(at("/none/x"), Err(Errno::NoEntry));
        assert_eq!(tree.resolve("/", "/loop", false), Ok(vec!["loop".into()]));
    }

    #[test]
    fn a_copy_shares_what_is_not_written() {
        let first = tree();
        let mut second = first.clone();
        assert_eq!(first.unique(&[&second]), 0);
        let now = SystemTime::UNIX_EPOCH;
        second.put(&["a".into(), "f".into()], Node::file("changed", 0o644, now)).unwrap();
        assert_eq!(first.unique(&[&second]), 1);
        assert_eq!(second.unique(&[&first]), 7);
        second.remove(&["a".into(), "f".into()]).unwrap();
        assert!(first.get(&["a".into(), "f".into()]).is_some());
    }
}
