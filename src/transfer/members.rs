//! An archive taken apart, for a place that is reached by messages only.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::sync::mpsc;

use super::beneath;
use super::bridge::consume;
use crate::sandbox::{Error, Reader, Result};

const CHUNK: usize = 256 << 10;

/// A word for the kind, then its fields: `d` and `f` with mode, time and name; `c` with some of the
/// file's bytes; `l` and `h` with target and name. Names are relative and without `..`.
pub type Told = Vec<Vec<u8>>;

/// The members of a tar stream, in order. An archive that is broken or hostile ends in an error.
pub fn members(tar: Reader) -> mpsc::Receiver<Result<Told>> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let errors = sender.clone();
        let closed = sender.clone();
        let work = consume(tar, move |from| tell(from, &sender));
        let done = tokio::select! {
            done = work => done,
            () = closed.closed() => return,
        };
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => broken(&error),
        };
        let _ = errors.send(Err(error)).await;
    });
    receiver
}

fn broken(error: &io::Error) -> Error {
    Error::invalid_hint(
        "tar",
        format!("can't be read: {error}"),
        "it is not a tar archive, or it is cut off or damaged",
    )
}

fn refused(name: &Path, why: &str) -> Error {
    Error::invalid_hint(
        "tar",
        format!("refused: entry '{}': {why}", name.display()),
        "the archive is hostile or broken; make it again with plain relative names",
    )
}

fn plain(name: &Path) -> std::result::Result<Vec<u8>, &'static str> {
    let parts = beneath::parts(name)?;
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    Ok(parts.join(&b'/'))
}

fn tell(from: &mut dyn Read, to: &mpsc::Sender<Result<Told>>) -> Result<()> {
    let send = |told: Told| to.blocking_send(Ok(told)).map_err(|_| Error::Cancelled);
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(|error| broken(&error))? {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path().map_err(|error| broken(&error))?.into_owned();
        let name = plain(&path).map_err(|why| refused(&path, why))?;
        let header = entry.header();
        let number = |value: io::Result<u64>| value.map_err(|error| broken(&error));
        let mode = u64::from(header.mode().map_err(|error| broken(&error))? & 0o7777);
        let meta = [mode, number(header.mtime())?].map(|number| number.to_string().into_bytes());
        let [mode, time] = meta;
        if kind.is_dir() {
            send(vec![b"d".to_vec(), mode, time, name])?;
            continue;
        }
        if name.is_empty() {
            return Err(refused(&path, "only a directory can have this name"));
        }
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|target| target.into_owned());
            let target = target.ok_or_else(|| refused(&path, "the link has no target"))?;
            if kind.is_symlink() {
                send(vec![b"l".to_vec(), target, name])?;
            } else {
                let target = Path::new(std::ffi::OsStr::from_bytes(&target)).to_owned();
                let target =
                    plain(&target).map_err(|_| refused(&path, "it is a hard link that leaves"))?;
                send(vec![b"h".to_vec(), target, name])?;
            }
            continue;
        }
        if !(kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()) {
            return Err(refused(&path, "it is a device, a pipe or something unknown"));
        }
        send(vec![b"f".to_vec(), mode, time, name])?;
        loop {
            let mut chunk = vec![0; CHUNK];
            let count = entry.read(&mut chunk).map_err(|error| broken(&error))?;
            if count == 0 {
                break;
            }
            chunk.truncate(count);
            send(vec![b"c".to_vec(), chunk])?;
        }
    }
    Ok(())
}
