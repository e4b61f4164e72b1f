//! `sandscript list`.

use clap::Args;
use serde_json::Value;

use super::args::{FormatArg, key_value};
use super::session::Session;
use super::{Result, view};

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
        let mut all = session
            .work(false, |work| async move { Ok(work.backend.list(&work.cancel).await?) })?;
        all.retain(|info| {
            self.label.iter().all(|(key, value)| info.labels.get(key) == Some(value))
        });
        if self.format.json() {
            session.output.json(&all.iter().map(view::sandbox_json).collect::<Value>());
            return Ok(0);
        }
        if all.is_empty() {
            session.output.note("there are no sandboxes");
            return Ok(0);
        }
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|info| {
                vec![
                    info.name.clone(),
                    info.state.word().into(),
                    info.source.clone().unwrap_or_else(|| info.image.clone()),
                    view::age(info.created),
                ]
            })
            .collect();
        session.output.table(&["NAME", "STATE", "FROM", "CREATED"], &rows);
        Ok(0)
    }
}
