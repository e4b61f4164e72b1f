//! A sandbox under test, with the short words that cases use.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sandscript::sandbox::{
    Backend, Cancel, Command, Exit, Info, Output, Process, ReadOptions, Reader, Restore, Result,
    Snapshot, SnapshotSpec, State, Stdin, StopOptions, WriteOptions, exec,
};
use tokio::io::AsyncReadExt;

use crate::case::{CaseResult, Failure};

pub struct Sandbox {
    pub backend: Arc<dyn Backend>,
    pub name: String,
    pub cancel: Cancel,
}

/// A reader of these bytes.
pub fn reader(bytes: impl Into<Bytes>) -> Reader {
    Box::new(Cursor::new(bytes.into()))
}

pub async fn drain(mut reader: Reader) -> CaseResult<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Tries until `done` is true, for at most ten seconds.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> CaseResult<bool>) -> CaseResult {
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if done().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Failure(format!("not within thirty seconds: {what}")))
}

impl Sandbox {
    pub async fn exec(&self, command: &Command) -> Result<Output> {
        exec(self.backend.as_ref(), &self.name, command, &self.cancel).await
    }

    /// Runs a shell line, whatever its exit code.
    pub async fn sh(&self, line: &str) -> Result<Output> {
        self.exec(&Command::shell(line)).await
    }

    /// Runs a shell line that must succeed; its output without the last line break.
    #[track_caller]
    pub fn run(&self, line: &str) -> impl Future<Output = CaseResult<String>> {
        let at = std::panic::Location::caller();
        async move {
            let output = self.sh(line).await?;
            if output.exit != Exit::Code(0) {
                let stderr = String::from_utf8_lossy(&output.stderr);
                return Err(Failure(format!("'{line}': {}, {stderr:?} at {at}", output.exit)));
            }
            let text = String::from_utf8(output.stdout)?;
            Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        }
    }

    /// Runs these words with these bytes as input; the output.
    pub async fn filter(&self, argv: &[&str], input: impl Into<Bytes>) -> CaseResult<Vec<u8>> {
        let mut command = Command::argv(argv.iter().copied());
        command.stdin = Stdin::Bytes(input.into());
        let output = self.exec(&command).await?;
        assert_eq!(output.exit, Exit::Code(0), "{argv:?}: {output:?}");
        Ok(output.stdout)
    }

    pub async fn spawn(&self, command: &Command) -> Result<Process> {
        self.backend.spawn(&self.name, command, &self.cancel).await
    }

    /// A background process; its id is so high that no other sandbox's first processes have it.
    pub async fn background(&self) -> CaseResult<String> {
        for _ in 0..30 {
            self.run("true").await?;
        }
        self.run("sleep 1000 > /dev/null 2> /dev/null & echo $!").await
    }

    /// Whether a process with this id is there.
    pub async fn alive(&self, pid: &str) -> CaseResult<bool> {
        Ok(self.sh(&format!("kill -0 {pid}")).await?.exit.ok())
    }

    /// How many processes have `marker` in their arguments; needs real programs.
    pub async fn count(&self, marker: &str) -> CaseResult<usize> {
        let (head, tail) = marker.split_at(1);
        let script = format!(
            "n=0; for f in /proc/[0-9]*/cmdline; do \
             if tr '\\0' ' ' 2>/dev/null < $f | grep -q '[{head}]{tail}'; then n=$((n+1)); fi; done; echo $n"
        );
        Ok(self.run(&script).await?.parse()?)
    }

    pub async fn write(&self, path: &str, content: impl Into<Bytes>) -> Result<()> {
        self.write_with(path, content, &WriteOptions::default()).await
    }

    pub async fn write_with(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.backend.write(&self.name, path, reader(content), options, &self.cancel).await
    }

    pub async fn open(&self, path: &str, options: ReadOptions) -> Result<Reader> {
        self.backend.read(&self.name, path, options, &self.cancel).await
    }

    pub async fn read(&self, path: &str) -> CaseResult<Vec<u8>> {
        drain(self.open(path, ReadOptions::default()).await?).await
    }

    pub async fn read_text(&self, path: &str) -> CaseResult<String> {
        Ok(String::from_utf8(self.read(path).await?)?)
    }

    pub async fn stat(&self, path: &str) -> Result<sandscript::sandbox::FileEntry> {
        self.backend.stat(&self.name, path, &self.cancel).await
    }

    /// The names in a directory.
    pub async fn ls(&self, path: &str) -> Result<Vec<String>> {
        let entries = self.backend.read_dir(&self.name, path, &self.cancel).await?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    pub async fn mkdir(&self, path: &str) -> Result<()> {
        self.backend.mkdir(&self.name, path, &WriteOptions::default(), &self.cancel).await
    }

    pub async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        self.backend.remove(&self.name, path, recursive, &self.cancel).await
    }

    pub async fn unpack(&self, path: &str, tar: impl Into<Bytes>) -> Result<()> {
        let options = WriteOptions::default();
        self.backend.unpack(&self.name, path, reader(tar), &options, &self.cancel).await
    }

    pub async fn pack(&self, path: &str) -> CaseResult<Vec<u8>> {
        drain(self.backend.pack(&self.name, path, &self.cancel).await?).await
    }

    pub async fn info(&self) -> Result<Info> {
        self.backend.get(&self.name, &self.cancel).await
    }

    pub async fn state(&self) -> Result<State> {
        Ok(self.info().await?.state)
    }

    pub async fn start(&self) -> Result<()> {
        self.backend.start(&self.name, &self.cancel).await
    }

    /// Stops it at once.
    pub async fn stop(&self) -> Result<()> {
        let options = StopOptions { force: true, ..StopOptions::default() };
        self.backend.stop(&self.name, options, &self.cancel).await
    }

    pub async fn delete(&self) -> Result<()> {
        self.backend.delete(&self.name, &self.cancel).await
    }

    pub async fn freeze(&self) -> Result<()> {
        self.backend.freeze(&self.name, &self.cancel).await
    }

    pub async fn thaw(&self) -> Result<()> {
        self.backend.thaw(&self.name, &self.cancel).await
    }

    pub async fn snapshot(&self, label: &str) -> Result<Snapshot> {
        self.backend.snapshot(&self.name, &SnapshotSpec::new(label), &self.cancel).await
    }

    pub async fn labels(&self) -> Result<Vec<String>> {
        let all = self.backend.snapshots(&self.name, &self.cancel).await?;
        Ok(all.into_iter().map(|snapshot| snapshot.label).collect())
    }

    pub async fn restore(&self, label: &str) -> Result<()> {
        self.backend.restore(&self.name, label, Restore::default(), &self.cancel).await
    }

    pub async fn delete_snapshot(&self, label: &str) -> Result<()> {
        self.backend.delete_snapshot(&self.name, label, &self.cancel).await
    }
}
