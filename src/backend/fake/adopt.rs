//! Taking over what was made ahead, and collecting what nobody wants.

use std::time::SystemTime;

use super::machine::{Shot, World};
use crate::sandbox::{Adoption, GcReport, Result, State};

impl World {
    pub fn adopt(&mut self, name: &str, adoption: &Adoption) -> Result<bool> {
        let info = &mut self.settled(name)?.info;
        let fits = adoption.fits(info);
        if fits {
            info.owner.clone_from(&adoption.owner);
            info.labels.clone_from(&adoption.labels);
            info.expires = adoption.expires;
        }
        Ok(fits)
    }

    /// What is dead or has expired; deletes it unless that is a dry run.
    pub fn collect(&mut self, now: SystemTime, dry_run: bool) -> GcReport {
        let mut report = GcReport::default();
        for (name, machine) in &self.machines {
            let info = &machine.info;
            let over = |end: Option<SystemTime>| end.is_some_and(|end| end <= now);
            let dead = info
                .owner
                .as_ref()
                .is_some_and(|owner| self.ended.contains(&owner.run) || over(owner.until));
            let expired = over(info.expires);
            if (dead || expired) && !matches!(info.state, State::Transitional(_)) {
                report.sandboxes.push(name.clone());
                report.bytes += machine.tree.usage().bytes.saturating_sub(machine.base.bytes);
            }
        }
        for (name, machine) in &mut self.machines {
            let over = |shot: &Shot| shot.snapshot.expires.is_some_and(|end| end <= now);
            if !report.sandboxes.contains(name) {
                report.leftovers += machine.shots.iter().filter(|shot| over(shot)).count();
                machine.shots.retain(|shot| dry_run || !over(shot));
            }
        }
        if !dry_run {
            for name in &report.sandboxes {
                if let Some(mut machine) = self.take(name) {
                    machine.halt();
                }
            }
        }
        report
    }
}
