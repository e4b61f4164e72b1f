//! Where the program is called: on a host that systemd has booted, or on this one.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::booted::{self, Disk};
use crate::systemd::Host;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sandscript");
/// The same on a booted host.
const THERE: &str = "/usr/local/bin/suite";

/// A host, as long as it is held.
pub struct Place {
    pub host: RefCell<Option<Host>>,
    /// What keeps its network, where systemd is not the first process.
    holder: Option<Child>,
    disk: Disk,
    folder: TempDir,
    /// What each call has besides.
    store: RefCell<Vec<String>>,
}

/// What a call came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

fn ready() -> bool {
    match booted::lacks() {
        None => true,
        Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            assert!(!rustix::process::geteuid().is_root(), "{why}");
            println!("skipped: {why}");
            false
        }
        Some(why) => {
            println!("skipped: {why}");
            false
        }
    }
}

fn scratch() -> (TempDir, Disk) {
    let folder = tempfile::Builder::new().prefix("ss-").tempdir().unwrap();
    booted::image().unwrap();
    let disk = Disk::mount(folder.path()).unwrap();
    (folder, disk)
}

impl Place {
    /// A host that systemd has booted; none where that can't be.
    pub fn booted() -> Option<Place> {
        if !ready() {
            return None;
        }
        let (folder, disk) = scratch();
        let host = Host::apart(folder.path(), disk.path(), Path::new(PROGRAM)).unwrap();
        let host = RefCell::new(Some(host));
        Some(Place { host, holder: None, disk, folder, store: RefCell::default() })
    }

    /// This one, with a network of its own; none where that can't be.
    pub fn alone() -> Option<Place> {
        if !ready() {
            return None;
        }
        let (folder, disk) = scratch();
        // With what the kernel says of that network, and the cgroups of before.
        const HOLD: &str = "mount --rbind /sys/fs/cgroup \"$1\" && mount -t sysfs sysfs /sys && \
            mount --rbind \"$1\" /sys/fs/cgroup && exec sleep infinity";
        let groups = folder.path().join("groups");
        std::fs::create_dir(&groups).unwrap();
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--mount", "sh", "-c", HOLD, "sh"]).arg(groups);
        let holder = Some(holder.spawn().unwrap());
        let store = vec!["--store".to_owned(), disk.path().display().to_string()];
        let store = RefCell::new(store);
        let place = Place { host: RefCell::default(), holder, disk, folder, store };
        place.until("it has a network of its own", || {
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            let pid = place.holder.as_ref().map(Child::id).unwrap();
            let net = std::fs::read_link(format!("/proc/{pid}/ns/net"));
            net.is_ok_and(|net| net != own)
                && std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep")
        });
        Some(place)
    }

    /// Switches it off, as by its plug; `between` is done with what it has written before it boots again.
    pub fn reboot(&self, between: impl FnOnce(&Path)) {
        drop(self.host.borrow_mut().take());
        between(&self.disk.path().join("host/upper"));
        let host = Host::apart(self.folder.path(), self.disk.path(), Path::new(PROGRAM)).unwrap();
        self.host.replace(Some(host));
    }

    /// Has calls use another store from now on.
    pub fn use_store(&self, folder: &str) {
        self.store.replace(vec!["--store".into(), folder.into()]);
    }

    /// Where the store is, as this process sees it.
    pub fn store(&self) -> PathBuf {
        self.disk.path().join("nspawn")
    }

    /// A machine's own file, as the host sees it.
    pub fn own_file(&self, name: &str) -> String {
        let store = match self.holder {
            Some(_) => self.store().display().to_string(),
            None => "/var/lib/sandscript/nspawn".to_owned(),
        };
        format!("{store}/machines/{name}/file/machine.toml")
    }

    /// The archive that machines are made from, as the host sees it.
    pub fn image(&self) -> String {
        let image = booted::image().unwrap();
        match self.holder {
            Some(_) => image.display().to_string(),
            None => format!("/opt/{}", image.file_name().unwrap().to_string_lossy()),
        }
    }

    /// A new folder of the host's, on its disk; as the host sees it.
    pub fn folder(&self, name: &str) -> String {
        let path = self.disk.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        match self.holder {
            Some(_) => path.display().to_string(),
            None => format!("/var/lib/sandscript/{name}"),
        }
    }

    /// Writes a file that calls can name.
    pub fn write(&self, name: &str, text: &str) {
        let path = match self.holder {
            Some(_) => self.folder.path().join(name),
            None => self.folder.path().join("host").join(name),
        };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, argv: &[&str]) -> Command {
        if let Some(holder) = &self.holder {
            let mut command = Command::new("nsenter");
            let pid = holder.id().to_string();
            command.args(["-t", &pid, "-n", "-m", "env", "--chdir"]).arg(self.folder.path());
            command.args(argv).stdin(Stdio::null());
            return command;
        }
        let host = self.host.borrow();
        let mut all = vec!["env", "--chdir=/srv"];
        all.extend(argv);
        host.as_ref().unwrap().command(&all)
    }

    /// Calls the program.
    pub fn call(&self, args: &[&str]) -> Said {
        let program = if self.holder.is_some() { PROGRAM } else { THERE };
        let store = self.store.borrow();
        let mut argv = vec![program, "--backend", "nspawn"];
        argv.extend(store.iter().map(String::as_str));
        argv.extend(args);
        let output = self.command(&argv).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The same where nothing may go wrong; what it prints.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.call(args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said.stdout
    }

    /// What a line prints in a machine.
    pub fn exec(&self, name: &str, line: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-c", line])
    }

    /// What a line prints on the host.
    pub fn shell(&self, line: &str) -> String {
        let output = self.command(&["sh", "-c", line]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether a line succeeds on the host.
    pub fn holds(&self, line: &str) -> bool {
        self.command(&["sh", "-c", line]).output().unwrap().status.success()
    }

    /// Waits for something.
    pub fn until(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..600 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("within 30 s this did not come: {what}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            let listed = Command::new(PROGRAM)
                .args(["--backend", "nspawn", "--store"])
                .arg(self.disk.path())
                .args(["list", "--format", "json"])
                .output();
            let names: Vec<String> = listed
                .ok()
                .and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok())
                .and_then(|all| {
                    Some(
                        all.as_array()?
                            .iter()
                            .filter_map(|one| Some(one["name"].as_str()?.to_owned()))
                            .collect(),
                    )
                })
                .unwrap_or_default();
            for name in names {
                let _ = Command::new(PROGRAM)
                    .args(["--backend", "nspawn", "--store"])
                    .arg(self.disk.path())
                    .args(["delete", &name, "--yes"])
                    .output();
            }
            let _ = holder.kill();
            let _ = holder.wait();
        }
        self.host.borrow_mut().take();
    }
}
