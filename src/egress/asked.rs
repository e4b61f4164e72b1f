//! A policy as a person writes it.

use crate::sandbox::{Action, Error, Policy, Result, Rule, Ruleset};

/// A policy before anybody has looked up what its preset stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    None,
    /// Rules of its own, in order, and a preset behind them.
    Rules {
        /// The preset's name.
        preset: Option<String>,
        /// Its own rules.
        rules: Vec<Rule>,
    },
    /// Everything.
    Unrestricted,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Asked::None => f.write_str("none"),
            Asked::Unrestricted => f.write_str("unrestricted"),
            Asked::Rules { preset, rules } => {
                f.write_str(preset.as_deref().unwrap_or("allowlist"))?;
                let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
                if rules.is_empty() { Ok(()) } else { write!(f, " ({})", rules.join(", ")) }
            }
        }
    }
}

impl Asked {
    /// From one word: `none`, `unrestricted`, or the name of a preset or a profile.
    pub fn word(word: &str) -> Result<Asked> {
        match word {
            "none" => Ok(Asked::None),
            "unrestricted" => Ok(Asked::Unrestricted),
            "allowlist" => Err(Error::invalid_hint(
                "egress",
                "an allowlist is written as its rules",
                "write the rules themselves: [\"example.com\", \"*.example.org:443\"]",
            )),
            _ if is_preset_name(word) => {
                Ok(Asked::Rules { preset: Some(word.to_owned()), rules: Vec::new() })
            }
            _ if word.parse::<Rule>().is_ok() => Err(Error::invalid_hint(
                "egress",
                format!("'{word}' is a rule, not a policy"),
                format!("an allowlist is a list of rules: [\"{word}\"]"),
            )),
            _ => Err(Error::invalid_hint(
                "egress",
                format!("'{word}' is not a policy"),
                "use \"none\", \"unrestricted\", the name of a preset such as \"agent\", or a list of rules",
            )),
        }
    }

    /// An allowlist: rules in order, `deny …` among them.
    pub fn list<T: AsRef<str>>(rules: impl IntoIterator<Item = T>) -> Result<Asked> {
        let rules = rules.into_iter().map(|rule| rule.as_ref().parse()).collect::<Result<_>>()?;
        Ok(Asked::Rules { preset: None, rules })
    }

    /// What is allowed beside a preset, and what is not. What is denied comes first: it holds against
    /// what is allowed as well as against the preset.
    pub fn merged<A: AsRef<str>, D: AsRef<str>>(
        preset: Option<&str>,
        allow: impl IntoIterator<Item = A>,
        deny: impl IntoIterator<Item = D>,
    ) -> Result<Asked> {
        let mut rules = Vec::new();
        for text in deny {
            rules.push(text.as_ref().parse::<Rule>()?.with(Action::Deny));
        }
        for text in allow {
            let rule: Rule = text.as_ref().parse()?;
            if rule.action == Action::Deny {
                return Err(Error::invalid_hint(
                    "egress",
                    format!("'{rule}' stands among what is allowed"),
                    "put it into deny",
                ));
            }
            rules.push(rule);
        }
        let preset = match preset.map(Asked::word).transpose()? {
            None => None,
            Some(Asked::Rules { preset, .. }) => preset,
            Some(other) if rules.is_empty() => return Ok(other),
            Some(Asked::None) => {
                return Err(Error::invalid_hint(
                    "egress",
                    "\"none\" takes no rules",
                    "leave the preset out: rules alone are an allowlist",
                ));
            }
            Some(Asked::Unrestricted) => {
                return Err(Error::invalid_hint(
                    "egress",
                    "\"unrestricted\" takes no rules",
                    "allow \"*\", which is everything public, and deny from that",
                ));
            }
        };
        Ok(Asked::Rules { preset, rules })
    }

    /// From what a command line says: one policy and rules that are added to it.
    pub fn options(
        policy: Option<&str>,
        allow: &[String],
        deny: &[String],
    ) -> Result<Option<Asked>> {
        let ruled = !(allow.is_empty() && deny.is_empty());
        let wrong = |message: String, hint: &str| Err(Error::invalid_hint("egress", message, hint));
        if let Some(rule) = allow.iter().find(|text| denies(text)) {
            return wrong(format!("'{rule}' is not allowed but denied"), "write it as --deny RULE");
        }
        let policy = match policy {
            None if !ruled => return Ok(None),
            Some("allowlist") if !allow.is_empty() => None,
            Some("allowlist") => {
                let hint = "say what it may reach: --allow example.com --allow '*.example.org:443'";
                return wrong("'allowlist' needs rules".into(), hint);
            }
            Some("none") if ruled => {
                let hint =
                    "leave 'none' out: with --allow alone, it may reach that and nothing else";
                return wrong("'none' takes no rules".into(), hint);
            }
            Some("unrestricted") if ruled => {
                let hint = "use --allow '*', which is everything public, with --deny";
                return wrong("'unrestricted' takes no rules".into(), hint);
            }
            Some(word) if !is_preset_name(word) => {
                if word.parse::<Rule>().is_ok() {
                    let hint = format!("to allow that and nothing else: --allow '{word}'");
                    return wrong(format!("'{word}' is a rule, not a policy"), &hint);
                }
                let hint =
                    "use none, unrestricted, the name of a preset such as agent, or --allow RULE";
                return wrong(format!("'{}' is not a policy", word.escape_debug()), hint);
            }
            policy => policy,
        };
        Asked::merged(policy, allow, deny).map(Some)
    }

    /// The same with rules that come before its own, as for [`Asked::merged`]; none where it can't have
    /// any.
    pub(crate) fn with(self, before: Vec<Rule>) -> Option<Asked> {
        match self {
            _ if before.is_empty() => Some(self),
            Asked::Rules { preset, rules } => {
                Some(Asked::Rules { preset, rules: [before, rules].concat() })
            }
            Asked::None | Asked::Unrestricted => None,
        }
    }

    /// The policy, where it has no preset.
    pub fn plain(&self) -> Option<Policy> {
        match self {
            Asked::None => Some(Policy::None),
            Asked::Unrestricted => Some(Policy::Unrestricted),
            Asked::Rules { preset: None, rules } => {
                Some(Policy::Rules(Ruleset { preset: None, rules: rules.clone() }))
            }
            Asked::Rules { .. } => None,
        }
    }
}

fn denies(text: &str) -> bool {
    text.parse::<Rule>().is_ok_and(|rule| rule.action == Action::Deny)
}

/// Whether a word can be the name of a preset: letters, digits, `-` and `_`, a letter in front.
pub(super) fn is_preset_name(word: &str) -> bool {
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.len() <= 40 && word.chars().all(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    fn said(error: Error) -> String {
        format!("{error} ({})", error.hint().unwrap_or_default())
    }

    #[test]
    fn words() {
        assert_eq!(Asked::word("none").unwrap(), Asked::None);
        assert_eq!(Asked::word("unrestricted").unwrap(), Asked::Unrestricted);
        let preset = Asked::Rules { preset: Some("agent".into()), rules: vec![] };
        assert_eq!(Asked::word("agent").unwrap(), preset);
        assert_eq!(Asked::merged(Some("agent"), NONE, NONE).unwrap(), preset);
        assert_eq!(Asked::merged(Some("none"), NONE, NONE).unwrap(), Asked::None);
        let wrong: Vec<String> = ["allowlist", "example.com", "*", "10.0.0.0/8", "A b", ""]
            .into_iter()
            .map(|word| said(Asked::word(word).unwrap_err()))
            .collect();
        insta::assert_snapshot!(wrong.join("\n"));
    }

    #[test]
    fn what_is_denied_comes_first() {
        let asked = Asked::merged(Some("git"), ["b.test"], ["a.test", "deny c.test"]).unwrap();
        let Asked::Rules { rules, .. } = &asked else { unreachable!() };
        let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
        assert_eq!(rules, ["deny a.test", "deny c.test", "b.test"]);
        assert_eq!(
            Asked::merged(None, ["a.test"], NONE).unwrap(),
            Asked::list(["a.test"]).unwrap()
        );
        insta::assert_snapshot!(said(Asked::merged(Some("none"), ["a.test"], NONE).unwrap_err()), @r#"egress: "none" takes no rules (leave the preset out: rules alone are an allowlist)"#);
        insta::assert_snapshot!(said(Asked::merged(None, ["deny a.test"], NONE).unwrap_err()), @"egress: 'deny a.test' stands among what is allowed (put it into deny)");
        insta::assert_snapshot!(said(Asked::merged(Some("unrestricted"), NONE, ["a.test"]).unwrap_err()), @r#"egress: "unrestricted" takes no rules (allow "*", which is everything public, and deny from that)"#);
    }

    #[test]
    fn a_command_line_is_told_what_to_type() {
        let texts = |words: &str| words.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let options =
            |policy, allow: &str, deny: &str| Asked::options(policy, &texts(allow), &texts(deny));
        assert_eq!(options(None, "", "").unwrap(), None);
        assert_eq!(options(Some("none"), "", "").unwrap(), Some(Asked::None));
        let list = Asked::list(["a.test"]).unwrap();
        assert_eq!(options(None, "a.test", "").unwrap(), Some(list.clone()));
        assert_eq!(options(Some("allowlist"), "a.test", "").unwrap(), Some(list));
        let wrong = [
            options(Some("allowlist"), "", ""),
            options(Some("allowlist"), "", "b.test"),
            options(Some("none"), "a.test", ""),
            options(Some("none"), "", "a.test"),
            options(Some("unrestricted"), "", "a.test"),
            options(Some("*.example.com"), "", ""),
            options(Some("No"), "", ""),
            Asked::options(None, &["deny a.test".into()], &[]),
            options(None, "a.test:x", ""),
        ];
        let said: Vec<String> = wrong.into_iter().map(|one| said(one.unwrap_err())).collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
