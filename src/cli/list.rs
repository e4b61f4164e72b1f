//! `sandscript list`.

use clap::Args;
use serde_json::Value;

use super::args::{FormatArg, key_value};
use super::session::Session;
use super::{Result, view};
use crate::sandbox::{Capability, MemberState};

const EXAMPLES: &str = "\
Examples:
  sandscript list
  sandscript list --label team=infra
  sandscript list --format json | jq -r '.[].name'";

/// List the sandboxes
#[derive(Args)]
#[command(visible_alias = "ls", after_help = EXAMPLES)]
pub struct List {
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl List {
    pub fn call(self, session: &Session<'_>) -> Result {
        let (mut all, away) = session.work(false, |work| async move {
            let all = work.backend.list(&work.cancel).await?;
            let mut members = Vec::new();
            if work.backend.capabilities().has(Capability::Cluster) {
                members = work.backend.members(&work.cancel).await?;
                members.retain(|member| member.state == MemberState::Offline);
            }
            Ok((all, members))
        })?;
        all.retain(|info| {
            self.label.iter().all(|(key, value)| info.labels.get(key) == Some(value))
        });
        for member in away {
            let message = format!(
                "member '{}' of the cluster is {}: what is on it can't be listed",
                member.name, member.state
            );
            session.output.warn(&message);
        }
        if self.format.json() {
            session.output.json(&all.iter().map(view::sandbox_json).collect::<Value>());
            return Ok(0);
        }
        if all.is_empty() {
            session.output.note("there are no sandboxes");
            return Ok(0);
        }
        let cluster = all.iter().any(|info| info.member.is_some());
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|info| {
                let mut row = vec![info.name.clone(), info.state.word().into()];
                if cluster {
                    row.push(info.member.clone().unwrap_or_default());
                }
                row.push(info.source.clone().unwrap_or_else(|| info.image.clone()));
                row.push(view::age(info.created));
                row
            })
            .collect();
        let mut heads = vec!["NAME", "STATE", "FROM", "CREATED"];
        if cluster {
            heads.insert(2, "MEMBER");
        }
        session.output.table(&heads, &rows);
        Ok(0)
    }
}
