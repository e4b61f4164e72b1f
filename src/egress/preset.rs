//! Named sets of rules: those that come with sandscript, and the user's own.

use std::collections::BTreeMap;

use crate::sandbox::{Action, Error, Result, Rule};

/// The preset that asks the guest's own tools where they fetch from.
pub const REGISTRIES: &str = "registries";

/// The services that language models answer from, and where their programs sign in.
const AI: &[&str] = &[
    "api.anthropic.com:443",
    "api.cohere.com:443",
    "api.deepseek.com:443",
    "api.groq.com:443",
    "api.mistral.ai:443",
    "api.openai.com:443",
    "api.perplexity.ai:443",
    "api.together.xyz:443",
    "api.x.ai:443",
    "auth.openai.com:443",
    "chatgpt.com:443",
    "claude.ai:443",
    "console.anthropic.com:443",
    "generativelanguage.googleapis.com:443",
    "openrouter.ai:443",
    "platform.claude.com:443",
];

/// Where public repositories are, what they send a client on to, and SSH where they offer it.
const GIT: &[&str] = &[
    "api.bitbucket.org:443",
    "api.github.com:443",
    "bitbucket.org:22",
    "bitbucket.org:443",
    "codeberg.org:22",
    "codeberg.org:443",
    "codeload.github.com:443",
    "git.sr.ht:22",
    "git.sr.ht:443",
    "github.com:22",
    "github.com:443",
    "gitlab.com:22",
    "gitlab.com:443",
    "*.githubusercontent.com:443",
    "ssh.github.com:443",
];

/// What a preset stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresetSpec {
    /// Other presets, whose rules come behind its own.
    pub include: Vec<String>,
    /// Its own rules, in order.
    pub rules: Vec<Rule>,
}

impl PresetSpec {
    /// From what a configuration says. What is denied comes first.
    pub fn new(include: Vec<String>, allow: &[String], deny: &[String]) -> Result<PresetSpec> {
        let mut rules = Vec::new();
        for text in deny {
            rules.push(text.parse::<Rule>()?.with(Action::Deny));
        }
        for text in allow {
            rules.push(text.parse()?);
        }
        Ok(PresetSpec { include, rules })
    }
}

/// The presets that come with sandscript, by name. [`REGISTRIES`] has no rules of its own.
pub fn builtin() -> BTreeMap<String, PresetSpec> {
    let rules = |list: &[&str]| list.iter().filter_map(|rule| rule.parse().ok()).collect();
    let of = |include: &[&str], list: &[&str]| PresetSpec {
        include: include.iter().map(|name| (*name).to_owned()).collect(),
        rules: rules(list),
    };
    [
        ("agent", of(&["ai", "git", REGISTRIES], &[])),
        ("ai", of(&[], AI)),
        ("git", of(&[], GIT)),
        (REGISTRIES, PresetSpec::default()),
    ]
    .map(|(name, preset)| (name.to_owned(), preset))
    .into()
}

/// The rules that a preset and those it includes stand for, each once, and whether one of them is
/// [`REGISTRIES`].
pub(super) fn flatten(
    presets: &BTreeMap<String, PresetSpec>,
    name: &str,
) -> Result<(Vec<Rule>, bool)> {
    let (mut found, mut way) = (Found::default(), Vec::new());
    collect(presets, name, &mut way, &mut found)?;
    Ok((found.rules, found.asks))
}

#[derive(Default)]
struct Found<'a> {
    seen: Vec<&'a str>,
    rules: Vec<Rule>,
    asks: bool,
}

/// `way` leads from the first preset to this one.
fn collect<'a>(
    presets: &'a BTreeMap<String, PresetSpec>,
    name: &str,
    way: &mut Vec<&'a str>,
    found: &mut Found<'a>,
) -> Result<()> {
    let Some((name, preset)) = presets.get_key_value(name) else {
        return Err(unknown(presets.keys().map(String::as_str), name));
    };
    if let Some(start) = way.iter().position(|other| other == name) {
        return Err(circle(&way[start..]));
    }
    if found.seen.contains(&name.as_str()) {
        return Ok(());
    }
    found.seen.push(name);
    for rule in &preset.rules {
        if !found.rules.contains(rule) {
            found.rules.push(rule.clone());
        }
    }
    found.asks |= name == REGISTRIES;
    way.push(name);
    preset.include.iter().try_for_each(|other| collect(presets, other, way, found))?;
    way.pop();
    Ok(())
}

/// The error for presets of which each includes the next one, and the last one the first.
fn circle(names: &[&str]) -> Error {
    let first = names.first().copied().unwrap_or_default();
    let ours = builtin();
    let hint = match names.iter().find(|name| ours.contains_key(**name)) {
        Some(name) => format!(
            "a preset of your own called '{name}' replaces the one that comes with sandscript: give \
             yours another name, then it can include '{name}'"
        ),
        None => "take one of them out of 'include'".into(),
    };
    let message =
        format!("presets include each other in a circle: {} -> {first}", names.join(" -> "));
    Error::invalid_hint("egress", message, hint)
}

/// The error for a word that is none of those there are.
pub(super) fn unknown<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Error {
    let words = names.chain(["none", "unrestricted"]);
    Error::invalid_hint(
        "egress",
        format!("there is no policy or preset '{name}'"),
        crate::suggest::hint(name, words).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_ours_is_one() {
        let presets = builtin();
        assert_eq!(presets["ai"].rules.len(), AI.len());
        assert_eq!(presets["git"].rules.len(), GIT.len());
        for preset in presets.values() {
            assert!(preset.rules.iter().all(|rule| rule.ports.is_some()), "{preset:?}");
        }
    }

    #[test]
    fn a_preset_includes_others_once() {
        let mut presets = builtin();
        let (rules, asks) = flatten(&presets, "agent").unwrap();
        assert!(asks);
        assert_eq!(rules.len(), AI.len() + GIT.len());
        assert!(!flatten(&presets, "git").unwrap().1);
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let round = |other: &str| {
            PresetSpec::new(vec![other.into()], &texts(&["a.test"]), &texts(&["b.test"])).unwrap()
        };
        // By two ways.
        presets.insert("x".into(), round("git"));
        presets.insert(
            "y".into(),
            PresetSpec::new(texts(&["x", "git", "registries"]), &[], &texts(&["c.test"])).unwrap(),
        );
        let (rules, asks) = flatten(&presets, "y").unwrap();
        assert!(asks);
        let rules: Vec<String> = rules.iter().take(3).map(Rule::to_string).collect();
        assert_eq!(rules, ["deny c.test", "deny b.test", "a.test"]);
        let error = flatten(&presets, "agnet").unwrap_err();
        assert_eq!(error.to_string(), "egress: there is no policy or preset 'agnet'");
        assert_eq!(error.hint().as_deref(), Some("did you mean 'agent'?"));
        presets.insert("z".into(), round("nothing"));
        assert!(flatten(&presets, "z").is_err());
    }

    #[test]
    fn a_circle_is_named() {
        let of = |include: &str| PresetSpec { include: vec![include.into()], rules: Vec::new() };
        let presets: BTreeMap<_, _> =
            [("a", "b"), ("b", "c"), ("c", "b"), ("own", "own"), ("agent", "agent")]
                .map(|(name, include)| (name.to_owned(), of(include)))
                .into();
        let said = ["a", "own", "agent"].map(|name| {
            let error = flatten(&presets, name).unwrap_err();
            format!("{error}; {}", error.hint().unwrap_or_default())
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
