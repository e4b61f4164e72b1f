//! The grammar of the fake shell: simple commands, quotes, variables, `;`, `&`, `&&`, `||` and
//! redirections. What it does not know it refuses; it never guesses.

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// A variable, and whether it stands in double quotes.
    Var(String, bool),
    /// Quotes around nothing: the word exists even when it is empty.
    Quotes,
}

pub(super) type Word = Vec<Part>;

/// Where a redirection points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// `<`.
    Input(Word),
    /// `>` and `>>` of stream 1 or 2.
    Output { stream: u8, to: Word, append: bool },
    /// `>&2`, `2>&1`.
    Same { stream: u8, as_stream: u8 },
}

/// How a command hangs on the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    First,
    And,
    Or,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Simple {
    pub assignments: Vec<(String, Word)>,
    pub words: Vec<Word>,
    pub redirects: Vec<Redirect>,
}

/// Commands joined by `&&` and `||`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub commands: Vec<(Link, Simple)>,
    pub background: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    Op(&'static str),
    Redirect { stream: Option<u8>, op: &'static str },
}

/// The lists of a script, or what the fake shell does not understand in it.
pub(super) fn parse(script: &str) -> Result<Vec<List>, String> {
    let mut tokens = tokens(script)?.into_iter().peekable();
    let mut lists = Vec::new();
    let mut list = List { commands: Vec::new(), background: false };
    let mut simple = Simple::default();
    let mut link = Link::First;
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => match assignment(&word) {
                Some(found) if simple.words.is_empty() => simple.assignments.push(found),
                _ => simple.words.push(word),
            },
            Token::Redirect { stream, op } => {
                let Some(Token::Word(to)) = tokens.next() else {
                    return Err(format!("nothing follows '{op}'"));
                };
                simple.redirects.push(match op {
                    "<" => Redirect::Input(to),
                    ">" | ">>" => {
                        Redirect::Output { stream: stream.unwrap_or(1), to, append: op == ">>" }
                    }
                    _ => match to.as_slice() {
                        [Part::Text(to)] if to == "1" || to == "2" => Redirect::Same {
                            stream: stream.unwrap_or(1),
                            as_stream: if to == "1" { 1 } else { 2 },
                        },
                        _ => return Err(format!("only 1 and 2 may follow '{op}'")),
                    },
                });
            }
            Token::Op(op) => {
                let empty = simple == Simple::default();
                if empty && (op == "&&" || op == "||" || op == "&" || link != Link::First) {
                    return Err(format!("nothing stands before '{op}'"));
                }
                if !empty {
                    list.commands.push((link, std::mem::take(&mut simple)));
                }
                link = match op {
                    "&&" => Link::And,
                    "||" => Link::Or,
                    _ => {
                        list.background = op == "&";
                        let done = List { commands: Vec::new(), background: false };
                        let done = std::mem::replace(&mut list, done);
                        if !done.commands.is_empty() {
                            lists.push(done);
                        }
                        Link::First
                    }
                };
            }
        }
    }
    Ok(lists)
}

fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Text(text)) = word.first() else { return None };
    let (name, value) = text.split_once('=')?;
    let fine = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(in_name);
    if !fine {
        return None;
    }
    let mut rest = vec![Part::Quotes, Part::Text(value.to_owned())];
    rest.extend_from_slice(&word[1..]);
    Some((name.to_owned(), rest))
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn tokens(script: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = script.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    let next_is = |at: usize, c: char| chars.get(at) == Some(&c);
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            ' ' | '\t' => {}
            '\\' if next_is(at, '\n') => at += 1,
            '#' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '\n' | ';' => out.push(Token::Op(";")),
            '&' if next_is(at, '&') => {
                at += 1;
                out.push(Token::Op("&&"));
            }
            '&' => out.push(Token::Op("&")),
            '|' if next_is(at, '|') => {
                at += 1;
                out.push(Token::Op("||"));
            }
            '<' | '>' => {
                let op = match (c, chars.get(at)) {
                    ('>', Some('>')) => ">>",
                    ('>', Some('&')) => ">&",
                    ('>', _) => ">",
                    ('<', Some('<' | '&' | '>')) => return Err("'<<', '<&' and '<>'".to_owned()),
                    _ => "<",
                };
                at += op.len() - 1;
                out.push(Token::Redirect { stream: None, op });
            }
            '|' | '(' | ')' | '`' => return Err(format!("'{c}'")),
            '1' | '2' if next_is(at, '>') => {
                let op = match chars.get(at + 1) {
                    Some('>') => ">>",
                    Some('&') => ">&",
                    _ => ">",
                };
                at += op.len();
                out.push(Token::Redirect { stream: Some(c as u8 - b'0'), op });
            }
            _ => out.push(Token::Word(word(&chars, &mut at, c)?)),
        }
    }
    out.push(Token::Op(";"));
    Ok(out)
}

fn word(chars: &[char], at: &mut usize, first: char) -> Result<Word, String> {
    let mut word = Word::new();
    let mut text = String::new();
    let mut c = first;
    let flush = |text: &mut String, word: &mut Word| {
        if !text.is_empty() {
            word.push(Part::Text(std::mem::take(text)));
        }
    };
    loop {
        match c {
            '\'' => {
                word_quotes(&mut word, &mut text);
                loop {
                    match chars.get(*at) {
                        Some('\'') => break,
                        Some(&c) => text.push(c),
                        None => return Err("an open quote".to_owned()),
                    }
                    *at += 1;
                }
                *at += 1;
            }
            '"' => {
                word_quotes(&mut word, &mut text);
                loop {
                    let Some(&c) = chars.get(*at) else { return Err("an open quote".to_owned()) };
                    *at += 1;
                    match c {
                        '"' => break,
                        '\\' if chars.get(*at).is_some_and(|c| "\"\\$`\n".contains(*c)) => {
                            if chars[*at] != '\n' {
                                text.push(chars[*at]);
                            }
                            *at += 1;
                        }
                        '`' => return Err("'`'".to_owned()),
                        '$' => match variable(chars, at)? {
                            Some(name) => {
                                flush(&mut text, &mut word);
                                word.push(Part::Var(name, true));
                            }
                            None => text.push('$'),
                        },
                        c => text.push(c),
                    }
                }
            }
            '\\' => match chars.get(*at) {
                Some(&escaped) => {
                    *at += 1;
                    if escaped != '\n' {
                        text.push(escaped);
                    }
                }
                None => text.push('\\'),
            },
            '$' => match variable(chars, at)? {
                Some(name) => {
                    flush(&mut text, &mut word);
                    word.push(Part::Var(name, false));
                }
                None => text.push('$'),
            },
            '*' | '?' | '[' if first != '[' => return Err(format!("'{c}' without quotes")),
            '~' if word.is_empty() && text.is_empty() => return Err("'~'".to_owned()),
            c => text.push(c),
        }
        match chars.get(*at) {
            Some(&next) if !" \t\n;&|<>()`".contains(next) => {
                c = next;
                *at += 1;
            }
            _ => break,
        }
    }
    flush(&mut text, &mut word);
    Ok(word)
}

fn word_quotes(word: &mut Word, text: &mut String) {
    if !text.is_empty() {
        word.push(Part::Text(std::mem::take(text)));
    }
    word.push(Part::Quotes);
}

fn variable(chars: &[char], at: &mut usize) -> Result<Option<String>, String> {
    let Some(&c) = chars.get(*at) else { return Ok(None) };
    let mut name = String::new();
    if c == '{' {
        *at += 1;
        while let Some(&c) = chars.get(*at) {
            *at += 1;
            if c == '}' {
                return Ok(Some(name));
            }
            if !in_name(c) && !"?$!@#".contains(c) {
                return Err(format!("'${{{name}{c}'"));
            }
            name.push(c);
        }
        return Err("an open '${'".to_owned());
    }
    if c == '(' {
        return Err("'$('".to_owned());
    }
    if "?$!@#".contains(c) || c.is_ascii_digit() {
        *at += 1;
        return Ok(Some(c.to_string()));
    }
    while let Some(&c) = chars.get(*at).filter(|c| in_name(**c)) {
        name.push(c);
        *at += 1;
    }
    Ok((!name.is_empty()).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    #[test]
    fn words_and_quotes() {
        let lists = parse(r#"A=1 printf 'a b'"$X c"\ d '' >&2"#).unwrap();
        let (_, simple) = &lists[0].commands[0];
        assert_eq!(simple.assignments, [("A".to_owned(), vec![Part::Quotes, text("1")])]);
        assert_eq!(simple.words.len(), 3);
        let quoted = Part::Var("X".to_owned(), true);
        assert_eq!(
            simple.words[1],
            [Part::Quotes, text("a b"), Part::Quotes, quoted, text(" c d")]
        );
        assert_eq!(simple.words[2], [Part::Quotes]);
        assert_eq!(simple.redirects, [Redirect::Same { stream: 1, as_stream: 2 }]);
    }

    #[test]
    fn lists() {
        let lists = parse("a && b || c; sleep 1 & d # e\nf").unwrap();
        let links: Vec<_> = lists[0].commands.iter().map(|(link, _)| *link).collect();
        assert_eq!(links, [Link::First, Link::And, Link::Or]);
        assert_eq!(lists.len(), 4);
        assert!(lists[1].background && !lists[0].background);
    }

    #[test]
    fn what_it_does_not_know_it_refuses() {
        for script in [
            "a | b",
            "(a)",
            "echo $(a)",
            "echo `a`",
            "ls *",
            "cat << X",
            "echo 'a",
            "&& a",
            "a &&",
            "a >",
            "echo ${A:-1}",
            "cd ~",
        ] {
            assert!(parse(script).is_err(), "{script}");
        }
    }
}
