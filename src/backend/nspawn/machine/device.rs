//! `devices`: nodes of the host in the machine. Each is both bound and allowed, for the unit of a
//! machine allows none by itself.

use super::error::{MachineError, Result};
use super::reader::{Reader, text};
use super::tree::{Node, Value};

/// A device node, or a folder of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The absolute path below `/dev`.
    pub path: String,
    /// What may be done: of `r`, `w` and `m`.
    pub access: String,
    /// What the unit allows: the path, or a group such as `char-drm`.
    pub allow: String,
    /// Whether the machine starts without it where it is not there.
    pub optional: bool,
}

/// Folders of nodes, and the group that a unit allows for each.
const GROUPS: &[(&str, &str)] = &[
    ("/dev/bus/usb", "char-usb_device"),
    ("/dev/dri", "char-drm"),
    ("/dev/dvb", "char-DVB"),
    ("/dev/input", "char-input"),
    ("/dev/snd", "char-alsa"),
    ("/dev/vfio", "char-vfio"),
];

impl Device {
    /// A node that is read and written.
    pub fn new(path: impl Into<String>) -> Device {
        let path = path.into();
        Device { allow: group(&path), path, access: "rw".into(), optional: false }
    }

    /// Reads a path, or a table.
    pub(super) fn read(node: &Node) -> Result<Device> {
        let place = node.origin.place();
        let device = if let Value::Text(_) = &node.value {
            Device::new(text(node)?)
        } else {
            let reader = Reader::new(node)?;
            let Some(path) = reader.text("path")? else {
                return Err(MachineError::invalid(place, "a device has no path")
                    .or_hint("write it as \"/dev/fuse\""));
            };
            let access = reader.text("access")?.unwrap_or_else(|| "rw".into());
            if access.is_empty() || access.chars().any(|c| !"rwm".contains(c)) {
                return Err(MachineError::invalid(
                    reader.place_of("access"),
                    format!("'{access}' is no access to a device"),
                )
                .or_hint("it is made of r, w and m"));
            }
            let allow = reader.text("allow")?.unwrap_or_else(|| group(&path));
            let optional = reader.flag("optional")?.unwrap_or(false);
            reader.finish()?;
            Device { path, access, allow, optional }
        };
        let clean = device.path.strip_prefix("/dev/").is_some_and(|rest| {
            !rest.is_empty()
                && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && rest.chars().all(|c| !c.is_whitespace() && !c.is_control())
        });
        if !clean {
            let path = device.path.escape_debug();
            return Err(MachineError::invalid(
                place,
                format!("'{path}' is not a path of a device"),
            )
            .or_hint("it begins with /dev/; other files are binds"));
        }
        Ok(device)
    }
}

fn group(path: &str) -> String {
    let below = |top: &str| path == top || path.starts_with(&format!("{top}/"));
    let found =
        GROUPS.iter().find(|(top, _)| below(top) && (path == *top || *top != "/dev/bus/usb"));
    match found {
        Some((_, group)) => (*group).to_owned(),
        None => path.to_owned(),
    }
}
