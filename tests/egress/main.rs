//! Hostile guests against egress policies, in an internet of the tests' own: two network namespaces
//! joined by a pair of interfaces, a DNS server and servers under made-up names. Nothing leaves the
//! machine. Runs as whoever starts it; there is no `nft`, `ip` or `iptables` on the PATH of what is tested.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod attacks;
#[path = "../nspawn/rig.rs"]
mod booted;
#[path = "../incus/rig/mod.rs"]
mod daemon;
mod fence;
mod guest;
mod incus;
mod internet;
mod names;
mod nas;
mod networks;
mod nspawn;
mod ports;
mod probe;
mod programs;
mod registries;
mod rig;
mod speed;
mod survival;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use rig::{By, Rig};

type Test = (&'static str, fn(&Rig));

/// Run in a new network namespace, which becomes the host's. Its child's is everything else.
const HOST: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
mkfifo "$FOLDER/in" "$FOLDER/out"
unshare --net sh -c "$INTERNET" < "$FOLDER/in" > "$FOLDER/out" &
internet=$!
exec 3> "$FOLDER/in"
read ready < "$FOLDER/out"
set -e
ip link set lo up
ip link add up0 type veth peer name inet0 netns $internet
ip addr add 203.0.113.1/24 dev up0
ip link set up0 up
ip -6 addr add 2001:db8:1::1/64 dev up0 nodad
ip route add default via 203.0.113.2
# As with docker or a firewall: what is forwarded is dropped. There is nothing to forward.
! command -v nft >/dev/null || nft 'table inet others { chain forward { type filter hook forward priority 0; policy drop; }; }'
echo 0 > /proc/sys/net/ipv4/ip_forward
if [ -n "$DAEMON$NAS" ]; then
  # But for guests with an interface on a daemon's own bridge.
  echo 1 > /proc/sys/net/ipv4/ip_forward
  for bridge in ss nassim; do
    nft "add rule inet others forward iifname \"$bridge*\" accept; add rule inet others forward oifname \"$bridge*\" accept"
  done
fi
echo go >&3
set +e
if [ -n "$DAEMON" ]; then
  mkfifo "$FOLDER/daemon" "$FOLDER/socket"
  SANDSCRIPT_TEST_ROLE=daemon "$SELF" < "$FOLDER/daemon" > "$FOLDER/socket" &
  daemon=$!
  exec 4> "$FOLDER/daemon"
  read -r SANDSCRIPT_TEST_INCUS < "$FOLDER/socket"
  export SANDSCRIPT_TEST_INCUS
fi
$AS_USER env PATH=/nowhere SANDSCRIPT_TEST_ROLE=host "$SELF" "$@" 4>&-
end=$?
exec 4>&-
[ -z "$DAEMON" ] || wait $daemon
kill $internet
exit $end
"#;

/// For a user with a range of subordinate ids: a user namespace in which the user and its range are
/// themselves, and the range's last id is root.
const RANGE: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
mkfifo "$FOLDER/there" "$FOLDER/hold"
unshare --user sh -c 'echo > "$FOLDER/there"; read end < "$FOLDER/hold"' &
holder=$!
read there < "$FOLDER/there"
newuidmap $holder $UIDS && newgidmap $holder $GIDS || { echo > "$FOLDER/hold"; exit 120; }
nsenter --user=/proc/$holder/ns/user --setuid 0 --setgid 0 unshare --net --mount sh -c "$MAPPERS" sh "$@"
end=$?
echo > "$FOLDER/hold"
exit $end
"#;

/// In there nobody is this machine's root, so the programs that give ids out have to be its own root's.
const MAPPERS: &str = r#"
set -e
mkdir "$FOLDER/mappers"
mount -t tmpfs mappers "$FOLDER/mappers"
for mapper in newuidmap newgidmap; do
  path=$(command -v $mapper)
  cp "$path" "$FOLDER/mappers"
  chmod 4755 "$FOLDER/mappers/$mapper"
  mount --bind "$FOLDER/mappers/$mapper" "$path"
done
for file in subuid subgid; do
  echo "$RANGES" | sed -n s/$file://p > "$FOLDER/mappers/$file"
  mount --bind "$FOLDER/mappers/$file" /etc/$file
done
exec sh -c "$HOST" sh "$@"
"#;

const INTERNET: &str = r#"
echo; read go; set -e
ip link set lo up
ip link set inet0 up
for four in 2 10 11 20 30 40 53 66; do ip addr add 203.0.113.$four/24 dev inet0; done
for six in 10 20; do ip -6 addr add 2001:db8:1::$six/64 dev inet0 nodad; done
for private in 10.66.0.5 10.66.0.6 169.254.169.254; do ip addr add $private/32 dev lo; done
SANDSCRIPT_TEST_ROLE=internet exec "$SELF"
"#;

fn main() -> ExitCode {
    // A simulated NAS's own commands are this program by other names.
    let argv: Vec<String> = std::env::args().collect();
    let name = argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if nas_sim::tool::NAMES.contains(&name) {
        return (nas_sim::tool::run(name, &argv[1..]) as u8).into();
    }
    sandscript::backend::local::init();
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("probe") {
        return probe::run(&words.collect::<Vec<_>>());
    }
    match std::env::var("SANDSCRIPT_TEST_ROLE").as_deref() {
        Ok("host") => host(),
        Ok("internet") => internet::serve(),
        Ok("daemon") => serve_daemon(),
        Ok("nas") => nas::serve(&std::env::var("SANDSCRIPT_TEST_RELEASE").unwrap()),
        _ => enter(),
    }
}

/// Goes on in a namespace of its own that takes the host's part.
fn enter() -> ExitCode {
    for tool in ["unshare", "ip"] {
        let look = format!("PATH=$PATH:/usr/sbin:/sbin; command -v {tool}");
        let there = Command::new("sh").args(["-c", &look]).stdout(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            println!("skip: {tool} is not installed");
            return ExitCode::SUCCESS;
        }
    }
    let folder = tempfile::Builder::new().prefix("sandscript-egress-").tempdir().unwrap();
    let zone = folder.path().join("zone");
    std::fs::write(&zone, internet::ZONE).unwrap();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // An ordinary user goes on as one, in a namespace of which somebody else is root.
    let mut enter = match (rig::is_root(), ranges(uid)) {
        (true, _) => {
            let mut enter = Command::new("unshare");
            enter.args(["--net", "sh", "-c", HOST, "sh"]);
            enter
        }
        (false, Some([(uids, count), (gids, groups)])) => {
            let map = |own: u32, first: u32, count: u32| {
                let rest = count - 1;
                format!("{own} {own} 1 0 {} 1 {first} {first} {rest}", first + rest)
            };
            let range =
                |file: &str, first: u32, count: u32| format!("{file}:{uid}:{first}:{}", count - 1);
            let mut enter = Command::new("sh");
            enter.args(["-c", RANGE, "sh"]);
            enter.env("UIDS", map(uid, uids, count)).env("GIDS", map(gid, gids, groups));
            let ranges = [range("subuid", uids, count), range("subgid", gids, groups)].join("\n");
            enter.env("RANGES", ranges).env("MAPPERS", MAPPERS).env("HOST", HOST);
            let user = format!("setpriv --reuid {uid} --regid {gid} --clear-groups");
            enter.env("AS_USER", user).env("SANDSCRIPT_TEST_RANGE", "1");
            enter
        }
        (false, None) => {
            let mut enter = Command::new("unshare");
            enter.args(["--user", "--map-root-user", "--net", "sh", "-c", HOST, "sh"]);
            enter.env("AS_USER", format!("unshare --user --map-user={uid} --map-group={gid}"));
            enter
        }
    };
    let machines = machines(folder.path());
    if let Ok(Some((disk, image))) = &machines {
        enter.env("SANDSCRIPT_TEST_DISK", disk.path()).env("SANDSCRIPT_TEST_IMAGE", image);
    } else if let Err(why) = machines {
        eprintln!("no machines of systemd-nspawn: {why}");
        return ExitCode::FAILURE;
    }
    let status = enter
        .args(std::env::args_os().skip(1))
        .env("SELF", std::env::current_exe().unwrap())
        .env("SANDSCRIPT_TEST_ZONE", zone)
        .env("FOLDER", folder.path())
        .env("DAEMON", if wants_daemon() { "1" } else { "" })
        .env("NAS", if wants_nas() { "1" } else { "" })
        .env("SANDSCRIPT_TEST_PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("INTERNET", INTERNET)
        .env("SANDSCRIPT_TEST_TOOLCHAIN", toolchain())
        .status()
        .unwrap();
    ExitCode::from(u8::try_from(status.code().unwrap_or(101)).unwrap_or(101))
}

/// The first id and the number of a user's own subordinate ids, users' and groups'; none where there are not
/// enough, or nothing that gives them out.
fn ranges(uid: u32) -> Option<[(u32, u32); 2]> {
    let tools = "PATH=$PATH:/usr/sbin:/sbin; command -v newuidmap newgidmap nsenter setpriv";
    let found = Command::new("sh").args(["-c", tools]).output().ok()?;
    let all = found.stdout.iter().filter(|byte| **byte == b'\n').count() == 4;
    let name = Command::new("id").arg("-un").output().ok()?;
    let (name, uid) = (String::from_utf8(name.stdout).ok()?, uid.to_string());
    let range = |file: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [owner, first, count] = fields[..] else { return None };
            let count: u32 = count.parse().ok()?;
            let own = [name.trim(), &uid].contains(&owner) && count >= 65_536;
            own.then(|| Some((first.parse().ok()?, count)))?
        })
    };
    let both = [range("/etc/subuid")?, range("/etc/subgid")?];
    all.then_some(both)
}

/// Whether tests are asked for that need an Incus daemon.
fn wants_daemon() -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    let wanted =
        |word: String| ["incus", "guest", "fence"].iter().any(|kind| word.starts_with(kind));
    rig::is_root() && words.next().is_none_or(wanted)
}

/// What machines of systemd-nspawn need, made where its programs are: a disk for the store, and an image. None
/// where no test is asked for that needs them.
fn machines(folder: &std::path::Path) -> Result<Option<(booted::Disk, PathBuf)>, String> {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    if !rig::is_root() || !words.next().is_none_or(|word| word.starts_with("nspawn")) {
        return Ok(None);
    }
    match booted::lacks() {
        None => {}
        Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => return Err(why),
        Some(why) => {
            println!("skipped nspawn: {why}");
            return Ok(None);
        }
    }
    let image = booted::image()?;
    Ok(Some((booted::Disk::mount(folder)?, image)))
}

/// Whether tests are asked for that need a simulated NAS.
fn wants_nas() -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    rig::is_root() && words.next().is_none_or(|word| word.starts_with("truenas"))
}

/// Runs an Incus daemon as long as somebody listens, and says where its socket is, or why there is none.
fn serve_daemon() -> ExitCode {
    let folder = tempfile::Builder::new().prefix("sandscript-egress-").tempdir().unwrap();
    let started = daemon::lacks().map_or_else(|| daemon::Daemon::start(folder.path()), Err);
    match &started {
        Ok(daemon) => println!("{}", daemon.socket().display()),
        Err(why) => println!("{why}"),
    }
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    ExitCode::SUCCESS
}

/// A rig, what its tests' names begin with, and these.
type Server = (Arc<Rig>, &'static str, Vec<Test>);

/// The tests on an Incus daemon, where there is one.
fn on_incus() -> Result<Vec<Server>, String> {
    match std::env::var("SANDSCRIPT_TEST_INCUS") {
        Err(_) => Ok(Vec::new()),
        Ok(socket) if socket.starts_with('/') => {
            let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
            let all = [
                ("incus_", By::Host, incus::tests()),
                ("guest_", By::Guest, [guest::tests(), guest::by_the_server()].concat()),
                ("fence_", By::Server, fence::tests()),
            ];
            let all = all.into_iter().filter(|(prefix, _, _)| {
                let kind = &prefix[..5];
                wanted.as_ref().is_none_or(|word| word.starts_with(kind))
            });
            let open = |(prefix, by, tests)| {
                let rig = Rig::open_server(socket.as_ref(), by);
                rig.map(|rig| (Arc::new(rig), prefix, tests)).map_err(|error| error.to_string())
            };
            all.map(open).collect()
        }
        Ok(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => Err(why),
        Ok(why) => {
            println!("skipped incus: {why}");
            Ok(Vec::new())
        }
    }
}

/// The tests on machines of systemd-nspawn, where there is a disk for them.
fn on_nspawn() -> Result<Option<Server>, String> {
    let Some(disk) = std::env::var_os("SANDSCRIPT_TEST_DISK") else { return Ok(None) };
    let rig = Rig::open_machines(disk.as_ref()).map_err(|error| error.to_string())?;
    Ok(Some((Arc::new(rig), "nspawn_", nspawn::tests())))
}

/// The folder of the Rust toolchain, before its way is off the PATH; empty where there is none.
fn toolchain() -> String {
    let asked = Command::new("rustc").args(["--print", "sysroot"]).stderr(Stdio::null()).output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

fn host() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(3);
    let rig = match Rig::open() {
        Ok(rig) => Arc::new(rig),
        Err(error) => {
            println!("skip: backend local can't work here: {error}");
            return ExitCode::SUCCESS;
        }
    };
    let all: [&[Test]; 8] = [
        names::TESTS,
        attacks::TESTS,
        survival::TESTS,
        registries::TESTS,
        ports::TESTS,
        networks::TESTS,
        programs::TESTS,
        speed::TESTS,
    ];
    let servers = on_incus().and_then(|mut all| {
        all.extend(on_nspawn()?);
        Ok(all)
    });
    let servers = match servers {
        Ok(servers) => servers,
        Err(why) => {
            eprintln!("no server: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials: Vec<Trial> =
        all.into_iter().flatten().map(|(name, test)| trial(name, &rig, *test)).collect();
    for (server, prefix, tests) in &servers {
        let all = tests.iter();
        trials.extend(all.map(|(name, test)| trial(&format!("{prefix}{name}"), server, *test)));
    }
    let mut columns = Vec::new();
    match daemon::lacks() {
        _ if !wants_nas() => {}
        None => {
            let (releases, all) = nas::columns();
            columns = releases;
            trials.extend(all);
        }
        Some(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            eprintln!("no simulated NAS: {why}");
            return ExitCode::FAILURE;
        }
        Some(why) => println!("skipped truenas: {why}"),
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    nas::end(columns);
    for (server, _, _) in servers {
        if let Err(left) = server.close() {
            eprintln!("not left clean: {left}");
            return ExitCode::from(101);
        }
    }
    let left = rig.close();
    if let Err(left) = &left {
        eprintln!("not left clean: {left}");
    }
    if left.is_ok() && !conclusion.has_failed() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn trial(name: &str, rig: &Arc<Rig>, test: fn(&Rig)) -> Trial {
    let rig = rig.clone();
    Trial::test(name, move || attempt(&rig, test))
}

/// Runs a test, and says why it panics.
fn attempt(rig: &Rig, test: fn(&Rig)) -> Result<(), Failed> {
    let tried = std::panic::AssertUnwindSafe(|| test(rig));
    std::panic::catch_unwind(tried).map_err(|panic| {
        let text = panic.downcast::<String>().map(|text| *text);
        Failed::from(text.unwrap_or_else(|other| {
            other.downcast::<&str>().map_or("panicked".into(), |text| (*text).into())
        }))
    })
}
