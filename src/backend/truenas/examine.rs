//! What a NAS is like, for whoever wants to know what is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::api::Api;
use super::release::{self, Release};
use super::rights::{self, ALL, SHELL};
use super::{Access, TrueNasBackend, TrueNasConfig, Ways};
use crate::sandbox::{Check, Error};
use crate::transport::jsonrpc::{Client, Login, RpcError, release_name};
use crate::transport::{KeySource, Trust};

/// Looks at a NAS step by step, as far as one comes.
pub async fn examine(access: &Access, host: Option<&str>) -> Vec<Check> {
    let mut found = Vec::new();
    match access.config(host) {
        Ok(config) => Examination { config: &config, found: &mut found }.all().await,
        Err(error) => found.push(bad("settings", &error)),
    }
    found
}

fn bad(what: &str, error: &Error) -> Check {
    let says = match error {
        Error::Auth { message } | Error::InvalidInput { message, .. } => message.clone(),
        error => error.to_string(),
    };
    Check::bad(what, says, error.hint().unwrap_or_default())
}

struct Examination<'a> {
    config: &'a TrueNasConfig,
    found: &'a mut Vec<Check>,
}

impl Examination<'_> {
    fn good(&mut self, what: &str, says: impl Into<String>) {
        self.found.push(Check::good(what, says));
    }

    fn poor(&mut self, what: &str, says: impl Into<String>, hint: impl Into<String>) {
        self.found.push(Check::poor(what, says, hint));
    }

    async fn all(&mut self) {
        let Some(release) = self.line().await else { return };
        let user = match &self.config.nas.login {
            Login::ApiKey { user, .. } | Login::Password { user, .. } => user.clone(),
            Login::Token(_) => "root".into(),
        };
        let client = match Client::open(self.config.nas.clone()).await {
            Ok(client) => client,
            Err(error) => {
                let hint = match &error {
                    RpcError::Auth(_) => "look at the key: Credentials > Users > API Keys",
                    _ => "",
                };
                self.found.push(Check::bad("key", error.to_string(), hint));
                return;
            }
        };
        self.good("key", format!("it lets {user} in"));
        let shell = self.rights(&client, &user, release.api).await;
        self.pool(&client, release.api).await;
        let backend = match shell {
            true => TrueNasBackend::open(self.config.clone()).await.ok(),
            false => None,
        };
        self.network(&client, release.api, backend.as_ref()).await;
        self.shell(&user, backend.as_ref()).await;
        self.ssh(backend.as_ref()).await;
    }

    /// Whether one gets there, and to whom.
    async fn line(&mut self) -> Option<Release> {
        let nas = &self.config.nas;
        let place = nas.address.to_string();
        let versions = match Client::look(&nas.address, &nas.trust).await {
            Ok(versions) => versions,
            Err(RpcError::Untrusted(why)) => {
                self.good("reachable", format!("{place} answers"));
                let hint = "if that is the one under Credentials > Certificates there, put fingerprint = \"…\" \
                            into your config.toml";
                self.found.push(Check::bad("certificate", why, hint));
                return None;
            }
            Err(error) => {
                let hint =
                    "look at the name and the port (--host nas.lan:443), and whether it is on";
                self.found.push(Check::bad("reachable", error.to_string(), hint));
                return None;
            }
        };
        self.good("reachable", format!("{place} answers"));
        let certificate = match (nas.address.tls, &nas.trust) {
            (false, _) => "none: it is on this machine",
            (true, Trust::Fingerprint(_)) => "the one that is pinned",
            (true, _) => "an authority vouches for it",
        };
        self.good("certificate", certificate);
        let newest = release_name(versions.newest());
        match release::of(versions.newest(), self.config.assume_release.as_deref()) {
            _ if versions.is_too_old() => {
                let hint = "update it to 25.04, 25.10 or 26";
                self.found.push(Check::bad("release", format!("{newest} is too old"), hint));
                None
            }
            Ok(release) => {
                match &release.unknown {
                    None => self.good("release", newest),
                    Some(newest) => self.poor(
                        "release",
                        format!("{newest} is not known here, and only looked at"),
                        format!(
                            "look for a newer sandscript, or treat it as one that is known: --assume-release {}",
                            release::newest_of(release.api)
                        ),
                    ),
                }
                Some(release)
            }
            Err(error) => {
                self.found.push(bad("release", &error));
                None
            }
        }
    }

    /// What the key's user may. Gives whether that is to open a shell.
    async fn rights(&mut self, client: &Client, user: &str, api: Api) -> bool {
        let me = match client.read("auth.me", json!([])).await {
            Ok(me) => me,
            Err(error) => {
                self.poor(
                    "rights",
                    format!("unknown: {error}"),
                    "look at the NAS's log, /var/log/middlewared.log",
                );
                return true;
            }
        };
        let roles = &me["privilege"]["roles"];
        let roles = roles["$set"].as_array().or(roles.as_array());
        let roles: BTreeSet<&str> = roles.into_iter().flatten().filter_map(Value::as_str).collect();
        let all = roles.contains(ALL);
        let has = |role: &str| {
            let write = role.strip_suffix("_READ").map(|of| format!("{of}_WRITE"));
            all || roles.contains(role)
                || role.ends_with("_READ") && roles.contains("READONLY_ADMIN")
                || write.is_some_and(|write| roles.contains(write.as_str()))
        };
        for (verbs, wanted) in rights::roles(api) {
            let missing: Vec<&str> = wanted.iter().copied().filter(|role| !has(role)).collect();
            match missing.is_empty() {
                true => {
                    let by = if all { ALL.to_owned() } else { wanted.join(", ") };
                    self.good(verbs, format!("by {by}"));
                }
                false => self.poor(
                    verbs,
                    format!("{user} lacks {}", missing.join(", ")),
                    format!("add {} to a privilege of {user}'s group: Credentials > Groups > Privileges", missing.join(" and ")),
                ),
            }
        }
        if api == Api::Container {
            match all {
                true => self.good("clones", format!("by {ALL}")),
                false => self.poor(
                    "clones",
                    format!("{user} lacks {ALL}"),
                    "TrueNAS 26 lets only full administrators make a container of a dataset",
                ),
            }
        }
        let shell = me["privilege"]["web_shell"] != false;
        match shell {
            true => self.good("commands, files", format!("by {SHELL}")),
            false => self.poor(
                "commands, files",
                format!("{user} lacks {SHELL}"),
                format!("tick {SHELL} in a privilege of {user}'s group: Credentials > Groups > Privileges"),
            ),
        }
        shell
    }

    /// Where sandboxes would go.
    async fn pool(&mut self, client: &Client, api: Api) {
        let (config, choices, place) = match api {
            Api::Virt => (
                "virt.global.config",
                "virt.global.pool_choices",
                "Instances > Configuration > Global Settings",
            ),
            Api::Container => ("lxc.config", "container.pool_choices", "Containers > Settings"),
        };
        let unknown = |error: &RpcError| format!("unknown: {error}");
        let config = match client.read(config, json!([])).await {
            Ok(config) => config,
            Err(error) => return self.poor("pool", unknown(&error), lacks(api)),
        };
        let state = config["state"].as_str().unwrap_or("INITIALIZED");
        let set = config["pool"].as_str().or(config["preferred_pool"].as_str());
        if let Some(pool) = &self.config.pool {
            let there = match client.read(choices, json!([])).await {
                Ok(all) => all.as_object().is_some_and(|all| all.contains_key(pool)),
                Err(error) => return self.poor("pool", unknown(&error), lacks(api)),
            };
            if !there {
                let hint =
                    format!("put another pool into your config.toml, or add it there: {place}");
                return self.poor("pool", format!("'{pool}' is none for containers"), hint);
            }
        }
        match (set, state) {
            (_, "INITIALIZED")
                if set.is_some() || api == Api::Container && self.config.pool.is_some() =>
            {
                let pool = self.config.pool.clone().or(set.map(str::to_owned)).unwrap_or_default();
                self.good("pool", pool);
            }
            (None, _) => {
                self.poor("pool", "none is chosen for containers", format!("choose one: {place}"))
            }
            (Some(pool), state) => self.poor(
                "pool",
                format!("{pool} is not ready: {state}"),
                format!("look at {place}; a pool that is locked has to be unlocked"),
            ),
        }
    }

    /// What guests are connected to.
    async fn network(&mut self, client: &Client, api: Api, backend: Option<&TrueNasBackend>) {
        let config = if api == Api::Virt { "virt.global.config" } else { "lxc.config" };
        let bridge = match client.read(config, json!([])).await {
            Ok(config) => {
                config["bridge"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
            }
            Err(error) => {
                return self.poor("network", format!("unknown: {error}"), lacks(api));
            }
        };
        let routes = match client.read("network.general.summary", json!([])).await {
            Ok(summary) => summary["default_routes"].as_array().is_some_and(|all| !all.is_empty()),
            Err(_) => true,
        };
        if !routes {
            return self.poor(
                "network",
                "the NAS has no default route: guests reach nothing outside",
                "set a gateway: System > Network > Global Configuration",
            );
        }
        if let (Some(backend), Some(_)) = (backend, &self.config.network) {
            match backend.0.nic().await {
                Ok(Some(nic)) if nic.bridged => {
                    return self
                        .good("network", format!("guests are on the bridge {}", nic.parent()));
                }
                Ok(Some(nic)) => {
                    let text =
                        format!("guests have cards of their own on {} (macvlan)", nic.parent());
                    return self.good("network", text);
                }
                Ok(None) => {}
                Err(error) => {
                    let hint = error
                        .hint()
                        .unwrap_or_else(|| "look at network in your config.toml".into());
                    return self.poor("network", error.to_string(), hint);
                }
            }
        }
        match bridge {
            Some(bridge) => self.good("network", format!("guests are on the bridge {bridge}")),
            None => self.good("network", "guests are behind the NAS's own bridge"),
        }
    }

    /// What comes of SSH to guests.
    async fn ssh(&mut self, backend: Option<&TrueNasBackend>) {
        let what = "SSH";
        let ssh = match (self.config.ways, &self.config.ssh) {
            (Ways::Shell, _) => return self.good(what, "not used: exec = \"shell\""),
            (_, None) => return self.poor(what, "there is no folder for its key", "set HOME"),
            (_, Some(ssh)) => ssh,
        };
        let key = match &ssh.key {
            KeySource::Made(_) => "a key of our own",
            KeySource::File(_) => "the key that you chose",
            KeySource::Agent(_) => "the agent's keys",
        };
        let by = ssh.jump.as_ref().map(|jump| format!(", by {}", jump.host)).unwrap_or_default();
        let tried = match backend {
            Some(backend) => backend.0.try_ssh().await,
            None => {
                return self.poor(
                    what,
                    "guests' host keys can't be asked for",
                    "see commands, files",
                );
            }
        };
        match tried {
            Ok(()) => self.good(
                what,
                format!("to guests that have egress, an address and an sshd, with {key}{by}"),
            ),
            Err(why) => self.poor(what, why, "look at [truenas.\"…\".ssh] in your config.toml"),
        }
    }

    /// Whether commands can be run on the NAS itself.
    async fn shell(&mut self, user: &str, backend: Option<&TrueNasBackend>) {
        let what = "snapshots";
        let Some(backend) = backend else {
            return self.poor(what, "the NAS's shell can't be opened", "see commands, files");
        };
        let why = match backend.0.host("the NAS's shell", &["id", "-u"], None).await {
            Ok(Ok(user)) if user.trim_ascii() == b"0" => {
                return self.good(what, "the NAS's shell, as its root");
            }
            Ok(Ok(_)) => "it is not its root's".to_owned(),
            Ok(Err(said)) => said,
            Err(error) => error.hint().unwrap_or_else(|| error.to_string()),
        };
        self.poor(
            what,
            format!("the NAS's shell can't be used: {why}"),
            match user {
                "root" => "look at System > Shell there".to_owned(),
                user => {
                    format!("let {user} use sudo without a password: Credentials > Users > {user}")
                }
            },
        );
    }
}
/// What to do for a key that may not ask for the NAS's settings.
fn lacks(api: Api) -> String {
    let role = if api == Api::Virt { "VIRT_GLOBAL_READ" } else { "LXC_CONFIG_READ" };
    format!("add {role} to a privilege of the user's group: Credentials > Groups > Privileges")
}
