//! `[setup]` and `[cloud_init]`: what is done in the machine once, after it was made.

use super::error::{MachineError, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is called; unique in the machine.
    pub name: String,
    /// A script, as of hooks.
    pub script: String,
}

impl Step {
    /// The script with an interpreter.
    pub fn file(&self) -> String {
        let end = if self.script.ends_with('\n') { "" } else { "\n" };
        if self.script.starts_with("#!") {
            format!("{}{end}", self.script)
        } else {
            format!("#!/bin/sh\nset -eu\n{}{end}", self.script)
        }
    }
}

/// What cloud-init finds as its `NoCloud` source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudInit {
    /// `user-data`.
    pub user_data: String,
    /// `meta-data`; the machine's name where it is not said.
    pub meta_data: Option<String>,
    /// `network-config`.
    pub network_config: Option<String>,
}

impl CloudInit {
    /// The folder where it looks.
    pub const SEED: &'static str = "/var/lib/cloud/seed/nocloud";

    /// The files of the seed: name and text.
    pub fn files(&self, machine: &str) -> Vec<(String, String)> {
        let meta = self
            .meta_data
            .clone()
            .unwrap_or_else(|| format!("instance-id: {machine}\nlocal-hostname: {machine}\n"));
        let network = self.network_config.clone().map(|text| ("network-config", text));
        [("user-data", self.user_data.clone()), ("meta-data", meta)]
            .into_iter()
            .chain(network)
            .map(|(name, text)| (format!("{}/{name}", Self::SEED), text))
            .collect()
    }

    pub(super) fn read(node: &Node) -> Result<CloudInit> {
        let (cloud, place) = if let Value::Text(_) = &node.value {
            let cloud = CloudInit { user_data: text(node)?, ..CloudInit::default() };
            (cloud, node.origin.place())
        } else {
            let reader = Reader::new(node)?;
            let cloud = CloudInit {
                user_data: reader.text("user_data")?.unwrap_or_default(),
                meta_data: reader.text("meta_data")?,
                network_config: reader.text("network_config")?,
            };
            let place = reader.place_of("user_data");
            reader.finish()?;
            (cloud, place)
        };
        // cloud-init takes a file without one of these for nothing, and says so in its own log only.
        let first = cloud.user_data.lines().next().unwrap_or_default();
        let known = ["#cloud-config", "#!", "#include", "#cloud-boothook", "## template:"];
        if !cloud.user_data.is_empty() && !known.iter().any(|head| first.starts_with(head)) {
            return Err(MachineError::invalid(
                place,
                "cloud-init can't tell what this user-data is",
            )
            .or_hint("begin it with '#cloud-config', or with '#!' where it is a script"));
        }
        Ok(cloud)
    }
}

/// Whether a table says that everything in it was done before the machine came here.
pub(super) fn is_done(node: &Node) -> Result<bool> {
    match &node.value {
        Value::Table(table) => table.get("done").map_or(Ok(false), super::reader::flag),
        _ => Ok(false),
    }
}

/// Reads `setup = "script"`, or a table with `script` or `steps`.
pub(super) fn read(node: &Node) -> Result<Vec<Step>> {
    let one = |script: String| Step { name: "setup".into(), script };
    if let Value::Text(_) = &node.value {
        return Ok(vec![one(text(node)?)]);
    }
    let reader = Reader::new(node)?;
    reader.node("done");
    let mut all: Vec<Step> = reader.text("script")?.map(one).into_iter().collect();
    for (at, node) in reader.list("steps")?.into_iter().enumerate() {
        let step = if let Value::Text(_) = &node.value {
            Step { name: format!("step-{}", at + 1), script: text(node)? }
        } else {
            let inner = Reader::new(node)?;
            let name = inner.text("name")?.unwrap_or_else(|| format!("step-{}", at + 1));
            let script = inner.text("run")?.ok_or_else(|| {
                MachineError::invalid(inner.place(), "the step does not say what to run")
            })?;
            inner.finish()?;
            Step { name, script }
        };
        if all.iter().any(|other| other.name == step.name) {
            let message = format!("two steps are called '{}'", step.name);
            return Err(MachineError::invalid(node.origin.place(), message));
        }
        all.push(step);
    }
    reader.finish()?;
    Ok(all)
}
