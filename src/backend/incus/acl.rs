//! Whether a server's kernel takes network ACLs on one sandbox's interface. It is tried, with an ACL and a
//! container that go at once; nothing is enforced by it.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::client::{Fail, escape};
use super::hardware::names;
use super::record::{Record, token};
use super::{IncusBackend, IncusConfig, Inner};
use crate::sandbox::{Check, Result, Spec, wall_clock};

/// What is looked at.
const WHAT: &str = "network ACLs";
/// Before the name of an ACL that is there to be tried.
const NAME: &str = "sandscript-tried-";
/// What servers call it that they have ACLs of single interfaces in bridges.
const EXTENSION: &str = "network_bridge_acl_devices";
/// After this time what a try has left goes.
const LEFT: Duration = Duration::from_secs(3600);
/// Where rules are kept to instead.
const INSTEAD: &str =
    "rules are kept to inside the guest: docs/egress.md, \"Rules inside the guest\"";

/// What there is to say of a server before it is worked with: nothing where it can't be reached, or where its
/// machine is ours to enforce rules on.
pub async fn examine(config: IncusConfig) -> Vec<Check> {
    let Ok(IncusBackend(inner)) = IncusBackend::open(config).await else { return Vec::new() };
    if inner.host.is_ok() || inner.cluster.is_some() {
        return Vec::new();
    }
    vec![match inner.try_acl().await {
        Ok(()) => Check::good(
            WHAT,
            format!("the kernel takes them; they know addresses only, so {INSTEAD}"),
        ),
        Err(why) => Check::poor(WHAT, why, INSTEAD),
    }]
}

impl Inner {
    /// Puts an ACL on an interface of a container that starts; else why that can't be done.
    async fn try_acl(&self) -> std::result::Result<(), String> {
        let not_tried = |why: &str| format!("not tried: {why}");
        let card = self.pool.networks.values().find(|card| card["network"].is_string());
        let Some(card) = card else {
            return Err(not_tried("the profile 'default' has no interface in a managed network"));
        };
        let server = self.client.get("/1.0").await.unwrap_or_default();
        let mut all = server["api_extensions"].as_array().into_iter().flatten();
        if !all.any(|one| one == EXTENSION) {
            return Err(
                "the server has none for single interfaces: they came with Incus 6.0.4".into()
            );
        }
        self.forget_tries().await;
        let acl = format!("{NAME}{}", token());
        let rule = json!({"action": "allow", "state": "enabled", "destination": "192.0.2.1/32"});
        let body = json!({
            "name": acl, "description": about(wall_clock()), "config": {},
            "egress": [rule], "ingress": [],
        });
        if let Err(fail) = self.client.post("/1.0/network-acls", &body).await {
            return Err(not_tried(&format!("the server lets you make none: {}", said(fail))));
        }
        let tried = self.start_with(&acl, card).await;
        let _ = self.client.remove(&format!("/1.0/network-acls/{}", escape(&acl))).await;
        tried
    }

    async fn start_with(&self, acl: &str, card: &Value) -> std::result::Result<(), String> {
        let path = format!("/1.0/network-acls/{}", escape(acl));
        let kept = self.client.get(&path).await.unwrap_or_default();
        if kept["egress"][0]["destination"] != "192.0.2.1/32" {
            return Err("the server does not keep their rules".into());
        }
        let image = &self.capabilities.default_image;
        let made = async {
            let fingerprint = self.fingerprint(image).await?;
            let mut spec = Spec::new(format!("acl-{}", token()));
            spec.expires = wall_clock().checked_add(LEFT);
            let record = Record::new(&spec, image.clone(), fingerprint.clone());
            let mut devices = super::devices::devices(&record, &self.pool);
            devices["eth0"] = card.clone();
            devices["eth0"]["security.acls"] = acl.into();
            let body = json!({
                "name": spec.name, "type": "container", "profiles": [], "start": true,
                "source": {"type": "image", "fingerprint": fingerprint},
                "config": record.keys()?, "devices": devices,
            });
            let made = self.client.run(Method::POST, "/1.0/instances", &body).await;
            match self.delete(&spec.name).await {
                Ok(()) | Err(crate::sandbox::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            Result::Ok(made)
        };
        match made.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(fail)) => Err(format!("the kernel refuses them: {}", said(fail))),
            Err(error) => Err(format!("not tried: {error}")),
        }
    }

    /// Takes away what tries have left that were killed.
    async fn forget_tries(&self) {
        let all = self.client.get("/1.0/network-acls").await.unwrap_or_default();
        for name in names(&all).iter().filter(|name| name.starts_with(NAME)) {
            let path = format!("/1.0/network-acls/{}", escape(name));
            let acl = self.client.get(&path).await.unwrap_or_default();
            let over = wall_clock().checked_sub(LEFT).map(about);
            // Both are times of one form.
            if over.is_some_and(|over| acl["description"].as_str().is_some_and(|at| at < &*over)) {
                let _ = self.client.remove(&path).await;
            }
        }
    }
}

/// When something was tried.
fn about(when: std::time::SystemTime) -> String {
    let seconds = when.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("Tried by sandscript at {seconds:012}")
}

/// What the server says, without the rules themselves.
fn said(fail: Fail) -> String {
    let text = match fail {
        Fail::Refused(_, text) | Fail::Failed(text, _) => text,
        fail => fail.plain(WHAT).to_string(),
    };
    let first = text.lines().next().unwrap_or_default();
    first.rsplit("Error: ").next().unwrap_or(first).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_are_found() {
        let text = "Failed to start device \"eth0\": Failed apply nftables config: Failed to run: nft -f -: \
            exit status 1 (/dev/stdin:9:2-9: Error: Could not process rule: Protocol error\n\tct state\n)";
        let words = said(Fail::Failed(text.into(), None));
        assert_eq!(words, "Could not process rule: Protocol error");
        assert_eq!(said(Fail::Refused(403, "not you".into())), "not you");
        let early = about(std::time::UNIX_EPOCH + Duration::from_secs(9));
        assert!(early < about(std::time::UNIX_EPOCH + Duration::from_secs(10)));
    }
}
