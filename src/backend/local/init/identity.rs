//! Making a machine with an init of its own the one that it is, from inside.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::exec::PATH;
use crate::backend::local::protocol::Identity;

/// How long what a machine starts with may take to be done with its files.
const PATIENCE: Duration = Duration::from_secs(15);
/// Which machine the SSH host keys beside it are of: those of another are made anew.
const STAMP: &str = "/etc/ssh/.machine";
/// What stands around our lines in a file of others'.
const BEGIN: &str = "# begin sandscript\n";
const END: &str = "# end sandscript\n";

type Failed = (&'static str, io::Error);

/// Does it, in a process of its own that has what root has there.
pub fn identify(identity: &Identity) -> Result<(), Failed> {
    emptied();
    let hostname = identity.hostname.as_str();
    if read("/proc/sys/kernel/hostname").trim_end() != hostname {
        let _ = rustix::system::sethostname(hostname.as_bytes());
    }
    let old = read("/etc/hostname");
    let old = old.trim_end();
    if old != hostname {
        write("/etc/hostname", &format!("{hostname}\n"))?;
        let hosts = read("/etc/hosts");
        let renamed = rename(&hosts, old, hostname);
        if renamed != hosts {
            let _ = write("/etc/hosts", &renamed);
        }
    }
    renew_keys(read("/etc/machine-id").trim_end());
    if let Some(server) = &identity.server
        && !names_a_server(&read("/etc/resolv.conf"))
    {
        let _ = fs::remove_file("/etc/resolv.conf");
        write("/etc/resolv.conf", &format!("nameserver {server}\n"))?;
    }
    let all = read("/etc/environment");
    let new = with_variables(&all, &identity.env);
    if new != all {
        write("/etc/environment", &new)?;
    }
    Ok(())
}

/// A file of the guest's choosing: only a regular one, and no more than a megabyte of it.
fn read(path: &str) -> String {
    let mut text = Vec::new();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        let _ = file.take(1 << 20).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn write(path: &'static str, text: &str) -> Result<(), Failed> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| (path, error))
}

fn program(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    let path = format!("/run/current-system/sw/bin:{PATH}");
    command.args(args).env_clear().env("PATH", path).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What a program says; nothing where it can't be run.
fn said(name: &str, args: &[&str]) -> String {
    let output = program(name, args).stdout(Stdio::piped()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Waits until systemd has emptied `/tmp`, as it does at each start: what is put there before is lost.
fn emptied() {
    const SERVICE: &str = "systemd-tmpfiles-setup.service";
    let booted = Path::new("/run/systemd/system").is_dir();
    let there = ["/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system"]
        .iter()
        .any(|folder| Path::new(folder).join(SERVICE).exists());
    if !booted || !there {
        return;
    }
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(4);
    while Instant::now() < until {
        let shown = said(
            "systemctl",
            &["show", "-p", "ActiveState", "-p", "UnitFileState", "-p", "Job", SERVICE],
        );
        let has = |start: &str| shown.lines().any(|line| line.starts_with(start));
        if has("ActiveState=active") || has("ActiveState=failed") || has("UnitFileState=masked") {
            return;
        }
        // It is about to begin, unless it is not wanted.
        let idle = has("ActiveState=inactive")
            && !shown.lines().any(|line| {
                line.strip_prefix("Job=")
                    .is_some_and(|job| job.starts_with(|c: char| c.is_ascii_digit()))
            });
        let up = Path::new("/run/systemd/units/invocation:systemd-journald.service");
        if idle
            && up.symlink_metadata().is_ok()
            && said("systemctl", &["is-active", "sysinit.target"]).starts_with("active")
        {
            return;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// A text where one name, as a whole word, is another.
fn rename(text: &str, old: &str, new: &str) -> String {
    if old.is_empty() {
        return text.to_owned();
    }
    let part = |c: char| c.is_alphanumeric() || "_.-".contains(c);
    let (mut renamed, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(old) {
        let (before, after) = (&rest[..at], &rest[at + old.len()..]);
        let begins = !before.chars().next_back().or(renamed.chars().next_back()).is_some_and(part);
        let ends = !after.chars().next().is_some_and(part);
        renamed.push_str(before);
        renamed.push_str(if begins && ends { new } else { old });
        rest = after;
    }
    renamed + rest
}

/// Makes SSH host keys that were another machine's anew.
fn renew_keys(machine: &str) {
    let entries = fs::read_dir("/etc/ssh").into_iter().flatten().flatten();
    let keys: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kind = name.strip_prefix("ssh_host_")?.strip_suffix("_key")?.to_owned();
            kind.chars().all(|c| c.is_ascii_alphanumeric()).then_some((kind, entry.path()))
        })
        .collect();
    if keys.is_empty() || read(STAMP) == machine {
        return;
    }
    for (kind, path) in keys {
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(path.with_extension("pub"));
        let place = path.to_string_lossy();
        let _ = program("ssh-keygen", &["-q", "-t", &kind, "-N", "", "-f", &place]).status();
    }
    let _ = write(STAMP, machine);
    let _ = program("systemctl", &["try-restart", "ssh.service", "sshd.service"]).status();
}

/// Whether there is somebody to ask for names. Of a resolver of the guest's own nobody knows whom it asks; any other
/// server will do.
fn names_a_server(resolv: &str) -> bool {
    let servers = resolv.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver").and(words.next())
    });
    servers.into_iter().any(|server| !server.starts_with("127.") && server != "::1")
}

/// A file of variables with those of ours: logins have the environment that commands have.
fn with_variables(all: &str, env: &BTreeMap<String, String>) -> String {
    let mut rest = all.to_owned();
    if let Some(at) = rest.find(BEGIN)
        && let Some(length) = rest[at..].find(END)
    {
        rest.replace_range(at..at + length + END.len(), "");
    }
    // That file has no way to write the others.
    let fine = env.iter().filter(|(_, value)| !value.contains(['"', '\n', '\\']));
    let own: String = fine.map(|(name, value)| format!("{name}=\"{value}\"\n")).collect();
    if own.is_empty() {
        return rest;
    }
    if !rest.is_empty() && !rest.ends_with('\n') {
        rest.push('\n');
    }
    format!("{rest}{BEGIN}{own}{END}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_renamed() {
        let hosts = "127.0.1.1 old old.lan\n10.0.0.1 older my-old old\n";
        assert_eq!(
            rename(hosts, "old", "new"),
            "127.0.1.1 new old.lan\n10.0.0.1 older my-old new\n"
        );
        assert_eq!(rename("oldold old", "old", "a"), "oldold a");
        assert_eq!(rename(hosts, "", "new"), hosts);
    }

    #[test]
    fn variables_are_between_marks_and_leave_the_rest() {
        let env = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let one = with_variables("A=1", &env(&[("B", "x y"), ("C", "a\nb")]));
        assert_eq!(one, "A=1\n# begin sandscript\nB=\"x y\"\n# end sandscript\n");
        let two = with_variables(&format!("{one}D=4\n"), &env(&[("E", "5")]));
        assert_eq!(two, "A=1\nD=4\n# begin sandscript\nE=\"5\"\n# end sandscript\n");
        assert_eq!(with_variables(&two, &env(&[])), "A=1\nD=4\n");
    }

    #[test]
    fn a_resolver_of_the_guests_own_is_nobody_to_ask() {
        assert!(!names_a_server("# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver ::1\n"));
        assert!(names_a_server("search a\n nameserver 10.0.0.1\n"));
    }
}
