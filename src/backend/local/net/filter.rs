//! One nf_tables table a sandbox, written in one netlink batch.

use std::io;
use std::net::Ipv4Addr;

use rustix::net::netlink;

use super::netlink::{ACK, Batch, CREATE, EXCL, Socket};

const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
pub(super) const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Both IPv4 and IPv6.
const INET: [u8; 4] = [1, 0, 0, 0];
const IPV4: u8 = 2;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
const IN_NAME: u32 = 6;
const OUT_NAME: u32 = 7;
const PROTOCOL: u32 = 15;
pub(super) const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;
pub(super) const EQUAL: u32 = 0;
pub(super) const DIFFERS: u32 = 1;

/// Address translation for the guest behind interface `link`, and a drop of what it sends under
/// another address. An older table of that name is replaced.
pub(super) fn install(table: &str, link: &str, guest: Ipv4Addr) -> io::Result<()> {
    match create(table, link, guest) {
        // Only then, since a deletion waits for all processors.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(table)?;
            create(table, link, guest)
        }
        other => other,
    }
}

fn create(table: &str, link: &str, guest: Ipv4Addr) -> io::Result<()> {
    let mut batch = begin();
    message(&mut batch, NEW_TABLE, CREATE | EXCL, |set| set.text(1, table));
    for (chain, hook) in [("input", HOOK_INPUT), ("forward", HOOK_FORWARD)] {
        new_chain(&mut batch, table, chain, "filter", hook, -10);
        rule(&mut batch, table, chain, 0, |list| {
            name(list, IN_NAME, EQUAL, link);
            protocol(list, DIFFERS);
            verdict(list, DROP);
        });
        rule(&mut batch, table, chain, 0, |list| {
            name(list, IN_NAME, EQUAL, link);
            protocol(list, EQUAL);
            source(list, DIFFERS, guest);
            verdict(list, DROP);
        });
    }
    new_chain(&mut batch, table, "out", "nat", HOOK_POSTROUTING, 100);
    rule(&mut batch, table, "out", ACK, |list| {
        protocol(list, EQUAL);
        source(list, EQUAL, guest);
        name(list, OUT_NAME, DIFFERS, link);
        expression(list, "masq", |_| {});
    });
    end(batch)
}

/// Deletes a table; one that is not there is fine.
pub(super) fn remove(table: &str) -> io::Result<()> {
    let mut batch = begin();
    // Made first, so that the deletion finds it in any case.
    message(&mut batch, NEW_TABLE, CREATE, |set| set.text(1, table));
    message(&mut batch, DELETE_TABLE, ACK, |set| set.text(1, table));
    end(batch)
}

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

fn name(list: &mut Batch, key: u32, how: u32, link: &str) {
    let mut value = [0; 16];
    let length = link.len().min(15);
    value[..length].copy_from_slice(&link.as_bytes()[..length]);
    meta(list, key);
    compare(list, how, &value);
}

fn protocol(list: &mut Batch, how: u32) {
    meta(list, PROTOCOL);
    compare(list, how, &[IPV4]);
}

fn source(list: &mut Batch, how: u32, address: Ipv4Addr) {
    expression(list, "payload", |set| {
        set.put(1, &1u32.to_be_bytes());
        set.put(2, &1u32.to_be_bytes());
        set.put(3, &12u32.to_be_bytes());
        set.put(4, &4u32.to_be_bytes());
    });
    compare(list, how, &address.octets());
}

pub(super) fn verdict(list: &mut Batch, code: u32) {
    expression(list, "immediate", |set| {
        set.put(1, &0u32.to_be_bytes());
        set.nest(2, |data| data.nest(2, |verdict| verdict.put(1, &code.to_be_bytes())));
    });
}
