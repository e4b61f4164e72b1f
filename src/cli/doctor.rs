//! `sandscript doctor`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::args::FormatArg;
use super::config::Settings;
use super::output::{Output, Style, paint};
use super::session::Session;
use super::tries;
use super::{CommandError, Result};
use crate::egress::Profile;
use crate::sandbox::{Capabilities, Capability, Check, Enforcer, Verdict};

const EXAMPLES: &str = "\
Examples:
  sandscript doctor
  sandscript doctor --backend truenas --host nas.lan
  sandscript doctor --backend nspawn --host root@nas.lan
  sandscript doctor --format json | jq .missing";

/// Say what works on this machine, and for the rest why not and how to get it
///
/// It tries: it makes a sandbox in a store of its own, runs a command in it, and so on. When that fails,
/// it ends with the error and its exit code. Of another machine it first says how far one comes there, and
/// what the credentials allow.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Doctor {
    pub fn call(self, session: &Session<'_>) -> Result {
        let checks = session.examine()?;
        let opened = session.work(false, |work| async move {
            let found = work.backend.capabilities().clone();
            let tried = tries::all(session, &work).await;
            Ok((found, tried))
        });
        let (found, tried) = match opened {
            Ok(done) => done,
            Err(error) if checks.is_empty() => return Err(error),
            Err(error) if self.format.json() => {
                session.output.json(&json!({
                    "version": env!("CARGO_PKG_VERSION"),
                    "backend": session.settings.backend,
                    "checks": checks,
                    "works": false,
                    "error": error.json()["error"],
                }));
                return Ok(error.code);
            }
            Err(error) => {
                session.output.data(&table(&checks, session.output));
                return Err(error);
            }
        };
        let system = rustix::system::uname();
        let kernel = system.release().to_string_lossy();
        let root = rustix::process::geteuid().is_root();
        let cgroups = cgroups();
        let output = session.output;
        if self.format.json() {
            let message = |(what, error): (&Capability, &CommandError)| {
                (what.to_string(), Value::from(error.message.as_str()))
            };
            let failed: Map<String, Value> = tried.failed.iter().map(message).collect();
            output.json(&json!({
                "version": env!("CARGO_PKG_VERSION"),
                "backend": found.backend,
                "root": root,
                "kernel": kernel,
                "cgroups": cgroups,
                "store": session.settings.store,
                "default_image": found.default_image,
                "egress": found.egress,
                "profile": profile_json(&session.settings),
                "parallelism": found.parallelism,
                "checks": checks,
                "has": found.has,
                "missing": found.missing,
                "verbs": found.verbs,
                "works": tried.sandbox.is_none(),
                "failed": failed,
                "error": tried.sandbox.as_ref().map(|error| error.json()["error"].clone()),
            }));
            return Ok(tried.code());
        }
        let user = if root { "root" } else { "an ordinary user" };
        let mut text = String::new();
        for (key, value) in [
            ("sandscript", env!("CARGO_PKG_VERSION").to_owned()),
            ("backend", found.backend.clone()),
            ("as", user.to_owned()),
            ("kernel", kernel.into_owned()),
            ("cgroups", cgroups.to_owned()),
            ("store", session.settings.store.display().to_string()),
            ("default image", found.default_image.clone()),
            ("isolation", isolation(&found, root)),
            ("egress", egress(&found)),
            ("profile", profile(&session.settings)),
            ("at once", format!("{} sandboxes", found.parallelism)),
        ] {
            text.push_str(&format!("{key:<14} {value}\n"));
        }
        text.push('\n');
        if !checks.is_empty() {
            text.push_str(&table(&checks, output));
            text.push('\n');
        }
        for capability in Capability::ALL {
            let word = format!("{:<20}", capability.as_str());
            if let Some(error) = tried.failed.get(capability) {
                let bad = paint(output.color_out, Style::Bad, "no");
                text.push_str(&format!("{word} {bad}   tried, and it fails: {}\n", error.message));
                continue;
            }
            if found.has(*capability) && tried.sandbox.is_some() {
                let word = word.trim_end();
                text.push_str(&format!(
                    "{word:<20} {}\n",
                    paint(output.color_out, Style::Warn, "?")
                ));
                continue;
            }
            if found.has(*capability) {
                text.push_str(&format!("{word} {}\n", paint(output.color_out, Style::Good, "yes")));
                continue;
            }
            text.push_str(&format!("{word} {}", paint(output.color_out, Style::Warn, "no")));
            if let Some(why) = found.missing.get(capability) {
                text.push_str(&format!("   {}", why.replace('\n', &format!("\n{:25}", ""))));
            }
            text.push('\n');
        }
        output.data(&text);
        match tried.sandbox {
            Some(error) => Err(error),
            None => Ok(tried.code()),
        }
    }
}

/// What was found out about the machine.
fn table(checks: &[Check], output: &Output) -> String {
    let mut text = String::new();
    for check in checks {
        let (word, style) = match check.verdict {
            Verdict::Good => ("yes", Style::Good),
            Verdict::Poor => ("no", Style::Warn),
            Verdict::Bad => ("no", Style::Bad),
        };
        let gap = if word == "no" { " " } else { "" };
        let word = paint(output.color_out, style, word);
        text.push_str(&format!("{:<20} {word}{gap}  {}\n", check.what, check.says));
        if let Some(hint) = &check.hint {
            text.push_str(&format!("{:26}hint: {hint}\n", ""));
        }
    }
    text
}

/// What stands between a guest and this machine.
fn isolation(found: &Capabilities, root: bool) -> String {
    if found.backend != "local" {
        return "the backend's own".into();
    }
    let ids = match (root, found.has(Capability::Users)) {
        (true, _) => "a private range of user ids",
        (false, true) => "your range of subordinate user ids",
        (false, false) => "your own user id only",
    };
    format!(
        "user namespace with {ids}; mount, pid, net, ipc, uts and cgroup namespaces;\n{:15}\
         dropped capabilities, no_new_privs, seccomp. Same kernel: no virtual machine",
        ""
    )
}

/// What a sandbox's policy is enforced with.
fn egress(found: &Capabilities) -> String {
    match (found.egress, found.backend.as_str()) {
        (Enforcer::Host, "local") => format!(
            "enforced by the host, whatever root in the guest does: a sandbox has the loopback\n{0:15}\
             interface alone, and what it connects to there is the gate, a process without privileges",
            ""
        ),
        (Enforcer::Host, _) => "enforced by the host, whatever root in the guest does".into(),
        (Enforcer::Guest, _) => "enforced inside the guest, where its root can undo it".into(),
    }
}

/// The profile that holds.
fn profile(settings: &Settings) -> String {
    let Some(profile) = settings.egress.held_by() else {
        return "none: what names no policy has 'none'".into();
    };
    let mut text = profile.name.clone();
    if let Some(from) = &settings.profile_from {
        text.push_str(&format!(", chosen by {from}"));
    }
    let policy = profile.egress.clone().unwrap_or_default();
    text.push_str(&format!("; what names no policy has '{policy}'"));
    if !profile.forbid.is_empty() {
        text.push_str(&format!("\n{:15}forbidden: {}", "", forbidden(profile).join(", ")));
    }
    text
}

fn profile_json(settings: &Settings) -> Option<Value> {
    let profile = settings.egress.held_by()?;
    Some(json!({
        "name": profile.name,
        "from": settings.profile_from,
        "egress": profile.egress.clone().unwrap_or_default().to_string(),
        "forbid": forbidden(profile),
    }))
}

fn forbidden(profile: &Profile) -> Vec<String> {
    profile.forbid.iter().map(ToString::to_string).collect()
}

fn cgroups() -> &'static str {
    let there = |path: &str| std::path::Path::new(path).exists();
    if there("/sys/fs/cgroup/cgroup.controllers") {
        "v2"
    } else if there("/sys/fs/cgroup/unified/cgroup.procs") {
        "hybrid (v1 controllers)"
    } else if there("/sys/fs/cgroup/memory") {
        "v1"
    } else {
        "none"
    }
}
