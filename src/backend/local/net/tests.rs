use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

/// A network namespace, kept alive by a process that ends with this one.
struct Namespace {
    keeper: Child,
    file: File,
}

impl Namespace {
    fn new() -> Namespace {
        let mut keeper = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let file = File::open(format!("/proc/{}/ns/net", keeper.id())).unwrap();
        Namespace { keeper, file }
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(kind)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

#[test]
fn a_guest_reaches_the_internet_under_the_hosts_address() {
    if !is_root() {
        return;
    }
    let (host, internet, guest) = (Namespace::new(), Namespace::new(), Namespace::new());
    let folder = tempfile::tempdir().unwrap();
    host.run(|| {
        link::pair("up0", "inet0", internet.file.as_fd()).unwrap();
        link::address("up0", HOST, 24).unwrap();
    });
    let (listener, udp) = internet.run(|| {
        link::address("inet0", INTERNET, 24).unwrap();
        link::up("inet0").unwrap();
        (TcpListener::bind((INTERNET, 80)).unwrap(), UdpSocket::bind((INTERNET, 53)).unwrap())
    });
    let lease = host.run(|| {
        let lease = lease(folder.path(), "box").unwrap();
        let started = std::time::Instant::now();
        attach(guest.file.as_fd(), lease.address, lease.gateway).unwrap();
        println!("attach: {:?}", started.elapsed());
        // What a crash left under the same name is replaced.
        filter::install(&table_name(lease.address), &link_name(lease.address), lease.address)
            .unwrap();
        lease
    });
    guest.run(|| {
        loopback_up().unwrap();
        configure_guest(lease.address, lease.gateway).unwrap();
    });
    let to = SocketAddr::from((INTERNET, 80));
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        peer
    });
    let said = guest.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(said, "hello");
    assert_eq!(server.join().unwrap().ip(), HOST);

    // Under another address nothing gets out, under its own it does.
    udp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 16];
    let send = |from: Ipv4Addr| {
        guest.run(|| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            let _ = socket.send_to(b"x", (INTERNET, 53));
        });
    };
    let other = Ipv4Addr::new(198, 51, 100, 7);
    guest.run(|| link::address(GUEST_LINK, other, 32).unwrap());
    send(lease.address);
    assert_eq!(udp.recv_from(&mut buffer).unwrap().1.ip(), HOST);
    send(other);
    assert!(udp.recv_from(&mut buffer).is_err());

    // While the lease is held nothing is collected; afterwards all is.
    host.run(|| assert_eq!(collect(folder.path()).unwrap(), 0));
    let address = lease.address;
    drop(lease);
    host.run(|| {
        assert_eq!(collect(folder.path()).unwrap(), 1);
        assert!(link::index(&link_name(address)).is_err());
        assert_eq!(collect(folder.path()).unwrap(), 0);
        detach(address).unwrap();
    });
}

#[test]
fn each_sandbox_has_a_network_of_its_own() {
    if !is_root() {
        return;
    }
    let host = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    host.run(|| {
        let leases: Vec<Lease> = (0..50).map(|_| lease(folder.path(), "same").unwrap()).collect();
        let mut addresses: Vec<Ipv4Addr> = leases.iter().map(|lease| lease.address).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), 50);
        for lease in &leases {
            assert_eq!(u32::from(lease.gateway) + 1, u32::from(lease.address));
            assert!(link_name(lease.address).len() < 16);
        }
        drop(leases);
        assert_eq!(collect(folder.path()).unwrap(), 50);
        let guests: Vec<Namespace> = (0..5).map(|_| Namespace::new()).collect();
        for guest in &guests {
            let held = lease(folder.path(), "box").unwrap();
            let started = std::time::Instant::now();
            attach(guest.file.as_fd(), held.address, held.gateway).unwrap();
            let attached = started.elapsed();
            guest.run(|| configure_guest(held.address, held.gateway).unwrap());
            let started = std::time::Instant::now();
            detach(held.address).unwrap();
            println!("attach {attached:?}, detach {:?}", started.elapsed());
        }
        // A guest namespace that is none leaves nothing behind.
        let held = lease(folder.path(), "box").unwrap();
        let file = File::open("/dev/null").unwrap();
        assert!(attach(file.as_fd(), held.address, held.gateway).is_err());
        assert!(link::index(&link_name(held.address)).is_err());
    });
}
