//! `api_key.*`

use serde_json::{Value, json};

use super::{instance, missing, query, unhandled};
use crate::auth::Key;
use crate::dispatch::Call;
use crate::fail::Fail;

pub fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    match verb {
        "query" => query(call, rows(call)),
        "get_instance" => instance(call, "ApiKey", rows(call)),
        "create" => create(call),
        "update" => update(call),
        "delete" => {
            let mut inner = call.nas.auth.lock();
            let before = inner.keys.len();
            inner.keys.retain(|k| k.id != call.number(0));
            if inner.keys.len() == before {
                Err(missing(call, "ApiKey", call.arg(0)))
            } else {
                Ok(true.into())
            }
        }
        _ => Err(unhandled(call)),
    }
}

fn rows(call: &Call) -> Vec<Value> {
    call.nas.auth.lock().keys.iter().map(|k| row(call, k)).collect()
}

fn row(call: &Call, key: &Key) -> Value {
    json!({
        "id": key.id, "name": key.name, "username": key.username, "user_identifier": key.username,
        "keyhash": "********", "created_at": call.nas.date(key.created),
        "expires_at": key.expires.map(|at| call.nas.date(at)), "local": true,
        "revoked": key.revoked.is_some(), "revoked_reason": key.revoked,
    })
}

fn expiry(value: &Value) -> Option<i64> {
    value["$date"].as_i64()
}

fn create(call: &Call) -> Result<Value, Fail> {
    let data = call.arg(0);
    let username = data["username"].as_str().unwrap_or_default();
    let mut inner = call.nas.auth.lock();
    if !inner.users.contains_key(username) {
        return Err(Fail::invalid("api_key_create.username", "Username does not exist"));
    }
    let key = Key {
        id: inner.keys.iter().map(|k| k.id).max().unwrap_or(0) + 1,
        name: data["name"].as_str().unwrap_or("nobody").into(),
        username: username.into(),
        secret: crate::random::text(64),
        revoked: None,
        expires: expiry(&data["expires_at"]),
        created: call.nas.now(),
    };
    let mut answer = row(call, &key);
    answer["key"] = key.text().into();
    inner.keys.push(key);
    Ok(answer)
}

fn update(call: &Call) -> Result<Value, Fail> {
    let change = call.arg(1);
    let mut inner = call.nas.auth.lock();
    let Some(key) = inner.keys.iter_mut().find(|k| k.id == call.number(0)) else {
        return Err(missing(call, "ApiKey", call.arg(0)));
    };
    if let Some(name) = change["name"].as_str() {
        key.name = name.into();
    }
    if change.get("expires_at").is_some() {
        key.expires = expiry(&change["expires_at"]);
    }
    let reset = change["reset"] == json!(true);
    if reset {
        key.secret = crate::random::text(64);
        key.revoked = None;
    }
    let mut answer = row(call, key);
    if reset {
        answer["key"] = key.text().into();
    }
    Ok(answer)
}
