//! Archives that try to get out of where they are unpacked.

use std::path::Path;

use sandscript::sandbox::{Error, FileKind};
use tar::EntryType;

use super::trees::{Member, archive};
use crate::case::{CaseResult, cases, fails};
use crate::rig::{Scope, below};

cases!["hostile";
    names_with_dots_are_refused,
    absolute_names_stay_below,
    members_through_links_stay_inside,
    hard_links_do_not_reach_out,
    devices_are_not_made,
    broken_archives_are_refused,
];

async fn names_with_dots_are_refused(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.mkdir("/root/t/in").await?;
    for name in ["../evil", "a/../../evil", "..", "../../../../../../root/evil", "a/.."] {
        let done = sandbox.unpack("/root/t/in", archive(&[Member::file(name, "x")])?).await;
        fails!(done, Error::InvalidInput { .. });
    }
    assert_eq!(sandbox.ls("/root/t").await?, ["in"]);
    assert!(!sandbox.ls("/root").await?.contains(&"evil".to_owned()));
    Ok(())
}

async fn absolute_names_stay_below(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    match sandbox.unpack("/root/t", archive(&[Member::file("/root/evil", "x")])?).await {
        Ok(()) => assert_eq!(sandbox.read_text("/root/t/root/evil").await?, "x"),
        Err(error) => fails!(Err::<(), _>(error), Error::InvalidInput { .. }),
    }
    fails!(sandbox.stat("/root/evil").await, Error::NotFound { .. });
    Ok(())
}

async fn members_through_links_stay_inside(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let host = scope.host_dir()?;
    std::fs::write(host.join("file"), "host")?;
    let target = host.display().to_string();
    let up = "../".repeat(12);
    for link in [target.clone(), format!("{up}{}", target.trim_start_matches('/'))] {
        let tar = archive(&[
            Member::link("way", &link),
            Member::file("way/evil", "x"),
            Member::file("way/file", "overwritten"),
        ])?;
        // Refused, or written to a folder of that name inside: never on the host.
        let _ = sandbox.unpack("/root/t", tar).await;
        let tar = archive(&[
            Member::link("f", &format!("{link}/file")),
            Member::file("f", "overwritten"),
        ])?;
        let _ = sandbox.unpack("/root/u", tar).await;
    }
    assert_eq!(std::fs::read_to_string(host.join("file"))?, "host");
    assert_eq!(below(&host)?, [host.join("file")]);
    Ok(())
}

async fn hard_links_do_not_reach_out(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let host = scope.host_dir()?;
    std::fs::write(host.join("secret"), "host secret")?;
    let path = host.join("secret").display().to_string();
    let up = format!("{}{}", "../".repeat(12), path.trim_start_matches('/'));
    for target in [path, up] {
        let link = Member::new("stolen", EntryType::Link, 0o644, &target);
        let _ = sandbox.unpack("/root/t", archive(&[link, Member::file("stolen2", "x")])?).await;
        if let Ok(content) = sandbox.read("/root/t/stolen").await {
            assert_ne!(content, b"host secret");
        }
    }
    let good = archive(&[
        Member::file("one", "content"),
        Member::new("two", EntryType::Link, 0o644, "one"),
    ])?;
    sandbox.unpack("/root/good", good).await?;
    assert_eq!(sandbox.read_text("/root/good/two").await?, "content");
    assert!(Path::new(&host.join("secret")).exists());
    Ok(())
}

async fn devices_are_not_made(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for kind in [EntryType::Char, EntryType::Block] {
        let _ =
            sandbox.unpack("/root/t", archive(&[Member::new("device", kind, 0o666, "")])?).await;
        if let Ok(entry) = sandbox.stat("/root/t/device").await {
            assert_ne!(entry.kind, FileKind::Other, "a device was made");
        }
    }
    sandbox.run("true").await?;
    Ok(())
}

async fn broken_archives_are_refused(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let good = archive(&[Member::file("a", &"x".repeat(5000)), Member::file("b", "y")])?;
    let garbage: Vec<u8> =
        (0..3000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut flipped = good.clone();
    flipped[150] ^= 0xff;
    for (what, bytes) in
        [("cut off", good[..2000].to_vec()), ("garbage", garbage), ("flipped", flipped)]
    {
        match sandbox.unpack("/root/t", bytes).await {
            Err(Error::InvalidInput { .. }) => {}
            other => panic!("an archive that is {what}: {other:?}"),
        }
    }
    sandbox.run("true").await?;
    Ok(())
}
