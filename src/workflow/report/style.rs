//! How text looks, and what of a guest's text may be shown.

use super::super::Outcome;

/// How reports for people look. The caller decides: reports ask no environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Colours and bold.
    pub color: bool,
}

impl Style {
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn odd(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// `text` in the colour of an outcome.
    pub(super) fn outcome(self, outcome: Outcome, text: &str) -> String {
        match outcome {
            Outcome::Passed | Outcome::ExpectedFailure => self.good(text),
            Outcome::Failed | Outcome::TimedOut => self.bad(text),
            Outcome::Cancelled | Outcome::Flaky => self.odd(text),
            Outcome::NotRun | Outcome::Skipped => self.dim(text),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }
}

/// The sign of an outcome, one column wide.
pub(super) fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed | Outcome::ExpectedFailure => "✓",
        Outcome::Flaky => "~",
        Outcome::Failed | Outcome::TimedOut => "✗",
        Outcome::Cancelled => "!",
        Outcome::Skipped | Outcome::NotRun => "-",
    }
}

/// A guest's text without what would move the cursor or change the terminal: escape sequences
/// and control characters. Newlines and tabs stay.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => match rest.next() {
                // CSI: up to a final byte.
                Some('[') => while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // OSC and its like: up to BEL or ST.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = rest.next() {
                        if c == '\x07' || (c == '\x1b' && rest.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            // A line that was written over: what the last one left is what was seen.
            '\r' if rest.peek().is_some_and(|c| *c != '\n') => {
                clean.truncate(clean.rfind('\n').map_or(0, |at| at + 1));
            }
            '\n' | '\t' => clean.push(character),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

/// A guest's text as it is shown: clean, and with its own colours where there are any.
pub fn shown(text: &str, style: Style) -> String {
    if !style.color || !text.contains("\x1b[") {
        return clean(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, escape) = rest.split_at(at);
        let body = &escape[2..];
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'));
        match end {
            Some(end) if body[end..].starts_with('m') => {
                shown.push_str(&clean(before));
                shown.push_str(&escape[..2 + end + 1]);
                rest = &body[end + 1..];
            }
            _ => {
                // Not a colour: it goes with what is around it.
                let next = body.find("\x1b[").map_or(rest.len(), |next| at + 2 + next);
                shown.push_str(&clean(&rest[..next]));
                rest = &rest[next..];
            }
        }
    }
    shown.push_str(&clean(rest));
    // What a guest forgot to end would go on in our own words.
    shown
        .lines()
        .map(
            |line| {
                if line.contains('\x1b') { format!("{line}\x1b[0m\n") } else { format!("{line}\n") }
            },
        )
        .collect()
}

/// `text` in at most `width` columns.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// `text` followed by blanks, `width` columns at least.
pub(super) fn pad(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(blanks))
}

/// `1 cell`, `2 cells`.
pub(super) fn plural(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_guest_does_not_move_the_cursor() {
        let text = "a\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07b\x1b]8;;u\x1b\\c\x08\x07\td\r\ne";
        assert_eq!(clean(text), "aredbc\td\ne");
        assert_eq!(clean("x\n10%\r50%\r100%\n"), "x\n100%\n");
        assert_eq!(clean("end\x1b"), "end");
    }

    #[test]
    fn fits() {
        assert_eq!(fit("äöü", 3), "äöü");
        assert_eq!(fit("äöüß", 3), "äö…");
        assert_eq!(pad("ä", 3), "ä  ");
    }

    #[test]
    fn a_guests_colours_are_kept_where_there_are_colours() {
        let color = |color| Style { color };
        let text = "a\x1b[31mred\x1b[2J\x1b[0m\nb \x1b[1mbold\n\x1b]0;t\x07c";
        assert_eq!(shown(text, color(false)), "ared\nb bold\nc");
        assert_eq!(
            shown(text, color(true)),
            "a\x1b[31mred\x1b[0m\x1b[0m\nb \x1b[1mbold\x1b[0m\nc\n"
        );
    }

    proptest! {
        #[test]
        fn only_colours_are_kept(text in "(\x1b|\r|\\[|[0-9;m]|J|\x07|\n|.){0,40}") {
            let shown = shown(&text, Style { color: true });
            for part in shown.split("\x1b[").skip(1) {
                let end = part.trim_start_matches(|c: char| c.is_ascii_digit() || ";:".contains(c));
                prop_assert!(end.starts_with('m'), "{shown:?}");
            }
        }

        #[test]
        fn clean_text_is_clean(text in "(\x1b|\r|\\[|[a-z]|\\]|\x07|\n|.){0,40}") {
            let shown = clean(&text);
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            prop_assert_eq!(clean(&shown), shown);
        }
    }
}
