//! What encloses a sandbox whose guest keeps to rules: a network of its own, with an ACL on it that the server's
//! kernel keeps to. The guest's guard tells names, counts and cuts; what its root makes of that, nothing gets
//! further than the addresses that the policy allows.
//!
//! An ACL is changed at one blow. A network is never changed: meanwhile the server has no rules for it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use hyper::Method;
use serde_json::{Map, Value, json};

use super::bounds::{self, Found};
use super::client::Fail;
use super::record::{self, Record, token};
use super::{IncusBackend, IncusConfig, Inner};
use crate::backend::guest::{Ground, is_ruled};
use crate::egress::{Kind, Resolver};
use crate::sandbox::{Check, Cidr, Error, Policy, Result, State, wall_clock};

/// What is looked at.
const WHAT: &str = "network ACLs";
/// Before the name of a network or an ACL of ours.
const PREFIX: &str = "ss";
/// The key that says whose a network or an ACL is, and since when.
const OF: &str = "user.sandscript.fence";
/// The key that is another one with each change of an ACL.
const CHANGE: &str = "user.sandscript.change";
/// The server's key that says that it can't, which version of it, and why.
pub(super) const NO: &str = "user.sandscript.no-fences";
/// Where networks of ours are; no rule opens any of it.
const RANGE: ([u8; 2], u8) = ([198, 19], 16);
/// How often another place in there is tried.
const TRIES: u32 = 20;
/// How often names are looked up for sandboxes that are worked with.
const FRESH: Duration = Duration::from_secs(30);
/// The same where one was not found.
const SOON: Duration = Duration::from_secs(3);
/// What is made without a sandbox for longer goes.
const LEFT: Duration = Duration::from_secs(3600);
/// Where rules are kept to in any case.
const INSTEAD: &str =
    "rules are kept to inside the guest: docs/egress.md, \"Rules inside the guest\"";

/// Whether there can be fences, and those of sandboxes that are worked with.
pub(super) struct Fences {
    resolver: Resolver,
    /// Why there are none; not known yet.
    why: tokio::sync::OnceCell<Option<String>>,
    /// The server has refused one.
    refused: AtomicBool,
    /// The addresses that names had, by sandbox.
    kept: Mutex<HashMap<String, Found>>,
    /// Sandboxes whose names somebody here sees to.
    seen: Mutex<HashSet<String>>,
}

impl Fences {
    pub fn new(servers: Vec<std::net::SocketAddr>) -> Fences {
        Fences {
            resolver: Resolver::new(servers),
            why: tokio::sync::OnceCell::new(),
            refused: AtomicBool::new(false),
            kept: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Found>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a sandbox was enclosed from here.
    pub fn has(&self, name: &str) -> bool {
        self.kept().contains_key(name)
    }

    /// Whether nobody sees to a sandbox yet; from now on somebody does.
    fn begins(&self, name: &str) -> bool {
        self.seen().insert(name.to_owned())
    }

    /// Forgets a sandbox.
    pub fn forget(&self, name: &str) {
        self.kept().remove(name);
    }
}

/// The range of all networks of ours.
fn range() -> Option<Cidr> {
    let ([first, second], prefix) = RANGE;
    Cidr::new(IpAddr::from([first, second, 0, 0]), prefix).ok()
}

/// Somewhere in it.
fn somewhere() -> String {
    let mut bytes = [0u8; 2];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let ([first, second], _) = RANGE;
    format!("{first}.{second}.{}.{}/29", bytes[0], (bytes[1] & 0xf8) | 1)
}

/// The names of a sandbox's two possible networks: where every name may be asked for, and where none.
fn names_of(record: &Record) -> [String; 2] {
    let id: String = record.token.chars().take(12).collect();
    [format!("{PREFIX}{id}o"), format!("{PREFIX}{id}c")]
}

/// Whether a network is one of ours, by its name.
pub(super) fn is_ours(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX).unwrap_or_default();
    id.len() == 13
        && id[..12].bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.ends_with(['o', 'c'])
}

/// The network that encloses a sandbox under its policy.
pub(super) fn network(record: &Record) -> String {
    let [open, closed] = names_of(record);
    if bounds::is_open(&record.egress) { open } else { closed }
}

/// The interfaces of an enclosed sandbox: one, and no other of the profile's.
pub(super) fn cards(record: &Record, networks: &Map<String, Value>) -> Map<String, Value> {
    let first = if networks.contains_key("eth0") { Some("eth0") } else { None };
    let first = first.or_else(|| networks.keys().next().map(String::as_str)).unwrap_or("eth0");
    let card = |name: &String| match name == first {
        true => json!({"type": "nic", "name": first, "network": network(record)}),
        false => json!({"type": "none"}),
    };
    networks.keys().map(|name| (name.clone(), card(name))).collect()
}

fn about(when: SystemTime, name: &str) -> String {
    let seconds = when.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{seconds:012} {name}")
}

/// Whether this is how a server refuses that will do so again: its kernel can't, or the client may not.
fn is_for_good(fail: &Fail) -> bool {
    match fail {
        Fail::Refused(401 | 403, _) => true,
        Fail::Refused(_, text) | Fail::Failed(text, _) => {
            ["Could not process rule", "nftables config", "not supported", "Failed to run: nft"]
                .iter()
                .any(|words| text.contains(words))
        }
        _ => false,
    }
}

/// What the server says, without the rules themselves.
fn said(fail: &Fail) -> String {
    let text = match fail {
        Fail::Refused(_, text) | Fail::Failed(text, _) => text.clone(),
        fail => fail.clone().plain(WHAT).to_string(),
    };
    let first = text.lines().next().unwrap_or_default();
    first.rsplit("Error: ").next().unwrap_or(first).trim().to_owned()
}

/// What there is to say of a server before it is worked with: nothing where it can't be reached, or where its
/// machine is ours to enforce rules on.
pub async fn examine(config: IncusConfig) -> Vec<Check> {
    let Ok(IncusBackend(inner)) = IncusBackend::open(config).await else { return Vec::new() };
    if inner.host.is_ok() || inner.cluster.is_some() {
        return Vec::new();
    }
    let why = match inner.prevented().await {
        // It is so for this client, not for the server.
        Some(why) => Some(why),
        None => {
            let refused = inner.try_one().await.err();
            let no = refused.as_ref().filter(|fail| is_for_good(fail)).map(said);
            if inner.marked_no.is_some() || no.is_some() {
                inner.mark(no.as_deref()).await;
            }
            refused.as_ref().map(said)
        }
    };
    vec![match why {
        None => Check::good(
            WHAT,
            "the server keeps to rules about addresses and plain names, too: root in a guest can't undo them",
        ),
        Some(why) => Check::poor(WHAT, why, INSTEAD),
    }]
}

impl Inner {
    /// Why there is no use in trying.
    async fn prevented(&self) -> Option<String> {
        if !self.by_guests() || self.cluster.is_some() {
            return Some("a network is the whole cluster's".into());
        }
        if self.without_acls {
            return Some("they are not to be used".into());
        }
        if !self.pool.networks.values().any(|card| card["network"].is_string()) {
            return Some(
                "not tried: the profile 'default' has no interface in a managed network".into(),
            );
        }
        match self.client.project() {
            None | Some("default") => None,
            Some(_) => Some("not tried: bridges are of the project 'default' only".into()),
        }
    }

    /// Makes one, and takes it away.
    async fn try_one(&self) -> std::result::Result<(), Fail> {
        let record = Record { token: token(), ..Record::default() };
        let name = network(&record);
        let rule = json!({"action": "allow", "state": "enabled", "destination": "192.0.2.1"});
        let done = self.put_up(&name, "", vec![rule], true).await;
        self.take_down(&name).await;
        done
    }

    /// Writes down on the server that it can't, and why; or that nothing is known against it.
    async fn mark(&self, why: Option<&str>) {
        let note = why.map_or(String::new(), |why| format!("{} {why}", self.version));
        // Whoever may not write it down tries it again.
        let _ = self.client.run(Method::PATCH, "/1.0", &json!({"config": {(NO): note}})).await;
    }

    /// Why a sandbox is not enclosed; nothing where it is.
    async fn unfenced(&self, record: &Record) -> Option<String> {
        if !is_ruled(record) || super::hardware::has_card(&record.hardware) {
            return Some("it has an interface of its own".into());
        }
        if bounds::names(&record.egress).is_none() {
            return Some("addresses can't say what the policy does".into());
        }
        // One that is there is not given up for what others were refused.
        if record.fence && !self.without_acls {
            return None;
        }
        if self.fences.refused.load(Ordering::Relaxed) {
            return Some("the server refuses it".into());
        }
        let known = self.fences.why.get_or_init(|| async {
            let noted = self.marked_no.as_ref().and_then(|no| no.split_once(' '));
            match noted.filter(|(version, _)| *version == self.version) {
                Some((_, why)) => Some(why.to_owned()),
                None => self.prevented().await,
            }
        });
        known.await.clone()
    }

    /// Encloses a sandbox as its policy says, or changes what it is enclosed by. Whether it is: else its guest
    /// alone keeps to the rules.
    pub(super) async fn enclose(&self, name: &str, record: &Record) -> Result<bool> {
        if self.unfenced(record).await.is_some() {
            return Ok(false);
        }
        let ground = self.ground().await?;
        if ground.unknown.is_some() {
            return Ok(false);
        }
        let found = self.look_up(name, &record.egress).await;
        let rules = self.bound(record, &found, &Found::new(), &ground);
        let fence = network(record);
        let path = format!("/1.0/network-acls/{fence}");
        let doing = format!("enclosing sandbox '{name}'");
        self.fences.kept().insert(name.to_owned(), found);
        // One that is there was made whole, or is made so now.
        let there = self.client.get(&format!("/1.0/networks/{fence}")).await;
        match there {
            Ok(_) => match self.client.run(Method::PUT, &path, &acl(name, rules)).await {
                Ok(_) => return Ok(true),
                Err(fail) => return Err(fail.plain(&doing)),
            },
            Err(fail) if fail.is_missing() => {}
            Err(Fail::Refused(401 | 403, _)) if !record.fence => return Ok(false),
            Err(fail) => return Err(fail.plain(&doing)),
        }
        match self.put_up(&fence, name, rules, bounds::is_open(&record.egress)).await {
            Ok(()) => Ok(true),
            Err(fail) if is_for_good(&fail) && !record.fence => {
                self.take_down(&fence).await;
                self.fences.forget(name);
                self.mark(Some(&said(&fail))).await;
                // Known by now, so that the next one is not tried.
                self.fences.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(fail) => Err(fail.plain(&doing)),
        }
    }

    /// The same after a record was written down. Others that write one write it before they enclose, so that
    /// whoever is last to enclose sees what is last written.
    pub(super) async fn enclose_as_written(&self, name: &str, record: &Record) -> Result<()> {
        let mut record = record.clone();
        for _ in 0..TRIES {
            self.enclose(name, &record).await?;
            let (_, later) = self.instance(name).await?;
            if !later.fence || later.egress == record.egress {
                return Ok(());
            }
            record = later;
        }
        Err(super::settings::contended(name))
    }

    fn bound(&self, record: &Record, found: &Found, before: &Found, ground: &Ground) -> Vec<Value> {
        let mut all = found.clone();
        // Somebody may have been told the last ones just now.
        for (name, addresses) in before {
            let now = all.entry(name.clone()).or_default();
            now.extend(
                addresses
                    .iter()
                    .filter(|one| !found.get(name).is_some_and(|all| all.contains(one))),
            );
        }
        let Some(own) = range() else { return Vec::new() };
        bounds::rules(&record.egress, &all, &ground.hosts, &own)
    }

    /// The addresses of a policy's names. Where nobody answers, what was known here holds; else there are none.
    async fn look_up(&self, sandbox: &str, policy: &Policy) -> Found {
        let names = bounds::names(policy).unwrap_or_default();
        let asked = names.into_iter().map(async |name| {
            let found = self.fences.resolver.find(name, Kind::A).await;
            let mut addresses = found.map(|(found, _)| found.addresses).unwrap_or_default();
            addresses.sort_unstable();
            addresses.dedup();
            (name.to_owned(), addresses)
        });
        let mut found: Found = futures_util::future::join_all(asked).await.into_iter().collect();
        let known = self.fences.kept();
        let known = known.get(sandbox);
        for (name, addresses) in found.iter_mut().filter(|(_, addresses)| addresses.is_empty()) {
            *addresses = known.and_then(|all| all.get(name)).cloned().unwrap_or_default();
        }
        found
    }

    /// What a guest's guard has to know of its names.
    pub(super) fn told(&self, name: &str, record: &Record, ground: &Ground) -> Ground {
        let kept = self.fences.kept().get(name).cloned();
        let fixed = kept.filter(|_| record.fence).unwrap_or_default();
        Ground { fixed, ..ground.clone() }
    }

    /// Makes an ACL and a network that it holds for.
    async fn put_up(
        &self,
        fence: &str,
        name: &str,
        rules: Vec<Value>,
        open: bool,
    ) -> std::result::Result<(), Fail> {
        let mut body = acl(name, rules);
        body["name"] = fence.into();
        match self.client.post("/1.0/network-acls", &body).await {
            Ok(()) => {}
            // Of a try that was cut off.
            Err(Fail::Refused(409 | 400, text)) if text.contains("already") => {
                let path = format!("/1.0/network-acls/{fence}");
                self.client.run(Method::PUT, &path, &body).await.map(drop)?;
            }
            Err(fail) => return Err(fail),
        }
        let mut config = json!({
            "ipv4.nat": "true", "ipv6.address": "none", "security.acls": fence,
            "security.acls.default.egress.action": "reject",
            "security.acls.default.ingress.action": "reject",
            (OF): about(wall_clock(), name),
        });
        if !open {
            // Its guard knows all names that it may tell.
            config["raw.dnsmasq"] = "no-resolv\n".into();
        }
        let mut tries = 0;
        loop {
            config["ipv4.address"] = somewhere().into();
            let body = json!({"name": fence, "type": "bridge", "config": config});
            tries += 1;
            match self.client.post("/1.0/networks", &body).await {
                Ok(()) => return Ok(()),
                // Somebody else encloses the same sandbox: by the ACL that was just made whole.
                Err(Fail::Refused(_, text)) if text.contains("already exists") => return Ok(()),
                // Somebody else is there, or the machine's interfaces changed while they were looked at.
                Err(Fail::Refused(_, text))
                    if tries < TRIES
                        && (text.contains("already in use")
                            || text.contains("no such network")
                            || text.contains("does not exist")) =>
                {
                    let _ = self.client.remove(&format!("/1.0/networks/{fence}")).await;
                }
                Err(fail) => return Err(fail),
            }
        }
    }

    async fn take_down(&self, fence: &str) {
        // What stays goes with the next gc.
        for kind in ["networks", "network-acls"] {
            let mut pause = Duration::from_millis(20);
            for _ in 0..TRIES {
                match self.client.remove(&format!("/1.0/{kind}/{fence}")).await {
                    Ok(_) => break,
                    Err(fail) if fail.is_missing() => break,
                    // The server is not yet done with what had it.
                    Err(Fail::Refused(..) | Fail::Failed(..)) => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 3 / 2).min(Duration::from_millis(200));
                    }
                    Err(_) => break,
                }
            }
        }
    }

    /// Takes away what a sandbox was enclosed by that is no more.
    pub(super) async fn open_up(&self, name: &str, record: &Record) {
        self.fences.forget(name);
        for fence in names_of(record) {
            self.take_down(&fence).await;
        }
    }

    /// Takes away what has enclosed sandboxes that are no more; how many.
    pub(super) async fn collect_fences(&self, dry_run: bool) -> Result<usize> {
        // Others see networks without the sandboxes that they are of.
        let sees_all = matches!(self.client.project(), None | Some("default"));
        if !self.by_guests() || self.cluster.is_some() || !sees_all {
            return Ok(0);
        }
        let Some(over) = wall_clock().checked_sub(LEFT).map(|when| about(when, "")) else {
            return Ok(0);
        };
        let mut left = Vec::new();
        for kind in ["networks", "network-acls"] {
            let all = match self.client.get(&format!("/1.0/{kind}?recursion=1")).await {
                Ok(all) => all,
                Err(Fail::Refused(..)) => return Ok(0),
                Err(fail) => return Err(fail.plain("looking for networks")),
            };
            for one in all.as_array().into_iter().flatten() {
                let name = one["name"].as_str().unwrap_or_default();
                let unused = one["used_by"].as_array().is_none_or(Vec::is_empty);
                // Both are times of one form.
                let old = one["config"][OF].as_str().is_some_and(|at| at < &*over);
                if is_ours(name) && unused && old && !left.contains(&name.to_owned()) {
                    left.push(name.to_owned());
                }
            }
        }
        let instances = match left.is_empty() {
            true => return Ok(0),
            false => self.client.get("/1.0/instances?recursion=1").await,
        };
        let instances = instances.map_err(|fail| fail.plain("listing sandboxes"))?;
        let living: Vec<String> = instances
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Record::read)
            .flat_map(|record| names_of(&record))
            .collect();
        left.retain(|name| !living.contains(name));
        if !dry_run {
            for name in &left {
                self.take_down(name).await;
            }
        }
        Ok(left.len())
    }
}

fn acl(name: &str, rules: Vec<Value>) -> Value {
    json!({
        "description": "Made by sandscript", "egress": rules, "ingress": [],
        // No two are alike: whoever changes one that somebody else has changed is told by its tag.
        "config": {(OF): about(wall_clock(), name), (CHANGE): token()},
    })
}

impl Inner {
    /// Keeps the addresses fresh of an enclosed sandbox that is worked with, as long as this process does.
    pub(super) fn keep_fresh(self: &Arc<Self>, name: &str, record: &Record) {
        if !(record.fence || self.fences.has(name))
            || !self.by_guests()
            || !self.fences.begins(name)
        {
            return;
        }
        tokio::spawn(freshen(Arc::downgrade(self), name.to_owned()));
    }

    /// Looks its names up once more; false when there is nothing more to do for it.
    async fn renew(&self, name: &str) -> Result<bool> {
        let turn = self.changes.of(name);
        let _alone = turn.write().await;
        let Ok((instance, record)) = self.instance(name).await else { return Ok(false) };
        if !record.fence || record::state(&instance) != State::Running {
            return Ok(false);
        }
        let path = format!("/1.0/network-acls/{}", network(&record));
        let get = self.client.get_tagged(&path).await;
        let (now, tag) = get.map_err(|fail| fail.plain("looking its names up"))?;
        // Whoever changes the policy changes this last: else it is another one's tag.
        let (instance, record) = self.instance(name).await?;
        let found = self.look_up(name, &record.egress).await;
        let before = self.fences.kept().get(name).cloned();
        if before.as_ref() == Some(&found) {
            return Ok(true);
        }
        let ground = self.ground().await?;
        let rules = self.bound(&record, &found, &before.unwrap_or_default(), &ground);
        let same = now["egress"] == json!(rules);
        if !same {
            let done = self.client.put_tagged(&path, &tag, &acl(name, rules)).await;
            if !done.map_err(|fail| fail.plain("changing its network ACL"))? {
                return Ok(true);
            }
        }
        self.fences.kept().insert(name.to_owned(), found);
        if !same {
            self.enforce(name, &record, &instance).await?;
            // Whoever has changed the policy meanwhile, from another process, is not overruled.
            let (instance, later) = self.instance(name).await?;
            if later.egress != record.egress && record::state(&instance) == State::Running {
                self.enclose(name, &later).await?;
                self.enforce(name, &later, &instance).await?;
            }
        }
        Ok(true)
    }
}

/// Sees to a sandbox's names until it is no more worked with.
async fn freshen(inner: Weak<Inner>, name: String) {
    let mut known = inner.upgrade().is_some_and(|inner| inner.fences.has(&name));
    let mut pause = SOON;
    loop {
        // Another process may have looked them up long ago.
        if std::mem::replace(&mut known, false) {
            tokio::time::sleep(pause).await;
        }
        let Some(inner) = inner.upgrade() else { return };
        let goes_on = match inner.renew(&name).await {
            Ok(goes_on) => goes_on,
            Err(Error::NotFound { .. } | Error::NotRunning { .. }) => false,
            Err(_) => true,
        };
        if !goes_on {
            inner.fences.seen().remove(&name);
            return;
        }
        known = true;
        let unknown = |found: &Found| found.values().any(Vec::is_empty);
        pause = match inner.fences.kept().get(&name).is_some_and(unknown) {
            true => SOON,
            false => FRESH,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_are_found() {
        let text = "Failed to start device \"eth0\": Failed apply nftables config: Failed to run: nft -f -: \
            exit status 1 (/dev/stdin:9:2-9: Error: Could not process rule: Protocol error\n\tct state\n)";
        let fail = Fail::Failed(text.into(), None);
        assert_eq!(said(&fail), "Could not process rule: Protocol error");
        assert!(is_for_good(&fail));
        let fail = Fail::Refused(403, "not you".into());
        assert!(said(&fail) == "not you" && is_for_good(&fail));
        assert!(!is_for_good(&Fail::Refused(503, "Incus is shutting down".into())));
        let early = about(std::time::UNIX_EPOCH + Duration::from_secs(9), "z");
        assert!(early < about(std::time::UNIX_EPOCH + Duration::from_secs(10), "a"));
    }

    #[test]
    fn a_fence_is_of_one_sandbox() {
        let record = Record { token: token(), ..Record::default() };
        for name in names_of(&record) {
            assert!(is_ours(&name) && name.len() == 15, "{name}");
        }
        assert!(!is_ours("incusbr0") && !is_ours("ssh0") && !is_ours("ssincus1"));
        for _ in 0..50 {
            let place = somewhere();
            let (address, _) = place.split_once('/').unwrap();
            assert!(range().unwrap().has(address.parse().unwrap()), "{place}");
        }
        let networks =
            Map::from_iter(["eth0", "lan"].map(|name| (name.to_owned(), json!({"type": "nic"}))));
        let cards = cards(&record, &networks);
        assert_eq!(
            (&cards["eth0"]["type"], &cards["lan"]["type"]),
            (&json!("nic"), &json!("none"))
        );
    }
}
