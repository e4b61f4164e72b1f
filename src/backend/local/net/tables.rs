//! Rules of nf_tables, written in one netlink batch.

use std::io;

use rustix::net::netlink;

use super::netlink::{Batch, CREATE, Socket};

const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
pub(super) const NEW_TABLE: u16 = 0;
pub(super) const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Both IPv4 and IPv6.
const INET: [u8; 4] = [1, 0, 0, 0];
pub(super) const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;
pub(super) const EQUAL: u32 = 0;
pub(super) const DIFFERS: u32 = 1;

pub(super) fn begin() -> Batch {
    let mut batch = Batch::new();
    batch.message(BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8], |_| {});
    batch
}

pub(super) fn end(mut batch: Batch) -> io::Result<()> {
    batch.message(END, 0, &[0, 0, 0, SUBSYSTEM as u8], |_| {});
    Socket::open(Some(netlink::NETFILTER))?.call(&batch, 1)
}

pub(super) fn message(batch: &mut Batch, kind: u16, flags: u16, fill: impl FnOnce(&mut Batch)) {
    batch.message(SUBSYSTEM << 8 | kind, flags, &INET, fill);
}

pub(super) fn new_chain(
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

pub(super) fn rule(
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

pub(super) fn expression(list: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    list.nest(1, |item| {
        item.text(1, name);
        item.nest(2, fill);
    });
}

pub(super) fn meta(list: &mut Batch, key: u32) {
    expression(list, "meta", |set| {
        set.put(2, &key.to_be_bytes());
        set.put(1, &1u32.to_be_bytes());
    });
}

pub(super) fn compare(list: &mut Batch, how: u32, value: &[u8]) {
    expression(list, "cmp", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &how.to_be_bytes());
        set.nest(3, |data| data.put(1, value));
    });
}

pub(super) fn verdict(list: &mut Batch, code: u32) {
    expression(list, "immediate", |set| {
        set.put(1, &0u32.to_be_bytes());
        set.nest(2, |data| data.nest(2, |verdict| verdict.put(1, &code.to_be_bytes())));
    });
}
