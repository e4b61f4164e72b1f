//! One server, many requests: HTTP/1.1 over connections that are kept, and WebSockets.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;

use super::tls::{Tls, TlsError};

/// The most that an answer may hold.
const MOST: usize = 256 << 20;
/// How many connections are kept for later.
const KEPT: usize = 8;
/// After which pauses a server that does not answer is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];
/// How long an answer may take when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same of a server that has just not answered: whoever cleans up after that does not wait as long again.
const ONCE_MORE: Duration = Duration::from_secs(5);
/// How long that holds.
const JUST_NOW: Duration = Duration::from_secs(60);

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A socket on this machine.
    Unix(PathBuf),
    /// A server that is reached by TLS.
    Tls(Tls),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Unix(path) => write!(f, "{}", path.display()),
            Place::Tls(server) => write!(f, "https://{}", server.authority()),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HttpError {
    /// Nothing was sent.
    #[error("{place} can't be reached: {why}")]
    Unreachable {
        /// Where.
        place: String,
        /// What the system says.
        why: String,
    },
    /// Somebody else answers, and was told nothing.
    #[error("{place} is not trusted: {why}")]
    Untrusted {
        /// Where.
        place: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// It was sent, at least in part: whether it was done is unknown.
    #[error("the connection to {place} broke: {why}")]
    Broken {
        /// Where.
        place: String,
        /// What happened.
        why: String,
    },
    /// It took the request, and nothing came: whether it was done is unknown.
    #[error(
        "{place} takes requests and does not answer within {}: see whether its daemon hangs",
        crate::sandbox::format_duration(*after)
    )]
    Silent {
        /// Where.
        place: String,
        /// How long it was waited for.
        after: Duration,
    },
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A WebSocket to the server.
pub type Socket = WebSocketStream<Box<dyn Duplex>>;

/// A server, and the connections to it that are idle.
pub struct Http {
    place: Place,
    /// Others that the same can be asked of, where the first one is a member of a cluster.
    others: OnceLock<Vec<Place>>,
    /// Which one is spoken to: 0 is the first one.
    current: AtomicUsize,
    /// When that was changed last, and which one was left.
    left: Mutex<Option<(Instant, usize)>>,
    patience: Duration,
    /// When the last request was not answered in time.
    silent: Mutex<Option<Instant>>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Http {
    /// A server. Nothing is opened yet.
    pub fn new(place: Place) -> Http {
        Http {
            place,
            others: OnceLock::new(),
            current: AtomicUsize::new(0),
            left: Mutex::default(),
            patience: PATIENCE,
            silent: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// The same with another patience than a minute for each answer.
    pub fn patient(self, patience: Duration) -> Http {
        Http { patience, ..self }
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The same now.
    fn patience_now(&self) -> Duration {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.is_some_and(|at| at.elapsed() < JUST_NOW) {
            true => self.patience.min(ONCE_MORE),
            false => self.patience,
        }
    }

    /// Does something that the server has to answer in time.
    async fn timely<T>(
        &self,
        after: Duration,
        asked: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        let done = tokio::time::timeout(after, asked).await;
        let silent = done.is_err().then(Instant::now);
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = silent;
        done.unwrap_or_else(|_| Err(HttpError::Silent { place: self.place().to_string(), after }))
    }

    /// Where it is: the one that is spoken to.
    pub fn place(&self) -> &Place {
        self.at(self.current())
    }

    fn at(&self, number: usize) -> &Place {
        let other = number.checked_sub(1).and_then(|number| self.others.get()?.get(number));
        other.unwrap_or(&self.place)
    }

    /// Says where else the same can be asked: as soon as one can't be reached, the next one is. Said once.
    pub fn or_at(&self, others: Vec<Place>) {
        let _ = self.others.set(others);
    }

    /// Which one is spoken to: 0 is the first one, and the others follow as they were said.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Which one was left, not longer ago than this, because it could not be reached.
    pub fn left(&self, within: Duration) -> Option<usize> {
        let left = *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.and_then(|(at, number)| (at.elapsed() <= within).then_some(number))
    }

    /// A new connection to another one than this, which is spoken to from then on.
    async fn elsewhere(&self, gone: usize) -> Option<Box<dyn Duplex>> {
        let count = 1 + self.others.get().map_or(0, Vec::len);
        for step in 1..count {
            let number = (gone + step) % count;
            let Ok(stream) = connect_to(self.at(number)).await else { continue };
            let was = self.current.swap(number, Ordering::Relaxed);
            if was != number {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                *self.left.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), was));
            }
            return Some(stream);
        }
        None
    }

    fn unreachable(&self, why: impl fmt::Display) -> HttpError {
        unreachable(self.place(), why)
    }

    fn broken(&self, why: impl fmt::Display) -> HttpError {
        HttpError::Broken { place: self.place().to_string(), why: why.to_string() }
    }

    /// A new connection. Nothing was sent on it yet, so it may be tried more than once.
    async fn connect(&self) -> Result<Box<dyn Duplex>, HttpError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let current = self.current();
            match (connect_to(self.at(current)).await, pauses.next()) {
                (Ok(stream), _) => return Ok(stream),
                (Err((_, true)), Some(pause)) => tokio::time::sleep(pause).await,
                (Err((error @ HttpError::Unreachable { .. }, _)), _) => {
                    return self.elsewhere(current).await.ok_or(error);
                }
                (Err((error, _)), _) => return Err(error),
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let stream = self.connect().await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(e))?;
        tokio::spawn(async move {
            // Whoever waits for an answer on it is told.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < KEPT {
            idle.push(sender);
        }
    }

    fn host(&self) -> String {
        match self.place() {
            Place::Unix(_) => "sandscript".into(),
            Place::Tls(server) => server.authority(),
        }
    }

    /// Sends a request and reads the answer. What only reads is asked for again, a few times, when the
    /// answer does not come; anything else is sent once, but where a kept connection turns out to be
    /// closed before anything of it was sent.
    pub async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: &Bytes,
    ) -> Result<Answer, HttpError> {
        self.send_within(self.patience_now(), method, path, headers, body).await
    }

    /// The same, where it is said how long the answer may take.
    pub async fn send_within(
        &self,
        after: Duration,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: &Bytes,
    ) -> Result<Answer, HttpError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            match self.timely(after, self.send_once(method, path, headers, body)).await {
                Err(HttpError::Broken { .. }) if method == Method::GET && pauses.len() > 0 => {
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                }
                done => return done,
            }
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: &Bytes,
    ) -> Result<Answer, HttpError> {
        let host = self.host();
        let request = || {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, &host)
                .header(header::USER_AGENT, concat!("sandscript/", env!("CARGO_PKG_VERSION")));
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            request.body(Full::new(body.clone())).map_err(|error| self.unreachable(error))
        };
        loop {
            let kept = self.kept();
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.open().await?,
            };
            if let Err(error) = sender.ready().await {
                if fresh {
                    return Err(self.unreachable(error));
                }
                continue;
            }
            let answer = match sender.try_send_request(request()?).await {
                Ok(answer) => answer,
                Err(mut error) => {
                    // With the request handed back nothing of it was sent.
                    let unsent = error.take_message().is_some();
                    if !fresh && (unsent || method == Method::GET) {
                        continue;
                    }
                    return Err(self.broken(error.error()));
                }
            };
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|e| self.broken(e))?;
            self.keep(sender);
            return Ok(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: body.to_bytes(),
            });
        }
    }

    /// Opens a WebSocket.
    pub async fn socket(&self, path: &str) -> Result<Socket, HttpError> {
        self.timely(self.patience_now(), self.open_socket(path)).await
    }

    async fn open_socket(&self, path: &str) -> Result<Socket, HttpError> {
        let stream = self.connect().await?;
        let uri = format!("ws://{}{path}", self.host());
        match tokio_tungstenite::client_async(uri, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(error) => Err(self.broken(error)),
        }
    }
}

fn unreachable(place: &Place, why: impl fmt::Display) -> HttpError {
    HttpError::Unreachable { place: place.to_string(), why: why.to_string() }
}

/// A new connection, or why there is none and whether it may be tried again.
async fn connect_to(place: &Place) -> Result<Box<dyn Duplex>, (HttpError, bool)> {
    // What is being started again refuses for a moment; a socket that is not there stays away.
    let later = |error: &std::io::Error| error.kind() != std::io::ErrorKind::NotFound;
    match place {
        Place::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err((unreachable(place, &error), later(&error))),
        },
        Place::Tls(server) => match server.connect().await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(TlsError::Unreachable(error)) => {
                let again = error.kind() != std::io::ErrorKind::TimedOut;
                Err((unreachable(place, &error), again))
            }
            Err(TlsError::Untrusted(why)) => {
                Err((HttpError::Untrusted { place: place.to_string(), why }, false))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// A server that gives each connection's requests these answers, then closes it.
    fn server(answers: &'static [&'static str]) -> (tempfile::TempDir, Http, Arc<AtomicUsize>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => break,
                        }
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        (folder, Http::new(Place::Unix(path)), count)
    }

    async fn ask(http: &Http, method: Method) -> Result<Answer, HttpError> {
        http.send(&method, "/x", &[], &Bytes::new()).await
    }

    #[tokio::test]
    async fn connections_are_kept_and_replaced() {
        const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (_folder, http, count) = server(&[OK, OK]);
        for _ in 0..5 {
            let answer = ask(&http, Method::GET).await.unwrap();
            assert_eq!((answer.status, answer.body.as_ref()), (200, &b"ok"[..]));
        }
        assert!(count.load(Ordering::Relaxed) >= 5);
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_is_no_answer() {
        let (_folder, http, _) =
            server(&["HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{\"type\":"]);
        let error = ask(&http, Method::GET).await.unwrap_err();
        assert!(matches!(error, HttpError::Broken { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_was_sent_is_not_sent_again() {
        let (_folder, http, count) = server(&[""]);
        let error = ask(&http, Method::POST).await.unwrap_err();
        assert!(matches!(error, HttpError::Broken { .. }), "{error}");
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        // The kernel takes connections for it.
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let http = Http::new(Place::Unix(path)).patient(Duration::from_millis(50));
        let error = ask(&http, Method::GET).await.unwrap_err();
        assert!(matches!(error, HttpError::Silent { .. }), "{error}");
        assert!(error.to_string().contains("does not answer within 50ms"), "{error}");
        assert!(matches!(http.socket("/x").await, Err(HttpError::Silent { .. })));
    }

    #[tokio::test]
    async fn who_is_gone_is_left_for_the_next_one() {
        const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (folder, http, count) = server(&[OK]);
        let gone = Place::Unix("/no/such/socket".into());
        let one = Http::new(gone.clone());
        one.or_at(vec![gone, http.place().clone()]);
        assert_eq!((one.current(), one.left(JUST_NOW)), (0, None));
        assert_eq!(ask(&one, Method::POST).await.unwrap().status, 200);
        assert_eq!((one.current(), one.left(JUST_NOW)), (2, Some(0)));
        assert_eq!(one.left(Duration::ZERO), None);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        // With nobody left it is told who was spoken to last.
        drop(folder);
        one.idle.lock().unwrap().clear();
        let error = ask(&one, Method::POST).await.unwrap_err();
        assert!(
            matches!(&error, HttpError::Unreachable { place, .. } if *place == http.place().to_string())
        );
    }

    #[tokio::test]
    async fn nobody_is_there() {
        let http = Http::new(Place::Unix("/no/such/socket".into()));
        let error = ask(&http, Method::POST).await.unwrap_err();
        insta::assert_snapshot!(error, @"/no/such/socket can't be reached: No such file or directory (os error 2)");
    }
}
