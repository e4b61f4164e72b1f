//! `[security]`: capabilities and system calls.

use super::error::{MachineError, Result};
use super::reader::Reader;
use super::tree::Node;
use crate::suggest;

/// Which system calls there are beside those of systemd-nspawn's own list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// systemd-nspawn's list.
    #[default]
    Default,
    /// What container engines need: `add_key`, `keyctl`, `bpf`.
    Docker,
    /// What programs need that confine themselves, as agents do: landlock and seccomp. They are named
    /// one by one, for systemd 252 has no group `@sandbox`.
    Agent,
    /// No list at all.
    None,
}

impl Seccomp {
    /// The calls that it adds.
    pub fn calls(self) -> &'static [&'static str] {
        match self {
            Seccomp::Default | Seccomp::None => &[],
            Seccomp::Docker => &["add_key", "keyctl", "bpf"],
            Seccomp::Agent => &[
                "landlock_create_ruleset",
                "landlock_add_rule",
                "landlock_restrict_self",
                "seccomp",
            ],
        }
    }

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Seccomp::Default => "default",
            Seccomp::Docker => "docker",
            Seccomp::Agent => "agent",
            Seccomp::None => "none",
        }
    }
}

/// Capabilities and system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// All capabilities.
    pub privileged: bool,
    /// Capabilities beside those that systemd-nspawn gives.
    pub add: Vec<String>,
    /// Capabilities that it would give.
    pub drop: Vec<String>,
    /// The profile.
    pub seccomp: Seccomp,
    /// Calls and groups of calls (`@name`) beside those of the profile.
    pub allow: Vec<String>,
    /// Calls and groups that the profile has.
    pub deny: Vec<String>,
    /// Whether programs can gain rights by setuid and file capabilities.
    pub no_new_privileges: bool,
}

impl Security {
    pub(super) fn read(node: &Node) -> Result<Security> {
        let reader = Reader::new(node)?;
        let seccomp = match reader.text("seccomp")?.as_deref() {
            None | Some("default") => Seccomp::Default,
            Some("docker") => Seccomp::Docker,
            Some("agent") => Seccomp::Agent,
            Some("none") => Seccomp::None,
            Some(other) => {
                let message = format!("there is no seccomp profile '{other}'");
                let hint = suggest::hint(other, ["default", "docker", "agent", "none"]);
                return Err(MachineError::invalid(reader.place_of("seccomp"), message)
                    .or_hint(hint.unwrap_or_default()));
            }
        };
        let unfiltered = reader.flag("unfiltered")?.unwrap_or(false);
        if seccomp == Seccomp::None && !unfiltered {
            return Err(MachineError::invalid(
                reader.place_of("seccomp"),
                "without a seccomp profile every system call of the kernel can be attacked",
            )
            .or_hint("say unfiltered = true beside it if that is meant; 'docker' is enough for containers"));
        }
        let capabilities = |key| -> Result<Vec<String>> {
            let list = reader.texts(key)?;
            list.into_iter().map(|name| capability(&name, &reader, key)).collect()
        };
        let calls = |key| -> Result<Vec<String>> {
            let list = reader.texts(key)?;
            for name in &list {
                let plain = name.strip_prefix('@').unwrap_or(name);
                let is_call = !plain.is_empty()
                    && plain.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
                if !is_call {
                    return Err(MachineError::invalid(
                        reader.place_of(key),
                        format!("'{name}' is not a system call"),
                    )
                    .or_hint("a call is written as 'keyctl', a group as '@sandbox'"));
                }
            }
            Ok(list)
        };
        let security = Security {
            privileged: reader.flag("privileged")?.unwrap_or(false),
            add: capabilities("add")?,
            drop: capabilities("drop")?,
            seccomp,
            allow: calls("allow")?,
            deny: calls("deny")?,
            no_new_privileges: reader.flag("no_new_privileges")?.unwrap_or(false),
        };
        reader.finish()?;
        Ok(security)
    }
}

fn capability(name: &str, reader: &Reader<'_>, key: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if name == "all" {
        return Err(MachineError::invalid(reader.place_of(key), "'all' is not a capability")
            .or_hint("say privileged = true"));
    }
    if CAPABILITIES.contains(&full.as_str()) {
        return Ok(full);
    }
    let error =
        MachineError::invalid(reader.place_of(key), format!("there is no capability '{name}'"));
    Err(match suggest::nearest(&full, CAPABILITIES.iter().copied()) {
        Some(near) => error.or_hint(format!("did you mean '{near}'?")),
        None => error.or_hint("they are listed in capabilities(7)"),
    })
}

/// The capabilities of the kernel, `capabilities(7)`.
pub const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];
