//! The fifty traps: behaviour of the real server that clients get wrong. Each can be switched off,
//! so that a test can show that it notices.

/// Which traps are set.
#[derive(Debug, Clone, Copy)]
pub struct Traps(u64);

/// How many traps there are.
pub const COUNT: u8 = 50;

impl Default for Traps {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl Traps {
    /// All traps but these.
    pub fn without(numbers: &[u8]) -> Self {
        Self(numbers.iter().fold(u64::MAX, |set, n| set & !(1 << n)))
    }

    /// Whether trap `number` is set.
    pub fn on(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }
}
