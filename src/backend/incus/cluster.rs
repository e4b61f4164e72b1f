//! A server that is a member of a cluster: the others, what is on them, and whether they answer.
//!
//! Where a sandbox goes is the cluster's business. What is done here is to name a target where the
//! user did, to keep a clone beside the snapshot that it shares its disk with, and to tell when a member
//! has gone away: the cluster itself counts on it for some seconds more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use super::client::{Client, Fail, escape};
use super::record::Record;
use crate::sandbox::{Error, Kind, Member, MemberState, Placement, Result};

/// How long a member may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long its answer counts.
const COUNTS: Duration = Duration::from_secs(1);
/// How long the cluster may take to see that a member is gone.
const VERDICT: Duration = Duration::from_secs(90);

/// A snapshot that clones can be made from on every member: an image made of it.
#[derive(Clone)]
pub(super) struct Ready {
    pub record: Record,
    pub fingerprint: String,
}

/// The cluster that a server is a member of.
pub(super) struct Cluster {
    client: Arc<Client>,
    /// Which member a sandbox is on.
    places: Mutex<HashMap<String, String>>,
    /// When a member was asked, and whether it answered.
    answers: tokio::sync::Mutex<HashMap<String, (Instant, bool)>>,
    /// How many processors members have.
    cpus: Mutex<HashMap<String, usize>>,
    /// Snapshots that were made ready, by sandbox and label.
    pub ready: Mutex<HashMap<(String, String), Ready>>,
    /// Held while something is made ready.
    pub preparing: tokio::sync::Mutex<()>,
}

/// What a failed request means for somebody who made it.
pub(super) enum Verdict {
    /// A member that it needs does not answer.
    Away(String),
    /// The cluster has noticed by now which members are there: it may be tried again.
    Again,
    /// It has nothing to do with the cluster.
    Other,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// The cluster of a server, as it tells of itself; nothing when it is alone.
    pub fn of(client: &Arc<Client>, server: &Value) -> Option<Cluster> {
        (server["environment"]["server_clustered"] == true).then(|| Cluster {
            client: Arc::clone(client),
            places: Mutex::default(),
            answers: tokio::sync::Mutex::default(),
            cpus: Mutex::default(),
            ready: Mutex::default(),
            preparing: tokio::sync::Mutex::default(),
        })
    }

    /// Its members, without what only they know themselves.
    pub async fn roster(&self) -> Result<Vec<Member>> {
        Ok(self.told().await?.iter().map(member).collect())
    }

    async fn told(&self) -> Result<Vec<Value>> {
        match self.client.get("/1.0/cluster/members?recursion=1").await {
            Ok(Value::Array(all)) => Ok(all),
            Ok(_) => Ok(Vec::new()),
            Err(fail) => Err(fail.plain("asking for the cluster's members")),
        }
    }

    /// Its members, where `own` is the one that is spoken to. The others are asked when that one goes away.
    pub async fn meet(&self, own: &str) -> Result<Vec<Member>> {
        let all = self.told().await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let told = |member: &Value| Some((text(&member["server_name"])?, text(&member["url"])?));
        self.client.is_member(own, all.iter().filter_map(told));
        Ok(self.measured(all.iter().map(member).collect()).await)
    }

    /// Its members, with their processors and load. One that does not answer is offline.
    pub async fn members(&self) -> Result<Vec<Member>> {
        Ok(self.measured(self.roster().await?).await)
    }

    async fn measured(&self, mut all: Vec<Member>) -> Vec<Member> {
        join_all(all.iter_mut().filter(|member| member.state == MemberState::Online).map(
            async |member| match tokio::time::timeout(ANSWER, self.measure(&member.name)).await {
                Ok(Ok((cpus, load))) => (member.cpus, member.load) = (cpus, load),
                _ => member.state = MemberState::Offline,
            },
        ))
        .await;
        all
    }

    async fn measure(&self, name: &str) -> std::result::Result<(usize, f64), Fail> {
        let state =
            self.client.get(&format!("/1.0/cluster/members/{}/state", escape(name))).await?;
        let load = state["sysinfo"]["load_averages"][0].as_f64().unwrap_or_default();
        let known = lock(&self.cpus).get(name).copied();
        let cpus = match known.or(state["sysinfo"]["logical_cpus"].as_u64().map(|n| n as usize)) {
            Some(cpus) if cpus > 0 => cpus,
            _ => {
                let path = format!("/1.0/resources?target={}", escape(name));
                let resources = self.client.get(&path).await?;
                resources["cpu"]["total"].as_u64().unwrap_or_default() as usize
            }
        };
        lock(&self.cpus).insert(name.to_owned(), cpus);
        Ok((cpus, load))
    }

    /// Refuses a target that nothing can be put on.
    pub async fn check(&self, target: &Placement) -> Result<Vec<Member>> {
        let all = self.roster().await?;
        let names = |all: &mut dyn Iterator<Item = &String>| {
            let mut all: Vec<String> = all.cloned().collect();
            all.sort();
            all.dedup();
            all.join(", ")
        };
        if all.iter().any(|member| member.fits(Some(target))) {
            return Ok(all);
        }
        Err(match target {
            Placement::Member(name) => match all.iter().find(|member| member.name == *name) {
                None => Error::not_found_hint(
                    Kind::Member,
                    name,
                    format!("its members are {}", names(&mut all.iter().map(|m| &m.name))),
                ),
                Some(Member { state: MemberState::Evacuated, .. }) => Error::invalid_hint(
                    "target",
                    format!("member '{name}' of the cluster is evacuated"),
                    format!("choose another one, or bring it back: incus cluster restore {name}"),
                ),
                Some(_) => Error::MemberAway { member: name.clone(), what: "target".into() },
            },
            Placement::Group(name) => {
                let groups = names(&mut all.iter().flat_map(|member| &member.groups));
                let known = all.iter().any(|member| member.groups.contains(name));
                let (message, hint) = match known {
                    true => (
                        format!("no member of group '@{name}' is online"),
                        "see `incus cluster list`".to_owned(),
                    ),
                    false => (
                        format!("no member of the cluster is in group '@{name}'"),
                        format!("its groups are {groups}"),
                    ),
                };
                Error::invalid_hint("target", message, hint)
            }
        })
    }

    /// Remembers where a sandbox is, as the server says.
    pub fn note(&self, instance: &Value) {
        if let (Some(name), Some(place)) =
            (instance["name"].as_str(), instance["location"].as_str())
        {
            lock(&self.places).insert(name.to_owned(), place.to_owned());
        }
    }

    /// Forgets where a sandbox was.
    pub fn forget(&self, name: &str) {
        lock(&self.places).remove(name);
    }

    /// Where a sandbox is, though that member may not answer.
    pub async fn locate(&self, name: &str) -> Option<String> {
        let known = lock(&self.places).get(name).cloned();
        if known.is_some() {
            return known;
        }
        let path = format!("/1.0/instances?recursion=1&filter=name%20eq%20{}", escape(name));
        let found = self.client.get(&path).await.ok()?;
        let instance = found.as_array()?.iter().find(|instance| instance["name"] == name)?;
        self.note(instance);
        instance["location"].as_str().map(str::to_owned)
    }

    /// Whether a member answers. One that fails is asked twice.
    pub async fn answers(&self, member: &str) -> bool {
        if self.client.own() == Some(member) {
            return true;
        }
        let mut all = self.answers.lock().await;
        if let Some((_, answered)) = all.get(member).filter(|(at, _)| at.elapsed() < COUNTS) {
            return *answered;
        }
        let mut answered = false;
        for pause in [Duration::from_millis(300), Duration::ZERO] {
            answered = answers(&self.client, member).await;
            if answered {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        all.insert(member.to_owned(), (Instant::now(), answered));
        answered
    }

    /// The member that holds a sandbox, if it does not answer.
    pub async fn away(&self, name: &str) -> Option<String> {
        let member = self.locate(name).await?;
        (!self.answers(&member).await).then_some(member)
    }

    /// What a failure to make a sandbox means. Where the cluster counts on a member that is gone, this
    /// waits until it has noticed.
    pub async fn verdict(&self, name: &str, fail: &Fail, target: Option<&Placement>) -> Verdict {
        if let Fail::Away(member) = fail {
            return Verdict::Away(member.clone());
        }
        if !matches!(fail, Fail::Refused(500.., _) | Fail::Failed(..) | Fail::Lost(_)) {
            return Verdict::Other;
        }
        self.forget(name);
        let place = self.locate(name).await;
        // What a member was asked that is gone is lost with it, wherever it had it done.
        if let (Fail::Lost(_), Some(member)) = (fail, self.client.left()) {
            return Verdict::Away(member.to_owned());
        }
        if let Some(member) = place {
            return match self.answers(&member).await {
                true => Verdict::Other,
                false => Verdict::Away(member),
            };
        }
        if matches!(fail, Fail::Lost(_)) {
            // Somebody may be at it still.
            return Verdict::Other;
        }
        let Ok(all) = self.roster().await else { return Verdict::Other };
        let mut gone = Vec::new();
        for member in all.iter().filter(|member| member.fits(target)) {
            if !self.answers(&member.name).await {
                gone.push(member.name.clone());
            }
        }
        match (gone.first(), target) {
            (None, _) => return Verdict::Other,
            (Some(member), Some(Placement::Member(_))) => return Verdict::Away(member.clone()),
            _ => {}
        }
        let until = Instant::now() + VERDICT;
        while Instant::now() < until {
            let Ok(all) = self.roster().await else { return Verdict::Other };
            let mut open = false;
            for member in all.iter().filter(|member| member.fits(target)) {
                open |= gone.contains(&member.name) && !self.answers(&member.name).await;
            }
            if !open {
                return Verdict::Again;
            }
            tokio::time::sleep(COUNTS).await;
        }
        Verdict::Other
    }
}

/// Asks a member, by way of the one that is spoken to, for something that costs it little.
pub(super) async fn answers(client: &Client, member: &str) -> bool {
    let path = format!("/1.0/cluster/members/{}/state", escape(member));
    matches!(tokio::time::timeout(ANSWER, client.get(&path)).await, Ok(Ok(_)))
}

fn member(value: &Value) -> Member {
    let groups = value["groups"].as_array().into_iter().flatten();
    Member {
        name: value["server_name"].as_str().unwrap_or_default().to_owned(),
        groups: groups.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        state: match value["status"].as_str() {
            Some("Online") => MemberState::Online,
            Some("Evacuated") => MemberState::Evacuated,
            _ => MemberState::Offline,
        },
        cpus: 0,
        load: 0.0,
    }
}

/// A path with a target in it.
pub(super) fn at(path: &str, target: Option<&Placement>) -> String {
    match target {
        None => path.to_owned(),
        Some(target) => format!("{path}?target={}", escape(&target.to_string())),
    }
}
