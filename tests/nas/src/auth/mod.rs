//! Users, API keys, tokens: who may come in and what they may do.

pub mod login;
mod roles;
mod scram;
mod totp;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

pub use roles::allows;
pub use scram::Exchange;
pub use totp::totp;

/// Somebody who may log in.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The numeric id.
    pub uid: u32,
    /// The password.
    pub password: String,
    /// The secret of the second factor in base 32, where there is one.
    pub otp: Option<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// Whether the shell endpoint is open to it.
    pub web_shell: bool,
    /// Whether it may use the API at all.
    pub denied: bool,
}

/// An API key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its number, the part before the dash.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub username: String,
    /// The 64 characters after the dash.
    pub secret: String,
    /// Why it was revoked.
    pub revoked: Option<String>,
    /// When it runs out, in milliseconds.
    pub expires: Option<i64>,
    /// When it was made, in milliseconds.
    pub created: i64,
}

impl Key {
    /// What the client holds.
    pub fn text(&self) -> String {
        format!("{}-{}", self.id, self.secret)
    }
}

/// A token, for a login, a shell, an upload or a download.
#[derive(Debug, Clone)]
pub struct Token {
    /// Who it stands for.
    pub credential: Credential,
    /// After how many seconds without use it is void.
    pub ttl: i64,
    /// What it is for; one with attributes can't log in.
    pub attrs: Value,
    /// The only address that it may come from.
    pub origin: Option<IpAddr>,
    /// Whether it is void after its first use.
    pub single_use: bool,
    /// When it was last used, in milliseconds.
    pub used: i64,
}

/// Who is logged in, and how.
#[derive(Debug, Clone)]
pub struct Credential {
    /// `API_KEY`, `LOGIN_PASSWORD`, `LOGIN_TWOFACTOR` or `TOKEN`.
    pub kind: &'static str,
    /// The user.
    pub username: String,
    /// What it may do.
    pub roles: Vec<String>,
    /// Whether the shell endpoint is open to it.
    pub web_shell: bool,
    /// The key that was used.
    pub key: Option<(i64, String)>,
    /// The token that was used.
    pub token: Option<String>,
    /// When it logged in, in milliseconds; zero where that is nothing that ends.
    pub since: i64,
}

impl Credential {
    /// Whether it may do everything.
    pub fn admin(&self) -> bool {
        self.roles.iter().any(|r| r == "FULL_ADMIN")
    }

    /// As jobs and sessions show it.
    pub fn describe(&self) -> Value {
        let mut data = json!({"username": self.username});
        if let Some((id, name)) = &self.key {
            data["api_key"] = json!({"id": id, "name": name});
        }
        json!({"type": self.kind, "data": data})
    }
}

/// A login that is not finished.
#[derive(Debug, Clone)]
pub enum Pending {
    /// The password was right; the one-time code is missing.
    Otp(String),
    /// The first half of SCRAM was said.
    Scram(Exchange),
}

/// All users, keys and tokens.
pub struct Store {
    inner: Mutex<Inner>,
}

/// What a store holds.
#[derive(Default)]
pub struct Inner {
    /// The users by name.
    pub users: HashMap<String, User>,
    /// The keys.
    pub keys: Vec<Key>,
    /// The tokens by their text.
    pub tokens: HashMap<String, Token>,
    /// When each method was called anonymously, by address.
    pub anonymous: HashMap<(String, String), Vec<i64>>,
}

impl Store {
    /// A store of these users and keys.
    pub fn new(users: Vec<User>, keys: Vec<Key>) -> Self {
        let users = users.into_iter().map(|u| (u.name.clone(), u)).collect();
        Self { inner: Mutex::new(Inner { users, keys, ..Inner::default() }) }
    }

    /// Looks into it.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token for use; `None` when it is unknown, void or from elsewhere.
    pub fn token(&self, text: &str, origin: IpAddr, now: i64) -> Option<Token> {
        let mut inner = self.lock();
        let token = inner.tokens.get_mut(text)?;
        if token.used + token.ttl * 1000 < now {
            inner.tokens.remove(text);
            return None;
        }
        if token.origin.is_some_and(|o| o != origin) {
            return None;
        }
        token.used = now;
        let found = token.clone();
        if found.single_use {
            inner.tokens.remove(text);
        }
        Some(found)
    }

    /// Makes a token and gives its text.
    pub fn issue(&self, token: Token) -> String {
        let text = crate::random::text(64);
        let mut inner = self.lock();
        let now = token.used;
        inner.tokens.retain(|_, t| t.used + t.ttl * 1000 >= now);
        inner.tokens.insert(text.clone(), token);
        text
    }

    /// Counts an anonymous call; `true` when there were too many in a minute.
    pub fn too_many(&self, method: &str, origin: &str, now: i64) -> bool {
        let mut inner = self.lock();
        let calls = inner.anonymous.entry((method.to_owned(), origin.to_owned())).or_default();
        calls.retain(|at| now - at < 60_000);
        calls.push(now);
        calls.len() > 20
    }
}

impl Inner {
    /// What a user's session may do.
    pub fn credential(&self, kind: &'static str, username: &str) -> Option<Credential> {
        let user = self.users.get(username)?;
        Some(Credential {
            kind,
            username: user.name.clone(),
            roles: user.roles.clone(),
            web_shell: user.web_shell,
            key: None,
            token: None,
            since: 0,
        })
    }

    /// The user as `auth.me` shows it.
    pub fn me(&self, username: &str) -> Value {
        let Some(user) = self.users.get(username) else { return Value::Null };
        json!({
            "pw_name": user.name, "pw_gecos": user.name, "pw_dir": if user.uid == 0 { "/root".into() } else { format!("/home/{}", user.name) },
            "pw_shell": "/usr/bin/bash", "pw_uid": user.uid, "pw_gid": user.uid,
            "grouplist": [], "sid": null, "source": "LOCAL", "local": true, "attributes": {},
            "two_factor_config": {
                "provisioning_uri": user.otp.as_deref().map(totp::uri), "secret_configured": user.otp.is_some(),
                "interval": 30, "otp_digits": 6,
            },
            "privilege": {
                "allowlist": if user.roles.iter().any(|r| r == "FULL_ADMIN") { json!([{"method": "*", "resource": "*"}]) } else { json!([]) },
                "roles": {"$set": user.roles}, "web_shell": user.web_shell, "webui_access": true,
            },
            "account_attributes": if user.uid == 0 { json!(["LOCAL", "SYS_ADMIN"]) } else { json!(["LOCAL"]) },
        })
    }
}
