//! Devices of the server's machine in a sandbox, containers in it, and snapshots that expire.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use sandscript::sandbox::{
    Backend, Cancel, Capability, CloneSpec, Device, DeviceKeys, Error, Policy, Published,
    SnapshotSpec, Spec,
};

use crate::rig::Daemon;
use crate::{Home, SOON, open, open_elsewhere, sh, wait};

fn device(name: &str, keys: &[(&str, &str)]) -> Device {
    let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Device::new(name, keys.collect::<DeviceKeys>()).unwrap()
}

/// A port of the loopback interface that nobody listened on a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What says hello to whoever comes.
const HELLO: &str = "perl -MIO::Socket::INET -e '$SIG{CHLD} = \"IGNORE\"; \
    my $l = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:80\", Listen => 5, ReuseAddr => 1) or die; \
    exit if fork; close STDIN; close STDOUT; close STDERR; \
    while (my $c = $l->accept) { print $c \"hello\\n\"; close $c }'";

/// What comes from there, asked until something does.
fn hears(at: SocketAddr) -> bool {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(at) {
            let _ = stream.write_all(b"\n");
            let _ = stream.read_to_string(&mut text);
        }
        if text == "hello\n" {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    false
}

pub fn of_the_server(daemon: &mut Daemon) {
    daemon.incus(&["storage", "volume", "create", "default", "data"]).unwrap();
    let address = format!("{}.77", daemon.network);
    let port = free_port();
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("given");
        spec.egress = Policy::Unrestricted;
        spec.devices = vec![
            device(
                "data",
                &[("type", "disk"), ("pool", "default"), ("source", "data"), ("target", "/data")],
            ),
            device("web", &[("type", "proxy"), ("listen", &port.to_string()), ("connect", "80")]),
            device(
                "lan",
                &[
                    ("type", "nic"),
                    ("network", &daemon.name),
                    ("address", &address),
                    ("mac", "02:00:5e:00:53:01"),
                ],
            ),
            // Not there, and given to it as soon as it is.
            device("key", &[("type", "usb"), ("vendor", "1d6b"), ("product", "0104")]),
        ];
        spec.nesting = true;
        let info = backend.create(&spec, &cancel).await.unwrap();
        assert_eq!((&info.devices, info.nesting), (&spec.devices, true));
        sh(&backend, "given", "echo kept > /data/f").await;
        let mac = "grep -l 02:00:5e:00:53:01 /sys/class/net/*/address | cut -d/ -f5";
        let nic = sh(&backend, "given", mac).await;
        let line = format!("ip -4 -o address show dev {nic}");
        let shown = sh(&backend, "given", &line).await;
        assert!(shown.contains(&format!("{address}/")), "{shown}");
        sh(&backend, "given", HELLO).await;
        assert!(hears(at), "nobody answers at {at}");
        let shown = |key: &str| {
            let all = daemon.incus(&["config", "device", "show", "given"]).unwrap();
            all.contains(key)
        };
        assert!(shown("vendorid: 1d6b") && shown("productid: \"0104\""));
        let nesting = daemon.incus(&["config", "get", "given", "security.nesting"]).unwrap();
        assert_eq!(nesting.trim(), "true");

        // A restart and a restore change nothing of it.
        backend.snapshot("given", &SnapshotSpec::new("s"), &cancel).await.unwrap();
        backend.stop("given", Default::default(), &cancel).await.unwrap();
        backend.start("given", &cancel).await.unwrap();
        backend.restore("given", "s", Default::default(), &cancel).await.unwrap();
        assert_eq!(sh(&backend, "given", "cat /data/f").await, "kept");
        assert!(!sh(&backend, "given", mac).await.is_empty());
        sh(&backend, "given", HELLO).await;
        assert!(hears(at), "nobody answers at {at} any more");

        // A clone has what two may have, and addresses of its own.
        let spec = CloneSpec::of("s", "twin");
        let clone = Backend::clone(&backend, "given", &spec, &cancel).await.unwrap();
        let names: Vec<String> = clone.devices.iter().map(ToString::to_string).collect();
        let lan = format!("lan=nic {}", daemon.name);
        assert_eq!(names, ["data=disk default/data:/data", &lan, "key=usb 1d6b:0104"]);
        assert!(clone.nesting);
        assert_eq!(sh(&backend, "twin", "cat /data/f").await, "kept");
        assert_eq!(sh(&backend, "twin", &format!("{mac} | wc -l")).await, "0");
        let mut spec = CloneSpec::new("third");
        spec.egress = Some(Policy::None);
        let refused = Backend::clone(&backend, "given", &spec, &cancel).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidInput { .. }), "{refused:?}");

        // An interface goes with the policy that lets it.
        backend.set_policy("given", &Policy::None, &cancel).await.unwrap();
        let left = backend.get("given", &cancel).await.unwrap().devices;
        assert!(!left.is_empty() && !left.iter().any(Device::is_nic), "{left:?}");
        assert_eq!(sh(&backend, "given", "ls /sys/class/net").await, "lo");
        assert!(hears(at), "the proxy went, too");

        // What another one has already can't be had, and nothing is left of the try.
        let mut spec = Spec::new("late");
        let listen = port.to_string();
        spec.devices =
            vec![device("web", &[("type", "proxy"), ("listen", &listen), ("connect", "80")])];
        let error = backend.create(&spec, &cancel).await.unwrap_err();
        // The server's words depend on which of its processes was first.
        let words = format!("devices: 'web': the server can't listen at 127.0.0.1:{port}/tcp");
        assert!(error.to_string().starts_with(&words), "{error}");
        let error = backend.get("late", &cancel).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        for name in ["given", "twin"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
    the_command_line(daemon);
    wait(async {
        // The base's, too.
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        for info in backend.list(&cancel).await.unwrap() {
            if !info.devices.is_empty() {
                backend.delete(&info.name, &cancel).await.unwrap();
            }
        }
    });
    daemon.incus(&["storage", "volume", "delete", "default", "data"]).unwrap();
}

fn the_command_line(daemon: &Daemon) {
    let home = Home::new();
    let run = |args: &[&str]| home.run(&[("INCUS_SOCKET", &daemon.socket())], args);
    let ok = |args: &[&str]| {
        let (code, out, err) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };
    let data = "data=disk,pool=default,source=data,target=/data";
    ok(&["create", "given", "--image", "small", "--device", data, "--nesting"]);
    assert_eq!(ok(&["exec", "given", "--", "cat", "/data/f"]), "kept\n");
    let shown = ok(&["show", "given"]);
    assert!(shown.contains("devices       data=disk default/data:/data\n"), "{shown}");
    assert!(shown.contains("nesting       yes\n"), "{shown}");
    ok(&["snapshot", "create", "given", "passing", "--expires", "2h"]);
    let listed = ok(&["snapshot", "list", "given"]);
    assert!(listed.contains("EXPIRES"), "{listed}");
    let expires = daemon.incus(&["query", "/1.0/instances/given/snapshots/passing"]).unwrap();
    let expires: serde_json::Value = serde_json::from_str(&expires).unwrap();
    let stamp: jiff::Timestamp = expires["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(stamp > jiff::Timestamp::now() && stamp.to_string().starts_with("20"), "{stamp}");
    ok(&["delete", "given", "--yes"]);
    let script = "let b = base(\"b\", #{ from: \"small\", devices: #{ data: #{ type: \"disk\", \
        pool: \"default\", source: \"data\", target: \"/data\" } } }, |b| { b.run(\"cp /data/f /root/f\"); });\n\
        matrix(\"m\", #{ from: b, axes: #{ n: [1] }, nesting: true }, |cell| {\n\
        print(cell.sandbox.run(\"cat /root/f /data/f\").stdout);\n\
        print(cell.sandbox.info().nesting); });\n";
    std::fs::write(home.path().join("x.rhai"), script).unwrap();
    let said = ok(&["run", "x.rhai"]);
    assert!(said.contains("kept\nkept") && said.contains("true"), "{said}");
}

pub fn that_are_refused(daemon: &mut Daemon) {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let (backend, cancel) = (open(daemon, "small").await, Cancel::new());
        let disk = |source: &str| {
            device("d", &[("type", "disk"), ("source", source), ("target", "/data")])
        };
        let volume = |source: &str| {
            let keys = [("type", "disk"), ("pool", "default"), ("source", source)];
            device("d", &[&keys[..], &[("target", "/data")]].concat())
        };
        let made = async |device: &Device, egress: Policy| {
            let mut spec = Spec::new("refused");
            (spec.devices, spec.egress) = (vec![device.clone()], egress);
            let error = backend.create(&spec, &cancel).await.unwrap_err();
            let left = backend.get("refused", &cancel).await.unwrap_err();
            assert!(matches!(left, Error::NotFound { .. }), "{left:?}");
            error
        };
        let nic = device("n", &[("type", "nic"), ("network", &daemon.name)]);
        let error = made(&nic, Policy::None).await;
        insta::assert_snapshot!(error, @"devices: 'n': an interface reaches what the egress policy forbids");
        let error = made(&volume("sandscript-cache-pip"), Policy::None).await;
        insta::assert_snapshot!(error, @"devices: volume 'sandscript-cache-pip' is sandscript's own");
        let error = made(&volume("missing"), Policy::None).await;
        insta::assert_snapshot!(error, @"devices: 'd': volume 'missing' of the pool 'default' can't be had: Failed loading custom volume: Storage volume not found");
        // As a mount: by AppArmor only.
        let error = match backend.capabilities().has(Capability::Mounts) {
            true => made(&disk("/no/such/folder"), Policy::None).await,
            false => made(&disk(folder.path().to_str().unwrap()), Policy::None).await,
        };
        assert!(matches!(error, Error::Unsupported { .. } | Error::NotFound { .. }), "{error:?}");
        // This machine has no such card: the server says so.
        let gpu = device("g", &[("type", "gpu"), ("pci", "0000:7f:00.0")]);
        let error = made(&gpu, Policy::None).await;
        let words = "devices: 'g': the server has no such graphics processor: ";
        assert!(error.to_string().starts_with(words), "{error}");
    });
}

/// A sentence with a hint for each, and nothing of ours in it.
pub fn mistakes(daemon: &mut Daemon) {
    let home = Home::new();
    for (device, words) in [
        ("a=nic,network=nope", "the interface in the network 'nope' can't be had"),
        ("a=nic,network=nope,mac=00:00:00:00:00:00", "is no hardware address of one machine"),
        ("a=nic,network=nope,mac=ff:ff:ff:ff:ff:ff", "is no hardware address of one machine"),
        ("a=disk,pool=default,source=nope,target=/a", "volume 'nope' of the pool 'default'"),
        ("a=disk,pool=nope,source=nope,target=/a", "volume 'nope' of the pool 'nope'"),
        ("a=gpu,pci=0000:7f:00.0", "no such graphics processor"),
        ("a=proxy,listen=192.0.2.1:9000,connect=80", "can't listen at 192.0.2.1:9000/tcp"),
    ] {
        let args =
            ["create", "no", "--image", "small", "--egress", "unrestricted", "--device", device];
        let (code, out, err) = home.run(&[("INCUS_SOCKET", &daemon.socket())], &args);
        let err = err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, Some(2), "{device}: {out}{err}");
        let advice = err.contains("hint: ") || err.contains("; write it as");
        assert!(err.contains(words) && advice, "{device}: {err}");
        assert!(err.contains("'a'") && !err.contains("own-a"), "{device}: {err}");
    }
}

/// By the server itself, where its machine is not ours.
pub fn ports_that_the_server_opens(daemon: &mut Daemon) {
    wait(async {
        let (backend, cancel) = (open_elsewhere(daemon, "small").await, Cancel::new());
        let mut spec = Spec::new("open");
        spec.egress = Policy::Unrestricted;
        backend.create(&spec, &cancel).await.unwrap();
        backend.snapshot("open", &SnapshotSpec::new("before"), &cancel).await.unwrap();
        sh(&backend, "open", HELLO).await;
        let at = backend.publish("open", 80, None, &cancel).await.unwrap();
        assert!(at.ip().is_loopback() && hears(at), "nobody answers at {at}");
        assert_eq!(backend.publish("open", 80, None, &cancel).await.unwrap(), at);
        let ports = async || backend.get("open", &cancel).await.unwrap().ports;
        assert_eq!(ports().await, [Published { port: 80, at }]);
        let all = backend.list(&cancel).await.unwrap();
        let listed = all.iter().find(|info| info.name == "open").unwrap();
        assert_eq!(listed.ports, [Published { port: 80, at }]);
        // Under every policy, and one place is had by one.
        backend.set_policy("open", &Policy::None, &cancel).await.unwrap();
        assert!(hears(at), "another policy closed it");
        let spec = CloneSpec::new("other");
        let clone = Backend::clone(&backend, "open", &spec, &cancel).await.unwrap();
        assert_eq!(clone.ports, []);
        let error = backend.publish("other", 80, Some(at), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("at: the server can't listen at {at}: ")));
        let free = Some(SocketAddr::new(at.ip(), 0));
        let two = backend.publish("open", 80, free, &cancel).await.unwrap();
        assert!(two != at && hears(two));
        // Closed, it can be another's.
        let closed = backend.unpublish("open", 80, Some(at), &cancel).await.unwrap();
        assert_eq!(closed, [Published { port: 80, at }]);
        assert!(TcpStream::connect(at).is_err() && hears(two));
        let error = backend.unpublish("open", 80, Some(at), &cancel).await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        assert_eq!(backend.publish("other", 80, Some(at), &cancel).await.unwrap(), at);
        backend.delete("other", &cancel).await.unwrap();
        assert!(TcpStream::connect(at).is_err());
        // It ends with a restore, and with a stop; nothing opens it again.
        backend.snapshot("open", &SnapshotSpec::new("with"), &cancel).await.unwrap();
        for label in ["before", "with"] {
            backend.publish("open", 80, Some(two), &cancel).await.unwrap();
            backend.restore("open", label, Default::default(), &cancel).await.unwrap();
            assert!(ports().await.is_empty() && TcpStream::connect(two).is_err(), "{label}");
        }
        let spec = CloneSpec::of("with", "other");
        let clone = Backend::clone(&backend, "open", &spec, &cancel).await.unwrap();
        assert_eq!(clone.ports, []);
        backend.publish("open", 80, Some(two), &cancel).await.unwrap();
        backend.stop("open", Default::default(), &cancel).await.unwrap();
        assert!(ports().await.is_empty() && TcpStream::connect(two).is_err());
        let stopped = backend.publish("open", 80, None, &cancel).await.unwrap_err();
        assert!(matches!(stopped, Error::NotRunning { .. }), "{stopped:?}");
        backend.start("open", &cancel).await.unwrap();
        assert!(ports().await.is_empty() && TcpStream::connect(two).is_err());
        for name in ["open", "other"] {
            backend.delete(name, &cancel).await.unwrap();
        }
    });
}
