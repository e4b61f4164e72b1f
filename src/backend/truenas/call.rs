//! Methods of the NAS that somebody names.

use std::time::Duration;

use serde_json::Value;

use super::Inner;
use super::api::doing;
use crate::sandbox::{Error, Result};
use crate::transport::jsonrpc::RpcError;

/// How long a method that is no job may take.
const LONGEST: Duration = Duration::from_secs(300);

/// What methods are called that only look, whatever they are of.
const LOOKS: &[&str] = &["config", "device_list", "get_instance", "query"];

/// More of them.
const NAMED: &[&str] = &[
    "auth.me",
    "auth.sessions",
    "core.get_jobs",
    "core.get_methods",
    "core.get_services",
    "core.ping",
    "filesystem.getacl",
    "filesystem.listdir",
    "filesystem.stat",
    "filesystem.statfs",
    "network.general.summary",
    "system.boot_id",
    "system.info",
    "system.ready",
    "system.state",
    "system.version",
    "system.version_short",
    "virt.global.get_network",
];

/// Whose answers hold keys, passwords or what they can be found from.
const SECRETS: &[&str] = &[
    "acme.",
    "api_key.",
    "certificate",
    "cloud",
    "directoryservices.",
    "keychaincredential.",
    "kerberos.",
    "kmip.",
    "mail.",
    "replication.",
    "rsynctask.",
    "snmp.",
    "ups.",
    "user.",
    "vmware.",
];

/// Whether a method tells secrets.
fn tells(method: &str) -> bool {
    SECRETS.iter().any(|prefix| method.starts_with(prefix)) && !method.ends_with("_choices")
}

/// Whether a method changes nothing, and tells nothing that a script has no business with.
fn looks(method: &str) -> bool {
    if tells(method) {
        return false;
    }
    let last = method.rsplit('.').next().unwrap_or_default();
    LOOKS.contains(&last) || last.ends_with("_choices") || NAMED.contains(&method)
}

impl Inner {
    /// Calls a method that a script names.
    pub(super) async fn call(
        &self,
        method: &str,
        params: Vec<Value>,
        change: bool,
    ) -> Result<Value> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        if method.is_empty() || !method.chars().all(word) {
            return Err(Error::invalid_hint(
                "method",
                format!("'{method}' is no name of a method"),
                "name it as the NAS's API documentation does: pool.query",
            ));
        }
        let params = Value::Array(params);
        let done = if looks(method) {
            self.client.read(method, params).await
        } else {
            if !change {
                let what = if tells(method) { "may tell secrets of" } else { "may change" };
                return Err(Error::invalid_hint(
                    "method",
                    format!("'{method}' {what} the NAS"),
                    "if it is meant, allow that: --allow-call",
                ));
            }
            self.may(method)?;
            self.client.perform(method, params, LONGEST).await
        };
        match done {
            Ok(answer) => Ok(answer),
            Err(RpcError::Refused(refusal)) if refusal.is_no_method() => {
                Err(self.no_method(method).await)
            }
            Err(error) => Err(doing(error, method)),
        }
    }

    /// What there is instead of a method that there is not.
    async fn no_method(&self, method: &str) -> Error {
        let all = self.client.read("core.get_methods", Value::Array(Vec::new())).await;
        let all = all.unwrap_or_default();
        let names = all.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let hint = match crate::suggest::nearest(method, names) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!(
                "its API documentation has them all: https://{}/api/docs",
                self.client.address()
            ),
        };
        Error::invalid_hint("method", format!("this NAS has no method '{method}'"), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_something_is_told_apart() {
        for method in ["pool.query", "virt.global.config", "lxc.bridge_choices", "core.ping"] {
            assert!(looks(method), "{method}");
        }
        for method in
            ["certificate.query", "user.query", "mail.config", "cloudsync.credentials.query"]
        {
            assert!(!looks(method) && tells(method), "{method}");
        }
        for method in ["pool.create", "auth.generate_token", "query.x", "container.start", "", "x"]
        {
            assert!(!looks(method), "{method}");
        }
    }
}
