//! What the words of policies mean here, and what may never be allowed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::ask::{Asker, Origin};
use super::asked::Asked;
use super::preset::{PresetSpec, REGISTRIES, builtin, flatten, unknown};
use super::sources::Answer;
use crate::sandbox::{Action, Error, Info, Policy, Preset, Result, Rule, Ruleset};

/// What an operator lays down for all policies that are set while it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The policy of what is made from an image and names none.
    pub egress: Option<Asked>,
    /// What no policy allows, whatever scripts, presets and commands say.
    pub forbid: Vec<Rule>,
}

/// The presets there are, the operator's own mirrors, and the profile that holds.
#[derive(Debug)]
pub struct Catalog {
    presets: BTreeMap<String, PresetSpec>,
    mirrors: Vec<Rule>,
    ask: bool,
    profile: Option<Profile>,
    profiles: BTreeMap<String, Profile>,
    folder: Option<PathBuf>,
    known: Mutex<BTreeMap<String, Answer>>,
}

/// A policy that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The policy.
    pub policy: Policy,
    /// What could not be found out, in sentences; only when tools were asked for it now.
    pub notes: Vec<String>,
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog {
            presets: builtin(),
            mirrors: Vec::new(),
            ask: true,
            profile: None,
            profiles: BTreeMap::new(),
            folder: None,
            known: Mutex::default(),
        }
    }
}

impl Catalog {
    /// With presets of the user's own, over those that come with sandscript.
    pub fn presets(mut self, presets: BTreeMap<String, PresetSpec>) -> Self {
        self.presets.extend(presets);
        self
    }

    /// With rules that belong to `registries` whatever the guest's tools say, and whether these are
    /// asked at all.
    pub fn registries(mut self, mirrors: Vec<Rule>, ask: bool) -> Self {
        (self.mirrors, self.ask) = (mirrors, ask);
        self
    }

    /// With a profile that holds.
    pub fn profile(mut self, profile: Option<Profile>) -> Self {
        self.profile = profile;
        self
    }

    /// The profile that holds.
    pub fn held_by(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// With profiles that a policy may name. A preset of the same name is what counts.
    pub fn profiles(mut self, profiles: BTreeMap<String, Profile>) -> Self {
        self.profiles = profiles;
        self
    }

    /// With a folder for what the tools of images said, from one run to the next.
    pub fn folder(mut self, folder: Option<PathBuf>) -> Self {
        self.folder = folder;
        self
    }

    /// The names of all presets, then of all profiles.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.presets.keys().chain(self.profiles.keys()).map(String::as_str)
    }

    /// The policy of what is made from an image and names none.
    pub fn standard(&self) -> Asked {
        self.profile.as_ref().and_then(|profile| profile.egress.clone()).unwrap_or_default()
    }

    /// Fails when a preset or profile is not there, without asking anybody.
    pub fn check(&self, asked: &Asked) -> Result<()> {
        match self.spell_out(asked)? {
            Asked::Rules { preset: Some(name), .. } => flatten(&self.presets, &name).map(drop),
            _ => Ok(()),
        }
    }

    /// What is asked for, with what a profile says in the place of its name.
    fn spell_out(&self, asked: &Asked) -> Result<Asked> {
        let Asked::Rules { preset: Some(name), rules } = asked else { return Ok(asked.clone()) };
        if self.presets.contains_key(name) {
            return Ok(asked.clone());
        }
        let Some(profile) = self.profiles.get(name) else {
            return Err(unknown(self.names(), name));
        };
        let Some(egress) = profile.egress.clone() else {
            return Err(Error::invalid_hint(
                "egress",
                format!("the profile '{name}' says no policy, only what it forbids"),
                "add a line such as egress = \"agent\" to it in the user's configuration",
            ));
        };
        let forbidden = profile.forbid.iter().map(|rule| rule.with(Action::Deny));
        let before: Vec<Rule> = match egress {
            // Nothing is allowed, so nothing has to be forbidden.
            Asked::None => rules.clone(),
            _ => forbidden.chain(rules.iter().cloned()).collect(),
        };
        egress.with(before).ok_or_else(|| {
            Error::invalid_hint(
                "egress",
                format!("the policy of profile '{name}' takes no rules"),
                "name a preset in its 'egress', or allow \"*\" there, which is everything public",
            )
        })
    }

    /// The policy that was asked for. A preset is looked up now; where it has `registries` in it, the
    /// tools of the origin are asked, unless it is known what they say.
    pub async fn resolve(
        &self,
        asked: &Asked,
        asker: &Asker<'_>,
        origin: &Origin,
    ) -> Result<Resolved> {
        if let Asked::Rules { rules, .. } = asked {
            rules.iter().try_for_each(|rule| self.may_be_allowed(rule))?;
        }
        if let Some(policy) = asked.plain() {
            return Ok(Resolved { policy: self.guard(policy)?, notes: Vec::new() });
        }
        if let Some(policy) = self.stored(asked, asker, origin).await? {
            return Ok(Resolved { policy: self.guard(policy)?, notes: Vec::new() });
        }
        let asked = self.spell_out(asked)?;
        let (policy, notes) = match &asked {
            Asked::Rules { preset: Some(name), rules } => {
                // A profile's preset may be the one that it has.
                match self.stored(&asked, asker, origin).await? {
                    Some(policy) => (policy, Vec::new()),
                    None => {
                        let (preset, notes) = self.preset(name, asker, origin, true).await?;
                        let rules = rules.clone();
                        (Policy::Rules(Ruleset { preset: Some(preset), rules }), notes)
                    }
                }
            }
            other => (other.plain().unwrap_or_default(), Vec::new()),
        };
        Ok(Resolved { policy: self.guard(policy)?, notes })
    }

    /// A policy as it would be if it were set now: its preset is looked up again, and the tools of the
    /// origin are asked again.
    pub async fn refresh(
        &self,
        policy: &Policy,
        asker: &Asker<'_>,
        origin: &Origin,
    ) -> Result<Resolved> {
        let Policy::Rules(Ruleset { preset: Some(old), rules }) = policy else {
            return Err(Error::invalid_hint(
                "egress",
                format!("the policy '{policy}' has no preset that could be looked up again"),
                "change its rules with allow and deny",
            ));
        };
        let (preset, notes) = self.preset(&old.name, asker, origin, false).await?;
        let rules = rules.clone();
        let policy = self.guard(Policy::Rules(Ruleset { preset: Some(preset), rules }))?;
        Ok(Resolved { policy, notes })
    }

    /// The policy with one more rule. What the profile forbids stays closed.
    pub fn allow(&self, policy: &Policy, rule: &Rule) -> Result<Policy> {
        self.may_be_allowed(rule)?;
        let mut policy = policy.clone();
        policy.allow(rule)?;
        self.guard(policy)
    }

    /// Fails for a rule that lies in what the profile forbids: it would allow nothing.
    fn may_be_allowed(&self, rule: &Rule) -> Result<()> {
        let Some(profile) = &self.profile else { return Ok(()) };
        let covers = |other: &&Rule| rule.action == Action::Allow && other.covers(rule);
        match profile.forbid.iter().find(covers) {
            None => Ok(()),
            Some(forbidden) => Err(Error::invalid_hint(
                "egress",
                format!(
                    "the profile '{}' forbids '{}'",
                    profile.name,
                    forbidden.with(Action::Allow)
                ),
                "who has set it up can take it out of 'forbid' in the user's configuration",
            )),
        }
    }

    /// Whether a rule can be added as it is: nothing of it is forbidden.
    pub fn is_free(&self, rule: &Rule) -> bool {
        !self.forbidden().any(|other| other.overlaps(rule))
    }

    fn forbidden(&self) -> impl Iterator<Item = &Rule> {
        self.profile.iter().flat_map(|profile| &profile.forbid)
    }

    /// Puts what is forbidden in front of all rules.
    fn guard(&self, policy: Policy) -> Result<Policy> {
        let forbidden: Vec<Rule> = self.forbidden().map(|rule| rule.with(Action::Deny)).collect();
        let Some(profile) = self.profile.as_ref().filter(|_| !forbidden.is_empty()) else {
            return Ok(policy);
        };
        match policy {
            Policy::Rules(mut rules) => {
                rules.rules.retain(|rule| !forbidden.contains(rule));
                rules.rules.splice(0..0, forbidden);
                Ok(Policy::Rules(rules))
            }
            Policy::Unrestricted => Err(Error::invalid_hint(
                "egress",
                format!(
                    "the profile '{}' forbids some hosts, so nothing is unrestricted",
                    profile.name
                ),
                "allow \"*\" instead, which is everything public",
            )),
            other => Ok(other),
        }
    }

    /// The policy with what its preset stood for when the sandbox got it: a sandbox in which something
    /// ran already keeps that.
    async fn stored(
        &self,
        asked: &Asked,
        asker: &Asker<'_>,
        origin: &Origin,
    ) -> Result<Option<Policy>> {
        let (Origin::Sandbox(sandbox), Asked::Rules { preset: Some(name), rules }) =
            (origin, asked)
        else {
            return Ok(None);
        };
        Ok(match asker.backend.policy(sandbox, asker.cancel).await? {
            Policy::Rules(Ruleset { preset: Some(preset), .. }) if preset.name == *name => {
                Some(Policy::Rules(Ruleset { preset: Some(preset), rules: rules.clone() }))
            }
            _ => None,
        })
    }

    async fn preset(
        &self,
        name: &str,
        asker: &Asker<'_>,
        origin: &Origin,
        known: bool,
    ) -> Result<(Preset, Vec<String>)> {
        let (mut rules, asks) = flatten(&self.presets, name)?;
        let mut notes = Vec::new();
        if asks {
            let mut answer = Answer::default();
            if self.ask {
                answer = self.answer(asker, origin, known).await?;
            }
            let theirs = answer.rules();
            for rule in self.mirrors.iter().chain(&theirs) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            notes = answer.notes;
            for source in &answer.closed {
                if !self.mirrors.iter().any(|rule| rule.covers(&source.rule)) {
                    notes.push(format!(
                        "{} fetches from {}, a private address, which a guest's own word does not open: \
                         list it under [egress.registries] if it may",
                        source.tool, source.rule
                    ));
                }
            }
            if name == REGISTRIES && rules.is_empty() && !asker.dry {
                notes.push(
                    "no tool here says where it fetches from, so 'registries' allows nothing"
                        .into(),
                );
            }
        }
        Ok((Preset { name: name.to_owned(), rules }, notes))
    }

    async fn answer(&self, asker: &Asker<'_>, origin: &Origin, known: bool) -> Result<Answer> {
        let origin = pristine(asker, origin).await?;
        let (key, lasting) = key(asker, &origin).await?;
        if known && let Some(answer) = self.recall(&key, lasting) {
            // It was told when they were asked.
            return Ok(Answer { notes: Vec::new(), closed: Vec::new(), ..answer });
        }
        if asker.dry {
            return Ok(Answer::default());
        }
        let answer = asker.ask(&origin).await?;
        self.remember(&key, lasting, &answer);
        Ok(answer)
    }

    fn recall(&self, key: &str, lasting: bool) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if known.is_some() || !lasting {
            return known;
        }
        let text = std::fs::read(self.folder.as_ref()?.join(format!("{key}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn remember(&self, key: &str, lasting: bool, answer: &Answer) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key.to_owned(), answer.clone());
        // What could not be found out now may be the next time.
        let (true, Some(folder)) = (lasting && answer.notes.is_empty(), &self.folder) else {
            return;
        };
        let write = || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let new = folder.join(format!("{key}.{}", std::process::id()));
            std::fs::write(&new, serde_json::to_vec(answer)?)?;
            std::fs::rename(&new, folder.join(format!("{key}.json")))
        };
        // Without it they are asked again.
        let _: std::io::Result<()> = write();
    }
}

/// What a sandbox began with.
async fn pristine(asker: &Asker<'_>, origin: &Origin) -> Result<Origin> {
    let Origin::Sandbox(name) = origin else { return Ok(origin.clone()) };
    let mut info: Info = asker.backend.get(name, asker.cancel).await?;
    // What it was cloned from may be a clone itself.
    for _ in 0..16 {
        let Some(from) = info.source.clone() else { break };
        let (sandbox, label) = match from.split_once('/') {
            Some((sandbox, label)) => (sandbox, Some(label)),
            None => (from.as_str(), None),
        };
        let Ok(source) = asker.backend.get(sandbox, asker.cancel).await else { break };
        let base = source.labels.get("sandscript.kind").is_some_and(|kind| kind == "base");
        if let (true, Some(label)) = (base, label) {
            let snapshots = asker.backend.snapshots(sandbox, asker.cancel).await?;
            if snapshots.iter().any(|snapshot| snapshot.label == label) {
                return Ok(Origin::Base { sandbox: sandbox.into(), label: label.into() });
            }
        }
        info = source;
    }
    Ok(Origin::Image { image: Some(info.image), sha256: None })
}

/// What the answer depends on, and whether it stays the same from one run to the next.
async fn key(asker: &Asker<'_>, origin: &Origin) -> Result<(String, bool)> {
    let what = match origin {
        Origin::Image { image, sha256 } => {
            let capabilities = asker.backend.capabilities();
            let image = image.as_deref().unwrap_or(&capabilities.default_image);
            let sha256 = sha256.as_deref();
            asker.backend.fingerprint(image, sha256, asker.cancel).await?
        }
        Origin::Base { sandbox, label } => format!("{sandbox}/{label}"),
        Origin::Sandbox(name) | Origin::Guest(name) => name.clone(),
    };
    let lasting = matches!(origin, Origin::Image { .. });
    let version = env!("CARGO_PKG_VERSION");
    let text =
        format!("1 {version} {} {what} {:?} {:?} {lasting}", asker.place, asker.env, asker.user);
    Ok((blake3::hash(text.as_bytes()).to_hex()[..32].to_owned(), lasting))
}

/// What is different in what two policies let through: `+ rule` and `- rule`, then that the order of
/// the rest changed.
pub fn changes(old: &Policy, new: &Policy) -> Vec<String> {
    let (before, now): (Vec<&Rule>, Vec<&Rule>) = (old.rules().collect(), new.rules().collect());
    let mut lines: Vec<String> = Vec::new();
    lines.extend(before.iter().filter(|rule| !now.contains(rule)).map(|rule| format!("- {rule}")));
    lines.extend(now.iter().filter(|rule| !before.contains(rule)).map(|rule| format!("+ {rule}")));
    if lines.is_empty() && before != now {
        lines.push("the order of its rules".into());
    }
    lines
}

#[cfg(test)]
mod tests;
