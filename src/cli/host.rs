//! `sandscript host`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::FormatArg;
use super::session::Session;
use super::{CommandError, Result};
use crate::backend::nspawn::install::{self, Entry};
use crate::backend::nspawn::{NspawnBackend, NspawnConfig};
use crate::sandbox::Cancel;
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  sandscript host install                        once, as root
  sandscript host install --store /mnt/tank/sandscript
  sandscript host uninstall

What starts with the host says its machine file: docs/machine-files.md";

/// Have this host start its machines when it boots
///
/// One entry outside of the store is all that it takes: of TrueNAS's start-up commands where this is one, else a
/// unit of systemd. It calls a program that is kept in the store.
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct HostVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Register the entry, and copy this program into the store for it; again after an upgrade of sandscript
    Install,
    /// Take the entry and the program away; machines stay as they are
    Uninstall,
    /// What the entry calls: render all machines of files, and start those with autostart
    Boot {
        #[command(flatten)]
        format: FormatArg,
    },
}

impl HostVerb {
    pub(super) fn json(&self) -> bool {
        matches!(&self.verb, Verb::Boot { format } if format.json())
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        session.leave_untidied();
        if session.settings.backend != "nspawn" {
            return Err(CommandError::usage(format!(
                "backend '{}' starts nothing when its host boots",
                session.settings.backend
            ))
            .hint("leave --backend out")
            .code(exit::UNSUPPORTED));
        }
        if let Some(host) = &session.settings.host {
            return Err(CommandError::usage(format!("what '{host}' starts is said on '{host}'"))
                .hint("run 'sandscript host' there, as root")
                .code(exit::UNSUPPORTED));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| CommandError::system("the runtime can't be started", &error))?;
        let config = NspawnConfig {
            store: session.settings.nspawn_store.clone(),
            image_server: session.settings.image_server.clone(),
            ..NspawnConfig::default()
        };
        runtime.block_on(async {
            let backend = NspawnBackend::open(config).await?;
            match self.verb {
                Verb::Install => {
                    let own = std::path::Path::new("/proc/self/exe");
                    let installed = install::install(backend.store(), own).await?;
                    let entry = match &installed.entry {
                        Entry::TrueNas(id) => format!("start-up command {id} of TrueNAS"),
                        Entry::Unit(path) => path.display().to_string(),
                    };
                    let program = installed.program.display();
                    session.output.note(format!("{entry} calls {program} when this host boots"));
                    Ok(exit::OK)
                }
                Verb::Uninstall => {
                    let said = match install::uninstall(backend.store()).await? {
                        true => "nothing starts machines any more when this host boots",
                        false => "nothing was installed",
                    };
                    session.output.note(said);
                    Ok(exit::OK)
                }
                Verb::Boot { format } => boot(session, &backend, format.json()).await,
            }
        })
    }
}

async fn boot(session: &Session<'_>, backend: &NspawnBackend, json: bool) -> Result {
    let all = backend.boot(&Cancel::new()).await?;
    let failed = all.iter().any(|one| one.done.is_err());
    if json {
        let rows = all.iter().map(|one| {
            let error = one.done.as_ref().err().map(ToString::to_string);
            json!({ "name": one.name, "started": one.started && error.is_none(), "error": error })
        });
        session.output.json(&rows.collect());
    }
    for one in &all {
        match &one.done {
            Err(error) => session.output.warn(format!("{}: {error}", one.name)),
            Ok(()) if one.started => session.output.note(format!("{} is running", one.name)),
            Ok(()) => session.output.note(format!("{} can be started", one.name)),
        }
    }
    Ok(if failed { exit::FAILED } else { exit::OK })
}
