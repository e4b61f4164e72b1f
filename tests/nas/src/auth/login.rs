//! The ways to log in, out, and to get a token.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Credential, Exchange, Key, Pending, Token};
use crate::dispatch::Call;
use crate::fail::Fail;

const INSECURE: &str = "Attempt to use over an insecure transport";

/// How a login ended.
enum Outcome {
    In(Credential),
    Wrong,
    Expired,
    Denied,
    Redirect,
    Otp(String),
}

/// `auth.login_ex` and `auth.login_ex_continue`.
pub async fn login_ex(call: &Call) -> Result<Value, Fail> {
    let data = &call.args[0];
    let text = |key: &str| data[key].as_str().unwrap_or_default();
    if data["mechanism"] == "SCRAM" {
        return scram(call, text("scram_type"), text("rfc_str")).await;
    }
    let outcome = match text("mechanism") {
        "API_KEY_PLAIN" => api_key(call, Some(text("username")), text("api_key")),
        "PASSWORD_PLAIN" => password(call, text("username"), text("password")),
        "TOKEN_PLAIN" => token(call, text("token")),
        _ => otp(call, text("otp_token")),
    };
    let info = data["login_options"]["user_info"] != json!(false);
    let reconnect = data["login_options"]["reconnect_token"] == json!(true);
    finish(call, outcome, info, reconnect).await
}

async fn finish(call: &Call, outcome: Outcome, info: bool, reconnect: bool) -> Result<Value, Fail> {
    let nas = &call.nas;
    match outcome {
        Outcome::In(credential) => {
            let me = if info { nas.auth.lock().me(&credential.username) } else { Value::Null };
            let level = if credential.kind == "LOGIN_TWOFACTOR" { "LEVEL_2" } else { "LEVEL_1" };
            let mut answer =
                json!({"response_type": "SUCCESS", "user_info": me, "authenticator": level});
            if nas.release.is_26() {
                answer["reconnect_token"] = match reconnect {
                    true => issue(call, credential.clone(), 600, json!({}), true, true).into(),
                    false => Value::Null,
                };
            }
            call.session.set_credential(Some(credential));
            Ok(answer)
        }
        Outcome::Wrong => {
            if !nas.traps.on(17) {
                return Err(Fail::Call(13, "Bad username or password".into()));
            }
            slow().await;
            Ok(json!({"response_type": "AUTH_ERR"}))
        }
        Outcome::Expired => {
            slow().await;
            Ok(json!({"response_type": "EXPIRED"}))
        }
        Outcome::Denied if nas.release.is_26() => Ok(json!({"response_type": "DENIED"})),
        Outcome::Denied => Ok(json!({"response_type": "AUTH_ERR"})),
        Outcome::Redirect => Ok(json!({"response_type": "REDIRECT", "urls": nas.options.redirect})),
        Outcome::Otp(username) => {
            call.session.set_pending(Pending::Otp(username.clone()));
            Ok(json!({"response_type": "OTP_REQUIRED", "username": username}))
        }
    }
}

/// `auth.login_with_api_key`, `auth.login` and `auth.login_with_token`: true or false.
pub async fn login_old(call: &Call) -> Result<Value, Fail> {
    let text = |i: usize| call.args.get(i).and_then(Value::as_str).unwrap_or_default();
    let outcome = match call.method.name.as_str() {
        "auth.login_with_api_key" => api_key(call, None, text(0)),
        "auth.login_with_token" => token(call, text(0)),
        _ => match password(call, text(0), text(1)) {
            Outcome::Otp(username) => {
                call.session.set_pending(Pending::Otp(username));
                otp(call, text(2))
            }
            other => other,
        },
    };
    match outcome {
        Outcome::In(credential) => {
            call.session.set_credential(Some(credential));
            Ok(true.into())
        }
        _ => {
            slow().await;
            Ok(false.into())
        }
    }
}

/// What an API key is worth on this connection: also for `Authorization: Bearer`.
pub fn bearer(call: &Call, text: &str) -> Option<Credential> {
    match api_key(call, None, text) {
        Outcome::In(credential) => Some(credential),
        _ => None,
    }
}

/// `Authorization: Basic`, refused where a second factor is wanted.
pub fn basic(call: &Call, username: &str, secret: &str) -> Option<Credential> {
    match password(call, username, secret) {
        Outcome::In(credential) => Some(credential),
        _ => None,
    }
}

fn api_key(call: &Call, username: Option<&str>, text: &str) -> Outcome {
    let nas = &call.nas;
    let mut inner = nas.auth.lock();
    let id = text.split('-').next().and_then(|id| id.parse::<i64>().ok());
    let Some(key) = inner.keys.iter_mut().find(|k| Some(k.id) == id && k.text() == text) else {
        return Outcome::Wrong;
    };
    if username.is_some_and(|u| u != key.username) {
        return Outcome::Wrong;
    }
    if key.revoked.is_some() {
        return if nas.release.is_26() { Outcome::Wrong } else { Outcome::Expired };
    }
    if key.expires.is_some_and(|at| at < nas.now()) {
        return Outcome::Expired;
    }
    if !call.secure && nas.traps.on(18) {
        key.revoked = Some(INSECURE.into());
        return Outcome::Expired;
    }
    let (owner, number) = (key.username.clone(), (key.id, key.name.clone()));
    let Some(mut credential) = inner.credential("API_KEY", &owner) else { return Outcome::Wrong };
    credential.key = Some(number);
    admit(call, &inner, credential)
}

fn admit(call: &Call, inner: &super::Inner, credential: Credential) -> Outcome {
    if !call.nas.options.redirect.is_empty() {
        Outcome::Redirect
    } else if inner.users.get(&credential.username).is_some_and(|u| u.denied) {
        Outcome::Denied
    } else {
        Outcome::In(credential)
    }
}

fn password(call: &Call, username: &str, secret: &str) -> Outcome {
    let inner = call.nas.auth.lock();
    match inner.users.get(username) {
        Some(user) if user.password == secret => match &user.otp {
            Some(_) => Outcome::Otp(username.to_owned()),
            None => match inner.credential("LOGIN_PASSWORD", username) {
                Some(credential) => admit(call, &inner, credential),
                None => Outcome::Wrong,
            },
        },
        _ => Outcome::Wrong,
    }
}

fn otp(call: &Call, code: &str) -> Outcome {
    let Some(Pending::Otp(username)) = call.session.take_pending() else { return Outcome::Wrong };
    let inner = call.nas.auth.lock();
    let secret = inner.users.get(&username).and_then(|u| u.otp.as_deref());
    let right = secret.and_then(|s| super::totp(s, call.nas.now())).as_deref() == Some(code);
    match inner.credential("LOGIN_TWOFACTOR", &username).filter(|_| right) {
        Some(credential) => Outcome::In(credential),
        None => Outcome::Wrong,
    }
}

fn token(call: &Call, text: &str) -> Outcome {
    let found = call.nas.auth.token(text, call.session.remote.ip(), call.nas.now());
    match found {
        Some(token) if token.attrs.as_object().is_none_or(|a| a.is_empty()) => {
            let mut credential = token.credential;
            credential.kind = "TOKEN";
            credential.token = Some(text.to_owned());
            Outcome::In(credential)
        }
        _ => Outcome::Wrong,
    }
}

async fn scram(call: &Call, kind: &str, message: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    let answer = |kind: &str, text: String| json!({"response_type": "SCRAM_RESPONSE", "scram_type": kind, "rfc_str": text, "user_info": null});
    if kind == "CLIENT_FIRST_MESSAGE" {
        let secret = super::scram::first(message).and_then(|(name, id, _)| {
            let inner = nas.auth.lock();
            match id {
                Some(id) => inner
                    .keys
                    .iter()
                    .find(|k| k.id == id && k.username == name && usable(k, nas.now()))
                    .map(|k| k.secret.clone()),
                None => inner.users.get(&name).map(|u| u.password.clone()),
            }
        });
        // Who does not exist gets an answer, too, and fails at the proof.
        let secret = secret.unwrap_or_else(|| crate::random::text(64));
        return match Exchange::begin(message, secret) {
            Some((exchange, text)) => {
                call.session.set_pending(Pending::Scram(exchange));
                Ok(answer("SERVER_FIRST_RESPONSE", text))
            }
            None => Ok(json!({"response_type": "AUTH_ERR"})),
        };
    }
    let Some(Pending::Scram(exchange)) = call.session.take_pending() else {
        return Ok(json!({"response_type": "AUTH_ERR"}));
    };
    let Some(proof) = exchange.finish(message) else {
        slow().await;
        return Ok(json!({"response_type": "AUTH_ERR"}));
    };
    let inner = nas.auth.lock();
    let kind = if exchange.key.is_some() { "API_KEY" } else { "LOGIN_PASSWORD" };
    let Some(mut credential) = inner.credential(kind, &exchange.username) else {
        return Ok(json!({"response_type": "AUTH_ERR"}));
    };
    credential.key = exchange
        .key
        .and_then(|id| inner.keys.iter().find(|k| k.id == id))
        .map(|k| (k.id, k.name.clone()));
    let mut reply = answer("SERVER_FINAL_RESPONSE", proof);
    reply["user_info"] = inner.me(&exchange.username);
    drop(inner);
    call.session.set_credential(Some(credential));
    Ok(reply)
}

fn usable(key: &Key, now: i64) -> bool {
    key.revoked.is_none() && key.expires.is_none_or(|at| at >= now)
}

/// `auth.generate_token`.
pub fn generate_token(call: &Call) -> Result<Value, Fail> {
    let credential = call.credential()?;
    let ttl = call.args[0].as_i64().unwrap_or(600);
    let attrs = call.args[1].clone();
    let matches = call.args[2] != json!(false);
    let single = call.args[3] == json!(true);
    Ok(issue(call, credential, ttl, attrs, matches, single).into())
}

/// Makes a token for somebody.
pub fn issue(
    call: &Call,
    credential: Credential,
    ttl: i64,
    attrs: Value,
    matches: bool,
    single_use: bool,
) -> String {
    let origin = matches.then(|| call.session.remote.ip());
    let used = call.nas.now();
    call.nas.auth.issue(Token { credential, ttl, attrs, origin, single_use, used })
}

/// `auth.logout`: the connection stays.
pub fn logout(call: &Call) -> Result<Value, Fail> {
    if let Some(token) = call.session.credential().and_then(|c| c.token) {
        call.nas.auth.lock().tokens.remove(&token);
    }
    call.session.set_credential(None);
    Ok(true.into())
}

/// A failed login takes one to two seconds.
async fn slow() {
    tokio::time::sleep(Duration::from_millis(1000 + crate::random::below(1000))).await;
}
