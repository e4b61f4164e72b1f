//! Hooks as files and as commands of the unit.

use std::path::{Path, PathBuf};

use super::{Context, hook_name};
use crate::backend::nspawn::machine::file::Machine;
use crate::backend::nspawn::machine::hook::{Hook, When, Where};

/// Hooks as a unit has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Files: where, what is in them, and their permissions.
    pub files: Vec<(PathBuf, String, u32)>,
    /// Keys of the section `Service` with a command each.
    pub commands: Vec<(&'static str, Vec<String>)>,
    /// How long those before and after the start may take together, in seconds.
    pub starting: u64,
}

/// Runs what comes by its standard input, in a machine.
const RECEIVE: &str = "f=$(mktemp /run/hook.XXXXXX) && cat >\"$f\" && chmod 700 \"$f\" && \"$f\"; r=$?; rm -f \"$f\"; exit $r";

/// Makes them.
pub fn make(machine: &Machine, context: &Context, folder: &Path) -> Made {
    let mut made = Made::default();
    let links = context.edits.guest_script().map(|script| Hook {
        when: When::PreStart,
        place: Where::Guest,
        script,
        timeout: super::super::hook::TIMEOUT,
    });
    for hook in machine.hooks.iter().chain(&links) {
        let generated = links.as_ref() == Some(hook);
        let name =
            if generated { "guest-devices".into() } else { hook_name(hook.place, hook.when) };
        let path = folder.join(name);
        made.files.push((path.clone(), hook.file(), 0o700));
        let key = match hook.when {
            When::PreStart => "ExecStartPre",
            When::PostStart => "ExecStartPost",
            When::PreStop => "ExecStop",
            When::PostStop => "ExecStopPost",
        };
        let seconds = hook.timeout.as_millis().div_ceil(1000) as u64;
        if matches!(hook.when, When::PreStart | When::PostStart) {
            made.starting += seconds;
        }
        let mut command: Vec<String> =
            ["/usr/bin/timeout", "--kill-after=5s"].map(str::to_owned).to_vec();
        command.push(format!("{seconds}s"));
        match hook.place {
            Where::Host => command.push(path.display().to_string()),
            Where::Guest => command.extend(inside(machine, context, hook.when, &path)),
        }
        made.commands.push((key, command));
    }
    made
}

/// A command that runs a file of the host in the machine.
fn inside(machine: &Machine, context: &Context, when: When, path: &Path) -> Vec<String> {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<String>>();
    let path = super::quote::shell(&path.display().to_string());
    let run = match when {
        When::PostStart | When::PreStop => {
            let mut run = owned(&["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]);
            run.push(format!("--machine={}", machine.name));
            run
        }
        // There is no machine then: the root file system alone, with nothing to reach.
        When::PreStart | When::PostStop => {
            let mut run = owned(&["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]);
            run.extend(owned(&["--settings=no", "--as-pid2", "--pipe", "--private-network"]));
            run.extend(owned(&["--resolv-conf=off", "--timezone=off", "--link-journal=no"]));
            run.push(format!("--machine={}-hook", machine.name));
            run.push(format!("--directory={}", context.root.display()));
            if let Some(base) = context.base {
                run.push(format!("--private-users={base}:{}", machine.users.size));
                let ownership = machine.users.ownership.word();
                let ownership = if ownership == "auto" { "map" } else { ownership };
                run.push(format!("--private-users-ownership={ownership}"));
            }
            for bind in &context.edits.binds {
                let bind = bind.native(context.base.is_some());
                run.push(format!("--bind-ro={bind}"));
            }
            run
        }
    };
    let words: Vec<String> = run.iter().map(|word| super::quote::shell(word)).collect();
    let receive = super::quote::shell(RECEIVE);
    let line = format!("exec {} /bin/sh -c {receive} < {path}", words.join(" "));
    vec!["/bin/sh".into(), "-c".into(), line]
}
