//! Text as systemd reads it: `systemd.syntax(7)`, `systemd.service(5)`, `systemd.unit(5)`.

/// A value of a unit file of which specifiers are expanded, taken as it is.
///
/// Nothing where it can't be said on a line.
pub fn value(text: &str) -> Option<String> {
    let plain = one_line(text)?;
    Some(plain.replace('%', "%%"))
}

/// A word of a command line in a unit file (`ExecStart=`): no specifier, no variable, no separator.
///
/// Nothing for what holds a NUL byte.
pub fn word(text: &str) -> Option<String> {
    if text.contains('\0') {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Some(text.to_owned());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '%' => quoted.push_str("%%"),
            '$' => quoted.push_str("$$"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Some(quoted)
}

/// A word of a unit file where no variables are expanded, so that a dollar is one
/// (`RequiresMountsFor=`).
pub fn plain_word(text: &str) -> Option<String> {
    word(text).map(|word| word.replace("$$", "$"))
}

/// An `Environment=` of a unit file.
pub fn assignment(name: &str, value: &str) -> Option<String> {
    plain_word(&format!("{name}={value}"))
}

/// A word of a list in a `.nspawn` file, where quotes have a meaning and backslashes have none.
///
/// Nothing where it can't be said on a line.
pub fn nspawn_word(text: &str) -> Option<String> {
    let text = one_line_inner(text)?;
    if text.is_empty() {
        return Some("\"\"".into());
    }
    let special = |c: char| c.is_whitespace() || c == '"' || c == '\'';
    let joined = if !text.contains(special) {
        text.to_owned()
    } else if !text.contains('"') {
        format!("\"{text}\"")
    } else {
        // Pieces with one kind of quote each, as in a shell.
        let pieces: Vec<String> = text.split('"').map(|piece| format!("\"{piece}\"")).collect();
        pieces.join("'\"'")
    };
    // A line that ends in one goes on in the next.
    (!joined.ends_with('\\')).then_some(joined)
}

/// A plain value of a `.nspawn` file.
pub fn nspawn_value(text: &str) -> Option<String> {
    one_line(text).map(str::to_owned)
}

/// A line whose ends are its own: systemd drops spaces there, and joins lines at a backslash.
fn one_line(text: &str) -> Option<&str> {
    let text = one_line_inner(text)?;
    (text.trim() == text && !text.ends_with('\\')).then_some(text)
}

fn one_line_inner(text: &str) -> Option<&str> {
    (!text.contains(['\n', '\r', '\0'])).then_some(text)
}

/// A path as the name of a unit, as `systemd-escape --path` makes it.
pub fn unit_path(path: &str) -> String {
    let trimmed = path.trim_matches('/');
    if trimmed.is_empty() {
        return "-".into();
    }
    let parts: Vec<&str> = trimmed.split('/').filter(|part| !part.is_empty()).collect();
    unit_name(&parts.join("/"))
}

/// A text as an instance of a unit, as `systemd-escape` makes it.
pub fn unit_name(text: &str) -> String {
    let mut name = String::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(byte.into()),
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    name
}

/// A word for a person's shell.
pub fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line as systemd splits it: `extract_first_word` with quotes, and C escapes where `escapes`.
    fn split(line: &str, escapes: bool) -> Vec<String> {
        let mut words = Vec::new();
        let mut chars = line.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            if chars.peek().is_none() {
                return words;
            }
            let (mut word, mut quote) = (String::new(), None);
            while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
                match c {
                    '"' | '\'' if quote.is_none() => quote = Some(c),
                    c if quote == Some(c) => quote = None,
                    '\\' if escapes => match chars.next() {
                        Some('n') => word.push('\n'),
                        Some('t') => word.push('\t'),
                        Some('r') => word.push('\r'),
                        Some('x') => {
                            let hex: String = chars.by_ref().take(2).collect();
                            word.push(u8::from_str_radix(&hex, 16).unwrap().into());
                        }
                        Some(c) => word.push(c),
                        None => {}
                    },
                    c => word.push(c),
                }
            }
            assert_eq!(quote, None, "{line}");
            words.push(word);
        }
    }

    proptest! {
        #[test]
        fn a_word_of_a_command_is_read_as_it_was(all in prop::collection::vec("[^\0]{0,12}", 1..5)) {
            let line: Vec<String> = all.iter().map(|one| word(one).unwrap()).collect();
            let line = line.join(" ");
            prop_assert!(!line.contains('\n'));
            let read = split(&line, true);
            let read: Vec<String> = read.iter().map(|one| one.replace("%%", "%").replace("$$", "$")).collect();
            prop_assert_eq!(read, all);
        }

        #[test]
        fn every_specifier_is_escaped(text in "[%$a-z;\" ]{0,16}") {
            let word = word(&text).unwrap();
            for sign in ["%", "$"] {
                let doubled = sign.repeat(2);
                prop_assert!(!word.replace(&doubled, "").contains(sign), "{}", word);
            }
            prop_assert!(word != ";");
        }

        #[test]
        fn a_word_of_a_list_is_read_as_it_was(all in prop::collection::vec("[^\0\r\n]{0,12}", 1..5)) {
            let words: Option<Vec<String>> = all.iter().map(|one| nspawn_word(one)).collect();
            if let Some(words) = words {
                let line = words.join(" ");
                prop_assert!(!line.ends_with('\\'));
                prop_assert_eq!(split(&line, false), all);
            }
        }

        #[test]
        fn a_value_is_one_line(text in "\\PC{0,20}") {
            if let Some(line) = value(&text) {
                prop_assert_eq!(line.replace("%%", "%"), text);
                prop_assert!(!line.ends_with('\\'));
            }
        }

        #[test]
        fn a_unit_name_has_no_other_characters(text in "\\PC{1,20}") {
            let name = unit_path(&text);
            let fine = |c: char| c.is_ascii_alphanumeric() || ":_.\\-".contains(c);
            prop_assert!(name.chars().all(fine), "{}", name);
            prop_assert!(!name.starts_with('.'));
        }

        #[test]
        fn a_shell_reads_a_word_as_it_was(text in "[^\0]{0,16}") {
            let quoted = shell(&text);
            prop_assert_eq!(super::super::super::import::words::split(&quoted).unwrap(), vec![text]);
        }
    }

    #[test]
    fn as_systemd_does_it() {
        assert_eq!(word("/usr/bin/env").unwrap(), "/usr/bin/env");
        assert_eq!(word("a b").unwrap(), "\"a b\"");
        assert_eq!(word("100%$x").unwrap(), "\"100%%$$x\"");
        assert_eq!(word(";").unwrap(), "\";\"");
        assert_eq!(word("").unwrap(), "\"\"");
        assert_eq!(assignment("A", "b $c").unwrap(), "\"A=b $c\"");
        assert_eq!(plain_word("/tank/$a$$/100%").unwrap(), "\"/tank/$a$$/100%%\"");
        assert_eq!(nspawn_word("A=it's \"x\"").unwrap(), r#""A=it's "'"'"x"'"'"""#);
        assert_eq!(nspawn_word("ends\\"), None);
        assert_eq!(nspawn_value(" spaces "), None);
        assert_eq!(unit_path("/tank/my data/.x"), "tank-my\\x20data-.x");
        assert_eq!(unit_path("/"), "-");
        assert_eq!(unit_name("a-b"), "a\\x2db");
    }
}
