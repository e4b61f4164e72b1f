//! `sandscript lock`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::run::{Run, Stage};
use super::session::Session;
use super::{CommandError, Result};
use crate::backend::plan::PlanBackend;
use crate::workflow::{LOCK_FILE, LockFile, OnFail, Pin, PinMode, Pins, exit};

const EXAMPLES: &str = "\
Examples:
  sandscript lock update scripts/test_matrix.rhai     pin the images that this script uses
  sandscript lock update                              pin those that are pinned as they are now
  sandscript run --locked scripts/test_matrix.rhai    refuse any other";

/// Pin the images that scripts start from
///
/// The pins are in sandscript.lock in the project folder, which belongs into version control.
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Lock {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write down what the images are now
    ///
    /// A script is planned, not run: nothing is made. Images that it does not name stay as they are.
    Update {
        /// Pin the images that this script asks for
        script: Option<PathBuf>,
        /// A parameter that the script reads with param()
        #[arg(long, value_name = "NAME=VALUE", value_parser = super::args::key_value, requires = "script")]
        set: Vec<(String, String)>,
        /// A folder outside the project that the script may use
        #[arg(long, value_name = "FOLDER", requires = "script")]
        allow_path: Vec<PathBuf>,
    },
}

impl Lock {
    pub fn call(self, session: &Session<'_>) -> Result {
        let Verb::Update { script, set, allow_path } = self.verb;
        let file = session.project.join(LOCK_FILE);
        let before = LockFile::read(&file)?;
        let mut lock = before.clone().unwrap_or_default();
        let seen = match script {
            Some(script) => asked_by(session, Run::plain(script, set, allow_path), &file)?,
            None if before.is_none() => {
                return Err(CommandError::usage(format!("there is no {LOCK_FILE} yet"))
                    .hint("name a script whose images are to be pinned"));
            }
            None => again(session, &lock)?,
        };
        let output = session.output;
        let mut changed = 0;
        for pin in seen {
            let (image, now) = (pin.image.clone(), pin.fingerprint.clone());
            match lock.set(pin) {
                Some(old) if old.fingerprint == now => {}
                Some(old) => {
                    changed += 1;
                    output.note(format!("{image}: {} → {now}", old.fingerprint));
                }
                None => {
                    changed += 1;
                    output.note(format!("{image}: {now}"));
                }
            }
        }
        if lock.images.is_empty() {
            return Err(CommandError::usage("the script starts from no image")
                .hint("there is nothing to pin"));
        }
        if changed == 0 && before.is_some() {
            output.note(format!("{LOCK_FILE} is as the images are"));
            return Ok(exit::OK);
        }
        lock.write(&file)?;
        Ok(exit::OK)
    }
}

/// The images that a script asks for when it is planned.
fn asked_by(session: &Session<'_>, run: Run, file: &std::path::Path) -> Result<Vec<Pin>> {
    let source = run.source()?;
    let pins = Arc::new(Pins::new(file.to_owned(), LockFile::default(), PinMode::Record));
    let seen = Arc::clone(&pins);
    session.work(true, |work| async move {
        let stage = Stage {
            session,
            settings: &session.settings,
            project: &session.project,
            backend: Arc::new(PlanBackend::new(Arc::clone(&work.backend))),
            cancel: work.cancel.clone(),
            signals: &work.signals,
            reports: Vec::new(),
            recorder: None,
            only: None,
            dry: true,
            on_fail: OnFail::Clean,
            bases: None,
            pins: Some(pins),
        };
        run.once(&source, stage).await.result
    })?;
    Ok(seen.seen())
}

/// The pinned images of this backend as they are now.
fn again(session: &Session<'_>, lock: &LockFile) -> Result<Vec<Pin>> {
    session.work(false, |work| async move {
        let backend = work.backend.as_ref();
        let mut pins = Vec::new();
        for pin in lock.images.iter().filter(|pin| pin.backend == backend.capabilities().backend) {
            let found = backend.fingerprint(&pin.image, pin.sha256.as_deref(), &work.cancel);
            pins.push(Pin { fingerprint: found.await?, ..pin.clone() });
        }
        Ok(pins)
    })
}
