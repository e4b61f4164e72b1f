//! Sets of addresses, what looks into them, and where a packet goes then.

use super::batch::{Batch, CREATE};
use super::rule::{NEW_CHAIN, expression, message};

const NEW_SET: u16 = 9;
/// Elements that go by themselves.
pub(crate) const TIMEOUT: u32 = 0x10;
/// Elements that packets put there.
pub(crate) const EVALUATED: u32 = 0x20;
/// To another chain and back, and there for good.
pub(crate) const JUMP: i32 = -3;
/// There for good.
pub(crate) const GOTO: i32 = -4;
pub(crate) const AT_MOST: u32 = 3;
pub(crate) const AT_LEAST: u32 = 5;

/// A set whose keys have this many bytes. `id` tells it from the batch's others.
pub(crate) fn new_set(batch: &mut Batch, table: &str, name: &str, id: u32, key: u32, of: Kind) {
    message(batch, NEW_SET, CREATE, |set| {
        set.text(1, table);
        set.text(2, name);
        set.put(3, &of.flags.to_be_bytes());
        // Only programs that show it look at the type.
        set.put(4, &0u32.to_be_bytes());
        set.put(5, &key.to_be_bytes());
        set.nest(9, |about| about.put(1, &of.most.to_be_bytes()));
        set.put(10, &id.to_be_bytes());
    });
}

/// What kind of set.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// [`TIMEOUT`] or [`EVALUATED`].
    pub flags: u32,
    /// How many elements it has at most.
    pub most: u32,
}

/// A chain that only others lead to.
pub(crate) fn side_chain(batch: &mut Batch, table: &str, chain: &str) {
    message(batch, NEW_CHAIN, CREATE, |set| {
        set.text(1, table);
        set.text(3, chain);
    });
}

/// Goes on only where register 1 is in the set.
pub(crate) fn lookup(list: &mut Batch, set: &str, id: u32) {
    expression(list, "lookup", |about| {
        about.text(1, set);
        about.put(2, &1u32.to_be_bytes());
        about.put(4, &id.to_be_bytes());
    });
}

/// Counts in the set what is in the registers from `register` on.
pub(crate) fn count_in(list: &mut Batch, set: &str, id: u32, register: u32) {
    expression(list, "dynset", |about| {
        about.text(1, set);
        about.put(2, &id.to_be_bytes());
        about.put(3, &0u32.to_be_bytes());
        about.put(4, &register.to_be_bytes());
        about.nest(7, |counter| {
            counter.text(1, "counter");
            counter.nest(2, |_| {});
        });
    });
}

/// Leads to a chain, by [`JUMP`] or [`GOTO`].
pub(crate) fn lead(list: &mut Batch, how: i32, chain: &str) {
    expression(list, "immediate", |set| {
        set.put(1, &0u32.to_be_bytes());
        set.nest(2, |data| {
            data.nest(2, |verdict| {
                verdict.put(1, &how.to_be_bytes());
                verdict.text(2, chain);
            });
        });
    });
}

/// Marks the packet's connection with what is in register 1.
pub(crate) fn mark_connection(list: &mut Batch) {
    expression(list, "ct", |set| {
        set.put(2, &3u32.to_be_bytes());
        set.put(4, &1u32.to_be_bytes());
    });
}

/// Part of a packet, into a register.
pub(crate) fn payload_into(list: &mut Batch, to: u32, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |set| {
        set.put(1, &to.to_be_bytes());
        set.put(2, &base.to_be_bytes());
        set.put(3, &offset.to_be_bytes());
        set.put(4, &length.to_be_bytes());
    });
}

/// Something of a packet, into a register.
pub(crate) fn meta_into(list: &mut Batch, to: u32, key: u32) {
    expression(list, "meta", |set| {
        set.put(2, &key.to_be_bytes());
        set.put(1, &to.to_be_bytes());
    });
}
