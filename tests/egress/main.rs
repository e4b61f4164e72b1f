//! Hostile guests against egress policies, in an internet of the tests' own: two network namespaces
//! joined by a pair of interfaces, a DNS server and servers under made-up names. Nothing leaves the
//! machine. Runs as whoever starts it; there is no `nft`, `ip` or `iptables` on the PATH of what is tested.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod attacks;
mod internet;
mod names;
mod networks;
mod ports;
mod probe;
mod programs;
mod registries;
mod rig;
mod speed;
mod survival;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use rig::Rig;

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
echo go >&3
set +e
$AS_USER env PATH=/nowhere SANDSCRIPT_TEST_ROLE=host "$SELF" "$@"
end=$?
kill $internet
exit $end
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
    sandscript::backend::local::init();
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("probe") {
        return probe::run(&words.collect::<Vec<_>>());
    }
    match std::env::var("SANDSCRIPT_TEST_ROLE").as_deref() {
        Ok("host") => host(),
        Ok("internet") => internet::serve(),
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
    let mut unshare = Command::new("unshare");
    // An ordinary user goes on as one, in a namespace of which somebody else is root.
    if !rig::is_root() {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        unshare.args(["--user", "--map-root-user"]);
        unshare.env("AS_USER", format!("unshare --user --map-user={uid} --map-group={gid}"));
    }
    let status = unshare
        .args(["--net", "sh", "-c", HOST, "sh"])
        .args(std::env::args_os().skip(1))
        .env("SELF", std::env::current_exe().unwrap())
        .env("SANDSCRIPT_TEST_ZONE", zone)
        .env("FOLDER", folder.path())
        .env("INTERNET", INTERNET)
        .env("SANDSCRIPT_TEST_TOOLCHAIN", toolchain())
        .status()
        .unwrap();
    ExitCode::from(u8::try_from(status.code().unwrap_or(101)).unwrap_or(101))
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
    let trials = all.into_iter().flatten().map(|(name, test)| {
        let rig = rig.clone();
        Trial::test(*name, move || {
            let tried = std::panic::AssertUnwindSafe(|| test(&rig));
            std::panic::catch_unwind(tried).map_err(|panic| {
                let text = panic.downcast::<String>().map(|text| *text);
                Failed::from(text.unwrap_or_else(|other| {
                    other.downcast::<&str>().map_or("panicked".into(), |text| (*text).into())
                }))
            })
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let left = rig.close();
    if let Err(left) = &left {
        eprintln!("not left clean: {left}");
    }
    if left.is_ok() && !conclusion.has_failed() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
