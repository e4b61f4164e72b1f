//! What a base starts from.

use std::collections::BTreeMap;

use crate::sandbox::{Error, Kind, Limits, Policy, Result};

use super::super::{RunContext, Source};
use super::{BaseOptions, key};

/// What the base starts from, as far as keys go.
pub(super) struct Root {
    /// For people.
    pub shown: String,
    pub fingerprint: String,
    pub parent: Option<String>,
    pub egress: Policy,
    pub limits: Limits,
    pub env: BTreeMap<String, String>,
}

impl Root {
    /// Asks the backend what it is now.
    pub async fn find(ctx: &RunContext, options: &BaseOptions) -> Result<Root> {
        let (backend, cancel) = (ctx.backend.as_ref(), &ctx.cancel);
        let egress = |inherited: Policy| options.egress.clone().unwrap_or(inherited);
        let limits = |inherited: Limits| options.limits.clone().unwrap_or(inherited);
        Ok(match &options.source {
            Source::Image { image, sha256 } => {
                let image = image.as_ref().unwrap_or(&backend.capabilities().default_image);
                Root {
                    shown: image.clone(),
                    fingerprint: ctx.fingerprint(Some(image.as_str()), sha256.as_deref()).await?,
                    parent: None,
                    egress: egress(Policy::default()),
                    limits: limits(Limits::default()),
                    env: BTreeMap::new(),
                }
            }
            Source::Base(base) => Root {
                shown: format!("base {}", base.name),
                fingerprint: base.fingerprint.clone(),
                parent: Some(base.key.clone()),
                egress: egress(base.egress.clone()),
                limits: limits(base.limits.clone()),
                env: base.env.clone(),
            },
            Source::Snapshot { sandbox, label } => {
                let Some(label) = label else {
                    return Err(Error::invalid_hint(
                        "from",
                        format!("sandbox '{sandbox}' may change while the base is built"),
                        "take a snapshot of it and start from that",
                    ));
                };
                let info = backend.get(sandbox, cancel).await?;
                let snapshots = backend.snapshots(sandbox, cancel).await?;
                let Some(snapshot) = snapshots.iter().find(|s| s.label == *label) else {
                    return Err(Error::not_found(Kind::Snapshot, format!("{sandbox}/{label}")));
                };
                let since = snapshot.created.duration_since(std::time::UNIX_EPOCH);
                let since = since.unwrap_or_default().as_nanos();
                let which = format!("snapshot {sandbox} {label} {since}");
                Root {
                    shown: format!("{sandbox}/{label}"),
                    fingerprint: info.fingerprint,
                    parent: Some(key::content(which.as_bytes())),
                    egress: egress(info.egress),
                    limits: limits(info.limits),
                    env: BTreeMap::new(),
                }
            }
        })
    }
}
