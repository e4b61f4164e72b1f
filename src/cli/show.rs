//! `sandscript show`.

use clap::Args;
use serde_json::Value;

use super::args::FormatArg;
use super::output::one_line;
use super::session::Session;
use super::{Result, view};
use crate::sandbox::{Device, Info, Network, Snapshot, State, format_size};

const EXAMPLES: &str = "\
Examples:
  sandscript show web
  sandscript show web --format json | jq .state";

/// Show one sandbox with its snapshots
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Show {
    /// Which
    name: String,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Show {
    pub fn call(self, session: &Session<'_>) -> Result {
        let name = self.name;
        let (info, snapshots, by) = session.work(false, |work| async move {
            let info = work.backend.get(&name, &work.cancel).await?;
            let by = work.backend.capabilities().means("snapshot").map(|means| means.by.clone());
            Ok((info, work.backend.snapshots(&name, &work.cancel).await?, by))
        })?;
        if self.format.json() {
            let mut value = view::sandbox_json(&info);
            value["snapshots"] = snapshots.iter().map(view::snapshot_json).collect::<Value>();
            session.output.json(&value);
        } else {
            session.output.data(&text(&info, &snapshots, by));
        }
        Ok(0)
    }
}

fn text(info: &Info, snapshots: &[Snapshot], by: Option<String>) -> String {
    let state = match &info.state {
        State::Transitional(what) | State::Error(what) => {
            format!("{} ({what})", info.state.word())
        }
        state => state.word().into(),
    };
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    let mounts: Vec<String> = info
        .mounts
        .iter()
        .map(|mount| {
            let end = if mount.readonly { ":ro" } else { "" };
            format!("{}:{}{end}", mount.source.display(), mount.target)
        })
        .collect();
    let devices: Vec<String> = info.devices.iter().map(Device::to_string).collect();
    let networks: Vec<String> = info.networks.iter().map(Network::said).collect();
    let ports: Vec<String> = info.ports.iter().map(ToString::to_string).collect();
    let until = info.owner.as_ref().and_then(|owner| owner.until);
    let expires = info.expires.into_iter().chain(until).min();
    let owner = info.owner.as_ref().map(|owner| format!("run {} on {}", owner.run, owner.host));
    let rows = [
        ("name", info.name.clone()),
        ("state", state),
        ("image", info.image.clone()),
        ("fingerprint", info.fingerprint.clone()),
        ("cloned from", info.source.clone().unwrap_or_default()),
        ("hostname", info.hostname.clone()),
        ("created", format!("{} ({})", view::timestamp(info.created), view::age(info.created))),
        ("expires", expires.map(view::timestamp).unwrap_or_default()),
        ("owner", owner.unwrap_or_default()),
        ("limits", view::limits(&info.limits)),
        ("hardware", info.hardware.said()),
        ("egress", info.egress.to_string()),
        ("member", info.member.clone().unwrap_or_default()),
        ("dataset", info.dataset.clone().unwrap_or_default()),
        ("commands by", info.exec.clone().unwrap_or_default()),
        ("snapshots by", by.unwrap_or_default()),
        ("networks", networks.join(", ")),
        ("addresses", info.addresses.join(" ")),
        ("ports", ports.join(", ")),
        ("mounts", mounts.join(" ")),
        ("devices", devices.join(", ")),
        ("nesting", if info.nesting { "yes".into() } else { String::new() }),
        ("env", pairs(&info.env)),
        ("user", info.user.clone().unwrap_or_default()),
        ("cwd", info.cwd.clone().unwrap_or_default()),
        ("labels", pairs(&info.labels)),
    ];
    let mut text = String::new();
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{key:<12}  {}\n", one_line(value)));
    }
    for (index, snapshot) in snapshots.iter().enumerate() {
        let key = if index == 0 { "snapshots" } else { "" };
        let (size, age) = (format_size(snapshot.size), view::age(snapshot.created));
        let end = snapshot.expires.map(|end| format!(", expires {}", view::timestamp(end)));
        let end = end.unwrap_or_default();
        text.push_str(&format!("{key:<12}  {} ({size}, {age}{end})\n", one_line(&snapshot.label)));
    }
    text
}
