//! What a cell was refused and what it reached.

use serde::{Deserialize, Serialize};

use crate::sandbox::{Action, Carried, Denied, EgressLog, Policy, Protocol, Reason, Rule};

/// Of so many refused hosts each is told, and of so many that were reached.
const TOLD: usize = 20;
const REACHED: usize = 100;
/// As many rules are in the line that would allow what was refused.
const TAUGHT: usize = 12;

/// So many refused hosts stand in a sentence.
const SAID: usize = 5;

/// Connections of a cell that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The name it was for, else the address.
    pub host: String,
    /// The port; 53 where only the name was asked for.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The guest's program, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Why.
    pub reason: Reason,
    /// How often.
    pub count: u64,
    /// The rule that would allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// As a person would say it.
    pub said: String,
}

/// What a cell was refused and what it reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellEgress {
    /// How many connections were refused.
    pub refused: u64,
    /// To which hosts; not all, where there are very many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Refusal>,
    /// Whom it reached, and how much went there and came back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<Carried>,
    /// The policy that it had, which the line that would allow more keeps.
    #[serde(skip)]
    pub policy: Option<Box<Policy>>,
}

impl CellEgress {
    /// Of a sandbox's log.
    pub fn of(log: EgressLog) -> CellEgress {
        let refused = log.refused();
        let one = |denied: Denied| Refusal {
            host: denied.host(),
            port: denied.port,
            protocol: denied.protocol,
            reason: denied.reason,
            count: denied.count,
            rule: denied.rule().map(|rule| rule.to_string()),
            said: denied.to_string(),
            process: denied.process,
        };
        let mut denied = log.denied;
        // Connections first: behind a question for a name there is most often none.
        denied.sort_by_key(|one| one.port == 53);
        let denied = denied.into_iter().take(TOLD).map(one).collect();
        let mut carried = log.carried;
        carried.truncate(REACHED);
        CellEgress { refused, denied, carried, policy: None }
    }

    /// With the policy that it had.
    pub fn under(self, policy: Option<Policy>) -> CellEgress {
        CellEgress { policy: policy.map(Box::new), ..self }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == CellEgress::default()
    }

    /// `3 connections were refused: a.test:443 (2 times), b.test:80`.
    pub fn said(&self) -> Option<String> {
        let what = match self.refused {
            0 => return None,
            1 => "1 connection was refused".to_owned(),
            count => format!("{count} connections were refused"),
        };
        let said: Vec<&str> = self.denied.iter().take(SAID).map(|one| one.said.as_str()).collect();
        let more = if self.denied.len() > SAID { ", …" } else { "" };
        Some(format!("{what}: {}{more}", said.join(", ")))
    }

    /// The line of a script, in its language, that would allow what was refused beside what was allowed
    /// before. What a rule refuses was meant to be refused.
    pub fn remedy(&self, script: Option<&str>) -> Option<String> {
        let meant = |rule: &str| match (self.policy.as_deref(), rule.parse::<Rule>()) {
            (Some(policy), Ok(rule)) => policy.refuses(&rule),
            _ => false,
        };
        let mut rules: Vec<String> = Vec::new();
        for rule in self.denied.iter().filter_map(|one| one.rule.as_deref()) {
            if !rules.iter().any(|known| known == rule) && !meant(rule) {
                rules.push(rule.to_owned());
            }
        }
        if rules.is_empty() {
            return None;
        }
        rules.truncate(TAUGHT);
        let (mut preset, mut deny) = (None, Vec::new());
        if let Some(Policy::Rules(now)) = self.policy.as_deref() {
            preset = now.preset.as_ref().map(|preset| preset.name.as_str());
            let of = |action: Action| {
                let all = now.rules.iter().filter(move |rule| rule.action == action);
                all.map(|rule| rule.with(Action::Allow).to_string())
            };
            rules = of(Action::Allow).chain(rules).collect();
            deny = of(Action::Deny).collect();
        }
        let lua = script.is_some_and(|script| script.ends_with(".lua"));
        let list = |rules: &[String]| {
            let rules: Vec<String> = rules.iter().map(|rule| format!("\"{rule}\"")).collect();
            match lua {
                true => format!("{{ {} }}", rules.join(", ")),
                false => format!("[{}]", rules.join(", ")),
            }
        };
        let mut fields = Vec::new();
        if let Some(preset) = preset {
            fields.push(("preset", format!("\"{preset}\"")));
        }
        fields.push(("allow", list(&rules)));
        if !deny.is_empty() {
            fields.push(("deny", list(&deny)));
        }
        let is = if lua { " =" } else { ":" };
        let fields: Vec<String> =
            fields.into_iter().map(|(key, value)| format!("{key}{is} {value}")).collect();
        let open = if lua { "{" } else { "#{" };
        Some(format!("egress{is} {open} {} }}", fields.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crate::sandbox::Preset;

    use super::*;

    fn denied(name: &str, port: u16, count: u64) -> Denied {
        Denied {
            first: SystemTime::UNIX_EPOCH,
            last: SystemTime::UNIX_EPOCH,
            count,
            name: Some(name.into()),
            address: None,
            port,
            protocol: Protocol::Tcp,
            process: None,
            reason: Reason::NotAllowed,
        }
    }

    #[test]
    fn in_words() {
        let log = |denied: Vec<Denied>| {
            let egress = CellEgress::of(EgressLog { denied, ..EgressLog::default() });
            let lines = [egress.said(), egress.remedy(None), egress.remedy(Some("x.lua"))];
            lines.map(Option::unwrap_or_default).join("\n")
        };
        assert_eq!(log(vec![]), "\n\n");
        insta::assert_snapshot!(log(vec![denied("a.test", 443, 1)]), @r#"
        1 connection was refused: a.test:443
        egress: #{ allow: ["a.test:443"] }
        egress = { allow = { "a.test:443" } }
        "#);
        let under = |policy: Policy, script| {
            let log = EgressLog { denied: vec![denied("a.test", 443, 1)], ..EgressLog::default() };
            CellEgress::of(log).under(Some(policy)).remedy(script)
        };
        let mut policy = Policy::allowlist(["deny c.test", "b.test:80"]).unwrap();
        insta::assert_snapshot!(under(policy.clone(), None).unwrap(), @r#"egress: #{ allow: ["b.test:80", "a.test:443"], deny: ["c.test"] }"#);
        if let Policy::Rules(rules) = &mut policy {
            rules.preset = Some(Preset { name: "git".into(), rules: Vec::new() });
        }
        insta::assert_snapshot!(under(policy, Some("x.lua")).unwrap(), @r#"egress = { preset = "git", allow = { "b.test:80", "a.test:443" }, deny = { "c.test" } }"#);
        assert_eq!(under(Policy::allowlist(["deny *.test", "x.org"]).unwrap(), None), None);
        let many = (0..7).map(|n| denied(&format!("h{n}.test"), 80, n + 1)).collect();
        insta::assert_snapshot!(log(many), @r#"
        28 connections were refused: h0.test:80, h1.test:80 (2 times), h2.test:80 (3 times), h3.test:80 (4 times), h4.test:80 (5 times), …
        egress: #{ allow: ["h0.test:80", "h1.test:80", "h2.test:80", "h3.test:80", "h4.test:80", "h5.test:80", "h6.test:80"] }
        egress = { allow = { "h0.test:80", "h1.test:80", "h2.test:80", "h3.test:80", "h4.test:80", "h5.test:80", "h6.test:80" } }
        "#);
    }
}
