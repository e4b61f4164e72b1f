//! The one entry by which a host starts its machines when it boots. It calls a program that is in the store, so
//! that nothing but the entry is anywhere else, and it outlives upgrades of the host.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::local::{load, save, store_error};
use super::{BACKEND, command, systemd};
use crate::sandbox::{Error, Result};

/// The folder of the store that the program is in.
const FOLDER: &str = "host";
/// What the entry calls: a link to the program.
const PROGRAM: &str = "sandscript";
/// Where units are that an administrator made.
const UNITS: &str = "/etc/systemd/system";
/// Where the pools of a TrueNAS are.
const POOLS: &str = "/mnt";
/// How long a TrueNAS lets machines take to start, in seconds.
const PATIENCE: u64 = 1800;

/// Where the entry is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// TrueNAS's own list of what is run after its start; the entry's number.
    TrueNas(i64),
    /// A unit of the host's systemd.
    Unit(PathBuf),
}

/// What was installed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Installed {
    /// Where the entry is.
    pub entry: Entry,
    /// The program that it calls.
    pub program: PathBuf,
}

fn note(store: &Path) -> PathBuf {
    store.join(FOLDER).join("installed.json")
}

/// What is installed for a store; none when nothing is.
///
/// # Errors
/// `Internal` where the note of it is damaged.
pub fn installed(store: &Path) -> Result<Option<Installed>> {
    load(&note(store))
}

/// Whether the host starts the machines of a store.
pub(super) fn is_installed(store: &Path) -> bool {
    matches!(installed(store), Ok(Some(_)))
}

/// What the entry runs. `folder` is what `--store` would be, where the store is not in its usual place.
fn line(program: &Path, store: &Path) -> String {
    let quote = |path: &Path| super::machine::render::quote::shell(&path.display().to_string());
    let mut line = format!("{} --backend nspawn", quote(program));
    if store != Path::new(super::STORE)
        && let Some(above) = store.parent()
    {
        line.push_str(&format!(" --store {}", quote(above)));
    }
    line + " host boot"
}

/// Refuses a store whose place somebody else than root could give to another folder: root runs what is in it.
///
/// # Errors
/// `InvalidInput` for the folder that is open to others.
fn is_roots(store: &Path) -> Result<()> {
    let failed = |error| store_error("looking at", store, error);
    let store = store.canonicalize().map_err(failed)?;
    for folder in store.ancestors() {
        let found = fs::metadata(folder).map_err(failed)?;
        let (owner, mode) = (found.uid(), found.mode());
        // What is in an open folder with the sticky bit belongs to whoever made it.
        if owner != 0 || mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(Error::invalid_hint(
                "store",
                format!(
                    "{} is not root's alone (owner {owner}, mode {:o}), and root runs what is below it when the host boots",
                    folder.display(),
                    mode & 0o7777
                ),
                "have the store below folders that only root can write: chown root, chmod go-w",
            ));
        }
    }
    Ok(())
}

/// Puts a program into a store, as what the entry calls.
fn place(store: &Path, program: &Path) -> Result<PathBuf> {
    let folder = store.join(FOLDER);
    let failed = |error: io::Error| store_error("installing in", &folder, error);
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut bytes = Vec::new();
    fs::File::open(program).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let name = format!("{PROGRAM}-{}", &digest[..16]);
    let own = folder.join(&name);
    if fs::read(&own).ok().as_ref() != Some(&bytes) {
        let draft = folder.join(format!(".{name}"));
        fs::write(&draft, &bytes).map_err(failed)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        fs::File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, &own).map_err(failed)?;
    }
    let link = folder.join(PROGRAM);
    let draft = folder.join(format!(".{PROGRAM}"));
    let _ = fs::remove_file(&draft);
    std::os::unix::fs::symlink(&name, &draft).map_err(failed)?;
    fs::rename(&draft, &link).map_err(failed)?;
    // Those that were called before.
    for entry in fs::read_dir(&folder).map_err(failed)?.flatten() {
        let old = entry.file_name();
        if old.to_string_lossy().starts_with(&format!("{PROGRAM}-")) && old != name.as_str() {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(link)
}

/// A call of TrueNAS's own program for its API, which runs as root of it without a key.
async fn midclt(method: &str, arguments: &[Value]) -> Result<Value> {
    let words: Vec<String> = arguments.iter().map(Value::to_string).collect();
    let all = ["call", method].into_iter().chain(words.iter().map(String::as_str));
    let said = command::run("midclt", all, &format!("asking TrueNAS for {method}")).await?;
    serde_json::from_str(said.trim())
        .map_err(|error| Error::internal(format!("{method}: no answer: {error}")))
}

fn is_truenas() -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join("midclt").exists())
}

/// Registers the entry, or renews it and the program that it calls.
///
/// # Errors
/// `Unsupported` where the host has nothing to register it with; `InvalidInput` for a store on a TrueNAS that is
/// not on a pool, for it would be gone with the next update, and for one in a folder that others can write.
pub async fn install(store: &Path, program: &Path) -> Result<Installed> {
    let before = installed(store)?;
    if is_truenas() && !store.starts_with(POOLS) {
        return Err(Error::invalid_hint(
            "store",
            format!("{} is gone with the next update of TrueNAS", store.display()),
            "have the store on a pool: --store /mnt/POOL/sandscript",
        ));
    }
    if !is_truenas() && !systemd::is_booted() {
        return Err(Error::unsupported(
            "host install",
            BACKEND,
            "this host has neither TrueNAS's list of start-up commands nor systemd: have its own init run 'sandscript host boot --backend nspawn'",
        ));
    }
    is_roots(store)?;
    let called = place(store, program)?;
    let line = line(&called, store);
    let entry = if is_truenas() {
        let about = format!("machines of sandscript in {}", store.display());
        let wanted = json!({
            "type": "COMMAND", "command": line, "when": "POSTINIT", "enabled": true,
            "timeout": PATIENCE, "comment": about,
        });
        let named = json!([["comment", "=", about]]);
        let there = midclt("initshutdownscript.query", &[named]).await?;
        let known = there.as_array().and_then(|all| all.first()).and_then(|one| one["id"].as_i64());
        let made = match known {
            Some(id) => midclt("initshutdownscript.update", &[json!(id), wanted]).await?,
            None => midclt("initshutdownscript.create", &[wanted]).await?,
        };
        let id = made["id"].as_i64();
        Entry::TrueNas(id.ok_or_else(|| Error::internal("TrueNAS does not say what it made"))?)
    } else {
        let name = format!("sandscript-boot-{}.service", &blake3_of(store)[..8]);
        let path = Path::new(UNITS).join(&name);
        let text = unit(store, &line)?;
        super::machine::render::stamp::write(&path, &text, 0o644)?;
        command::run("systemctl", ["daemon-reload"], "installing").await?;
        command::run("systemctl", ["enable", &name], "installing").await?;
        Entry::Unit(path)
    };
    let installed = Installed { entry, program: called };
    save(&note(store), &installed)?;
    if let Some(old) = before.filter(|old| old.entry != installed.entry) {
        // Of another kind of host, as this was before.
        let _ = remove(&old.entry).await;
    }
    Ok(installed)
}

fn blake3_of(store: &Path) -> String {
    blake3::hash(store.as_os_str().as_encoded_bytes()).to_hex().to_string()
}

/// The text of the unit. It counts as started when the program runs: the host's boot does not wait for machines.
fn unit(store: &Path, line: &str) -> Result<String> {
    use super::machine::render::{quote, stamp};
    let shown = store.display().to_string();
    let unsayable = || Error::invalid("store", format!("'{shown}' can't be said in a unit file"));
    let mount = quote::plain_word(&shown).ok_or_else(unsayable)?;
    let command = quote::word(line).ok_or_else(unsayable)?;
    let text = format!(
        "[Unit]
Description=Machines of sandscript
RequiresMountsFor={mount}
Wants=network-online.target
After=network-online.target systemd-machined.service dbus.service

[Service]
Type=exec
RemainAfterExit=yes
KillMode=process
TimeoutStartSec=infinity
ExecStart=/bin/sh -c {command}

[Install]
WantedBy=multi-user.target
"
    );
    Ok(stamp::stamp(&text, "sandscript host install"))
}

/// Takes the entry away, and the program. Says whether there was one.
///
/// # Errors
/// What the host says where it does not let go of it.
pub async fn uninstall(store: &Path) -> Result<bool> {
    let Some(installed) = installed(store)? else { return Ok(false) };
    remove(&installed.entry).await?;
    let folder = store.join(FOLDER);
    fs::remove_dir_all(&folder).map_err(|error| store_error("deleting", &folder, error))?;
    Ok(true)
}

async fn remove(entry: &Entry) -> Result<()> {
    match entry {
        Entry::TrueNas(id) => {
            let there = midclt("initshutdownscript.query", &[json!([["id", "=", id]])]).await?;
            match there.as_array().is_some_and(|all| all.is_empty()) {
                true => Ok(()),
                false => midclt("initshutdownscript.delete", &[json!(id)]).await.map(drop),
            }
        }
        Entry::Unit(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.exists() {
                command::run("systemctl", ["disable", &name], "uninstalling").await?;
                fs::remove_file(path).map_err(|error| store_error("deleting", path, error))?;
                command::run("systemctl", ["daemon-reload"], "uninstalling").await?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_calls_what_is_in_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("it's/nspawn");
        let program = folder.path().join("program");
        fs::create_dir_all(&store).unwrap();
        fs::write(&program, "one").unwrap();
        let called = place(&store, &program).unwrap();
        assert_eq!(fs::read_to_string(&called).unwrap(), "one");
        fs::write(&program, "two").unwrap();
        assert_eq!(place(&store, &program).unwrap(), called);
        assert_eq!(fs::read_to_string(&called).unwrap(), "two");
        // The old one is gone.
        assert_eq!(fs::read_dir(store.join(FOLDER)).unwrap().count(), 2);
        let line = line(&called, &store);
        assert!(line.ends_with(" host boot") && line.contains("--store '"), "{line}");
        let text = unit(&store, &line).unwrap();
        assert!(text.contains("\nExecStart=/bin/sh -c \"'"), "{text}");
        let usual = super::line(&called, Path::new(crate::backend::nspawn::STORE));
        assert!(!usual.contains("--store"), "{usual}");
    }
}
