//! Egress policies that stand in the script: their rules, their keys, and the presets they name.

use super::walk::Walk;
use crate::api::egress::{asked, unknown_key};
use crate::api::{ScriptError, Value, suggest};
use crate::egress::Asked;
use crate::lang::tree::{At, Kind, Node};
use crate::sandbox::Rule;

impl<'a> Walk<'a> {
    /// A policy, as far as it stands in the script.
    pub fn egress(&mut self, policy: &Node) {
        match &policy.kind {
            Kind::Map(entries) => {
                for (key, at, value) in entries {
                    match key.as_str() {
                        "preset" if self.takes_rules(value, entries) => self.policy_word(value),
                        "preset" => {}
                        "allow" | "deny" => self.rules(value),
                        _ => self.report("unknown-option", *at, unknown_key(key)),
                    }
                }
            }
            Kind::List(_) => self.rules(policy),
            _ => self.policy_word(policy),
        }
    }

    /// Reports a preset that stands beside rules and takes none.
    fn takes_rules(&mut self, preset: &Node, entries: &[(String, At, Node)]) -> bool {
        let empty = |node: &Node| matches!(&node.kind, Kind::List(list) if list.is_empty());
        let is_rules = |key: &str| matches!(key, "allow" | "deny");
        let ruled = entries.iter().any(|(key, _, value)| is_rules(key) && !empty(value));
        if let (true, Some(Value::String(word))) = (ruled, preset.literal())
            && matches!(word.as_str(), "none" | "unrestricted")
            && let Err(error) = Asked::merged(Some(&word), ["*"], [""; 0])
        {
            self.report("wrong-type", preset.at, error.into());
            return false;
        }
        true
    }

    fn policy_word(&mut self, node: &Node) {
        let Some(value @ Value::String(_)) = node.literal() else { return };
        match asked(&value) {
            Err(error) => self.report("wrong-type", node.at, error),
            Ok(Asked::Rules { preset: Some(name), .. }) => {
                let Some(known) = &self.checker.presets else { return };
                if known.contains(&name) {
                    return;
                }
                let words = known.iter().map(String::as_str).chain(["none", "unrestricted"]);
                let message = format!("there is no policy or preset '{name}'");
                let hint = suggest::hint(&name, words).unwrap_or_default();
                let error = ScriptError::runtime(message).hint(hint);
                self.report("wrong-type", node.at, error);
            }
            Ok(_) => {}
        }
    }

    /// A rule, or a list of them.
    pub fn rules(&mut self, node: &Node) {
        let nodes = match &node.kind {
            Kind::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for node in nodes {
            if let Some(Value::String(text)) = node.literal()
                && let Err(error) = text.parse::<Rule>()
            {
                self.report("wrong-type", node.at, error.into());
            }
        }
    }
}
