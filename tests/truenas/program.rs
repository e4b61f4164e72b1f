//! The program itself against a NAS.

use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use nas_sim::{Options, Release};

use crate::rig::{Small, big, each, small};

const TWO: &[Release] = &[Release::V25_10, Release::V26Rc];
const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        each("doctor", TWO, |release| Box::pin(doctor(release))),
        each("doctor_lacks_rights", TWO, |release| Box::pin(lacks(release))),
        each("doctor_does_not_come_in", ONE, |release| Box::pin(outside(release))),
        big("scripts", &crate::cuts::all(&[Release::V26Rc]), |nas, _| Box::pin(scripts(nas))),
        big("repl", TWO, |nas, _| Box::pin(repl(nas))),
        each("doctor_as_json", ONE, |release| Box::pin(as_json(release))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a call of the program said.
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: i32,
}

impl Said {
    /// All of it.
    fn all(&self) -> String {
        format!("{}{}code: {}\n", self.out, self.err, self.code)
    }
}

/// The program with a home of its own; `NAME=` unsets a variable.
pub fn program(nas: &Small, change: &[(&str, &str)], args: &[&str]) -> tokio::process::Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_sandscript")), nas, change, args)
}

/// The same where the program is elsewhere.
pub fn program_at(
    program: &Path,
    nas: &Small,
    change: &[(&str, &str)],
    args: &[&str],
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    let home = nas.folder.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    command
        .args(args)
        .env_clear()
        .env("HOME", &home)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("SANDSCRIPT_BACKEND", "truenas")
        .env("SANDSCRIPT_HOST", nas.sim.address.to_string())
        .env("SANDSCRIPT_STORE", home.join("store"))
        .env("SANDSCRIPT_NO_SESSION", "1")
        .env("TRUENAS_API_KEY", &nas.sim.keys[0])
        .env("TRUENAS_FINGERPRINT", &nas.sim.fingerprint)
        .current_dir(&home)
        .stdin(Stdio::null());
    for (name, value) in change {
        match value.is_empty() {
            true => command.env_remove(name),
            false => command.env(name, value),
        };
    }
    command
}

/// Calls it to its end.
pub async fn call(nas: &Small, change: &[(&str, &str)], args: &[&str]) -> Said {
    let output = program(nas, change, args).output().await.unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        let shown = nas.sim.fingerprint.replace(':', "").to_lowercase();
        text.replace(&nas.sim.address.to_string(), "NAS").replace(&shown, "SHOWN")
    };
    Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap() }
}

/// A server of terminals, which goes whatever happens.
struct Server(std::path::PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("tmux");
        let _ = command.arg("-S").arg(&self.0).arg("kill-server").stderr(Stdio::null()).status();
    }
}

/// Line by line in a terminal, and as verbs: what one makes the other sees.
async fn repl(nas: &Small) {
    if tokio::process::Command::new("tmux").arg("-V").output().await.is_err() {
        println!("skip: tmux is not there");
        return;
    }
    let home = nas.folder.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let line = format!(
        "trap : INT; HOME={home} SANDSCRIPT_STORE={home}/store SANDSCRIPT_NO_SESSION=1 TRUENAS_API_KEY={key} TRUENAS_FINGERPRINT={print} \
         {program} repl --backend truenas --host {at}; echo left $?; exec cat",
        home = home.display(),
        key = nas.sim.keys[0],
        print = nas.sim.fingerprint,
        program = env!("CARGO_BIN_EXE_sandscript"),
        at = nas.sim.address,
    );
    let socket = nas.folder.path().join("tmux");
    let _server = Server(socket.clone());
    let tmux = async |args: &[&str]| {
        let mut command = tokio::process::Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(&socket).args(args).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", &home);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shows = async |what: &str| {
        let begin = std::time::Instant::now();
        loop {
            let screen = tmux(&["capture-pane", "-p", "-J"]).await;
            if screen.contains(what) {
                return;
            }
            let waited = begin.elapsed() < std::time::Duration::from_secs(60);
            assert!(waited, "no '{what}' on:\n{screen}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let types = async |text: &str| {
        tmux(&["send-keys", "-l", "--", text]).await;
        tmux(&["send-keys", "Enter"]).await;
    };
    tmux(&["new-session", "-d", "-x", "100", "-y", "40", &line]).await;
    shows("rhai>").await;
    types("let box = sandbox(\"typed\")").await;
    types("box.run(\"echo said-$((40 + 2))\").stdout").await;
    shows("said-42").await;
    types("host().call(\"system.version_short\")").await;
    shows(&nas.sim.describe()["release"].as_str().unwrap()[..2]).await;
    types("host().call(\"cronjob.create\", [#{ user: \"root\", command: \"true\" }])").await;
    shows("--allow-call").await;
    let listed = call(nas, &[], &["list", "--format", "json"]).await;
    assert!(listed.out.contains("\"name\": \"typed\""), "{}", listed.all());
    let ran =
        call(nas, &[], &["exec", "typed", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])
            .await;
    assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.code), ("out\n", "err\n", 7));
    let gc = call(nas, &[], &["gc", "--yes"]).await;
    assert_eq!(gc.code, 0, "{}", gc.all());
    types("box.delete()").await;
    types("print(\"gone\" + sandboxes().len())").await;
    shows("gone0").await;
    types(":quit").await;
    shows("left 0").await;
    let listed = call(nas, &[], &["list", "--format", "json"]).await;
    assert_eq!(listed.out, "[]\n");
}

/// The workflows that people start from, as they are.
async fn scripts(nas: &Small) {
    let home = nas.folder.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let all = format!("{}/scripts", env!("CARGO_MANIFEST_DIR"));
    let copied = std::process::Command::new("cp").args(["-r", &all]).arg(&home).status().unwrap();
    assert!(copied.success());
    let said = call(nas, &[], &["run", "scripts/build_base.lua"]).await;
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(
        said.out.contains("hello from a program that was compiled in a clone"),
        "{}",
        said.all()
    );
    assert!(said.out.contains("0 of 3 steps were cached"), "{}", said.all());
    let said = call(nas, &[], &["run", "scripts/test_matrix.lua"]).await;
    assert_eq!(said.code, 0, "{}", said.all());
    let gone = call(nas, &[], &["gc", "--yes"]).await;
    assert_eq!(gone.code, 0, "{}", gone.all());
    let backend = nas.backend().await;
    for name in crate::rig::names(&backend).await {
        sandscript::sandbox::Backend::delete(&*backend, &name, &Default::default()).await.unwrap();
    }
}

/// What was found out, without what was tried.
fn checks(said: &Said) -> String {
    let chapters: Vec<&str> = said.out.split("\n\n").collect();
    let at = chapters.iter().position(|chapter| chapter.starts_with("reachable"));
    format!("{}\n", chapters[at.unwrap()].trim_end())
}

fn name(what: &str, release: Release) -> String {
    format!("{what}-{}", release.name())
}

async fn doctor(release: Release) {
    let nas = small(release, |_| {}).await;
    let said = call(&nas, &[], &["doctor"]).await;
    insta::assert_snapshot!(name("doctor", release), checks(&said));
}

async fn lacks(release: Release) {
    let nas = small(release, |o: &mut Options| {
        o.ready = false;
        o.add_user(
            "ann",
            &["VIRT_INSTANCE_READ", "CONTAINER_READ", "VIRT_GLOBAL_READ", "LXC_CONFIG_READ"],
        );
    })
    .await;
    let ann = [("TRUENAS_API_KEY", nas.sim.keys[1].as_str()), ("TRUENAS_USER", "ann")];
    let said = call(&nas, &ann, &["doctor"]).await;
    insta::assert_snapshot!(name("doctor_lacks_rights", release), checks(&said));
}

async fn outside(release: Release) {
    let nas = small(release, |_| {}).await;
    let wrong = format!("1-{}", "x".repeat(64));
    let other = "ab".repeat(32);
    let mut all = String::new();
    for (what, change) in [
        ("no key", [("TRUENAS_API_KEY", "")]),
        ("another key", [("TRUENAS_API_KEY", wrong.as_str())]),
        ("not pinned", [("TRUENAS_FINGERPRINT", "")]),
        ("another certificate", [("TRUENAS_FINGERPRINT", other.as_str())]),
        ("nobody there", [("SANDSCRIPT_HOST", "127.0.0.1:1")]),
    ] {
        let said = call(&nas, &change, &["doctor"]).await;
        all += &format!("# {what}\n{}", said.all());
    }
    let versions = |of: &str| Some(vec!["v25.04.0".to_owned(), of.to_owned()]);
    for newest in ["v24.10.2", "v27.0.0"] {
        let nas = small(release, |o: &mut Options| {
            o.versions =
                if newest < "v25" { Some(vec![newest.to_owned()]) } else { versions(newest) };
        })
        .await;
        let said = call(&nas, &[], &["doctor"]).await;
        let text = said.all();
        let line = text.lines().position(|line| line.starts_with("release")).unwrap();
        let lines: Vec<&str> = text.lines().skip(line).take(2).collect();
        all += &format!("# {newest}\n{}\n{}code: {}\n", lines.join("\n"), said.err, said.code);
    }
    insta::assert_snapshot!("doctor_does_not_come_in", all);
}

async fn as_json(release: Release) {
    let nas = small(release, |_| {}).await;
    let said = call(&nas, &[("TRUENAS_FINGERPRINT", "")], &["doctor", "--format", "json"]).await;
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let verdicts: Vec<(&str, &str)> = answer["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["what"].as_str().unwrap(), one["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(verdicts, [("reachable", "good"), ("certificate", "bad")]);
    assert_eq!((&answer["works"], said.code), (&false.into(), 10));
    assert_eq!(answer["error"]["exit"], 10);
}
