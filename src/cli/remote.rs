//! `sandscript remote`.

use std::io::Read;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::FormatArg;
use super::session::Session;
use super::{CommandError, Result};
use crate::backend::incus::{self, NewRemote};
use crate::workflow::exit;

const EXAMPLES: &str = "\
Examples:
  incus config trust add laptop                        on the server: prints a token
  sandscript remote add nas --token TOKEN              here
  sandscript list --backend incus --host nas
  sandscript remote add nas https://192.0.2.1 --fingerprint SHA256

The remotes of the Incus client (incus remote list) need not be added.";

/// Get to know Incus servers that are reached by HTTPS
///
/// A server's certificate is kept when it is added, and no other is taken from then on. Names are used
/// with --host, alone or with a project: nas, nas/tests.
#[derive(Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Remote {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Add a server
    Add(Add),
    /// List the servers that have a name, those of the Incus client too
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Take a server away that was added here
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Args)]
struct Add {
    /// What it is to be called
    name: String,
    /// Where it is, such as https://192.0.2.1:8443 [default: where the token says]
    address: Option<String>,
    /// What 'incus config trust add' printed on the server; -: read it from standard input
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The SHA-256 of the server's certificate, when there is no token: 'incus info' on it says it
    #[arg(long, value_name = "SHA256", conflicts_with = "token")]
    fingerprint: Option<String>,
    /// The project that is meant when no other is named
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
}

impl Remote {
    pub(super) fn json(&self) -> bool {
        matches!(&self.verb, Verb::List { format } if format.json())
    }

    pub fn call(self, session: &Session<'_>) -> Result {
        match self.verb {
            Verb::Add(add) => add.call(session),
            Verb::List { format } => list(session, format.json()),
            Verb::Remove { name } => {
                incus::remove(&folder(session)?, &name)?;
                session.output.note(format!("remote '{name}' is taken away"));
                Ok(exit::OK)
            }
        }
    }
}

fn folder(session: &Session<'_>) -> Result<std::path::PathBuf> {
    session.own_incus_folder().ok_or_else(|| {
        CommandError::usage("there is no folder for remotes: HOME is not set").hint("set HOME")
    })
}

impl Add {
    fn call(self, session: &Session<'_>) -> Result {
        let folder = folder(session)?;
        let token = match self.token.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin()
                    .take(64 << 10)
                    .read_to_string(&mut text)
                    .map_err(|error| CommandError::system("the token can't be read", &error))?;
                Some(text)
            }
            _ => self.token,
        };
        let new = NewRemote {
            name: self.name.clone(),
            address: self.address,
            token,
            fingerprint: self.fingerprint,
            project: self.project,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| CommandError::system("the runtime can't be started", &error))?;
        let added = runtime.block_on(incus::add(&folder, &new))?;
        let name = &self.name;
        let output = session.output;
        output.note(format!("remote '{name}' is {}", added.address));
        if let Some(fingerprint) = &added.fingerprint {
            output.note(format!("its certificate is kept: {fingerprint}"));
        }
        if !added.trusted {
            let certificate = added.certificate.display();
            output.warn(format!(
                "it does not know you yet: copy {certificate} there and run incus config trust add-certificate FILE"
            ));
            return Ok(exit::OK);
        }
        output.note(format!("now: sandscript list --backend incus --host {name}"));
        Ok(exit::OK)
    }
}

fn list(session: &Session<'_>, json: bool) -> Result {
    let all = incus::remotes(&session.settings.incus_folders)?;
    let all = all.iter().filter(|remote| !remote.images);
    let output = session.output;
    if json {
        let entry = |remote: &incus::Remote| {
            json!({
                "name": remote.name,
                "address": remote.address,
                "project": remote.project,
                "folder": remote.folder,
            })
        };
        output.json(&all.map(entry).collect::<Value>());
        return Ok(exit::OK);
    }
    let row = |remote: &incus::Remote| {
        vec![
            remote.name.clone(),
            remote.address.clone(),
            remote.project.clone().unwrap_or_default(),
            remote.folder.display().to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = all.map(row).collect();
    if rows.is_empty() {
        output.note("there are no remotes");
        return Ok(exit::OK);
    }
    output.table(&["REMOTE", "ADDRESS", "PROJECT", "FROM"], &rows);
    Ok(exit::OK)
}
