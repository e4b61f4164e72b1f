//! What systemd reads, made from a machine: its `.nspawn` file, the drop-in of its unit, and the
//! command line that does the same where systemd is not the first process.

mod command;
mod hooks;
mod network;
mod nspawn;
pub mod quote;
mod settings;
pub mod stamp;
mod unit;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use command::CommandLine;

use crate::egress::Asked;

use super::cdi::Edits;
use super::error::{MachineError, Result};
use super::file::Machine;
use super::hook::{When, Where};
use super::image::Image;
use super::native::Settings;
use super::nic::Network;

/// What is not in the machine's file, and is known when it is rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The folder of its root file system.
    pub root: PathBuf,
    /// The first id of its range.
    pub base: Option<u32>,
    /// What its graphics cards and other devices of CDI bring.
    pub edits: Edits,
    /// Where rendered files are.
    pub places: Places,
    /// The file that its console is added to; the journal's where there is none.
    pub log: Option<PathBuf>,
}

/// Where rendered files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `.nspawn` files.
    pub nspawn: PathBuf,
    /// Units and their drop-ins.
    pub units: PathBuf,
    /// Hooks, and files for the machine.
    pub files: PathBuf,
}

impl Default for Places {
    /// In `/run`: what is rendered does not outlive a boot, and what it is rendered from does.
    fn default() -> Self {
        Places {
            nspawn: "/run/systemd/nspawn".into(),
            units: "/run/systemd/system".into(),
            files: "/run/sandscript/machines".into(),
        }
    }
}

impl Context {
    /// For a machine where `machinectl` looks for it, or in the folder that it says, in the range that
    /// follows from its name.
    pub fn usual(machine: &Machine) -> Context {
        let root = match &machine.image {
            Some(Image::Folder(folder)) => folder.clone(),
            _ => machine.usual_folder(),
        };
        Context {
            root,
            base: machine.users.base_for(&machine.name, &|_| false),
            edits: Edits::default(),
            places: Places::default(),
            log: None,
        }
    }
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Where.
    pub path: PathBuf,
    /// What is in it, with its stamp.
    pub text: String,
    /// Its permissions.
    pub mode: u32,
}

/// All that is rendered from a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The machine's name.
    pub name: String,
    /// What systemd-nspawn is told.
    pub settings: Settings,
    /// The `.nspawn` file.
    pub nspawn: Rendered,
    /// The drop-in of `systemd-nspawn@NAME.service`.
    pub dropin: Rendered,
    /// Hooks, and files that are bound into the machine.
    pub files: Vec<Rendered>,
    /// The same as a command line.
    pub command: CommandLine,
    /// What has to be done on the host when the machine's interfaces are there.
    pub attach: Vec<Vec<String>>,
    /// What has to be done on the host before the start; the machine starts without it where a word says so.
    pub prepare: Vec<Prepare>,
    /// Hooks as commands of the host, by the unit's key for when they are run.
    pub hooks: Vec<(&'static str, Vec<String>)>,
    /// How long hooks may take while it starts.
    pub starting: Duration,
}

/// A command of the host's before a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Whether the machine starts where it fails, too.
    pub optional: bool,
    /// The command.
    pub argv: Vec<String>,
}

impl Plan {
    /// Renders a machine; `source` names its file in what is rendered.
    ///
    /// # Errors
    /// `Host` for what must not be (all capabilities on the host's network, no seccomp without a range)
    /// and what can't be said on a line.
    pub fn new(machine: &Machine, context: &Context, source: &str) -> Result<Plan> {
        let folder = context.places.files.join(&machine.name);
        let net = network::make(machine, &folder);
        let settings = settings::make(machine, context, &net)?;
        refuse(machine, &settings)?;
        let hooks = hooks::make(machine, context, &folder);
        let prepare = unit::prepare(machine, context);
        let mut files = Vec::new();
        for (path, text, mode) in net.files.iter().chain(&hooks.files) {
            let text = stamp::stamp(text, source);
            files.push(Rendered { path: path.clone(), text, mode: *mode });
        }
        let nspawn = Rendered {
            path: context.places.nspawn.join(format!("{}.nspawn", machine.name)),
            text: stamp::stamp(&nspawn::text(&settings)?, source),
            mode: 0o644,
        };
        let unit = format!("{}.d", unit_name(&machine.name));
        let dropin = Rendered {
            path: context.places.units.join(unit).join("50-sandscript.conf"),
            text: stamp::stamp(&unit::text(machine, context, &net, &hooks, &prepare)?, source),
            mode: 0o644,
        };
        let command = command::make(machine, context, &settings);
        Ok(Plan {
            name: machine.name.clone(),
            settings,
            nspawn,
            dropin,
            files,
            command,
            attach: net.attach,
            prepare,
            starting: Duration::from_secs(hooks.starting),
            hooks: hooks.commands,
        })
    }

    /// The same files below a folder, to be looked at or taken elsewhere: what is in them stays.
    pub fn below(mut self, folder: &Path) -> Plan {
        for file in self.files.iter_mut().chain([&mut self.nspawn, &mut self.dropin]) {
            file.path = folder.join(file.path.strip_prefix("/").unwrap_or(&file.path));
        }
        self
    }

    /// All files, those first that others name.
    pub fn all(&self) -> impl Iterator<Item = &Rendered> {
        self.files.iter().chain([&self.nspawn, &self.dropin])
    }

    /// Looks for files that are somebody else's, then writes all that are not there as they are.
    /// Says which it wrote.
    ///
    /// # Errors
    /// `Clobber` before anything is written; `Io`.
    pub fn write(&self) -> Result<Vec<PathBuf>> {
        for file in self.all() {
            stamp::check(&file.path)?;
        }
        self.put(self.all())
    }

    /// Writes hooks and what the machine is given alone: all that it takes where systemd is not the first
    /// process.
    ///
    /// # Errors
    /// `Clobber`; `Io`.
    pub fn write_files(&self) -> Result<Vec<PathBuf>> {
        self.put(self.files.iter())
    }

    /// Takes away what was rendered, as far as it is as it was. Says what is left.
    pub fn remove(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for file in self.all() {
            match std::fs::read_to_string(&file.path) {
                Ok(text) if stamp::whose(&text) == stamp::Whose::Ours => {
                    let _ = std::fs::remove_file(&file.path);
                }
                Ok(_) => left.push(file.path.clone()),
                Err(_) => {}
            }
        }
        // A folder in which somebody else has something stays.
        for folder in self.files.iter().chain([&self.dropin]).filter_map(|file| file.path.parent())
        {
            let _ = std::fs::remove_dir(folder);
        }
        left
    }

    /// Writes those of some files that are not there as they are. Says which it wrote.
    ///
    /// What a machine is given keeps its permissions, for the machine's root is somebody else on the
    /// host, and cloud-init's files hold secrets: so their folder is closed.
    pub(super) fn put<'a>(
        &self,
        files: impl Iterator<Item = &'a Rendered>,
    ) -> Result<Vec<PathBuf>> {
        for folder in self.files.iter().filter_map(|file| file.path.parent()) {
            stamp::close(folder)?;
        }
        let mut written = Vec::new();
        for file in files {
            if stamp::write(&file.path, &file.text, file.mode)? {
                written.push(file.path.clone());
            }
        }
        Ok(written)
    }
}

/// What the service of a machine is called.
pub fn unit_name(machine: &str) -> String {
    format!("systemd-nspawn@{}.service", quote::unit_name(machine))
}

/// What would hand the host to the machine.
fn refuse(machine: &Machine, settings: &Settings) -> Result<()> {
    let host = |what: &str, hint: &str| {
        let what = format!("machine '{}': {what}", machine.name);
        Err(MachineError::Host { what, hint: hint.into() })
    };
    let all = settings.get("Exec", "Capability").iter().any(|one| {
        one.split([' ', ',']).any(|word| matches!(word, "all" | "CAP_NET_ADMIN" | "CAP_SYS_ADMIN"))
    });
    if machine.network == Network::Gate
        && let Some(one) = machine.nspawn.iter().find(|one| one.section == "Network")
    {
        return host(
            &format!("with nspawn.Network.{} it would go past the gate", one.key),
            "say what it is plugged into as nics, and leave network = \"gate\" out",
        );
    }
    let open = matches!(machine.network, Network::Own(_) | Network::Host);
    if open && machine.egress.as_ref().is_some_and(|asked| *asked != Asked::Unrestricted) {
        return host(
            "nobody keeps an egress policy for interfaces that it is plugged into the host's network with",
            "leave nics and network out, so that all it sends goes through the gate; or leave egress out, and give rules to the bridge",
        );
    }
    let yes = |key| settings.get("Network", key).iter().any(|one| is_yes(one));
    let links = ["VirtualEthernetExtra", "Interface", "MACVLAN", "IPVLAN", "Bridge", "Zone"];
    let own = yes("Private")
        || yes("VirtualEthernet")
        || links.iter().any(|key| !settings.get("Network", key).is_empty());
    if all && !own {
        return host(
            "with these capabilities on the host's network it can change the host's firewall",
            "give it a bridge: nics = [{ bridge = \"br0\" }]; or take privileged, CAP_NET_ADMIN and CAP_SYS_ADMIN away",
        );
    }
    let ranged = settings
        .get("Exec", "PrivateUsers")
        .iter()
        .any(|one| !matches!(one.as_str(), "no" | "false" | "0" | "off" | "identity"));
    if machine.security.seccomp == super::security::Seccomp::None && !ranged {
        return host(
            "without a range of user ids and without seccomp nothing keeps root of the machine in it",
            "leave users.namespace as it is, or choose another seccomp profile",
        );
    }
    Ok(())
}

/// What systemd takes for true.
fn is_yes(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "yes" | "y" | "true" | "t" | "on")
}

/// A hook's file and how it is called.
fn hook_name(place: Where, when: When) -> String {
    format!("{}-{}", place.word(), when.word())
}
