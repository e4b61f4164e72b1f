//! DNS messages: what is asked, what a server answers, what a guest is told.

use std::net::IpAddr;
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::sniff::name_of;

/// What kind of record is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Name(IpAddr),
    /// Hints for connections, addresses and keys that hide the name among them.
    Hints,
    /// Anything else.
    Other,
}

impl Kind {
    /// The one for addresses like this one.
    pub fn of(address: IpAddr) -> Kind {
        if address.is_ipv4() { Kind::A } else { Kind::Aaaa }
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of its message.
    pub id: u16,
    /// The name, in lower case.
    pub name: String,
    /// What of it.
    pub kind: Kind,
}

/// Reads a guest's query; none when it is not one that can be answered.
pub fn query(bytes: &[u8]) -> Option<Query> {
    let packet = Packet::parse(bytes).ok()?;
    let [question] = &packet.questions[..] else { return None };
    let asks = packet.opcode() == OPCODE::StandardQuery
        && !packet.has_flags(PacketFlag::RESPONSE)
        && matches!(question.qclass, QCLASS::CLASS(CLASS::IN));
    let name = text(&question.qname)?;
    let kind = match question.qtype {
        QTYPE::TYPE(TYPE::A) => Kind::A,
        QTYPE::TYPE(TYPE::AAAA) => Kind::Aaaa,
        QTYPE::TYPE(TYPE::PTR) => reverse(&name).map_or(Kind::Other, Kind::Name),
        QTYPE::TYPE(TYPE::HTTPS | TYPE::SVCB) => Kind::Hints,
        QTYPE::TYPE(_) => Kind::Other,
        _ => return None,
    };
    asks.then_some(Query { id: packet.id(), name, kind })
}

fn text(name: &Name<'_>) -> Option<String> {
    let labels: Vec<&str> =
        name.as_bytes().map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    // A dot inside a label would read as another name.
    if labels.iter().any(|label| label.contains('.')) {
        return None;
    }
    name_of(&labels.join("."))
}

/// The address whose name is asked for under this one.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(four) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<&str> = four.split('.').rev().collect();
        return octets.join(".").parse().ok().map(IpAddr::V4);
    }
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').rev().collect();
    let groups: Vec<String> = nibbles.chunks(4).map(<[&str]>::concat).collect();
    let one_digit = nibbles.len() == 32 && nibbles.iter().all(|nibble| nibble.len() == 1);
    one_digit.then(|| groups.join(":").parse().ok().map(IpAddr::V6))?
}

/// A query for a server.
pub fn ask(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let kind = if kind == Kind::Aaaa { TYPE::AAAA } else { TYPE::A };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(Question::new(Name::new(name).ok()?, kind, class, false));
    packet.build_bytes_vec().ok()
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Addresses of the name, or of what it stands for.
    pub addresses: Vec<IpAddr>,
    /// How long that holds.
    pub ttl: Duration,
    /// There is no such name.
    pub missing: bool,
    /// The name at the end of the chain, when its addresses are not in the answer.
    pub alias: Option<String>,
}

/// Why an answer is of no use.
#[derive(Debug, PartialEq, Eq)]
pub enum Useless {
    /// It is not the answer to this question, or damaged.
    Wrong,
    /// It was cut short: ask by TCP.
    Short,
    /// The server can't answer.
    Failed,
}

/// Reads the answer to a question for addresses. Only records that the name leads to count.
pub fn found(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Result<Found, Useless> {
    let packet = Packet::parse(bytes).map_err(|_| Useless::Wrong)?;
    let asked = packet.questions.first().and_then(|question| text(&question.qname));
    if packet.id() != id
        || !packet.has_flags(PacketFlag::RESPONSE)
        || asked.as_deref() != Some(name)
    {
        return Err(Useless::Wrong);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Err(Useless::Short);
    }
    let missing = match packet.rcode() {
        RCODE::NoError => false,
        RCODE::NameError => true,
        _ => return Err(Useless::Failed),
    };
    let (mut current, mut seconds) = (name.to_owned(), 3600);
    let aliases = |current: &str| {
        packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(to) if text(&record.name).as_deref() == Some(current) => {
                Some((text(&to.0)?, record.ttl))
            }
            _ => None,
        })
    };
    // A ring has no end.
    for _ in 0..16 {
        let Some((next, ttl)) = aliases(&current) else { break };
        (current, seconds) = (next, seconds.min(ttl));
    }
    let mut addresses = Vec::new();
    for record in &packet.answers {
        let address = match (&record.rdata, kind) {
            (RData::A(found), Kind::A) => IpAddr::V4(found.address.into()),
            (RData::AAAA(found), Kind::Aaaa) => IpAddr::V6(found.address.into()),
            _ => continue,
        };
        if text(&record.name).as_deref() == Some(current.as_str()) {
            addresses.push(address);
            seconds = seconds.min(record.ttl);
        }
    }
    let alias = (addresses.is_empty() && !missing && current != name).then_some(current);
    if addresses.is_empty() {
        seconds = seconds.min(30);
    }
    Ok(Found { addresses, ttl: Duration::from_secs(seconds.into()), missing, alias })
}

/// How a guest's query is answered.
pub enum Answer<'a> {
    /// With these addresses, which may be none, for so many seconds.
    Addresses(&'a [IpAddr], u32),
    /// With this name, for so many seconds.
    Name(&'a str, u32),
    /// There is no such name.
    Missing,
    /// Nobody could be asked.
    Failed,
}

/// The message for a guest. `query` is its own message; `room` is how long the answer may be.
pub fn reply(query: &[u8], answer: &Answer<'_>, room: usize) -> Option<Vec<u8>> {
    let asked = Packet::parse(query).ok()?;
    let question = asked.questions.first()?.clone();
    let mut packet = Packet::new_reply(asked.id());
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    match answer {
        Answer::Addresses(addresses, seconds) => {
            packet.answers.extend(addresses.iter().map(|address| {
                let data = match address {
                    IpAddr::V4(four) => RData::A(A { address: (*four).into() }),
                    IpAddr::V6(six) => RData::AAAA(AAAA { address: (*six).into() }),
                };
                ResourceRecord::new(question.qname.clone(), CLASS::IN, *seconds, data)
            }));
        }
        Answer::Name(name, seconds) => {
            let data = RData::PTR(Name::new(name).ok()?.into());
            packet.answers.push(ResourceRecord::new(
                question.qname.clone(),
                CLASS::IN,
                *seconds,
                data,
            ));
        }
        Answer::Missing => *packet.rcode_mut() = RCODE::NameError,
        Answer::Failed => *packet.rcode_mut() = RCODE::ServerFailure,
    }
    packet.questions.push(question);
    let bytes = packet.build_bytes_vec_compressed().ok()?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    packet.answers.clear();
    packet.set_flags(PacketFlag::TRUNCATION);
    packet.build_bytes_vec_compressed().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, records: &[(&str, u32, &str)], flags: PacketFlag) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        packet.set_flags(flags);
        let class = QCLASS::CLASS(CLASS::IN);
        let question = Question::new(Name::new_unchecked(name), QTYPE::TYPE(TYPE::A), class, false);
        packet.questions.push(question);
        for (owner, ttl, data) in records {
            let data = match data.parse() {
                Ok(IpAddr::V4(four)) => RData::A(A { address: four.into() }),
                Ok(IpAddr::V6(six)) => RData::AAAA(AAAA { address: six.into() }),
                Err(_) => RData::CNAME(Name::new_unchecked(data).into()),
            };
            let owner = Name::new_unchecked(owner);
            packet.answers.push(ResourceRecord::new(owner, CLASS::IN, *ttl, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn read(name: &str, records: &[(&str, u32, &str)]) -> Found {
        let bytes = answer(name, records, PacketFlag::RECURSION_AVAILABLE);
        found(&bytes, 7, name, Kind::A).unwrap()
    }

    #[test]
    fn only_what_the_name_leads_to_counts() {
        let one = read(
            "a.test",
            &[
                ("evil.test", 9, "203.0.113.66"),
                ("A.test", 60, "b.test"),
                ("b.test", 50, "c.test"),
                ("c.test", 70, "203.0.113.1"),
                ("c.test", 70, "203.0.113.2"),
                ("a.test", 70, "2001:db8::1"),
            ],
        );
        let addresses: Vec<String> = one.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["203.0.113.1", "203.0.113.2"]);
        assert_eq!((one.ttl, one.alias), (Duration::from_secs(50), None));
        let one = read("a.test", &[("a.test", 60, "b.test")]);
        assert_eq!((one.addresses.len(), one.alias.as_deref()), (0, Some("b.test")));
        assert!(
            read("a.test", &[("a.test", 1, "b.test"), ("b.test", 1, "a.test")])
                .addresses
                .is_empty()
        );
    }

    #[test]
    fn answers_to_other_questions_are_wrong() {
        let bytes = answer("a.test", &[], PacketFlag::empty());
        assert_eq!(found(&bytes, 8, "a.test", Kind::A), Err(Useless::Wrong));
        assert_eq!(found(&bytes, 7, "b.test", Kind::A), Err(Useless::Wrong));
        assert_eq!(found(&bytes[..5], 7, "a.test", Kind::A), Err(Useless::Wrong));
        let short = answer("a.test", &[], PacketFlag::TRUNCATION);
        assert_eq!(found(&short, 7, "a.test", Kind::A), Err(Useless::Short));
    }

    #[test]
    fn who_has_an_address() {
        let six = format!("1.0.0.0.{}3.7.d.f.ip6.arpa", "0.".repeat(24));
        for (name, address) in [
            ("4.3.2.1.in-addr.arpa", Some("1.2.3.4")),
            (six.as_str(), Some("fd73::1")),
            (&six[2..], None),
            ("3.2.1.in-addr.arpa", None),
            ("4.3.2.1.0.in-addr.arpa", None),
            ("ip6.arpa", None),
            ("a.test", None),
        ] {
            assert_eq!(reverse(name), address.map(|text| text.parse().unwrap()), "{name}");
        }
        let mut packet = Packet::new_query(3);
        let (kind, class) = (QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN));
        let name = Name::new_unchecked("4.3.2.1.in-addr.arpa");
        packet.questions.push(Question::new(name, kind, class, false));
        let asked = packet.build_bytes_vec().unwrap();
        assert_eq!(query(&asked).unwrap().kind, Kind::Name("1.2.3.4".parse().unwrap()));
        let told = reply(&asked, &Answer::Name("db", 1), 512).unwrap();
        let told = Packet::parse(&told).unwrap();
        assert!(matches!(&told.answers[0].rdata, RData::PTR(name) if name.0.to_string() == "db"));
    }

    #[test]
    fn a_query_is_answered_in_kind() {
        let asked = ask(9, "A.test", Kind::A).unwrap();
        assert_eq!(query(&asked), Some(Query { id: 9, name: "a.test".into(), kind: Kind::A }));
        let addresses = ["203.0.113.1".parse().unwrap()];
        let told = reply(&asked, &Answer::Addresses(&addresses, 30), 512).unwrap();
        let seen = found(&told, 9, "a.test", Kind::A).unwrap();
        assert_eq!((seen.addresses, seen.ttl), (addresses.to_vec(), Duration::from_secs(30)));
        let told = reply(&asked, &Answer::Missing, 512).unwrap();
        assert!(found(&told, 9, "a.test", Kind::A).unwrap().missing);
        let many = vec![addresses[0]; 60];
        let told = reply(&asked, &Answer::Addresses(&many, 30), 512).unwrap();
        assert_eq!(found(&told, 9, "a.test", Kind::A), Err(Useless::Short));
        assert_eq!(query(&told), None);
        assert_eq!(query(b"x"), None);
    }
}
