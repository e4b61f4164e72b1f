//! Snapshots and clones on 26, where nothing but ZFS knows of them: by its command on the NAS, for the
//! API refuses to touch the containers' datasets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::guest::{Record, token};
use super::api::doing;
use super::lifecycle::{TRIES, pause};
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
/// When a clone's dataset was made, in milliseconds: it is nobody's until there is a container of it.
const MADE: &str = "sandscript:made";
/// Before the names of snapshots that are not to stay.
const PASSING: &str = "sandscript-";
/// How old must be what nobody has, so that nobody is about to have it.
const ABANDONED: Duration = Duration::from_secs(3600);

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

fn now_in_millis() -> u128 {
    let now = crate::sandbox::wall_clock().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis()
}

/// The last part of a dataset's name.
fn leaf(dataset: &str) -> &str {
    dataset.rsplit('/').next().unwrap_or(dataset)
}

impl Inner {
    async fn zfs(self: &Arc<Self>, argv: &[&str]) -> Result<std::result::Result<String, String>> {
        let argv: Vec<&str> = std::iter::once("zfs").chain(argv.iter().copied()).collect();
        let twice = matches!(argv[1], "get" | "list" | "rollback" | "set");
        let said = match twice {
            true => self.host_again(super::snapshots::WORK, &argv, None).await?,
            false => self.host(super::snapshots::WORK, &argv, None).await?,
        };
        Ok(said.map(|said| String::from_utf8_lossy(&said).into_owned()))
    }

    /// All snapshots of a sandbox's dataset, oldest first; those of others have nothing more known.
    async fn zfs_all(self: &Arc<Self>, row: &Row) -> Result<Vec<Kept>> {
        match self.zfs_list(&row.dataset, &row.record.token).await? {
            Ok(all) => Ok(all),
            Err(said) => {
                // It may have gone.
                self.row(&row.name).await?;
                Err(refused("listing snapshots", said))
            }
        }
    }

    /// Those of a dataset, and which of them are the sandbox's with this token; inside, why not.
    async fn zfs_list(
        self: &Arc<Self>,
        dataset: &str,
        token: &str,
    ) -> Result<std::result::Result<Vec<Kept>, String>> {
        let columns = format!("name,used,clones,{OF},{CREATED},{LABELS}");
        let argv = ["list", "-H", "-p", "-t", "snapshot", "-o", &columns, "-d", "1", dataset];
        let read = |line: &str| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [name, used, clones, of, created, labels] = cells[..] else { return None };
            let label = name.split_once('@')?.1.to_owned();
            let millis = created.parse().ok().filter(|_| of == token);
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
        Ok(self.zfs(&argv).await?.map(|said| said.lines().filter_map(read).collect()))
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
        let of = format!("{OF}={of}");
        let created = format!("{CREATED}={}", now_in_millis());
        let labels = format!("{LABELS}={}", json!(labels));
        let name = format!("{}@{label}", row.dataset);
        let argv = ["snapshot", "-o", &of, "-o", &created, "-o", &labels, &name];
        let turn = self.turns.of(&row.name);
        let _still = turn.write().await;
        let standing = self.stand_still(row).await?;
        let said = self.zfs(&argv).await;
        self.go_on(&row.name, standing).await;
        let said = match said {
            // The line broke: what is there with this very moment on it was taken for this call.
            Err(error @ Error::Transport { .. }) => {
                let argv = ["get", "-H", "-o", "value", CREATED, &name];
                return match self.zfs(&argv).await {
                    Ok(Ok(value)) if created.ends_with(&format!("={}", value.trim())) => Ok(()),
                    _ => Err(error),
                };
            }
            said => said?,
        };
        let Err(said) = said else { return Ok(()) };
        // It has gone, or somebody else was first.
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
        let used =
            |all: Vec<Kept>| all.iter().any(|kept| kept.name == name && !kept.clones.is_empty());
        let mut gone = name.clone();
        if used(self.zfs_all(row).await?) {
            // It stays for its clones; its label is free.
            gone = format!("{}@{PASSING}{}", row.dataset, token());
            let done = self.zfs(&["rename", &name, &gone]).await?;
            done.map_err(|said| refused("deleting a snapshot", said))?;
        }
        let done = self.zfs(&["destroy", "-d", &gone]).await?;
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
        // Those of the NAS's own tasks would be lost, too; what is on its way out is no loss.
        let labels = newer.iter().filter_map(|kept| kept.name.split_once('@'));
        let mut lost: Vec<&str> =
            labels.map(|(_, label)| label).filter(|label| !label.starts_with(PASSING)).collect();
        lost.reverse();
        if !lost.is_empty() && !options.discard_newer {
            return Err(Error::unsupported(
                format!("restoring '{label}' without losing {}", lost.join(", ")),
                BACKEND,
                "clone the snapshot instead, or allow that newer ones go: discard_newer",
            ));
        }
        // A clone of a newer one could only live on by itself if it took this one along.
        let clones: Vec<&str> =
            newer.iter().flat_map(|kept| &kept.clones).map(|clone| leaf(clone)).collect();
        if !clones.is_empty() {
            return Err(Error::unsupported(
                format!("restoring '{label}' while clones of newer snapshots are there"),
                BACKEND,
                format!("clone '{label}' instead, or delete first: {}", clones.join(", ")),
            ));
        }
        if row.state != State::Stopped {
            self.halt(&row.name).await?;
        }
        let done = match self.zfs(&["rollback", "-r", &name]).await {
            Ok(done) => done.map(drop).map_err(|said| refused(&what, said)),
            Err(error) => Err(error),
        };
        // Its guard may hold what the snapshot's did.
        let closed = self.close(row).await;
        if row.state == State::Stopped {
            return done.and(closed);
        }
        if closed.is_ok() {
            self.boot(row, &what).await?;
            self.forget(&row.name);
            self.settle(&row.name, &row.record).await?;
        }
        done.and(closed)
    }

    /// Takes a dataset's snapshots away, so that it can be deleted: what was cloned from them lives on, what is
    /// cloned from them meanwhile, too.
    pub(super) async fn zfs_free(self: &Arc<Self>, row: &Row) -> Result<()> {
        for tries in 0.. {
            let Err(said) = self.zfs_try_free(&row.dataset).await? else { break };
            // It may have gone.
            self.row(&row.name).await?;
            if tries + 1 == TRIES {
                return Err(refused(&format!("deleting sandbox '{}'", row.name), said));
            }
            tokio::time::sleep(pause(tries)).await;
        }
        Ok(())
    }

    /// The same once; inside, what it was refused with.
    async fn zfs_try_free(
        self: &Arc<Self>,
        dataset: &str,
    ) -> Result<std::result::Result<(), String>> {
        loop {
            let all = match self.zfs_list(dataset, "").await? {
                Ok(all) => all,
                Err(said) => return Ok(Err(said)),
            };
            let Some(at) = all.iter().position(|kept| !kept.clones.is_empty()) else {
                for kept in &all {
                    if let Err(said) = self.zfs(&["destroy", &kept.name]).await? {
                        return Ok(Err(said));
                    }
                }
                return Ok(Ok(()));
            };
            let clone = &all[at].clones[0];
            if self.zfs(&["promote", clone]).await?.is_ok() {
                continue;
            }
            // They go to the clone, which may have labels of its own that are the same.
            for kept in &all[..=at] {
                let passing = format!("{dataset}@{PASSING}{}", token());
                if let Err(said) = self.zfs(&["rename", &kept.name, &passing]).await? {
                    return Ok(Err(said));
                }
            }
            if let Err(said) = self.zfs(&["promote", clone]).await? {
                return Ok(Err(said));
            }
        }
    }

    /// Destroys a dataset that no container is made of, as far as that can be done.
    async fn zfs_drop(self: &Arc<Self>, dataset: &str) {
        if matches!(self.zfs_try_free(dataset).await, Ok(Ok(()))) {
            let _ = self.zfs(&["destroy", dataset]).await;
        }
    }

    /// Takes away what nobody has any more, of clients that went in the middle of something: snapshots that
    /// were not to stay, and datasets of clones that never became one. Only where the key comes there, and only
    /// what says so itself: a dataset inherits what the one above it says.
    pub(super) async fn zfs_sweep(self: &Arc<Self>, rows: &[Row]) -> Result<()> {
        let now = crate::sandbox::wall_clock();
        let abandoned = |millis: Option<&&str>| {
            let at = millis
                .and_then(|millis| millis.parse().ok())
                .map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at));
            at.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age > ABANDONED))
        };
        let parents: BTreeSet<&str> =
            rows.iter().filter_map(|row| Some(row.dataset.rsplit_once('/')?.0)).collect();
        let properties = format!("{OF},{CREATED},{MADE}");
        let columns = "name,property,value,source";
        for parent in parents {
            let kinds = "filesystem,volume,snapshot";
            let argv = ["get", "-H", "-p", "-r", "-t", kinds, "-o", columns, &properties, parent];
            let said = match self.zfs(&argv).await {
                Ok(Ok(said)) => said,
                Ok(Err(_)) | Err(Error::Unsupported { .. }) => continue,
                Err(error) => return Err(error),
            };
            let mut all: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
            for line in said.lines() {
                let cells: Vec<&str> = line.split('\t').collect();
                let [name, property, value, source] = cells[..] else { continue };
                let own = all.entry(name).or_default();
                if source == "local" {
                    own.insert(property, value);
                }
            }
            let is_below = |name: &str, above: &str| {
                name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
            };
            // One that has a dataset below it is somebody's.
            let made = all.iter().filter(|(name, own)| {
                !name.contains('@')
                    && name.rsplit_once('/').is_some_and(|(above, _)| above == parent)
                    && abandoned(own.get(MADE))
                    && !all.keys().any(|other| is_below(other, name))
            });
            let mut made: Vec<&str> = made.map(|(name, _)| *name).collect();
            if !made.is_empty() {
                // One that has a container by now is somebody's, whatever that is called.
                let taken = self.taken().await?;
                made.retain(|name| {
                    taken.as_ref().is_some_and(|taken| {
                        !taken.iter().any(|(container, dataset)| {
                            dataset == name || is_below(dataset, name) || container == leaf(name)
                        })
                    })
                });
            }
            for name in made {
                self.zfs_drop(name).await;
            }
            for (name, own) in &all {
                let Some((dataset, _)) = name.split_once('@') else { continue };
                let Some(of) = own.get(OF) else { continue };
                let another = |row: &Row| row.dataset == dataset && row.record.token != *of;
                if abandoned(own.get(CREATED)) && rows.iter().any(another) {
                    // One that clones were made of goes with the last of them.
                    let _ = self.zfs(&["destroy", "-d", name]).await;
                }
            }
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
        let passing = format!("{PASSING}{}", token());
        let label = spec.label.as_deref().unwrap_or(&passing);
        if spec.label.is_none() {
            self.zfs_mark(source, label, "-", &BTreeMap::new()).await?;
        }
        let from = format!("{}@{label}", source.dataset);
        let made = format!("{MADE}={}", now_in_millis());
        let cloned = self.zfs(&["clone", "-o", &made, &from, &dataset]).await;
        if spec.label.is_none() {
            // It goes with the clone.
            let _ = self.zfs(&["destroy", "-d", &from]).await;
        }
        let cloned = match cloned {
            // The line broke: it may be there all the same. What is there with this mark is of nobody else.
            Err(error @ Error::Transport { .. }) => {
                let argv = ["get", "-H", "-o", "value", MADE, &dataset];
                let said = self.zfs(&argv).await;
                if matches!(&said, Ok(Ok(value)) if made.ends_with(&format!("={}", value.trim()))) {
                    self.zfs_drop(&dataset).await;
                }
                return Err(error);
            }
            cloned => cloned?,
        };
        if let Err(said) = cloned {
            // What it is made of may have gone.
            self.row(&source.name).await?;
            if let Some(label) = &spec.label
                && !self.zfs_all(source).await?.iter().any(|kept| kept.name == from)
            {
                return Err(Error::not_found(Kind::Snapshot, label));
            }
            return Err(refused(&what, said));
        }
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
                    self.zfs_drop(&dataset).await;
                    return Err(doing(error, &what));
                }
            },
            Err(error) => {
                self.zfs_drop(&dataset).await;
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
