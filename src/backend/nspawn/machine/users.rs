//! `[users]`: the range of user ids that the machine has to itself.

use super::error::{MachineError, Result};
use super::reader::Reader;
use super::tree::Node;

/// How files on disk get to belong to the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Mapped where the file system can do that, else changed.
    #[default]
    Auto,
    /// By a mapped mount: nothing on disk is changed.
    Map,
    /// Every file is given to the range.
    Chown,
    /// Whoever mounts the root file system sees to it.
    Off,
}

impl Ownership {
    /// As systemd-nspawn says it.
    pub fn word(self) -> &'static str {
        match self {
            Ownership::Auto => "auto",
            Ownership::Map => "map",
            Ownership::Chown => "chown",
            Ownership::Off => "off",
        }
    }
}

/// The range of user ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Whether it has a range: without one, root in it is root of the host.
    pub namespace: bool,
    /// The first id on the host; chosen once and kept where it is not said.
    pub base: Option<u32>,
    /// How many ids.
    pub size: u32,
    /// How files get to belong to it.
    pub ownership: Ownership,
}

impl Default for Users {
    fn default() -> Self {
        Users { namespace: true, base: None, size: RANGE, ownership: Ownership::Auto }
    }
}

/// How many ids a machine has.
pub const RANGE: u32 = 65_536;
/// The first and the last id that systemd keeps for containers.
const CONTAINERS: (u32, u32) = (524_288, 1_879_048_191);

impl Users {
    pub(super) fn read(node: &Node) -> Result<Users> {
        let reader = Reader::new(node)?;
        let wrong =
            |key: &str, message: String| MachineError::invalid(reader.place_of(key), message);
        let namespace = reader.flag("namespace")?.unwrap_or(true);
        let size = match reader.count("size")?.unwrap_or(RANGE.into()) {
            size @ 1..=0xffff_0000 if size % 65_536 == 0 => size as u32,
            size => {
                return Err(wrong("size", format!("{size} is not a number of ids for a machine"))
                    .or_hint("use 65536, or a multiple of it where containers run in it"));
            }
        };
        let base = match reader.count("base")? {
            None => None,
            Some(base) if base % 65_536 == 0 && base > 0 && base + u64::from(size) < 1 << 32 => {
                Some(base as u32)
            }
            Some(base) => {
                return Err(wrong("base", format!("a range can't begin at {base}"))
                    .or_hint("use a multiple of 65536, 524288 or more"));
            }
        };
        let ownership = match reader.text("ownership")?.as_deref() {
            None | Some("auto") => Ownership::Auto,
            Some("map") => Ownership::Map,
            Some("chown") => Ownership::Chown,
            Some("off") => Ownership::Off,
            Some(other) => {
                return Err(wrong("ownership", format!("'{other}' is no way to own files"))
                    .or_hint("it is auto, map, chown or off"));
            }
        };
        if !namespace && base.is_some() {
            return Err(wrong("base", "there is no range without a namespace".into()));
        }
        reader.finish()?;
        Ok(Users { namespace, base, size, ownership })
    }

    /// Where the range begins: as said, else one that follows from the name, so that a machine has the
    /// same one wherever it is rendered. Who keeps track of ranges passes `taken` ones over.
    pub fn base_for(&self, name: &str, taken: &dyn Fn(u32) -> bool) -> Option<u32> {
        if !self.namespace {
            return None;
        }
        if self.base.is_some() {
            return self.base;
        }
        let (first, last) = CONTAINERS;
        let ranges = (last - first) / self.size;
        let digest = blake3::hash(name.as_bytes());
        let start =
            digest.as_bytes().iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        (0..ranges.min(4096))
            .map(|step| first + ((start + u64::from(step)) % u64::from(ranges)) as u32 * self.size)
            .find(|base| !taken(*base))
    }
}
