//! Work on the guest's files, done by a child of init that is locked up like any command. Every
//! path is resolved inside the guest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::account;
use super::connection::{Connection, Next};
use super::exec::restrict;
use super::{Init, sys};
use crate::backend::local::protocol::{Doing, FileRequest, Refusal, Reply, Request};
use crate::sandbox::{FileEntry, FileKind};

impl Init {
    /// Hands the connection to a child that does the work.
    pub(super) fn work(
        &self,
        connection: &mut Connection,
        request: FileRequest,
        fds: Vec<OwnedFd>,
        tag: u64,
    ) -> io::Result<Next> {
        let socket = connection.socket.as_fd();
        let birth = self.birth.as_ref().map(AsFd::as_fd);
        sys::fork_into(birth, |born| {
            let reply = (|| {
                self.join(tag, born).map_err(Reply::Failed)?;
                sys::keep_guest_capabilities()
                    .doing("dropping capabilities")
                    .map_err(Reply::Failed)?;
                restrict(&self.filter).map_err(Reply::Failed)?;
                let mut keep = vec![socket.as_raw_fd()];
                keep.extend(fds.iter().map(AsRawFd::as_raw_fd));
                sys::close_all_except(&mut keep);
                perform(&request, socket, &fds)
            })();
            let reply = reply.unwrap_or_else(|refusal| refusal);
            let _ = sys::send(socket, &reply, &[]);
            0
        })?;
        Ok(Next::Leave)
    }
}

type Answer = Result<Reply, Reply>;

fn perform(request: &FileRequest, socket: BorrowedFd<'_>, fds: &[OwnedFd]) -> Answer {
    match request {
        FileRequest::Open { path } => open(path, socket),
        FileRequest::Replace { path, mode, owner, parents } => {
            replace(path, *mode, owner.as_deref(), *parents, socket)
        }
        FileRequest::List { path } => list(path),
        FileRequest::Stat { path } => {
            Ok(Reply::Entries(vec![describe(Path::new(path)).map_err(|e| refuse(path, &e))?]))
        }
        FileRequest::Remove { path, recursive } => remove(path, *recursive),
        FileRequest::Mkdir { path, mode, owner } => mkdir(path, *mode, owner.as_deref()),
        FileRequest::Unpack { path, owner } => unpack(path, owner.as_deref(), stream(fds)?),
        FileRequest::Pack { path } => pack(path, stream(fds)?),
    }
}

fn stream(fds: &[OwnedFd]) -> Result<File, Reply> {
    let fd = fds.first().ok_or_else(|| invalid("", "there is no stream"))?;
    Ok(File::from(fd.try_clone().map_err(|e| refuse("", &e))?))
}

fn invalid(what: &str, message: &str) -> Reply {
    Reply::Refused { code: Refusal::Invalid, what: what.into(), message: message.into() }
}

/// The refusal for a file error.
fn refuse(path: &str, error: &io::Error) -> Reply {
    let code = match error.kind() {
        ErrorKind::NotFound => Refusal::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Refusal::Permission,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Refusal::Full,
        _ => Refusal::Invalid,
    };
    let message = match error.kind() {
        ErrorKind::IsADirectory => "is a folder".into(),
        ErrorKind::NotADirectory => "has a part that is not a folder".into(),
        ErrorKind::DirectoryNotEmpty => "is a folder that is not empty; use recursive".into(),
        ErrorKind::AlreadyExists => "exists and is not a folder".into(),
        ErrorKind::NotFound => missing_folder(path),
        _ if error.raw_os_error() == Some(libc::ELOOP) => "goes through too many links".into(),
        _ => error.to_string(),
    };
    Reply::Refused { code, what: path.into(), message }
}

/// Which folder above a missing file is missing, too; nothing when none is.
fn missing_folder(path: &str) -> String {
    let above = Path::new(path).ancestors().skip(1);
    let gone = above.take_while(|folder| folder.symlink_metadata().is_err()).last();
    gone.map(|folder| format!("there is no folder '{}'", folder.display())).unwrap_or_default()
}

fn open(path: &str, socket: BorrowedFd<'_>) -> Answer {
    // Nonblocking, or a named pipe would hold us up here.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| refuse(path, &e))?;
    let metadata = file.metadata().map_err(|e| refuse(path, &e))?;
    if metadata.is_dir() {
        return Err(invalid(path, "is a folder"));
    }
    if !metadata.is_file() {
        return Err(invalid(path, "is not a regular file"));
    }
    let _ = sys::send(socket, &Reply::Ok, &[file.as_fd()]);
    sys::exit_now(0)
}

fn replace(
    path: &str,
    mode: Option<u32>,
    owner: Option<&str>,
    parents: bool,
    socket: BorrowedFd<'_>,
) -> Answer {
    let target = follow(Path::new(path)).map_err(|e| refuse(path, &e))?;
    let failed = |e: io::Error| refuse(path, &e);
    let parent = target.parent().ok_or_else(|| invalid(path, "is a folder"))?;
    if parents {
        make_folders(parent).map_err(failed)?;
    }
    let old = match fs::symlink_metadata(&target) {
        Ok(old) if old.is_dir() => return Err(invalid(path, "is a folder")),
        Ok(old) if !old.is_file() => return Err(invalid(path, "is not a regular file")),
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let ids = owner.map(ids).transpose()?;
    let (uid, gid) = ids.or(old.as_ref().map(|old| (old.uid(), old.gid()))).unwrap_or((0, 0));
    let mode = mode.or(old.as_ref().map(|old| old.mode() & 0o7777)).unwrap_or(0o644);
    let temporary = parent.join(format!(".sandscript-{:08x}", std::process::id() ^ random()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    let _guard = Unlink(&temporary);
    if sys::send(socket, &Reply::Ok, &[file.as_fd()]).is_err() {
        return Ok(Reply::Ok);
    }
    match sys::receive::<Request>(socket) {
        Ok(Some((Request::Commit, _))) => {}
        _ => return Ok(Reply::Ok),
    }
    std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&temporary, &target).map_err(failed)?;
    Ok(Reply::Ok)
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

struct Unlink<'a>(&'a Path);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

/// Where a write through links ends: the last component may be missing.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => {
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn ids(owner: &str) -> Result<(u32, u32), Reply> {
    account::look_up(owner).map(|account| (account.uid, account.gid))
}

fn list(path: &str) -> Answer {
    let failed = |e: io::Error| refuse(path, &e);
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // An entry that vanished meanwhile is not one.
        if let Ok(described) = describe(&entry.path()) {
            entries.push(described);
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Reply::Entries(entries))
}

fn describe(path: &Path) -> io::Result<FileEntry> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => FileKind::Dir,
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let target = (kind == FileKind::Symlink)
        .then(|| fs::read_link(path).map(|target| target.to_string_lossy().into_owned()))
        .transpose()?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(FileEntry {
        name: name.to_string_lossy().into_owned(),
        kind,
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        // A time before 1970 is none that can be told.
        modified: metadata.modified()?.max(std::time::SystemTime::UNIX_EPOCH),
        target,
    })
}

fn remove(path: &str, recursive: bool) -> Answer {
    let metadata = fs::symlink_metadata(path).map_err(|e| refuse(path, &e))?;
    let removed = match (metadata.is_dir(), recursive) {
        (true, true) => fs::remove_dir_all(path),
        (true, false) => fs::remove_dir(path),
        (false, _) => fs::remove_file(path),
    };
    removed.map_err(|e| refuse(path, &e))?;
    Ok(Reply::Ok)
}

fn mkdir(path: &str, mode: Option<u32>, owner: Option<&str>) -> Answer {
    let failed = |e: io::Error| refuse(path, &e);
    let ids = owner.map(ids).transpose()?;
    make_folders(Path::new(path)).map_err(failed)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    if let Some((uid, gid)) = ids {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(Reply::Ok)
}

fn make_folders(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn unpack(path: &str, owner: Option<&str>, tar: File) -> Answer {
    let failed = |e: io::Error| refuse(path, &e);
    let ids = owner.map(ids).transpose()?.unwrap_or((0, 0));
    make_folders(Path::new(path)).map_err(failed)?;
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(256 << 10, tar));
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        entry.set_preserve_mtime(true);
        entry.set_preserve_permissions(true);
        entry.set_unpack_xattrs(false);
        let name = entry.path().map_err(failed)?.into_owned();
        let place = Path::new(path).join(&name);
        let shown = place.to_string_lossy().into_owned();
        if name.is_absolute() {
            return Err(invalid(&shown, "is an absolute name in an archive"));
        }
        // Folders get their mode and time last, so that a read-only one can be filled.
        if entry.header().entry_type().is_dir() {
            if name.components().any(|part| part == std::path::Component::ParentDir) {
                return Err(invalid(&shown, "leaves the folder"));
            }
            make_folders(&place).map_err(|e| refuse(&shown, &e))?;
            let header = entry.header();
            folders.push((place, header.mode().unwrap_or(0o755), header.mtime().unwrap_or(0)));
            continue;
        }
        if !entry.unpack_in(path).map_err(|e| refuse(&shown, &unwrapped(e)))? {
            return Err(invalid(&shown, "leaves the folder"));
        }
        lchown(&place, Some(ids.0), Some(ids.1)).map_err(|e| refuse(&shown, &e))?;
        let mode = entry.header().mode().unwrap_or(0);
        if mode & 0o7000 != 0 && entry.header().entry_type().is_file() {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o7777))
                .map_err(|e| refuse(&shown, &e))?;
        }
    }
    for (place, mode, mtime) in folders.into_iter().rev() {
        let failed = |e: io::Error| refuse(&place.to_string_lossy(), &e);
        lchown(&place, Some(ids.0), Some(ids.1)).map_err(failed)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mtime);
        File::open(&place).and_then(|folder| folder.set_modified(time)).map_err(failed)?;
    }
    Ok(Reply::Ok)
}

/// The tar crate wraps system errors twice; the innermost says what happened.
fn unwrapped(error: io::Error) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(errno) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(errno);
        }
        source = inner.source();
    }
    error
}

fn pack(path: &str, tar: File) -> Answer {
    let failed = |e: io::Error| refuse(path, &e);
    let source = fs::canonicalize(path).map_err(failed)?;
    let metadata = fs::metadata(&source).map_err(failed)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(invalid(path, "is neither a folder nor a regular file"));
    }
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(256 << 10, tar));
    builder.follow_symlinks(false);
    if metadata.is_dir() {
        append_folder(&mut builder, &source, Path::new("")).map_err(failed)?;
    } else {
        let name = Path::new(path).file_name().unwrap_or(source.as_os_str());
        append_file(&mut builder, &source, Path::new(name)).map_err(failed)?;
    }
    builder.into_inner().and_then(|mut writer| io::Write::flush(&mut writer)).map_err(failed)?;
    Ok(Reply::Ok)
}

fn append_folder<W: io::Write>(
    builder: &mut tar::Builder<W>,
    folder: &Path,
    name: &Path,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if kind.is_dir() {
            builder.append_dir(&name, &path)?;
            append_folder(builder, &path, &name)?;
        } else if kind.is_file() {
            append_file(builder, &path, &name)?;
        } else if kind.is_symlink() {
            builder.append_path_with_name(&path, &name)?;
        }
    }
    Ok(())
}

/// A file that grows or shrinks meanwhile keeps the length its header says.
fn append_file<W: io::Write>(
    builder: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
) -> io::Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    let length = metadata.len();
    builder.append_data(&mut header, name, (&file).take(length).chain(io::repeat(0)).take(length))
}
