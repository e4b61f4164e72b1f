//! What runs in the guest: this very program, told what to try. It prints what came of it.

use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use crate::internet::wire;

const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match attempt(&words) {
        Ok(text) => println!("{}", text.trim()),
        Err(error) => println!("refused: {error}"),
    }
    ExitCode::SUCCESS
}

pub fn attempt(words: &[&str]) -> Result<String> {
    match words {
        ["get", to, host] => exchange(to, &request(host)),
        ["tls", to, name] => exchange(to, &hello(name)),
        ["text", to, text] => exchange(to, text.as_bytes()),
        // How long a request takes, connection and all, and how long a question: microseconds.
        ["requests", to, host] => took(|_| exchange(to, &request(host)).map(drop)),
        ["questions", to, name] => {
            took(|number| attempt(&["ask", to, &format!("n{number}.{name}"), "a"]).map(drop))
        }
        // As much as goes through in a second: bits for each nanosecond.
        ["pour", to] => pour(to),
        // The same by so many connections at once, for good.
        ["pours", to, count] => {
            let to = (*to).to_owned();
            let pours = (0..count.parse().map_err(Error::other)?).map(|_| {
                let to = to.clone();
                std::thread::spawn(move || while pour(&to).is_ok() {})
            });
            let pours: Vec<_> = pours.collect();
            println!("pouring");
            pours.into_iter().for_each(|one| drop(one.join()));
            Ok(String::new())
        }
        // Two requests on one connection.
        ["twice", to, first, second] => {
            let mut stream = connect(to)?;
            stream.write_all(&request(first))?;
            let one = read(&mut stream)?;
            stream.write_all(&request(second))?;
            Ok(format!("{}, then {}", one.trim(), read(&mut stream)?.trim()))
        }
        // Silent at first, as one that waits for the server is.
        ["late", to, name] => {
            let mut stream = connect(to)?;
            std::thread::sleep(Duration::from_millis(900));
            stream.write_all(&hello(name))?;
            read(&mut stream)
        }
        ["touch", to] => connect(to).map(|_| "touched".into()),
        // Behind bytes (in hex) that some servers pass over.
        ["tls-after", to, before, name] => {
            let byte = |at: usize| u8::from_str_radix(&before[at..at + 2], 16);
            let before: std::result::Result<Vec<u8>, _> =
                (0..before.len()).step_by(2).map(byte).collect();
            exchange(to, &[before.map_err(Error::other)?, hello(name)].concat())
        }
        ["banner", to] => read(&mut connect(to)?),
        ["hold", to, host] => {
            let mut stream = connect(to)?;
            stream.write_all(&request(host))?;
            println!("{}", read(&mut stream)?.trim());
            std::io::stdout().flush()?;
            stream.set_read_timeout(None)?;
            match stream.read(&mut [0; 64]) {
                Ok(0) | Err(_) => Ok("cut".into()),
                Ok(_) => Ok("more".into()),
            }
        }
        ["udp", to] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(*to)?;
            socket.send(b"hello")?;
            let mut buffer = [0; 512];
            let count = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
        }
        ["echo", to, length] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(*to)?;
            let length: usize = length.parse().map_err(Error::other)?;
            let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            socket.send(&sent)?;
            let mut buffer = vec![0; 65_536];
            let count = socket.recv(&mut buffer)?;
            Ok(if buffer[..count] == sent { "the same" } else { "another" }.into())
        }
        // Until no answer comes.
        ["echo-on", to] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(*to)?;
            loop {
                let there = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 16]));
                if there.is_err() {
                    return Ok("cut".into());
                }
                println!("back");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // From many sockets, before any answer is looked at.
        ["echoes", to, count] => {
            let count: u32 = count.parse().map_err(Error::other)?;
            let sockets = (0..count).map(|number| {
                let socket = UdpSocket::bind(any(to))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to(&number.to_be_bytes(), *to)?;
                Ok(socket)
            });
            let sockets: Vec<UdpSocket> = sockets.collect::<Result<_>>()?;
            let mut right = 0;
            for (number, socket) in sockets.iter().enumerate() {
                let mut buffer = [0; 16];
                let (got, from) = socket.recv_from(&mut buffer)?;
                let same = buffer[..got] == (number as u32).to_be_bytes();
                right += u32::from(same && from.to_string() == *to);
            }
            Ok(format!("{right} of {count}"))
        }
        ["ask", to, name, kind] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(*to)?;
            let mut buffer = [0; 4096];
            let mut last = Error::other("not asked");
            // A datagram may be lost, as resolvers know.
            for _ in 0..4 {
                socket.send(&question(name, kind))?;
                match socket.recv(&mut buffer) {
                    Ok(count) => return addresses(&buffer[..count]),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        ["ask-tcp", to, name, kind] => {
            let mut stream = connect(to)?;
            let query = question(name, kind);
            stream.write_all(&(query.len() as u16).to_be_bytes())?;
            stream.write_all(&query)?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut reply = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut reply)?;
            addresses(&reply)
        }
        // Many names, as fast as it goes.
        ["flood", to, end, count] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            socket.connect(*to)?;
            let mut buffer = [0; 4096];
            for number in 0..count.parse::<u32>().unwrap_or(0) {
                socket.send(&question(&format!("n{number}.{end}"), "a"))?;
                if number % 64 == 63 {
                    while socket.recv(&mut buffer).is_ok_and(|_| number % 4096 == 4095) {}
                }
            }
            Ok("flooded".into())
        }
        // The same, but waits for the answers.
        ["learn", to, end, count] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(*to)?;
            let (mut buffer, mut told) = ([0; 4096], 0);
            let count = count.parse::<u32>().unwrap_or(0);
            for number in 0..count {
                socket.send(&question(&format!("n{number}.{end}"), "a"))?;
                if number % 32 == 31 {
                    told += (0..32).take_while(|_| socket.recv(&mut buffer).is_ok()).count();
                }
            }
            Ok(format!("{told} of {count}"))
        }
        ["from", source, to] => {
            let socket = UdpSocket::from(bound(source, rustix::net::SocketType::DGRAM)?);
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.send_to(b"hello", *to)?;
            let mut buffer = [0; 512];
            let (count, _) = socket.recv_from(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
        }
        ["from-tcp", source, to] => {
            let socket = bound(source, rustix::net::SocketType::STREAM)?;
            let to: SocketAddr = to.parse().map_err(Error::other)?;
            rustix::net::connect(&socket, &to)?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            read(&mut stream)
        }
        ["escape"] => Ok(escape()),
        ["serve", port] => {
            let listener = TcpListener::bind(("0.0.0.0", port.parse().map_err(Error::other)?))?;
            println!("serving");
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"I am a sandbox")?;
            Ok(String::new())
        }
        // Whoever comes is told a text; with "%" as that, where it comes from.
        ["stay", at, text] => {
            let listener = TcpListener::bind(at)?;
            println!("serving");
            for stream in listener.incoming() {
                let mut stream = stream?;
                let text = text.replace('%', &stream.peer_addr()?.ip().to_canonical().to_string());
                // In one piece.
                stream.write_all(format!("I am {text}").as_bytes())?;
                // What is not read would reset it.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 512]);
            }
            Ok(String::new())
        }
        // The same by UDP.
        ["stay-udp", at, text] => {
            let socket = UdpSocket::bind(at)?;
            println!("serving");
            loop {
                let (_, from) = socket.recv_from(&mut [0; 512])?;
                let text = text.replace('%', &from.ip().to_canonical().to_string());
                socket.send_to(format!("I am {text}").as_bytes(), from)?;
            }
        }
        // One after the other by the same socket, until one is answered.
        ["keep-asking", to] => {
            let socket = UdpSocket::bind(any(to))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            socket.connect(*to)?;
            loop {
                let mut buffer = [0; 512];
                let _ = socket.send(b"hello");
                match socket.recv(&mut buffer) {
                    Ok(count) => println!("{}", String::from_utf8_lossy(&buffer[..count])),
                    Err(error) => println!("{:?}", error.kind()),
                }
            }
        }
        // By the guest's own resolver, as programs do it.
        ["call", name, port] => {
            let port: u16 = port.parse().map_err(Error::other)?;
            let mut last = Error::other("no address");
            for to in (*name, port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&to, PATIENCE) {
                    Ok(mut stream) => {
                        stream.set_read_timeout(Some(PATIENCE))?;
                        return read(&mut stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        _ => Err(Error::other(format!("what is {words:?}?"))),
    }
}

/// The median, of microseconds.
fn took(mut work: impl FnMut(usize) -> Result<()>) -> Result<String> {
    let mut times = Vec::new();
    for number in 0..300 {
        let start = std::time::Instant::now();
        work(number)?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_micros().to_string())
}

/// Sends for a second, as fast as it goes; gigabits a second, as the other side has counted them.
fn pour(to: &str) -> Result<String> {
    let mut stream = connect(to)?;
    let block = vec![7; 1 << 20];
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let all: f64 = read(&mut stream)?.parse().map_err(Error::other)?;
    Ok(format!("{:.2}", all * 8.0 / start.elapsed().as_nanos() as f64))
}

/// What a guest's root would need to get around the rules. It must have none of it.
fn escape() -> String {
    use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, netlink, socket_with};
    let mut open = Vec::new();
    let raw = |family, protocol: Option<Protocol>| {
        socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
    };
    if raw(AddressFamily::INET, Some(rustix::net::ipproto::ICMP)).is_ok() {
        open.push("a raw socket");
    }
    if raw(AddressFamily::PACKET, None).is_ok() {
        open.push("a packet socket");
    }
    // Flush all tables: begin, delete all, end.
    let message = |kind: u16, flags: u16, family: u8, resource: u8| {
        let mut bytes = 20u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, resource]);
        bytes
    };
    if let Ok(socket) = raw(AddressFamily::NETLINK, Some(netlink::NETFILTER)) {
        let batch =
            [message(0x10, 1, 0, 10), message(10 << 8 | 2, 5, 0, 0), message(0x11, 1, 0, 10)];
        if called(&socket, &batch.concat()) {
            open.push("flushing the rules");
        }
    }
    if let Ok(socket) = raw(AddressFamily::NETLINK, None) {
        // A dummy interface.
        let mut bytes = 44u32.to_ne_bytes().to_vec();
        bytes.extend(16u16.to_ne_bytes());
        bytes.extend(0x605u16.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0; 16]);
        bytes.extend([12, 0, 3, 0]);
        bytes.extend(b"esc0\0\0\0\0");
        if called(&socket, &bytes) {
            open.push("adding an interface");
        }
        // 203.0.113.0/24 by the loopback interface.
        let mut bytes = 44u32.to_ne_bytes().to_vec();
        bytes.extend(24u16.to_ne_bytes());
        bytes.extend(0x605u16.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([2, 24, 0, 0, 254, 3, 253, 1, 0, 0, 0, 0]);
        bytes.extend([8, 0, 1, 0, 203, 0, 113, 0]);
        bytes.extend([8, 0, 4, 0, 1, 0, 0, 0]);
        if called(&socket, &bytes) {
            open.push("adding a route");
        }
        // 203.0.113.1 on the loopback interface.
        let mut bytes = 40u32.to_ne_bytes().to_vec();
        bytes.extend(20u16.to_ne_bytes());
        bytes.extend(0x605u16.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([2, 32, 0, 0, 1, 0, 0, 0]);
        bytes.extend([8, 0, 1, 0, 203, 0, 113, 1]);
        bytes.extend([8, 0, 2, 0, 203, 0, 113, 1]);
        if called(&socket, &bytes) {
            open.push("adding an address");
        }
    }
    for (path, what) in [
        ("/proc/sys/net/ipv4/ip_forward", "changing the network's settings"),
        ("/proc/sys/net/ipv4/ip_nonlocal_bind", "binding to others' addresses"),
    ] {
        if std::fs::write(path, "1").is_ok() {
            open.push(what);
        }
    }
    if open.is_empty() { "nothing is open".into() } else { format!("open: {}", open.join(", ")) }
}

/// Whether the kernel did what a message asks for.
fn called(socket: &impl std::os::fd::AsFd, bytes: &[u8]) -> bool {
    use rustix::net::{RecvFlags, SendFlags, recv, send};
    if send(socket, bytes, SendFlags::empty()).is_err() {
        return false;
    }
    let mut buffer = [0; 4096];
    let Ok((count, _)) = recv(socket, &mut buffer, RecvFlags::empty()) else { return false };
    // An error message with the number 0 says that it is done.
    buffer[..count].get(16..20).is_some_and(|code| code == [0; 4])
}

/// A socket with an address that may be somebody else's.
fn bound(source: &str, kind: rustix::net::SocketType) -> Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, bind, socket, sockopt};
    let source: std::net::IpAddr = source.parse().map_err(Error::other)?;
    let family = if source.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, kind, None)?;
    match source.is_ipv6() {
        true => sockopt::set_ipv6_freebind(&socket, true)?,
        false => sockopt::set_ip_freebind(&socket, true)?,
    }
    bind(&socket, &SocketAddr::new(source, 0))?;
    Ok(socket)
}

fn any(to: &str) -> SocketAddr {
    let text = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    text.parse().unwrap()
}

fn connect(to: &str) -> Result<TcpStream> {
    let to: SocketAddr = to.parse().map_err(Error::other)?;
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(to: &str, bytes: &[u8]) -> Result<String> {
    let mut stream = connect(to)?;
    stream.write_all(bytes)?;
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> Result<String> {
    let mut buffer = [0; 512];
    match stream.read(&mut buffer)? {
        0 => Err(Error::other("closed")),
        count => Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
    }
}

fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// A TLS greeting for this name; none for `-`.
fn hello(name: &str) -> Vec<u8> {
    let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
    if name != "-" {
        let length = name.len() as u16;
        extensions.extend([0, 0]);
        extensions.extend((length + 5).to_be_bytes());
        extensions.extend((length + 3).to_be_bytes());
        extensions.push(0);
        extensions.extend(length.to_be_bytes());
        extensions.extend(name.bytes());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

fn question(name: &str, kind: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(wire(name));
    let kind: u16 = match kind {
        "aaaa" => 28,
        "https" => 65,
        "txt" => 16,
        "ptr" => 12,
        _ => 1,
    };
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A name in a message, which may go on elsewhere in it.
fn name_at(reply: &[u8], mut at: usize) -> String {
    let mut labels = Vec::new();
    while reply[at] != 0 {
        if reply[at] >= 192 {
            at = usize::from(u16::from_be_bytes([reply[at] & 63, reply[at + 1]]));
            continue;
        }
        let end = at + 1 + usize::from(reply[at]);
        labels.push(String::from_utf8_lossy(&reply[at + 1..end]).into_owned());
        at = end;
    }
    labels.join(".")
}

/// The addresses or names in an answer, or its code.
fn addresses(reply: &[u8]) -> Result<String> {
    if reply.len() < 12 || reply[..2] != [0x12, 0x34] {
        return Err(Error::other("it is no answer"));
    }
    match reply[3] & 15 {
        0 => {}
        3 => return Ok("missing".into()),
        code => return Ok(format!("code {code}")),
    }
    let count = u16::from_be_bytes([reply[6], reply[7]]);
    let mut at = 12;
    let skip = |mut at: usize| {
        while reply[at] != 0 {
            if reply[at] >= 192 {
                return at + 2;
            }
            at += 1 + usize::from(reply[at]);
        }
        at + 1
    };
    at = skip(at) + 4;
    let mut found = Vec::new();
    for _ in 0..count {
        at = skip(at);
        let kind = u16::from_be_bytes([reply[at], reply[at + 1]]);
        let length = usize::from(u16::from_be_bytes([reply[at + 8], reply[at + 9]]));
        let data = &reply[at + 10..at + 10 + length];
        match kind {
            1 => found.push(Ipv4Addr::new(data[0], data[1], data[2], data[3]).to_string()),
            28 => {
                let bytes: [u8; 16] = data.try_into().map_err(Error::other)?;
                found.push(std::net::Ipv6Addr::from(bytes).to_string());
            }
            12 => found.push(name_at(reply, at + 10)),
            _ => {}
        }
        at += 10 + length;
    }
    found.sort();
    Ok(if found.is_empty() { "empty".into() } else { found.join(" ") })
}
