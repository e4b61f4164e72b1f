//! A backend that may go away and come back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::config::Settings;
use crate::cli::session::{Session, Work};
use crate::cli::{CommandError, Result};
use crate::sandbox::{Backend, Cancel, Error};

/// How long to wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The backend, opened as long as its settings stay what they are.
pub(super) struct Keeper {
    open: Arc<dyn Backend>,
    /// What decides which one it is.
    name: (String, Option<String>, PathBuf),
}

fn named(settings: &Settings) -> (String, Option<String>, PathBuf) {
    (settings.backend.clone(), settings.host.clone(), settings.store.clone())
}

impl Keeper {
    pub fn new(work: &Work, settings: &Settings) -> Keeper {
        Keeper { open: Arc::clone(&work.backend), name: named(settings) }
    }

    /// The backend.
    pub fn get(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.open)
    }

    /// Opens another one, where the settings name another one; says whether they do.
    pub async fn follow(&mut self, session: &Session<'_>, settings: &Settings) -> Result<bool> {
        if named(settings) == self.name {
            return Ok(false);
        }
        self.open = session.open(settings).await?;
        self.name = named(settings);
        Ok(true)
    }

    /// Whether it answers. What is away is not opened anew: for a store on this machine that would
    /// make another, empty one in its place.
    pub async fn answers(&self) -> Result<()> {
        let cancel = Cancel::new();
        match tokio::time::timeout(ANSWER, self.open.list(&cancel)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CommandError::from(error)),
            Err(_) => {
                cancel.cancel();
                Err(CommandError::from(Error::Timeout { what: "its answer".into(), after: ANSWER }))
            }
        }
    }
}
