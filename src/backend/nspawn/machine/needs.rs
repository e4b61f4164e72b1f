//! `[needs]`: what the machine wants of the host beyond what its own settings say.

use super::error::{MachineError, Result};
use super::reader::Reader;
use super::tree::Node;

/// A setting of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Such as `net.ipv4.ip_forward`.
    pub key: String,
    /// What it must be.
    pub value: String,
    /// Whether more is as good.
    pub at_least: bool,
}

impl Sysctl {
    /// As a person types it.
    pub fn command(&self) -> String {
        format!("sysctl -w {}={}", self.key, self.value)
    }
}

/// What the host must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Settings of the kernel.
    pub sysctls: Vec<Sysctl>,
    /// Parts of the kernel, as modules or built in.
    pub modules: Vec<String>,
    /// Whether it must have unified control groups only.
    pub cgroup2: bool,
}

impl Needs {
    pub(super) fn read(node: &Node) -> Result<Needs> {
        let reader = Reader::new(node)?;
        let mut sysctls = Vec::new();
        for (key, value) in reader.map("sysctls")? {
            let fine = key.split('.').all(|part| {
                !part.is_empty()
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
            });
            let at_least = value.strip_prefix(">=").map(str::trim);
            if !fine || at_least.is_some_and(|number| number.parse::<u64>().is_err()) {
                return Err(MachineError::invalid(
                    reader.place_of("sysctls"),
                    format!("'{key} = {value}' is not a setting of the kernel"),
                )
                .or_hint(
                    "write \"net.ipv4.ip_forward\" = 1, or \">=1024\" where more is as good",
                ));
            }
            let exact = at_least.unwrap_or(&value).to_owned();
            sysctls.push(Sysctl { key, at_least: at_least.is_some(), value: exact });
        }
        let modules = reader.texts("modules")?;
        let module = |name: &String| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        if let Some(name) = modules.iter().find(|name| !module(name)) {
            let message = format!("'{name}' is not a module of the kernel");
            return Err(MachineError::invalid(reader.place_of("modules"), message));
        }
        let cgroup2 = reader.flag("cgroup2")?.unwrap_or(false);
        reader.finish()?;
        Ok(Needs { sysctls, modules, cgroup2 })
    }
}
