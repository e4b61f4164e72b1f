//! Which names a guest has been given an address for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// A guest that asks for more has the oldest forgotten: it can ask again.
const MOST: usize = 8192;

/// By address.
#[derive(Default)]
pub struct Names {
    by_address: HashMap<IpAddr, Vec<(String, Instant)>>,
    count: usize,
}

impl Names {
    /// Remembers that the guest was told this; until `end` it may use it.
    pub fn tell(&mut self, name: &str, addresses: &[IpAddr], end: Instant) {
        if self.count + addresses.len() > MOST {
            self.forget();
        }
        for address in addresses {
            let names = self.by_address.entry(*address).or_default();
            match names.iter_mut().find(|(known, _)| known == name) {
                Some((_, until)) => *until = (*until).max(end),
                None => {
                    names.push((name.to_owned(), end));
                    self.count += 1;
                }
            }
        }
    }

    /// The names behind an address, and until when each is sure; the latest first.
    pub fn of(&self, address: IpAddr) -> Vec<(String, Instant)> {
        let mut names = self.by_address.get(&address).cloned().unwrap_or_default();
        names.sort_by_key(|(_, end)| std::cmp::Reverse(*end));
        names
    }

    fn forget(&mut self) {
        let now = Instant::now();
        for names in self.by_address.values_mut() {
            names.retain(|(_, end)| *end > now);
        }
        self.by_address.retain(|_, names| !names.is_empty());
        self.count = self.by_address.values().map(Vec::len).sum();
        // None of them has run out: somebody fills it on purpose.
        if self.count > MOST / 2 {
            self.by_address.clear();
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_guest_that_fills_it_forgets() {
        let mut names = Names::default();
        let end = Instant::now() + Duration::from_secs(60);
        let address = |number: u32| IpAddr::V4((0x0100_0000 + number).into());
        names.tell("a.test", &[address(1)], end);
        names.tell("b.test", &[address(1)], end + Duration::from_secs(1));
        let known: Vec<String> = names.of(address(1)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(known, ["b.test", "a.test"]);
        for number in 0..50_000 {
            names.tell(&format!("{number}.test"), &[address(number)], end);
            assert!(names.count <= MOST && names.by_address.len() <= MOST);
        }
        assert_eq!(names.of(address(49_999))[0].0, "49999.test");
    }
}
