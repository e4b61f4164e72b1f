//! Snapshots and clones on 26, where nothing but ZFS knows of them: by its command on the NAS, for the
//! API refuses to touch the containers' datasets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::guest::{Record, token};
use super::api::doing;
use super::row::{self, Found, Row};
use super::snapshots::refused;
use super::{BACKEND, Inner};
use crate::sandbox::{
    Cancel, CloneSpec, Error, Info, Kind, Restore, Result, Snapshot, SnapshotSpec, State,
};

/// Whose snapshot it is: the token of a sandbox. Others are nobody's business here.
const OF: &str = "sandscript:of";
/// When it was taken, in milliseconds.
const CREATED: &str = "sandscript:created";
/// Its labels.
const LABELS: &str = "sandscript:labels";

/// Writes a file below a root that somebody else filled: nothing of it is followed.
const WRITE: &str = r#"
use strict; use Fcntl qw(:DEFAULT :mode);
my ($root, $folder, $name) = @ARGV;
my @stat = lstat "$root/$folder";
die "$folder is no folder\n" unless @stat && S_ISDIR($stat[2]);
my $part = "$root/$folder/.sandscript.$$";
sysopen my $file, $part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0444 or die "$part: $!\n";
local $/; my $text = <STDIN>;
print $file $text and close $file and rename $part, "$root/$folder/$name" or die "$name: $!\n";
"#;

/// A snapshot of a dataset.
struct Kept {
    name: String,
    snapshot: Option<Snapshot>,
    clones: Vec<String>,
}

impl Inner {
    async fn zfs(self: &Arc<Self>, argv: &[&str]) -> Result<std::result::Result<String, String>> {
        let argv: Vec<&str> = std::iter::once("zfs").chain(argv.iter().copied()).collect();
        let said = self.host(super::snapshots::WORK, &argv, None).await?;
        Ok(said.map(|said| String::from_utf8_lossy(&said).into_owned()))
    }

    /// All snapshots of a sandbox's dataset, oldest first; those of others have nothing more known.
    async fn zfs_all(self: &Arc<Self>, row: &Row) -> Result<Vec<Kept>> {
        let columns = format!("name,used,clones,{OF},{CREATED},{LABELS}");
        let argv = ["list", "-H", "-p", "-t", "snapshot", "-o", &columns, "-d", "1", &row.dataset];
        let said = self.zfs(&argv).await?;
        let said = said.map_err(|said| refused("listing snapshots", said))?;
        let read = |line: &str| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [name, used, clones, of, created, labels] = cells[..] else { return None };
            let label = name.split_once('@')?.1.to_owned();
            let millis = created.parse().ok().filter(|_| of == row.record.token);
            let snapshot = millis.map(|millis| Snapshot {
                label,
                created: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
                size: used.parse().unwrap_or_default(),
                frozen: Duration::ZERO,
                labels: serde_json::from_str(labels).unwrap_or_default(),
                expires: None,
            });
            let clones = clones.split(',').filter(|clone| !matches!(*clone, "" | "-"));
            Some(Kept {
                name: name.to_owned(),
                snapshot,
                clones: clones.map(str::to_owned).collect(),
            })
        };
        Ok(said.lines().filter_map(read).collect())
    }

    pub(super) async fn zfs_snapshots(self: &Arc<Self>, row: &Row) -> Result<Vec<Snapshot>> {
        let all = self.zfs_all(row).await?;
        let mut all: Vec<Snapshot> = all.into_iter().filter_map(|kept| kept.snapshot).collect();
        all.sort_by_key(|snapshot| snapshot.created);
        Ok(all)
    }

    pub(super) async fn zfs_take(
        self: &Arc<Self>,
        row: &Row,
        spec: &SnapshotSpec,
    ) -> Result<Snapshot> {
        let began = std::time::Instant::now();
        let done = self.zfs_mark(row, &spec.label, &row.record.token, &spec.labels).await;
        let took = began.elapsed();
        done?;
        let all = self.zfs_snapshots(row).await?;
        let made = all.into_iter().find(|snapshot| snapshot.label == spec.label);
        let mut made = made.ok_or_else(|| Error::not_found(Kind::Snapshot, &spec.label))?;
        if row.state == State::Running {
            made.frozen = took;
        }
        Ok(made)
    }

    async fn zfs_mark(
        self: &Arc<Self>,
        row: &Row,
        label: &str,
        of: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<()> {
        let now = crate::sandbox::wall_clock().duration_since(SystemTime::UNIX_EPOCH);
        let of = format!("{OF}={of}");
        let created = format!("{CREATED}={}", now.unwrap_or_default().as_millis());
        let labels = format!("{LABELS}={}", json!(labels));
        let name = format!("{}@{label}", row.dataset);
        let argv = ["snapshot", "-o", &of, "-o", &created, "-o", &labels, &name];
        let turn = self.turns.of(&row.name);
        let _still = turn.write().await;
        let standing = self.stand_still(row).await?;
        let said = self.zfs(&argv).await;
        self.go_on(&row.name, standing).await;
        let Err(said) = said? else { return Ok(()) };
        // Somebody else was first.
        match self.zfs_all(row).await?.iter().any(|kept| kept.name == name) {
            true => Err(Error::exists(Kind::Snapshot, label)),
            false => Err(refused("taking a snapshot", said)),
        }
    }

    /// Deletes a snapshot; one that clones were made of goes with the last of them.
    pub(super) async fn zfs_delete(self: &Arc<Self>, row: &Row, label: &str) -> Result<()> {
        let name = format!("{}@{label}", row.dataset);
        // From now on it is nobody's, however long it stays.
        let nobody = format!("{OF}=-");
        let done = self.zfs(&["set", &nobody, &name]).await?;
        done.map_err(|said| refused("deleting a snapshot", said))?;
        let done = self.zfs(&["destroy", "-d", &name]).await?;
        done.map(drop).map_err(|said| refused("deleting a snapshot", said))
    }

    pub(super) async fn zfs_restore(
        self: &Arc<Self>,
        row: &Row,
        label: &str,
        options: Restore,
    ) -> Result<()> {
        let name = format!("{}@{label}", row.dataset);
        let what = format!("restoring sandbox '{}'", row.name);
        let all = self.zfs_all(row).await?;
        let newer: Vec<&Kept> = all.iter().rev().take_while(|kept| kept.name != name).collect();
        let lost: Vec<&str> = newer
            .iter()
            .filter_map(|kept| kept.snapshot.as_ref().map(|snapshot| snapshot.label.as_str()))
            .collect();
        if !lost.is_empty() && !options.discard_newer {
            return Err(Error::unsupported(
                format!("restoring '{label}' without losing {}", lost.join(", ")),
                BACKEND,
                "clone the snapshot instead, or allow that newer ones go: discard_newer",
            ));
        }
        // Clones of what goes live on.
        for clone in newer.iter().filter_map(|kept| kept.clones.first()) {
            let done = self.zfs(&["promote", clone]).await?;
            done.map_err(|said| refused(&what, said))?;
        }
        if row.state != State::Stopped {
            self.halt(&row.name).await?;
        }
        let done = self.zfs(&["rollback", "-r", &name]).await?;
        done.map_err(|said| refused(&what, said))?;
        // Its guard may hold what the snapshot's did.
        self.close(row).await?;
        if row.state == State::Stopped {
            return Ok(());
        }
        self.boot(row, &what).await?;
        self.forget(&row.name);
        self.settle(&row.name, &row.record).await
    }

    /// Takes a dataset's snapshots away, so that it can be deleted: what was cloned from them lives on.
    pub(super) async fn zfs_free(self: &Arc<Self>, row: &Row) -> Result<()> {
        let what = format!("deleting sandbox '{}'", row.name);
        loop {
            let all = self.zfs_all(row).await?;
            let Some(clone) = all.iter().find_map(|kept| kept.clones.first()) else { break };
            let done = self.zfs(&["promote", clone]).await?;
            done.map_err(|said| refused(&what, said))?;
        }
        for kept in self.zfs_all(row).await? {
            let done = self.zfs(&["destroy", &kept.name]).await?;
            done.map_err(|said| refused(&what, said))?;
        }
        Ok(())
    }

    pub(super) async fn zfs_clone(
        self: &Arc<Self>,
        source: &Row,
        spec: &CloneSpec,
        record: Record,
        cancel: &Cancel,
    ) -> Result<Info> {
        let name = spec.name.as_str();
        let what = format!("making sandbox '{name}'");
        let nic = self.nic().await?;
        let parent = source.dataset.rsplit_once('/').map_or("", |(parent, _)| parent);
        let dataset = format!("{parent}/{name}");
        let passing = format!("sandscript-{}", token());
        let label = spec.label.as_deref().unwrap_or(&passing);
        if spec.label.is_none() {
            self.zfs_mark(source, label, "-", &BTreeMap::new()).await?;
        }
        let from = format!("{}@{label}", source.dataset);
        let cloned = self.zfs(&["clone", &from, &dataset]).await;
        if spec.label.is_none() {
            // It goes with the clone.
            let _ = self.zfs(&["destroy", "-d", &from]).await;
        }
        cloned?.map_err(|said| refused(&what, said))?;
        let mut body = json!({
            "name": name, "dataset": dataset, "autostart": self.autostart,
            "description": format!("sandscript: {}", record.image), "initenv": row::pieces(&record)?,
        });
        if let Some(cpus) = &record.hardware.cpus {
            body["cpuset"] = cpus.as_str().into();
        }
        let made = match self.client.call("container.create_with_dataset", json!([body])).await {
            Ok(made) => row::of_container(&made),
            // It may be there all the same.
            Err(error) if error.is_unsure() => match self.find(name).await? {
                Found::Ours(row) if row.record.token == record.token => Some(*row),
                _ => {
                    let _ = self.zfs(&["destroy", &dataset]).await;
                    return Err(doing(error, &what));
                }
            },
            Err(error) => {
                let _ = self.zfs(&["destroy", &dataset]).await;
                return Err(doing(error, &what));
            }
        };
        let made = match made {
            Some(row) => row,
            None => self.row(name).await?,
        };
        if let Err(error) = self.add_devices(made.id, &record, nic.as_ref()).await {
            self.delete(name).await?;
            return Err(doing(error, &what));
        }
        let done = self.zfs_begin(made, spec, &dataset, cancel).await;
        if done.is_err() {
            self.delete(name).await?;
        }
        done
    }

    async fn zfs_begin(
        self: &Arc<Self>,
        row: Row,
        spec: &CloneSpec,
        dataset: &str,
        cancel: &Cancel,
    ) -> Result<Info> {
        let name = spec.name.as_str();
        self.fit(&row).await?;
        let over = || if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) };
        over()?;
        let pool = dataset.split('/').next().unwrap_or_default();
        let root = format!("/mnt/.truenas_containers/{pool}/containers/{name}");
        let machine = format!("{}{}\n", token(), token()).into_bytes();
        let argv = ["perl", "-e", WRITE, &root, "etc", "machine-id"];
        self.host(super::snapshots::WORK, &argv, Some(machine))
            .await?
            .map_err(|said| refused(&format!("writing /etc/machine-id of '{name}'"), said))?;
        over()?;
        if !spec.bare {
            self.boot(&row, &format!("starting sandbox '{name}'")).await?;
            over()?;
            self.settle(name, &row.record).await?;
            over()?;
        }
        self.as_made(row, spec.bare).await
    }
}
