//! The folders below a pool: subvolumes of btrfs where the simulator has them, else plain copies.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Refused;

/// Where a pool's folders are. Paths are those of the pool's mount namespace.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Plain folders; a snapshot is a copy.
    Plain,
    /// Subvolumes, in the mount namespace of this process.
    Btrfs(u32),
}

impl Storage {
    /// The same folder as this process sees it.
    pub fn here(&self, folder: &str) -> PathBuf {
        match self {
            Storage::Plain => PathBuf::from(folder),
            Storage::Btrfs(pid) => {
                Path::new(&format!("/proc/{pid}/root")).join(folder.trim_start_matches('/'))
            }
        }
    }

    /// Runs a program where the folders are.
    pub async fn run(&self, argv: &[&str]) -> Result<Vec<u8>, Refused> {
        let mut command = match self {
            Storage::Plain => Command::new(argv[0]),
            Storage::Btrfs(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &pid.to_string(), "-m", "--", argv[0]]);
                command
            }
        };
        let output = command
            .args(&argv[1..])
            .output()
            .await
            .map_err(|e| Refused::Storage(format!("{}: {e}", argv[0])))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(if text.contains("No space left") { Refused::Full } else { Refused::Storage(text) })
    }

    /// A new, empty dataset's folder.
    pub async fn create(&self, folder: &str) -> Result<(), Refused> {
        match self {
            Storage::Plain => self.run(&["mkdir", folder]).await?,
            Storage::Btrfs(_) => self.run(&["btrfs", "-q", "subvolume", "create", folder]).await?,
        };
        Ok(())
    }

    /// A copy of a dataset's folder as it is now.
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), Refused> {
        match self {
            Storage::Plain => self.run(&["cp", "-a", "--reflink=auto", "-T", from, to]).await?,
            Storage::Btrfs(_) => {
                self.run(&["btrfs", "-q", "subvolume", "snapshot", from, to]).await?
            }
        };
        Ok(())
    }

    /// Removes a dataset's folder.
    pub async fn remove(&self, folder: &str) -> Result<(), Refused> {
        match self {
            Storage::Plain => self.run(&["rm", "-rf", folder]).await?,
            Storage::Btrfs(_) => {
                // A guest that ran docker or machined may have made subvolumes of its own.
                let inner = self.run(&["btrfs", "subvolume", "delete", folder]).await;
                match inner {
                    Ok(out) => out,
                    Err(_) => self.run(&["rm", "-rf", "--one-file-system", folder]).await?,
                }
            }
        };
        Ok(())
    }

    /// Gives a dataset's folder another place.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Refused> {
        self.run(&["mv", "-T", from, to]).await.map(|_| ())
    }

    /// Makes `folder` what `from` is, but for `children`. Where somebody has it open, or where it has
    /// children, the contents are changed in place.
    pub async fn replace(
        &self,
        folder: &str,
        from: &str,
        in_use: bool,
        children: &[String],
    ) -> Result<(), Refused> {
        if in_use || !children.is_empty() {
            let (from, to) = (format!("{from}/"), format!("{folder}/"));
            let excludes: Vec<String> =
                children.iter().map(|c| format!("--exclude=/{c}")).collect();
            let mut argv = vec!["rsync", "-aHAX", "--numeric-ids", "--delete"];
            argv.extend(excludes.iter().map(String::as_str));
            argv.extend([from.as_str(), to.as_str()]);
            self.run(&argv).await?;
            return Ok(());
        }
        let aside = format!("{folder}.rollback");
        self.rename(folder, &aside).await?;
        let copied = self.copy(from, folder).await;
        if copied.is_err() {
            self.rename(&aside, folder).await?;
            return copied;
        }
        self.remove(&aside).await
    }
}
