//! The progress display, in a real terminal (tmux).

use std::process::Command;
use std::time::{Duration, Instant};

use crate::environment::{TestEnvironment, program};

/// A terminal of 80 × 24 with a server of its own.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn open(environment: &TestEnvironment, command: &str) -> Terminal {
        let socket = environment.path("tmux").display().to_string();
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

    fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, what: &str) -> String {
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

    fn keys(&self, keys: &str) {
        assert!(self.tmux().args(["send-keys", keys]).status().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").status();
    }
}

fn tmux_is_there() -> bool {
    let there = Command::new("tmux").arg("-V").output().is_ok();
    if !there {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skip: tmux is not installed: the progress display");
    }
    there
}

fn run(environment: &TestEnvironment, script: &str) -> Terminal {
    environment.write("x.rhai", script);
    let line = format!(
        "SANDSCRIPT_BACKEND=fake {} run x.rhai; echo \"exit code $?\"; sleep 60",
        program().display()
    );
    Terminal::open(environment, &line)
}

#[test]
fn cells_are_shown_while_they_run() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    let terminal = run(
        &environment,
        "matrix(\"m\", #{ axes: #{ a: [1, 2, 3] }, parallel: 1 }, |cell| {
            sleep(if cell.a == 2 { \"1s\" } else { \"10ms\" });
        });",
    );
    let screen = terminal.wait_for("1/3");
    assert!(screen.contains("a=2"), "{screen}");
    let screen = terminal.wait_for("exit code 0");
    assert!(screen.contains("3 passed"), "{screen}");
    // Nothing of the moving part is left behind.
    assert!(!screen.contains("1/3") && !screen.contains("2/3"), "{screen}");
}

#[test]
fn ctrl_c_leaves_a_clean_screen() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    let terminal = run(
        &environment,
        "matrix(\"m\", #{ axes: #{ a: [1, 2] }, parallel: 1 }, |cell| { sleep(\"60s\"); });",
    );
    terminal.wait_for("0/2");
    terminal.keys("C-c");
    let screen = terminal.wait_for("exit code 130");
    assert!(screen.contains("stopping and cleaning up"), "{screen}");
    assert!(!screen.contains("0/2"), "{screen}");
}
