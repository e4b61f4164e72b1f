//! TrueNAS's middleware: JSON-RPC 2.0 over a WebSocket, with jobs and events.
//!
//! A [`Client`] has one connection, and opens another when that breaks. What was sent and has no answer
//! is not sent again, but where the caller says that it may be: [`Client::read`]. Jobs go on without a
//! connection; whoever waits for one is told its end by the next connection.

mod address;
mod connection;
mod dial;
mod error;
mod login;
mod shell;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::Instant;

use self::connection::{Connection, JobEnd, job_end};
use self::dial::Dialer;
use self::login::Outcome;
use super::tls::Trust;
use crate::sandbox;

pub use address::Address;
pub use connection::{Event, Socket};
pub use error::{Refusal, RpcError};
pub use login::Login;
pub use shell::{Shell, ShellLine};

/// How long an answer may take when nothing else is said.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long a server that was there is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a job's end is looked for after a restart.
const JOB_PATIENCE: Duration = Duration::from_secs(300);
/// How often a login is sent elsewhere.
const REDIRECTS: u32 = 3;
/// After which time a job is looked at whose end was not told.
const LONG: Duration = Duration::from_secs(300);

/// The first release whose calls are known.
const OLDEST: (u32, u32, u32) = (25, 4, 0);

/// A release as people say it.
pub fn release_name((year, month, _): (u32, u32, u32)) -> String {
    match year {
        ..26 => format!("{year}.{month:02}"),
        _ if month == 0 => year.to_string(),
        _ => format!("{year}.{month}"),
    }
}

/// Which NAS, and who asks.
#[derive(Clone, Debug)]
pub struct NasConfig {
    /// Where it is.
    pub address: Address,
    /// Which certificate it may have.
    pub trust: Trust,
    /// Who logs in.
    pub login: Login,
    /// How often a sign of life is asked for: the server's proxy cuts what is silent for a minute.
    pub ping: Duration,
}

impl NasConfig {
    /// A NAS.
    pub fn new(address: Address, trust: Trust, login: Login) -> NasConfig {
        NasConfig { address, trust, login, ping: Duration::from_secs(20) }
    }
}

/// The versions of the API that a server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions(Vec<(u32, u32, u32)>);

impl Versions {
    fn parse(text: &[u8]) -> Option<Versions> {
        let all: Vec<String> = serde_json::from_slice(text).ok()?;
        let version = |text: &String| {
            let mut parts = text.strip_prefix('v')?.split('.').map(|part| part.parse().ok());
            Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
        };
        let mut all: Vec<_> = all.iter().filter_map(version).collect();
        all.sort_unstable();
        (!all.is_empty()).then_some(Versions(all))
    }

    /// The newest: year, month, patch.
    pub fn newest(&self) -> (u32, u32, u32) {
        self.0.last().copied().unwrap_or_default()
    }

    /// Whether it is a release whose calls are not known.
    pub fn is_too_old(&self) -> bool {
        self.newest() < OLDEST
    }

    /// The release's year.
    pub fn major(&self) -> u32 {
        self.newest().0
    }
}

/// A NAS.
pub struct Client {
    config: NasConfig,
    versions: Versions,
    /// Where the connection leads, after all redirects.
    dialer: Mutex<Arc<Dialer>>,
    current: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

impl Client {
    /// Connects and logs in.
    pub async fn open(config: NasConfig) -> Result<Client, RpcError> {
        let dialer = Arc::new(Dialer::new(config.address.clone(), config.trust.clone())?);
        // Two connections at once: which login there is depends on the version.
        let (versions, socket) =
            tokio::try_join!(versions(&dialer), dialer.socket("/api/current"))?;
        if versions.is_too_old() {
            let (place, release) = (dialer.address.to_string(), release_name(versions.newest()));
            return Err(RpcError::Old { place, release });
        }
        let client = Client {
            config,
            versions,
            dialer: Mutex::new(dialer),
            current: tokio::sync::Mutex::default(),
        };
        let connection = client.enter(Some(socket)).await?;
        *client.current.lock().await = Some(connection);
        Ok(client)
    }

    /// The versions of the API that a server has, by anybody who asks.
    pub async fn look(address: &Address, trust: &Trust) -> Result<Versions, RpcError> {
        versions(&Dialer::new(address.clone(), trust.clone())?).await
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.config.address
    }

    /// The versions of the API that it has.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    fn dialer(&self) -> Arc<Dialer> {
        Arc::clone(&self.dialer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection that is logged in; over `socket`, if there is one already.
    async fn enter(&self, socket: Option<Socket>) -> Result<Arc<Connection>, RpcError> {
        let mut dialer = self.dialer();
        let mut socket = socket;
        for _ in 0..=REDIRECTS {
            let opened = match socket.take() {
                Some(socket) => socket,
                None => dialer.socket("/api/current").await?,
            };
            let connection = Connection::new(dialer.address.to_string(), opened, self.config.ping);
            let (address, who) = (&dialer.address, &self.config.login);
            match login::login(&connection, address, who, &self.versions).await? {
                Outcome::In => {
                    connection.authenticated();
                    *self.dialer.lock().unwrap_or_else(PoisonError::into_inner) = dialer;
                    return Ok(Arc::new(connection));
                }
                Outcome::Elsewhere(urls) => {
                    let Some(url) = urls.first() else {
                        let text = format!("{address} is on standby, and does not say for whom");
                        return Err(RpcError::Auth(text));
                    };
                    let next = Address::parse(url).ok().filter(|next| next.tls == address.tls);
                    let next = next.ok_or_else(|| {
                        RpcError::Auth(format!("{address} sends its clients to '{url}'"))
                    })?;
                    dialer = Arc::new(Dialer::new(next, self.config.trust.clone())?);
                }
            }
        }
        let place = &self.config.address;
        Err(RpcError::Auth(format!("{place} sends its clients round in circles")))
    }

    /// The connection, or another one if it is broken.
    async fn connection(&self, patience: Duration) -> Result<Arc<Connection>, RpcError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_broken()) {
            return Ok(Arc::clone(connection));
        }
        let until = Instant::now() + patience;
        let mut pause = Duration::from_millis(20);
        loop {
            match self.enter(None).await {
                Ok(connection) => {
                    *current = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Err(
                    RpcError::Unreachable { .. }
                    | RpcError::Broken { .. }
                    | RpcError::Deadline { .. },
                ) if Instant::now() < until => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Calls a method, once.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.call_within(method, params, DEADLINE).await
    }

    /// Calls a method, once. It may take so long.
    pub async fn call_within(
        &self,
        method: &str,
        params: Value,
        deadline: Duration,
    ) -> Result<Value, RpcError> {
        loop {
            let connection = self.connection(PATIENCE).await?;
            match connection.call(method, &params, deadline).await {
                // It broke before anything was sent.
                Err(RpcError::Unreachable { .. }) if connection.is_broken() => {}
                done => return done,
            }
        }
    }

    /// Calls a method that changes nothing: as often as it takes to get an answer.
    pub async fn read(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let mut tries = 0;
        loop {
            match self.call(method, params.clone()).await {
                Err(RpcError::Broken { .. }) if tries < 3 => tries += 1,
                Err(RpcError::Refused(refusal)) if refusal.is_passing() && tries < 3 => {
                    tokio::time::sleep(Duration::from_millis(20 << (2 * tries))).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Calls a method that is a job, and waits for its end: its result.
    ///
    /// Where another job waits for the same lock, the server gives that one's number, of whatever method it is, and
    /// does nothing for this call: it is made again when that one has ended.
    pub async fn job(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        loop {
            let (connection, answer) = self.begin(method, &params, DEADLINE).await?;
            let Some(id) = answer.as_i64() else { return Ok(answer) };
            if let Some(end) = self.end_of(connection, id, method, &params[0]).await? {
                return end.map_err(RpcError::Refused);
            }
        }
    }

    /// Sees to it that the ends of jobs are told before the first one is begun, as far as that can be now.
    pub async fn expect_jobs(&self) {
        if let Ok(connection) = self.connection(PATIENCE).await {
            let _ = connection.listen_to_jobs().await;
        }
    }

    /// The end of a job that was begun by a call whose answer was lost: the newest of this method whose
    /// parameters are as `ours` has them. Nothing when there is none.
    pub async fn lost_job(
        &self,
        method: &str,
        ours: impl Fn(&Value) -> bool,
    ) -> Result<Option<Value>, RpcError> {
        loop {
            let connection = self.connection(JOB_PATIENCE).await?;
            match connection.listen_to_jobs().await {
                Ok(()) => {}
                Err(RpcError::Broken { .. } | RpcError::Unreachable { .. }) => continue,
                Err(error) => return Err(error),
            }
            let of = json!([[["method", "=", method]], {"order_by": ["-id"], "limit": 100}]);
            let rows = self.read("core.get_jobs", of).await?;
            let all = rows.as_array().into_iter().flatten();
            let ours = all
                .filter(|job| ours(&job["arguments"]))
                .find_map(|job| Some((job["id"].as_i64()?, &job["arguments"][0])));
            let Some((id, first)) = ours else { return Ok(None) };
            return match self.end_of(connection, id, method, first).await? {
                Some(end) => end.map(Some).map_err(RpcError::Refused),
                None => Ok(None),
            };
        }
    }

    /// Calls a method that may be a job, which is then waited for.
    pub async fn perform(
        &self,
        method: &str,
        params: Value,
        deadline: Duration,
    ) -> Result<Value, RpcError> {
        let (connection, answer) = self.begin(method, &params, deadline).await?;
        let Some(id) = answer.as_i64() else { return Ok(answer) };
        // A plain number is an answer, too.
        let of = json!([[["id", "=", id], ["method", "=", method]], {"select": ["id"]}]);
        match self.read("core.get_jobs", of).await?.as_array() {
            Some(jobs) if !jobs.is_empty() => {
                match self.end_of(connection, id, method, &params[0]).await? {
                    Some(end) => end.map_err(RpcError::Refused),
                    None => Ok(answer),
                }
            }
            _ => Ok(answer),
        }
    }

    /// Calls a method that may be a job, on a connection that the ends of jobs are told on.
    async fn begin(
        &self,
        method: &str,
        params: &Value,
        deadline: Duration,
    ) -> Result<(Arc<Connection>, Value), RpcError> {
        loop {
            let connection = self.connection(PATIENCE).await?;
            match connection.listen_to_jobs().await {
                Ok(()) => {}
                Err(RpcError::Broken { .. } | RpcError::Unreachable { .. }) => continue,
                Err(error) => return Err(error),
            }
            match connection.call(method, params, deadline).await {
                Err(RpcError::Unreachable { .. }) if connection.is_broken() => {}
                answer => return Ok((connection, answer?)),
            }
        }
    }

    /// The end of a job that was begun on `connection`, by a call with this first argument; nothing when it was one of
    /// another method.
    async fn end_of(
        &self,
        mut connection: Arc<Connection>,
        id: i64,
        method: &str,
        first: &Value,
    ) -> Result<Option<JobEnd>, RpcError> {
        loop {
            // It may take hours. Should its end never be told, it is asked for after a while.
            if let Ok(Some(end)) = tokio::time::timeout(LONG, connection.end_of(id)).await {
                return Ok((end.method == method).then_some(end.result));
            }
            connection = self.connection(JOB_PATIENCE).await?;
            let params = json!([[["id", "=", id]], {"extra": {"raw_result": true}}]);
            // First who listens, then who asks misses nothing.
            let rows = match connection.listen_to_jobs().await {
                Ok(()) => connection.call("core.get_jobs", &params, DEADLINE).await,
                Err(error) => Err(error),
            };
            let rows = match rows {
                Err(RpcError::Broken { .. } | RpcError::Unreachable { .. }) => continue,
                rows => rows?,
            };
            // After a restart the same number is another job's.
            let about = |job: &Value| {
                let told = &job["arguments"][0];
                let plain = |value: &Value| value.is_string() || value.is_number();
                job["method"] == method && (!plain(first) || !plain(told) || told == first)
            };
            let Some(job) = Some(&rows[0]).filter(|job| about(job)) else {
                let (place, method) = (self.config.address.to_string(), method.to_owned());
                return Err(RpcError::Forgotten { place, method });
            };
            if let Some(end) = job_end(job) {
                return Ok(Some(end));
            }
        }
    }

    /// Subscribes to events of a collection, for as long as the connection holds: with the end of
    /// this one the stream ends. Who subscribed asks for the state once: what was before is not told.
    pub async fn subscribe(
        &self,
        collection: &str,
    ) -> Result<broadcast::Receiver<Arc<Event>>, RpcError> {
        let connection = self.connection(PATIENCE).await?;
        let events = connection.events();
        connection.call("core.subscribe", &json!([collection]), DEADLINE).await?;
        Ok(events)
    }
}

async fn versions(dialer: &Dialer) -> Result<Versions, RpcError> {
    let (status, body) = dialer.get("/api/versions").await?;
    let found = Versions::parse(&body).filter(|_| status == 200);
    found.ok_or_else(|| RpcError::Unreachable {
        place: dialer.address.to_string(),
        why: match status {
            502..=504 => "its middleware is not up".into(),
            _ => "it is no TrueNAS of 25.04 or later".into(),
        },
    })
}

/// A point in time as the server writes it.
pub fn date(value: &Value) -> Option<SystemTime> {
    let millis = value["$date"].as_u64()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

impl From<RpcError> for sandbox::Error {
    fn from(error: RpcError) -> sandbox::Error {
        let message = error.to_string();
        match error {
            RpcError::Auth(message) => sandbox::Error::Auth { message },
            RpcError::Refused(refusal) if refusal.is_denied() => sandbox::Error::Auth { message },
            RpcError::Old { release, .. } => sandbox::Error::unsupported(
                format!("TrueNAS {release}"),
                "truenas",
                "it is too old: update it to 25.04, 25.10 or 26",
            ),
            RpcError::Refused(_) => sandbox::Error::internal(message),
            RpcError::TooLong { method, .. } => {
                sandbox::Error::invalid_hint(method, message, "nothing was sent: say less in it")
            }
            RpcError::Deadline { method, after } => sandbox::Error::Timeout { what: method, after },
            RpcError::Broken { .. }
            | RpcError::Forgotten { .. }
            | RpcError::Unreachable { .. }
            | RpcError::Untrusted(_) => sandbox::Error::Transport { message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let versions =
            Versions::parse(br#"["v25.04.2","v25.10.5","v25.10.10","v26.0.0"]"#).unwrap();
        assert_eq!((versions.newest(), versions.major()), ((26, 0, 0), 26));
        let versions = Versions::parse(br#"["v25.10.10","v25.10.5"]"#).unwrap();
        assert_eq!(versions.newest(), (25, 10, 10));
        for text in ["", "[]", "{}", "[1]", r#"["x"]"#] {
            assert_eq!(Versions::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn dates_are_read() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_785_571_200);
        assert_eq!(date(&json!({"$date": 1_785_571_200_000_u64})), Some(at));
        assert_eq!(date(&json!("2026")), None);
    }
}
