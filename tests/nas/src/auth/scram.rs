//! SCRAM-SHA-512, the server's half (RFC 5802).

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// Rounds of the key derivation.
const ROUNDS: u32 = 50_000;

/// What was said so far, and what the key is.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Who wants to log in.
    pub username: String,
    /// With which key; `None` is the password.
    pub key: Option<i64>,
    secret: String,
    salt: Vec<u8>,
    nonce: String,
    said: String,
}

/// The name, key number and nonce of a client's first message.
pub fn first(message: &str) -> Option<(String, Option<i64>, String)> {
    let bare = message.strip_prefix("n,,").or_else(|| message.splitn(3, ',').nth(2))?;
    let (name, nonce) = bare.split_once(",r=")?;
    let name = name.strip_prefix("n=")?.replace("=2C", ",").replace("=3D", "=");
    match name.rsplit_once(':').and_then(|(n, id)| Some((n.to_owned(), id.parse().ok()?))) {
        Some((name, id)) => Some((name, Some(id), nonce.to_owned())),
        None => Some((name, None, nonce.to_owned())),
    }
}

impl Exchange {
    /// Answers a client's first message: the exchange and the server's first message.
    pub fn begin(message: &str, secret: String) -> Option<(Self, String)> {
        let (username, key, theirs) = first(message)?;
        let bare = &message[message.find("n=")?..];
        let salt = crate::random::bytes(16);
        let nonce = format!("{theirs}{}", BASE64.encode(crate::random::bytes(24)));
        let answer = format!("r={nonce},s={},i={ROUNDS}", BASE64.encode(&salt));
        let said = format!("{bare},{answer}");
        Some((Self { username, key, secret, salt, nonce, said }, answer))
    }

    /// Checks a client's final message: the server's final message, when the proof is right.
    pub fn finish(&self, message: &str) -> Option<String> {
        let (without, proof) = message.rsplit_once(",p=")?;
        if !without.split(',').any(|p| p.strip_prefix("r=") == Some(&self.nonce)) {
            return None;
        }
        let mut salted = [0; digest::SHA512_OUTPUT_LEN];
        let rounds = NonZeroU32::new(ROUNDS)?;
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA512,
            rounds,
            &self.salt,
            self.secret.as_bytes(),
            &mut salted,
        );
        let client = mac(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA512, &client);
        let all = format!("{},{without}", self.said);
        let signature = mac(stored.as_ref(), all.as_bytes());
        let wanted: Vec<u8> = client.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        if BASE64.decode(proof).ok()? != wanted {
            return None;
        }
        let server = mac(&salted, b"Server Key");
        Some(format!("v={}", BASE64.encode(mac(&server, all.as_bytes()))))
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), text).as_ref().to_vec()
}
