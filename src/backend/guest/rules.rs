//! A policy as a guest's own kernel and resolver keep it: a table of rules, and the text that the guard in
//! the guest reads.
//!
//! The kernel knows addresses only. Rules about names are sets, which the guard fills with what it tells
//! programs in the guest; all that no rule lets through is counted and refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::egress::nft::{
    ACCEPT, AT_LEAST, AT_MOST, Batch, CREATE, DELETE_TABLE, DIFFERS, DROP, EQUAL, EVALUATED, GOTO,
    JUMP, Kind, NEW_TABLE, TIMEOUT, compare, count_in, ct, expression, lead, load, lookup,
    mark_connection, mask, message, meta, meta_into, new_chain, new_set, payload, payload_into,
    redirect, rule, side_chain, verdict,
};
use crate::egress::special_ranges;
use crate::sandbox::{Action, Cidr, Policy, Protocol, Rule, Target};

/// Where the guard answers questions for names: only root may listen there.
pub(super) const PORT: u16 = 1010;
/// What the guard's own packets are marked with, which takes root as well.
pub(super) const MARK: u32 = 0x5361_6e64;

const TABLE: &str = "sandscript";
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const PACKET_MARK: u32 = 3;
const IN_BY: u32 = 4;
const OUT_BY: u32 = 5;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
/// The loopback interface of every namespace.
const LOOPBACK: u32 = 1;
/// The first of the registers that hold four bytes each.
const WORDS: u32 = 8;
/// Ids of the sets of refusals, behind those of groups.
const REFUSED: u32 = 0x10_0000;
/// How many refusals are told apart, and how many addresses a group has.
const TOLD: u32 = 1000;
const MOST: u32 = 16_384;
/// Goes on behind where it came from.
const RETURN: u32 = -5i32 as u32;
const ALL_PORTS: (u16, u16) = (0, u16::MAX);

/// What is known of the place that a guest is in.
#[derive(Clone, Debug, Default)]
pub(in crate::backend) struct Ground {
    /// Why not all addresses of that machine are known: then no rule opens a private network.
    pub unknown: Option<String>,
    /// Addresses of the machine that it is on: only a rule of exactly that address opens one.
    pub hosts: Vec<IpAddr>,
    /// TCP ports that others may come in by.
    pub inbound: Vec<u16>,
    /// Name servers, where they are not those that the guest was given.
    pub servers: Vec<SocketAddr>,
    /// Names whose addresses are known: nobody is asked for them.
    pub fixed: BTreeMap<String, Vec<IpAddr>>,
}

/// Which addresses of a network are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Not the machine's own.
    Foreign,
    /// Not in a special range, and not the machine's own.
    Public,
}

/// What a packet has to be for.
#[derive(Clone)]
enum Hit {
    Anything,
    Public,
    Net(Cidr, Which),
    Group(usize),
}

struct Step {
    action: Action,
    ports: (u16, u16),
    hit: Hit,
}

/// The policy, taken apart.
#[derive(Default)]
struct Parts {
    tcp: Vec<Step>,
    udp: Vec<Step>,
    groups: usize,
    /// Lines about names and what may be told of them.
    names: String,
    /// Ports at which a name is denied so far, by protocol.
    denied: [Vec<(u16, u16)>; 2],
    /// The rule that has the last group, but for its name.
    last: Option<Rule>,
}

fn overlap(one: (u16, u16), other: (u16, u16)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

/// What is left of `ports` without `others`.
fn without(ports: (u16, u16), others: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut left = vec![ports];
    for other in others {
        let cut = |one: (u16, u16)| {
            if !overlap(one, *other) {
                return [Some(one), None];
            }
            let before = (one.0 < other.0).then(|| (one.0, other.0 - 1));
            let behind = (other.1 < one.1).then(|| (other.1 + 1, one.1));
            [before, behind]
        };
        left = left.into_iter().flat_map(cut).flatten().collect();
    }
    left
}

fn letter(action: Action) -> char {
    if action == Action::Allow { 'a' } else { 'd' }
}

impl Parts {
    fn of(policy: &Policy, ground: &Ground) -> Parts {
        let mut parts = Parts::default();
        policy.rules().for_each(|rule| parts.add(rule, ground));
        parts
    }

    /// A line for the resolver: `N` for a rule that names are asked by, `K` for one about addresses alone.
    fn name(&mut self, kind: char, rule: &Rule, group: Option<usize>, pattern: &str, how: &str) {
        let whole = u8::from(rule.ports.is_none() && rule.protocol.is_none());
        let group = group.map_or("-".to_owned(), |group| group.to_string());
        let action = letter(rule.action);
        let _ = writeln!(self.names, "{kind} {action} {whole} {group} {pattern} {how}");
    }

    fn add(&mut self, rule: &Rule, ground: &Ground) {
        let ports = rule.ports.unwrap_or(ALL_PORTS);
        let (tcp, udp) =
            (rule.protocol != Some(Protocol::Udp), rule.protocol != Some(Protocol::Tcp));
        let deny = rule.action == Action::Deny;
        let step = |hit: Hit| Step { action: rule.action, ports, hit };
        let plain = Rule { target: Target::Any, ..rule.clone() };
        if let Target::Name { pattern, within } = &rule.target {
            let known = self.last.as_ref() == Some(&plain);
            let group = if known { self.groups - 1 } else { self.groups };
            let how = match (deny, within) {
                (true, _) => "x".to_owned(),
                (_, Some(within)) => format!("w={within}"),
                _ => "p".into(),
            };
            self.name('N', rule, Some(group), pattern, &how);
            if deny {
                self.denied[0].extend(tcp.then_some(ports));
                self.denied[1].extend(udp.then_some(ports));
            }
            if !known {
                self.groups += 1;
                self.tcp.extend(tcp.then(|| step(Hit::Group(group))));
                // Nobody sees which name a datagram is for: only a rule that says so opens it.
                let udp = udp && (deny || rule.protocol == Some(Protocol::Udp));
                self.udp.extend(udp.then(|| step(Hit::Group(group))));
                self.last = Some(plain);
            }
            return;
        }
        self.last = None;
        let (hit, how) = match &rule.target {
            Target::Network(network) => {
                let which = match deny {
                    true => Which::All,
                    false => which(network, ground),
                };
                let letter = match which {
                    Which::All => 'x',
                    Which::Foreign => 'f',
                    Which::Public => 'p',
                };
                (Hit::Net(*network, which), format!("n={network}={letter}"))
            }
            _ if deny => (Hit::Anything, "x".into()),
            _ => (Hit::Public, "p".to_owned()),
        };
        let kind = if matches!(rule.target, Target::Any) { 'N' } else { 'K' };
        let mut group = None;
        if tcp {
            let denied: &[_] = if deny { &[] } else { &self.denied[0] };
            let clear = without(ports, denied);
            let behind = without(ports, &clear);
            for ports in clear {
                self.tcp.push(Step { action: rule.action, ports, hit: hit.clone() });
            }
            if !behind.is_empty() {
                // A name that is denied may be behind the address: only what was told of another one counts.
                group = Some(self.groups);
                self.groups += 1;
            }
            for ports in behind {
                let hit = Hit::Group(self.groups - 1);
                self.tcp.push(Step { action: rule.action, ports, hit });
            }
        }
        if udp {
            let denied: &[_] = if deny { &[] } else { &self.denied[1] };
            for ports in without(ports, denied) {
                self.udp.push(Step { action: rule.action, ports, hit: hit.clone() });
            }
        }
        self.name(kind, rule, group, "*", &how);
    }
}

/// Which addresses of an allowed network are open: special ones only where all of it is in their range.
fn which(network: &Cidr, ground: &Ground) -> Which {
    if ground.hosts.iter().any(|host| Cidr::single(*host) == *network) {
        return Which::All;
    }
    match special_ranges().any(|range| range.contains(network)) {
        true => Which::Foreign,
        false => Which::Public,
    }
}

/// Whether a policy opens more than single addresses of what is not public.
pub(super) fn opens_private(policy: &Policy) -> bool {
    let is_private = |rule: &Rule| {
        let (network, part) = match &rule.target {
            Target::Network(network) => (network, false),
            Target::Name { within: Some(network), .. } => (network, true),
            _ => return false,
        };
        rule.action == Action::Allow
            && Cidr::single(network.address()) != *network
            && special_ranges()
                .any(|range| range.contains(network) || part && network.contains(&range))
    };
    policy.rules().any(is_private)
}

/// What the guard reads: nothing in it can be taken for another line.
pub(in crate::backend) fn text(
    policy: &Policy,
    name: &str,
    hostname: &str,
    ground: &Ground,
) -> String {
    let mut text = String::new();
    let kind = match policy {
        Policy::None => "closed",
        Policy::Unrestricted => "open",
        Policy::Rules(_) => "rules",
    };
    let word = |word: &str| -> String {
        let plain = |c: &char| !c.is_whitespace() && !c.is_control();
        word.chars().filter(plain).collect()
    };
    let _ = writeln!(text, "kind {kind}\nname {}\nname {}", word(name), word(hostname));
    let parts = Parts::of(policy, ground);
    for server in &ground.servers {
        let _ = writeln!(text, "server {} {}", server.ip(), server.port());
    }
    for port in &ground.inbound {
        let _ = writeln!(text, "inbound {port}");
    }
    for range in special_ranges() {
        let _ = writeln!(text, "S {range}");
    }
    for host in &ground.hosts {
        let _ = writeln!(text, "H {}", Cidr::single(*host));
    }
    for (name, addresses) in &ground.fixed {
        let _ = write!(text, "F {}", word(name));
        for address in addresses {
            let _ = write!(text, " {address}");
        }
        text.push('\n');
    }
    text += &parts.names;
    for step in &parts.tcp {
        let (first, last) = step.ports;
        let hit = match &step.hit {
            Hit::Anything => "x".to_owned(),
            Hit::Public => "p".into(),
            Hit::Group(group) => format!("g={group}"),
            Hit::Net(network, Which::All) => format!("n={network}=x"),
            Hit::Net(network, Which::Foreign) => format!("n={network}=f"),
            Hit::Net(network, Which::Public) => format!("n={network}=p"),
        };
        let _ = writeln!(text, "T {} {first} {last} {hit}", letter(step.action));
    }
    let digest = blake3::hash(text.as_bytes());
    let mut generation = [0; 4];
    generation.copy_from_slice(&digest.as_bytes()[..4]);
    let generation = u32::from_ne_bytes(generation) | 1;
    let body = match policy {
        Policy::None => closed(),
        Policy::Unrestricted => Batch::new().removed(),
        Policy::Rules(_) => table(&parts, ground, generation),
    };
    let body: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = blake3::hash(format!("{text}{body}").as_bytes()).to_hex();
    format!("sandscript-egress 1\ntoken {}\n{text}body {body}\n", &digest[..32])
}

trait Emptied {
    fn removed(self) -> Vec<u8>;
}

impl Emptied for Batch {
    /// With nothing of ours in the kernel.
    fn removed(mut self) -> Vec<u8> {
        for kind in [NEW_TABLE, DELETE_TABLE] {
            message(&mut self, kind, CREATE, |set| set.text(1, TABLE));
        }
        self.bytes().to_vec()
    }
}

/// An empty table in the place of the one that was there.
fn begin() -> Batch {
    let mut batch = Batch::new();
    for kind in [NEW_TABLE, DELETE_TABLE, NEW_TABLE] {
        message(&mut batch, kind, CREATE, |set| set.text(1, TABLE));
    }
    batch
}

/// Nothing goes out or comes in but what the guest says to itself.
pub(in crate::backend) fn closed() -> Vec<u8> {
    let mut batch = begin();
    hooks(&mut batch);
    batch.bytes().to_vec()
}

/// The hooks, and that all is refused that nothing before has let through.
fn hooks(batch: &mut Batch) {
    for (chain, hook) in [("out", HOOK_OUTPUT), ("in", HOOK_INPUT), ("forward", HOOK_FORWARD)] {
        new_chain(batch, TABLE, chain, "filter", hook, 0);
    }
    for (chain, key) in [("out", OUT_BY), ("in", IN_BY)] {
        rule(batch, TABLE, chain, 0, |list| {
            meta(list, key);
            compare(list, EQUAL, &LOOPBACK.to_ne_bytes());
            verdict(list, ACCEPT);
        });
    }
    // What was redirected to this machine has the interface that it was to leave by.
    rule(batch, TABLE, "out", 0, |list| {
        to(
            list,
            &Cidr::new([127, 0, 0, 0].into(), 8)
                .unwrap_or_else(|_| Cidr::single([127, 0, 0, 1].into())),
        );
        verdict(list, ACCEPT);
    });
    rule(batch, TABLE, "out", 0, |list| {
        to(list, &Cidr::single(std::net::Ipv6Addr::LOCALHOST.into()));
        verdict(list, ACCEPT);
    });
    side_chain(batch, TABLE, "inward");
    side_chain(batch, TABLE, "outward");
    rule(batch, TABLE, "in", 0, |list| lead(list, JUMP, "inward"));
    rule(batch, TABLE, "out", 0, |list| lead(list, JUMP, "outward"));
    rule(batch, TABLE, "in", 0, |list| verdict(list, DROP));
    rule(batch, TABLE, "forward", 0, |list| verdict(list, DROP));
    rule(batch, TABLE, "out", 0, reject);
}

/// Port unreachable, so that a program sees at once that nothing is there.
fn reject(list: &mut Batch) {
    expression(list, "reject", |set| {
        set.put(1, &2u32.to_be_bytes());
        set.put(2, &[1]);
    });
    verdict(list, DROP);
}

fn family(list: &mut Batch, family: u8) {
    meta(list, NFPROTO);
    compare(list, EQUAL, &[family]);
}

fn protocol(list: &mut Batch, protocol: u8) {
    meta(list, L4PROTO);
    compare(list, EQUAL, &[protocol]);
}

/// Of packets to an address of the network.
fn to(list: &mut Batch, network: &Cidr) {
    let (version, at, address) = match network.address() {
        IpAddr::V4(four) => (IPV4, 16, four.octets().to_vec()),
        IpAddr::V6(six) => (IPV6, 24, six.octets().to_vec()),
    };
    family(list, version);
    let length = address.len() as u32;
    payload(list, NETWORK, at, length);
    let prefix = usize::from(network.prefix());
    if prefix < address.len() * 8 {
        let bits: Vec<u8> = (0..address.len())
            .map(|byte| match prefix.saturating_sub(byte * 8) {
                8.. => 0xff,
                left => !(0xffu16 >> left) as u8,
            })
            .collect();
        mask(list, &bits);
    }
    compare(list, EQUAL, &address);
}

fn at_ports(list: &mut Batch, ports: (u16, u16)) {
    if ports == ALL_PORTS {
        return;
    }
    payload(list, TRANSPORT, 2, 2);
    if ports.0 == ports.1 {
        return compare(list, EQUAL, &ports.0.to_be_bytes());
    }
    compare(list, AT_LEAST, &ports.0.to_be_bytes());
    compare(list, AT_MOST, &ports.1.to_be_bytes());
}

fn set_of(group: usize, version: u8) -> (String, u32) {
    let (letter, odd) = if version == IPV4 { ('g', 0) } else { ('h', 1) };
    (format!("{letter}{group}"), group as u32 * 2 + odd + 1)
}

fn table(parts: &Parts, ground: &Ground, generation: u32) -> Vec<u8> {
    let mut batch = begin();
    let all = &mut batch;
    for group in 0..parts.groups {
        for (version, length) in [(IPV4, 4), (IPV6, 16)] {
            let (name, id) = set_of(group, version);
            new_set(all, TABLE, &name, id, length, Kind { flags: TIMEOUT, most: MOST });
        }
    }
    for (name, id, length) in [("refused4", REFUSED, 12), ("refused6", REFUSED + 1, 24)] {
        new_set(all, TABLE, name, id, length, Kind { flags: EVALUATED, most: TOLD });
    }
    for chain in ["ok", "refuse", "public", "foreign", "tcp", "udp"] {
        side_chain(all, TABLE, chain);
    }
    rule(all, TABLE, "ok", 0, |list| {
        load(list, 1, &generation.to_ne_bytes());
        mark_connection(list);
        verdict(list, ACCEPT);
    });
    // Such an address may be open by a later rule.
    for host in &ground.hosts {
        for chain in ["public", "foreign"] {
            back(all, chain, &Cidr::single(*host));
        }
    }
    for range in special_ranges() {
        back(all, "public", &range);
    }
    for chain in ["public", "foreign"] {
        rule(all, TABLE, chain, 0, |list| lead(list, GOTO, "ok"));
    }
    refusals(all);
    for (chain, steps) in [("tcp", &parts.tcp), ("udp", &parts.udp)] {
        steps.iter().for_each(|step| add(all, chain, step));
        rule(all, TABLE, chain, 0, |list| lead(list, GOTO, "refuse"));
    }
    names(all);
    hooks(all);
    outward(all, generation);
    inward(all, ground, generation);
    batch.bytes().to_vec()
}

fn back(batch: &mut Batch, chain: &str, network: &Cidr) {
    rule(batch, TABLE, chain, 0, |list| {
        to(list, network);
        verdict(list, RETURN);
    });
}

/// Counts what is refused, by address, protocol and port.
fn refusals(batch: &mut Batch) {
    for (version, at, length, set, id) in
        [(IPV4, 16, 4, "refused4", REFUSED), (IPV6, 24, 16, "refused6", REFUSED + 1)]
    {
        for kind in [TCP, UDP] {
            rule(batch, TABLE, "refuse", 0, |list| {
                family(list, version);
                protocol(list, kind);
                let words = length / 4;
                payload_into(list, WORDS, NETWORK, at, length);
                meta_into(list, WORDS + words, L4PROTO);
                payload_into(list, WORDS + words + 1, TRANSPORT, 2, 2);
                count_in(list, set, id, WORDS);
            });
        }
    }
    rule(batch, TABLE, "refuse", 0, reject);
}

/// One step of a policy.
fn add(batch: &mut Batch, chain: &str, step: &Step) {
    let end = |list: &mut Batch, which: Which| match (step.action, which) {
        (Action::Deny, _) => lead(list, GOTO, "refuse"),
        (Action::Allow, Which::All) => lead(list, GOTO, "ok"),
        (Action::Allow, Which::Foreign) => lead(list, JUMP, "foreign"),
        (Action::Allow, Which::Public) => lead(list, JUMP, "public"),
    };
    match &step.hit {
        Hit::Anything => rule(batch, TABLE, chain, 0, |list| {
            at_ports(list, step.ports);
            end(list, Which::All);
        }),
        Hit::Public => rule(batch, TABLE, chain, 0, |list| {
            at_ports(list, step.ports);
            end(list, Which::Public);
        }),
        Hit::Net(network, which) => rule(batch, TABLE, chain, 0, |list| {
            to(list, network);
            at_ports(list, step.ports);
            end(list, *which);
        }),
        Hit::Group(group) => {
            for (version, at, length) in [(IPV4, 16, 4), (IPV6, 24, 16)] {
                let (set, id) = set_of(*group, version);
                rule(batch, TABLE, chain, 0, |list| {
                    at_ports(list, step.ports);
                    family(list, version);
                    payload(list, NETWORK, at, length);
                    lookup(list, &set, id);
                    end(list, Which::All);
                });
            }
        }
    }
}

/// Whoever is asked for a name, it is the guard that answers.
fn names(batch: &mut Batch) {
    let chain = "names";
    new_chain(batch, TABLE, chain, "nat", HOOK_OUTPUT, -100);
    rule(batch, TABLE, chain, 0, |list| {
        meta(list, PACKET_MARK);
        compare(list, EQUAL, &MARK.to_ne_bytes());
        verdict(list, ACCEPT);
    });
    for kind in [TCP, UDP] {
        rule(batch, TABLE, chain, 0, |list| {
            protocol(list, kind);
            at_ports(list, (53, 53));
            redirect(list, PORT);
        });
    }
}

fn state(list: &mut Batch, bits: u32) {
    ct(list, CT_STATE);
    mask(list, &bits.to_ne_bytes());
    compare(list, DIFFERS, &0u32.to_ne_bytes());
}

/// What keeps an interface working: leases of addresses, and who is where.
fn upkeep(batch: &mut Batch, chain: &str, leases: [[u16; 2]; 2]) {
    for [from, at] in leases {
        rule(batch, TABLE, chain, 0, |list| {
            protocol(list, UDP);
            payload(list, TRANSPORT, 0, 4);
            compare(list, EQUAL, &[from.to_be_bytes(), at.to_be_bytes()].concat());
            verdict(list, ACCEPT);
        });
    }
    for (first, last) in [(130, 136), (143, 143)] {
        rule(batch, TABLE, chain, 0, |list| {
            protocol(list, ICMPV6);
            payload(list, TRANSPORT, 0, 1);
            compare(list, AT_LEAST, &[first]);
            compare(list, AT_MOST, &[last]);
            verdict(list, ACCEPT);
        });
    }
}

/// What goes on: connections that were let through. Those of TCP that a new policy does not let through are
/// cut by the guard; of anything else each flow has to have been let through by this very policy.
fn goes_on(batch: &mut Batch, chain: &str, generation: u32) {
    rule(batch, TABLE, chain, 0, |list| {
        protocol(list, TCP);
        state(list, ESTABLISHED);
        verdict(list, ACCEPT);
    });
    rule(batch, TABLE, chain, 0, |list| {
        state(list, ESTABLISHED | RELATED);
        ct(list, CT_MARK);
        compare(list, EQUAL, &generation.to_ne_bytes());
        verdict(list, ACCEPT);
    });
}

fn outward(batch: &mut Batch, generation: u32) {
    let chain = "outward";
    goes_on(batch, chain, generation);
    rule(batch, TABLE, chain, 0, |list| {
        meta(list, PACKET_MARK);
        compare(list, EQUAL, &MARK.to_ne_bytes());
        lead(list, GOTO, "ok");
    });
    upkeep(batch, chain, [[68, 67], [546, 547]]);
    for (kind, next) in [(TCP, "tcp"), (UDP, "udp")] {
        rule(batch, TABLE, chain, 0, |list| {
            protocol(list, kind);
            lead(list, GOTO, next);
        });
    }
}

fn inward(batch: &mut Batch, ground: &Ground, generation: u32) {
    let chain = "inward";
    goes_on(batch, chain, generation);
    // What is said of connections: that a packet was too long, or nobody is there.
    for kind in [ICMP, ICMPV6] {
        rule(batch, TABLE, chain, 0, |list| {
            protocol(list, kind);
            state(list, RELATED);
            verdict(list, ACCEPT);
        });
    }
    upkeep(batch, chain, [[67, 68], [547, 546]]);
    for port in &ground.inbound {
        rule(batch, TABLE, chain, 0, |list| {
            protocol(list, TCP);
            at_ports(list, (*port, *port));
            verdict(list, ACCEPT);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rules: &[&str]) -> String {
        let ground = Ground { hosts: vec!["203.0.113.1".parse().unwrap()], ..Ground::default() };
        let text = text(&Policy::allowlist(rules).unwrap(), "a", "b c", &ground);
        let told = |line: &&str| !line.starts_with("body") && !line.starts_with("S ");
        let lines: Vec<&str> =
            text.lines().filter(told).filter(|line| !line.starts_with("token")).collect();
        lines.join("\n")
    }

    #[test]
    fn a_policy_is_taken_apart() {
        let rules =
            ["*.a.test:443", "b.test:443", "udp://c.test", "10.1.0.0/16", "0.0.0.0/0:80-90"];
        insta::assert_snapshot!(lines(&rules), @r"
        sandscript-egress 1
        kind rules
        name a
        name bc
        H 203.0.113.1
        N a 0 0 *.a.test p
        N a 0 0 b.test p
        N a 0 1 c.test p
        K a 1 - * n=10.1.0.0/16=f
        K a 0 - * n=0.0.0.0/0=p
        T a 443 443 g=0
        T a 0 65535 n=10.1.0.0/16=f
        T a 80 90 n=0.0.0.0/0=p
        ");
    }

    #[test]
    fn what_is_behind_a_denied_name_has_to_be_told() {
        let rules = ["deny b.test:443", "203.0.113.1", "deny 203.0.113.0/24", "*"];
        insta::assert_snapshot!(lines(&rules), @r"
        sandscript-egress 1
        kind rules
        name a
        name bc
        H 203.0.113.1
        N d 0 0 b.test x
        K a 1 1 * n=203.0.113.1=x
        K d 1 - * n=203.0.113.0/24=x
        N a 1 2 * p
        T d 443 443 g=0
        T a 0 442 n=203.0.113.1=x
        T a 444 65535 n=203.0.113.1=x
        T a 443 443 g=1
        T d 0 65535 n=203.0.113.0/24=x
        T a 0 442 p
        T a 444 65535 p
        T a 443 443 g=2
        ");
        assert_eq!(without((0, 65_535), &[(80, 80), (0, 9)]), [(10, 79), (81, 65_535)]);
        assert_eq!(without((5, 7), &[(5, 7)]), []);
        assert_eq!(without((5, 7), &[(6, 6)]), [(5, 5), (7, 7)]);
    }

    #[test]
    fn what_is_not_public_is_seen() {
        let opens = |rules: &[&str]| opens_private(&Policy::allowlist(rules).unwrap());
        assert!(opens(&["a.test", "10.1.0.0/16:443"]) && opens(&["fd00::/64"]));
        assert!(opens(&["a.test@192.168.0.0/16"]) && opens(&["a.test@0.0.0.0/0"]));
        assert!(!opens(&["*", "a.test", "0.0.0.0/0", "1.2.3.0/28"]));
        assert!(!opens(&["10.1.2.3", "a.test@10.1.2.3", "deny 10.0.0.0/8", "*"]));
        assert!(!opens_private(&Policy::Unrestricted) && !opens_private(&Policy::None));
    }

    #[test]
    fn a_text_is_of_one_policy_and_one_machine() {
        let ground = Ground::default();
        let of = |policy: &Policy, name: &str| text(policy, name, name, &ground);
        let policy = Policy::allowlist(["a.test"]).unwrap();
        assert_eq!(of(&policy, "a"), of(&policy, "a"));
        assert_ne!(of(&policy, "a"), of(&policy, "b"));
        assert_ne!(of(&policy, "a"), of(&Policy::None, "a"));
        assert!(of(&Policy::None, "a\nkind open").contains("\nname akindopen\n"));
    }
}
