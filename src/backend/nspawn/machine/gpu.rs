//! `gpu`: which graphics cards of the host the machine has.

use super::error::{MachineError, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};
use crate::suggest;

/// Where what belongs to a card is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `/dev/dri`: Intel, AMD, and others that need no files of the host.
    Dri,
    /// NVIDIA, with its driver's libraries: by CDI, else by nvidia-container-cli.
    Nvidia,
    /// Any device of a CDI specification, named in full: `vendor.com/class=name`.
    Cdi,
}

/// One card, or all of a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Where it is looked up.
    pub vendor: Vendor,
    /// Its name there, such as `0` or `all`; of CDI the whole `vendor.com/class=name`.
    pub device: String,
    /// Whether the machine starts without it.
    pub optional: bool,
}

impl Gpu {
    /// All cards of a vendor.
    pub fn all(vendor: Vendor) -> Gpu {
        Gpu { vendor, device: "all".into(), optional: false }
    }

    /// Reads `"dri"`, `"nvidia"`, `"nvidia=0"`, `"vendor.com/class=name"`, or a table.
    pub(super) fn read(node: &Node) -> Result<Gpu> {
        let (word, optional, place) = if let Value::Text(_) = &node.value {
            (text(node)?, false, node.origin.place())
        } else {
            let reader = Reader::new(node)?;
            let Some(word) = reader.text("device")? else {
                return Err(MachineError::invalid(reader.place(), "the card is not said")
                    .or_hint("write it as { device = \"nvidia\", optional = true }"));
            };
            let place = reader.place_of("device");
            let optional = reader.flag("optional")?.unwrap_or(false);
            reader.finish()?;
            (word, optional, place)
        };
        let (kind, device) = word.split_once('=').unwrap_or((&word, "all"));
        let vendor = match kind {
            "dri" | "intel" | "amd" => Vendor::Dri,
            "nvidia" => Vendor::Nvidia,
            other if other.contains('/') && word.contains('=') => Vendor::Cdi,
            other => {
                let hint = suggest::nearest(other, ["dri", "intel", "amd", "nvidia"]);
                return Err(MachineError::invalid(place, format!("'{word}' is not a card"))
                    .or_hint(match hint {
                        Some(near) => format!("did you mean '{near}'?"),
                        None => {
                            "it is dri, nvidia, nvidia=0, or a CDI name such as nvidia.com/gpu=0"
                                .into()
                        }
                    }));
            }
        };
        let device = if vendor == Vendor::Cdi { word.clone() } else { device.to_owned() };
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(MachineError::invalid(place, format!("'{word}' names no card")));
        }
        Ok(Gpu { vendor, device, optional })
    }
}
