//! A real terminal to run the program in (tmux).

use std::process::Command;
use std::time::{Duration, Instant};

use crate::environment::{TestEnvironment, skip};

/// A terminal of 80 × 24 with a server of its own.
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs a command line in it, in the project folder.
    pub fn open(environment: &TestEnvironment, command: &str) -> Terminal {
        Terminal::open_at(environment, "tmux", command)
    }

    /// The same with a server of this name, for more than one terminal.
    pub fn open_at(environment: &TestEnvironment, name: &str, command: &str) -> Terminal {
        let socket = environment.path(name).display().to_string();
        let terminal = Terminal { socket };
        let folder = environment.path("project").display().to_string();
        let started = terminal
            .tmux()
            .args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c"])
            .args([folder.as_str(), command])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", environment.path("home"))
            .status()
            .unwrap();
        assert!(started.success());
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-u", "-S", &self.socket]);
        command
    }

    /// What is on it.
    pub fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until this is on it, and returns all of it.
    #[track_caller]
    pub fn wait_for(&self, what: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(what) {
                return screen;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no '{what}' on:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.text(text);
        self.keys("Enter");
    }

    /// Types without ending the line.
    pub fn text(&self, text: &str) {
        // tmux takes a semicolon at the end for its own.
        let text = match text.strip_suffix(';') {
            Some(before) => format!("{before}\\;"),
            None => text.to_owned(),
        };
        assert!(self.tmux().args(["send-keys", "-l", "--", &text]).status().unwrap().success());
    }

    /// Makes the window this large.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (x, y) = (columns.to_string(), rows.to_string());
        let resized = self.tmux().args(["resize-window", "-x", &x, "-y", &y]).status().unwrap();
        assert!(resized.success());
    }

    /// Tries again until it holds.
    #[track_caller]
    pub fn wait_until(&self, holds: impl Fn(&Terminal) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "it never held:\n{}", self.screen());
        }
    }

    /// Presses keys, as tmux names them.
    pub fn keys(&self, keys: &str) {
        assert!(self.tmux().args(["send-keys", keys]).status().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").status();
    }
}

/// Says what is left out where tmux is missing.
pub fn tmux_is_there() -> bool {
    let there = Command::new("tmux").arg("-V").output().is_ok();
    if !there {
        skip("tmux is not installed: what is shown in a terminal");
    }
    there
}
