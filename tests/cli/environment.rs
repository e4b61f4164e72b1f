//! A home, a project and a store of its own for each test.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Where a test runs the program.
pub struct TestEnvironment {
    temp: tempfile::TempDir,
    env: Vec<(String, String)>,
    backend: &'static str,
}

/// How a call of the program ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => writeln!(f, "exit code {code}")?,
            None => writeln!(f, "killed by a signal")?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "-- {name}\n{text}")?;
            }
        }
        Ok(())
    }
}

/// The program under test. `SANDSCRIPT_TEST_BIN` names another one.
pub fn program() -> PathBuf {
    std::env::var_os("SANDSCRIPT_TEST_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_sandscript").into(), PathBuf::from)
}

/// Says what is left out, past the capture of test output. Where nothing may be missing, fails.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and {why}");
    let _ = writeln!(std::io::stderr(), "skip: {why}");
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl TestEnvironment {
    /// On the in-memory backend: every call starts from nothing.
    pub fn fake() -> TestEnvironment {
        TestEnvironment::on("fake")
    }

    /// On this machine's own backend, with a store that goes with the environment. `None`, and a
    /// line that says so, where that backend can't work at all.
    pub fn local() -> Option<TestEnvironment> {
        // It tries what there is, so once is enough.
        static DOCTOR: OnceLock<Run> = OnceLock::new();
        let environment = TestEnvironment::on("local");
        let doctor = DOCTOR.get_or_init(|| environment.run(["doctor"]));
        if doctor.code == Some(0) {
            return Some(environment);
        }
        let why = doctor.stderr.lines().next().unwrap_or("see sandscript doctor").to_owned();
        skip(&format!("backend local: {why}"));
        None
    }

    /// Whether the backend has this capability.
    pub fn has(&self, capability: &str) -> bool {
        let answer: serde_json::Value =
            serde_json::from_str(&self.ok(["doctor", "--format", "json"])).unwrap();
        answer["has"].as_array().unwrap().iter().any(|one| one == capability)
    }

    fn on(backend: &'static str) -> TestEnvironment {
        let temp = tempfile::Builder::new().prefix("sandscript-cli-").tempdir().unwrap();
        for folder in ["home", "project", "config"] {
            std::fs::create_dir(temp.path().join(folder)).unwrap();
        }
        TestEnvironment { temp, env: Vec::new(), backend }
    }

    /// With one more variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The environment's folder: `home`, `project`, `config`, `store`.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.temp.path().join(relative)
    }

    /// Writes a file of the project.
    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path("project").join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.put(&path, text);
    }

    /// Puts a file in place in one step, so that nobody ever sees half of it.
    pub fn put(&self, path: &Path, text: &str) {
        let half = self.path("half-written");
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, path).unwrap();
    }

    /// The program, ready to be spawned in the project folder.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(self.path("project"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("SANDSCRIPT_STORE", self.path("store"))
            .env("SANDSCRIPT_BACKEND", self.backend)
            .env("TERM", "dumb")
            // What may go stays until a test asks for it.
            .env("SANDSCRIPT_GC_EVERY", "never")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program with nothing on its standard input.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.finish(self.command(args).spawn().unwrap())
    }

    /// Runs it with these bytes on its standard input.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Run {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let run = self.finish(child);
        writer.join().unwrap();
        run
    }

    /// Runs it, and fails the test when it does not succeed. Returns its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{run}");
        run.stdout
    }

    /// The output of a child, with the environment's folder shown as `$T`.
    pub fn finish(&self, child: Child) -> Run {
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(self.temp.path().to_str().unwrap(), "$T")
        };
        Run {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        if self.backend != "local" || !self.path("store").exists() {
            return;
        }
        // What still runs would hold the store.
        if let Ok(output) = self.command(["list", "--format", "json"]).output()
            && let Ok(serde_json::Value::Array(all)) = serde_json::from_slice(&output.stdout)
        {
            for one in all {
                let name = one["name"].as_str().unwrap_or_default().to_owned();
                let _ = self.command(["delete", "--yes", &name]).output();
            }
        }
    }
}
