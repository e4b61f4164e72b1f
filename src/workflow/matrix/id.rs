//! The stable id of a cell.

use super::AxisValue;

/// `db=postgres,locale=C`: the values in order. The backend that the cell runs on and what it is made
/// from, where these are axes, stand in front: `local:debian/12/db=postgres`.
///
/// What would be read as something else in a filter, by a shell or by a person is written as the
/// percent-encoded bytes of its UTF-8: `%`, `,`, `=`, `*`, `?`, `\`, quotes, blanks and control
/// characters. So an id is a filter that selects its cell.
pub fn cell_id(values: &[(String, AxisValue)]) -> String {
    let of = |wanted: &str| values.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let (backend, from) = (of(BACKEND), of(FROM));
    let mut id = String::new();
    if let Some(backend) = backend {
        id = escaped(&backend.to_string(), &[':', '/']);
        id.push(':');
    }
    let mut mark = "";
    if let Some(from) = from.map(AxisValue::to_string).filter(|from| !from.is_empty()) {
        escape(&from, &mut id);
        mark = "/";
    }
    for (name, value) in values.iter().filter(|(name, _)| name != FROM && name != BACKEND) {
        id.push_str(mark);
        mark = ",";
        id.push_str(&escaped(name, &[':', '/']));
        id.push('=');
        escape(&value.to_string(), &mut id);
    }
    id
}

/// The axis that says which backend a cell runs on.
pub(super) const BACKEND: &str = "backend";
/// The axis that says what a cell is made from.
pub(super) const FROM: &str = "from";

/// Also without what has a meaning of its own in front of the axes.
fn escaped(text: &str, more: &[char]) -> String {
    let mut escaped = String::new();
    escape(text, &mut escaped);
    for character in more {
        escaped = escaped.replace(*character, &format!("%{:02X}", *character as u32));
    }
    escaped
}

fn escape(text: &str, to: &mut String) {
    for character in text.chars() {
        if "%,=*?\\'\"`$!&|;<>()".contains(character)
            || character.is_whitespace()
            || character.is_control()
        {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                to.push_str(&format!("%{byte:02X}"));
            }
        } else {
            to.push(character);
        }
    }
}

/// The text that percent-encoding stands for; what is not a valid code stays as it is.
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others
            .get(..2)
            .filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_well() {
        let values = [
            ("db".to_string(), AxisValue::from("postgres")),
            ("opt".to_string(), AxisValue::from("-O2 -g")),
            ("n".to_string(), AxisValue::from(3)),
            ("x".to_string(), AxisValue::from(3.0)),
            ("tls".to_string(), AxisValue::from(true)),
            ("flags".to_string(), AxisValue::from("a=b,c*")),
        ];
        assert_eq!(
            cell_id(&values),
            "db=postgres,opt=-O2%20-g,n=3,x=3.0,tls=true,flags=a%3Db%2Cc%2A"
        );
    }

    #[test]
    fn what_it_is_made_from_stands_in_front() {
        let values = |all: &[(&str, &str)]| {
            all.iter().map(|(n, v)| (n.to_string(), AxisValue::from(*v))).collect::<Vec<_>>()
        };
        assert_eq!(cell_id(&values(&[("db", "x"), ("from", "debian/12")])), "debian/12/db=x");
        assert_eq!(cell_id(&values(&[("from", "debian/12")])), "debian/12");
        assert_eq!(cell_id(&values(&[("a/b", "x/y")])), "a%2Fb=x/y");
        assert_eq!(cell_id(&values(&[("a:b", "x:y")])), "a%3Ab=x:y");
        let on =
            |more: &[(&str, &str)]| cell_id(&values(&[&[("backend", "local")], more].concat()));
        assert_eq!(on(&[("db", "x"), ("from", "debian/12")]), "local:debian/12/db=x");
        assert_eq!(on(&[("from", "debian/12")]), "local:debian/12");
        assert_eq!(on(&[("db", "x"), ("host", "nas")]), "local:db=x,host=nas");
        assert_eq!(on(&[]), "local:");
    }

    proptest! {
        #[test]
        fn escaping_is_undone(text in ".*") {
            let mut escaped = String::new();
            escape(&text, &mut escaped);
            prop_assert!(!escaped.contains([',', '=', '*', '?', ' ', '\n']));
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
