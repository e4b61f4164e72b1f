//! `sandscript clone`.

use clap::Args;

use super::args::{FormatArg, device, key_value, network, target};
use super::egress::{self, EgressArgs};
use super::session::Session;
use super::snapshot::say_means;
use super::{Result, view};
use crate::egress::{Asked, Origin};
use crate::sandbox::{Backend, CloneSpec, Device, Network, Placement, check_name};

const EXAMPLES: &str = "\
Examples:
  sandscript clone web twin                    from how it is now
  sandscript clone web twin --label clean      from a snapshot";

/// Make a new machine from a sandbox or from one of its snapshots
///
/// The clone has its own host name, machine-id and addresses, and the source's limits, mounts,
/// environment and egress policy. The source goes on.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Clone {
    /// From which sandbox
    source: String,
    /// The new sandbox's name
    new: String,
    /// From this snapshot [default: the state it is in now]
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// The clone's host name [default: its name]
    #[arg(long)]
    hostname: Option<String>,
    /// A variable added to the source's environment
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    env: Vec<(String, String)>,
    /// A device of the server's machine in it, as create has it; those of the source that two may have
    /// are taken over
    #[arg(long, value_name = "NAME=TYPE,KEY=VALUE", value_parser = device)]
    device: Vec<Device>,
    /// A network that the clone is in, as create has it; the source's are not taken over
    #[arg(long, value_name = "NAME", value_parser = network)]
    network: Vec<Network>,
    #[command(flatten)]
    egress: EgressArgs,
    /// Where in a cluster: a member's name, or @ and a group's [default: beside the source]
    #[arg(long, value_name = "MEMBER", value_parser = target)]
    target: Option<Placement>,
    /// Leave it stopped
    #[arg(long)]
    bare: bool,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Clone {
    pub fn call(self, session: &Session<'_>) -> Result {
        check_name(&self.new)?;
        let catalog = &session.settings.egress;
        // A mistake is told before anybody is asked.
        self.egress.over(Asked::None, catalog)?;
        let (source, egress) = (self.source, self.egress);
        let mut spec = CloneSpec {
            label: self.label,
            hostname: self.hostname,
            env: self.env.into_iter().collect(),
            networks: self.network,
            devices: self.device,
            bare: self.bare,
            target: self.target,
            ..CloneSpec::new(self.new)
        };
        let info = session.work(false, |work| async move {
            say_means(session, &work, "clone");
            if !egress.is_empty() {
                let own = work.backend.policy(&source, &work.cancel).await?;
                let asked = egress.over(egress::as_asked(own), catalog)?;
                let (origin, env) = (Origin::Sandbox(source.clone()), spec.env.clone());
                let policy = egress::resolve(session, &work, &asked, origin, env, None).await?;
                spec.egress = Some(policy);
            }
            Ok(Backend::clone(work.backend.as_ref(), &source, &spec, &work.cancel).await?)
        })?;
        if self.format.json() {
            session.output.json(&view::sandbox_json(&info));
        } else {
            session.output.note(format!("{} is {}", info.name, info.state.word()));
        }
        Ok(0)
    }
}
