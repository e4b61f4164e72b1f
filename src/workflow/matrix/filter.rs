//! Which cells run.

use std::str::FromStr;

use crate::sandbox::{Error, Result};

use super::Cell;
use super::id::{BACKEND, FROM, unescape};

/// Which cells run: those that one of its alternatives selects; without any, all.
///
/// An alternative is a list of terms with commas between, and all of them must hold. `db=post*`
/// holds for a cell whose `db` is like that; `postgres` alone for one that has such a value on any
/// axis. What stands in front of the axes says where a cell runs and what it is made from:
/// `local:debian/12/db=postgres`, `local:db=postgres`, `debian/12/db=postgres`. `*` stands for any text, `?` for one character, and percent codes for themselves as in
/// [`super::cell_id`], so that a cell's id selects it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    alternatives: Vec<Vec<Term>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// A value on an axis.
    Axis(Vec<Glyph>, Vec<Glyph>),
    /// A value on any axis, or what stands in front of all.
    Any(Vec<Glyph>),
    /// What stands in front of the axes, with the backend or without.
    Front(Vec<Glyph>),
}

impl Term {
    fn holds(&self, cell: &Cell) -> bool {
        let value = |name: &str| cell.get(name).map(ToString::to_string);
        let front = |wanted: &[Glyph]| {
            let from = value(FROM);
            from.as_ref().is_some_and(|from| matches(wanted, from))
                || value(BACKEND).is_some_and(|backend| {
                    let from = from.as_deref().unwrap_or_default();
                    matches(wanted, &format!("{backend}:{from}"))
                })
        };
        match self {
            Term::Axis(name, wanted) => cell
                .values
                .iter()
                .any(|(axis, value)| matches(name, axis) && matches(wanted, &value.to_string())),
            Term::Any(wanted) => {
                cell.values.iter().any(|(_, value)| matches(wanted, &value.to_string()))
                    || front(wanted)
            }
            Term::Front(wanted) => front(wanted),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Glyph {
    Any,
    One,
    Char(char),
}

impl Filter {
    /// A filter with these alternatives; blank ones are refused.
    pub fn parse<S: AsRef<str>>(alternatives: impl IntoIterator<Item = S>) -> Result<Filter> {
        let parse = |text: S| alternative(text.as_ref());
        Ok(Filter { alternatives: alternatives.into_iter().map(parse).collect::<Result<_>>()? })
    }

    /// Whether it selects everything because it says nothing.
    pub fn is_empty(&self) -> bool {
        self.alternatives.is_empty()
    }

    /// Whether `cell` runs.
    pub fn selects(&self, cell: &Cell) -> bool {
        let holds = |terms: &Vec<Term>| terms.iter().all(|term| term.holds(cell));
        self.is_empty() || self.alternatives.iter().any(holds)
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Filter> {
        Filter::parse([text])
    }
}

fn alternative(text: &str) -> Result<Vec<Term>> {
    let wrong = || {
        Error::invalid_hint(
            "filter",
            format!("'{text}' is not a filter"),
            "write it as \"db=postgres,py=3.*\", or copy a cell's id",
        )
    };
    // `local:debian/12/db=x`: what is before the first axis says where the cell runs and what it is
    // made from; `local:` alone only says where.
    let first = text.split(',').next().unwrap_or_default();
    let axis = first.find('=').unwrap_or(0);
    let (front, text) = match (first[..axis].rfind('/'), first[..axis].rfind(':')) {
        (Some(at), _) => (Some(Term::Front(glyphs(text[..at].trim()))), &text[at + 1..]),
        (None, Some(at)) => (Some(on_backend(&text[..at])), &text[at + 1..]),
        (None, None) => (None, text),
    };
    let terms = text.split(',').map(|term| {
        let (name, value) = match term.split_once('=') {
            Some((name, value)) => (Some(name.trim()), value.trim()),
            None => (None, term.trim()),
        };
        if name.is_some_and(str::is_empty) || (name.is_none() && value.is_empty()) {
            return Err(wrong());
        }
        Ok(match (name, value.strip_suffix(':')) {
            (Some(name), _) => Term::Axis(glyphs(name), glyphs(value)),
            (None, Some(backend)) if !backend.is_empty() => on_backend(backend),
            (None, _) => Term::Any(glyphs(value)),
        })
    });
    front.map(Ok).into_iter().chain(terms).collect()
}

fn on_backend(name: &str) -> Term {
    Term::Axis(glyphs(BACKEND), glyphs(name.trim()))
}

/// Wildcards are what is written plainly; a percent code never is one.
fn glyphs(text: &str) -> Vec<Glyph> {
    let mut glyphs = Vec::new();
    let mut plain = String::new();
    let end = |plain: &mut String, glyphs: &mut Vec<Glyph>| {
        glyphs.extend(unescape(plain).chars().map(Glyph::Char));
        plain.clear();
    };
    for character in text.chars() {
        match character {
            '*' | '?' => {
                end(&mut plain, &mut glyphs);
                glyphs.push(if character == '*' { Glyph::Any } else { Glyph::One });
            }
            other => plain.push(other),
        }
    }
    end(&mut plain, &mut glyphs);
    glyphs
}

/// Linear in the text but for backing up to the last `*`.
fn matches(pattern: &[Glyph], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(Glyph::Any) => {
                star = Some((at, from));
                at += 1;
            }
            Some(Glyph::One) => {
                at += 1;
                from += 1;
            }
            Some(Glyph::Char(wanted)) if *wanted == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((last, start)) = star else { return false };
                star = Some((last, start + 1));
                at = last + 1;
                from = start + 1;
            }
        }
    }
    pattern[at..].iter().all(|glyph| *glyph == Glyph::Any)
}

#[cfg(test)]
mod tests {
    use super::super::{AxisValue, cell_id};
    use super::*;
    use proptest::prelude::*;

    fn cell(pairs: &[(&str, &str)]) -> Cell {
        let values: Vec<_> =
            pairs.iter().map(|(n, v)| (n.to_string(), AxisValue::from(*v))).collect();
        Cell { id: cell_id(&values), values }
    }

    #[test]
    fn selects() {
        let cell = cell(&[("db", "postgres"), ("py", "3.12"), ("opt", "")]);
        for yes in [
            "db=postgres",
            "py=3.*,db=post*",
            "db=p*g?es",
            "postgres",
            "*.12",
            "opt=",
            "d?=postgres",
            " db = postgres , py=3.12",
            "db=*",
        ] {
            assert!(yes.parse::<Filter>().unwrap().selects(&cell), "{yes}");
        }
        for no in ["db=postgre", "db=ostgres", "py=postgres", "db=postgres,py=2.*", "x=postgres"] {
            assert!(!no.parse::<Filter>().unwrap().selects(&cell), "{no}");
        }
        assert!(Filter::default().selects(&cell));
        assert!(Filter::parse(["db=sqlite", "py=3.12"]).unwrap().selects(&cell));
    }

    #[test]
    fn by_what_a_cell_is_made_from() {
        let cell = cell(&[("db", "postgres"), ("from", "debian/12")]);
        assert_eq!(cell.id, "debian/12/db=postgres");
        for yes in
            ["debian/12/db=postgres", "debian/12", "from=debian/*", "deb*/db=p*", "db=postgres"]
        {
            assert!(yes.parse::<Filter>().unwrap().selects(&cell), "{yes}");
        }
        for no in ["debian/11/db=postgres", "debian/11", "alpine/db=postgres", "debian/12/db=x"] {
            assert!(!no.parse::<Filter>().unwrap().selects(&cell), "{no}");
        }
    }

    #[test]
    fn by_where_a_cell_runs() {
        let selects = |cell: &Cell, text: &str| text.parse::<Filter>().unwrap().selects(cell);
        let both = cell(&[("backend", "local"), ("db", "postgres"), ("from", "oci:alpine:3.19")]);
        assert_eq!(both.id, "local:oci:alpine:3.19/db=postgres");
        for yes in [
            "local:oci:alpine:3.19/db=postgres",
            "oci:alpine:3.19/db=postgres",
            "local:oci:alpine:3.19",
            "oci:alpine:3.19",
            "local:*/db=post*",
            "local:",
            "l*:",
            "backend=local",
            "local",
            "local:db=postgres",
        ] {
            assert!(selects(&both, yes), "{yes}");
        }
        for no in ["nas:*/db=postgres", "local:oci:alpine:3.18", "nas:", "local:db=x", "backend=l"]
        {
            assert!(!selects(&both, no), "{no}");
        }
        let plain = cell(&[("backend", "local"), ("db", "postgres")]);
        assert_eq!(plain.id, "local:db=postgres");
        for yes in ["local:db=postgres", "local:", "*:db=postgres", "db=postgres"] {
            assert!(selects(&plain, yes), "{yes}");
        }
        assert!(!selects(&plain, "fake:db=postgres") && !selects(&plain, "local:debian/12"));
        let alone = cell(&[("backend", "local")]);
        assert!(selects(&alone, &alone.id) && !selects(&alone, "fake:"));
    }

    #[test]
    fn refuses_what_says_nothing() {
        for bad in ["", ",", "a=b,", "=x"] {
            let error = bad.parse::<Filter>().unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{bad}");
        }
    }

    #[test]
    fn a_percent_code_is_no_wildcard() {
        let star = cell(&[("glob", "*.c")]);
        let other = cell(&[("glob", "a.c")]);
        let filter: Filter = star.id.parse().unwrap();
        assert!(filter.selects(&star) && !filter.selects(&other));
    }

    fn brute(pattern: &[Glyph], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((Glyph::Any, rest)), _) => {
                (0..=text.len()).any(|skip| brute(rest, &text[skip..]))
            }
            (Some((Glyph::One, rest)), Some((_, text))) => brute(rest, text),
            (Some((Glyph::Char(c), rest)), Some((t, text))) => c == t && brute(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn an_id_selects_its_cell(pairs in prop::collection::btree_map("\\PC{1,8}", ".{0,8}", 1..4)) {
            let pairs: Vec<_> = pairs.iter().filter(|(n, _)| !n.trim().is_empty())
                .map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assume!(!pairs.is_empty());
            let cell = cell(&pairs);
            prop_assert!(cell.id.parse::<Filter>().unwrap().selects(&cell), "{}", cell.id);
        }

        #[test]
        fn globs_match_as_defined(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let characters: Vec<char> = text.chars().collect();
            let pattern = glyphs(&pattern);
            prop_assert_eq!(matches(&pattern, &text), brute(&pattern, &characters));
        }
    }
}
