//! The command line: the only room that prints, prompts, reads the environment or ends the process.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod background;
mod base;
mod cache;
mod check;
mod clone;
mod config;
mod create;
mod delete;
mod doctor;
mod editor;
mod egress;
mod enter;
mod error;
mod exec;
mod explain;
mod gc;
#[cfg(feature = "nspawn")]
mod host;
mod housekeeping;
mod init;
mod list;
mod lock;
#[cfg(feature = "nspawn")]
mod machine;
mod opener;
mod output;
mod params;
mod plan;
mod publish;
#[cfg(feature = "incus")]
mod remote;
mod repl;
mod reports;
mod run;
mod runs;
mod serve;
mod session;
mod show;
mod signals;
mod snapshot;
mod start;
mod stdin;
mod stop;
mod stubs;
mod terminal;
mod timer;
mod tries;
mod view;
mod watch;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub use error::CommandError;
use output::Output;
use session::Session;

use crate::workflow::exit;

/// What every verb returns: the exit code of the process.
type Result<T = u8, E = CommandError> = std::result::Result<T, E>;

const EXAMPLES: &str = "\
Examples:
  sandscript run scripts/build_base.rhai       run a workflow
  sandscript watch scripts/test_matrix.rhai    and again when something that it reads changes
  sandscript create web && sandscript exec web -- uname -a
  sandscript snapshot create web clean         keep this state
  sandscript clone web twin --label clean      a new machine from it
  sandscript repl                              try things line by line
  sandscript doctor                            what works on this machine, and why not

Exit codes: docs/exit-codes.md";

/// Scripts for Linux sandboxes: build a base, snapshot it, clone it, run a matrix in the clones.
#[derive(Parser)]
#[command(
    name = "sandscript",
    version,
    max_term_width = 100,
    after_help = EXAMPLES,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Where sandboxes live [default: local]
    #[arg(long, global = true, value_name = "BACKEND")]
    backend: Option<String>,
    /// The machine that the backend drives, where that is another one
    #[arg(long, global = true, value_name = "HOST")]
    host: Option<String>,
    /// The release of TrueNAS that one which is not known is treated as, such as 26
    #[arg(long, global = true, value_name = "RELEASE")]
    assume_release: Option<String>,
    /// The profile that holds for egress policies: of your config.toml, or agents
    #[arg(long, global = true, value_name = "PROFILE")]
    profile: Option<String>,
    /// Folder of the local backend's sandboxes and layers
    #[arg(long, global = true, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// Open the backend anew, without the process that keeps it open between commands
    #[arg(long, global = true)]
    no_session: bool,
    /// When to use colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Show what the commands of steps and cells print, too
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Verb {
    Run(plan::RunOrPlan),
    Watch(Box<watch::Watch>),
    Check(check::Check),
    Init(init::Init),
    Repl(repl::Repl),
    Base(base::Base),
    Cache(cache::Cache),
    Lock(lock::Lock),
    Create(Box<create::Create>),
    List(list::List),
    Show(show::Show),
    Start(start::Start),
    Stop(stop::Stop),
    Exec(exec::Exec),
    Enter(enter::Enter),
    Runs(runs::Runs),
    #[command(hide = true)]
    Serve(serve::Serve),
    Snapshot(snapshot::Snapshot),
    Egress(egress::Egress),
    Publish(publish::Publish),
    #[cfg(feature = "nspawn")]
    Machine(machine::MachineVerb),
    #[cfg(feature = "nspawn")]
    Host(host::HostVerb),
    #[cfg(feature = "incus")]
    Remote(remote::Remote),
    Clone(clone::Clone),
    Delete(delete::Delete),
    Gc(gc::Gc),
    Doctor(doctor::Doctor),
    Stubs(stubs::Stubs),
}

impl Verb {
    /// Whether the answer is to be JSON; an error then is, too.
    fn json(&self) -> bool {
        match self {
            Verb::Run(verb) => verb.json(),
            Verb::Check(verb) => verb.json(),
            Verb::Create(verb) => verb.format.json(),
            Verb::List(verb) => verb.format.json(),
            Verb::Show(verb) => verb.format.json(),
            Verb::Exec(verb) => verb.format.json(),
            Verb::Runs(verb) => verb.json(),
            Verb::Base(verb) => verb.json(),
            Verb::Cache(verb) => verb.json(),
            Verb::Snapshot(verb) => verb.json(),
            Verb::Egress(verb) => verb.json(),
            Verb::Publish(verb) => verb.format.json(),
            #[cfg(feature = "nspawn")]
            Verb::Machine(verb) => verb.json(),
            #[cfg(feature = "nspawn")]
            Verb::Host(verb) => verb.json(),
            #[cfg(feature = "incus")]
            Verb::Remote(verb) => verb.json(),
            Verb::Clone(verb) => verb.format.json(),
            Verb::Gc(verb) => verb.format.json(),
            Verb::Doctor(verb) => verb.format.json(),
            Verb::Watch(_)
            | Verb::Lock(_)
            | Verb::Repl(_)
            | Verb::Start(_)
            | Verb::Stop(_)
            | Verb::Delete(_)
            | Verb::Serve(_)
            | Verb::Init(_)
            | Verb::Enter(_)
            | Verb::Stubs(_) => false,
        }
    }

    fn call(self, session: &Session<'_>) -> Result {
        match self {
            Verb::Run(verb) => verb.call(session),
            Verb::Watch(verb) => verb.call(session),
            Verb::Check(verb) => verb.call(session),
            Verb::Init(verb) => verb.call(session),
            Verb::Repl(verb) => verb.call(session),
            Verb::Base(verb) => verb.call(session),
            Verb::Cache(verb) => verb.call(session),
            Verb::Lock(verb) => verb.call(session),
            Verb::Create(verb) => verb.call(session),
            Verb::List(verb) => verb.call(session),
            Verb::Show(verb) => verb.call(session),
            Verb::Start(verb) => verb.call(session),
            Verb::Stop(verb) => verb.call(session),
            Verb::Exec(verb) => verb.call(session),
            Verb::Enter(verb) => verb.call(session),
            Verb::Runs(verb) => verb.call(session),
            Verb::Serve(_) => serve::Serve::call(),
            Verb::Snapshot(verb) => verb.call(session),
            Verb::Egress(verb) => verb.call(session),
            Verb::Publish(verb) => verb.call(session),
            #[cfg(feature = "nspawn")]
            Verb::Machine(verb) => verb.call(session),
            #[cfg(feature = "nspawn")]
            Verb::Host(verb) => verb.call(session),
            #[cfg(feature = "incus")]
            Verb::Remote(verb) => verb.call(session),
            Verb::Clone(verb) => verb.call(session),
            Verb::Delete(verb) => verb.call(session),
            Verb::Gc(verb) => verb.call(session),
            Verb::Doctor(verb) => verb.call(session),
            Verb::Stubs(verb) => verb.call(session),
        }
    }
}

/// `run SCRIPT --help` is about that script: the same call without `--help`, when there is one.
fn about_script(error: &clap::Error) -> Option<Cli> {
    if error.kind() != clap::error::ErrorKind::DisplayHelp {
        return None;
    }
    let mut ours = true;
    let args = std::env::args_os().filter(|arg| {
        ours &= arg != "--";
        !(ours && (arg == "--help" || arg == "-h"))
    });
    Cli::try_parse_from(args).ok().filter(|cli| matches!(cli.verb, Verb::Run(_)))
}

/// Whether a command line that is wrong is one of `exec`, whose own failures have codes of their own.
fn is_exec() -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("exec"))
}

/// Does what the process's arguments say and returns the process's exit code.
pub fn main() -> u8 {
    let (cli, about) = match Cli::try_parse() {
        Ok(cli) => (cli, false),
        Err(error) => match about_script(&error) {
            Some(cli) => (cli, true),
            None => {
                if let Err(error) = error.print()
                    && error.kind() != std::io::ErrorKind::BrokenPipe
                {
                    eprintln!("error: {}", output::unwritten(&error).message);
                    return exit::INTERNAL;
                }
                return match u8::try_from(error.exit_code()) {
                    Ok(0) => 0,
                    _ if is_exec() => exit::EXEC_FAILED,
                    code => code.unwrap_or(exit::USAGE),
                };
            }
        },
    };
    let environment = config::Environment::read();
    let output = Output::new(&cli.global, &environment);
    let json = cli.verb.json();
    // It is told all that it needs.
    if matches!(cli.verb, Verb::Serve(_)) {
        return serve::Serve::call().unwrap_or_else(|error| {
            output.error(&error, false);
            error.code
        });
    }
    let exec = matches!(cli.verb, Verb::Exec(_));
    let mut global = cli.global;
    #[cfg(feature = "nspawn")]
    if matches!(cli.verb, Verb::Machine(_) | Verb::Host(_)) {
        // No other one has machines of files.
        global.backend.get_or_insert_with(|| "nspawn".into());
    }
    let session = Session::new(global, environment, &output);
    let session = session.map_err(|error| if exec { error.code(exit::EXEC_FAILED) } else { error });
    let done = session.and_then(|session| match cli.verb {
        Verb::Run(verb) if about => verb.help(&session),
        verb => verb.call(&session),
    });
    done.unwrap_or_else(|error| {
        output.error(&error, json);
        error.code
    })
}

/// The whole command line as clap knows it, for generated documentation.
pub fn command() -> clap::Command {
    Cli::command()
}
