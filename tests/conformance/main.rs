//! One suite over every backend. See `README.md` beside this file.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "incus")]
#[path = "../incus/rig/mod.rs"]
mod daemon;

#[cfg(feature = "nspawn")]
#[path = "../nspawn/rig.rs"]
mod booted;
mod case;
mod cases;
#[cfg(all(feature = "nspawn", feature = "ssh"))]
#[path = "../nspawn/far.rs"]
mod far;
#[cfg(feature = "nspawn")]
#[path = "../nspawn/faults.rs"]
mod faults;
mod hangs;
#[cfg(feature = "nspawn")]
#[path = "../nspawn/native.rs"]
mod native;
mod orphans;
mod rig;
mod sandbox;
#[cfg(feature = "nspawn")]
#[path = "../nspawn/stores.rs"]
mod stores;
#[cfg(feature = "nspawn")]
#[path = "../nspawn/systemd.rs"]
mod systemd;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use sandscript::sandbox::Error;

use case::Case;
use rig::Rig;

/// The cases that run on each release of a NAS; all do with `SANDSCRIPT_ALL_CASES=1`. The others take turns by
/// `SANDSCRIPT_DAY`.
const CHOSEN: &[&str] = &[
    "clone_from_a_label",
    "clone_is_another_machine",
    "create_hostname",
    "egress_none_is_none",
    "egress_rules_are_given_back_as_set",
    "egress_unrestricted_has_a_way_out",
    "exec_argv_exact",
    "exec_exit_codes",
    "files_round_trip",
    "restore_comes_back_running_and_ready",
    "snapshots_report_time_labels_and_size",
    "states_a_restart_keeps_files_and_identity",
    "streams_all_byte_values",
    "streams_twenty_megabytes_through_a_pipe",
    "terminal_resize",
];

/// Those that run on one of them besides, and of these the ones about egress where guests of a server
/// elsewhere keep to rules themselves.
const AREAS: &[&str] = &["egress_", "streams_", "terminal_"];

/// Those that run where commands go by SSH; what is not about commands and files goes the same way.
const BY_SSH: &[&str] = &["exec_", "files_round", "streams_", "terminal_"];

/// Those that run besides on a host that systemd has booted: what it does for a machine there.
const BOOTED: &[&str] = &["hostile_", "limit_", "states_", "usage_"];

/// Those that run besides where calls go to another host over one connection.
const FAR: &[&str] = &[
    "exec_cancel",
    "exec_timeout",
    "files_a_",
    "files_sixty_four",
    "process_",
    "streams_",
    "terminal_",
    "trees_round",
    "trees_unpack_can",
];

/// Those that run where a store is on ext4 or on ZFS: how a machine's files are kept, and what of it is seen.
const STORES: &[&str] = &[
    "clone_from_a_label",
    "clone_from_the_current_state_while_it_writes",
    "clone_is_another_machine",
    "clone_lives_without_its_source",
    "clone_of_a_clone",
    "clone_of_a_stopped_one",
    "limit_disk",
    "limit_disk_through_the_files",
    "limit_is_reported_or_refused",
    "restore_any_without_losing_newer_ones",
    "restore_links_modes_and_times",
    "restore_of_a_stopped_one_stays_stopped",
    "snapshots_delete",
    "snapshots_delete_keeps_clones",
    "snapshots_of_a_running_one",
    "snapshots_of_a_stopped_one",
    "states_a_restart_keeps_files_and_identity",
];

/// Of those the ones that run on ZFS, whose daemon for tests is slow.
const ON_ZFS: &[&str] = &[
    "clone_is_another_machine",
    "limit_disk",
    "restore_of_a_stopped_one_stays_stopped",
    "snapshots_delete_keeps_clones",
];

/// In so many days each case has run on one of the releases: a part of them each day, a quarter of that on each
/// release. After four times as many it has run on all of them.
const DAYS: u64 = 8;

/// Which day it is, as `SANDSCRIPT_DAY` says: not the clock, so that the same tree has the same tests.
fn day() -> Option<u64> {
    std::env::var("SANDSCRIPT_DAY").ok()?.parse().ok()
}

/// Whether it is the turn of a case on this release, of four, today.
fn its_turn(release: u64, case: &str, day: u64) -> bool {
    let number = case.bytes().fold(7, |sum: u64, byte| (sum * 31 + u64::from(byte)) % 1_000_003);
    number % DAYS == day % DAYS && (number / DAYS + day / DAYS) % 4 == release
}

/// Whether a case runs on this rig. Each machine of a NAS boots a whole system: of the others a choice is
/// made, so that the suite does not take minutes.
fn chosen(rig: &Rig, case: &str) -> bool {
    let turn = match (rig.release, day()) {
        (Some(release), Some(day)) => its_turn(release, case, day),
        _ => false,
    };
    match rig.choice {
        rig::Choice::All => true,
        rig::Choice::Areas => {
            turn || CHOSEN.contains(&case) || AREAS.iter().any(|area| case.starts_with(area))
        }
        rig::Choice::Booted => {
            CHOSEN.contains(&case) || BOOTED.iter().any(|area| case.starts_with(area))
        }
        rig::Choice::Far => CHOSEN.contains(&case) || FAR.iter().any(|area| case.starts_with(area)),
        rig::Choice::Egress => CHOSEN.contains(&case) || case.starts_with("egress_"),
        rig::Choice::BySsh => BY_SSH.iter().any(|area| case.starts_with(area)),
        rig::Choice::Few => turn || CHOSEN.contains(&case),
        rig::Choice::Stores if rig.name == rig::ZFS => ON_ZFS.contains(&case),
        rig::Choice::Stores => STORES.contains(&case),
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "truenas")]
    if let Some(code) = rig::tool() {
        return code;
    }
    rig::init();
    #[cfg(feature = "nspawn")]
    if let Some(code) = rig::served().or_else(faults::served) {
        return code;
    }
    orphans::adopt();
    let mut arguments = Arguments::from_args();
    // Most of the time somebody boots or waits.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    arguments.test_threads.get_or_insert(cores * 2);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    let mut skips = Vec::new();
    let mut rigs = Vec::new();
    for opening in rig::RIGS.iter().filter_map(|rig| rig()) {
        let rig = match runtime.block_on(opening) {
            Ok(rig) => Arc::new(rig),
            Err(error) => {
                eprintln!("a rig does not open: {error}");
                return ExitCode::FAILURE;
            }
        };
        rigs.push(rig.clone());
        let (name, declared) = (rig.name, rig.clone());
        trials.push(Trial::test(
            format!("{name}::capabilities_are_those_of_the_table"),
            move || {
                table::check(declared.name, declared.backend.capabilities()).map_err(Failed::from)
            },
        ));
        #[cfg(feature = "nspawn")]
        {
            let every = std::env::var_os("SANDSCRIPT_ALL_CASES").is_some();
            let all = match rig.name {
                "nspawn" if every => faults::ALL,
                "nspawn" => &faults::ALL[2..],
                #[cfg(feature = "ssh")]
                "nspawn/ssh" => far::ALL,
                _ if rig.systemd.is_some() && every => native::ALL,
                _ if rig.systemd.is_some() => &native::ALL[..3],
                _ if stores::is_one(&rig) => stores::of(&rig),
                _ => &[],
            };
            for (test, run) in all {
                let (rig, handle) = (rig.clone(), runtime.handle().clone());
                trials.push(Trial::test(format!("{name}::{test}"), move || {
                    handle.block_on(run(rig)).map_err(Failed::from)
                }));
            }
        }
        for case in cases::all().filter(|case| chosen(&rig, case.name)) {
            let trial = format!("{name}::{}", case.name);
            match rig.lacks(case) {
                Some((capability, hint)) => {
                    skips.push((trial, format!("needs {capability}: {hint}")));
                }
                None => {
                    let (rig, handle) = (rig.clone(), runtime.handle().clone());
                    trials.push(Trial::test(trial.clone(), move || {
                        hangs::watched(&trial, move || handle.block_on(run(rig, case)))
                            .map_err(Failed::from)
                    }));
                }
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let chosen = skips.iter().filter(|(trial, _)| {
            arguments.filter.as_ref().is_none_or(|filter| trial.contains(filter))
        });
        for (trial, why) in chosen {
            println!("skipped {trial}: {why}");
        }
    }
    let mut clean = true;
    for rig in rigs {
        let name = rig.name;
        let closed = match Arc::try_unwrap(rig) {
            Ok(rig) => runtime.block_on(rig.close()),
            Err(_) => Err(Error::internal("a case still holds it")),
        };
        if let Err(error) = closed {
            eprintln!("{name}: not left clean: {error}");
            clean = false;
        }
    }
    // A command that outlives its case must not keep the suite alive.
    runtime.shutdown_background();
    if let Err(left) = orphans::none_left() {
        eprintln!("not left clean: {left}");
        clean = false;
    }
    if clean && !conclusion.has_failed() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// How long deleting what a case made may take.
const LONGEST_CLEANING: Duration = Duration::from_secs(60);

/// Runs a case and deletes what it made, even when it panics or hangs.
async fn run(rig: Arc<Rig>, case: &'static Case) -> Result<(), String> {
    let scope = rig.scope(case);
    let done = {
        let mut work = (case.run)(scope.clone());
        let caught = std::future::poll_fn(move |context| {
            let poll = std::panic::AssertUnwindSafe(|| work.as_mut().poll(context));
            match std::panic::catch_unwind(poll) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        match tokio::time::timeout(case::LONGEST, caught).await {
            Ok(Ok(done)) => done.map_err(|failure| failure.0),
            Ok(Err(panic)) => Err(match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(panic) => panic
                    .downcast::<&str>()
                    .map_or_else(|_| "panicked".to_owned(), |text| (*text).to_owned()),
            }),
            Err(_) => Err(format!("did not end within {:?}", case::LONGEST)),
        }
    };
    let cleaned = match tokio::time::timeout(LONGEST_CLEANING, scope.clean()).await {
        Ok(cleaned) => cleaned,
        Err(_) => Err(Error::internal(format!("it did not end within {LONGEST_CLEANING:?}"))),
    };
    done.and(cleaned.map_err(|error| format!("cleaning up after the case: {error}")))
}
