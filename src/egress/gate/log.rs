//! What was refused and what was carried, counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::sandbox::{Carried, Denied, EgressLog, Protocol, Reason};

/// As many different ones are told apart.
const MOST: usize = 1000;

/// So often the program of one is looked for.
const TRIES: u64 = 4;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    name: Option<String>,
    address: Option<IpAddr>,
    port: u16,
    protocol: Protocol,
    reason: Reason,
}

/// The log of one sandbox.
pub struct Log {
    log: EgressLog,
    denied: HashMap<Key, usize>,
    carried: HashMap<String, usize>,
    changed: bool,
}

impl Log {
    /// Goes on with an earlier one.
    pub fn of(log: EgressLog) -> Log {
        let key = |one: &Denied| Key {
            name: one.name.clone(),
            address: one.address,
            port: one.port,
            protocol: one.protocol,
            reason: one.reason,
        };
        let denied = log.denied.iter().enumerate().map(|(at, one)| (key(one), at)).collect();
        let carried = log.carried.iter().enumerate().map(|(at, one)| (one.host.clone(), at));
        Log { denied, carried: carried.collect(), log, changed: false }
    }

    /// Notes a refusal. Gives its place, for [`Log::by`], if its program is to be looked for.
    pub fn deny(
        &mut self,
        name: Option<&str>,
        address: Option<IpAddr>,
        (port, protocol): (u16, Protocol),
        reason: Reason,
    ) -> Option<usize> {
        self.changed = true;
        let now = SystemTime::now();
        let name = name.map(str::to_owned);
        let key = Key { name: name.clone(), address, port, protocol, reason };
        if let Some(one) = self.denied.get(&key).and_then(|at| self.log.denied.get_mut(*at)) {
            one.count += 1;
            one.last = now;
            let sought = one.process.is_none() && one.count <= TRIES;
            return if sought { self.denied.get(&key).copied() } else { None };
        }
        if self.log.denied.len() >= MOST {
            self.log.more += 1;
            return None;
        }
        let at = self.log.denied.len();
        self.denied.insert(key, at);
        let (first, last, count, process) = (now, now, 1, None);
        self.log.denied.push(Denied {
            first,
            last,
            count,
            name,
            address,
            port,
            protocol,
            process,
            reason,
        });
        Some(at)
    }

    /// Notes by which program it was.
    pub fn by(&mut self, at: usize, program: String) {
        if let Some(one) = self.log.denied.get_mut(at) {
            one.process = Some(program);
            self.changed = true;
        }
    }

    /// Notes a connection.
    pub fn connect(&mut self, host: &str) {
        self.carry(host, |one| one.connections += 1);
    }

    /// Notes bytes from the guest and to it.
    pub fn bytes(&mut self, host: &str, sent: u64, received: u64) {
        self.carry(host, |one| {
            one.sent += sent;
            one.received += received;
        });
    }

    fn carry(&mut self, host: &str, change: impl FnOnce(&mut Carried)) {
        self.changed = true;
        let full = self.carried.len() >= MOST && !self.carried.contains_key(host);
        let host = if full { "others" } else { host };
        let next = self.log.carried.len();
        let at = *self.carried.entry(host.to_owned()).or_insert(next);
        if at == next {
            self.log.carried.push(Carried { host: host.to_owned(), ..Carried::default() });
        }
        if let Some(one) = self.log.carried.get_mut(at) {
            change(one);
        }
    }

    /// All of it.
    pub fn all(&self) -> EgressLog {
        self.log.clone()
    }

    /// All of it, if something has come since the last call.
    pub fn news(&mut self) -> Option<EgressLog> {
        std::mem::take(&mut self.changed).then(|| self.log.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_counted_and_the_rest_is_bounded() {
        let mut log = Log::of(EgressLog::default());
        let what = (443, Protocol::Tcp);
        for _ in 0..3 {
            assert_eq!(log.deny(Some("a.test"), None, what, Reason::NotAllowed), Some(0));
        }
        log.by(0, "curl".into());
        assert_eq!(log.deny(Some("a.test"), None, what, Reason::NotAllowed), None);
        log.connect("b.test");
        log.bytes("b.test", 1, 2);
        let before = log.news().unwrap();
        assert_eq!((before.denied.len(), before.denied[0].count, before.refused()), (1, 4, 4));
        assert!(log.news().is_none());
        let mut log = Log::of(before);
        log.deny(Some("a.test"), None, what, Reason::NotAllowed);
        log.bytes("b.test", 1, 2);
        for number in 0..2000 {
            log.deny(Some(&format!("{number}.test")), None, what, Reason::NotAllowed);
            log.connect(&format!("{number}.test"));
        }
        let all = log.all();
        assert_eq!((all.denied.len(), all.denied[0].count, all.more), (MOST, 5, 1001));
        assert_eq!((all.carried[0].sent, all.carried[0].received), (2, 4));
        assert_eq!(all.carried.len(), MOST + 1);
        assert_eq!(all.carried[MOST].connections, 1001);
    }
}
