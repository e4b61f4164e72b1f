//! What a sandbox may reach.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Action, Error, Result, Rule};

/// An egress policy.
///
/// As JSON it is the word `"none"` or `"unrestricted"`, or a [`Ruleset`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
#[non_exhaustive]
pub enum Policy {
    /// Nothing but itself.
    #[default]
    None,
    /// What rules allow, and nothing else.
    Rules(Ruleset),
    /// Everything the host reaches.
    Unrestricted,
}

/// Rules in order: first its own, then those of a preset. The first one that matches decides, and
/// what none matches is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    /// A named set of rules behind its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Its own rules.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A named set of rules as it was found when the policy was set. What the name means may change later;
/// the policy does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What it was asked for by: `agent`.
    pub name: String,
    /// The rules it stood for.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// All rules, in the order they are tried in.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(self.preset.iter().flat_map(|preset| &preset.rules))
    }
}

impl Policy {
    /// From the word a user writes.
    pub fn parse(text: &str) -> Result<Policy> {
        match text {
            "none" => Ok(Policy::None),
            "unrestricted" => Ok(Policy::Unrestricted),
            _ => Err(Error::invalid_hint(
                "egress",
                format!("'{text}' is not a policy"),
                "use \"none\" or \"unrestricted\"",
            )),
        }
    }

    /// An allowlist of rules as they are written.
    pub fn allowlist<T: AsRef<str>>(rules: impl IntoIterator<Item = T>) -> Result<Policy> {
        let rules = rules.into_iter().map(|rule| rule.as_ref().parse()).collect::<Result<_>>()?;
        Ok(Policy::Rules(Ruleset { preset: None, rules }))
    }

    /// The rules in the order they are tried in; none for a policy without any.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let rules = match self {
            Policy::Rules(rules) => Some(rules),
            _ => None,
        };
        rules.into_iter().flat_map(Ruleset::all)
    }

    /// Adds a rule, so that what it matches is allowed from now on. One that is there changes nothing.
    /// A policy of `none` becomes an allowlist of this rule; `unrestricted` stays what it is.
    ///
    /// It goes behind the other rules, or in front of them when one of those denies some of what it
    /// matches. A `deny` of exactly this rule is taken back.
    pub fn allow(&mut self, rule: &Rule) -> Result<()> {
        if rule.action == Action::Deny {
            return Err(Error::invalid_hint(
                "egress",
                format!("'{rule}' refuses, and is to allow"),
                format!("to allow it, say '{}'", rule.with(Action::Allow)),
            ));
        }
        let rule = rule.clone();
        let rules = match self {
            Policy::Unrestricted => return Ok(()),
            Policy::None => {
                *self = Policy::Rules(Ruleset { preset: None, rules: vec![rule] });
                return Ok(());
            }
            Policy::Rules(rules) => rules,
        };
        let denied = rule.with(Action::Deny);
        rules.rules.retain(|other| *other != denied);
        let denies = |other: &Rule| other.action == Action::Deny && other.overlaps(&rule);
        let place = rules.rules.iter().position(|other| *other == rule);
        let before = &rules.rules[..place.unwrap_or(rules.rules.len())];
        match (place, before.iter().any(denies)) {
            (Some(_), false) => {}
            (Some(place), true) => rules.rules[..=place].rotate_right(1),
            (None, true) => rules.rules.insert(0, rule),
            (None, false) => rules.rules.push(rule),
        }
        Ok(())
    }

    /// Whether a rule of its own, or of its preset, refuses all that `rule` matches.
    pub fn refuses(&self, rule: &Rule) -> bool {
        self.rules().any(|other| other.action == Action::Deny && other.covers(rule))
    }

    /// Closes what a rule matches. A rule of exactly this text is taken away; what other rules still
    /// allow of it, a preset's for instance, is closed by a `deny` in front of them all. It is an error
    /// when nothing of it is allowed: the name is likely to be mistyped.
    pub fn deny(&mut self, rule: &Rule) -> Result<()> {
        let (allowed, denied) = (rule.with(Action::Allow), rule.with(Action::Deny));
        let absent = |hint: String| {
            let message = format!("nothing of '{allowed}' is allowed, so there is nothing to deny");
            Error::InvalidInput { what: "egress".into(), message, hint: Some(hint) }
        };
        let rules = match self {
            Policy::Rules(rules) => rules,
            Policy::None => return Err(absent("its policy is \"none\"".into())),
            Policy::Unrestricted => {
                return Err(Error::invalid_hint(
                    "egress",
                    "the policy \"unrestricted\" has no rules to deny by",
                    format!("set an allowlist instead: \"{denied}\" and then \"*\""),
                ));
            }
        };
        let open = |rules: &Ruleset| {
            let shut = |other: &&Rule| other.action == Action::Deny && other.covers(&allowed);
            rules
                .all()
                .take_while(|other| !shut(other))
                .any(|other| other.action == Action::Allow && other.overlaps(&allowed))
        };
        let there = rules.rules.contains(&allowed);
        if !there && !open(rules) {
            let near = rules.all().filter(|rule| rule.action == Action::Allow).take(5);
            let near: Vec<String> = near.map(|rule| format!("\"{rule}\"")).collect();
            return Err(absent(match near.is_empty() {
                true => "no rule allows anything".into(),
                false => format!("rules that allow something: {}", near.join(", ")),
            }));
        }
        rules.rules.retain(|other| *other != allowed);
        if open(rules) {
            rules.rules.insert(0, denied);
        }
        Ok(())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Policy::Rules(Ruleset { preset, rules }) = self else {
            return f.write_str(if *self == Policy::None { "none" } else { "unrestricted" });
        };
        f.write_str(preset.as_ref().map_or("allowlist", |preset| &preset.name))?;
        if preset.is_some() && rules.is_empty() {
            return Ok(());
        }
        let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
        write!(f, " ({})", rules.join(", "))
    }
}

/// How a policy is written as JSON. Records of older versions have the words only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(Word),
    Rules(Ruleset),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    None,
    Unrestricted,
}

impl From<Written> for Policy {
    fn from(written: Written) -> Policy {
        match written {
            Written::Word(Word::None) => Policy::None,
            Written::Word(Word::Unrestricted) => Policy::Unrestricted,
            Written::Rules(rules) => Policy::Rules(rules),
        }
    }
}

impl From<Policy> for Written {
    fn from(policy: Policy) -> Written {
        match policy {
            Policy::None => Written::Word(Word::None),
            Policy::Unrestricted => Written::Word(Word::Unrestricted),
            Policy::Rules(rules) => Written::Rules(rules),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str]) -> Policy {
        Policy::allowlist(rules).unwrap()
    }

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn json_gives_back_what_was_set() {
        let mut preset = policy(&["a.test", "deny *.b.test:80"]);
        let Policy::Rules(rules) = &mut preset else { unreachable!() };
        rules.preset = Some(Preset { name: "agent".into(), rules: vec![rule("*.c.test")] });
        let all = [Policy::None, Policy::Unrestricted, policy(&[]), preset.clone()];
        for policy in all {
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy, "{json}");
        }
        insta::assert_snapshot!(serde_json::to_string(&preset).unwrap(), @r#"{"preset":{"name":"agent","rules":["*.c.test"]},"rules":["a.test","deny *.b.test:80"]}"#);
        insta::assert_snapshot!(preset, @"agent (a.test, deny *.b.test:80)");
        insta::assert_snapshot!(policy(&[]), @"allowlist ()");
        assert_eq!(serde_json::to_string(&Policy::None).unwrap(), "\"none\"");
        assert_eq!(serde_json::to_string(&Policy::Unrestricted).unwrap(), "\"unrestricted\"");
        assert!(serde_json::from_str::<Policy>("\"all\"").is_err());
        assert!(serde_json::from_str::<Policy>("{\"rulse\":[]}").is_err());
    }

    #[test]
    fn allowing_twice_is_allowing_once() {
        let mut one = policy(&["a.test"]);
        one.allow(&rule("b.test")).unwrap();
        let once = one.clone();
        one.allow(&rule("b.test")).unwrap();
        one.allow(&rule("a.test")).unwrap();
        assert_eq!((&one, one.clone()), (&once, policy(&["a.test", "b.test"])));
        let wrong = one.allow(&rule("deny a.test")).unwrap_err();
        insta::assert_snapshot!(format!("{wrong} ({})", wrong.hint().unwrap()), @"egress: 'deny a.test' refuses, and is to allow (to allow it, say 'a.test')");
        let mut none = Policy::None;
        none.allow(&rule("a.test")).unwrap();
        assert_eq!(none, policy(&["a.test"]));
        let mut all = Policy::Unrestricted;
        all.allow(&rule("a.test")).unwrap();
        assert_eq!(all, Policy::Unrestricted);
    }

    #[test]
    fn allowing_undoes_what_denies_it() {
        let mut one = policy(&["deny *.a.test", "*"]);
        one.allow(&rule("x.a.test")).unwrap();
        one.allow(&rule("x.a.test")).unwrap();
        assert_eq!(one, policy(&["x.a.test", "deny *.a.test", "*"]));
        let mut one = policy(&["deny a.test", "*"]);
        one.allow(&rule("a.test")).unwrap();
        assert_eq!(one, policy(&["*", "a.test"]));
        let mut one = policy(&["deny *.a.test", "b.test", "x.a.test"]);
        one.allow(&rule("x.a.test")).unwrap();
        assert_eq!(one, policy(&["x.a.test", "deny *.a.test", "b.test"]));
    }

    #[test]
    fn denying_takes_a_rule_away_or_stands_before_others() {
        let mut one = policy(&["a.test", "b.test"]);
        one.deny(&rule("a.test")).unwrap();
        assert_eq!(one, policy(&["b.test"]));
        let again = one.deny(&rule("a.test")).unwrap_err();
        insta::assert_snapshot!(format!("{again} ({})", again.hint().unwrap()), @r#"egress: nothing of 'a.test' is allowed, so there is nothing to deny (rules that allow something: "b.test")"#);
        let mut one = policy(&["*.a.test", "x.a.test"]);
        one.deny(&rule("deny x.a.test")).unwrap();
        assert_eq!(one, policy(&["deny x.a.test", "*.a.test"]));
        assert!(one.deny(&rule("x.a.test")).is_err());
        let mut one = policy(&[]);
        let Policy::Rules(rules) = &mut one else { unreachable!() };
        rules.preset = Some(Preset { name: "git".into(), rules: vec![rule("git.test")] });
        one.deny(&rule("git.test")).unwrap();
        assert_eq!(one.rules().next().unwrap().to_string(), "deny git.test");
        assert!(Policy::None.deny(&rule("a.test")).is_err());
        assert!(Policy::Unrestricted.deny(&rule("a.test")).is_err());
    }
}
