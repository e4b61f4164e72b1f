//! What a machine is like, and what is put into it.

use libtest_mimic::Trial;
use nas_sim::Release;
use sandscript::backend::truenas::{TrueNasBackend, TrueNasConfig};
use sandscript::sandbox::{
    Backend, Cancel, CloneSpec, Command, Error, Hardware, Limits, Policy, Setup, Spec, exec,
};

use crate::rig::{Small, big, names, say, until};

const TWO: &[Release] = &[Release::V25_10, Release::V26Rc];
const ONE: &[Release] = &[Release::V25_10];

pub fn trials() -> Vec<Trial> {
    [
        big("hardware", TWO, |nas, release| Box::pin(hardware(nas, release))),
        big("six", TWO, |nas, _| Box::pin(six(nas))),
        big("setup", TWO, |nas, _| Box::pin(setup(nas))),
        big("setup_goes_on", ONE, |nas, _| Box::pin(goes_on(nas))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const MAC: &str = "02:00:5e:10:20:30";

/// An address of the guests' network that nobody is given.
async fn free_address(backend: &TrueNasBackend) -> String {
    let spec = Spec { egress: Policy::Unrestricted, ..Spec::new("probe") };
    let info = backend.create(&spec, &Cancel::new()).await.unwrap();
    let lease = say(backend, "probe", "ip -4 -o addr show dev eth0 | awk '{print $4}'").await;
    backend.delete("probe", &Cancel::new()).await.unwrap();
    let (address, bits) = lease.trim().split_once('/').unwrap();
    assert!(info.addresses.contains(&address.to_owned()));
    let (network, last) = address.rsplit_once('.').unwrap();
    let other = if last == "3" { 4 } else { 3 };
    format!("{network}.{other}/{bits}")
}

async fn hardware(nas: &Small, release: Release) {
    let cancel = Cancel::new();
    let mut config = TrueNasConfig::new(nas.config(nas.key()));
    config.pool = Some("nope".into());
    let backend = TrueNasBackend::open(config).await.unwrap();
    let plain = nas.backend().await;
    let address = free_address(&plain).await;
    let dataset = plain.create(&Spec::new("where"), &cancel).await.unwrap().dataset.unwrap();
    plain.delete("where", &cancel).await.unwrap();
    let pool = dataset.split('/').next().unwrap().to_owned();
    let all = Hardware {
        address: Some(address.clone()),
        cpus: Some("0".into()),
        mac: Some(MAC.into()),
        // It is over the one of the settings, which is none.
        pool: Some(pool.clone()),
    };
    let limits = Limits { disk: Some(3 << 30), ..Limits::default() };
    let spec =
        Spec { hardware: all.clone(), limits, egress: Policy::Unrestricted, ..Spec::new("fit") };
    let info = backend.create(&spec, &cancel).await.unwrap();
    assert_eq!(info.hardware, all);
    let own = address.split('/').next().unwrap();
    assert!(info.addresses.iter().any(|one| one == own), "{:?}", info.addresses);
    assert_eq!(say(&backend, "fit", "cat /sys/class/net/eth0/address").await.trim(), MAC);
    let cards = "ip -4 -o addr show dev eth0 scope global | awk '{print $4}'";
    assert_eq!(say(&backend, "fit", cards).await.trim(), address);
    assert_eq!(say(&backend, "fit", "ip route show default | wc -l").await, "1\n");
    assert!(say(&backend, "fit", "cat /etc/resolv.conf").await.contains("nameserver"));
    let row = match release.is_26() {
        true => backend.call("container.query", Vec::new(), false, &cancel).await.unwrap(),
        false => backend.call("virt.instance.query", Vec::new(), false, &cancel).await.unwrap(),
    };
    let cpus = if release.is_26() { &row[0]["cpuset"] } else { &row[0]["cpu"] };
    assert_eq!(cpus, if release.is_26() { "0" } else { "0-0" }, "{row}");
    // It is so after a restart, and a clone has a card and an address of its own.
    backend.stop("fit", Default::default(), &cancel).await.unwrap();
    backend.start("fit", &cancel).await.unwrap();
    assert_eq!(say(&backend, "fit", cards).await.trim(), address);
    let twin = Backend::clone(&backend, "fit", &CloneSpec::new("twin"), &cancel).await.unwrap();
    assert_eq!(twin.hardware, Hardware { address: None, mac: None, ..all });
    assert_ne!(say(&backend, "twin", "cat /sys/class/net/eth0/address").await.trim(), MAC);
    assert_ne!(say(&backend, "twin", cards).await.trim(), address);
    for name in ["twin", "fit"] {
        backend.delete(name, &cancel).await.unwrap();
    }
    let closed = Spec { egress: Policy::None, ..spec.clone() };
    let error = backend.create(&Spec { name: "no".into(), ..closed }, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    if release.is_26() {
        let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
        let error = plain.create(&Spec { limits, ..Spec::new("no") }, &cancel).await.unwrap_err();
        assert!(error.hint().unwrap().contains("has no limit on a container's memory"), "{error}");
    }
    assert!(names(&plain).await.is_empty());
}

/// An address of IPv6 beside the one that it is given; a clone has neither of them.
async fn six(nas: &Small) {
    let cancel = Cancel::new();
    let backend = nas.backend().await;
    let own = "fd42:4c58:43ae::50";
    let address = |text: &str| Hardware { address: Some(text.into()), ..Hardware::default() };
    let spec = Spec {
        hardware: address(&format!("{own}/64")),
        egress: Policy::Unrestricted,
        ..Spec::new("six")
    };
    let info = backend.create(&spec, &cancel).await.unwrap();
    let has = |all: &[String]| all.iter().any(|one| one == own);
    assert!(
        has(&info.addresses)
            || has(&[say(
                &backend,
                "six",
                "ip -6 -o addr show dev eth0 scope global | awk '{print $4}' | cut -d/ -f1"
            )
            .await
            .trim()
            .to_owned()]),
        "{info:?}"
    );
    let four = "ip -4 -o addr show dev eth0 scope global | wc -l; ip route show default | wc -l";
    assert_eq!(say(&backend, "six", four).await, "1\n1\n");
    backend.stop("six", Default::default(), &cancel).await.unwrap();
    backend.start("six", &cancel).await.unwrap();
    let all = "ip -6 -o addr show dev eth0 scope global | grep -c 43ae::50 || true";
    assert_eq!(say(&backend, "six", all).await, "1\n");
    Backend::clone(&*backend, "six", &CloneSpec::new("other"), &cancel).await.unwrap();
    assert_eq!(say(&backend, "other", all).await, "0\n");
    assert_eq!(say(&backend, "other", four).await, "1\n1\n");
    for name in ["six", "other"] {
        backend.delete(name, &cancel).await.unwrap();
    }
    // One that can't be right is refused before anything is made.
    let four = free_address(&backend).await;
    let gateway = format!("{}.1/24", four.rsplit_once('.').unwrap().0);
    for (wrong, why) in [
        ("203.0.113.7/24", "203.0.113.7/24 is not in the network of this NAS's sandboxes"),
        (&gateway, "is the NAS's own address"),
    ] {
        let spec = Spec { hardware: address(wrong), ..spec.clone() };
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
        assert!(error.to_string().contains(why) && error.hint().is_some(), "{error}");
    }
    assert!(names(&backend).await.is_empty());
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ ann@home";

fn wanted() -> Setup {
    Setup {
        dns: vec!["192.0.2.53".parse().unwrap()],
        keys: vec![KEY.into()],
        tools: vec!["perl-base".into(), "curl".into()],
        users: vec!["ann".into()],
    }
}

async fn setup(nas: &Small) {
    let cancel = Cancel::new();
    let backend = nas.backend().await;
    let mut spec = Spec {
        setup: wanted(),
        egress: Policy::Unrestricted,
        user: Some("ann".into()),
        ..Spec::new("ready")
    };
    spec.env.insert("GREETING".into(), "hello there".into());
    let before = nas.called().len();
    backend.create(&spec, &cancel).await.unwrap();
    let calls = nas.called().len() - before;
    assert!(calls <= 10, "{calls} calls");
    assert_eq!(say(&backend, "ready", "id -un; pwd").await, "ann\n/home/ann\n");
    let keys = "cat ~/.ssh/authorized_keys; stat -c '%a %U' ~/.ssh ~/.ssh/authorized_keys";
    assert_eq!(say(&backend, "ready", keys).await, format!("{KEY}\n700 ann\n600 ann\n"));
    assert_eq!(say(&backend, "ready", "cat /etc/resolv.conf").await, "nameserver 192.0.2.53\n");
    assert!(
        say(&backend, "ready", "cat /etc/environment").await.contains("GREETING=\"hello there\"")
    );
    // Each step is logged, and done once.
    let log = say(&backend, "ready", "grep -c '^user: ann' /var/log/sandscript-setup.log").await;
    assert_eq!(log, "1\n");
    backend.delete("ready", &cancel).await.unwrap();
    // An error is an error, and leaves nothing behind.
    let tools = vec!["no-such-package-anywhere".into()];
    let spec = Spec { setup: Setup { tools, ..Setup::default() }, ..spec };
    let error = backend.create(&spec, &cancel).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("setting up sandbox 'ready': tools no-such-package-anywhere: apt-get: "),
        "{text}"
    );
    let closed = Spec { egress: Policy::None, ..spec.clone() };
    let error = backend.create(&closed, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    let bare = Spec { bare: true, ..spec };
    let error = backend.create(&bare, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    assert!(names(&backend).await.is_empty());
}

/// The line breaks in the middle of it: it is gone on with.
async fn goes_on(nas: &Small) {
    let cancel = Cancel::new();
    let backend = nas.backend().await;
    let spec = Spec { setup: wanted(), egress: Policy::Unrestricted, ..Spec::new("broken") };
    let making = tokio::spawn({
        let backend = backend.clone();
        async move { backend.create(&spec, &Cancel::new()).await }
    });
    let other = nas.backend().await;
    until(|| async {
        making.is_finished()
            || other
                .list(&Cancel::new())
                .await
                .unwrap()
                .iter()
                .any(|one| one.state.word() == "running")
    })
    .await;
    // Again and again, until it is done.
    let made = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        for pause in [100, 300, 900] {
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            nas.sim.control("drop-shells").await.unwrap();
        }
        making.await.unwrap()
    });
    made.await.unwrap().unwrap();
    // The last line that was cut may not be known as such yet.
    let there = Command::argv(["id", "-un", "ann"]);
    until(|| async {
        exec(&*backend, "broken", &there, &cancel).await.is_ok_and(|one| one.exit.ok())
    })
    .await;
    backend.delete("broken", &cancel).await.unwrap();
    assert!(names(&backend).await.is_empty());
}
