//! Rules of nf_tables, written in one netlink batch: its messages and expressions, by the kernel's numbers.
//! Expressions work in register 1 where none is named.

use super::batch::{Batch, CREATE};

const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
pub(crate) const NEW_TABLE: u16 = 0;
pub(crate) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Both IPv4 and IPv6.
const INET: [u8; 4] = [1, 0, 0, 0];
pub(crate) const DROP: u32 = 0;
pub(crate) const ACCEPT: u32 = 1;
pub(crate) const EQUAL: u32 = 0;
pub(crate) const DIFFERS: u32 = 1;

pub(crate) fn begin() -> Batch {
    let mut batch = Batch::new();
    batch.message(BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8], |_| {});
    batch
}

pub(crate) fn end(mut batch: Batch) -> Batch {
    batch.message(END, 0, &[0, 0, 0, SUBSYSTEM as u8], |_| {});
    batch
}

pub(crate) fn message(batch: &mut Batch, kind: u16, flags: u16, fill: impl FnOnce(&mut Batch)) {
    batch.message(SUBSYSTEM << 8 | kind, flags, &INET, fill);
}

pub(crate) fn new_chain(
    batch: &mut Batch,
    table: &str,
    chain: &str,
    kind: &str,
    hook: u32,
    priority: i32,
) {
    message(batch, NEW_CHAIN, CREATE, |set| {
        set.text(1, table);
        set.text(3, chain);
        set.nest(4, |place| {
            place.put(1, &hook.to_be_bytes());
            place.put(2, &priority.to_be_bytes());
        });
        set.text(7, kind);
    });
}

pub(crate) fn rule(
    batch: &mut Batch,
    table: &str,
    chain: &str,
    flags: u16,
    fill: impl FnOnce(&mut Batch),
) {
    // Appended: rules are tried in the order they are made.
    message(batch, NEW_RULE, CREATE | 0x800 | flags, |set| {
        set.text(1, table);
        set.text(2, chain);
        set.nest(4, fill);
    });
}

pub(crate) fn expression(list: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    list.nest(1, |item| {
        item.text(1, name);
        item.nest(2, fill);
    });
}

pub(crate) fn meta(list: &mut Batch, key: u32) {
    expression(list, "meta", |set| {
        set.put(2, &key.to_be_bytes());
        set.put(1, &1u32.to_be_bytes());
    });
}

pub(crate) fn compare(list: &mut Batch, how: u32, value: &[u8]) {
    expression(list, "cmp", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &how.to_be_bytes());
        set.nest(3, |data| data.put(1, value));
    });
}

pub(crate) fn verdict(list: &mut Batch, code: u32) {
    expression(list, "immediate", |set| {
        set.put(1, &0u32.to_be_bytes());
        set.nest(2, |data| data.nest(2, |verdict| verdict.put(1, &code.to_be_bytes())));
    });
}

pub(crate) fn ct(list: &mut Batch, key: u32) {
    expression(list, "ct", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &key.to_be_bytes());
    });
}

pub(crate) fn payload(list: &mut Batch, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &base.to_be_bytes());
        set.put(3, &offset.to_be_bytes());
        set.put(4, &length.to_be_bytes());
    });
}

pub(crate) fn mask(list: &mut Batch, bits: &[u8]) {
    expression(list, "bitwise", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &1u32.to_be_bytes());
        set.put(3, &(bits.len() as u32).to_be_bytes());
        set.nest(4, |data| data.put(1, bits));
        set.nest(5, |data| data.put(1, &vec![0; bits.len()]));
    });
}

pub(crate) fn load(list: &mut Batch, register: u32, value: &[u8]) {
    expression(list, "immediate", |set| {
        set.put(1, &register.to_be_bytes());
        set.nest(2, |data| data.put(1, value));
    });
}

pub(crate) fn redirect(list: &mut Batch, port: u16) {
    load(list, 1, &port.to_be_bytes());
    expression(list, "redir", |set| set.put(1, &1u32.to_be_bytes()));
}
