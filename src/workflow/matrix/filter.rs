//! Which cells run.

use std::str::FromStr;

use crate::sandbox::{Error, Result};

use super::Cell;
use super::id::{FROM, unescape};

/// Which cells run: those that one of its alternatives selects; without any, all.
///
/// An alternative is a list of terms with commas between, and all of them must hold. `db=post*`
/// holds for a cell whose `db` is like that; `postgres` alone for one that has such a value on any
/// axis. `*` stands for any text, `?` for one character, and percent codes for themselves as in
/// [`super::cell_id`], so that a cell's id selects it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    alternatives: Vec<Vec<Term>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    name: Option<Vec<Glyph>>,
    value: Vec<Glyph>,
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
        let holds = |term: &Term| {
            cell.values.iter().any(|(name, value)| {
                term.name.as_ref().is_none_or(|wanted| matches(wanted, name))
                    && matches(&term.value, &value.to_string())
            })
        };
        self.is_empty() || self.alternatives.iter().any(|terms| terms.iter().all(holds))
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
    // `debian/12/db=x`: what is before the first axis says what the cell is made from.
    let first = text.split(',').next().unwrap_or_default();
    let axis = first.find('=').unwrap_or(0);
    let (head, text) = match first[..axis].rfind('/') {
        Some(at) => (Some(text[..at].trim()), &text[at + 1..]),
        None => (None, text),
    };
    let head = head.map(|head| Ok(Term { name: Some(glyphs(FROM)), value: glyphs(head) }));
    let terms = text.split(',').map(|term| {
        let (name, value) = match term.split_once('=') {
            Some((name, value)) => (Some(name.trim()), value.trim()),
            None => (None, term.trim()),
        };
        if name.is_some_and(str::is_empty) || (name.is_none() && value.is_empty()) {
            return Err(wrong());
        }
        Ok(Term { name: name.map(glyphs), value: glyphs(value) })
    });
    head.into_iter().chain(terms).collect()
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
