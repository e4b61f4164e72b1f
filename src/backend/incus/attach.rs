//! Programs in a guest, by the server's exec: a WebSocket for each stream.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Fail};
use crate::backend::guest::{Attached, Control, UNDER_WAY};
use crate::sandbox::WindowSize;
use crate::transport::{Socket, drain, feed};

/// Starts a program as the guest's root. What it writes to an output
/// that nobody reads is answered by SIGPIPE.
pub(super) async fn attach(
    client: &Arc<Client>,
    name: &str,
    argv: &[&str],
    tty: Option<WindowSize>,
) -> Result<Attached, Fail> {
    let size = tty.unwrap_or(WindowSize { rows: 0, cols: 0 });
    let body = json!({
        "command": argv, "environment": {"TERM": "xterm-256color"}, "cwd": "/", "user": 0, "group": 0,
        "wait-for-websocket": true, "interactive": tty.is_some(),
        "width": size.cols, "height": size.rows,
    });
    let ticket = client.begin(Method::POST, &format!("/1.0/instances/{name}/exec"), &body).await?;
    let secret = |name: &str| match &ticket.metadata["metadata"]["fds"][name] {
        Value::String(secret) => Ok(secret.clone()),
        _ => Err(Fail::Lost("the server gives no streams".into())),
    };
    let open = async |name: &str| client.socket(&ticket.id, &secret(name)?).await;
    let (control_socket, first, others) = match tty {
        Some(_) => {
            let (control, terminal) = tokio::try_join!(open("control"), open("0"))?;
            (control, terminal, None)
        }
        None => {
            let (control, stdin, stdout, stderr) =
                tokio::try_join!(open("control"), open("0"), open("1"), open("2"))?;
            (control, stdin, Some((stdout, stderr)))
        }
    };

    let (control, orders) = mpsc::unbounded_channel();
    let (over, end) = watch::channel(None);
    let (stdin, input) = tokio::io::duplex(UNDER_WAY);
    let (output, stdout) = tokio::io::duplex(UNDER_WAY);
    let pipe = control.downgrade();
    let mut told = false;
    let closed = move || {
        if let Some(control) = pipe.upgrade().filter(|_| !told) {
            told = true;
            let _ = control.send(Control::Signal(33 + 13));
        }
    };
    let mut reading = tokio::task::JoinSet::new();
    let (stderr, feeding) = match others {
        None => {
            reading.spawn(terminal(first, input, output, closed));
            (None, None)
        }
        Some((out, err)) => {
            let (errors, stderr) = tokio::io::duplex(UNDER_WAY);
            reading.spawn(drain(out, output, closed));
            reading.spawn(drain(err, errors, || ()));
            let (to, from) = first.split();
            (Some(stderr), Some(tokio::spawn(feed_and_hold(to, from, input))))
        }
    };
    let ordering = tokio::spawn(pass_on(control_socket, orders));
    let client = Arc::clone(client);
    tokio::spawn(async move {
        let ended = client.end(&ticket).await;
        // What it wrote is here before its end is told, as far as somebody reads it.
        let rest = async { while reading.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
        if let Some(feeding) = feeding {
            feeding.abort();
        }
        ordering.abort();
        let code = ended.and_then(|operation| match operation["metadata"]["return"].as_i64() {
            Some(code) => Ok(code as i32),
            None => Err(Fail::Lost("the server does not say how the command ended".into())),
        });
        over.send_replace(Some(code));
        // Streams that somebody still reads are drained by their own tasks.
        reading.detach_all();
    });
    Ok(Attached { stdin: Some(stdin), stdout, stderr, control, end })
}

/// Carries a terminal's bytes in both directions. The server goes on when this side closes it, which
/// it does after the last of the output.
async fn terminal(
    socket: Socket,
    input: DuplexStream,
    output: DuplexStream,
    closed: impl FnMut() + Send + 'static,
) {
    let (mut to, from) = socket.split();
    {
        let fed = async {
            feed(&mut to, input, false).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drain(from, output, closed) => {}
            () = fed => {}
        }
    }
    let _ = to.close().await;
}

/// Sends standard input, and keeps its WebSocket until the program's end.
async fn feed_and_hold(
    mut to: SplitSink<Socket, Message>,
    mut from: SplitStream<Socket>,
    input: DuplexStream,
) {
    let fed = async {
        feed(&mut to, input, true).await;
        std::future::pending::<()>().await;
    };
    // Its closing says that nobody reads any more.
    let closed = async { while let Some(Ok(_)) = from.next().await {} };
    tokio::select! {
        () = fed => {}
        () = closed => {}
    }
}

/// Passes orders on until nobody is left to give some, and holds the line to the program's end.
async fn pass_on(socket: Socket, mut orders: mpsc::UnboundedReceiver<Control>) {
    let (mut to, mut from) = socket.split();
    let reading = async { while let Some(Ok(_)) = from.next().await {} };
    let writing = async {
        while let Some(order) = orders.recv().await {
            let text = match order {
                Control::Signal(signal) => json!({"command": "signal", "signal": signal}),
                Control::Resize(size) => json!({"command": "window-resize", "args": {
                    "width": size.cols.to_string(), "height": size.rows.to_string()}}),
            };
            if to.send(Message::text(text.to_string())).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
