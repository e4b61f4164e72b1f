//! `auth.*`

use serde_json::{Value, json};

use super::{query, unhandled};
use crate::auth::login;
use crate::dispatch::Call;
use crate::fail::Fail;

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    match verb {
        "login_ex" | "login_ex_continue" => login::login_ex(call).await,
        "login" | "login_with_api_key" | "login_with_token" => login::login_old(call).await,
        "generate_token" => login::generate_token(call),
        "logout" => login::logout(call),
        "me" => Ok(call.nas.auth.lock().me(&call.credential()?.username)),
        "mechanism_choices" => mechanisms(call),
        "sessions" => query(call, sessions(call)),
        _ => Err(unhandled(call)),
    }
}

fn mechanisms(call: &Call) -> Result<Value, Fail> {
    let new = call.nas.release.is_26();
    if !new && call.session.credential().is_none() {
        let text = "'NoneType' object has no attribute 'user'";
        return Err(Fail::Raised("AttributeError", text.into()));
    }
    let mut all = vec!["API_KEY_PLAIN", "TOKEN_PLAIN", "PASSWORD_PLAIN"];
    if new {
        all.push("SCRAM");
    }
    Ok(json!(all))
}

fn sessions(call: &Call) -> Vec<Value> {
    let own = &call.session.id;
    let all = call.nas.events.sessions();
    let open = all.iter().filter_map(|s| s.credential().map(|c| (s, c)));
    open.map(|(s, c)| {
        json!({
            "id": s.id, "current": s.id == *own, "internal": false,
            "origin": s.remote.to_string(), "credentials": c.kind,
            "credentials_data": c.describe()["data"], "created_at": call.nas.date(c.since),
            "secure_transport": s.tls,
        })
    })
    .collect()
}
