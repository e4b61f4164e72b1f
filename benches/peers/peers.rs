//! Other programs that start something isolated, or start at all.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One of them, ready to run.
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    count: usize,
}

impl Peer {
    fn new(name: &'static str, words: &[&str]) -> Option<Peer> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .map(|folder| folder.join(words[0]))
            .find(|program| program.is_file())?;
        let args = words[1..].iter().map(|word| (*word).to_owned()).collect();
        let mut peer = Peer { name, program, args, count: 0 };
        peer.run().then_some(peer)
    }

    /// Runs it to its end; whether it succeeded.
    pub fn run(&mut self) -> bool {
        self.count += 1;
        let id = format!("sandscript-bench-{}-{}", std::process::id(), self.count);
        let args = self.args.iter().map(|arg| arg.replace("{id}", &id));
        Command::new(&self.program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// How long one run takes.
    pub fn time(&mut self) -> Duration {
        super::timed(|| assert!(self.run(), "{} failed", self.name))
    }
}

/// The launch of bwrap as a measure for this machine at this moment: the goals were set on one where it
/// took 3.5 ms.
pub struct Yardstick {
    bwrap: Option<Peer>,
    times: Vec<Duration>,
}

impl Yardstick {
    /// Without bwrap there are only the figures.
    pub fn new() -> Yardstick {
        Yardstick { bwrap: bwrap(), times: Vec::new() }
    }

    /// Measures it once more, in turns with what it is to measure.
    pub fn turn(&mut self) {
        if let Some(bwrap) = &mut self.bwrap {
            self.times.push(bwrap.time());
        }
    }

    /// A figure in terms of it, and a goal that was set in milliseconds.
    pub fn compare(&self, time: Duration, goal: f64) -> (String, String) {
        let target = format!("≤ {goal} ms where bwrap takes 3.5: ≤ {:.2} × bwrap", goal / 3.5);
        match self.bwrap {
            Some(_) => {
                (super::table::ratio(time, super::median(self.times.clone()), "bwrap"), target)
            }
            None => (String::new(), target),
        }
    }
}

fn bwrap() -> Option<Peer> {
    Peer::new("bwrap --unshare-all", &BWRAP.split_whitespace().collect::<Vec<_>>())
}

const BWRAP: &str = "bwrap --unshare-all --ro-bind /usr /usr --symlink usr/bin /bin \
    --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc \
    --dev /dev --tmpfs /tmp true";

/// Those that work here; for the others, a note.
pub fn peers(folder: &Path, note: &mut impl FnMut(String)) -> Vec<Peer> {
    let bundle = runc_bundle(folder).unwrap_or_default().display().to_string();
    let candidates: [(&'static str, Vec<&str>); 4] = [
        ("bwrap --unshare-all", BWRAP.split_whitespace().collect()),
        ("runc run", vec!["runc", "run", "--bundle", &bundle, "{id}"]),
        ("unshare -mpnuif", "unshare -mpnuif --mount-proc true".split(' ').collect()),
        ("python3 -c pass", vec!["python3", "-c", "pass"]),
    ];
    let mut all = Vec::new();
    for (name, words) in candidates {
        match Peer::new(name, &words) {
            Some(peer) => all.push(peer),
            None => note(format!("`{name}` is missing or does not work here")),
        }
    }
    all
}

/// A bundle that runs `true` with this machine's `/usr`.
fn runc_bundle(folder: &Path) -> Option<PathBuf> {
    let bundle = folder.join("runc");
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(root.join("usr")).ok()?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).ok()?;
    }
    let made = Command::new("runc").arg("spec").current_dir(&bundle).status().ok()?;
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
    config["process"]["args"] = serde_json::json!(["true"]);
    config["process"]["terminal"] = false.into();
    config["mounts"].as_array_mut()?.push(serde_json::json!({
        "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"],
    }));
    std::fs::write(file, config.to_string()).ok()?;
    made.success().then_some(bundle)
}
