//! Where below the caller's own cgroup groups can be made, version 1, 2 or both.

use std::fs;
use std::path::{Path, PathBuf};

use super::Controller;

/// One place that groups can be made at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// The cgroup that ours go below.
    pub path: PathBuf,
    /// What can be limited there.
    pub controllers: Vec<Controller>,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// In the version 2 hierarchy.
    pub unified: Option<Base>,
    /// In version 1 hierarchies.
    pub legacy: Vec<(Controller, PathBuf)>,
    /// Why a controller that is mounted can't be used, and the path that it is about.
    pub refused: Vec<(Controller, PathBuf)>,
}

/// A mounted hierarchy.
struct Mount {
    root: PathBuf,
    point: PathBuf,
    unified: bool,
    options: String,
}

/// Looks at `cgroup` and `mountinfo` of `/proc/self`.
pub(super) fn find(cgroup: &str, mountinfo: &str, pid: u32) -> Found {
    let mounts = mounts(mountinfo);
    let mut found = Found::default();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(own)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let matching = mounts.iter().find(|mount| {
            let options = || mount.options.split(',');
            mount.unified == names.is_empty()
                && (mount.unified || names.split(',').all(|name| options().any(|o| o == name)))
        });
        let Some(mount) = matching else { continue };
        let Some(own) = mount.locate(own) else { continue };
        if mount.unified {
            found.unified(&own, &mount.point, pid);
        } else {
            found.legacy(names, &own);
        }
    }
    found.refused.retain(|(controller, _)| {
        let unified = found.unified.as_ref();
        !unified.is_some_and(|base| base.controllers.contains(controller))
            && !found.legacy.iter().any(|(other, _)| other == controller)
    });
    found
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let unified = match kind {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let path = |text: &str| PathBuf::from(text.replace("\\040", " "));
        Some(Mount { root: path(root), point: path(point), unified, options: options.into() })
    };
    mountinfo.lines().filter_map(parse).collect()
}

impl Mount {
    /// The folder of cgroup `own`; none when it lies outside what is mounted.
    fn locate(&self, own: &str) -> Option<PathBuf> {
        if own.split('/').any(|part| part == "..") {
            return None;
        }
        let below = Path::new(own).strip_prefix(&self.root).ok()?;
        let path =
            if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) };
        path.is_dir().then_some(path)
    }
}

impl Found {
    fn legacy(&mut self, names: &str, own: &Path) {
        for controller in Controller::ALL {
            if !names.split(',').any(|name| name == controller.name()) {
                continue;
            }
            let list = if writable(own) { &mut self.legacy } else { &mut self.refused };
            list.push((*controller, own.to_path_buf()));
        }
    }

    /// The nearest ancestor that allows the most.
    fn unified(&mut self, own: &Path, top: &Path, pid: u32) {
        for path in own.ancestors().take_while(|path| path.starts_with(top)) {
            let there = words(&path.join("cgroup.controllers"));
            let known: Vec<Controller> = Controller::ALL
                .iter()
                .copied()
                .filter(|controller| there.iter().any(|word| word == controller.name()))
                .collect();
            if !writable(path) {
                self.refused.extend(known.iter().map(|known| (*known, path.to_path_buf())));
                continue;
            }
            let enabled = words(&path.join("cgroup.subtree_control"));
            let free = path == top && !path.join("cgroup.type").exists() || vacant(path, pid);
            let usable = |controller: &Controller| {
                free || enabled.iter().any(|word| word == controller.name())
            };
            let (controllers, others): (Vec<_>, Vec<_>) = known.into_iter().partition(usable);
            self.refused.extend(others.into_iter().map(|other| (other, path.to_path_buf())));
            let more = |base: &Base| base.controllers.len() >= controllers.len();
            if !self.unified.as_ref().is_some_and(more) {
                self.unified = Some(Base { path: path.to_path_buf(), controllers });
            }
        }
    }
}

/// Whether controllers may be handed down: no process is there, or only we are, and can step aside.
fn vacant(path: &Path, pid: u32) -> bool {
    fs::read_to_string(path.join("cgroup.procs"))
        .is_ok_and(|procs| procs.lines().all(|line| line == pid.to_string()))
}

fn writable(path: &Path) -> bool {
    let fine = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    fine(path) && fine(&path.join("cgroup.procs"))
}

/// The words of a cgroup file.
pub(super) fn words(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(String::from).collect()
}
