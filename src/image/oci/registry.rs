//! Asking a registry.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use ureq::http::{Response, StatusCode, header};

use super::Reference;
use super::manifest::KINDS;
use crate::image::download;
use crate::sandbox::{Error, Kind, Result};

/// How large a manifest may be: registries take no more than 4 MiB.
const MOST: u64 = 4 << 20;

/// One repository of a registry.
pub(super) struct Registry {
    pub reference: Reference,
    base: String,
    agent: ureq::Agent,
    /// Whoever reads it without a password is given one, for a while.
    token: Mutex<Option<String>>,
}

/// What a token server answers.
#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Registry {
    pub fn new(reference: &Reference) -> Registry {
        let base = reference.base();
        let agent = download::agent(base.starts_with("https:"));
        Registry { reference: reference.clone(), base, agent, token: Mutex::default() }
    }

    /// The text of the manifest with this tag or digest.
    pub fn manifest(&self, of: &str) -> Result<Vec<u8>> {
        let url = format!("{}/manifests/{of}", self.base);
        let response = self.get(&url, Method::Get).map_err(|error| match error {
            Error::NotFound { .. } if self.reference.digest.is_none() && of.contains(':') => {
                Error::not_found(Kind::Image, format!("{}@{of}", self.reference))
            }
            error => error,
        })?;
        read(&url, response)
    }

    /// Where a layer is.
    pub fn blob(&self, digest: &str) -> String {
        format!("{}/blobs/sha256:{digest}", self.base)
    }

    /// What a download of a layer has to show, if anything.
    pub fn token_for(&self, digest: &str) -> Result<Option<String>> {
        self.get(&self.blob(digest), Method::Head)?;
        Ok(self.token())
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn get(&self, url: &str, method: Method) -> Result<Response<ureq::Body>> {
        let response = self.ask(url, method)?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED => {
                let challenge = response.headers().get(header::WWW_AUTHENTICATE);
                let challenge = challenge.and_then(|text| text.to_str().ok()).unwrap_or_default();
                let token = self.log_in(challenge)?;
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
                self.ask(url, method)?
            }
            _ => response,
        };
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Error::not_found(Kind::Image, self.reference.to_string())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.private()),
            StatusCode::TOO_MANY_REQUESTS => Err(Error::Transport {
                message: format!(
                    "{} was asked too often; it says to wait",
                    self.reference.registry
                ),
            }),
            status => Err(Error::Transport { message: format!("{url} answered {status}") }),
        }
    }

    fn ask(&self, url: &str, method: Method) -> Result<Response<ureq::Body>> {
        let mut request = match method {
            Method::Get => self.agent.get(url),
            Method::Head => self.agent.head(url),
        };
        request = request.header(header::ACCEPT, KINDS);
        if let Some(token) = self.token() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.config().http_status_as_error(false).build();
        request.call().map_err(|error| download::answer(url, error))
    }

    /// A token for somebody without a name (token authentication of the distribution specification).
    fn log_in(&self, challenge: &str) -> Result<String> {
        let fields = fields(challenge).ok_or_else(|| self.private())?;
        let field = |name: &str| {
            fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let realm = field("realm").filter(|realm| download::is_trusted(realm));
        let realm = realm.ok_or_else(|| self.private())?;
        let mut request = self.agent.get(realm);
        for name in ["service", "scope"] {
            if let Some(value) = field(name) {
                request = request.query(name, value);
            }
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::StatusCode(401 | 403) => self.private(),
            error => download::answer(realm, error),
        })?;
        let text = read(realm, response)?;
        let token: Token = serde_json::from_slice(&text)
            .map_err(|_| Error::Transport { message: format!("{realm} gives no token") })?;
        let plain = token.token.chars().all(|c| c.is_ascii_graphic());
        plain.then_some(token.token).ok_or_else(|| self.private())
    }

    fn private(&self) -> Error {
        Error::Auth {
            message: format!(
                "'{}' is not there, or not for everybody; images that want a password can't be read: \
                 save it as an archive (podman export) and start from that",
                self.reference
            ),
        }
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

fn read(url: &str, response: Response<ureq::Body>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let failed = |why: String| Error::Transport { message: format!("{url}: {why}") };
    let from = response.into_body().into_reader();
    from.take(MOST + 1).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(failed("it is too large".into()));
    }
    Ok(text)
}

/// The fields of `Bearer key="value",key=value`; none where it asks for something else.
fn fields(challenge: &str) -> Option<Vec<(String, String)>> {
    let (scheme, mut rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut all = Vec::new();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        all.push((key.trim().to_owned(), value.trim().to_owned()));
        rest = next.trim_start().trim_start_matches(',').trim_start();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn challenges() {
        let text =
            r#"Bearer realm="https://a.example/token",service=b,scope="repository:x/y:pull,push""#;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            fields(text).unwrap(),
            [
                pair("realm", "https://a.example/token"),
                pair("service", "b"),
                pair("scope", "repository:x/y:pull,push"),
            ]
        );
        for other in ["", "Basic realm=\"x\"", "Bearer", "Bearer realm=\"x"] {
            assert!(fields(other).is_none(), "{other}");
        }
    }
}
