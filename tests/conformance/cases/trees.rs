//! Trees in and out as tar streams.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, SystemTime};

use sandscript::sandbox::{Cancel, Error, FileKind, Kind, WriteOptions};
use tar::{Archive, Builder, EntryType, Header};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::reader;

cases!["trees";
    round_trip,
    a_single_file,
    unpack_into_what_is_there,
    unpack_keeps_mode_and_time,
    unpack_is_owned_by_root,
    unpack_for_an_owner [Users],
    two_thousand_files,
    links_stay_links,
    pack_of_nothing,
    unpack_can_be_cancelled,
];

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub kind: EntryType,
    pub mode: u32,
    pub mtime: u64,
    pub content: String,
}

impl Member {
    pub fn new(name: &str, kind: EntryType, mode: u32, content: &str) -> Self {
        let (name, content) = (name.to_owned(), content.to_owned());
        Member { name, kind, mode, mtime: 1_600_000_000, content }
    }

    pub fn file(name: &str, content: &str) -> Self {
        Member::new(name, EntryType::Regular, 0o644, content)
    }

    pub fn dir(name: &str, mode: u32) -> Self {
        Member::new(name, EntryType::Directory, mode, "")
    }

    pub fn link(name: &str, target: &str) -> Self {
        Member::new(name, EntryType::Symlink, 0o777, target)
    }
}

/// An archive of these members, hostile names included.
pub fn archive(members: &[Member]) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(member.kind);
        header.set_mode(member.mode);
        header.set_mtime(member.mtime);
        header.set_uid(1000);
        header.set_gid(1000);
        let plain = member.name.len() < 100 && member.content.len() < 100;
        match member.kind {
            EntryType::Regular => {
                header.set_size(member.content.len() as u64);
                if plain {
                    // By hand, since the library refuses names with `..` in them.
                    header.as_old_mut().name[..member.name.len()]
                        .copy_from_slice(member.name.as_bytes());
                    header.set_cksum();
                    builder.append(&header, member.content.as_bytes())?;
                } else {
                    builder.append_data(&mut header, &member.name, member.content.as_bytes())?;
                }
            }
            _ if plain => {
                header.set_size(0);
                header.as_old_mut().name[..member.name.len()]
                    .copy_from_slice(member.name.as_bytes());
                if member.kind != EntryType::Directory {
                    header.as_old_mut().linkname[..member.content.len()]
                        .copy_from_slice(member.content.as_bytes());
                }
                if matches!(member.kind, EntryType::Char | EntryType::Block) {
                    header.as_old_mut().linkname.fill(0);
                    header.set_device_major(1)?;
                    header.set_device_minor(3)?;
                }
                header.set_cksum();
                builder.append(&header, std::io::empty())?;
            }
            EntryType::Directory => {
                header.set_size(0);
                builder.append_data(&mut header, &member.name, std::io::empty())?;
            }
            _ => {
                header.set_size(0);
                builder.append_link(&mut header, &member.name, &member.content)?;
            }
        }
    }
    builder.into_inner()
}

/// What is in an archive, by name without slashes at its ends; the root itself is left out.
pub fn members(bytes: &[u8]) -> CaseResult<BTreeMap<String, Member>> {
    let mut found = BTreeMap::new();
    for entry in Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let name = String::from_utf8(entry.path_bytes().into_owned())?;
        let name = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/').to_owned();
        let mut content = String::new();
        match entry.link_name()? {
            Some(target) => content = target.display().to_string(),
            None => drop(entry.read_to_string(&mut content)?),
        }
        let header = entry.header();
        let member = Member {
            name: name.clone(),
            kind: header.entry_type(),
            mode: header.mode()? & 0o7777,
            mtime: header.mtime()?,
            content,
        };
        if !name.is_empty() && name != "." {
            assert!(found.insert(name.clone(), member).is_none(), "{name} is in it twice");
        }
    }
    Ok(found)
}

fn tree() -> Vec<Member> {
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(200));
    vec![
        Member::dir("empty", 0o700),
        Member::dir("dir", 0o755),
        Member { mtime: 1_000_000_007, ..Member::file("dir/file", "content\n") },
        Member::new("dir/run", EntryType::Regular, 0o755, "#!/bin/sh\n"),
        Member::new("dir/secret", EntryType::Regular, 0o400, ""),
        Member::link("dir/link", "file"),
        Member::link("absolute", "/no/where/at/all"),
        Member::file("a\nb", "newline"),
        Member::file("ä 😀", "unicode"),
        Member::file("-rf", "dash"),
        Member::dir("deep", 0o755),
        Member::dir(&format!("deep/{}", "d".repeat(120)), 0o711),
        Member::file(&long, "long"),
        Member::link("long-link", &"t".repeat(150)),
    ]
}

async fn round_trip(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.unpack("/root/tree", archive(&tree())?).await?;
    let mut expected: BTreeMap<_, _> =
        tree().into_iter().map(|member| (member.name.clone(), member)).collect();
    let mut found = members(&sandbox.pack("/root/tree").await?)?;
    // A link has no mode of its own, and its time is not always kept.
    for all in [&mut expected, &mut found] {
        for member in all.values_mut().filter(|member| member.kind == EntryType::Symlink) {
            (member.mode, member.mtime) = (0, 0);
        }
    }
    assert_eq!(found, expected);
    sandbox.unpack("/root/again", sandbox.pack("/root/tree").await?).await?;
    assert_eq!(sandbox.read_text("/root/again/a\nb").await?, "newline");
    assert_eq!(sandbox.run("cat /root/again/dir/link").await?, "content");
    Ok(())
}

async fn a_single_file(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/d; echo x > /root/d/one; chmod 640 /root/d/one").await?;
    let found = members(&sandbox.pack("/root/d/one").await?)?;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["one"]);
    assert_eq!((found["one"].content.as_str(), found["one"].mode), ("x\n", 0o640));
    Ok(())
}

async fn unpack_into_what_is_there(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/t/dir; echo old > /root/t/dir/file; echo kept > /root/t/kept; ln -s /etc/hostname /root/t/link").await?;
    let name = sandbox.read("/etc/hostname").await?;
    let tar = archive(&[
        Member::dir("dir", 0o755),
        Member::file("dir/file", "new"),
        Member::file("link", "replaced"),
    ])?;
    sandbox.unpack("/root/t", tar).await?;
    assert_eq!(sandbox.read_text("/root/t/dir/file").await?, "new");
    assert_eq!(sandbox.read_text("/root/t/kept").await?, "kept\n");
    assert_eq!(sandbox.stat("/root/t/link").await?.kind, FileKind::File);
    assert_eq!(sandbox.read("/etc/hostname").await?, name, "a member was written through a link");
    Ok(())
}

async fn unpack_keeps_mode_and_time(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.unpack("/root/t", archive(&tree())?).await?;
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let file = sandbox.stat("/root/t/dir/file").await?;
    assert_eq!((file.mode, file.modified), (0o644, time(1_000_000_007)));
    let dir = sandbox.stat("/root/t/empty").await?;
    assert_eq!((dir.mode, dir.modified), (0o700, time(1_600_000_000)));
    assert_eq!(sandbox.stat("/root/t/dir").await?.modified, time(1_600_000_000));
    assert_eq!(sandbox.stat("/root/t/dir/run").await?.mode, 0o755);
    Ok(())
}

async fn unpack_is_owned_by_root(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.unpack("/root/t", archive(&tree())?).await?;
    for path in ["/root/t", "/root/t/dir", "/root/t/dir/file", "/root/t/absolute"] {
        let entry = sandbox.stat(path).await?;
        assert_eq!((entry.uid, entry.gid), (0, 0), "{path}");
    }
    Ok(())
}

async fn unpack_for_an_owner(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let options = WriteOptions { owner: Some("1234:5678".to_owned()), ..WriteOptions::default() };
    let tar = reader(archive(&tree())?);
    sandbox.backend.unpack(&sandbox.name, "/srv/t", tar, &options, &scope.cancel).await?;
    for path in ["/srv/t/dir", "/srv/t/dir/file", "/srv/t/absolute"] {
        let entry = sandbox.stat(path).await?;
        assert_eq!((entry.uid, entry.gid), (1234, 5678), "{path}");
    }
    Ok(())
}

async fn two_thousand_files(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let many: Vec<_> = (0..2000)
        .map(|n| Member::file(&format!("d{}/f{n}", n % 20), &n.to_string().repeat(50)))
        .collect();
    sandbox.unpack("/root/many", archive(&many)?).await?;
    let found = members(&sandbox.pack("/root/many").await?)?;
    assert_eq!(found.len(), 2020);
    for member in &many {
        assert_eq!(found[&member.name].content, member.content);
    }
    Ok(())
}

async fn links_stay_links(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.run("mkdir -p /root/t /root/out; echo x > /root/out/f; ln -s /root/out /root/t/dir; ln -s /root/out/f /root/t/file").await?;
    let found = members(&sandbox.pack("/root/t").await?)?;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["dir", "file"]);
    assert!(found.values().all(|member| member.kind == EntryType::Symlink));
    Ok(())
}

async fn pack_of_nothing(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let none = sandbox.backend.pack(&sandbox.name, "/root/none", &scope.cancel).await.map(drop);
    fails!(none, Error::NotFound { kind: Kind::File, .. });
    sandbox.mkdir("/root/empty").await?;
    assert!(members(&sandbox.pack("/root/empty").await?)?.is_empty());
    sandbox.unpack("/root/made", archive(&[])?).await?;
    assert!(sandbox.ls("/root/made").await?.is_empty());
    Ok(())
}

async fn unpack_can_be_cancelled(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let (mut feed, tar) = tokio::io::duplex(1 << 16);
    let half = archive(&[Member::file("first", "x"), Member::file("second", &"y".repeat(5000))])?;
    tokio::io::AsyncWriteExt::write_all(&mut feed, &half[..2000]).await?;
    let (options, cancel) = (WriteOptions::default(), Cancel::new());
    let unpack = sandbox.backend.unpack(&sandbox.name, "/root/t", Box::new(tar), &options, &cancel);
    let later = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    };
    let (done, ()) =
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(unpack, later) })
            .await?;
    fails!(done, Error::Cancelled);
    sandbox.run("true").await?;
    Ok(())
}
