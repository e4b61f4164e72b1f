//! The line to a guest's agent: one of the NAS's terminals, over a WebSocket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::super::guest::{AGENT, Agent, Fail, UNDER_WAY, closed};
use crate::transport::jsonrpc::{Client, ShellLine, Socket};

/// What the first program says when it listens. It is typed in another way, so that an echo is not it.
const LISTENS: &[u8] = b"\x01sandscript\x02";
/// Becomes the program that follows.
macro_rules! becomes {
    () => {
        concat!(
            "$|=1;syswrite STDOUT,\"\\1sandscript\\2\";my($n,$p)=(\"\",\"\");",
            "while(length($n)<8){sysread(STDIN,$n,8-length$n,length$n)or exit}",
            "while(length($p)<$n){sysread(STDIN,$p,$n-length$p,length$p)or exit}eval$p;print$@;exit",
        )
    };
}
/// Makes the terminal carry bytes as they are, then becomes the program that follows.
const FIRST: &str = concat!(
    "require POSIX;my$t=POSIX::Termios->new;$t->getattr(0);$t->setlflag(0);$t->setiflag(0);$t->setoflag(0);",
    "$t->setcc(POSIX::VMIN(),1);$t->setcc(POSIX::VTIME(),0);$t->setattr(0,POSIX::TCSANOW());",
    becomes!(),
);
/// The line for SSH, where there is no terminal.
#[cfg(feature = "ssh")]
const BY_SSH: &str = concat!("exec perl -e '", becomes!(), "' 2>&1");
/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the line is tried while nothing is said.
const PING: Duration = Duration::from_secs(20);

/// Where it runs.
#[derive(Clone, Debug)]
pub(super) enum Where {
    /// A guest of 25.x.
    Instance(String),
    /// A guest of 26.
    Container(i64),
    /// The NAS itself; whether as another user than root.
    Host { sudo: bool },
}

/// A line that one can be started on.
pub(super) async fn line(client: &Client) -> Result<ShellLine, Fail> {
    match tokio::time::timeout(PATIENCE, client.shell_line()).await {
        Ok(line) => line.map_err(super::fail::of_rpc),
        Err(_) => Err(silent()),
    }
}

/// Starts one.
pub(super) async fn start(line: ShellLine, at: &Where) -> Result<Agent, Fail> {
    let becomes = format!("exec perl -e '{FIRST}'");
    let (options, typed) = match at {
        Where::Instance(name) => (
            json!({"virt_instance_id": name, "command": "perl"}),
            Some(format!("BEGIN{{{FIRST}}}\n")),
        ),
        Where::Container(id) => (json!({"container_id": id, "command": becomes}), None),
        Where::Host { sudo: false } => (json!({}), Some(format!("{becomes}\n"))),
        Where::Host { sudo: true } => {
            (json!({}), Some(format!("exec sudo -n perl -e '{FIRST}'\n")))
        }
    };
    match tokio::time::timeout(PATIENCE, begin(line, options, typed)).await {
        Ok(done) => done,
        Err(_) => Err(silent()),
    }
}

fn silent() -> Fail {
    Fail::Lost("the shell does not answer".into())
}

async fn begin(line: ShellLine, options: Value, typed: Option<String>) -> Result<Agent, Fail> {
    let shell = line.open(options).await.map_err(super::fail::of_rpc)?;
    let mut socket = shell.socket;
    let mut said = Vec::new();
    let lost = |error: tokio_tungstenite::tungstenite::Error| Fail::Lost(error.to_string());
    if let Some(typed) = typed {
        socket.send(Message::binary(typed.into_bytes())).await.map_err(lost)?;
    }
    let at = loop {
        if let Some(at) = find(&said, LISTENS) {
            break at + LISTENS.len();
        }
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => said.extend_from_slice(&bytes),
            Some(Ok(Message::Close(_))) | None => return Err(closed(&said)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(error)),
        }
    };
    socket.send(Message::binary(program())).await.map_err(lost)?;
    let (line, other) = tokio::io::duplex(UNDER_WAY);
    tokio::spawn(carry(socket, other));
    let (from, to) = tokio::io::split(line);
    Agent::greet(from, to, BytesMut::from(&said[at..])).await
}

/// A line that went as soon as it was there.
pub(super) fn gone() -> Fail {
    Fail::Lost("the line to it is gone".into())
}

/// The program, with its length in front.
fn program() -> Vec<u8> {
    format!("{:08}{AGENT}", AGENT.len()).into_bytes()
}

/// Starts one by SSH.
#[cfg(feature = "ssh")]
pub(super) async fn by_ssh(ssh: &crate::transport::ssh::Ssh) -> Result<Agent, Fail> {
    let lost = |error: std::io::Error| Fail::Lost(error.to_string());
    let started = async {
        let line = ssh.run(BY_SSH).await.map_err(|error| Fail::Lost(error.to_string()))?;
        let (mut from, mut to) = tokio::io::split(line);
        let mut said = BytesMut::new();
        let at = loop {
            if let Some(at) = find(&said, LISTENS) {
                break at + LISTENS.len();
            }
            if from.read_buf(&mut said).await.map_err(lost)? == 0 || said.len() > UNDER_WAY {
                return Err(closed(&said));
            }
        };
        to.write_all(&program()).await.map_err(lost)?;
        to.flush().await.map_err(lost)?;
        Agent::greet(from, to, said.split_off(at)).await
    };
    match tokio::time::timeout(PATIENCE, started).await {
        Ok(done) => done,
        Err(_) => Err(Fail::Lost("the guest does not answer by SSH".into())),
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Carries bytes in both directions until one of them ends.
async fn carry(socket: Socket, line: DuplexStream) {
    let (mut to, mut from) = socket.split();
    let (mut read, mut write) = tokio::io::split(line);
    let writing = async {
        let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(16 << 10);
            let message = tokio::select! {
                count = read.read_buf(&mut buffer) => match count {
                    Ok(1..) => Message::Binary(buffer.split().freeze()),
                    _ => break,
                },
                _ = ping.tick() => Message::Ping(Bytes::new()),
            };
            if to.send(message).await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        loop {
            match from.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    if write.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), to.close()).await;
}
