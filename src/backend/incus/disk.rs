//! How much a guest may write: the size of its root disk.

use hyper::Method;
use serde_json::{Value, json};

use super::Inner;
use super::lifecycle::Plan;
use crate::backend::guest::Ask;
use crate::sandbox::{Error, Result};

/// Storage that keeps guests to a size. That of folders needs quotas of the file system below, and says
/// nothing when there are none.
pub(super) const WITH_QUOTAS: &[&str] = &["btrfs", "ceph", "lvm", "lvmcluster", "truenas", "zfs"];
/// What is counted on btrfs beside all that, at most.
const BESIDE: u64 = 1 << 20;

impl Inner {
    /// Gives a sandbox that was just made what it may write, over what its storage counts already.
    pub(super) async fn set_disk(&self, plan: &Plan) -> Result<()> {
        let Some(most) = plan.record.limits.disk.filter(|_| !plan.devices.contains_key("root"))
        else {
            return Ok(());
        };
        let name = plan.name.as_str();
        let doing = format!("limiting the disk of sandbox '{name}'");
        let there = match self.shared(plan).await? {
            Some(all) => all,
            None => {
                let state = self.client.get(&format!("/1.0/instances/{name}/state")).await;
                let state = state.map_err(|fail| fail.plain(&doing))?;
                state["disk"]["root"]["usage"].as_u64().unwrap_or_default()
            }
        };
        let size = there.checked_add(most).ok_or_else(|| {
            Error::invalid("disk", format!("{most} bytes are more than any disk has"))
        })?;
        let mut root = super::devices::root(&plan.record, &self.pool);
        root["size"] = size.to_string().into();
        let body = json!({"devices": {"root": root}});
        let path = format!("/1.0/instances/{name}");
        match self.client.run(Method::PATCH, &path, &body).await {
            Ok(_) => Ok(()),
            Err(fail) => Err(self.exhausted(fail, &doing).await),
        }
    }

    /// Sets the size once more: a restore forgets it on btrfs with simple quotas.
    pub(super) async fn renew_disk(&self, name: &str, root: &Value) -> Result<()> {
        let Some(size) = root["size"].as_str().and_then(|size| size.parse::<u64>().ok()) else {
            return Ok(());
        };
        let path = format!("/1.0/instances/{name}");
        // What does not change is not set.
        for size in [size.saturating_add(4096), size] {
            let mut root = root.clone();
            root["size"] = size.to_string().into();
            let body = json!({"devices": {"root": root}});
            if let Err(fail) = self.client.run(Method::PATCH, &path, &body).await {
                let doing = format!("limiting the disk of sandbox '{name}'");
                return Err(self.exhausted(fail, &doing).await);
            }
        }
        Ok(())
    }

    /// What all of it takes, where that counts for its size and is not in what it is said to use: on btrfs,
    /// what it shares with its image, unless the quotas are the simple ones.
    async fn shared(&self, plan: &Plan) -> Result<Option<u64>> {
        if self.driver(&plan.record.hardware).await? != "btrfs" {
            return Ok(None);
        }
        if plan.bare {
            return Err(Error::unsupported(
                "limiting the disk of a sandbox that does not run, on btrfs,",
                super::BACKEND,
                "leave out that it is bare: it is measured from inside",
            ));
        }
        let fields = self.ask_once(&plan.name, &["size"]).await?;
        let [size, quotas] = &fields[..] else {
            let why = format!("sandbox '{}' can't say how large it is", plan.name);
            return Err(Error::internal(why));
        };
        let size = String::from_utf8_lossy(size).parse::<u64>().unwrap_or_default();
        Ok((quotas != b"squota").then(|| size.saturating_add(BESIDE)))
    }
}
