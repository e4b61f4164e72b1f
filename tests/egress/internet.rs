//! Everything that is not the host: servers that say who they are, and a DNS server.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// What the DNS server knows at first: name, time to live, records (an address or another name).
pub const ZONE: &str = "\
allowed.test 60 203.0.113.10 203.0.113.11 2001:db8:1::10
www.allowed.test 60 allowed.test
denied.test 60 203.0.113.20 2001:db8:1::20
cdn.test 60 203.0.113.30
front.test 60 203.0.113.30
inner.test 60 10.66.0.5
meta.test 60 169.254.169.254
*.many.test 60 203.0.113.10
mirror.test 60 203.0.113.40
crates.test 60 203.0.113.40
host.test 60 203.0.113.1
*.spread.test 3600 9.18.0.0
ring.test 60 gnir.test
gnir.test 60 ring.test
";

const SERVERS: &[&str] = &[
    "203.0.113.10",
    "203.0.113.11",
    "203.0.113.20",
    "203.0.113.30",
    "203.0.113.66",
    "10.66.0.5",
    "10.66.0.6",
    "169.254.169.254",
    "2001:db8:1::10",
    "2001:db8:1::20",
];

/// Serves for good.
pub fn serve() -> ExitCode {
    let zone = std::env::var("SANDSCRIPT_TEST_ZONE").unwrap();
    for address in SERVERS {
        let address: IpAddr = address.parse().unwrap();
        for port in [22, 53, 80, 443, 8080] {
            let listener = TcpListener::bind((address, port)).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || greet(stream));
                }
            });
        }
        for port in [53, 123, 443] {
            let socket = UdpSocket::bind((address, port)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("I am {address}").as_bytes(), from);
                }
            });
        }
    }
    let echo = UdpSocket::bind("203.0.113.10:7").unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((count, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..count], from);
        }
    });
    mirror();
    let sink = TcpListener::bind("203.0.113.10:9000").unwrap();
    std::thread::spawn(move || {
        for stream in sink.incoming().flatten() {
            std::thread::spawn(move || swallow(stream));
        }
    });
    let server: SocketAddr = "203.0.113.53:53".parse().unwrap();
    let udp = UdpSocket::bind(server).unwrap();
    let tcp = TcpListener::bind(server).unwrap();
    let own = zone.clone();
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            if stream.read_exact(&mut query).is_err() {
                continue;
            }
            let reply = answer(&own, &query, 65_000);
            let _ = stream.write_all(&(reply.len() as u16).to_be_bytes());
            let _ = stream.write_all(&reply);
        }
    });
    let mut buffer = [0; 2048];
    while let Ok((count, from)) = udp.recv_from(&mut buffer) {
        let _ = udp.send_to(&answer(&zone, &buffer[..count], 512), from);
    }
    ExitCode::SUCCESS
}

/// Says who it is: at once on port 22, else when something has come, each time.
fn greet(mut stream: TcpStream) {
    let own = stream.local_addr().unwrap();
    let hello = format!("I am {}\n", own.ip());
    if own.port() == 22 && stream.write_all(hello.as_bytes()).is_err() {
        return;
    }
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 || stream.write_all(hello.as_bytes()).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A mirror of package indexes with one package each, where there is a Python to serve it. It ends with this
/// process.
fn mirror() {
    let _ = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "/usr/bin/python3", "-c", include_str!("mirror.py")])
        .stdin(Stdio::null())
        .spawn();
}

/// Takes all that comes, and says at its end how much it was.
fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    let mut all = 0;
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            let _ = stream.write_all(all.to_string().as_bytes());
            return;
        }
        all += count;
    }
}

fn answer(zone: &str, query: &[u8], room: usize) -> Vec<u8> {
    let zone = std::fs::read_to_string(zone).unwrap();
    let mut at = 12;
    let mut labels = Vec::new();
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_ascii_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let question = &query[12..at + 5];
    let mut name = labels.join(".");
    // Each of these has an address of its own: n7.spread.test is 9.18.0.7.
    let number = name.strip_suffix(".spread.test").and_then(|n| n.strip_prefix('n')?.parse().ok());
    let mut records: Vec<(String, u32, Vec<u8>, u16)> = Vec::new();
    let mut known = false;
    for _ in 0..8 {
        let line = zone.lines().find(|line| {
            let own = line.split(' ').next().unwrap();
            own == name || own.strip_prefix('*').is_some_and(|end| name.ends_with(end))
        });
        let Some(line) = line else { break };
        known = true;
        let mut words = line.split(' ').skip(1);
        let ttl: u32 = words.next().unwrap().parse().unwrap();
        let mut next = None;
        for word in words {
            match word.parse() {
                Ok(IpAddr::V4(four)) if kind == 1 => {
                    let four = number.map_or(four, |n: u16| {
                        let [high, low] = n.to_be_bytes();
                        [9, 18, high, low].into()
                    });
                    records.push((name.clone(), ttl, four.octets().to_vec(), 1));
                }
                Ok(IpAddr::V6(six)) if kind == 28 => {
                    records.push((name.clone(), ttl, six.octets().to_vec(), 28));
                }
                Ok(_) => {}
                Err(_) => {
                    records.push((name.clone(), ttl, wire(word), 5));
                    next = Some(word.to_owned());
                }
            }
        }
        let Some(next) = next else { break };
        name = next;
    }
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1]);
    reply.extend((records.len() as u16).to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(question);
    for (owner, ttl, data, kind) in records {
        reply.extend(wire(&owner));
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    if reply.len() > room {
        reply.truncate(12 + question.len());
        reply[2] |= 2;
        reply[6..8].fill(0);
    }
    reply
}

/// A name as it is in a message.
pub fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}
