//! The backends that a script asks for, beside the one that the run is on.

use std::sync::Arc;

use async_trait::async_trait;

use super::background;
use super::config::Settings;
use super::run::sweep;
use crate::api::Opener;
use crate::backend::plan::PlanBackend;
use crate::sandbox::{self, Backend, Error};

/// Opens what a script names. Which machine that is with your credentials is yours to say.
pub(super) struct Backends {
    settings: Settings,
    /// Only to plan: they run no commands.
    dry: bool,
}

impl Backends {
    pub fn new(settings: &Settings, dry: bool) -> Arc<Backends> {
        Arc::new(Backends { settings: settings.clone(), dry })
    }
}

#[async_trait]
impl Opener for Backends {
    async fn open(&self, name: &str, host: Option<&str>) -> sandbox::Result<Arc<dyn Backend>> {
        if let Some(host) = host.filter(|host| !self.settings.may_use(host)) {
            return Err(Error::invalid_hint(
                "host",
                format!("the script names the machine '{host}', and you did not"),
                self.settings.way_to_use(host),
            ));
        }
        let host = host.map(str::to_owned);
        let opened = background::open(name, host, &self.settings, None, false).await?;
        if self.dry {
            return Ok(Arc::new(PlanBackend::new(opened)));
        }
        tokio::spawn(sweep(Arc::clone(&opened)));
        Ok(opened)
    }
}
