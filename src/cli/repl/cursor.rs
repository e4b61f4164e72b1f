//! Where in an entry the cursor is.

/// What surrounds the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Where the word or the text in quotes begins that the cursor is at the end of.
    pub start: usize,
    /// Whether it is in quotes.
    pub quoted: bool,
    /// Whether it is in a comment.
    pub comment: bool,
    /// What the word is a member of, and the sign between: `box` and `.`.
    pub of: Option<(String, char)>,
    /// The open brackets around it, outermost first.
    pub open: Vec<Open>,
}

/// An open bracket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Which.
    pub bracket: char,
    /// What stands before it: of `(`, what is called.
    pub before: String,
    /// How many commas are behind it.
    pub commas: usize,
    /// The key that a value is written for, in a map.
    pub key: Option<String>,
    /// Where what is behind the last comma or key begins.
    item: usize,
}

fn part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Looks at the text before the cursor. `lua` says how comments and keys are written.
pub fn look(text: &str, lua: bool) -> Cursor {
    let mut open: Vec<Open> = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, character)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match character {
            '"' | '\'' | '`' => {
                let start = at + 1;
                let mut closed = false;
                while let Some((_, inside)) = chars.next() {
                    if inside == '\\' {
                        chars.next();
                    } else if inside == character {
                        closed = true;
                        break;
                    }
                }
                if !closed {
                    return Cursor { start, quoted: true, open, ..Cursor::default() };
                }
            }
            '/' | '-' if (character == '-') == lua && next == Some(character) => {
                let ends = chars.any(|(_, inside)| inside == '\n');
                if ends {
                    continue;
                }
                return Cursor { start: text.len(), comment: true, open, ..Cursor::default() };
            }
            '(' | '[' | '{' => open.push(Open {
                bracket: character,
                before: chain(text[..at].trim_end_matches('#')).to_owned(),
                item: at + 1,
                ..Open::default()
            }),
            ')' | ']' | '}' => drop(open.pop()),
            ',' | ';' => {
                if let Some(open) = open.last_mut() {
                    open.commas += usize::from(character == ',');
                    (open.key, open.item) = (None, at + 1);
                }
            }
            ':' | '=' if (character == '=') == lua && next != Some('=') => {
                if let Some(open) = open.last_mut().filter(|open| open.bracket == '{') {
                    let key = text[open.item..at].trim();
                    if key.chars().all(part) && !key.is_empty() {
                        (open.key, open.item) = (Some(key.to_owned()), at + 1);
                    }
                }
            }
            _ => {}
        }
    }
    let start = text
        .rfind(|c| !part(c))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let sign =
        text[..start].chars().next_back().filter(|sign| *sign == '.' || (lua && *sign == ':'));
    let of = sign.map(|sign| (chain(&text[..start - 1]).to_owned(), sign));
    Cursor { start, of, open, ..Cursor::default() }
}

/// The names, calls and signs that `text` ends in, such as `sandbox("a").run`.
fn chain(text: &str) -> &str {
    let text = text.trim_end();
    let mut start = text.len();
    let mut depth = 0usize;
    for (at, character) in text.char_indices().rev() {
        match character {
            ')' | ']' => depth += 1,
            '(' | '[' if depth > 0 => depth -= 1,
            _ if depth > 0 || part(character) || ".:".contains(character) => {}
            _ => break,
        }
        start = at;
    }
    text[start..].trim_start_matches(['.', ':'])
}

/// A part of a chain: a name, and whether it is called, and whether an item of it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name.
    pub name: String,
    /// `name(…)`.
    pub called: bool,
    /// `name[…]`.
    pub indexed: bool,
}

/// The parts of what [`look`] found before a sign.
pub fn links(chain: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut rest = chain;
    while !rest.is_empty() {
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let mut link = Link { name: rest[..end].to_owned(), called: false, indexed: false };
        rest = &rest[end..];
        while let Some(bracket) = rest.chars().next().filter(|c| "([".contains(*c)) {
            let mut depth = 0;
            let close = rest.char_indices().find(|(_, character)| {
                match character {
                    '(' | '[' => depth += 1,
                    ')' | ']' => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            let (called, indexed) = (bracket == '(', bracket == '[');
            (link.called, link.indexed) = (link.called || called, link.indexed || indexed);
            rest = close.map_or("", |(at, _)| &rest[at + 1..]);
        }
        links.push(link);
        let Some(after) = rest.strip_prefix(['.', ':']) else { break };
        rest = after;
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_members() {
        let cursor = look("let x = box.ru", false);
        assert_eq!((cursor.start, cursor.of), (12, Some(("box".into(), '.'))));
        let cursor = look("sandbox(\"a.b\", #{ cpu: 1 }).clone(\"x\").", false);
        let of = cursor.of.unwrap().0;
        assert_eq!(of, "sandbox(\"a.b\", #{ cpu: 1 }).clone(\"x\")");
        let names: Vec<String> = links(&of).into_iter().map(|link| link.name).collect();
        assert_eq!(names, ["sandbox", "clone"]);
        assert_eq!(
            links("sandboxes()[0]")[0],
            Link { name: "sandboxes".into(), called: true, indexed: true }
        );
        assert_eq!(look("box:ru", true).of, Some(("box".into(), ':')));
        assert_eq!(look("1 + sand", false), Cursor { start: 4, ..Cursor::default() });
    }

    #[test]
    fn quotes_and_brackets() {
        let cursor = look("f(1, box.restore(\"cle", false);
        assert_eq!((cursor.quoted, cursor.start), (true, 18));
        let open: Vec<(&str, usize)> =
            cursor.open.iter().map(|open| (open.before.as_str(), open.commas)).collect();
        assert_eq!(open, [("f", 1), ("box.restore", 0)]);
        let cursor = look("sandbox(\"a\", #{ cpu: 1, from: \"", false);
        assert_eq!(cursor.open[1].key.as_deref(), Some("from"));
        assert_eq!((cursor.open[0].before.as_str(), cursor.open[0].commas), ("sandbox", 1));
        let cursor = look("sandbox(\"a\", { cpu = 1, fr", true);
        assert_eq!((cursor.open[1].key.as_deref(), cursor.start), (None, 24));
        assert!(look("1 // box.", false).comment && look("1 -- box.", true).comment);
        assert!(!look("1 // box.\nx", false).comment);
        assert_eq!(look("", false), Cursor::default());
        assert_eq!(look("größe.", false).of, Some(("größe".into(), '.')));
    }
}
