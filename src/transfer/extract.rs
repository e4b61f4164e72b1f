//! Writing an archive that somebody else made below one directory, and nowhere else.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::beneath::{self, Beneath};
use super::sparse::{self, Holes};
use super::whiteout;
use crate::sandbox::{Error, Result, format_size};

/// What happens to device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The archive is refused, for pipes too.
    Refuse,
    /// Everything below `dev/` is left out; a device elsewhere is refused, a pipe is made.
    SkipDev,
}

/// Who owns what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The caller.
    Mine,
    /// Whom the archive names. An id that this user namespace does not map is an error.
    Archive,
    /// Whom the archive names; the caller's where this user namespace does not map the id.
    Mapped,
}

/// How an archive is written.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Entries may lie below symbolic links to directories, which are resolved inside the
    /// destination (`lib/x` where `lib -> usr/lib`). Else a link on the way is an error.
    pub through_links: bool,
    /// The archive is one of several that are written over each other: names of whiteouts are left out,
    /// and a directory goes with all below it where something else takes its place.
    pub layered: bool,
    /// Device nodes and pipes.
    pub devices: Devices,
    /// Owners.
    pub owners: Owners,
    /// Permission bits that are kept.
    pub mode_mask: u32,
    /// Keep extended attributes `user.*` (never overlay's own) and `security.capability`.
    pub xattrs: bool,
    /// How many bytes of file content at most.
    pub max_bytes: u64,
    /// How many entries at most.
    pub max_entries: u64,
    /// What the archive is called in messages.
    pub what: String,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries of every kind.
    pub entries: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
}

/// Writes one archive below one directory.
pub struct Extractor<'a> {
    pub(super) rules: &'a Rules,
    pub(super) dest: Beneath,
    stats: Stats,
    dirs: Vec<(Vec<OsString>, Meta)>,
}

/// What is set on a written file beside its content.
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Timespec,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl<'a> Extractor<'a> {
    /// An extractor into `dest`, a directory that exists.
    pub fn new(dest: &Path, rules: &'a Rules) -> Result<Extractor<'a>> {
        let dest = Beneath::open(dest, rules.through_links)
            .map_err(|error| Error::invalid("path", format!("{}: {error}", dest.display())))?;
        Ok(Extractor { rules, dest, stats: Stats::default(), dirs: Vec::new() })
    }

    /// Writes the whole (uncompressed) tar stream.
    pub fn run(mut self, archive: impl Read) -> Result<Stats> {
        self.add(archive)?;
        self.finish()
    }

    /// Writes a stream of several, all but the modes and times of its directories. The limits are those of
    /// all of them together.
    pub fn add(&mut self, archive: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(|error| self.broken(&error))? {
            let mut entry = entry.map_err(|error| self.broken(&error))?;
            self.stats.entries += 1;
            if self.stats.entries > self.rules.max_entries {
                let limit = format!("it holds more than {} entries", self.rules.max_entries);
                return Err(self.refused(limit));
            }
            self.entry(&mut entry)?;
        }
        Ok(())
    }

    /// Gives directories their modes and times, after the last stream.
    pub fn finish(mut self) -> Result<Stats> {
        self.finish_dirs()?;
        Ok(self.stats)
    }

    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let extra = Extra::read(entry).map_err(|error| self.broken(&error))?;
        let name = extra.name.clone().unwrap_or_else(|| bytes_path(&entry.path_bytes()));
        let parts = beneath::parts(&name).map_err(|why| self.refused_entry(&name, why))?;
        if self.rules.devices == Devices::SkipDev && parts.len() > 1 && parts[0] == "dev" {
            return Ok(());
        }
        if self.rules.layered && parts.last().is_some_and(|name| whiteout::is_whiteout(name)) {
            return Ok(());
        }
        let meta = self.meta(entry, extra.mtime, extra.xattrs, &name)?;
        if kind.is_dir() {
            return self.dir(parts, meta).map_err(|error| self.failed(&name, &error));
        }
        if parts.is_empty() {
            return Err(self.refused_entry(&name, "only a directory can have this name"));
        }
        let link = entry.link_name_bytes().map(|target| bytes_path(&target));
        if kind.is_symlink() {
            let target = link.ok_or_else(|| self.refused_entry(&name, "the link has no target"))?;
            return self.symlink(&parts, &target, &meta).map_err(|e| self.failed(&name, &e));
        }
        if kind.is_hard_link() {
            let target = link.ok_or_else(|| self.refused_entry(&name, "the link has no target"))?;
            let target = beneath::parts(&target).map_err(|_| {
                let why = format!("it is a hard link that leaves: '{}'", target.display());
                self.refused_entry(&name, &why)
            })?;
            return self.hard_link(&parts, &target).map_err(|error| self.failed(&name, &error));
        }
        if kind.is_fifo() && self.rules.devices == Devices::SkipDev {
            return self.fifo(&parts, &meta).map_err(|error| self.failed(&name, &error));
        }
        if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            return Err(self.refused_entry(&name, "it is a device or a pipe"));
        }
        if !(kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()) {
            return Err(self.refused_entry(&name, "its kind is unknown"));
        }
        self.file(&name, &parts, &meta, extra.sparse, entry)
    }

    fn meta(
        &self,
        entry: &tar::Entry<'_, impl Read>,
        mtime: Option<Timespec>,
        xattrs: Vec<(OsString, Vec<u8>)>,
        name: &Path,
    ) -> Result<Meta> {
        let header = entry.header();
        let bad = |error: io::Error| self.refused_entry(name, &error.to_string());
        let id = |id: u64| {
            u32::try_from(id).map_err(|_| self.refused_entry(name, "its owner is out of range"))
        };
        let seconds = header.mtime().map_err(bad)?;
        Ok(Meta {
            mode: header.mode().map_err(bad)? & self.rules.mode_mask & 0o7777,
            uid: id(header.uid().map_err(bad)?)?,
            gid: id(header.gid().map_err(bad)?)?,
            mtime: mtime
                .unwrap_or(Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 }),
            xattrs,
        })
    }

    fn dir(&mut self, parts: Vec<OsString>, meta: Meta) -> io::Result<()> {
        if let Some(name) = parts.last() {
            let through = self.rules.through_links;
            let path: PathBuf = parts.iter().collect();
            let linked = through && self.dest.dir(&path).is_ok();
            let dir = self.dest.parent(&parts)?;
            match beneath::kind(dir, name)? {
                Some(FileType::Directory) => beneath::let_owner_in(dir, name)?,
                // A root file system may list `lib/` though `lib` is a link to a directory.
                Some(FileType::Symlink) if linked => return Ok(()),
                found => {
                    if found.is_some() {
                        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                    }
                    rustix::fs::mkdirat(dir, name, Mode::from(0o700))?;
                    if found.is_some() {
                        self.dest.forget();
                    }
                }
            }
        } else if !self.rules.through_links {
            // The destination itself keeps the mode that its owner gave it.
            return Ok(());
        }
        self.dirs.push((parts, meta));
        Ok(())
    }

    fn symlink(&mut self, parts: &[OsString], target: &Path, meta: &Meta) -> io::Result<()> {
        let owners = self.rules.owners;
        self.place(parts, |dir, name| {
            rustix::fs::symlinkat(target, dir, name)?;
            chown_at(owners, dir, name, meta)?;
            let times = Timestamps { last_access: meta.mtime, last_modification: meta.mtime };
            rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn fifo(&mut self, parts: &[OsString], meta: &Meta) -> io::Result<()> {
        let owners = self.rules.owners;
        self.place(parts, |dir, name| {
            rustix::fs::mknodat(dir, name, FileType::Fifo, Mode::from(meta.mode & 0o777), 0)?;
            chown_at(owners, dir, name, meta)
        })
    }

    fn hard_link(&mut self, parts: &[OsString], target: &[OsString]) -> io::Result<()> {
        let Some(target_name) = target.last() else {
            return Err(io::Error::other("it is a hard link to the root"));
        };
        let path: PathBuf = target[..target.len() - 1].iter().collect();
        let from = self.dest.dir(&path)?;
        let wrong = || io::Error::other("it is a hard link to something that is not a file here");
        match beneath::kind(&from, target_name)?.ok_or_else(wrong)? {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => return Err(wrong()),
        }
        if parts == target {
            return Ok(());
        }
        self.place(parts, |dir, name| {
            rustix::fs::linkat(&from, target_name, dir, name, AtFlags::empty())
        })
    }

    fn file(
        &mut self,
        name: &Path,
        parts: &[OsString],
        meta: &Meta,
        sparse: Option<sparse::Format>,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mut made = None;
        let placed = self.place(parts, |dir, name| {
            made = Some(rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::from(0o600))?);
            Ok(())
        });
        placed.map_err(|error| self.failed(name, &error))?;
        let Some(fd) = made else { return Err(Error::internal("a file was not made")) };
        let file = File::from(fd);
        let mut holes = Holes::new(&file, self.rules.max_bytes - self.stats.bytes);
        let copied = match sparse {
            Some(format) => sparse::expand(format, entry, &mut holes),
            None => holes.copy(entry),
        };
        match copied {
            Err(_) if holes.over() => {
                let most = format_size(self.rules.max_bytes);
                return Err(self.refused(format!("its files hold more than {most}")));
            }
            outcome => self.stats.bytes += outcome.map_err(|error| self.failed(name, &error))?,
        }
        self.apply(&file, meta).map_err(|error| self.failed(name, &error))
    }

    /// Makes a new entry by `make`, in place of whatever is there under the name.
    fn place(
        &mut self,
        parts: &[OsString],
        mut make: impl FnMut(std::os::fd::BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        let Some(name) = parts.last() else { return Err(Errno::INVAL.into()) };
        let layered = self.rules.layered;
        let dir = self.dest.parent(parts)?;
        match make(dir, name) {
            Err(Errno::EXIST) => {
                match beneath::kind(dir, name)? {
                    Some(FileType::Directory) if layered => whiteout::remove(dir, name)?,
                    Some(FileType::Directory) => {
                        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
                    }
                    _ => rustix::fs::unlinkat(dir, name, AtFlags::empty())?,
                }
                let outcome = make(dir, name);
                self.dest.forget();
                Ok(outcome?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Owner first, since a change of it clears the setuid bit and the capabilities.
    fn apply(&self, file: impl AsFd, meta: &Meta) -> io::Result<()> {
        if self.rules.owners != Owners::Mine {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            allow_unmapped(
                self.rules.owners,
                rustix::fs::fchown(&file, Some(uid), Some(gid)),
                meta,
            )?;
        }
        if self.rules.xattrs {
            for (name, value) in &meta.xattrs {
                let flags = rustix::fs::XattrFlags::empty();
                match rustix::fs::fsetxattr(&file, name.as_os_str(), value, flags) {
                    // What the file system or our privileges don't allow is not worth a failure.
                    Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        rustix::fs::fchmod(&file, Mode::from(meta.mode))?;
        let times = Timestamps { last_access: meta.mtime, last_modification: meta.mtime };
        Ok(rustix::fs::futimens(&file, &times)?)
    }

    /// Modes and times of directories, deepest first: a read-only one would refuse its entries.
    fn finish_dirs(&mut self) -> Result<()> {
        let mut dirs = std::mem::take(&mut self.dirs);
        dirs.reverse();
        dirs.sort_by_key(|(parts, _)| std::cmp::Reverse(parts.len()));
        let mut seen = std::collections::HashSet::new();
        for (parts, meta) in dirs {
            let path: PathBuf = parts.iter().collect();
            if !seen.insert(path.clone()) {
                continue;
            }
            let done = self.finish_dir(&parts, &meta);
            done.map_err(|error| self.failed(&path, &error))?;
        }
        Ok(())
    }

    fn finish_dir(&self, parts: &[OsString], meta: &Meta) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match parts.last() {
            None => self.dest.resolve(Path::new(""), flags),
            // Not by `parent`, which would make what a layer above took away.
            Some(name) => {
                let above: PathBuf = parts[..parts.len() - 1].iter().collect();
                self.dest
                    .dir(&above)
                    .and_then(|dir| Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?))
            }
        };
        match opened {
            Ok(dir) => self.apply(dir, meta),
            // A later entry took its place, or took it away.
            Err(error) if is(&error, &[Errno::NOTDIR, Errno::LOOP, Errno::NOENT]) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn refused(&self, why: String) -> Error {
        Error::invalid_hint(
            self.rules.what.clone(),
            format!("refused: {why}"),
            "the archive is hostile or broken; raise the limit only if you trust it",
        )
    }

    pub(super) fn refused_entry(&self, name: &Path, why: &str) -> Error {
        Error::invalid_hint(
            self.rules.what.clone(),
            format!("refused: entry '{}': {why}", name.display()),
            "the archive is hostile or broken; make it again with plain relative names",
        )
    }

    pub(super) fn broken(&self, error: &io::Error) -> Error {
        Error::invalid_hint(
            self.rules.what.clone(),
            format!("can't be read: {error}"),
            "it is not a tar archive, or it is cut off or damaged",
        )
    }

    pub(super) fn failed(&self, name: &Path, error: &io::Error) -> Error {
        let what = format!("{}: can't write '{}'", self.rules.what, name.display());
        if is(error, &[Errno::NOSPC, Errno::DQUOT]) {
            return Error::Exhausted {
                what: format!("{what}: {error}"),
                hint: "free some space or inodes on the disk it is written to".into(),
            };
        }
        if is(error, &[Errno::ACCESS, Errno::PERM, Errno::ROFS]) {
            return Error::Permission { what: format!("{what}: {error}") };
        }
        if is(error, &[Errno::LOOP, Errno::XDEV, Errno::NOTDIR]) {
            return self.refused_entry(name, "a link or a file is in the way of its name");
        }
        if error.raw_os_error().is_none() {
            return self.refused_entry(name, &error.to_string());
        }
        Error::invalid(
            self.rules.what.clone(),
            format!("can't write '{}': {error}", name.display()),
        )
    }
}

pub(super) fn is(error: &io::Error, any: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| any.iter().any(|errno| errno.raw_os_error() == code))
}

fn chown_at(
    owners: Owners,
    dir: std::os::fd::BorrowedFd<'_>,
    name: &OsStr,
    meta: &Meta,
) -> rustix::io::Result<()> {
    if owners == Owners::Mine {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let outcome = rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags);
    match outcome {
        Err(Errno::INVAL) if owners == Owners::Mapped => Ok(()),
        other => other,
    }
}

fn allow_unmapped(owners: Owners, outcome: rustix::io::Result<()>, meta: &Meta) -> io::Result<()> {
    match outcome {
        Err(Errno::INVAL) if owners == Owners::Mapped => Ok(()),
        Err(Errno::INVAL) => Err(io::Error::other(format!(
            "its owner {}:{} is not mapped in this user namespace",
            meta.uid, meta.gid
        ))),
        other => Ok(other?),
    }
}

pub(super) fn bytes_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// What pax headers add to an entry.
#[derive(Default)]
struct Extra {
    name: Option<PathBuf>,
    mtime: Option<Timespec>,
    sparse: Option<sparse::Format>,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Extra {
    fn read(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Extra> {
        use std::os::unix::ffi::OsStringExt;
        let mut extra = Extra::default();
        let mut sparse = sparse::Headers::default();
        let Some(extensions) = entry.pax_extensions()? else { return Ok(extra) };
        for extension in extensions {
            let extension = extension?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if key == b"mtime" {
                extra.mtime = std::str::from_utf8(value).ok().and_then(timespec);
            } else if key == b"GNU.sparse.name" {
                extra.name = Some(bytes_path(value));
            } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                sparse.add(key, value)?;
            } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                && (name == b"security.capability"
                    || name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
                && !name.contains(&0)
            {
                extra.xattrs.push((OsString::from_vec(name.to_vec()), value.to_vec()));
            }
        }
        extra.sparse = sparse.format()?;
        Ok(extra)
    }
}

/// A time from `seconds.fraction`, as pax writes it.
fn timespec(text: &str) -> Option<Timespec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let tv_sec: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let tv_nsec = digits.parse().ok()?;
    // Times before 1970 with a fraction are too rare to be exact about.
    Some(Timespec { tv_sec, tv_nsec: if tv_sec < 0 { 0 } else { tv_nsec } })
}
