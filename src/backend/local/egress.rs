//! A sandbox's egress policy and its log.

use super::gate::LOG;
use super::{Inner, record};
use crate::sandbox::{EgressLog, Policy, Result, Spec, State, check_name};

/// Whether a sandbox that is started like this goes through the gate. Else it has no network at all.
pub(super) fn is_gated(spec: &Spec) -> bool {
    spec.egress != Policy::None || !spec.networks.is_empty()
}

impl Inner {
    pub(super) async fn set_policy(&self, name: &str, policy: &Policy) -> Result<()> {
        self.change_policy(name, |now| {
            now.clone_from(policy);
            Ok(())
        })
        .await
    }

    /// Changes a policy: first what is in force, then what is written down.
    pub(super) async fn change_policy(
        &self,
        name: &str,
        change: impl FnOnce(&mut Policy) -> Result<()>,
    ) -> Result<()> {
        check_name(name)?;
        let _lock = self.store.changing(name).await?;
        let mut record = self.store.record(name)?;
        let before = record.spec.egress.clone();
        change(&mut record.spec.egress)?;
        self.capabilities.require_egress(&record.spec.egress)?;
        let policy = record.spec.egress.clone();
        if policy == before {
            return Ok(());
        }
        let running = matches!(self.state(name).await?, State::Running | State::Frozen);
        let was_gated = record.gated;
        if running {
            record.gated = true;
            self.gate.set(&self.store, name, &policy).await?;
        }
        let saved = self.store.save(&record);
        if saved.is_err() && running && was_gated {
            self.gate.set(&self.store, name, &before).await?;
        }
        saved
    }

    pub(super) async fn egress_log(&self, name: &str) -> Result<EgressLog> {
        check_name(name)?;
        let record = self.store.record(name)?;
        if record.gated
            && self.state(name).await? != State::Stopped
            && let Some(log) = self.gate.log(&self.store, name).await?
        {
            return Ok(log);
        }
        Ok(record::load(&self.store.folder(name).join(LOG))?.unwrap_or_default())
    }

    /// Starts the gate when it is gone and this sandbox has been served by it.
    pub(super) async fn revive_gate(&self, name: &str) -> Result<()> {
        if self.store.folder(name).join(LOG).exists() {
            self.gate.revive(&self.store).await?;
        }
        Ok(())
    }
}
