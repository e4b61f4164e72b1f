//! Writing a layer's subfolder.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder that is being filled. Times of folders are set at the end, when nothing changes any more.
pub(super) struct Out {
    root: PathBuf,
    entries: u64,
    times: Vec<(PathBuf, SystemTime)>,
}

impl Out {
    /// Makes the folder itself.
    pub(super) fn new(root: &Path) -> io::Result<Out> {
        DirBuilder::new().mode(0o755).create(root)?;
        std::fs::set_permissions(root, Permissions::from_mode(0o755))?;
        Ok(Out { root: root.to_path_buf(), entries: 0, times: Vec::new() })
    }

    /// Goes on with a folder that is there.
    pub(super) fn open(root: &Path) -> Out {
        Out { root: root.to_path_buf(), entries: 0, times: Vec::new() }
    }

    /// Gives the folder itself the mode and time of `source`.
    pub(super) fn like(&mut self, source: &Path) -> io::Result<()> {
        let meta = source.metadata()?;
        std::fs::set_permissions(&self.root, Permissions::from_mode(meta.mode() & 0o1777))?;
        self.times.push((self.root.clone(), meta.modified()?));
        Ok(())
    }

    /// A folder, unless it is there.
    pub(super) fn dir(&mut self, name: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let path = self.root.join(name);
        match DirBuilder::new().mode(mode).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        self.entries += 1;
        std::fs::set_permissions(&path, Permissions::from_mode(mode))
    }

    /// A folder with mode and time of one on the host, unless it is there.
    pub(super) fn dir_like(&mut self, name: &Path, source: &Path) -> io::Result<()> {
        let meta = source.metadata()?;
        self.dir(name, meta.mode() & 0o1777)?;
        self.times.push((self.root.join(name), meta.modified()?));
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, name: impl AsRef<Path>, target: &Path) -> io::Result<()> {
        self.entries += 1;
        symlink(target, self.root.join(name))
    }

    /// A file, with the time of the one that it was made from.
    pub(super) fn file(
        &mut self,
        name: impl AsRef<Path>,
        content: &[u8],
        mode: u32,
        time: Option<SystemTime>,
    ) -> io::Result<()> {
        let mut file =
            File::options().write(true).create_new(true).mode(mode).open(self.root.join(name))?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        if let Some(time) = time {
            file.set_modified(time)?;
        }
        self.entries += 1;
        Ok(())
    }

    /// Sets the times of the folders; how many entries were written.
    pub(super) fn finish(self) -> io::Result<u64> {
        for (path, time) in &self.times {
            File::open(path)?.set_modified(*time)?;
        }
        Ok(self.entries)
    }
}
