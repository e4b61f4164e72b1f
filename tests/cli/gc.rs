//! `gc`: by age, by run, by itself, and by a timer.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

/// Makes everything in the store older than it is.
fn age(environment: &TestEnvironment, days: u64) {
    let by = days * 86_400;
    let records = |folder: &Path| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    for folder in records(&environment.path("store/boxes")) {
        let snapshots = records(&folder.join("snapshots"));
        for file in snapshots.into_iter().chain([folder.join("record.json")]) {
            let text = std::fs::read_to_string(&file).unwrap();
            let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
            let seconds = &mut record["created"]["secs_since_epoch"];
            *seconds = (seconds.as_u64().unwrap() - by).into();
            std::fs::write(&file, record.to_string()).unwrap();
            let then = SystemTime::now() - Duration::from_secs(by);
            std::fs::File::options().append(true).open(&file).unwrap().set_modified(then).unwrap();
        }
    }
}

fn names(environment: &TestEnvironment) -> Vec<String> {
    let all: serde_json::Value =
        serde_json::from_str(&environment.ok(["list", "--format", "json"])).unwrap();
    let names = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
    names.collect()
}

/// The output without what differs from run to run.
fn plain(run: Run) -> String {
    let text = run.to_string();
    let mut words: Vec<String> = Vec::new();
    for line in text.lines() {
        let line: Vec<String> = line
            .split(' ')
            .map(|word| match word.strip_prefix("base-b-") {
                Some(rest) if rest.len() == 12 => "base-b-DIGEST".to_owned(),
                _ => word.to_owned(),
            })
            .collect();
        words.push(line.join(" "));
    }
    words.join("\n")
}

const BASE: &str = "base(\"b\", |b| { b.run(\"true\"); });";

#[test]
fn by_age() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("b.rhai", BASE);
    environment.ok(["run", "b.rhai"]);
    environment.ok(["create", "mine"]);
    let old = ["gc", "--older-than", "7d"];
    assert_snapshot!(environment.run(old), @r"
    exit code 0
    -- stderr
    there is nothing to delete
    ");
    age(&environment, 8);
    assert_snapshot!(plain(environment.run(old)), @"
    exit code 0
    -- stdout
    NAME                 USED        WHY
    base-b-DIGEST  8 days ago  base 'b' is not used
    -- stderr
    would delete 1 sandbox, 0 leftovers; add --yes to do it
    ");
    assert_snapshot!(plain(environment.run(old.iter().chain(&["--kept"]))), @"
    exit code 0
    -- stdout
    NAME                 USED        WHY
    base-b-DIGEST  8 days ago  base 'b' is not used
    mine                 8 days ago  it is not used
    -- stderr
    would delete 2 sandboxes, 0 leftovers; add --yes to do it
    ");
    // Who runs a command in it uses it; who builds on the base does, too.
    environment.ok(["exec", "mine", "--", "true"]);
    environment.write("c.rhai", "sandbox(#{ from: base(\"b\", |b| { b.run(\"true\"); }) });");
    environment.ok(["run", "c.rhai"]);
    let both = ["gc", "--older-than", "7d", "--kept", "--yes"];
    assert_eq!(environment.run(both).stderr, "there is nothing to delete\n");
    age(&environment, 8);
    let run = environment.run(both.iter().chain(&["--format", "json"]));
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let words: Vec<_> =
        answer["entries"].as_array().unwrap().iter().map(|one| one["why"].as_str()).collect();
    assert_eq!(words, [Some("unused_base"), Some("unused")], "{run}");
    assert_eq!(names(&environment), [""; 0]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run(["gc", "--older-than", "3s"]), @"
    exit code 2
    -- stderr
    error: invalid value '3s' for '--older-than <TIME>': it is known to the minute who uses what: use 1m or more

    For more information, try '--help'.
    ");
    assert_eq!(environment.run(["gc", "--kept"]).code, Some(2));
    assert_eq!(environment.run(["gc", "--install", "--yes"]).code, Some(2));
    let environment = environment.env("SANDSCRIPT_GC_EVERY", "often");
    assert_snapshot!(environment.run(["list"]), @r#"
    exit code 2
    -- stderr
    error: SANDSCRIPT_GC_EVERY: duration: 'often' is not a duration
    hint: use a time such as 10m, or "never"
    "#);
}

#[test]
fn of_one_run() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("x.rhai", "sandbox(\"left\"); print(\"ready\"); sleep(\"60s\");");
    let mut child = environment.command(["run", "x.rhai"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let answer = environment.ok(["show", "left", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let run = answer["owner"]["run"].as_str().unwrap().to_owned();
    // Where nobody can ask whether a run lives, it is over a week later.
    assert!(
        answer["owner"]["until"]
            .as_str()
            .is_some_and(|until| until > answer["created"].as_str().unwrap())
    );
    let text = environment.run(["gc", "--run", &run, "--yes"]).to_string();
    assert_snapshot!(text.replace(&run, "RUN"), @"
    exit code 2
    -- stderr
    error: run: RUN is alive and has a sandbox
    hint: stop it first; what a live run owns is never deleted
    ");
    child.kill().unwrap();
    child.wait().unwrap();
    let other = environment.run(["gc", "--run", "r000000000000", "--yes"]);
    assert_eq!(other.stderr, "there is nothing to delete\n");
    let text = environment.run(["gc", "--run", "latest", "--yes"]).to_string();
    assert!(text.contains(&format!("run {run} is dead")), "{text}");
    assert_eq!(names(&environment), [""; 0]);
}

#[test]
fn any_verb_looks_now_and_then() {
    let Some(environment) = TestEnvironment::local() else { return };
    environment.write("b.rhai", BASE);
    environment.ok(["run", "b.rhai"]);
    environment.write("x.rhai", "sandbox(\"left\"); print(\"ready\"); sleep(\"60s\");");
    let mut child = environment.command(["run", "x.rhai"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    age(&environment, 31);
    environment.ok(["list"]);
    let environment = environment.env("SANDSCRIPT_GC_EVERY", "10m");
    // What gc itself only tells is not deleted behind it.
    assert!(environment.ok(["gc"]).contains("left "));
    let run = environment.run(["list", "--format", "json"]);
    assert!(run.stdout.contains("\"left\""), "what it tells is what was there: {run}");
    assert!(run.stderr.starts_with("gc: deleted 2 sandboxes: base-b-"), "{run}");
    assert!(run.stderr.contains("(base 'b' is not used), left (run r"), "{run}");
    assert_eq!(names(&environment), [""; 0]);
    // Not again before its time.
    environment.ok(["create", "brief"]);
    let text = std::fs::read_to_string(environment.path("store/boxes/brief/record.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["spec"]["expires"] =
        serde_json::json!({ "secs_since_epoch": 1, "nanos_since_epoch": 0 });
    std::fs::write(environment.path("store/boxes/brief/record.json"), record.to_string()).unwrap();
    assert_eq!(environment.run(["show", "brief"]).stderr, "");
    assert_eq!(names(&environment), ["brief"]);
    // The settings say when bases expire, and how often it looks.
    let environment = environment.env("SANDSCRIPT_GC_EVERY", "");
    environment.write("sandscript.toml", "[gc]\nevery = \"0s\"\nbases = \"never\"\n");
    let run = environment.run(["exec", "brief", "--", "sh", "-c", "exit 7"]);
    assert_snapshot!(run, @"
    exit code 7
    -- stderr
    gc: deleted 1 sandbox: brief (it has expired)
    ");
    environment.ok(["run", "b.rhai"]);
    age(&environment, 300);
    environment.ok(["list"]);
    assert_eq!(names(&environment).len(), 1, "its base never expires");
}

/// A program that writes down how it was called and what it was given.
fn put_program(environment: &TestEnvironment, name: &str, text: &str) {
    let path = environment.path("bin").join(name);
    std::fs::create_dir_all(environment.path("bin")).unwrap();
    let text = format!("#!/bin/sh\nhere={}\n{text}", environment.path("").display());
    environment.put(&path, &text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Only programs of the test's own are found.
fn timers() -> TestEnvironment {
    let environment = TestEnvironment::fake();
    std::fs::create_dir_all(environment.path("bin")).unwrap();
    let path = environment.path("bin").display().to_string();
    environment.env("PATH", &path)
}

/// Without what differs from machine to machine.
fn told(run: &Run) -> String {
    let program = crate::environment::program().canonicalize().unwrap();
    let text = run.to_string().replace(program.to_str().unwrap(), "SANDSCRIPT");
    let mut told = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("sandscript-gc-fake-") {
        let end = at + "sandscript-gc-fake-".len();
        told.push_str(&rest[..end]);
        told.push_str("PLACE");
        rest = &rest[end + 8..];
    }
    told.push_str(rest);
    let line = |line: &str| match line.split_once(" * * * * ") {
        Some((minute, rest)) if minute.parse::<u8>().is_ok_and(|minute| minute < 60) => {
            format!("MINUTE * * * * {rest}\n")
        }
        _ => format!("{line}\n"),
    };
    told.lines().map(line).collect()
}

#[test]
fn a_timer_of_systemd() {
    let environment = timers();
    put_program(&environment, "systemctl", "echo \"$@\" >>\"$here/calls\"\n");
    let run = environment.run(["gc", "--install"]);
    assert_snapshot!(told(&run), @"
    exit code 0
    -- stdout
    # $T/config/systemd/user/sandscript-gc-fake-PLACE.service
    [Unit]
    Description=sandscript gc

    [Service]
    Type=oneshot
    ExecStart=SANDSCRIPT gc --yes --quiet --backend fake --store $T/store

    # $T/config/systemd/user/sandscript-gc-fake-PLACE.timer
    [Unit]
    Description=sandscript gc, every hour

    [Timer]
    OnCalendar=hourly
    RandomizedDelaySec=5m
    Persistent=true

    [Install]
    WantedBy=timers.target

    -- stderr
    gc is done every hour while you are logged in; 'loginctl enable-linger' makes it always
    ");
    let units = environment.path("config/systemd/user");
    let files = |folder: &Path| {
        let all = std::fs::read_dir(folder).unwrap().flatten();
        let mut texts: Vec<_> =
            all.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
        texts.sort();
        texts
    };
    let first = files(&units);
    assert_eq!(first.len(), 2);
    assert!(
        first.iter().all(|text| run.stdout.contains(
            &text.replace(environment.path("").to_str().unwrap().trim_end_matches('/'), "$T")
        )),
        "{run}"
    );
    assert_eq!(environment.ok(["gc", "--install"]), run.stdout);
    assert_eq!(files(&units), first);
    // Another store's is another timer.
    environment.ok(["gc", "--install", "--store", "other one"]);
    assert_eq!(files(&units).len(), 4);
    environment.ok(["gc", "--uninstall", "--store", "other one"]);
    assert_eq!(files(&units), first);
    assert_snapshot!(told(&environment.run(["gc", "--uninstall"])), @"
    exit code 0
    -- stdout
    $T/config/systemd/user/sandscript-gc-fake-PLACE.service
    $T/config/systemd/user/sandscript-gc-fake-PLACE.timer
    -- stderr
    the timer is gone
    ");
    assert_eq!(files(&units).len(), 0);
    assert_snapshot!(environment.run(["gc", "--uninstall"]), @"
    exit code 0
    -- stderr
    no timer is installed
    ");
    let calls = std::fs::read_to_string(environment.path("calls")).unwrap();
    assert!(
        calls.contains("--user daemon-reload\n--user enable --now sandscript-gc-fake-"),
        "{calls}"
    );
    assert!(calls.contains("--user disable --now sandscript-gc-fake-"), "{calls}");
    put_program(&environment, "systemctl", "[ $2 = enable ] || exit 0; echo no bus >&2; exit 1");
    let run = environment.run(["gc", "--install"]);
    assert_eq!(run.code, Some(1));
    assert!(
        told(&run).ends_with(
            "error: 'systemctl --user enable --now sandscript-gc-fake-PLACE.timer' failed: no bus\n"
        ),
        "{run}"
    );
}

#[test]
fn a_line_of_the_crontab() {
    let environment = timers();
    put_program(&environment, "systemctl", "exit 1\n");
    let crontab = "case $1 in
-l) [ -f \"$here/table\" ] || { echo no crontab for me >&2; exit 1; }
    while IFS= read -r line; do printf '%s\\n' \"$line\"; done <\"$here/table\" ;;
-) while IFS= read -r line; do printf '%s\\n' \"$line\"; done >\"$here/new\"
   /bin/mv \"$here/new\" \"$here/table\" ;;
esac
";
    put_program(&environment, "crontab", crontab);
    let run = environment.run(["gc", "--install"]);
    assert_snapshot!(told(&run), @"
    exit code 0
    -- stdout
    # in your crontab
    MINUTE * * * * SANDSCRIPT gc --yes --quiet --backend fake --store $T/store # sandscript-gc-fake-PLACE
    -- stderr
    gc is done every hour, as long as cron runs
    ");
    let table = || std::fs::read_to_string(environment.path("table")).unwrap();
    let first = table();
    assert_eq!(first.lines().count(), 1);
    environment.put(&environment.path("table"), &format!("0 0 * * * mine\n{first}"));
    let before = table();
    environment.ok(["gc", "--install"]);
    assert_eq!(table(), before);
    environment.ok(["gc", "--install", "--store", "100% of it"]);
    assert!(table().contains("100\\% of it' # sandscript-gc-fake-"), "{}", table());
    environment.ok(["gc", "--uninstall", "--store", "100% of it"]);
    assert_snapshot!(told(&environment.run(["gc", "--uninstall"])), @"
    exit code 0
    -- stdout
    MINUTE * * * * SANDSCRIPT gc --yes --quiet --backend fake --store $T/store # sandscript-gc-fake-PLACE
    -- stderr
    the timer is gone
    ");
    assert_eq!(table(), "0 0 * * * mine\n");
    assert_snapshot!(environment.run(["gc", "--uninstall"]), @"
    exit code 0
    -- stderr
    no timer is installed
    ");
}

#[test]
fn no_timer_without_systemd_and_cron() {
    let environment = timers();
    assert_snapshot!(told(&environment.run(["gc", "--install"])), @"
    exit code 11
    -- stderr
    error: no timer can be installed: there is neither systemd for this user nor crontab
    hint: install the package cron, or have something else do this every hour:
          SANDSCRIPT gc --yes --quiet --backend fake --store $T/store
    ");
    assert_snapshot!(environment.run(["gc", "--uninstall"]), @"
    exit code 0
    -- stderr
    no timer is installed
    ");
}
