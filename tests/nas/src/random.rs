//! Random names and secrets.

/// `count` random bytes.
pub fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut filled = 0;
    while filled < count {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .unwrap_or(0);
    }
    bytes
}

/// A random number below `limit`.
pub fn below(limit: u64) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes(8));
    u64::from_le_bytes(number) % limit.max(1)
}

/// `count` letters and digits.
pub fn text(count: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    bytes(count).iter().map(|b| LETTERS[*b as usize % LETTERS.len()] as char).collect()
}

/// A random UUID of version 4.
pub fn uuid() -> String {
    let mut b = bytes(16);
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
