//! Logging in: with a key, a password, a token; what is secret is not sent where the server can do
//! without it.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use serde_json::{Value, json};

use super::address::Address;
use super::connection::Connection;
use super::error::RpcError;
use super::{DEADLINE, Versions};

/// How often a login is tried that comes too soon. The server lets each wait for some seconds.
const PATIENT: u32 = 12;

/// The most rounds that a server may ask for.
const ROUNDS: u32 = 5_000_000;

/// Who logs in, and how it shows that.
#[derive(Clone)]
pub enum Login {
    /// With an API key of this user.
    ApiKey {
        /// The user.
        user: String,
        /// The key: a number, a dash, 64 characters.
        key: String,
    },
    /// With a password, and a one-time code where the account wants one.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
        /// The code.
        otp: Option<String>,
    },
    /// With a token that a session gave out.
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::ApiKey { user, .. } => write!(f, "an API key of {user}"),
            Login::Password { user, .. } => write!(f, "the password of {user}"),
            Login::Token(_) => write!(f, "a token"),
        }
    }
}

impl Login {
    fn data(&self) -> Value {
        let options = json!({"user_info": false});
        match self {
            Login::ApiKey { user, key } => json!({
                "mechanism": "API_KEY_PLAIN", "username": user, "api_key": key, "login_options": options}),
            Login::Password { user, password, .. } => json!({
                "mechanism": "PASSWORD_PLAIN", "username": user, "password": password, "login_options": options}),
            Login::Token(token) => json!({
                "mechanism": "TOKEN_PLAIN", "token": token, "login_options": options}),
        }
    }

    /// The name and the secret that a server of 26 can check without being told the secret.
    fn scram(&self) -> Option<(String, &str)> {
        let escaped = |user: &str| user.replace('=', "=3D").replace(',', "=2C");
        match self {
            Login::ApiKey { user, key } => {
                let (id, secret) = key.split_once('-')?;
                Some((format!("{}:{id}", escaped(user)), secret))
            }
            // Who has a one-time code as well is asked for it the other way.
            Login::Password { user, password, otp: None } => Some((escaped(user), password)),
            _ => None,
        }
    }
}

/// How a login ended.
pub(super) enum Outcome {
    In,
    /// Somebody else is to be asked.
    Elsewhere(Vec<String>),
}

/// Logs in on a connection. Who logs in too often is made to wait by the server, and waits.
pub(super) async fn login(
    connection: &Connection,
    address: &Address,
    login: &Login,
    versions: &Versions,
) -> Result<Outcome, RpcError> {
    for _ in 0..PATIENT {
        match enter(connection, address, login, versions).await {
            Err(RpcError::Refused(refusal)) if refusal.is_passing() => {}
            done => return done,
        }
    }
    Err(RpcError::Auth(format!(
        "{address} takes twenty logins a minute from one address, and there were more: wait a minute, and put \
         many commands into one script or one sandscript repl"
    )))
}

async fn enter(
    connection: &Connection,
    address: &Address,
    login: &Login,
    versions: &Versions,
) -> Result<Outcome, RpcError> {
    let mut answer = Value::Null;
    if let Some((name, secret)) = login.scram().filter(|_| versions.major() >= 26) {
        answer = scram(connection, address, &name, secret).await?;
    }
    if answer.is_null() {
        answer = ask(connection, login.data()).await?;
    }
    if answer["response_type"] == "OTP_REQUIRED" {
        let Login::Password { user, otp: Some(otp), .. } = login else {
            let text = format!(
                "{address} asks for a one-time code: use an API key instead, which needs none"
            );
            return Err(RpcError::Auth(text));
        };
        answer = ask(connection, json!({"mechanism": "OTP_TOKEN", "otp_token": otp})).await?;
        if answer["response_type"] == "AUTH_ERR" {
            let text = format!("{address} does not take the one-time code of {user}");
            return Err(RpcError::Auth(text));
        }
    }
    let refused = |text: String| Err(RpcError::Auth(text));
    match answer["response_type"].as_str().unwrap_or_default() {
        "SUCCESS" | "SCRAM_RESPONSE" => Ok(Outcome::In),
        "REDIRECT" => {
            let urls = answer["urls"].as_array().into_iter().flatten();
            Ok(Outcome::Elsewhere(urls.filter_map(|url| url.as_str().map(str::to_owned)).collect()))
        }
        // A tunnel ends on this machine, but not always on the NAS.
        "EXPIRED" if !address.tls => refused(format!(
            "{address} says that the key has expired or was revoked: a NAS revokes one that it is shown in plain \
             text, as by http://; make another one there (Credentials > Users > API Keys), and use https://"
        )),
        "EXPIRED" => refused(format!(
            "{address} says that the key has expired or was revoked: make another one there \
             (Credentials > Users > API Keys)"
        )),
        "DENIED" => refused(format!(
            "{address} does not let this account use its API: give it a role (Credentials > Groups > Privileges)"
        )),
        _ => refused(format!(
            "{address} does not take {login:?}: look at the key, whether it is that user's, and whether it has expired or was \
             revoked (Credentials > Users > API Keys)"
        )),
    }
}

/// One step. A server that was asked too often says so after some seconds: then once more.
async fn ask(connection: &Connection, data: Value) -> Result<Value, RpcError> {
    let params = json!([data]);
    let mut tries = 0;
    loop {
        match connection.call("auth.login_ex", &params, DEADLINE).await {
            Err(RpcError::Refused(refusal)) if refusal.is_passing() && tries < 4 => tries += 1,
            done => return done,
        }
    }
}

/// SCRAM-SHA-512: null when the server does not offer it.
async fn scram(
    connection: &Connection,
    address: &Address,
    name: &str,
    secret: &str,
) -> Result<Value, RpcError> {
    let mut random = [0; 24];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let nonce = BASE64.encode(random);
    let bare = format!("n={name},r={nonce}");
    let step =
        |kind: &str, text: &str| json!({"mechanism": "SCRAM", "scram_type": kind, "rfc_str": text});
    let first = match ask(connection, step("CLIENT_FIRST_MESSAGE", &format!("n,,{bare}"))).await {
        Ok(first) => first,
        Err(RpcError::Refused(refusal)) if !refusal.is_passing() => return Ok(Value::Null),
        Err(error) => return Err(error),
    };
    if first["response_type"] != "SCRAM_RESPONSE" {
        return Ok(first);
    }
    let strange = || RpcError::Auth(format!("{address} answers a login with nonsense"));
    let said = first["rfc_str"].as_str().unwrap_or_default();
    let (message, signature) = prove(&bare, &nonce, said, secret).ok_or_else(strange)?;
    let last = ask(connection, step("CLIENT_FINAL_MESSAGE", &message)).await?;
    if last["response_type"] != "SCRAM_RESPONSE" {
        return Ok(last);
    }
    let shown = last["rfc_str"].as_str().and_then(|text| text.strip_prefix("v="));
    let shown = shown.and_then(|text| BASE64.decode(text.split(',').next()?).ok());
    match shown {
        // Only who knows the key can say this.
        Some(shown) if shown == signature => Ok(last),
        _ => Err(RpcError::Auth(format!("{address} does not know the key: it is another server"))),
    }
}

/// The client's last message, and the signature that the server has to answer with.
fn prove(bare: &str, nonce: &str, said: &str, secret: &str) -> Option<(String, Vec<u8>)> {
    let field = |key: &str| said.split(',').find_map(|part| part.strip_prefix(key));
    let (whole, salt, rounds) = (field("r=")?, field("s=")?, field("i=")?);
    let rounds =
        rounds.parse().ok().filter(|rounds| *rounds <= ROUNDS).and_then(NonZeroU32::new)?;
    if !whole.starts_with(nonce) || whole.len() == nonce.len() {
        return None;
    }
    let mut salted = [0; digest::SHA512_OUTPUT_LEN];
    let salt = BASE64.decode(salt).ok()?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds, &salt, secret.as_bytes(), &mut salted);
    let client = mac(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA512, client.as_ref());
    let without = format!("c={},r={whole}", BASE64.encode("n,,"));
    let all = format!("{bare},{said},{without}");
    let signature = mac(stored.as_ref(), all.as_bytes());
    let proof: Vec<u8> =
        client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let server = mac(mac(&salted, b"Server Key").as_ref(), all.as_bytes());
    Some((format!("{without},p={}", BASE64.encode(proof)), server.as_ref().to_vec()))
}

fn mac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_only_for_an_answer_to_ours() {
        assert!(prove("n=a,r=x", "x", "r=xy,s=c2FsdA==,i=4096", "k").is_some());
        for said in [
            "r=zy,s=c2FsdA==,i=4096",
            "r=x,s=c2FsdA==,i=1",
            "r=xy,s=c2FsdA==,i=0",
            "r=xy,s=!,i=1",
            "r=xy,s=c2FsdA==,i=4294967295",
            "",
            "e=unknown-user",
        ] {
            assert!(prove("n=a,r=x", "x", said, "k").is_none(), "{said}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let login = Login::ApiKey { user: "a".into(), key: "1-secret".into() };
        assert_eq!(format!("{login:?}"), "an API key of a");
        assert_eq!(login.scram(), Some(("a:1".into(), "secret")));
        let login = Login::Password { user: "a,b=".into(), password: "p".into(), otp: None };
        assert_eq!(login.scram(), Some(("a=2Cb=3D".into(), "p")));
    }
}
