//! What systemd-nspawn is told, as keys of a machine file; what has none is passed through by its own
//! name.

use toml_edit::Value;

use super::draft::{Draft, inline};
use crate::backend::nspawn::machine::native::{Form, Setting, Settings};
use crate::backend::nspawn::machine::nic::is_interface;
use crate::backend::nspawn::machine::resolv::MODES;
use crate::backend::nspawn::machine::security::{CAPABILITIES, Seccomp};

/// How what is not said was meant where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A `.nspawn` file: beside it, systemd's own unit gives a pair of cables and a range of ids.
    NspawnFile,
    /// A command line: on the host's network, with the host's ids.
    CommandLine,
}

/// Writes them down.
pub fn absorb(settings: &Settings, from: From, draft: &mut Draft) {
    let before = draft.get(&["network"]).is_some();
    for setting in settings.iter() {
        one(setting, from, draft);
    }
    if !before {
        network(settings, from, draft);
    }
}

fn pass(setting: &Setting, draft: &mut Draft) {
    let path = ["nspawn", setting.section.as_str(), setting.key.as_str()];
    let many = setting.known().is_none_or(|known| {
        !matches!(known.form, Form::Switch | Form::Bool | Form::One | Form::Rlimit)
    });
    match setting.values.as_slice() {
        [one] if !many => draft.set(&path, one.as_str()),
        all => all.iter().for_each(|value| draft.push(&path, value.as_str())),
    }
}

fn one(setting: &Setting, from: From, draft: &mut Draft) {
    let last = setting.values.last().map(String::as_str).unwrap_or_default();
    let truth = truth(last);
    match (setting.section.as_str(), setting.key.as_str()) {
        ("Exec", "Boot" | "NotifyReady") if truth == Some(true) => {}
        ("Exec", "LinkJournal") if last == "try-guest" => {}
        ("Exec", "Environment") => {
            for both in &setting.values {
                match both.split_once('=') {
                    Some((name, value)) if is_variable(name) => draft.set(&["env", name], value),
                    _ => draft.push(&["nspawn", "Exec", "Environment"], both.as_str()),
                }
            }
        }
        ("Exec", "Capability" | "DropCapability") => capabilities(setting, draft),
        ("Exec", "NoNewPrivileges") if truth == Some(true) => {
            draft.set(&["security", "no_new_privileges"], true);
        }
        ("Exec", "PrivateUsers") => users(setting, last, draft),
        ("Exec", "SystemCallFilter") => calls(setting, draft),
        ("Exec", "Hostname") if crate::sandbox::check_name(last).is_ok() => {
            draft.set(&["hostname"], last);
        }
        ("Exec", "ResolvConf") if MODES.contains(&last) => draft.set(&["resolv_conf"], last),
        ("Files", "Bind" | "BindReadOnly") => {
            let readonly = setting.key == "BindReadOnly";
            for value in &setting.values {
                match bind(value, readonly, from) {
                    Some(Bound::Device(path, readonly)) if readonly => {
                        let device = inline([("path", path.into()), ("access", "r".into())]);
                        draft.push(&["devices"], device);
                    }
                    Some(Bound::Device(path, _)) => draft.push(&["devices"], path),
                    Some(Bound::Bind(table)) => draft.push(&["binds"], table),
                    None => draft.push(&["nspawn", "Files", &setting.key], value.as_str()),
                }
            }
        }
        ("Files", "PrivateUsersOwnership") if matches!(last, "auto" | "map" | "chown" | "off") => {
            draft.set(&["users", "ownership"], last);
        }
        // Together, below.
        ("Network", "Private" | "VirtualEthernet" | "Bridge" | "Zone") => {}
        ("Network", "MACVLAN" | "IPVLAN" | "Interface") => {}
        _ => pass(setting, draft),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn capabilities(setting: &Setting, draft: &mut Draft) {
    let drop = setting.key == "DropCapability";
    let words = setting.values.iter().flat_map(|one| one.split([' ', ',']));
    for word in words.filter(|word| !word.is_empty()) {
        match word {
            "all" if !drop => draft.set(&["security", "privileged"], true),
            word if CAPABILITIES.contains(&word) => {
                draft.push(&["security", if drop { "drop" } else { "add" }], word);
            }
            word => draft.push(&["nspawn", "Exec", &setting.key], word),
        }
    }
}

fn users(setting: &Setting, last: &str, draft: &mut Draft) {
    let numbers =
        last.split_once(':').map(|(base, size)| (base.parse::<i64>(), size.parse::<i64>()));
    match (last, truth(last), numbers) {
        ("pick", _, _) | (_, Some(true), _) => {}
        (_, Some(false), _) => draft.set(&["users", "namespace"], false),
        (_, _, Some((Ok(base), Ok(size)))) if base % 65_536 == 0 && size % 65_536 == 0 => {
            draft.set(&["users", "base"], base);
            if size != 65_536 {
                draft.set(&["users", "size"], size);
            }
        }
        _ => {
            draft.note(format!(
                "PrivateUsers={last} is passed through: its range is not one of ours"
            ));
            pass(setting, draft);
        }
    }
}

fn calls(setting: &Setting, draft: &mut Draft) {
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    for value in &setting.values {
        let (list, words) = match value.strip_prefix('~') {
            Some(words) => (&mut deny, words),
            None => (&mut allow, value.as_str()),
        };
        for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
            if !list.contains(&word.to_owned()) {
                list.push(word.to_owned());
            }
        }
    }
    let profiles = [Seccomp::Docker, Seccomp::Agent];
    let profile = profiles
        .into_iter()
        .find(|profile| profile.calls().iter().all(|call| allow.iter().any(|one| one == call)));
    if let Some(profile) = profile
        && draft.get(&["security", "seccomp"]).is_none()
    {
        draft.set(&["security", "seccomp"], profile.word());
        allow.retain(|one| !profile.calls().contains(&one.as_str()));
    }
    for call in allow {
        draft.push(&["security", "allow"], call);
    }
    for call in deny {
        draft.push(&["security", "deny"], call);
    }
}

enum Bound {
    Device(String, bool),
    Bind(Value),
}

/// A bind as it is, where a machine file can say it.
fn bind(text: &str, readonly: bool, from: From) -> Option<Bound> {
    let (optional, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let parts = parts(text);
    let source = parts.first()?;
    let target = parts.get(1).filter(|target| !target.is_empty()).unwrap_or(source);
    let fine = |path: &str| {
        path.starts_with('/')
            && !path.trim_matches('/').is_empty()
            && path.split('/').all(|part| part != "..")
    };
    if parts.len() > 3 || !fine(source) || !fine(target) {
        return None;
    }
    let (mut idmap, mut flat) = (None, false);
    for option in parts.get(2).map_or("", String::as_str).split(',') {
        match option {
            "" | "rbind" => {}
            "norbind" => flat = true,
            "idmap" | "rootidmap" | "owneridmap" | "noidmap" => idmap = Some(option.to_owned()),
            _ => return None,
        }
    }
    if source.starts_with("/dev/") && source == target && !optional && !flat {
        return Some(Bound::Device(source.clone(), readonly));
    }
    // Of a file it is meant as it is said. Of a machine that had the host's ids, whoever owned a file
    // is to own it again.
    if from == From::NspawnFile && idmap.is_none() {
        idmap = Some("noidmap".into());
    }
    let mut entries: Vec<(&str, Value)> = vec![("source", source.as_str().into())];
    if target != source {
        entries.push(("target", target.as_str().into()));
    }
    let flags = [("readonly", readonly), ("optional", optional), ("flat", flat)];
    entries.extend(flags.into_iter().filter(|(_, on)| *on).map(|(key, on)| (key, on.into())));
    entries.extend(idmap.map(|word| ("idmap", word.into())));
    Some(Bound::Bind(inline(entries)))
}

/// What stands between colons, of which a backslash makes a part.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            ':' => parts.push(String::new()),
            '\\' => parts[last].extend(chars.next()),
            c => parts[last].push(c),
        }
    }
    parts
}

/// The interfaces, together.
fn network(settings: &Settings, from: From, draft: &mut Draft) {
    let get = |key: &'static str| settings.get("Network", key);
    let yes = |key: &'static str| get(key).last().and_then(|one| truth(one));
    let mut nics: Vec<(&str, Value)> = Vec::new();
    for (key, word) in [("Bridge", "bridge"), ("Zone", "zone")] {
        nics.extend(get(key).iter().map(|name| (word, name.as_str().into())));
    }
    if nics.is_empty() && yes("VirtualEthernet") == Some(true) {
        nics.push(("veth", true.into()));
    }
    for (key, word) in [("MACVLAN", "macvlan"), ("IPVLAN", "ipvlan"), ("Interface", "interface")] {
        let setting =
            Setting { section: "Network".into(), key: key.into(), values: get(key).to_vec() };
        if setting.values.iter().all(|name| is_interface(name)) {
            nics.extend(setting.values.iter().map(|name| (word, name.as_str().into())));
        } else {
            pass(&setting, draft);
        }
    }
    let extra = !get("VirtualEthernetExtra").is_empty();
    if extra {
        draft.note(
            "VirtualEthernetExtra is passed through, and a hook plugs its host's end in; instead of both, \
             another { bridge = \"…\" } in nics is enough",
        );
    }
    let passed = extra || draft.get(&["nspawn", "Network", "MACVLAN"]).is_some();
    let silent =
        yes("Private").is_none() && yes("VirtualEthernet").is_none() && nics.is_empty() && !passed;
    if !nics.is_empty() {
        for (word, value) in nics {
            draft.push(&["nics"], inline([(word, value)]));
        }
    } else if yes("Private") == Some(true) || passed {
        draft.set(&["network"], "none");
    } else if !silent || from == From::CommandLine {
        draft.set(&["network"], "host");
        draft.note("it is on the host's network: it sees and can take the host's ports");
    } else {
        draft.push(&["nics"], inline([("veth", true.into())]));
    }
}
