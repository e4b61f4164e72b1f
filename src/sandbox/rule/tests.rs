use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9_][a-z0-9_-]{0,20}"
}

fn name() -> impl Strategy<Value = String> {
    (any::<bool>(), prop::collection::vec(label(), 0..4), "[a-z][a-z0-9-]{0,10}").prop_map(
        |(wild, labels, last)| {
            let mut parts: Vec<String> = if wild { vec!["*".into()] } else { Vec::new() };
            parts.extend(labels);
            parts.push(last);
            parts.join(".")
        },
    )
}

fn cidr() -> impl Strategy<Value = Cidr> {
    (any::<IpAddr>(), any::<u8>()).prop_filter_map("mapped", |(address, prefix)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        Cidr::new(address, prefix % (longest + 1)).ok()
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Any),
        (name(), prop::option::of(cidr()))
            .prop_map(|(pattern, within)| Target::Name { pattern, within }),
        cidr().prop_map(Target::Network),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let protocol = prop::option::of(prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]);
    let ports =
        prop::option::of((1u16.., 1u16..).prop_map(|(one, two)| (one.min(two), one.max(two))));
    (action, protocol, target(), ports).prop_map(|(action, protocol, target, ports)| Rule {
        action,
        protocol,
        target,
        ports,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(rule in any_rule()) {
        let text = rule.to_string();
        prop_assert_eq!(&text.parse::<Rule>().unwrap(), &rule, "{}", text);
        let json = serde_json::to_string(&rule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text in "\\PC{0,40}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn a_rule_covers_itself_and_less(one in any_rule(), other in any_rule(), port in 1u16..) {
        prop_assert!(one.covers(&one) && one.overlaps(&one));
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
        if one.covers(&other) {
            prop_assert!(one.overlaps(&other));
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                prop_assert!(one.fits(protocol, port) || !other.fits(protocol, port));
            }
        }
    }
}

#[test]
fn names_match_as_they_are_written() {
    let exact = rule("Example.COM.");
    assert!(exact.names("example.com") && !exact.names("www.example.com"));
    let below = rule("*.example.com");
    assert!(below.names("www.example.com") && below.names("a.b.example.com"));
    for name in ["example.com", "badexample.com", ".example.com", "example.com.evil.test"] {
        assert!(!below.names(name), "{name}");
    }
    assert!(rule("*").names("x") && !rule("10.0.0.0/8").names("10.0.0.0"));
}

#[test]
fn what_is_no_rule_says_why() {
    let say = |text: &str| text.parse::<Rule>().unwrap_err().to_string();
    let all: Vec<String> = [
        "",
        "https://example.com",
        "example.com:0",
        "example.com:9-1",
        "example.com:http",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "1.2.3",
        "a b",
        "ex*.com",
        "bücher.example",
        "[::1",
        "::ffff:10.0.0.1",
        "-",
        "x@10.0.0.0/8/8",
    ]
    .map(say)
    .into();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn covering_is_about_target_ports_and_protocol() {
    for (wide, narrow) in [
        ("*", "example.com:443"),
        ("*.example.com", "*.eu.example.com"),
        ("10.0.0.0/8", "tcp://10.1.0.0/16:80"),
        ("example.com:1-100", "example.com:80"),
    ] {
        assert!(rule(wide).covers(&rule(narrow)), "{wide} {narrow}");
        assert!(!rule(narrow).covers(&rule(wide)), "{narrow} {wide}");
    }
    for (one, other) in [
        ("tcp://example.com", "udp://example.com"),
        ("example.com:80", "example.com:443"),
        ("*.example.com", "example.com"),
        ("10.0.0.0/8", "::/0"),
    ] {
        assert!(!rule(one).overlaps(&rule(other)), "{one} {other}");
    }
    assert!(rule("example.com:1-80").overlaps(&rule("example.com:80-90")));
}
