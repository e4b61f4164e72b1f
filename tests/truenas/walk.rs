//! The way that docs/truenas.md shows, from an API key to a matrix: its commands, word by word.

use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use nas_sim::Release;
use tokio::io::AsyncWriteExt;

use crate::forks::on_the_nas;
use crate::rig::{Small, big, names};

pub fn trials() -> Vec<Trial> {
    let releases = [Release::V25_10, Release::V26Rc];
    big("walk", &releases, |nas, release| Box::pin(walk(nas, release)))
}

const MANUAL: &str = include_str!("../../docs/truenas.md");
/// Who walks: no more than what the manual says is allowed to that one.
pub const USER: &str = "ann";

/// The roles that the manual names in its table.
pub fn roles() -> Vec<&'static str> {
    let rows = MANUAL.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let role = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    words.filter(role).collect()
}

/// Its blocks of code.
fn blocks() -> Vec<String> {
    let mut all = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in MANUAL.lines() {
        match (line.trim_start().starts_with("```"), &mut open) {
            (true, Some(lines)) => {
                all.push(lines.join("\n") + "\n");
                open = None;
            }
            (true, None) => open = Some(Vec::new()),
            (false, Some(lines)) => lines.push(line.strip_prefix("   ").unwrap_or(line)),
            (false, None) => {}
        }
    }
    all
}

/// The block with these words.
fn block(words: &str) -> String {
    blocks().into_iter().find(|block| block.contains(words)).unwrap()
}

struct Walker<'a> {
    nas: &'a Small,
    home: &'a Path,
}

impl Walker<'_> {
    /// Types a line; what it prints.
    async fn types(&self, text: &str, input: &str) -> String {
        self.nas.sim.control("forgive").await.unwrap();
        let address = self.nas.sim.address.to_string();
        let text = text.replace("nas.lan:443", &address).replace("nas.lan", &address);
        let mut path = self.home.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-ec", &text]).env_clear().env("HOME", self.home).env("PATH", path);
        // What is left running would outlive the test.
        shell.env("SANDSCRIPT_NO_SESSION", "1").env("SANDSCRIPT_STORE", self.home.join("store"));
        shell.current_dir(self.home).kill_on_drop(true);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = shell.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

async fn walk(nas: &Small, release: Release) {
    // On 26 clones need a full administrator, as the manual says.
    let user = if release.is_26() { "root" } else { USER };
    let by = if release.is_26() { "zfs" } else { "incus" };
    let home = nas.folder.path().join("walk");
    std::fs::create_dir_all(home.join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sandscript"), home.join("bin/sandscript"))
        .unwrap();
    let scripts = format!("{}/scripts", env!("CARGO_MANIFEST_DIR"));
    let copied =
        std::process::Command::new("cp").args(["-r", &scripts]).arg(&home).status().unwrap();
    assert!(copied.success());
    let walker = Walker { nas, home: &home };
    let root = nas.backend().await;
    let account = format!(
        "id -u {USER} >/dev/null 2>&1 || useradd -m -s /bin/bash {USER}; echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{USER}"
    );
    on_the_nas(&root, &account).await;
    // The key, its file, the certificate, the settings.
    let cancel = sandscript::sandbox::Cancel::new();
    let wanted = serde_json::json!({"name": "walk", "username": user});
    let client: &dyn sandscript::sandbox::Backend = &*root;
    let made = client.call("api_key.create", vec![wanted], true, &cancel).await.unwrap();
    let key = made["key"].as_str().unwrap();
    walker.types(&block("install -m 600"), &format!("{key}\n")).await;
    let said = walker.types(&block("openssl s_client"), "").await;
    let (_, fingerprint) = said.trim().split_once('=').unwrap();
    let settings = block("backend = \"truenas\"")
        .replace("nas.lan", &nas.sim.address.to_string())
        .replace("AB:CD:…", fingerprint)
        .replace("user = \"root\"", &format!("user = \"{user}\""));
    let file = home.join(".config/sandscript/config.toml");
    std::fs::write(&file, &settings).unwrap();
    let doctor = walker.types("sandscript doctor", "").await;
    for what in [
        "key",
        "list, show",
        "create, start, stop",
        "delete",
        "commands, files",
        "pool",
        "network",
        "snapshots",
        "SSH",
    ] {
        let is = |line: &&str| line.strip_prefix(what).is_some_and(|rest| rest.starts_with("  "));
        let line = doctor.lines().find(is).unwrap_or_else(|| panic!("{what}: {doctor}"));
        assert!(line[what.len()..].trim_start().starts_with("yes"), "{line}");
    }
    assert!(
        MANUAL.contains("`sandscript doctor`")
            && MANUAL.contains("`sandscript run scripts/test_matrix.rhai`")
    );
    let said = walker.types("sandscript run scripts/test_matrix.rhai 2>&1", "").await;
    assert!(said.contains("12 passed"), "{said}");
    // What the page begins with.
    let first = block("export TRUENAS_API_KEY").replace("3-…", key);
    let said = walker.types(&first, "").await;
    assert!(said.contains("Linux"), "{said}");
    assert!(said.contains("hello from a program that was compiled in a clone"), "{said}");
    let said =
        walker.types("sandscript snapshot list web --verbose 2>&1; sandscript show web", "").await;
    let way = format!("{by} in the NAS's shell");
    assert!(said.contains(&format!("snapshot goes by {way}, as its root\n")), "{said}");
    assert!(said.contains(&format!("snapshots by  {way}")), "{said}");
    // All settings that there are.
    std::fs::write(&file, settings + block("autostart = true").as_str()).unwrap();
    assert!(walker.types("sandscript list", "").await.contains("web"));
    for name in names(&root).await {
        client.delete(&name, &cancel).await.unwrap();
    }
}
