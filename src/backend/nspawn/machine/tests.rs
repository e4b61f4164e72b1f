//! Machine files as people write them, and what comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::host::MadeUp;
use super::render::{Context, Plan};
use super::*;
use crate::sandbox::Verdict;

fn given(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn machine(text: &str) -> Result<Machine> {
    Machine::parse("web.toml", text, "web", Path::new("/nowhere"), &BTreeMap::new())
}

fn wrong(text: &str) -> String {
    let error = machine(text).unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\n  {hint}"),
        None => error.to_string(),
    }
}

fn plan(text: &str) -> Plan {
    let machine = machine(text).unwrap();
    Plan::new(&machine, &Context::usual(&machine), "/tank/web.toml").unwrap()
}

/// Without the stamp, of which the tests know already.
fn body(text: &str) -> &str {
    text.split_once('\n').unwrap().1
}

const FULL: &str = r##"
description = "the web server"
image = { tarball = "https://example.org/root.tar.xz", sha256 = "00" }
hostname = "www"
autostart = { order = 10, delay = "5s" }
resolv_conf = { dns = ["192.0.2.1"], search = ["example.org"] }
nics = [
    { bridge = "br0" },
    { bridge = "br1", address = ["192.0.2.7/24", "2001:db8::7/64"], gateway = "192.0.2.1" },
    { macvlan = "eno1" },
    { veth = true, name = "back0", address = "10.9.0.2/24", gateway = "10.9.0.1" },
]
binds = [
    { source = "/tank/my data", target = "/data", readonly = true },
    "/tank/odd:/mnt/odd",
    { source = "/tank/shared", idmap = "rootidmap", optional = true, flat = true },
]
devices = ["/dev/fuse", { path = "/dev/kvm", optional = true }, { path = "/dev/dri", access = "rw" }]
gpu = ["nvidia"]
setup = { steps = ["true", { name = "two", run = "echo two" }] }

[limits]
cpu = 1.5
memory = "2GiB"
processes = 2048
disk = "20GiB"

[security]
add = ["net_admin"]
drop = ["CAP_SYS_PTRACE"]
seccomp = "docker"
allow = ["@sandbox", "perf_event_open"]
deny = ["swapon"]

[users]
base = 1048576

[env]
GREETING = "it's \"100%\" $HOME"
EMPTY = ""

[hooks]
timeout = "10s"
[hooks.host]
pre_start = "echo starting"
post_stop = { run = "#!/usr/bin/python3\nprint('gone')\n", timeout = "90s" }
[hooks.guest]
post_start = "touch /run/up"

[cloud_init]
user_data = "#cloud-config\npackages: [git]\n"

[nspawn.Exec]
Timezone = "off"
LimitNOFILE = "1024:4096"
FutureKey = ["a", "b"]

[nspawn.Network]
Port = ["tcp:8080:80"]

[unit.Service]
IOWeight = 50
Nice = "-5"
"##;

fn full() -> (Machine, Context) {
    let machine = machine(FULL).unwrap();
    let nvidia = "kind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n    mounts:\n    - {hostPath: /usr/bin/nvidia-smi, containerPath: /usr/bin/nvidia-smi}\n    hooks:\n    - {hookName: createContainer, path: x, args: [x, update-ldcache, --folder, /usr/lib64]}\n";
    let host = MadeUp::with([("/etc/cdi/nvidia.yaml", nvidia)]);
    let edits = cdi::look_up(&machine.gpus, &host).unwrap();
    let context = Context { edits, ..Context::usual(&machine) };
    (machine, context)
}

#[test]
fn a_machine_with_everything() {
    let (machine, context) = full();
    let plan = Plan::new(&machine, &context, "/tank/web.toml").unwrap();
    let files: Vec<String> = plan
        .all()
        .map(|file| format!("== {} {:o}\n{}", file.path.display(), file.mode, file.text))
        .collect();
    insta::assert_snapshot!(files.join("\n"));
    insta::assert_snapshot!(plan.command);
}

#[test]
fn little_is_needed() {
    let plan = plan("image = \"debian/12\"\n");
    insta::assert_snapshot!(body(&plan.nspawn.text), @r"
    [Exec]
    Boot=yes
    PrivateUsers=485949440:65536
    NotifyReady=yes
    ResolvConf=off
    LinkJournal=try-guest

    [Files]
    PrivateUsersOwnership=map

    [Network]
    Private=yes
    VirtualEthernet=no
    ");
    insta::assert_snapshot!(body(&plan.dropin.text), @r"
    [Unit]
    RequiresMountsFor=/var/lib/machines/web

    [Service]
    RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
    SystemCallArchitectures=native
    SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register
    SystemCallErrorNumber=EPERM
    ");
    assert!(plan.files.is_empty());
}

#[test]
fn what_is_wrong_is_told_where_it_is() {
    let all = [
        "imag = \"debian/12\"",
        "image = { alais = \"x\" }",
        "image = { alias = \"x\", oci = \"y\" }",
        "image = { alias = \"x\", sha256 = \"00\" }",
        "image = { distro = \"debian\" }",
        "\n\n[limits]\nmemory = \"lots\"",
        "[limits]\ncpu = 0",
        "[limits]\nmemmory = 1",
        "limits = 3",
        "nics = [{ bridge = \"br0\" }, { bridge = \"a name that is too long\" }]",
        "nics = [{ bridge = \"br0\", macvlan = \"eno1\" }]",
        "nics = [{ bridge = \"br0\", address = \"192.0.2.7\" }]",
        "nics = [{ bridge = \"br0\", gateway = \"192.0.2.1\" }]",
        "nics = [{ veth = true, name = \"a\" }, { veth = true, name = \"a\" }]",
        "network = \"host\"\nnics = [{ veth = true }]",
        "network = \"bridge\"",
        "binds = [\"relative:/x\"]",
        "binds = [\"/a/../b:/x\"]",
        "binds = [{ target = \"/x\" }]",
        "binds = [{ source = \"/x\", idmap = \"some\" }]",
        "devices = [\"/etc/passwd\"]",
        "devices = [{ path = \"/dev/x\", access = \"rwx\" }]",
        "gpu = [\"nvidja\"]",
        "[security]\nseccomp = \"dokcer\"",
        "[security]\nseccomp = \"none\"",
        "[security]\nadd = [\"net_amdin\"]",
        "[security]\nadd = [\"all\"]",
        "[security]\nallow = [\"open close\"]",
        "[users]\nbase = 100000",
        "[users]\nsize = 3",
        "[users]\nownership = \"mine\"",
        "[users]\nnamespace = false\nbase = 524288",
        "[env]\n\"A B\" = 1",
        "[env]\nA = \"one\\ntwo\"",
        "resolv_conf = \"bind-hots\"",
        "resolv_conf = { search = [\"x\"] }",
        "[hooks.host]\npre_strat = \"x\"",
        "[hooks.host]\npre_start = { timeout = \"1s\" }",
        "[setup]\nsteps = [{ name = \"a\", run = \"x\" }, { name = \"a\", run = \"y\" }]",
        "[cloud_init]\nuser_data = \"packages: []\"",
        "[nspawn.Exce]\nBoot = true",
        "[unit.Service]\nNice = \"1\\n2\"",
        "[needs.sysctls]\n\"net.ipv4.ip_forward\" = \">=many\"",
        "name = \"Web_1\"",
        "when = 2024-01-01",
        "a = \"\n",
        "extends = \"dokcer\"",
        "extends = \"./missing.toml\"",
        "image = \"{{imag}}\"\n[variables]\nimage = \"x\"",
        "[variables]\nlevel = { default = \"c\", choices = [\"a\", \"b\"] }",
        "[variables]\nBad = 1",
    ];
    let said: Vec<String> = all.iter().map(|text| wrong(text)).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_hands_the_host_over_is_refused() {
    let refused = |text: &str| {
        let machine = machine(text).unwrap();
        let error = Plan::new(&machine, &Context::usual(&machine), "x").unwrap_err();
        assert!(matches!(error, MachineError::Host { .. }) && error.hint().is_some());
        error.to_string()
    };
    insta::assert_snapshot!(
        refused("network = \"host\"\n[security]\nprivileged = true\n"),
        @"machine 'web': with these capabilities on the host's network it can change the host's firewall"
    );
    refused("network = \"host\"\n[security]\nadd = [\"net_admin\"]\n");
    // By systemd-nspawn's own names, too.
    refused(
        "[nspawn.Exec]\nCapability = \"all\"\n[nspawn.Network]\nPrivate = false\nVirtualEthernet = false\n",
    );
    insta::assert_snapshot!(
        refused("[security]\nseccomp = \"none\"\nunfiltered = true\n[users]\nnamespace = false\n"),
        @"machine 'web': without a range of user ids and without seccomp nothing keeps root of the machine in it"
    );
    refused(
        "[security]\nseccomp = \"none\"\nunfiltered = true\n[nspawn.Exec]\nPrivateUsers = \"no\"\n",
    );
    plan("nics = [{ bridge = \"br0\" }]\n[security]\nprivileged = true\n");
    plan("network = \"host\"\n");
}

#[test]
fn a_network_is_made_without_the_hosts_networkd() {
    let network = |text: &str| {
        let plan = plan(text);
        let (_, section) = plan.nspawn.text.split_once("[Network]\n").unwrap();
        let attach: Vec<String> = plan.attach.iter().map(|words| words.join(" ")).collect();
        let files: Vec<&str> = plan.files.iter().map(|file| body(&file.text)).collect();
        format!("{section}{}\n{}", attach.join("\n"), files.join("\n"))
    };
    insta::assert_snapshot!(network("nics = [{ zone = \"lab\", address = \"10.0.0.2/24\" }]"), @r"
    Private=yes
    VirtualEthernet=yes
    Zone=lab

    [Match]
    Virtualization=container
    Name=host0

    [Network]
    Address=10.0.0.2/24
    ");
    insta::assert_snapshot!(network("nics = [{ veth = true, address = \"10.0.0.2/24\", gateway = \"10.0.0.1\" }]\nname = \"a-name-of-more-than-twelve\""), @r"
    Private=yes
    VirtualEthernet=no
    VirtualEthernetExtra=sve18e984e-0:host0
    /usr/sbin/ip address replace 10.0.0.1/24 dev sve18e984e-0
    /usr/sbin/ip link set sve18e984e-0 up
    [Match]
    Virtualization=container
    Name=host0

    [Network]
    Address=10.0.0.2/24
    Gateway=10.0.0.1
    ");
    assert_eq!(network("network = \"none\""), "Private=yes\nVirtualEthernet=no\n\n");
    assert_eq!(network("network = \"host\""), "Private=no\nVirtualEthernet=no\n\n");
}

#[test]
fn a_root_elsewhere_is_named_on_the_command() {
    let plan =
        plan("image = { folder = \"/tank/jails/web 1/rootfs\" }\nnics = [{ veth = true }]\n");
    insta::assert_snapshot!(body(&plan.dropin.text), @r#"
    [Unit]
    RequiresMountsFor="/tank/jails/web 1/rootfs"

    [Service]
    ExecStart=
    ExecStart=systemd-nspawn --quiet --keep-unit --boot --settings=override --machine=web "--directory=/tank/jails/web 1/rootfs"
    ExecStartPost=/usr/sbin/ip link set ve-web up
    "#);
}

#[test]
fn what_it_may_reach_is_said_as_in_scripts() {
    let read = |text: &str| {
        Machine::parse("web.toml", text, "web", Path::new("/"), &BTreeMap::new()).unwrap()
    };
    let said = |text: &str| read(text).egress.unwrap().to_string();
    assert_eq!(read("").egress, None);
    assert_eq!(said("egress = \"unrestricted\""), "unrestricted");
    assert_eq!(said("egress = [\"example.com:443\"]"), "allowlist (example.com:443)");
    let both = "egress = { preset = \"git\", allow = [\"a.test\"], deny = [\"b.test\"] }";
    assert_eq!(said(both), "git (deny b.test, a.test)");
    assert_eq!(read("").network, Network::Gate);
    // What is laid over a template's bridge takes it away; beside one it is a mistake.
    let docker = read("extends = \"docker\"\nnetwork = \"gate\"\negress = \"agent\"\n");
    assert_eq!(docker.network, Network::Gate);
    let beside = "network = \"gate\"\nnics = [{ veth = true }]\n";
    let error = Machine::parse("w", beside, "web", Path::new("/"), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("nics"), "{error}");
    // Interfaces by systemd-nspawn's own names are interfaces.
    let passed = read("[nspawn.Network]\nBridge = \"br0\"\n");
    assert_eq!(passed.network, Network::Own(vec![Nic::new(Link::Veth)]));
}

#[test]
fn a_dollar_in_a_path_is_one() {
    let plan = plan("binds = [\"/tank/$x:/x\"]\n");
    assert!(
        plan.dropin.text.contains("\nRequiresMountsFor=\"/tank/$x\"\n"),
        "{}",
        plan.dropin.text
    );
}

#[test]
fn what_a_machine_is_given_is_in_a_closed_folder() {
    use std::os::unix::fs::PermissionsExt;
    let top = tempfile::tempdir().unwrap();
    let plan =
        plan("[cloud_init]\nuser_data = \"#cloud-config\\npassword: x\\n\"\n").below(top.path());
    let folder = top.path().join("run/sandscript/machines/web");
    // One that is there already is closed, too.
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    plan.write().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("cloud-init-user-data")), 0o644);
}

#[test]
fn ranges_follow_from_names_and_pass_others_over() {
    let users = Users::default();
    let first = users.base_for("web", &|_| false).unwrap();
    assert_eq!(users.base_for("web", &|_| false), Some(first));
    assert_eq!(first % RANGE, 0);
    let next = users.base_for("web", &|base| base == first).unwrap();
    assert_ne!(next, first);
    assert_eq!(users.base_for("web", &|_| true), None);
    assert_eq!(Users { namespace: false, ..users }.base_for("web", &|_| false), None);
}

#[test]
fn every_template_is_a_machine() {
    for template in templates::ALL {
        let variables = starter::variables_of(template).unwrap();
        let needed: BTreeMap<String, String> = variables
            .iter()
            .filter(|one| one.value.is_none())
            .map(|one| {
                (
                    one.name.clone(),
                    "/tank/x"
                        .trim_start_matches(if one.name == "lan" { "/tank/" } else { "" })
                        .to_owned(),
                )
            })
            .collect();
        let text = starter::text(template.name, &needed).unwrap();
        let machine =
            Machine::parse("m.toml", &text, "m", Path::new("/nowhere"), &BTreeMap::new()).unwrap();
        assert_eq!(machine.extends[0], template.name);
        assert!(machine.description.is_some() && machine.image.is_some(), "{}", template.name);
        assert!(!machine.setup.is_empty(), "{}", template.name);
        assert!(machine.users.namespace, "{}", template.name);
        Plan::new(&machine, &Context::usual(&machine), "m.toml").unwrap();
        // A host with nothing lacks things, and each has something to do about it.
        let checks = checks(&machine, &MadeUp::default());
        let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad);
        assert!(bad.clone().all(|check| check.hint.is_some()), "{checks:?}");
        assert!(bad.count() >= 1);
    }
}

#[test]
fn templates_extend_each_other() {
    let lxd = machine("extends = \"lxd\"\n[variables]\nbridge = \"br7\"\n").unwrap();
    assert_eq!(lxd.extends, ["lxd", "incus"]);
    assert_eq!(lxd.image, Some(Image::Alias("ubuntu/24.04".into())));
    assert_eq!(lxd.network, Network::Own(vec![Nic::new(Link::Bridge("br7".into()))]));
    assert!(lxd.security.privileged && lxd.setup[0].script.contains("snap install lxd"));
    // Lists of what a machine has are added to, what stands in one place is replaced.
    let more = machine(
        "extends = \"docker\"\nimage = \"ubuntu/24.04\"\ndevices = [\"/dev/kvm\", \"/dev/fuse\"]\n[security]\nallow = [\"@sandbox\"]\n",
    )
    .unwrap();
    let paths: Vec<&str> = more.devices.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/dev/fuse", "/dev/net/tun", "/dev/kvm"]);
    assert_eq!(more.image, Some(Image::Alias("ubuntu/24.04".into())));
    assert_eq!((more.security.seccomp, more.security.allow.len()), (Seccomp::Docker, 1));
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn files_extend_each_other_and_circles_are_told() {
    let files = folder(&[
        ("web.toml", "extends = \"base/site.toml\"\n[limits]\ncpu = 2\n"),
        ("base/site.toml", "extends = \"../all.toml\"\n[limits]\ncpu = 1\nmemory = \"1GiB\"\n"),
        ("all.toml", "extends = \"agent\"\ndescription = \"all\"\n"),
        ("a.toml", "extends = \"./b.toml\"\n"),
        ("b.toml", "extends = \"./a.toml\"\n"),
    ]);
    let at = |name: &str| Machine::load(&files.path().join(name), &BTreeMap::new());
    let web = at("web.toml").unwrap();
    assert_eq!(web.extends, ["base/site.toml", "../all.toml", "agent"]);
    assert_eq!((web.limits.cpu, web.limits.memory), (Some(2.0), Some(1 << 30)));
    assert_eq!(web.description.as_deref(), Some("all"));
    let error = at("a.toml").unwrap_err().to_string();
    assert!(error.ends_with("b.toml:1:11: it extends itself: ./b.toml → ./a.toml"), "{error}");
}

#[test]
fn variables_are_texts_numbers_and_literals() {
    let text = "image = \"{{image}}\"\nsetup = \"docker ps --format '{{.Names}}' {{{{image}} {{image}}\"\n[limits]\ncpu = \"{{cpu}}\"\n[variables]\nimage = \"debian/12\"\ncpu = { default = 2, choices = [\"2\", \"4\"] }\nlan = { about = \"the inside\" }\n";
    let with = |all: &[(&str, &str)]| Machine::parse("f", text, "m", Path::new("/"), &given(all));
    let machine = with(&[("cpu", "4")]).unwrap();
    assert_eq!(machine.limits.cpu, Some(4.0));
    assert_eq!(machine.setup[0].script, "docker ps --format '{{.Names}}' {{image}} debian/12");
    let error = with(&[("cpu", "3")]).unwrap_err().to_string();
    assert!(error.ends_with("cpu can't be '3': it is one of 2, 4"), "{error}");
    let error = with(&[("cpus", "3")]).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean 'cpu'?"));
    let unset = "image = \"{{lan}}\"\n[variables]\nlan = { about = \"the inside\" }\n";
    insta::assert_snapshot!(wrong(unset), @r#"
    web.toml:1:9: the variable 'lan' (the inside) has no value
      give it: --set lan=VALUE, or lan = "VALUE" below [variables]
    "#);
}

#[test]
fn a_host_says_what_it_lacks() {
    let machine =
        machine("extends = \"k3s\"\nbinds = [\"/tank/a:/a\"]\ngpu = [\"dri\"]\n").unwrap();
    let mut host = MadeUp::with([
        ("/proc/sys/fs/inotify/max_user_instances", "128\n"),
        ("/proc/sys/user/max_user_namespaces", "1000\n"),
        ("/proc/sys/kernel/osrelease", "6.12.0\n"),
        ("/proc/sys/net/ipv4/ip_forward", "0\n"),
        ("/proc/sys/vm/overcommit_memory", "1\n"),
        ("/proc/sys/fs/inotify/max_user_watches", "1000000\n"),
        ("/proc/filesystems", "nodev\toverlay\n"),
        ("/lib/modules/6.12.0/modules.builtin", "kernel/net/netfilter/nf_conntrack.ko\n"),
        (
            "/lib/modules/6.12.0/modules.dep",
            "kernel/net/bridge/br_netfilter.ko.xz: x\nkernel/net/ipv4/netfilter/ip_tables.ko: \n",
        ),
        ("/sys/module/iptable_nat/refcnt", "0"),
        ("/sys/class/net/br0/brif", ""),
        ("/dev/fuse", ""),
        ("/dev/kmsg", ""),
    ]);
    host.programs.insert("systemd-nspawn --version".into(), "systemd 252 (252.39)\n+PAM".into());
    let said: Vec<String> = checks(&machine, &host)
        .iter()
        .map(|check| {
            let hint = check.hint.as_deref().unwrap_or("-");
            format!("{:?} {}: {} | {hint}", check.verdict, check.what, check.says)
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

/// A jail's folder, as jailmaker leaves it.
fn jail(name: &str, config: &str, booted: bool) -> (tempfile::TempDir, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let jail = top.path().join("jails").join(name);
    std::fs::create_dir_all(jail.join("rootfs/etc")).unwrap();
    std::fs::create_dir_all(jail.join("rootfs/usr")).unwrap();
    std::fs::write(jail.join("config"), config).unwrap();
    if booted {
        std::fs::write(jail.join("rootfs/etc/machine-id"), "0123\n").unwrap();
    }
    (top, jail)
}

const JAILS: &[(&str, &str)] = &[
    ("docker", include_str!("import/fixtures/docker.config")),
    ("incus", include_str!("import/fixtures/incus.config")),
    ("k3s", include_str!("import/fixtures/k3s.config")),
    ("lxd", include_str!("import/fixtures/lxd.config")),
    ("nixos", include_str!("import/fixtures/nixos.config")),
    ("podman", include_str!("import/fixtures/podman.config")),
    ("router", include_str!("import/fixtures/router.config")),
];

#[test]
fn each_kind_of_jail_becomes_a_machine() {
    let mut said = String::new();
    for (name, config) in JAILS {
        let (top, jail) = jail(name, config, *name == "docker");
        let imported = import::import(&jail).unwrap();
        assert_eq!(imported, import::import(&jail.join("config")).unwrap());
        let path = top.path().join(format!("{name}.toml"));
        std::fs::write(&path, &imported.text).unwrap();
        let machine = Machine::load(&path, &BTreeMap::new()).unwrap();
        // Its root file system is where it was.
        let root = jail.canonicalize().unwrap().join("rootfs");
        assert_eq!(machine.image, Some(Image::Folder(root.clone())));
        let context = Context::usual(&machine);
        assert_eq!(context.root, root);
        let plan = Plan::new(&machine, &context, "x").unwrap();
        // And it starts, or what the host lacks is named: it has no bridge, but the root file system.
        let checks = checks(&machine, &super::host::ThisHost);
        let named = |what: &str| checks.iter().find(|check| check.what == what).unwrap().verdict;
        assert_eq!(named("root file system"), Verdict::Good);
        let bare = super::checks(&machine, &MadeUp::default());
        let bridge = bare.iter().find(|check| check.what == "bridge br1").unwrap();
        assert_eq!(
            (bridge.verdict, bridge.says.as_str()),
            (Verdict::Bad, "the host has no bridge br1")
        );
        let top = top.path().canonicalize().unwrap().display().to_string();
        said.push_str(&format!("=== {name}\n{}", imported.text));
        said.push_str(&format!("--- .nspawn\n{}\n", body(&plan.nspawn.text)));
        said = said
            .replace(&top, "/tank")
            .replace(&jail.parent().unwrap().parent().unwrap().display().to_string(), "/tank");
    }
    insta::assert_snapshot!(said);
}

#[test]
fn an_odd_jail_says_what_is_not_taken_over() {
    let config = "\
docker_compatible=1
colour=blue
startup=yes
seccomp=1
systemd_nspawn_user_args=--network-macvlan=eno1 --bind /mnt/a:/b --image=/x.raw -Zfoo --oci-bundle=/x
    --setenv='A=b c' --property='CPUWeight=20' --private-users=pick --drop-capability=CAP_SYS_ADMIN,CAP_MKNOD
systemd_run_default_args=--collect --property=MemoryMax=1G -p Nice=3 --slice=own.slice
pre_start_hook=echo PRE_START_HOOK
distro=debian
release=bookworm
";
    let (top, jail) = jail("My_Jail.2", config, false);
    std::fs::remove_dir_all(jail.join("rootfs")).unwrap();
    let imported = import::import(&jail).unwrap();
    let top = top.path().canonicalize().unwrap().display().to_string();
    let text = imported.text.replace(&jail.join("config").display().to_string(), "/tank/config");
    insta::assert_snapshot!(text.replace(&top, "/tank"));
    Machine::parse("m", &imported.text, &imported.name, Path::new("/"), &BTreeMap::new()).unwrap();
    for (config, at) in [
        ("startup\n", "config:1:1: this is no key with a value"),
        ("  x\n", "config:1:1: this goes on with a value, and there is none"),
        (
            "\nsystemd_nspawn_user_args='a\n",
            "config:2:1: systemd_nspawn_user_args: a single quote is not closed",
        ),
    ] {
        std::fs::write(jail.join("config"), config).unwrap();
        let error = import::import(&jail).unwrap_err().to_string();
        assert!(error.ends_with(at), "{error}");
    }
    assert!(import::import(&jail.join("nothing")).is_err());
}

const NSPAWN: &str = "\
; what a GUI wrote
[Exec]
Boot=yes
Environment=A=b \"C=d e\"
PrivateUsers=pick
Capability=CAP_NET_ADMIN CAP_SYS_PTRACE
SystemCallFilter=add_key keyctl bpf
LimitNOFILE=1024
Odd=kept

[Files]
PrivateUsersOwnership=chown
Bind=/dev/fuse
Bind=/tank/a\\:b:/a:rootidmap
BindReadOnly=-/tank/c
TemporaryFileSystem=/var/tmp:size=1G

[Network]
VirtualEthernet=yes
Port=tcp:80

[X-Gui]
Colour=blue
";

#[test]
fn a_nspawn_file_becomes_a_machine() {
    let files = folder(&[("build.nspawn", NSPAWN)]);
    let imported = import::import(&files.path().join("build.nspawn")).unwrap();
    let text = imported.text.replace(&files.path().display().to_string(), "/etc/systemd/nspawn");
    insta::assert_snapshot!(text, @r#"
    # build, as /etc/systemd/nspawn/build.nspawn said it.

    devices = ["/dev/fuse"]
    binds = [
        { source = "/tank/a:b", target = "/a", idmap = "rootidmap" },
        { source = "/tank/c", readonly = true, optional = true, idmap = "noidmap" },
    ]
    nics = [
        { veth = true },
    ]

    [env]
    A = "b"
    C = "d e"

    [security]
    add = ["CAP_NET_ADMIN", "CAP_SYS_PTRACE"]
    seccomp = "docker"

    [nspawn.Exec]
    LimitNOFILE = "1024"
    Odd = ["kept"]

    [nspawn.Files]
    TemporaryFileSystem = ["/var/tmp:size=1G"]

    [nspawn.Network]
    Port = ["tcp:80"]

    [users]
    ownership = "chown"
    "#);
    let machine =
        Machine::parse("m", &imported.text, "build", Path::new("/"), &BTreeMap::new()).unwrap();
    let plan = Plan::new(&machine, &Context::usual(&machine), "m").unwrap();
    for line in [
        "Odd=kept",
        "TemporaryFileSystem=/var/tmp:size=1G",
        "Bind=/tank/a\\:b:/a:rootidmap",
        "Environment=\"C=d e\"",
        "Port=tcp:80",
    ] {
        assert!(plan.nspawn.text.lines().any(|one| one == line), "{line}: {}", plan.nspawn.text);
    }
    for (text, at) in [
        ("Boot=yes\n", "x.nspawn:1:1: this stands before the first section"),
        ("[Exec]\nBoot\n", "x.nspawn:2:1: this is no key with a value"),
        ("[Exce]\n", "x.nspawn:1:1: there is no section 'Exce'"),
    ] {
        assert_eq!(import::nspawn::read("x.nspawn", text).unwrap_err().to_string(), at);
    }
}

#[test]
fn what_is_rendered_reads_back_as_it_was() {
    let (machine, context) = full();
    let plan = Plan::new(&machine, &context, "x").unwrap();
    let read = import::nspawn::read("x", &plan.nspawn.text).unwrap();
    let flat = |settings: &native::Settings| -> Vec<(String, Vec<String>)> {
        let words = |one: &native::Setting| match one.known().map(|known| known.form) {
            Some(native::Form::Commas) => {
                one.values.iter().flat_map(|one| one.split(' ')).map(str::to_owned).collect()
            }
            _ => one.values.clone(),
        };
        settings.iter().map(|one| (format!("{}.{}", one.section, one.key), words(one))).collect()
    };
    assert_eq!(flat(&read), flat(&plan.settings));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What a file says arrives at systemd-nspawn: by the `.nspawn` file as by the command line.
    #[test]
    fn env_and_binds_arrive(
        value in "[ -~]{0,20}",
        source in "/[a-zA-Z0-9 :\\\\._%$-]{1,16}",
    ) {
        prop_assume!(!source.split('/').any(|part| part == ".."));
        let mut text = toml_edit::DocumentMut::new();
        text["env"]["A"] = toml_edit::value(value.as_str());
        let bind = toml_edit::InlineTable::from_iter([("source", source.as_str()), ("target", "/t")]);
        text["binds"] = toml_edit::value(toml_edit::Array::from_iter([toml_edit::Value::from(bind)]));
        let machine = machine(&text.to_string()).unwrap();
        let plan = Plan::new(&machine, &Context::usual(&machine), "x");
        // In quotes a backslash may be the last.
        let sayable = !value.ends_with('\\') || value.contains([' ', '"', '\'']);
        prop_assert_eq!(plan.is_ok(), sayable, "{:?}", plan);
        if let Ok(plan) = plan {
            let read = import::nspawn::read("x", &plan.nspawn.text).unwrap();
            prop_assert_eq!(read.get("Exec", "Environment"), &[format!("A={value}")][..]);
            let given = plan.command.argv.iter().find_map(|word| word.strip_prefix("--setenv="));
            prop_assert_eq!(given.map(str::to_owned), Some(format!("A={value}")));
            // A path is one part between colons again.
            let imported = import::nspawn::import("x", &plan.nspawn.text, "web").unwrap();
            let again = super::tests::machine(&imported.text).unwrap();
            prop_assert_eq!(&again.binds[0].source, &source);
            prop_assert_eq!(again.env, machine.env);
        }
    }

    /// A file that nobody wrote is an error with its place, and nothing worse.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        if let Err(error) = machine(&text) {
            prop_assert!(error.to_string().starts_with("web.toml:"), "{}", error);
        }
        let _ = import::nspawn::read("x", &text);
        let _ = import::jailmaker::read("x", &text);
    }
}
