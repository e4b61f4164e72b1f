//! What systemd-nspawn itself is told: each setting as the key of a `.nspawn` file and as the option
//! of the command line (`systemd.nspawn(5)`, `systemd-nspawn(1)`).

use std::fmt;

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `Key=yes` or `no`; the option has no value, and is left out for `no`.
    Switch,
    /// `Key=yes` or `no`, and the same behind the option.
    Bool,
    /// One value; the last one holds.
    One,
    /// One value a line, an option each.
    Many,
    /// Words with spaces between them in the file, an option each with commas.
    Commas,
    /// Words, quoted where need be, in the file; an option each.
    Words,
    /// What follows all options.
    Rest,
    /// A resource limit: `--rlimit=NAME=value`.
    Rlimit,
}

/// A setting that systemd-nspawn knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The section of the file.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The long option without `--`; empty where there is none.
    pub option: &'static str,
    /// How it is written.
    pub form: Form,
}

const fn known(
    section: &'static str,
    key: &'static str,
    option: &'static str,
    form: Form,
) -> Known {
    Known { section, key, option, form }
}

/// All of them, in the order in which they are written.
pub const ALL: &[Known] = &[
    known("Exec", "Boot", "boot", Form::Switch),
    known("Exec", "Ephemeral", "ephemeral", Form::Switch),
    known("Exec", "ProcessTwo", "as-pid2", Form::Switch),
    known("Exec", "Parameters", "", Form::Rest),
    known("Exec", "Environment", "setenv", Form::Words),
    known("Exec", "User", "user", Form::One),
    known("Exec", "WorkingDirectory", "chdir", Form::One),
    known("Exec", "PivotRoot", "pivot-root", Form::One),
    known("Exec", "Capability", "capability", Form::Commas),
    known("Exec", "DropCapability", "drop-capability", Form::Commas),
    known("Exec", "AmbientCapability", "ambient-capability", Form::Commas),
    known("Exec", "NoNewPrivileges", "no-new-privileges", Form::Bool),
    known("Exec", "KillSignal", "kill-signal", Form::One),
    known("Exec", "Personality", "personality", Form::One),
    known("Exec", "MachineID", "uuid", Form::One),
    known("Exec", "PrivateUsers", "private-users", Form::One),
    known("Exec", "NotifyReady", "notify-ready", Form::Bool),
    known("Exec", "SystemCallFilter", "system-call-filter", Form::Many),
    known("Exec", "LimitCPU", "CPU", Form::Rlimit),
    known("Exec", "LimitFSIZE", "FSIZE", Form::Rlimit),
    known("Exec", "LimitDATA", "DATA", Form::Rlimit),
    known("Exec", "LimitSTACK", "STACK", Form::Rlimit),
    known("Exec", "LimitCORE", "CORE", Form::Rlimit),
    known("Exec", "LimitRSS", "RSS", Form::Rlimit),
    known("Exec", "LimitNOFILE", "NOFILE", Form::Rlimit),
    known("Exec", "LimitAS", "AS", Form::Rlimit),
    known("Exec", "LimitNPROC", "NPROC", Form::Rlimit),
    known("Exec", "LimitMEMLOCK", "MEMLOCK", Form::Rlimit),
    known("Exec", "LimitLOCKS", "LOCKS", Form::Rlimit),
    known("Exec", "LimitSIGPENDING", "SIGPENDING", Form::Rlimit),
    known("Exec", "LimitMSGQUEUE", "MSGQUEUE", Form::Rlimit),
    known("Exec", "LimitNICE", "NICE", Form::Rlimit),
    known("Exec", "LimitRTPRIO", "RTPRIO", Form::Rlimit),
    known("Exec", "LimitRTTIME", "RTTIME", Form::Rlimit),
    known("Exec", "OOMScoreAdjust", "oom-score-adjust", Form::One),
    known("Exec", "CPUAffinity", "cpu-affinity", Form::One),
    known("Exec", "Hostname", "hostname", Form::One),
    known("Exec", "ResolvConf", "resolv-conf", Form::One),
    known("Exec", "Timezone", "timezone", Form::One),
    known("Exec", "LinkJournal", "link-journal", Form::One),
    known("Exec", "SuppressSync", "suppress-sync", Form::Bool),
    known("Files", "ReadOnly", "read-only", Form::Switch),
    known("Files", "Volatile", "volatile", Form::One),
    known("Files", "Bind", "bind", Form::Many),
    known("Files", "BindReadOnly", "bind-ro", Form::Many),
    known("Files", "BindUser", "bind-user", Form::Words),
    known("Files", "TemporaryFileSystem", "tmpfs", Form::Many),
    known("Files", "Inaccessible", "inaccessible", Form::Many),
    known("Files", "Overlay", "overlay", Form::Many),
    known("Files", "OverlayReadOnly", "overlay-ro", Form::Many),
    known("Files", "PrivateUsersOwnership", "private-users-ownership", Form::One),
    known("Network", "Private", "private-network", Form::Switch),
    known("Network", "VirtualEthernet", "network-veth", Form::Switch),
    known("Network", "VirtualEthernetExtra", "network-veth-extra", Form::Many),
    known("Network", "Interface", "network-interface", Form::Words),
    known("Network", "MACVLAN", "network-macvlan", Form::Words),
    known("Network", "IPVLAN", "network-ipvlan", Form::Words),
    known("Network", "Bridge", "network-bridge", Form::One),
    known("Network", "Zone", "network-zone", Form::One),
    known("Network", "Port", "port", Form::Many),
];

/// The sections of a `.nspawn` file.
pub const SECTIONS: &[&str] = &["Exec", "Files", "Network"];

/// A key of a section.
pub fn by_key(section: &str, key: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.section == section && known.key == key)
}

/// An option of the command line, without `--`.
pub fn by_option(option: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.form != Form::Rlimit && known.option == option)
}

/// What is told, in the order of [`ALL`] with what is not known there behind its section's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Vec<Setting>);

/// One setting with its values: one or, of a list, several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The section.
    pub section: String,
    /// The key.
    pub key: String,
    /// The values, as they are meant, without quoting.
    pub values: Vec<String>,
}

impl Setting {
    /// What is known about it.
    pub fn known(&self) -> Option<&'static Known> {
        by_key(&self.section, &self.key)
    }

    /// Whether more than one value can hold.
    pub fn is_list(&self) -> bool {
        self.known().is_none_or(|known| {
            !matches!(known.form, Form::Switch | Form::Bool | Form::One | Form::Rlimit)
        })
    }
}

impl Settings {
    /// Says something: to a list it is added, else it holds from now on.
    pub fn add(&mut self, section: &str, key: &str, value: impl Into<String>) {
        let found = self.0.iter_mut().find(|one| one.section == section && one.key == key);
        let value = value.into();
        match found {
            Some(one) if one.is_list() => {
                // Of what is run, each word is one of its own.
                let words = one.known().is_some_and(|known| known.form == Form::Rest);
                if words || !one.values.contains(&value) {
                    one.values.push(value);
                }
            }
            Some(one) => one.values = vec![value],
            None => self.0.push(Setting {
                section: section.into(),
                key: key.into(),
                values: vec![value],
            }),
        }
    }

    /// Takes back all that was said of a key.
    pub fn clear(&mut self, section: &str, key: &str) {
        self.0.retain(|one| one.section != section || one.key != key);
    }

    /// Says every value of a key otherwise.
    pub fn rewrite(&mut self, section: &str, key: &str, with: impl Fn(&str) -> String) {
        let found = self.0.iter_mut().find(|one| one.section == section && one.key == key);
        for value in found.into_iter().flat_map(|one| &mut one.values) {
            *value = with(value);
        }
    }

    /// Says `yes` or `no`.
    pub fn set(&mut self, section: &str, key: &str, flag: bool) {
        self.add(section, key, if flag { "yes" } else { "no" });
    }

    /// The values of a key.
    pub fn get(&self, section: &str, key: &str) -> &[String] {
        let found = self.0.iter().find(|one| one.section == section && one.key == key);
        found.map_or(&[], |one| one.values.as_slice())
    }

    /// All of them, sorted as they are written.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        let rank = |one: &Setting| {
            let section = SECTIONS.iter().position(|name| *name == one.section);
            let key =
                ALL.iter().position(|known| known.section == one.section && known.key == one.key);
            (section.unwrap_or(usize::MAX), key.unwrap_or(usize::MAX))
        };
        let mut all: Vec<&Setting> = self.0.iter().collect();
        all.sort_by_key(|one| rank(one));
        all.into_iter()
    }
}

/// What can't be given to systemd-nspawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsayable {
    /// The setting.
    pub key: String,
    /// Why not.
    pub why: &'static str,
}

impl fmt::Display for Unsayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_keeps_equal_words() {
        let mut settings = Settings::default();
        for word in ["--a", "x", "--b", "x"] {
            settings.add("Exec", "Parameters", word);
            settings.add("Files", "Bind", word);
        }
        assert_eq!(settings.get("Exec", "Parameters"), ["--a", "x", "--b", "x"]);
        assert_eq!(settings.get("Files", "Bind"), ["--a", "x", "--b"]);
    }
}
