//! JSON-RPC 2.0 as the server frames it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::dispatch;
use crate::fail::Fail;
use crate::session::{Out, Session};

const ANONYMOUS: usize = 8192;
const AUTHENTICATED: usize = 65_536;
const LARGEST: usize = 2_097_152;

/// Takes one text frame. Calls run on tasks of their own; replies go out as they are ready.
pub fn text(session: &Arc<Session>, text: &str) {
    let traps = session.nas.traps;
    let length = text.chars().count();
    if traps.on(12) {
        if session.credential().is_none() && length > ANONYMOUS {
            session.out(Out::Close(1007, "Anonymous connection max message length is 8 kB"));
            return;
        }
        if length > LARGEST {
            session.out(Out::Close(1009, "Max message length is 64 kB"));
            return;
        }
    }
    let message: Value = match serde_json::from_str(text) {
        Ok(message) => message,
        Err(e) => return error(session, Value::Null, -32700, &e.to_string()),
    };
    let big = matches!(
        message["method"].as_str(),
        Some("filesystem.file_receive" | "failover.datastore.sql")
    );
    if traps.on(12) && length > AUTHENTICATED && !big {
        session.out(Out::Close(1009, "Max message length is 64 kB"));
        return;
    }
    match message {
        Value::Array(_) if traps.on(13) => {
            let text = "Batch messages are not supported at this time";
            error(session, Value::Null, -32700, text);
        }
        Value::Array(all) => all.into_iter().for_each(|m| one(session, m)),
        Value::Object(_) => one(session, message),
        _ => error(session, Value::Null, -32700, "Invalid Message Format"),
    }
}

/// A binary frame is nothing that the server understands.
pub fn binary(session: &Arc<Session>, bytes: &[u8]) {
    if session.nas.traps.on(13) {
        session.out(Out::Close(1003, ""));
    } else {
        text(session, &String::from_utf8_lossy(bytes));
    }
}

fn one(session: &Arc<Session>, message: Value) {
    let id = message.get("id").cloned();
    if let Some(wrong) = wrong(&message) {
        if let Some(id) = id {
            let id = if id.is_object() || id.is_array() || id.is_f64() { Value::Null } else { id };
            error(session, id, -32600, wrong);
        }
        return;
    }
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    let params = message["params"].as_array().cloned().unwrap_or_default();
    if !session.admit() {
        let text = "Maximum number of concurrent calls (20) has exceeded";
        if let Some(id) = id {
            error(session, id, -32000, text);
        }
        return;
    }
    let session = session.clone();
    tokio::spawn(async move {
        let permit = session.running.acquire().await;
        let result = dispatch::call(&session, &method, params, id.clone()).await;
        drop(permit);
        session.leave();
        let reply = match id {
            Some(id) => id,
            None if session.nas.traps.on(15) => return,
            None => Value::Null,
        };
        match result {
            Ok(value) => session.send(&json!({"jsonrpc": "2.0", "id": reply, "result": value})),
            Err(fail) => fails(&session, reply, &fail),
        }
    });
}

fn wrong(message: &Value) -> Option<&'static str> {
    let id_fits = match message.get("id") {
        None | Some(Value::Null | Value::String(_)) => true,
        Some(Value::Number(n)) => !n.is_f64(),
        Some(_) => false,
    };
    if message.get("jsonrpc").is_none() {
        Some("Missing 'jsonrpc' member")
    } else if message["jsonrpc"] != "2.0" {
        Some("'jsonrpc' member must be of type string and must be exactly '2.0'")
    } else if !id_fits {
        Some("'id' member must be of type null, string or number")
    } else if message.get("method").is_none() {
        Some("Missing 'method' member")
    } else if message["method"].as_str().is_none_or(str::is_empty) {
        Some("'method' member must be of type string")
    } else if message.get("params").is_some_and(|p| !p.is_array()) {
        Some("'params' member must be of type array")
    } else {
        None
    }
}

fn error(session: &Session, id: Value, code: i64, message: &str) {
    fails(session, id, &Fail::Rpc(code, message.to_owned()));
}

fn fails(session: &Session, id: Value, fail: &Fail) {
    let mut error = fail.object(session.nas.release, session.nas.traps);
    if session.settings().py_exceptions && error.get("data").is_some() {
        error["data"]["py_exception"] = "gASVAAAAAAAAAAA=".into();
    }
    session.send(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
}
