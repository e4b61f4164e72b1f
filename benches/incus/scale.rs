//! What one cell costs, and what grows with the number of containers: the numbers of docs/scale.md.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sandscript::backend::incus::{IncusBackend, IncusConfig};
use sandscript::sandbox::{self as domain, Backend, Cancel, CloneSpec, SnapshotSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// How many clones are made in one go.
const AT_ONCE: usize = 4;
/// After how many of them is looked.
const STEPS: &[usize] = &[10, 25, 50, 100, 150, 200];

/// What went through to a daemon.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    requests: AtomicU64,
    sockets: AtomicU64,
}

impl Counts {
    fn now(&self) -> [u64; 4] {
        [&self.requests, &self.sockets, &self.sent, &self.received]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// A socket that hands everything on to another one, and counts.
fn relay(to: PathBuf, at: &Path) -> io::Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let listener = UnixListener::bind(at)?;
    let shared = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((ours, _)) = listener.accept().await {
            let (to, counts) = (to.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                let Ok(theirs) = UnixStream::connect(to).await else { return };
                let (from_us, to_us) = ours.into_split();
                let (from_them, to_them) = theirs.into_split();
                tokio::join!(
                    carry(from_us, to_them, &counts, true),
                    carry(from_them, to_us, &counts, false)
                );
            });
        }
    });
    Ok(counts)
}

async fn carry(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    counts: &Counts,
    ours: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        if ours {
            counts.sent.fetch_add(count as u64, Ordering::Relaxed);
            let lines = bytes.windows(11).filter(|window| *window == b" HTTP/1.1\r\n").count();
            counts.requests.fetch_add(lines as u64, Ordering::Relaxed);
            let sockets =
                bytes.windows(17).filter(|w| w.eq_ignore_ascii_case(b"sec-websocket-key"));
            counts.sockets.fetch_add(sockets.count() as u64, Ordering::Relaxed);
        } else {
            counts.received.fetch_add(count as u64, Ordering::Relaxed);
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
}

/// The processor time that a process has taken, its ended children's too.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // utime, stime, cutime, cstime: the state before them is no number.
    let ticks: u64 = fields.iter().skip(10).take(4).sum();
    Duration::from_millis(ticks * 10)
}

/// The daemon behind a socket that is seen by the root of its namespace's first process.
fn daemon(socket: &Path) -> Option<u32> {
    let first = socket.strip_prefix("/proc").ok()?.components().next()?;
    let first = Path::new("/proc").join(first);
    let first: u32 = first.file_name()?.to_str()?.parse().ok()?;
    let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "incusd"
    })
}

fn free() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemAvailable")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// Measures and prints.
pub async fn scale(socket: PathBuf, folder: &Path) -> domain::Result<()> {
    let daemon = daemon(&socket).ok_or_else(|| domain::Error::internal("there is no daemon"))?;
    let at = folder.join("relay");
    let counts = relay(socket, &at).map_err(|error| domain::Error::io("the relay", error))?;
    let config = IncusConfig {
        socket: Some(at),
        image: Some("small".into()),
        elsewhere: true,
        ..IncusConfig::default()
    };
    let backend = Arc::new(IncusBackend::open(config).await?);
    let cancel = Cancel::new();
    let have = backend.snapshots("b", &cancel).await?;
    if !have.iter().any(|one| one.label == "scale") {
        backend.snapshot("b", &SnapshotSpec::new("scale"), &cancel).await?;
    }
    let exec = async |name: &str| {
        let command = domain::Command::argv(["true"]);
        domain::exec(backend.as_ref(), name, &command, &cancel).await.map(drop)
    };
    let clone = async |name: String| {
        let spec = CloneSpec::of("scale", &name);
        Backend::clone(backend.as_ref(), "b", &spec, &cancel).await.map(drop)
    };

    println!(
        "\none cell, step by step: requests, WebSockets, bytes sent, bytes received, ms, ms of the daemon's CPU"
    );
    clone("warm".into()).await?;
    exec("warm").await?;
    backend.delete("warm", &cancel).await?;
    let mut last = (counts.now(), Instant::now(), cpu(daemon));
    let mut tell = |what: &str| {
        let now = (counts.now(), Instant::now(), cpu(daemon));
        let [requests, sockets, sent, received] = std::array::from_fn(|at| now.0[at] - last.0[at]);
        let (took, busy) = (now.1 - last.1, now.2 - last.2);
        println!(
            "{what}: {requests} {sockets} {sent} {received} {} {}",
            took.as_millis(),
            busy.as_millis()
        );
        last = now;
    };
    for round in 0..3 {
        tell("(between)");
        clone(format!("one{round}")).await?;
        tell("clone");
        exec(&format!("one{round}")).await?;
        tell("first exec");
        exec(&format!("one{round}")).await?;
        tell("second exec");
        exec(&format!("one{round}")).await?;
        tell("third exec");
        backend.delete(&format!("one{round}"), &cancel).await?;
        tell("delete");
    }

    println!(
        "\ncontainers: ms for each clone ({AT_ONCE} at once), ms of the daemon's CPU for each, exec, list, MiB for each"
    );
    let before = free();
    let mut made = 0;
    for step in STEPS {
        let (begin, busy) = (Instant::now(), cpu(daemon));
        let count = step - made;
        let next = std::sync::atomic::AtomicUsize::new(made);
        let worker = async || -> domain::Result<()> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= *step {
                    return Ok(());
                }
                clone(format!("many{at}")).await?;
            }
        };
        let all = tokio::try_join!(worker(), worker(), worker(), worker());
        all?;
        let each = begin.elapsed() / count as u32;
        let busy = (cpu(daemon) - busy) / count as u32;
        let newest = format!("many{}", step - 1);
        exec(&newest).await?;
        let mut execs = Vec::new();
        for _ in 0..11 {
            let begin = Instant::now();
            exec(&newest).await?;
            execs.push(begin.elapsed());
        }
        execs.sort();
        let begin = Instant::now();
        let there = backend.list(&cancel).await?.len();
        let list = begin.elapsed();
        let memory = before.saturating_sub(free()) / 1024 / *step as u64;
        println!(
            "{step} ({there}): {} {} {:.1} {} {memory}",
            each.as_millis(),
            busy.as_millis(),
            execs[5].as_secs_f64() * 1e3,
            list.as_millis(),
        );
        made = *step;
    }
    let (begin, busy) = (Instant::now(), cpu(daemon));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = async || -> domain::Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= made {
                return Ok(());
            }
            backend.delete(&format!("many{at}"), &cancel).await?;
        }
    };
    let all = tokio::try_join!(worker(), worker(), worker(), worker());
    all?;
    println!(
        "deletes: {} ms each, {} ms of the daemon's CPU",
        (begin.elapsed() / made as u32).as_millis(),
        ((cpu(daemon) - busy) / made as u32).as_millis()
    );
    Ok(())
}
