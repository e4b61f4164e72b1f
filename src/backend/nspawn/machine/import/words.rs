//! Words of a shell, as Python's `shlex.split` reads them: quotes and backslashes, nothing else.

/// Splits a line into words.
///
/// # Errors
/// What is not closed.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        // Before everything else, a backslash stands for itself there.
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a double quote is not closed"),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a double quote is not closed"),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("it ends in a backslash"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_does_it() {
        let all = |line: &str| split(line).unwrap();
        assert_eq!(all("a  b\n c"), ["a", "b", "c"]);
        assert_eq!(all("--bind='/a b':/c"), ["--bind=/a b:/c"]);
        assert_eq!(all(r#"x"a\"b\n"y"#), ["xa\"b\\ny"]);
        assert_eq!(all("a\\ b #c"), ["a b", "#c"]);
        assert_eq!(all("'' \"\""), ["", ""]);
        assert!(all("").is_empty());
        for bad in ["'a", "\"a", "a\\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
