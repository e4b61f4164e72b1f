//! The report of a script error as plain text.

use std::fmt::Write;

use super::{Position, ScriptError};

impl ScriptError {
    /// The whole report: message, place, source line with a caret, the user's calls, hint. Ends
    /// with a newline.
    ///
    /// ```text
    /// error: unknown option 'memmory' of sandbox()
    ///   --> x.rhai:3:24
    ///    |
    ///  3 | let box = sandbox("a", #{ memmory: "1GiB" });
    ///    |                           ^^^^^^^
    ///   hint: did you mean 'memory'?
    /// ```
    pub fn render(&self) -> String {
        let mut lines = self.message.lines();
        let mut out = format!("error: {}\n", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "  {line}");
        }
        if let Some(position) = &self.position {
            let _ = writeln!(out, "  --> {position}");
            self.render_source(&mut out, position);
        }
        for frame in &self.trace {
            let _ = match &frame.function {
                Some(name) => writeln!(out, "  in {name}(), called at {}", frame.called_at),
                None => writeln!(out, "  in a function called at {}", frame.called_at),
            };
        }
        for position in &self.imported_at {
            let _ = writeln!(out, "  imported at {position}");
        }
        for (index, line) in self.hint.iter().flat_map(|hint| hint.lines()).enumerate() {
            let _ = writeln!(out, "  {}{line}", if index == 0 { "hint: " } else { "      " });
        }
        out
    }

    fn render_source(&self, out: &mut String, position: &Position) {
        let Some(line) = &self.source_line else { return };
        const WIDTH: usize = 160;
        let chars: Vec<char> = line.chars().collect();
        let column = position.column.min(chars.len() + 1);
        let start = if chars.len() <= WIDTH { 0 } else { column.saturating_sub(WIDTH / 2) };
        let end = chars.len().min(start + WIDTH);
        let clean = |c: &char| if c.is_control() { ' ' } else { *c };
        let text: String = chars[start..end].iter().map(clean).collect();
        let number = position.line.to_string();
        let gap = " ".repeat(number.len() + 1);
        let before = if start > 0 { "…" } else { "" };
        let after = if end < chars.len() { "…" } else { "" };
        let _ = writeln!(out, " {gap}|\n {number} | {before}{}{after}", text.trim_end());
        if position.column > 0 {
            let word = chars
                .iter()
                .skip(column - 1)
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .count()
                .clamp(1, end.saturating_sub(column - 1).max(1));
            let pad = " ".repeat(column - 1 - start + before.chars().count());
            let _ = writeln!(out, " {gap}| {pad}{}", "^".repeat(word));
        }
    }

    /// Sets where it happened and takes the line from `source`. With a [focus](super::Report::focus)
    /// word, looks for that word from the place on, some lines far.
    pub fn locate(&mut self, file: &str, source: &str, line: usize, column: usize) {
        const LINES: usize = 40;
        let (mut line, mut column) = (line, column);
        if let Some(word) = &self.focus {
            for (index, text) in source.lines().enumerate().skip(line - 1).take(LINES) {
                let skip = if index + 1 == line { column.saturating_sub(1) } else { 0 };
                if let Some(found) = find_word(text, word, skip) {
                    (line, column) = (index + 1, found + 1);
                    break;
                }
            }
        }
        self.source_line = source.lines().nth(line - 1).map(str::to_owned);
        self.position = Some(Position { file: file.to_owned(), line, column });
    }
}

/// Where `word` stands alone in `text`, in characters, not before `skip`.
pub(crate) fn find_word(text: &str, word: &str, skip: usize) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).find_map(|(at, _)| {
        let before = text[..at].chars().next_back().is_none_or(|c| !part(c));
        let after = text[at + word.len()..].chars().next().is_none_or(|c| !part(c));
        let column = text[..at].chars().count();
        (before && after && column >= skip).then_some(column)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_alone() {
        assert_eq!(find_word("memory memoryx #{ memory: 1 }", "memory", 7), Some(18));
        assert_eq!(find_word("ä: cpu", "cpu", 0), Some(3));
        assert_eq!(find_word("cpus", "cpu", 0), None);
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let mut error = ScriptError::runtime("no");
        let source = format!("{}bad{}", " ".repeat(500), " x".repeat(500));
        error.locate("f", &source, 1, 501);
        let text = error.render();
        assert!(text.lines().all(|line| line.chars().count() < 180), "{text}");
        assert!(text.contains("^^^"));
    }
}
