//! `sandscript egress`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::FormatArg;
use super::output::Output;
use super::session::{Session, Work};
use super::{CommandError, Result, view};
use crate::egress::{Asked, Asker, Catalog, Origin, changes};
use crate::sandbox::{EgressLog, Info, Policy, Rule, Ruleset, format_size};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript egress show web
  sandscript egress set web agent --deny gist.github.com
  sandscript egress set web --allow example.com --allow '*.example.org:443'
  sandscript egress allow web example.com:443 10.1.0.0/16
  sandscript egress deny web example.com
  sandscript egress log web                    what it was refused, and the line that allows it
  sandscript egress refresh web                look up again what its preset stands for

A rule is a name, *.name or a network, with :PORT or :FIRST-LAST behind it and tcp:// or udp:// in
front where that matters. The first rule that matches decides; what none matches is refused.";

/// See and change what a sandbox may reach
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Egress {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the policy as it was set, and what its preset stood for
    Show {
        /// Of which sandbox
        name: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Replace the whole policy, at once
    Set {
        /// Of which sandbox
        name: String,
        #[command(flatten)]
        policy: PolicyArgs,
    },
    /// Allow more, at once; what is allowed stays so
    Allow {
        /// In which sandbox
        name: String,
        /// What
        #[arg(required = true, value_name = "RULE", value_parser = rule)]
        rules: Vec<Rule>,
    },
    /// Close what was allowed, at once; open connections are cut
    Deny {
        /// In which sandbox
        name: String,
        /// What
        #[arg(required = true, value_name = "RULE", value_parser = rule)]
        rules: Vec<Rule>,
    },
    /// List refused connections, and how much went to whom
    Log {
        /// Of which sandbox
        name: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Look up again what the preset stands for; prints what changes, and asks first
    ///
    /// The tools of the image or base that the sandbox began with are asked where they fetch from, so
    /// that nothing that ran in it counts.
    Refresh {
        /// Of which sandbox
        name: String,
        /// Ask the tools in the sandbox as it is now; what ran in it may have changed what they say
        #[arg(long)]
        guest: bool,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// A policy on the command line.
#[derive(Args, Clone, Debug)]
pub struct PolicyArgs {
    /// none, unrestricted, a profile, or a preset such as agent, git or registries [default: the
    /// rules alone]
    #[arg(value_name = "POLICY", required_unless_present_any = ["allow", "deny"])]
    policy: Option<String>,
    /// A rule that allows more than the preset does
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// A rule that closes what the preset or another rule allows
    #[arg(long, value_name = "RULE")]
    deny: Vec<String>,
}

/// A policy among other options.
#[derive(Args, Clone, Debug)]
pub struct EgressArgs {
    /// What it may reach: none, unrestricted, a profile, or a preset such as agent, git or registries
    /// [default: of a clone the source's; else none, or what the profile says]
    #[arg(long, value_name = "POLICY")]
    egress: Option<String>,
    /// A host or network that it may reach, too, such as example.com:443
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// A host or network that it may not reach, whatever else allows it
    #[arg(long, value_name = "RULE")]
    deny: Vec<String>,
}

impl EgressArgs {
    /// Whether none of the options was given.
    pub fn is_empty(&self) -> bool {
        self.egress.is_none() && self.allow.is_empty() && self.deny.is_empty()
    }

    /// What was asked for. Rules alone come before those of the policy that it would have without them.
    pub fn over(&self, standard: Asked, catalog: &Catalog) -> Result<Asked> {
        let asked = asked(self.egress.as_deref(), &self.allow, &self.deny, catalog)?;
        match (asked, standard) {
            (None, standard) => Ok(standard),
            (Some(Asked::Rules { preset: None, rules }), standard @ Asked::Rules { .. })
                if self.egress.is_none() =>
            {
                Ok(standard.with(rules).unwrap_or_default())
            }
            (Some(_), Asked::Unrestricted) if self.egress.is_none() => Err(CommandError::usage(
                "it is unrestricted, which takes no rules",
            )
            .hint(
                "say the policy, too: --egress allowlist, with --allow '*' for everything public",
            )),
            (Some(asked), _) => Ok(asked),
        }
    }
}

/// A policy that is set, as it would be asked for.
pub fn as_asked(policy: Policy) -> Asked {
    match policy {
        Policy::Unrestricted => Asked::Unrestricted,
        Policy::Rules(Ruleset { preset, rules }) => {
            Asked::Rules { preset: preset.map(|preset| preset.name), rules }
        }
        _ => Asked::None,
    }
}

fn asked(
    policy: Option<&str>,
    allow: &[String],
    deny: &[String],
    catalog: &Catalog,
) -> Result<Option<Asked>> {
    let asked = Asked::options(policy, allow, deny)?;
    if let Some(asked) = &asked {
        catalog.check(asked)?;
    }
    Ok(asked)
}

fn rule(text: &str) -> std::result::Result<Rule, String> {
    text.parse::<Rule>().map_err(|error| {
        let message = error.to_string();
        let message = message.strip_prefix("egress: ").unwrap_or(&message);
        format!("{message}; {}", error.hint().unwrap_or_default())
    })
}

/// Looks up what a policy stands for, for a sandbox that is about to be made or that is there.
pub async fn resolve(
    session: &Session<'_>,
    work: &Work,
    asked: &Asked,
    origin: Origin,
    env: BTreeMap<String, String>,
    user: Option<String>,
) -> Result<Policy> {
    let asker = Asker { env, user, ..asker(work) };
    let found = session.settings.egress.resolve(asked, &asker, &origin).await?;
    found.notes.iter().for_each(|note| session.output.warn(note));
    Ok(found.policy)
}

fn asker(work: &Work) -> Asker<'_> {
    Asker {
        backend: work.backend.as_ref(),
        cancel: &work.cancel,
        owner: None,
        env: BTreeMap::new(),
        user: None,
        dry: false,
        place: work.backend.capabilities().backend.clone(),
    }
}

impl Egress {
    pub(super) fn json(&self) -> bool {
        match &self.verb {
            Verb::Show { format, .. } | Verb::Log { format, .. } => format.json(),
            _ => false,
        }
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        let output = session.output;
        match self.verb {
            Verb::Show { name, format } => {
                let info = session.work(false, |work| async move {
                    Ok(work.backend.get(&name, &work.cancel).await?)
                })?;
                match format.json() {
                    true => output.json(&policy_json(&info)),
                    false => output.data(&policy_text(&info.egress)),
                }
            }
            Verb::Set { name, policy } => {
                let catalog = &session.settings.egress;
                let wanted = asked(policy.policy.as_deref(), &policy.allow, &policy.deny, catalog)?;
                let asked = wanted.unwrap_or_default();
                session.work(false, |work| async move {
                    let info = work.backend.get(&name, &work.cancel).await?;
                    let origin = Origin::Sandbox(name.clone());
                    let policy =
                        resolve(session, &work, &asked, origin, info.env, info.user).await?;
                    work.backend.set_policy(&name, &policy, &work.cancel).await?;
                    output.note(format!("{name} may reach: {policy}"));
                    Ok(())
                })?;
            }
            Verb::Allow { name, rules } => session.work(false, |work| async move {
                for rule in &rules {
                    let (backend, catalog) = (&work.backend, &session.settings.egress);
                    if catalog.is_free(rule) {
                        backend.allow(&name, rule, &work.cancel).await?;
                    } else {
                        let policy = backend.policy(&name, &work.cancel).await?;
                        let policy = catalog.allow(&policy, rule)?;
                        backend.set_policy(&name, &policy, &work.cancel).await?;
                    }
                    output.note(format!("{name} may reach {rule}"));
                }
                Ok(())
            })?,
            Verb::Deny { name, rules } => session.work(false, |work| async move {
                for rule in &rules {
                    work.backend.deny(&name, rule, &work.cancel).await?;
                    output.note(format!("{name} may not reach {rule}"));
                }
                Ok(())
            })?,
            Verb::Log { name, format } => {
                let (name, log, policy) = session.work(false, |work| async move {
                    let log = work.backend.egress_log(&name, &work.cancel).await?;
                    let policy = work.backend.policy(&name, &work.cancel).await?;
                    Ok((name, log, policy))
                })?;
                match format.json() {
                    true => output.json(&view::egress_log_json(&name, &log)),
                    false => print_log(output, &name, &log, &policy),
                }
            }
            Verb::Refresh { name, guest, yes } => return refresh(session, name, guest, yes),
        }
        Ok(exit::OK)
    }
}

fn refresh(session: &Session<'_>, name: String, guest: bool, yes: bool) -> Result {
    let output = session.output;
    session.work(false, |work| async move {
        let info = work.backend.get(&name, &work.cancel).await?;
        let origin = match guest {
            true => Origin::Guest(name.clone()),
            false => Origin::Sandbox(name.clone()),
        };
        let asker = Asker { env: info.env.clone(), user: info.user.clone(), ..asker(&work) };
        let found = session.settings.egress.refresh(&info.egress, &asker, &origin).await?;
        found.notes.iter().for_each(|note| output.warn(note));
        let lines = changes(&info.egress, &found.policy);
        if lines.is_empty() {
            output.note(format!("nothing changes: {}", info.egress));
            return Ok(exit::OK);
        }
        output.data(&format!("{}\n", lines.join("\n")));
        if !yes {
            if !output.can_ask {
                return Err(CommandError::usage(format!(
                    "not asked whether to change what {name} may reach"
                ))
                .hint("this is no terminal; add --yes to change it without a question"));
            }
            if !output.ask(&format!("change what {name} may reach?")) {
                output.note("nothing is changed");
                return Ok(exit::FAILED);
            }
        }
        work.backend.set_policy(&name, &found.policy, &work.cancel).await?;
        output.note(format!("{name} may reach: {}", found.policy));
        Ok(exit::OK)
    })
}

fn policy_json(info: &Info) -> Value {
    let mut value = json!({
        "name": info.name,
        "policy": word(&info.egress),
        "rules": [],
        "preset": null,
    });
    if let Policy::Rules(rules) = &info.egress {
        value["rules"] = json!(rules.rules);
        value["preset"] = json!(rules.preset);
    }
    value
}

/// `none`, `allowlist`, `unrestricted`, or the preset's name.
fn word(policy: &Policy) -> &str {
    match policy {
        Policy::None => "none",
        Policy::Unrestricted => "unrestricted",
        Policy::Rules(rules) => rules.preset.as_ref().map_or("allowlist", |preset| &preset.name),
    }
}

fn policy_text(policy: &Policy) -> String {
    let mut text = format!("{:<8}  {}\n", "policy", word(policy));
    let mut list = |title: &str, rules: &[Rule]| {
        for (index, rule) in rules.iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            text.push_str(&format!("{title:<8}  {rule}\n"));
        }
    };
    if let Policy::Rules(Ruleset { preset, rules }) = policy {
        list("rules", rules);
        list("preset", preset.as_ref().map(|preset| preset.rules.as_slice()).unwrap_or_default());
    }
    text
}

fn print_log(output: &Output, name: &str, log: &EgressLog, policy: &Policy) {
    if log.denied.is_empty() && log.carried.is_empty() {
        output.note(match policy {
            Policy::None => {
                "its policy is none: it has no network, and what it tries there is seen by nobody"
            }
            _ => "nothing was refused, and nothing was carried",
        });
        return;
    }
    if !log.denied.is_empty() {
        let rows: Vec<Vec<String>> = log
            .denied
            .iter()
            .map(|denied| {
                vec![
                    denied.host(),
                    denied.port.to_string(),
                    denied.protocol.to_string(),
                    denied.count.to_string(),
                    view::timestamp(denied.last),
                    denied.process.clone().unwrap_or_default(),
                    denied.reason.to_string(),
                ]
            })
            .collect();
        output.table(&["REFUSED", "PORT", "PROTOCOL", "COUNT", "LAST", "PROCESS", "WHY"], &rows);
        if log.more > 0 {
            output.note(format!("and {} more connections", log.more));
        }
    }
    if !log.carried.is_empty() {
        let rows: Vec<Vec<String>> = log
            .carried
            .iter()
            .map(|carried| {
                vec![
                    carried.host.clone(),
                    carried.connections.to_string(),
                    format_size(carried.sent),
                    format_size(carried.received),
                ]
            })
            .collect();
        output.table(&["REACHED", "CONNECTIONS", "SENT", "RECEIVED"], &rows);
    }
    let mut rules: Vec<String> = log
        .denied
        .iter()
        .filter_map(|denied| denied.rule())
        .filter(|rule| !policy.refuses(rule))
        .map(|rule| quoted(&rule))
        .collect();
    rules.sort();
    rules.dedup();
    // A guest may have asked for thousands.
    rules.truncate(12);
    if !rules.is_empty() {
        output.note(format!("to allow it: sandscript egress allow {name} {}", rules.join(" ")));
    }
}

/// A rule as a shell takes it.
fn quoted(rule: &Rule) -> String {
    let text = rule.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{text}'") }
}
