//! `nas-sim`: a TrueNAS to test clients against.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nas_sim::{FailRule, Options, Release, Sim, rule, tool};

/// A TrueNAS to test clients against. It prints one line of JSON when it is ready: where it listens,
/// the API key of root (whose password is `root`), the fingerprint of its certificate.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Which release it is
    #[arg(long, value_enum, default_value = "25.10")]
    release: Release,
    /// Where it listens, TLS and plain text alike; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where its root, its daemon's state and its pool live
    #[arg(long, default_value = "/var/tmp/nas-sim.state")]
    state: PathBuf,
    /// A Debian root file system as a tar, for containers and a host shell (needs root and Incus)
    #[arg(long)]
    rootfs: Option<PathBuf>,
    /// The name of its pool
    #[arg(long, default_value = "tank")]
    pool: String,
    /// Start without a pool for containers
    #[arg(long)]
    no_pool: bool,
    /// Switch a trap off, by its number; can be given again
    #[arg(long = "without-trap", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    without: Vec<u8>,
    /// Add a user with these roles: NAME:ROLE,ROLE
    #[arg(long, value_name = "NAME:ROLES")]
    user: Vec<String>,
    /// The secret (base 32) of the one-time codes that root is asked for after its password
    #[arg(long)]
    otp: Option<String>,
    /// Seconds after which 25.x cuts a connection that it has nothing to say on
    #[arg(long, default_value_t = 60.0)]
    idle: f64,
    /// A client on loopback counts as local: its key may be shown without TLS
    #[arg(long)]
    loopback_is_local: bool,
    /// Be a standby controller: send every login to this address
    #[arg(long)]
    redirect: Vec<String>,
    /// Milliseconds that each call waits
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// Milliseconds that are added to that, at most
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// A method that fails: METHOD=ERRNO or METHOD=ERRNO:TIMES
    #[arg(long, value_parser = rule)]
    fail: Vec<FailRule>,
    /// Cut each connection after this many frames of the client
    #[arg(long)]
    drop_after: Option<u64>,
    /// Cut a connection that calls this method
    #[arg(long)]
    drop_at: Vec<String>,
    /// Restart the middleware every so many milliseconds
    #[arg(long)]
    restart_every: Option<u64>,
    /// Milliseconds that a guest waits before it asks for an address
    #[arg(long, default_value_t = 0)]
    dhcp_delay: u64,
    /// Milliseconds that a guest's sshd waits before it starts
    #[arg(long, default_value_t = 0)]
    sshd_delay: u64,
    /// How many deletes fail because storage is busy
    #[arg(long, default_value_t = 0)]
    busy_deletes: u32,
    /// The pool is full
    #[arg(long)]
    full: bool,
    /// Milliseconds that the clock is ahead
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    skew: i64,
    /// A Unix socket that takes faults while it runs, a command a line
    #[arg(long)]
    control: Option<PathBuf>,
    /// Its certificate, chain and all, as a PEM file; without, it is self-signed
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's key as a PEM file
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// A result that does not fit its model is an error
    #[arg(long)]
    check_results: bool,
    /// A folder for what each connection says: RELEASE_N.jsonl
    #[arg(long)]
    transcript: Option<PathBuf>,
}

fn options(args: &Args) -> Options {
    let mut options = Options::new(args.release, &args.state);
    options.listen = args.listen;
    options.rootfs.clone_from(&args.rootfs);
    options.pool.clone_from(&args.pool);
    options.ready = !args.no_pool;
    options.without.clone_from(&args.without);
    options.idle = Duration::from_secs_f64(args.idle);
    options.loopback_is_local = args.loopback_is_local;
    options.redirect.clone_from(&args.redirect);
    options.control.clone_from(&args.control);
    options.identity = args.certificate.clone().zip(args.key.clone());
    options.check_results = args.check_results;
    options.transcript.clone_from(&args.transcript);
    if let Some(root) = options.users.first_mut() {
        root.otp.clone_from(&args.otp);
    }
    for user in &args.user {
        let (name, roles) = user.split_once(':').unwrap_or((user, ""));
        let roles: Vec<&str> = roles.split(',').filter(|r| !r.is_empty()).collect();
        options.add_user(name, &roles);
    }
    let millis = Duration::from_millis;
    let faults = &mut options.faults;
    faults.latency = millis(args.latency);
    faults.jitter = millis(args.jitter);
    faults.fails.clone_from(&args.fail);
    faults.drop_after = args.drop_after;
    faults.drop_at.clone_from(&args.drop_at);
    faults.restart_every = args.restart_every.map(millis);
    faults.dhcp_delay = millis(args.dhcp_delay);
    faults.sshd_delay = millis(args.sshd_delay);
    faults.busy_deletes = args.busy_deletes;
    faults.full = args.full;
    faults.skew = args.skew;
    options
}

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let name = argv.first().and_then(|p| p.rsplit('/').next()).unwrap_or_default();
    if tool::NAMES.contains(&name) {
        return ExitCode::from(tool::run(name, &argv[1..]) as u8);
    }
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("nas-sim: {e}");
            return ExitCode::from(70);
        }
    };
    runtime.block_on(async {
        let program = std::env::current_exe().unwrap_or_default();
        let sim = match Sim::start(options(&args), &program).await {
            Ok(sim) => sim,
            Err(e) => {
                eprintln!("nas-sim: {e}");
                return ExitCode::FAILURE;
            }
        };
        // Whoever reads the line may end it at once.
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        println!("{}", sim.describe());
        match terminate {
            Ok(mut terminate) => tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            },
            Err(_) => drop(tokio::signal::ctrl_c().await),
        }
        drop(sim);
        ExitCode::SUCCESS
    })
}
