//! Incus's REST API: requests, answers, and operations that are waited for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use super::operations::Operations;
pub(super) use crate::backend::guest::Fail;
use crate::transport::{Answer, Http, Place, Socket};

/// For how long a request may be lost with the member of a cluster that went away.
const MOMENT: Duration = Duration::from_secs(30);

/// An operation that the server works on.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Its id.
    pub id: String,
    /// What it said of itself when it began.
    pub metadata: Value,
    /// Which stream of events was open when it was asked for.
    generation: u64,
    /// The member of a cluster that works on it.
    member: Option<String>,
}

/// A server, in one of its projects.
pub(super) struct Client {
    http: Arc<Http>,
    project: Option<String>,
    operations: Operations,
    /// The members of a cluster that can be spoken to, in the order of their places.
    members: OnceLock<Vec<String>>,
}

impl Client {
    pub fn new(place: Place, project: Option<String>, patience: Option<Duration>) -> Client {
        let http = Http::new(place);
        let http = Arc::new(match patience {
            Some(patience) => http.patient(patience),
            None => http,
        });
        let operations = Operations::new(Arc::clone(&http), project.clone());
        Client { http, project, operations, members: OnceLock::new() }
    }

    /// Says that the server is this member of a cluster, and where all are, by name and URL: the others are asked when it can't
    /// be reached any more. Their trust is the same.
    pub fn is_member(&self, own: &str, all: impl Iterator<Item = (String, String)>) {
        let mut names = vec![own.to_owned()];
        let mut places = Vec::new();
        if let Place::Tls(server) = self.place() {
            for (name, url) in all.filter(|(name, _)| name != own) {
                let Some((host, port)) = authority(&url) else { continue };
                places.push(Place::Tls(server.elsewhere(&host, port)));
                names.push(name);
            }
        }
        if self.members.set(names).is_ok() {
            self.http.or_at(places);
        }
    }

    /// The member of a cluster that is spoken to.
    pub fn own(&self) -> Option<&str> {
        self.members.get()?.get(self.http.current()).map(String::as_str)
    }

    /// The member of a cluster that was spoken to until a moment ago, if it went away: what it was asked is lost.
    pub fn left(&self) -> Option<&str> {
        self.members.get()?.get(self.http.left(MOMENT)?).map(String::as_str)
    }

    /// The project that is worked in.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// A path with the project in it.
    pub fn path(&self, path: &str) -> String {
        within(path, self.project.as_deref())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer, Fail> {
        self.ask_at(method, &self.path(path), headers, body).await
    }

    async fn ask_at(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer, Fail> {
        let answer = self.http.send(&method, path, headers, &body).await?;
        if answer.status < 400 {
            return Ok(answer);
        }
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = said["error"].as_str().unwrap_or("it gives no reason").to_owned();
        Err(Fail::Refused(answer.status, text))
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Fail> {
        self.json_tagged(method, path, body, None).await
    }

    async fn json_tagged(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        tag: Option<&str>,
    ) -> Result<Value, Fail> {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(tag.map(|tag| ("if-match", tag.to_owned())));
        let answer = self.ask(method, path, &headers, body).await?;
        parsed(&answer)
    }

    /// Reads something, and the tag of the state that it is in.
    pub async fn get_tagged(&self, path: &str) -> Result<(Value, String), Fail> {
        let answer = self.ask(Method::GET, path, &[], Bytes::new()).await?;
        let tag = answer.headers.get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let mut value = parsed(&answer)?;
        Ok((value["metadata"].take(), tag.to_owned()))
    }

    /// Changes something, if it still has this tag; whether it had.
    pub async fn patch_tagged(&self, path: &str, tag: &str, body: &Value) -> Result<bool, Fail> {
        let headers =
            [("content-type", "application/json".to_owned()), ("if-match", tag.to_owned())];
        match self.ask(Method::PATCH, path, &headers, body.to_string().into()).await {
            Ok(_) => Ok(true),
            Err(Fail::Refused(412, _)) => Ok(false),
            Err(fail) => Err(fail),
        }
    }

    /// Replaces something, if it still has this tag, and waits until that is done; whether it had.
    pub async fn put_tagged(&self, path: &str, tag: &str, body: &Value) -> Result<bool, Fail> {
        let tag = (!tag.is_empty()).then_some(tag);
        match self.begin_tagged(Method::PUT, path, body, tag).await {
            Ok(ticket) => self.end(&ticket).await.map(|_| true),
            Err(Fail::Refused(412, _)) => Ok(false),
            Err(fail) => Err(fail),
        }
    }

    /// A stream of what happens to instances, from now on.
    pub async fn happenings(&self) -> Result<Socket, Fail> {
        Ok(self.http.socket(&self.path("/1.0/events?type=lifecycle")).await?)
    }

    /// Opens the stream of events, which everything that takes a while needs. Whoever asks for such a
    /// thing is told when it can't be.
    pub async fn listen(&self) {
        let _ = self.operations.listen().await;
    }

    /// Reads something.
    pub async fn get(&self, path: &str) -> Result<Value, Fail> {
        self.json(Method::GET, path, None).await.map(|mut answer| answer["metadata"].take())
    }

    /// Reads something of another project.
    pub async fn get_in(&self, project: &str, path: &str) -> Result<Value, Fail> {
        let path = within(path, Some(project));
        let answer = self.ask_at(Method::GET, &path, &[], Bytes::new()).await?;
        let mut value = parsed(&answer)?;
        Ok(value["metadata"].take())
    }

    /// Asks for something that takes a while; it goes on when this returns.
    pub async fn begin(&self, method: Method, path: &str, body: &Value) -> Result<Ticket, Fail> {
        self.begin_tagged(method, path, body, None).await
    }

    async fn begin_tagged(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        tag: Option<&str>,
    ) -> Result<Ticket, Fail> {
        let generation = self.operations.listen().await?;
        let mut answer = self.json_tagged(method, path, Some(body), tag).await?;
        let metadata = answer["metadata"].take();
        let id = answer["operation"].as_str().unwrap_or_default();
        // A query behind the id says where in a cluster it is.
        let id = id.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
        let member = metadata["location"].as_str().filter(|place| !place.is_empty());
        let member = member.filter(|_| self.members.get().is_some()).map(str::to_owned);
        Ok(Ticket { id: id.to_owned(), metadata, generation, member })
    }

    /// Waits for its end; what it then says of itself.
    pub async fn end(&self, ticket: &Ticket) -> Result<Value, Fail> {
        if ticket.id.is_empty() {
            return Ok(ticket.metadata.clone());
        }
        let member = ticket.member.as_deref().map(|member| (member, self.own() == Some(member)));
        self.operations.wait(&ticket.id, ticket.generation, member).await
    }

    /// Asks for something and waits until it is done.
    pub async fn run(&self, method: Method, path: &str, body: &Value) -> Result<Value, Fail> {
        let ticket = self.begin(method, path, body).await?;
        self.end(&ticket).await
    }

    /// Asks for something that is done when the answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(), Fail> {
        self.json(Method::POST, path, Some(body)).await.map(drop)
    }

    /// Where the server is.
    pub fn place(&self) -> &Place {
        self.http.place()
    }

    /// Reads a file of a guest; nothing where there is none.
    pub async fn file(&self, path: &str) -> Result<Option<Bytes>, Fail> {
        match self.ask(Method::GET, path, &[], Bytes::new()).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(fail) if fail.is_missing() => Ok(None),
            Err(fail) => Err(fail),
        }
    }

    /// What is at a place of a guest's; nothing where there is nothing.
    pub async fn file_kind(&self, path: &str) -> Result<Option<String>, Fail> {
        match self.ask(Method::HEAD, path, &[], Bytes::new()).await {
            Ok(answer) => {
                let kind = answer.headers.get("x-incus-type").and_then(|kind| kind.to_str().ok());
                Ok(Some(kind.unwrap_or_default().to_owned()))
            }
            Err(fail) if fail.is_missing() => Ok(None),
            Err(fail) => Err(fail),
        }
    }

    /// Writes a file of a guest, as its root.
    pub async fn put_file(&self, path: &str, mode: &str, body: Bytes) -> Result<(), Fail> {
        let headers = [
            ("x-incus-type", "file"),
            ("x-incus-uid", "0"),
            ("x-incus-gid", "0"),
            ("x-incus-mode", mode),
            ("x-incus-write", "overwrite"),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        self.ask(Method::POST, path, &headers, body).await.map(drop)
    }

    /// Deletes something at once.
    pub async fn remove(&self, path: &str) -> Result<(), Fail> {
        self.ask(Method::DELETE, path, &[], Bytes::new()).await.map(drop)
    }

    /// Opens one of an operation's WebSockets.
    pub async fn socket(&self, operation: &str, secret: &str) -> Result<Socket, Fail> {
        let path = format!("/1.0/operations/{operation}/websocket?secret={secret}");
        Ok(self.http.socket(&path).await?)
    }
}

/// What an answer says.
fn parsed(answer: &Answer) -> Result<Value, Fail> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Fail::Lost(format!("the server's answer is no JSON: {error}")))
}

/// Host and port of a URL such as a cluster tells of its members.
fn authority(url: &str) -> Option<(String, u16)> {
    let uri: hyper::Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), uri.port_u16()?))
}

/// A path with a project in it.
pub(super) fn within(path: &str, project: Option<&str>) -> String {
    match project {
        None => path.to_owned(),
        Some(project) => {
            let join = if path.contains('?') { '&' } else { '?' };
            format!("{path}{join}project={}", escape(project))
        }
    }
}

/// Text as a part of a path or a query.
pub(super) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                done.push(byte.into());
            }
            _ => done.push_str(&format!("%{byte:02X}")),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_where_their_urls_say() {
        let told = ["https://10.0.0.2:8443", "https://[fd00::2]:443", "https://nas.lan:9", "", "x"];
        let told =
            told.map(|url| authority(url).map_or_else(String::new, |(h, p)| format!("{h} {p}")));
        assert_eq!(told, ["10.0.0.2 8443", "fd00::2 443", "nas.lan 9", "", ""]);
    }

    #[test]
    fn paths_are_escaped_and_in_a_project() {
        assert_eq!(escape("debian/12 ä"), "debian%2F12%20%C3%A4");
        assert_eq!(within("/1.0", None), "/1.0");
        assert_eq!(within("/1.0", Some("a b")), "/1.0?project=a%20b");
        assert_eq!(within("/1.0?x=1", Some("p")), "/1.0?x=1&project=p");
    }
}
