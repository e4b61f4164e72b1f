//! The folder of a jail of jailmaker's: `config`, and `rootfs`, which stays where and as it is.
//!
//! `config` holds a key and its value a line; lines that are indented go on with a value, and a `#` at the
//! begin of a line is a comment.

use std::path::Path;

use super::draft::{Draft, inline};
use super::options;
use super::settings::{From, absorb};
use super::words::split;
use super::{Imported, fitting};
use crate::backend::nspawn::machine::error::{MachineError, Place, Result};
use crate::backend::nspawn::machine::native::Settings;
use crate::backend::nspawn::machine::render::quote;
use crate::transfer::exists_inside;

/// A key of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value: its lines without what indents them.
    pub value: String,
    /// The line on which it begins.
    pub line: usize,
}

/// Options of every jail that jailmaker gives by itself, and that a machine here has or does without.
const USUAL_OPTIONS: &[&str] = &[
    "--keep-unit",
    "--quiet",
    "--boot",
    "--bind-ro=/sys/module",
    "--inaccessible=/sys/module/apparmor",
];
/// Settings of every jail's unit, which systemd's own unit for machines has or does without.
const USUAL_UNIT: &[&str] = &[
    "--collect",
    "--property=Delegate=yes",
    "--property=RestartForceExitStatus=133",
    "--property=SuccessExitStatus=133",
    "--property=TasksMax=infinity",
    "--property=Type=notify",
    "--property=KillMode=mixed",
    "--setenv=SYSTEMD_NSPAWN_LOCK=0",
];

/// Reads a config.
///
/// # Errors
/// `Invalid` with the line that is no key with a value.
pub fn read(file: &str, text: &str) -> Result<Vec<Entry>> {
    let mut all: Vec<Entry> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let indented = line.starts_with([' ', '\t']);
        if line.trim().is_empty() || indented {
            match all.last_mut() {
                Some(entry) => {
                    entry.value.push('\n');
                    entry.value.push_str(line.trim());
                }
                None if line.trim().is_empty() => {}
                None => {
                    let place = Place { file: file.into(), line: at + 1, column: 1 };
                    return Err(MachineError::invalid(
                        place,
                        "this goes on with a value, and there is none",
                    )
                    .or_hint("keys stand at the begin of a line"));
                }
            }
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            let place = Place { file: file.into(), line: at + 1, column: 1 };
            return Err(MachineError::invalid(place, "this is no key with a value")
                .or_hint("write it as key=value"));
        };
        let entry = Entry { key: key.trim().into(), value: value.trim().into(), line: at + 1 };
        all.push(entry);
    }
    for entry in &mut all {
        entry.value = entry.value.trim_end().to_owned();
    }
    Ok(all)
}

/// Makes a machine file of a jail; `folder` is the jail's.
///
/// # Errors
/// As [`read`]; `Invalid` for options that are not words.
pub fn import(file: &str, text: &str, folder: &Path) -> Result<Imported> {
    let entries = read(file, text)?;
    let jail = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (name, renamed) = fitting(&jail);
    let mut draft = Draft::default();
    if let Some(note) = renamed {
        draft.note(note);
    }
    if name != jail {
        draft.set(&["name"], name.as_str());
    }
    let value = |key: &str| {
        let found = entries.iter().rev().find(|entry| entry.key == key);
        found.map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
    };
    let flag = |key: &str| value(key).map(|value| matches!(value, "1" | "yes" | "true" | "on"));
    image(&mut draft, folder, value("distro"), value("release"));
    if flag("startup") == Some(true) {
        draft.set(&["autostart"], true);
    }
    for (key, card) in [("gpu_passthrough_intel", "dri"), ("gpu_passthrough_nvidia", "nvidia")] {
        if flag(key) == Some(true) {
            draft.push(&["gpu"], card);
        }
    }
    if flag("seccomp") == Some(false) {
        draft.set(&["security", "seccomp"], "none");
        draft.set(&["security", "unfiltered"], true);
    }
    let mut settings = Settings::default();
    for key in ["systemd_nspawn_default_args", "systemd_nspawn_user_args"] {
        let mut words = words(file, &entries, key)?;
        if key == "systemd_nspawn_default_args" {
            // A file without the key has them, too.
            if words.is_empty() {
                words = USUAL_OPTIONS.iter().map(|word| (*word).to_owned()).collect();
            }
        }
        options::read(&words, &mut settings, &mut draft);
    }
    for key in ["Bind", "BindReadOnly"] {
        settings.rewrite("Files", key, |value| absolute(value, folder));
    }
    absorb(&settings, From::CommandLine, &mut draft);
    unit(&words(file, &entries, "systemd_run_default_args")?, &mut draft);
    ids(&settings, &mut draft);
    hooks(&entries, folder, &mut draft);
    setup(value("initial_setup"), folder, &mut draft);
    for entry in entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        let (key, line) = (&entry.key, entry.line);
        draft.note(match REMOVED.iter().find(|(old, _)| old == key) {
            Some((_, why)) => format!("{key} (line {line}) is not taken over: {why}"),
            None => format!("{key} (line {line}) is not taken over: it is no key of jailmaker's"),
        });
    }
    let text = draft.text(&format!("{name}, as {file} of jailmaker said it."));
    Ok(Imported { name, text, notes: draft.notes })
}

/// The keys of a config.
const KEYS: &[&str] = &[
    "startup",
    "gpu_passthrough_intel",
    "gpu_passthrough_nvidia",
    "seccomp",
    "systemd_nspawn_user_args",
    "pre_start_hook",
    "post_start_hook",
    "post_stop_hook",
    "distro",
    "release",
    "initial_setup",
    "systemd_run_default_args",
    "systemd_nspawn_default_args",
];

/// Keys of older configs, and what has taken their place.
const REMOVED: &[(&str, &str)] = &[
    ("docker_compatible", "security.seccomp = \"docker\" is enough, without all capabilities"),
    ("gpu_passthrough", "say gpu = [\"nvidia\"] or [\"dri\"]"),
];

/// The root file system that is there stays; of a jail that was never made, what it would be made from.
fn image(draft: &mut Draft, folder: &Path, distro: Option<&str>, release: Option<&str>) {
    let root = folder.join("rootfs");
    let alias = distro.zip(release).map(|(distro, release)| format!("{distro}/{release}"));
    if root.is_dir() {
        draft.set(&["image"], inline([("folder", root.display().to_string().into())]));
        return;
    }
    draft.note(format!("there is no root file system in {}: a new one is made", root.display()));
    match alias {
        Some(alias) => draft.set(&["image"], alias),
        None => draft.note("distro and release are not said: give it an image"),
    }
}

fn words(file: &str, entries: &[Entry], key: &str) -> Result<Vec<String>> {
    let Some(entry) = entries.iter().rev().find(|entry| entry.key == key) else {
        return Ok(Vec::new());
    };
    split(&entry.value).map_err(|why| {
        let place = Place { file: file.into(), line: entry.line, column: 1 };
        MachineError::invalid(place, format!("{key}: {why}"))
    })
}

/// Jails are started in their folder, from which their binds may be said.
fn absolute(bind: &str, folder: &Path) -> String {
    let (optional, path) = match bind.strip_prefix('-') {
        Some(path) => ("-", path),
        None => ("", bind),
    };
    if path.starts_with(['/', '+']) {
        return bind.to_owned();
    }
    let folder = folder.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    format!("{optional}{folder}/{}", path.strip_prefix("./").unwrap_or(path))
}

/// What a jail's unit is told besides.
fn unit(words: &[String], draft: &mut Draft) {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        // systemd-run takes a value as the next word, too.
        let word = match word.as_str() {
            "-p" | "--property" | "-E" | "--setenv" => {
                let long = if matches!(word.as_str(), "-p" | "--property") {
                    "property"
                } else {
                    "setenv"
                };
                format!("--{long}={}", words.next().map_or("", String::as_str))
            }
            _ => word.clone(),
        };
        if USUAL_UNIT.contains(&word.as_str()) {
            continue;
        }
        match word.strip_prefix("--property=").and_then(|both| both.split_once('=')) {
            Some((key, value)) => draft.set(&["unit", "Service", key], value),
            None => match word.strip_prefix("--setenv=") {
                Some(both) => draft.push(&["unit", "Service", "Environment"], both),
                None => draft.note(format!(
                    "{word} of systemd-run is not taken over: the unit is systemd's own"
                )),
            },
        }
    }
}

/// Jails had the host's ids, and have a range now.
fn ids(settings: &Settings, draft: &mut Draft) {
    if settings.get("Exec", "PrivateUsers").is_empty() {
        draft.set(&["users", "ownership"], "map");
        draft.note(
            "root of the jail was root of the host; it has a range of ids of its own now, by mapped mounts: \
             nothing on disk changes, and users.namespace = false goes back",
        );
    }
}

fn hooks(entries: &[Entry], folder: &Path, draft: &mut Draft) {
    let mut any = false;
    for (key, when) in [
        ("pre_start_hook", "pre_start"),
        ("post_start_hook", "post_start"),
        ("post_stop_hook", "post_stop"),
    ] {
        let found = entries.iter().rev().find(|entry| entry.key == key);
        let Some(entry) = found.filter(|entry| !entry.value.is_empty()) else { continue };
        any = true;
        if !entry.value.starts_with("#!") {
            draft.note(format!("{key} was a command of systemd's and is a line of sh now"));
        }
        draft.set(&["hooks", "host", when], entry.value.as_str());
    }
    if any {
        // Jails' hooks run in their folder.
        let shown = folder.display().to_string();
        let line = quote::value(&shown).unwrap_or(shown);
        draft.set(&["unit", "Service", "WorkingDirectory"], line);
    }
}

fn setup(script: Option<&str>, folder: &Path, draft: &mut Draft) {
    let Some(script) = script else { return };
    draft.set(&["setup", "script"], script);
    // The mark that jailmaker goes by, too.
    if exists_inside(&folder.join("rootfs"), Path::new("etc/machine-id")) {
        draft.set(&["setup", "done"], true);
        draft.note("initial_setup was run there already: setup.done says so");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nspawn::machine::host::ThisHost;
    use crate::backend::nspawn::machine::{Machine, checks};

    #[test]
    fn a_link_of_the_jail_leads_nowhere_on_the_host() {
        let top = tempfile::tempdir().unwrap();
        let outside = top.path().join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("machine-id"), "0123\n").unwrap();
        let jail = top.path().join("web");
        std::fs::create_dir_all(jail.join("rootfs/etc")).unwrap();
        std::os::unix::fs::symlink(outside.join("machine-id"), jail.join("rootfs/etc/machine-id"))
            .unwrap();
        std::os::unix::fs::symlink(&outside, jail.join("rootfs/usr")).unwrap();
        let imported = import("config", "initial_setup=true\n", &jail).unwrap();
        assert!(!imported.text.contains("done = true"), "{}", imported.text);
        let machine =
            Machine::parse("m", &imported.text, "web", Path::new("/"), &Default::default())
                .unwrap();
        let root = |machine: &Machine| {
            let all = checks(machine, &ThisHost);
            all.into_iter().find(|check| check.what == "root file system").unwrap().verdict
        };
        assert_eq!(root(&machine), crate::sandbox::Verdict::Bad);
        // One that leads somewhere in it does.
        std::fs::remove_file(jail.join("rootfs/usr")).unwrap();
        std::fs::create_dir_all(jail.join("rootfs/system/usr")).unwrap();
        std::os::unix::fs::symlink("/system/usr", jail.join("rootfs/usr")).unwrap();
        assert_eq!(root(&machine), crate::sandbox::Verdict::Good);
    }
}
