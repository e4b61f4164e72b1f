//! Networks that sandboxes of one run share.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Error, Result, check_name};

/// A network of a run. Sandboxes that are in it reach each other by name, whatever their egress policies
/// are; all others don't reach them by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Network {
    /// The run. Networks of the same name in two runs have nothing to do with each other. Empty for those
    /// that were named by hand: they are of no run.
    pub run: String,
    /// Its name in that run: as a sandbox's.
    pub name: String,
}

impl Network {
    /// A network of a run.
    pub fn new(run: impl Into<String>, name: impl Into<String>) -> Self {
        Network { run: run.into(), name: name.into() }
    }

    /// A network that is of no run, from what a person writes.
    pub fn by_hand(name: &str) -> Result<Self> {
        let network = Network::new("", name);
        network.check().map(|()| network)
    }

    /// Its name, and whose it is.
    pub fn said(&self) -> String {
        match self.run.is_empty() {
            true => self.name.clone(),
            false => format!("{} of run {}", self.name, self.run),
        }
    }

    /// Refuses a name that is none.
    pub fn check(&self) -> Result<()> {
        check_name(&self.name).map_err(|error| {
            let message = format!("'{}' is not a name of a network", self.name.escape_debug());
            Error::invalid_hint("network", message, error.hint().unwrap_or_default())
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Refuses networks that no sandbox can be in.
pub(super) fn check(networks: &[Network]) -> Result<()> {
    for (index, network) in networks.iter().enumerate() {
        network.check()?;
        if networks[..index].contains(network) {
            return Err(Error::invalid("network", format!("'{network}' is given twice")));
        }
    }
    Ok(())
}
