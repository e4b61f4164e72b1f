//! Trees as tar streams.

use std::io::Read;
use std::time::{Duration, SystemTime};

use tar::{Archive, Builder, EntryType, Header};

use super::tree::{Data, Errno, Node, Parts, Tree};
use crate::sandbox::{Error, Result};

fn broken(error: std::io::Error) -> Error {
    Error::invalid("tar", format!("the stream is not a tar archive: {error}"))
}

/// Puts the members of `bytes` below directory `to`, owned by `owner`.
pub(super) fn unpack(tree: &mut Tree, to: &Parts, bytes: &[u8], owner: (u32, u32)) -> Result<()> {
    let base = super::tree::join(to);
    let mut archive = Archive::new(bytes);
    let mut times: Vec<(Parts, SystemTime)> = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| Error::invalid("tar", "a member's name is not UTF-8"))?;
        if name.split('/').any(|part| part == "..") {
            return Err(Error::invalid("tar", format!("member '{name}' leads out of the archive")));
        }
        let path = format!("{base}/{name}");
        let path = path.trim_end_matches(['/', '.']);
        let modified =
            SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime().map_err(broken)?);
        let mode = entry.header().mode().map_err(broken)? & 0o7777;
        let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let node = |data| Node { mode, uid: owner.0, gid: owner.1, modified, data };
        let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let folder = Node::dir(0o755, modified);
        if !parent.is_empty() {
            tree.mkdirs("/", parent, &folder).map_err(|why| why.at(parent))?;
        }
        let data = match (entry.header().entry_type(), link) {
            (EntryType::Directory, _) => {
                tree.mkdirs("/", path, &folder).map_err(|why| why.at(path))?;
                let parts = tree.resolve("/", path, true).map_err(|why| why.at(path))?;
                if let Some(dir) = tree.get_mut(&parts) {
                    (dir.mode, dir.uid, dir.gid) = (mode, owner.0, owner.1);
                }
                times.push((parts, modified));
                continue;
            }
            (EntryType::Regular | EntryType::Continuous, _) => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(broken)?;
                Data::File(content.into())
            }
            (EntryType::Symlink, Some(target)) => Data::Symlink(target),
            (EntryType::Link, Some(target)) => {
                let target = format!("{base}/{target}");
                let (_, found) = tree.find("/", &target, false).map_err(|why| why.at(&target))?;
                found.data.clone()
            }
            (kind, _) => {
                let what = format!("member '{name}' is of kind {kind:?}");
                return Err(Error::invalid_hint("tar", what, "leave devices and pipes out"));
            }
        };
        let parts = tree.resolve("/", path, false).map_err(|why| why.at(path))?;
        tree.put(&parts, node(data)).map_err(|why| why.at(path))?;
    }
    for (parts, modified) in times {
        if let Some(node) = tree.get_mut(&parts) {
            node.modified = modified;
        }
    }
    Ok(())
}

/// What is at `path`, its names relative to it.
pub(super) fn pack(tree: &Tree, path: &str) -> Result<Vec<u8>> {
    let (parts, top) = tree.find("/", path, true).map_err(|why| why.at(path))?;
    let mut nodes = tree.walk(&parts);
    if !top.is_dir() {
        let name = parts.last().cloned().ok_or_else(|| Errno::NoEntry.at(path))?;
        nodes = vec![(name, top)];
    }
    let mut builder = Builder::new(Vec::new());
    for (name, node) in nodes.into_iter().filter(|(name, _)| !name.is_empty()) {
        let mut header = Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        let since = node.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        header.set_mtime(since.as_secs());
        let done = match &node.data {
            Data::Dir(_) => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, format!("{name}/"), std::io::empty())
            }
            Data::File(bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, bytes.as_ref())
            }
            Data::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, target)
            }
            Data::Null => Ok(()),
        };
        done.map_err(|error| Error::internal(format!("packing '{path}': {error}")))?;
    }
    builder.into_inner().map_err(|error| Error::internal(format!("packing '{path}': {error}")))
}
