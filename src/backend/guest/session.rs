//! A program in the guest that works on its files: started once, asked many times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, DuplexStream};

use super::attached::{Attached, fields, frame, read_frame, write};
use super::{Fail, Guests};
use crate::sandbox::{Error, Kind, Result};

/// What runs in the guest.
pub(in crate::backend) const SCRIPT: &str = include_str!("files.pl");
/// How many sessions of one sandbox are kept for later.
const KEPT: usize = 2;

/// A session.
pub(in crate::backend) struct Session {
    attached: Attached,
}

/// Sessions that nobody uses at the moment, by sandbox.
#[derive(Default)]
pub(in crate::backend) struct Sessions(Mutex<HashMap<String, Vec<Session>>>);

impl Sessions {
    fn take(&self, name: &str) -> Option<Session> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get_mut(name)?;
        std::iter::from_fn(|| kept.pop()).find(|session| session.attached.end.borrow().is_none())
    }

    /// Whether one is kept, whose guest was there when it was last used.
    #[cfg(feature = "incus")]
    pub fn has(&self, name: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name)
            .is_some_and(|kept| kept.iter().any(|session| session.attached.end.borrow().is_none()))
    }

    /// Keeps a session whose last answer was read to its end.
    pub fn keep(&self, name: &str, session: Session) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(name.to_owned()).or_default();
        if kept.len() < KEPT {
            kept.push(session);
        }
    }

    /// Ends those of a sandbox, whose processes go or are gone.
    pub fn end(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// What a request came to in the guest.
pub(in crate::backend) enum Said {
    /// It was done: the fields of the answer.
    Done(Vec<Vec<u8>>),
    /// It was refused: the error's number, and what it is about.
    Wrong(i32, String),
}

impl Session {
    /// Over a program that was started already.
    #[cfg_attr(not(feature = "truenas"), allow(dead_code))]
    pub async fn over(attached: Attached) -> std::io::Result<Session> {
        let mut session = Session { attached };
        session.answer().await?;
        Ok(session)
    }

    /// Its standard input, for what follows a request.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.attached.stdin.as_mut() {
            Some(stdin) => write(stdin, bytes).await,
            None => Err(std::io::Error::other("the session is over")),
        }
    }

    /// Its standard output, for what follows an answer.
    pub fn output(&mut self) -> &mut DuplexStream {
        &mut self.attached.stdout
    }

    /// Reads an answer.
    pub async fn answer(&mut self) -> std::io::Result<Said> {
        let mut all = fields(&read_frame(&mut self.attached.stdout).await?).into_iter();
        match all.next().as_deref() {
            Some(b"k") => Ok(Said::Done(all.collect())),
            _ => {
                let mut text =
                    || String::from_utf8_lossy(&all.next().unwrap_or_default()).into_owned();
                Ok(Said::Wrong(text().parse().unwrap_or_default(), text()))
            }
        }
    }
}

/// Requests to guests.
pub(in crate::backend) trait Ask: Guests {
    /// A session that is ready for a request; a kept one if there is one.
    async fn session(&self, name: &str, fresh: bool) -> Result<Session> {
        if let Some(session) = self.sessions().take(name).filter(|_| !fresh) {
            return Ok(session);
        }
        let opened = self.attach(name, SCRIPT, None, false).await;
        let attached = match opened {
            Ok(attached) => attached,
            Err(fail) => return Err(self.explain(name, fail, "working on files").await),
        };
        let mut session = Session { attached };
        match session.answer().await {
            Ok(_) => Ok(session),
            Err(_) => {
                let mut end = session.attached.end;
                let code = end.wait_for(Option::is_some).await.map(|end| end.clone());
                match code {
                    Ok(Some(Err(Fail::Failed(_, Some(126 | 127))))) => {
                        Err(super::exec::no_perl(self.backend()))
                    }
                    _ => Err(self.explain(name, lost(), "working on files").await),
                }
            }
        }
    }

    /// Asks a guest for something; the session is where the rest of it comes from or goes to.
    async fn ask(&self, name: &str, request: &[&str]) -> Result<(Session, Vec<Vec<u8>>)> {
        let path = request.get(1).copied().unwrap_or_default();
        let request_frame = frame(request);
        let mut fresh = false;
        loop {
            let turn = self.turns().of(name);
            let _turn = turn.read().await;
            let mut session = self.session(name, fresh).await?;
            let answer = match session.send(&request_frame).await {
                Ok(()) => session.answer().await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Said::Done(fields)) => return Ok((session, fields)),
                Ok(Said::Wrong(number, about)) => {
                    self.sessions().keep(name, session);
                    return Err(wrong(number, &about, path, request.get(3).copied()));
                }
                // A kept session's guest may have been restarted. What only looks is asked again.
                Err(_) if !fresh && matches!(request[0], "stat" | "list" | "read") => fresh = true,
                Err(_) => return Err(self.explain(name, lost(), "working on files").await),
            }
        }
    }

    /// Asks in this session.
    async fn ask_in(&self, name: &str, mut session: Session, request: &[&str]) -> Result<Session> {
        let answer = match session.send(&frame(request)).await {
            Ok(()) => session.answer().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(Said::Done(_)) => Ok(session),
            Ok(Said::Wrong(number, about)) => Err(wrong(number, &about, name, None)),
            Err(_) => Err(self.explain(name, lost(), "working").await),
        }
    }

    /// Asks for something that has an answer and nothing else.
    async fn ask_once(&self, name: &str, request: &[&str]) -> Result<Vec<Vec<u8>>> {
        let (session, fields) = self.ask(name, request).await?;
        self.sessions().keep(name, session);
        Ok(fields)
    }
}

impl<G: Guests> Ask for G {}

pub(super) fn lost() -> Fail {
    Fail::Lost("the guest does not answer".into())
}

/// What an error's number means for a path.
pub(super) fn wrong(number: i32, about: &str, path: &str, owner: Option<&str>) -> Error {
    let invalid = |why: &str| Error::invalid("path", format!("'{path}' {why}"));
    match (number, about) {
        (_, "user") => Error::not_found(Kind::User, owner.unwrap_or(path)),
        (2, _) => Error::not_found(Kind::File, path),
        (1 | 13 | 30, _) => Error::Permission { what: path.to_owned() },
        (20, _) => invalid("is below something that is no directory"),
        (21, _) => invalid("is a directory"),
        (17, _) => invalid("exists already"),
        (39, _) => invalid("is not empty: it is deleted with `recursive`"),
        (40, _) => invalid("is a link that leads to itself"),
        (36, _) => invalid("is too long"),
        (6 | 22, _) => invalid("is no plain file"),
        (16, _) => invalid("is in use"),
        (28 | 122, _) => Error::Exhausted {
            what: format!("no space left in the sandbox for {path}"),
            hint: "delete something in it, or give it more with `disk`".into(),
        },
        (number, _) => {
            Error::internal(format!("{path}: {}", std::io::Error::from_raw_os_error(number)))
        }
    }
}

/// Reads a chunk of a stream: its bytes, nothing at the end, or an error's number.
pub(super) async fn chunk(
    from: &mut DuplexStream,
) -> std::io::Result<std::result::Result<Vec<u8>, i32>> {
    let length = from.read_u32().await?;
    if length == u32::MAX {
        return Ok(Err(from.read_u32().await? as i32));
    }
    let mut bytes = vec![0; (length as usize).min(64 << 20)];
    from.read_exact(&mut bytes).await?;
    Ok(Ok(bytes))
}
