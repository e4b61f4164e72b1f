//! Reading and writing files.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use sandscript::sandbox::{
    Cancel, Command, Error, FileKind, Kind, ReadOptions, Reader, WriteOptions,
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::{Sandbox, drain};

cases!["files";
    round_trip,
    seen_by_commands_and_back,
    mode_and_owner_of_a_new_file,
    mode_and_owner_hold_on_overwrite,
    owners [Users],
    a_write_that_fails_changes_nothing,
    a_cancelled_write_changes_nothing,
    parents,
    sixty_four_megabytes,
    ranges,
    odd_names,
    stat_tells_kinds_apart,
    modified_is_the_time_of_the_change,
    read_dir_is_sorted,
    read_dir_of_many,
    remove,
    mkdir,
    what_is_no_file,
    an_open_reader_keeps_its_file,
    writers_at_once,
    pipes_and_devices_do_not_hang [Programs],
    files_of_proc [Programs],
    need_a_sandbox,
];

fn options(mode: Option<u32>, owner: Option<&str>) -> WriteOptions {
    WriteOptions { mode, owner: owner.map(str::to_owned), parents: false }
}

async fn round_trip(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_001).collect();
    for content in [&b""[..], b"x", b"no line end", b"\0\n\0", &bytes] {
        sandbox.write("/root/file", content.to_vec()).await?;
        assert!(sandbox.read("/root/file").await? == content);
        assert_eq!(sandbox.stat("/root/file").await?.size, content.len() as u64);
    }
    assert_eq!(
        sandbox
            .ls("/root")
            .await?
            .iter()
            .filter(|name| name.contains("file") && name.as_str() != ".profile")
            .count(),
        1
    );
    Ok(())
}

async fn seen_by_commands_and_back(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/in", "from outside\n").await?;
    assert_eq!(sandbox.run("cat /root/in").await?, "from outside");
    sandbox.run("echo from inside > /root/out").await?;
    assert_eq!(sandbox.read_text("/root/out").await?, "from inside\n");
    sandbox.run("echo more >> /root/in").await?;
    assert_eq!(sandbox.read_text("/root/in").await?, "from outside\nmore\n");
    sandbox.run("echo x > /tmp/t; mkdir -p /var/lib/deep/er; echo y > /var/lib/deep/er/y").await?;
    assert_eq!(sandbox.read_text("/tmp/t").await?, "x\n");
    assert_eq!(sandbox.read_text("/var/lib/deep/er/y").await?, "y\n");
    Ok(())
}

async fn mode_and_owner_of_a_new_file(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/plain", "").await?;
    let entry = sandbox.stat("/root/plain").await?;
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o644, 0, 0));
    for mode in [0o600, 0o755, 0o400, 0o000, 0o777, 0o4755, 0o2755, 0o1644] {
        let path = format!("/root/{mode:o}");
        sandbox.write_with(&path, "x", &options(Some(mode), None)).await?;
        assert_eq!(sandbox.stat(&path).await?.mode, mode, "{mode:o}");
        assert_eq!(sandbox.read(&path).await?, b"x");
    }
    Ok(())
}

async fn mode_and_owner_hold_on_overwrite(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write_with("/root/f", "1", &options(Some(0o750), None)).await?;
    sandbox.write("/root/f", "22").await?;
    assert_eq!(sandbox.stat("/root/f").await?.mode, 0o750, "the file's mode is kept");
    sandbox.write_with("/root/f", "333", &options(Some(0o604), None)).await?;
    assert_eq!(sandbox.stat("/root/f").await?.mode, 0o604, "the given mode holds");
    assert_eq!(sandbox.read("/root/f").await?, b"333");
    Ok(())
}

async fn owners(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for (owner, uid, gid) in
        [("1234:5678", 1234, 5678), ("nobody:0", 65534, 0), ("0:nogroup", 0, 65534)]
    {
        sandbox.write_with("/tmp/f", "x", &options(None, Some(owner))).await?;
        let entry = sandbox.stat("/tmp/f").await?;
        assert_eq!((entry.uid, entry.gid), (uid, gid), "{owner}");
        sandbox.write("/tmp/f", "again").await?;
        let entry = sandbox.stat("/tmp/f").await?;
        assert_eq!((entry.uid, entry.gid), (uid, gid), "{owner} is kept on overwrite");
    }
    let unknown = sandbox.write_with("/tmp/g", "x", &options(None, Some("no-such-user"))).await;
    fails!(unknown, Error::NotFound { kind: Kind::User, .. });
    fails!(sandbox.stat("/tmp/g").await, Error::NotFound { .. });
    Ok(())
}

/// Gives some bytes, then fails or never gives more.
struct Broken {
    left: usize,
    hang: bool,
}

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.left > 0 {
            let count = self.left.min(buffer.remaining());
            buffer.put_slice(&vec![b'!'; count]);
            self.left -= count;
            return Poll::Ready(Ok(()));
        }
        if self.hang {
            return Poll::Pending;
        }
        Poll::Ready(Err(std::io::Error::other("broken on purpose")))
    }
}

async fn only_the_old_file(sandbox: &Sandbox) -> CaseResult {
    assert_eq!(sandbox.read_text("/root/dir/file").await?, "old");
    assert_eq!(sandbox.ls("/root/dir").await?, ["file"], "something half written is left");
    Ok(())
}

async fn a_write_that_fails_changes_nothing(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.mkdir("/root/dir").await?;
    sandbox.write("/root/dir/file", "old").await?;
    for path in ["/root/dir/file", "/root/dir/new"] {
        let content: Reader = Box::new(Broken { left: 300_000, hang: false });
        let options = WriteOptions::default();
        let done = sandbox.backend.write(&sandbox.name, path, content, &options, &scope.cancel);
        assert!(done.await.is_err());
        only_the_old_file(&sandbox).await?;
    }
    Ok(())
}

async fn a_cancelled_write_changes_nothing(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.mkdir("/root/dir").await?;
    sandbox.write("/root/dir/file", "old").await?;
    for path in ["/root/dir/file", "/root/dir/new"] {
        let content: Reader = Box::new(Broken { left: 300_000, hang: true });
        let (options, cancel) = (WriteOptions::default(), Cancel::new());
        let write = sandbox.backend.write(&sandbox.name, path, content, &options, &cancel);
        let later = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel();
        };
        let (done, ()) =
            tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(write, later) })
                .await?;
        fails!(done, Error::Cancelled);
        crate::sandbox::eventually("the half written file goes away", async || {
            Ok(sandbox.ls("/root/dir").await? == ["file"])
        })
        .await?;
        only_the_old_file(&sandbox).await?;
    }
    Ok(())
}

async fn parents(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let missing = sandbox.write("/root/a/b/c", "x").await;
    fails!(missing, Error::NotFound { kind: Kind::File, .. });
    fails!(sandbox.stat("/root/a").await, Error::NotFound { .. });
    let options = WriteOptions { parents: true, mode: Some(0o600), owner: None };
    sandbox.write_with("/root/a/b/c", "x", &options).await?;
    for dir in ["/root/a", "/root/a/b"] {
        let entry = sandbox.stat(dir).await?;
        assert_eq!((entry.kind, entry.mode, entry.uid), (FileKind::Dir, 0o755, 0), "{dir}");
    }
    assert_eq!(sandbox.stat("/root/a/b/c").await?.mode, 0o600);
    Ok(())
}

/// Repeats a chunk.
struct Repeat<'a> {
    chunk: &'a [u8],
    at: usize,
    left: usize,
}

impl AsyncRead for Repeat<'static> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.left.min(buffer.remaining()).min(self.chunk.len() - self.at);
        buffer.put_slice(&self.chunk[self.at..self.at + count]);
        self.at = (self.at + count) % self.chunk.len();
        self.left -= count;
        Poll::Ready(Ok(()))
    }
}

async fn sixty_four_megabytes(scope: Scope) -> CaseResult {
    const CHUNK: &[u8; 1 << 16] = &{
        let mut chunk = [0; 1 << 16];
        let mut index = 0;
        while index < chunk.len() {
            chunk[index] = ((index as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
            index += 1;
        }
        chunk
    };
    const SIZE: usize = 64 << 20;
    let sandbox = scope.sandbox().await?;
    let content: Reader = Box::new(Repeat { chunk: CHUNK, at: 0, left: SIZE });
    let options = WriteOptions::default();
    sandbox.backend.write(&sandbox.name, "/root/big", content, &options, &scope.cancel).await?;
    assert_eq!(sandbox.stat("/root/big").await?.size, SIZE as u64);
    let mut reader = sandbox.open("/root/big", ReadOptions::default()).await?;
    let mut buffer = vec![0; CHUNK.len()];
    for index in 0..SIZE / CHUNK.len() {
        reader.read_exact(&mut buffer).await?;
        assert!(buffer == CHUNK, "chunk {index} came back changed");
    }
    assert_eq!(reader.read(&mut buffer).await?, 0);
    let counted = sandbox.run("wc -c /root/big").await?;
    assert_eq!(counted, format!("{SIZE} /root/big"));
    // A reader that is dropped half way does no harm.
    let mut reader = sandbox.open("/root/big", ReadOptions::default()).await?;
    reader.read_exact(&mut buffer).await?;
    drop(reader);
    sandbox.run("true").await?;
    Ok(())
}

async fn ranges(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/f", "0123456789").await?;
    for (offset, length, expected) in [
        (0, None, "0123456789"),
        (3, None, "3456789"),
        (3, Some(4), "3456"),
        (0, Some(0), ""),
        (9, Some(100), "9"),
        (10, None, ""),
        (1 << 40, Some(5), ""),
        (5, Some(u64::MAX), "56789"),
    ] {
        let read = drain(sandbox.open("/root/f", ReadOptions { offset, length }).await?).await?;
        assert_eq!(String::from_utf8(read)?, expected, "{offset} {length:?}");
    }
    Ok(())
}

async fn odd_names(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.mkdir("/root/odd").await?;
    let longest = "n".repeat(255);
    let longest = longest.as_str();
    let mut names = vec![
        "a b",
        " ",
        "-rf",
        "--",
        "*",
        "$HOME",
        "'",
        "\"",
        "\\",
        "a\nb",
        "\t",
        "ä€😀",
        "..x",
        "...",
        ".hidden",
        "#",
        "~",
        "%s",
        "\u{1}",
        longest,
    ];
    for name in &names {
        let path = format!("/root/odd/{name}");
        sandbox.write(&path, name.to_string()).await?;
        assert_eq!(sandbox.read_text(&path).await?, *name);
        assert_eq!(sandbox.stat(&path).await?.name, *name);
        let cat = sandbox.exec(&Command::argv(["cat", &path])).await?;
        assert_eq!(String::from_utf8(cat.stdout)?, *name);
    }
    names.sort_unstable();
    assert_eq!(sandbox.ls("/root/odd").await?, names);
    for name in &names {
        sandbox.remove(&format!("/root/odd/{name}"), false).await?;
    }
    assert!(sandbox.ls("/root/odd").await?.is_empty());
    Ok(())
}

async fn stat_tells_kinds_apart(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox
        .run("mkdir -p /root/d; echo x > /root/f; ln -s /no/where /root/l; ln -s d /root/ld")
        .await?;
    for (path, kind, target) in [
        ("/root/d", FileKind::Dir, None),
        ("/root/f", FileKind::File, None),
        ("/root/l", FileKind::Symlink, Some("/no/where")),
        ("/root/ld", FileKind::Symlink, Some("d")),
        ("/dev/null", FileKind::Other, None),
        ("/", FileKind::Dir, None),
    ] {
        let entry = sandbox.stat(path).await?;
        assert_eq!((entry.kind, entry.target.as_deref()), (kind, target), "{path}");
    }
    let entries = sandbox.backend.read_dir(&sandbox.name, "/root", &scope.cancel).await?;
    let link = entries.iter().find(|entry| entry.name == "ld").unwrap();
    assert_eq!((link.kind, link.target.as_deref()), (FileKind::Symlink, Some("d")));
    fails!(sandbox.stat("/root/none").await, Error::NotFound { kind: Kind::File, .. });
    Ok(())
}

async fn modified_is_the_time_of_the_change(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.write("/root/f", "x").await?;
    let modified = sandbox.stat("/root/f").await?.modified;
    let off = match SystemTime::now().duration_since(modified) {
        Ok(past) => past,
        Err(future) => future.duration(),
    };
    assert!(off < Duration::from_secs(60), "{off:?} off");
    Ok(())
}

async fn read_dir_is_sorted(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/d/c; touch /root/d/b /root/d/B /root/d/.a /root/d/a").await?;
    assert_eq!(sandbox.ls("/root/d").await?, [".a", "B", "a", "b", "c"]);
    assert!(sandbox.ls("/root/d/c").await?.is_empty());
    sandbox.run("ln -s d /root/link").await?;
    assert_eq!(sandbox.ls("/root/link").await?.len(), 5, "a link to a directory is followed");
    fails!(sandbox.ls("/root/none").await, Error::NotFound { kind: Kind::File, .. });
    fails!(sandbox.ls("/root/d/a").await, Error::InvalidInput { .. });
    Ok(())
}

async fn read_dir_of_many(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let names: Vec<String> = (0..3000).map(|n| format!("a-rather-long-file-name-{n:05}")).collect();
    let script = format!("mkdir -p /root/many; cd /root/many; touch {}", names.join(" "));
    sandbox.filter(&["sh"], script).await?;
    assert_eq!(sandbox.ls("/root/many").await?, names);
    sandbox.remove("/root/many", true).await?;
    Ok(())
}

async fn remove(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox
        .run("mkdir -p /root/d/e /root/keep; echo x > /root/d/e/f; echo k > /root/keep/k; ln -s /root/keep /root/d/link; ln -s /root/keep /root/link; ln -s nowhere /root/dangling")
        .await?;
    fails!(sandbox.remove("/root/d", false).await, Error::InvalidInput { .. });
    assert_eq!(sandbox.read_text("/root/d/e/f").await?, "x\n");
    sandbox.remove("/root/link", true).await?;
    fails!(sandbox.stat("/root/link").await, Error::NotFound { .. });
    sandbox.remove("/root/dangling", false).await?;
    sandbox.remove("/root/d", true).await?;
    fails!(sandbox.stat("/root/d").await, Error::NotFound { .. });
    assert_eq!(sandbox.read_text("/root/keep/k").await?, "k\n", "a link was followed");
    sandbox.remove("/root/keep/k", false).await?;
    sandbox.remove("/root/keep", false).await?;
    fails!(sandbox.remove("/root/keep", true).await, Error::NotFound { kind: Kind::File, .. });
    fails!(sandbox.remove("/root/none/x", false).await, Error::NotFound { kind: Kind::File, .. });
    Ok(())
}

async fn mkdir(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.mkdir("/root/a/b/c").await?;
    sandbox.mkdir("/root/a/b/c").await?;
    sandbox.mkdir("/root/a/b/c/").await?;
    sandbox.mkdir("/").await?;
    assert_eq!(sandbox.stat("/root/a/b").await?.mode, 0o755);
    let with = options(Some(0o1777), None);
    sandbox.backend.mkdir(&sandbox.name, "/root/x/y", &with, &scope.cancel).await?;
    assert_eq!(sandbox.stat("/root/x/y").await?.mode, 0o1777);
    assert_eq!(sandbox.stat("/root/x").await?.mode, 0o755, "the mode is the last folder's");
    sandbox.write("/root/file", "x").await?;
    for path in ["/root/file", "/root/file/below"] {
        fails!(sandbox.mkdir(path).await, Error::InvalidInput { .. } | Error::AlreadyExists { .. });
    }
    assert_eq!(sandbox.read_text("/root/file").await?, "x");
    Ok(())
}

async fn what_is_no_file(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let read =
        async |path: &'static str| sandbox.open(path, ReadOptions::default()).await.map(drop);
    fails!(read("/root").await, Error::InvalidInput { .. });
    fails!(read("/root/none").await, Error::NotFound { kind: Kind::File, .. });
    fails!(read("/none/none").await, Error::NotFound { kind: Kind::File, .. });
    fails!(sandbox.write("/root", "x").await, Error::InvalidInput { .. });
    fails!(sandbox.write("/", "x").await, Error::InvalidInput { .. });
    sandbox.write("/root/file", "x").await?;
    fails!(read("/root/file/below").await, Error::InvalidInput { .. } | Error::NotFound { .. });
    fails!(
        sandbox.write("/root/file/below", "x").await,
        Error::InvalidInput { .. } | Error::NotFound { .. }
    );
    Ok(())
}

async fn an_open_reader_keeps_its_file(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let old = vec![b'o'; 4 << 20];
    sandbox.write("/root/f", old.clone()).await?;
    let mut reader = sandbox.open("/root/f", ReadOptions::default()).await?;
    let mut first = vec![0; 1000];
    reader.read_exact(&mut first).await?;
    sandbox.write("/root/f", vec![b'n'; 4 << 20]).await?;
    first.extend(drain(reader).await?);
    assert!(first == old, "a write changed a file under its reader");
    assert!(sandbox.read("/root/f").await?.iter().all(|byte| *byte == b'n'));
    Ok(())
}

async fn writers_at_once(scope: Scope) -> CaseResult {
    let sandbox = std::sync::Arc::new(scope.sandbox().await?);
    sandbox.mkdir("/root/dir").await?;
    let writers: Vec<_> = (b'a'..b'i')
        .map(|letter| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move { sandbox.write("/root/dir/f", vec![letter; 300_000]).await })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let content = sandbox.read("/root/dir/f").await?;
    assert_eq!(content.len(), 300_000);
    assert!(content.iter().all(|byte| *byte == content[0]), "two writers' bytes are mixed");
    assert_eq!(sandbox.ls("/root/dir").await?, ["f"]);
    Ok(())
}

async fn pipes_and_devices_do_not_hang(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkfifo /root/pipe; ln -s pipe /root/to-pipe").await?;
    assert_eq!(sandbox.stat("/root/pipe").await?.kind, FileKind::Other);
    let soon = Duration::from_secs(30);
    for path in ["/root/pipe", "/root/to-pipe"] {
        let read = tokio::time::timeout(soon, sandbox.open(path, ReadOptions::default())).await?;
        fails!(read, Error::InvalidInput { .. });
    }
    // Whether a pipe is replaced or refused, it does not block.
    let _ = tokio::time::timeout(soon, sandbox.write("/root/pipe", "x")).await?;
    let _ = tokio::time::timeout(soon, async {
        match sandbox.open("/dev/zero", ReadOptions { offset: 0, length: Some(1000) }).await {
            Ok(reader) => drain(reader).await.map(drop),
            Err(_) => Ok(()),
        }
    })
    .await?;
    sandbox.run("mkfifo /root/second; mkdir /root/tree; mkfifo /root/tree/third").await?;
    let _ = tokio::time::timeout(soon, sandbox.pack("/root/tree")).await?;
    sandbox.remove("/root/second", false).await?;
    sandbox.remove("/root/tree", true).await?;
    Ok(())
}

async fn files_of_proc(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let version = sandbox.read_text("/proc/version").await?;
    assert!(version.starts_with("Linux"), "{version:?}");
    let inside = sandbox.run("cat /proc/mounts").await?;
    assert!(!sandbox.read("/proc/1/mounts").await.is_ok_and(|outside| outside.is_empty()));
    assert!(!inside.is_empty());
    Ok(())
}

async fn need_a_sandbox(scope: Scope) -> CaseResult {
    let none = scope.at("no-such-sandbox");
    fails!(none.write("/root/f", "x").await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.ls("/").await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.stat("/").await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.remove("/x", true).await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(none.mkdir("/x").await, Error::NotFound { kind: Kind::Sandbox, .. });
    fails!(
        none.open("/etc/hostname", ReadOptions::default()).await.map(drop),
        Error::NotFound { kind: Kind::Sandbox, .. }
    );
    let stopped = scope.sandbox().await?;
    stopped.write("/root/f", "x").await?;
    stopped.stop().await?;
    match stopped.read("/root/f").await {
        Ok(content) => assert_eq!(content, b"x"),
        Err(failure) => assert!(failure.0.contains("NotRunning"), "{failure:?}"),
    }
    Ok(())
}
