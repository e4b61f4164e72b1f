//! A machine, as its one file says it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::autostart::Autostart;
use super::bind::Bind;
use super::device::Device;
use super::error::{MachineError, Place, Result};
use super::gpu::Gpu;
use super::hook::Hook;
use super::image::Image;
use super::native::{SECTIONS, Setting, Settings};
use super::needs::Needs;
use super::nic::Network;
use super::reader::{Reader, domain, scalar};
use super::resolv::Resolv;
use super::security::Security;
use super::setup::{CloudInit, Step};
use super::tree::{Node, Source, Value};
use super::users::Users;
use super::variables::{self, Variable};
use super::{extends, nic, trust};
use crate::egress::Asked;
use crate::sandbox::{Limits, check_name};
use crate::suggest;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// What it is called: as it says itself, else as its file.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What its root file system is made from; it needs one to be made.
    pub image: Option<Image>,
    /// Its hostname, where that is not its name.
    pub hostname: Option<String>,
    /// Upper bounds.
    pub limits: Limits,
    /// The network.
    pub network: Network,
    /// What it may reach when it is made; what is usual where nothing is said.
    pub egress: Option<Asked>,
    /// Folders of the host.
    pub binds: Vec<Bind>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Graphics cards of the host.
    pub gpus: Vec<Gpu>,
    /// Capabilities and system calls.
    pub security: Security,
    /// Its range of user ids.
    pub users: Users,
    /// The environment of its first process, and of every command.
    pub env: Vec<(String, String)>,
    /// Whether it starts with the host.
    pub autostart: Option<Autostart>,
    /// How it finds names.
    pub resolv: Resolv,
    /// What is done once after it was made.
    pub setup: Vec<Step>,
    /// Whether that was done before the machine came here.
    pub setup_done: bool,
    /// The same by cloud-init.
    pub cloud_init: Option<CloudInit>,
    /// What is run when it starts and stops.
    pub hooks: Vec<Hook>,
    /// What systemd-nspawn is told besides, by its own names.
    pub nspawn: Settings,
    /// What systemd is told of its unit besides, by its own names.
    pub unit: Vec<Setting>,
    /// What it needs of the host.
    pub needs: Needs,
    /// The variables and their values.
    pub variables: Vec<Variable>,
    /// The files that it extends, the nearest first.
    pub extends: Vec<String>,
}

impl Machine {
    /// Reads a file, with values for its variables.
    ///
    /// # Errors
    /// `Io`; `Invalid` with file, line and column for whatever is wrong in it or in what it extends.
    pub fn load(path: &Path, given: &BTreeMap<String, String>) -> Result<Machine> {
        let text = super::read_text(path)?;
        Machine::read_as(path, &text, given)
    }

    /// Reads text as that of the file at `path`: what is about to be written there.
    ///
    /// # Errors
    /// As [`Machine::load`], but for `Io`.
    pub fn read_as(path: &Path, text: &str, given: &BTreeMap<String, String>) -> Result<Machine> {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Machine::parse(&path.display().to_string(), text, &stem.unwrap_or_default(), &folder, given)
    }

    /// Reads text as that of a file called `file`, in `folder`, of a machine called `name` where it
    /// says no other.
    pub fn parse(
        file: &str,
        text: &str,
        name: &str,
        folder: &Path,
        given: &BTreeMap<String, String>,
    ) -> Result<Machine> {
        let source = Source { name: file.into(), text: text.into(), trusted: true };
        let (mut root, chain) = extends::resolve(&Arc::new(source), folder)?;
        let variables = match &mut root.value {
            Value::Table(table) => variables::fill(table, given)?,
            _ => Vec::new(),
        };
        let mut machine = Machine::read(&root, name)?;
        machine.variables = variables;
        machine.extends = chain;
        Ok(machine)
    }

    fn read(root: &Node, name: &str) -> Result<Machine> {
        let reader = Reader::new(root)?;
        for key in ["extends", "variables"] {
            reader.node(key);
        }
        let name = match reader.node("name") {
            Some(node) => checked_name(node)?,
            None => {
                let place = Place::file(root.origin.source.name.clone());
                check_name(name).map_err(|error| {
                    MachineError::invalid(place, error.to_string())
                        .or_hint("say name = \"…\" in the file, or call the file otherwise")
                })?;
                name.to_owned()
            }
        };
        let trusts = reader.flag("trust_hooks")?.unwrap_or(false)
            && reader.node("trust_hooks").is_some_and(|node| node.origin.source.trusted);
        if !trusts {
            trust::check(root)?;
        }
        let machine = Machine {
            name,
            description: reader.text("description")?,
            image: reader.node("image").map(Image::read).transpose()?,
            hostname: reader.node("hostname").map(checked_name).transpose()?,
            limits: reader.node("limits").map(limits).transpose()?.unwrap_or_default(),
            network: nic::read(&reader)?,
            egress: reader.node("egress").map(super::egress::read).transpose()?,
            binds: reader.list("binds")?.into_iter().map(Bind::read).collect::<Result<_>>()?,
            devices: reader
                .list("devices")?
                .into_iter()
                .map(Device::read)
                .collect::<Result<_>>()?,
            gpus: reader.list("gpu")?.into_iter().map(Gpu::read).collect::<Result<_>>()?,
            security: reader.node("security").map(Security::read).transpose()?.unwrap_or_default(),
            users: reader.node("users").map(Users::read).transpose()?.unwrap_or_default(),
            env: env(&reader)?,
            autostart: reader.node("autostart").map(super::autostart::read).transpose()?.flatten(),
            resolv: reader.node("resolv_conf").map(Resolv::read).transpose()?.unwrap_or_default(),
            setup: reader.node("setup").map(super::setup::read).transpose()?.unwrap_or_default(),
            setup_done: reader.node("setup").map_or(Ok(false), super::setup::is_done)?,
            cloud_init: reader.node("cloud_init").map(CloudInit::read).transpose()?,
            hooks: reader.node("hooks").map(super::hook::read).transpose()?.unwrap_or_default(),
            nspawn: passed(&reader, "nspawn", SECTIONS)?.into_iter().fold(
                Settings::default(),
                |mut all, one| {
                    one.values.iter().for_each(|value| all.add(&one.section, &one.key, value));
                    all
                },
            ),
            unit: passed(&reader, "unit", &["Unit", "Service"])?,
            needs: reader.node("needs").map(Needs::read).transpose()?.unwrap_or_default(),
            variables: Vec::new(),
            extends: Vec::new(),
        };
        reader.finish()?;
        Ok(machine)
    }

    /// The folder of the machine's root file system where `machinectl` looks for it.
    pub fn usual_folder(&self) -> PathBuf {
        Path::new("/var/lib/machines").join(&self.name)
    }
}

fn checked_name(node: &Node) -> Result<String> {
    let name = super::reader::text(node)?;
    check_name(&name).map_err(|error| domain(node, &error))?;
    Ok(name)
}

fn limits(node: &Node) -> Result<Limits> {
    let reader = Reader::new(node)?;
    let limits = Limits {
        cpu: reader.number("cpu")?,
        memory: reader.size("memory")?,
        pids: reader.count("processes")?,
        disk: reader.size("disk")?,
        inodes: reader.count("inodes")?,
    };
    reader.finish()?;
    limits.check().map_err(|error| {
        let crate::sandbox::Error::InvalidInput { what, message, hint } = error else {
            return domain(node, &error);
        };
        let key = if what == "pids" { "processes" } else { &what };
        let place = match &node.value {
            Value::Table(table) => table.get(key).unwrap_or(node).origin.place(),
            _ => node.origin.place(),
        };
        let error = MachineError::invalid(place, format!("{key}: {message}"));
        hint.into_iter().fold(error, MachineError::or_hint)
    })?;
    Ok(limits)
}

fn env(reader: &Reader<'_>) -> Result<Vec<(String, String)>> {
    let all = reader.map("env")?;
    for (name, value) in &all {
        let fine = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let place = || match reader.node("env").map(|node| &node.value) {
            Some(Value::Table(table)) => {
                table.get(name).map_or_else(|| reader.place(), |node| node.origin.place())
            }
            _ => reader.place(),
        };
        if !fine {
            let message = format!("'{}' can't be the name of a variable", name.escape_debug());
            return Err(MachineError::invalid(place(), message));
        }
        if value.contains(['\n', '\r']) {
            return Err(MachineError::invalid(
                place(),
                format!("{name} has more than one line, which systemd-nspawn can't be told"),
            )
            .or_hint("write it to a file in [setup], or encode it"));
        }
    }
    Ok(all)
}

/// `[nspawn.Section]` and `[unit.Section]`: keys and values as they are.
fn passed(reader: &Reader<'_>, key: &'static str, sections: &[&str]) -> Result<Vec<Setting>> {
    let Some(node) = reader.node(key) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (section, node) in Reader::new(node)?.entries() {
        if !sections.contains(&section) {
            let message = format!("there is no section '{section}'");
            let hint = suggest::hint(section, sections.iter().copied());
            return Err(MachineError::invalid(node.origin.place(), message)
                .or_hint(hint.unwrap_or_default()));
        }
        for (key, node) in Reader::new(node)?.entries() {
            let values = match &node.value {
                Value::List(list) => list.iter().map(scalar).collect::<Result<Vec<_>>>()?,
                _ => vec![scalar(node)?],
            };
            let plain =
                !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            if !plain || values.iter().any(|value| value.contains(['\n', '\r'])) {
                let key = key.escape_debug();
                return Err(MachineError::invalid(
                    node.origin.place(),
                    format!("'{key}' can't be a line of a unit file"),
                )
                .or_hint("a key is made of letters, and a value is one line"));
            }
            all.push(Setting { section: section.into(), key: key.into(), values });
        }
    }
    Ok(all)
}
