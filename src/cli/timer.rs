//! `sandscript gc --install`: a timer of systemd for this user, else a line of its crontab.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::session::Session;
use super::{CommandError, Result};
use crate::workflow::exit;

/// What is installed, for one backend.
struct Timer {
    /// Of the units, and behind the line of the crontab.
    name: String,
    /// The program and its arguments.
    words: Vec<String>,
    /// Where units are.
    folder: Option<PathBuf>,
}

impl Timer {
    fn new(session: &Session<'_>) -> Result<Timer> {
        let settings = &session.settings;
        let program = std::env::current_exe().map_err(|error| {
            CommandError::internal(format!("this program's own file can't be found: {error}"))
        })?;
        let text = |path: &Path| match path.to_str() {
            Some(text) if !text.contains('\n') => Ok(text.to_owned()),
            _ => Err(CommandError::usage(format!("{} can't be in a timer", path.display()))
                .hint("move it to a folder whose name is plain text")),
        };
        let mut words = vec![text(&program)?];
        words.extend(["gc", "--yes", "--quiet", "--backend"].map(str::to_owned));
        words.push(settings.backend.clone());
        if let Some(host) = &settings.host {
            words.extend(["--host".to_owned(), host.clone()]);
        }
        let store = text(&settings.store)?;
        words.extend(["--store".to_owned(), store.clone()]);
        let place = format!("{}\0{store}", settings.host.as_deref().unwrap_or_default());
        let place = &blake3::hash(place.as_bytes()).to_hex()[..8];
        let name = format!("sandscript-gc-{}-{place}", settings.backend);
        let folder = session.config_folder().map(|folder| folder.join("systemd/user"));
        Ok(Timer { name, words, folder })
    }

    /// The unit files: each with its text.
    fn units(&self) -> Option<[(PathBuf, String); 2]> {
        let folder = self.folder.as_ref()?;
        let command: Vec<String> = self.words.iter().map(|word| for_systemd(word)).collect();
        let service = format!(
            "[Unit]\nDescription=sandscript gc\n\n[Service]\nType=oneshot\nExecStart={}\n",
            command.join(" ")
        );
        let timer = "[Unit]\nDescription=sandscript gc, every hour\n\n[Timer]\n\
            OnCalendar=hourly\nRandomizedDelaySec=5m\nPersistent=true\n\n\
            [Install]\nWantedBy=timers.target\n";
        Some([
            (folder.join(format!("{}.service", self.name)), service),
            (folder.join(format!("{}.timer", self.name)), timer.to_owned()),
        ])
    }

    fn line(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|word| for_cron(word)).collect();
        let minute = blake3::hash(self.name.as_bytes()).as_bytes()[0] % 60;
        format!("{minute} * * * * {} {}", words.join(" "), self.mark())
    }

    /// By which its line is found again.
    fn mark(&self) -> String {
        format!("# {}", self.name)
    }

    fn is_mine(&self, line: &str) -> bool {
        line.trim_end().ends_with(&self.mark())
    }
}

/// Installs it, and prints what was written where.
pub fn install(session: &Session<'_>) -> Result {
    let timer = Timer::new(session)?;
    let output = session.output;
    if let Some(units) = timer.units().filter(|_| systemd_runs()) {
        for (path, text) in &units {
            let written = path.parent().map_or(Ok(()), fs::create_dir_all);
            written.and_then(|()| fs::write(path, text)).map_err(|error| {
                CommandError::internal(format!("{} can't be written: {error}", path.display()))
            })?;
            output.data(&format!("# {}\n{text}\n", path.display()));
        }
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--now", &format!("{}.timer", timer.name)])?;
        output.note(
            "gc is done every hour while you are logged in; 'loginctl enable-linger' makes it always",
        );
        return Ok(exit::OK);
    }
    let Some(table) = crontab()? else {
        let words: Vec<String> = timer.words.iter().map(|word| quoted(word)).collect();
        let message =
            "no timer can be installed: there is neither systemd for this user nor crontab";
        let error = CommandError { word: "unsupported", ..CommandError::usage(message) };
        return Err(error.code(exit::UNSUPPORTED).hint(format!(
            "install the package cron, or have something else do this every hour:\n{}",
            words.join(" ")
        )));
    };
    let mut lines: Vec<&str> = table.lines().filter(|line| !timer.is_mine(line)).collect();
    let line = timer.line();
    lines.push(&line);
    write_crontab(&lines)?;
    output.data(&format!("# in your crontab\n{line}\n"));
    output.note("gc is done every hour, as long as cron runs");
    Ok(exit::OK)
}

/// Takes away what [`install`] wrote, wherever that is, and prints it.
pub fn uninstall(session: &Session<'_>) -> Result {
    let timer = Timer::new(session)?;
    let output = session.output;
    let mut gone = false;
    let units = timer.units().into_iter().flatten();
    let there: Vec<PathBuf> =
        units.map(|(path, _)| path).filter(|path| path.symlink_metadata().is_ok()).collect();
    if !there.is_empty() {
        let runs = systemd_runs();
        if runs {
            systemctl(&["disable", "--now", &format!("{}.timer", timer.name)])?;
        }
        for path in &there {
            fs::remove_file(path).map_err(|error| {
                CommandError::internal(format!("{} can't be deleted: {error}", path.display()))
            })?;
            output.data(&format!("{}\n", path.display()));
        }
        if runs {
            systemctl(&["daemon-reload"])?;
        }
        gone = true;
    }
    if let Some(table) = crontab()?
        && let Some(line) = table.lines().find(|line| timer.is_mine(line))
    {
        let left: Vec<&str> = table.lines().filter(|line| !timer.is_mine(line)).collect();
        write_crontab(&left)?;
        output.data(&format!("{line}\n"));
        gone = true;
    }
    output.note(if gone { "the timer is gone" } else { "no timer is installed" });
    Ok(exit::OK)
}

/// Whether this user has a systemd that can be asked.
fn systemd_runs() -> bool {
    let asked = Command::new("systemctl")
        .args(["--user", "show-environment"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

fn systemctl(args: &[&str]) -> Result<()> {
    let mut command = Command::new("systemctl");
    let done = command.arg("--user").args(args).stdin(Stdio::null()).output();
    check(&format!("systemctl --user {}", args.join(" ")), done).map(drop)
}

/// This user's crontab, empty where there is none yet; none where there is no such program.
fn crontab() -> Result<Option<String>> {
    let asked = Command::new("crontab").arg("-l").env("LC_ALL", "C").stdin(Stdio::null()).output();
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(done) if String::from_utf8_lossy(&done.stderr).contains("no crontab for") => {
            Ok(Some(String::new()))
        }
        done => check("crontab -l", done).map(Some),
    }
}

fn write_crontab(lines: &[&str]) -> Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut command = Command::new("crontab");
    command.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = command.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    });
    check("crontab -", done).map(drop)
}

fn check(what: &str, done: io::Result<Output>) -> Result<String> {
    let why = match done {
        Ok(done) if done.status.success() => {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Ok(done) => match String::from_utf8_lossy(&done.stderr).trim() {
            "" => done.status.to_string(),
            said => said.to_owned(),
        },
        Err(error) => error.to_string(),
    };
    let error = CommandError::internal(format!("'{what}' failed: {why}"));
    Err(CommandError { word: "failed", ..error }.code(exit::FAILED))
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// As one word of a line of a crontab, where a percent sign ends the command.
fn for_cron(word: &str) -> String {
    quoted(word).replace('%', r"\%")
}

/// As one word of `ExecStart`.
fn for_systemd(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    match quoted(&word) == word {
        true => word,
        false => format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_are() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted(""), "''");
        assert_eq!(for_cron("/a b/100%'s"), r"'/a b/100\%'\''s'");
        assert_eq!(for_systemd("/a b/100%$x\"\\"), r#""/a b/100%%$$x\"\\""#);
    }
}
