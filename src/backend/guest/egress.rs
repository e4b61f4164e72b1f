//! Egress rules that the guest itself keeps to, for servers that we are only guests on.
//!
//! A guard in the guest, written in Perl, holds the policy of that very machine: whoever makes a copy of
//! the machine has one that is closed until it is given a policy of its own.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::attached::{Attached, fields, frame, read_frame, write};
use super::exec::no_perl;
use super::session::{lost, wrong};
use super::{Fail, Ground, Guests, Record, rules};
use crate::sandbox::{Denied, EgressLog, Error, Policy, Protocol, Reason, Result};

const SCRIPT: &str = include_str!("enforce.pl");

/// How long the guest may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a guest is asked whose line breaks.
const TRIES: usize = 4;

/// The guard, and what tells it from another version.
static GUARD: LazyLock<(String, String)> = LazyLock::new(|| {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = include_str!("guard.pl")
        .replace("@CLOSED@", &hex(&rules::closed()))
        .replace("@PORT@", &rules::PORT.to_string())
        .replace("@MARK@", &rules::MARK.to_string());
    let version = blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
    (text.replace("@VERSION@", &version), version)
});

/// Who starts the guard when the guest boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) enum Boot {
    /// The first process, which the server was told.
    First,
    /// The guest's own init.
    Init,
}

/// Guests that keep to rules themselves.
#[async_trait]
pub(in crate::backend) trait Enforce: Guests {
    /// Puts the policy of a record in force in a running guest, now and for each boot. With `known`, only
    /// where a guard is there already; whether it is.
    async fn put_in_force(
        &self,
        name: &str,
        record: &Record,
        ground: &Ground,
        boot: Boot,
        known: bool,
    ) -> Result<bool> {
        if let Some(why) = ground.unknown.as_ref().filter(|_| rules::opens_private(&record.egress))
        {
            return Err(Error::unsupported(
                "a rule for a private network",
                self.backend(),
                format!(
                    "the server's own addresses in it have to stay closed, and {why}; name the addresses one by one, or let them be told"
                ),
            ));
        }
        let text = rules::text(&record.egress, name, &record.hostname, ground);
        let (guard, version) = &*GUARD;
        let boot = if boot == Boot::First { "init" } else { "auto" };
        let known = if known { "1" } else { "" };
        let request = ["set", guard, version, &text, boot, known];
        let said = self.say(name, &request).await?;
        let said = String::from_utf8_lossy(said.first().map_or(&[], Vec::as_slice)).into_owned();
        let token = text.lines().find_map(|line| line.strip_prefix("token ")).unwrap_or_default();
        match said.as_str() {
            "none" => Ok(false),
            "no init" => Err(self.unable("its init is neither systemd nor OpenRC, and the server does not let the first process be chosen (raw.lxc)")),
            said if said == format!("ok {token}") => Ok(true),
            said => Err(self.unable(&format!("its guard says: {said}"))),
        }
    }

    /// Why rules can't be kept to in a guest.
    fn unable(&self, why: &str) -> Error {
        Error::unsupported(
            "egress rules in this guest",
            self.backend(),
            format!("{why}; use \"none\" or \"unrestricted\""),
        )
    }

    /// Wakes the network of a guest that was given a card while it ran.
    async fn wake(&self, name: &str) -> Result<()> {
        self.say(name, &["wake", "20"]).await.map(drop)
    }

    /// What a running guest has counted.
    async fn counted(&self, name: &str) -> Result<EgressLog> {
        let said = self.say(name, &["log"]).await?;
        Ok(read_log(&String::from_utf8_lossy(said.first().map_or(&[], Vec::as_slice))))
    }

    /// Asks for something. All of it can be asked for again, and is where the line broke.
    async fn say(&self, name: &str, request: &[&str]) -> Result<Vec<Vec<u8>>> {
        for _ in 1..TRIES {
            match self.say_once(name, request).await {
                Err(Error::Transport { .. }) => {}
                said => return said,
            }
        }
        self.say_once(name, request).await
    }

    async fn say_once(&self, name: &str, request: &[&str]) -> Result<Vec<Vec<u8>>> {
        let doing = "setting its egress rules";
        let mut attached = match self.attach(name, SCRIPT, None, false).await {
            Ok(attached) => attached,
            Err(fail) => return Err(self.explain(name, fail, doing).await),
        };
        match tokio::time::timeout(PATIENCE, exchange(&mut attached, request)).await {
            Err(_) => Err(Error::Timeout { what: format!("sandbox '{name}'"), after: PATIENCE }),
            Ok(Ok(body)) => {
                let mut all = fields(&body);
                let word = if all.is_empty() { Vec::new() } else { all.remove(0) };
                let text = |at: usize| {
                    String::from_utf8_lossy(all.get(at).map_or(&[], Vec::as_slice)).into_owned()
                };
                match word.as_slice() {
                    b"k" => Ok(all),
                    _ => Err(wrong(text(0).parse().unwrap_or_default(), "", &text(1), None)),
                }
            }
            Ok(Err(_)) => {
                let mut end = attached.end;
                let code = end.wait_for(Option::is_some).await.map(|end| end.clone());
                match code {
                    Ok(Some(Err(Fail::Failed(_, Some(126 | 127))))) => Err(no_perl(self.backend())),
                    _ => Err(self.explain(name, lost(), doing).await),
                }
            }
        }
    }
}

impl<G: Guests> Enforce for G {}

async fn exchange(attached: &mut Attached, request: &[&str]) -> std::io::Result<Vec<u8>> {
    match attached.stdin.as_mut() {
        Some(stdin) => write(stdin, &frame(request)).await?,
        None => return Err(std::io::Error::other("it has no input")),
    }
    read_frame(&mut attached.stdout).await
}

/// The log as the guard writes it.
pub(in crate::backend) fn read_log(text: &str) -> EgressLog {
    let mut log = EgressLog::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["M", more] => log.more = more.parse().unwrap_or_default(),
            ["D", count, first, last, protocol, port, address, name, reason] => {
                let time = |text: &str| {
                    let seconds = Duration::from_secs(text.parse().unwrap_or_default());
                    SystemTime::UNIX_EPOCH.checked_add(seconds).unwrap_or(SystemTime::UNIX_EPOCH)
                };
                log.denied.push(Denied {
                    first: time(first),
                    last: time(last),
                    count: count.parse().unwrap_or_default(),
                    name: (name != "-").then(|| name.to_owned()),
                    address: address.parse::<IpAddr>().ok(),
                    port: port.parse().unwrap_or_default(),
                    protocol: if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp },
                    process: None,
                    reason: match reason {
                        "private" => Reason::Private,
                        _ => Reason::NotAllowed,
                    },
                });
            }
            _ => {}
        }
    }
    log
}

/// Whether the guest itself has to keep to a policy.
pub(in crate::backend) fn is_ruled(record: &Record) -> bool {
    !record.gate && matches!(record.egress, Policy::Rules(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let text = "M 3\nD 2 10 20 tcp 443 203.0.113.1 - not-allowed\nD 1 11 11 udp 53 - a.test not-allowed\n\
            D 1 1 1 tcp 0 10.0.0.1 b.test private\nnonsense\nend";
        let log = read_log(text);
        let rules: Vec<String> =
            log.denied.iter().map(|one| format!("{one}: {}", one.rule().unwrap())).collect();
        assert_eq!(
            rules,
            [
                "203.0.113.1:443 (2 times): 203.0.113.1:443",
                "a.test: a.test",
                "b.test: b.test@10.0.0.1"
            ]
        );
        assert_eq!((log.more, log.refused()), (3, 7));
    }
}
