//! The statements of a text, as far as mistakes in it leave them to be seen.

use std::ops::Range;

/// A statement, by the offsets of its characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// From its first character to behind its last.
    pub range: Range<usize>,
    /// What stands in the blocks that are directly in it, with the braces; of one that is never
    /// closed only the opening one.
    pub blocks: Vec<Range<usize>>,
    /// The innermost brace or bracket in it that is never closed.
    pub open: Option<usize>,
    /// It ends only because another one begins.
    pub cut: bool,
}

impl Piece {
    fn begin(at: usize) -> Piece {
        Piece { range: at..at, blocks: Vec::new(), open: None, cut: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Statements.
    Block,
    /// `(…)` or `[…]`.
    Bracket,
    /// `#{…}`.
    Map,
    /// The cases of a `switch`.
    Switch,
}

struct Frame {
    kind: Kind,
    at: usize,
    /// Of a block: the statement that is being read in it.
    current: Option<usize>,
    /// The last word was `switch`, and its cases did not begin yet.
    switch: bool,
}

impl Frame {
    fn new(kind: Kind, at: usize) -> Frame {
        Frame { kind, at, current: None, switch: false }
    }
}

struct Reader<'a> {
    text: &'a [char],
    pieces: Vec<Piece>,
    frames: Vec<Frame>,
    /// Behind the last character that is no space and in no comment.
    end: usize,
}

/// The statements of the text, those in blocks behind the one that they are in.
pub(super) fn pieces(text: &[char]) -> Vec<Piece> {
    let root = Frame::new(Kind::Block, 0);
    let mut reader = Reader { text, pieces: Vec::new(), frames: vec![root], end: 0 };
    reader.read();
    while reader.frames.len() > 1 {
        let Some(frame) = reader.frames.pop() else { break };
        reader.finish(frame.current, text.len());
        if let Some(around) = reader.current() {
            let piece = &mut reader.pieces[around];
            piece.open = piece.open.or(Some(frame.at));
            piece.range.end = text.len();
            if frame.kind == Kind::Block {
                piece.blocks.push(frame.at..frame.at + 1);
            }
        }
    }
    let last = reader.frames[0].current;
    reader.finish(last, text.len());
    reader.pieces
}

/// Behind the last character before `at` that is no space and in no comment.
pub(super) fn code_before(text: &[char], at: usize) -> usize {
    let root = Frame::new(Kind::Block, 0);
    let text = &text[..at.min(text.len())];
    let mut reader = Reader { text, pieces: Vec::new(), frames: vec![root], end: 0 };
    reader.read();
    reader.end
}

impl Reader<'_> {
    fn read(&mut self) {
        let mut at = 0;
        while let Some(&c) = self.text.get(at) {
            let next = self.text.get(at + 1).copied();
            at = match (c, next) {
                (c, _) if c.is_whitespace() => at + 1,
                ('/', Some('/')) => self.line_end(at),
                ('/', Some('*')) => self.comment(at),
                _ => {
                    let after = self.token(at, c, next);
                    self.end = after;
                    after
                }
            };
        }
    }

    /// Reads what begins at `at`, and says where the next begins.
    fn token(&mut self, at: usize, c: char, next: Option<char>) -> usize {
        if c == '}' {
            return self.close_brace(at);
        }
        if c == ';' {
            self.unwind(at + 1);
            return at + 1;
        }
        if self.begins_statement(at) {
            if let Some(current) = self.current() {
                self.pieces[current].cut = true;
            }
            self.unwind(at);
        }
        self.begin(at);
        match (c, next) {
            ('"', _) => self.string(at),
            ('\'', _) => {
                let end = (at + 1..self.line_end(at)).find(|&end| {
                    self.text[end] == '\'' && (self.text[end - 1] != '\\' || end == at + 3)
                });
                end.map_or(at + 1, |end| end + 1)
            }
            ('`', _) => literal(self.text, at, 0).unwrap_or_else(|| {
                let end = self.line_end(at);
                self.unwind(end);
                end
            }),
            ('#', Some('{')) => self.open(Kind::Map, at, 2),
            ('#', Some('"' | '#')) => raw(self.text, at).unwrap_or(at + 1),
            ('(' | '[', _) => self.open(Kind::Bracket, at, 1),
            (')' | ']', _) => {
                let open = self.frames.iter().rposition(|frame| frame.kind == Kind::Bracket);
                let block = self.frames.iter().rposition(|frame| frame.kind == Kind::Block);
                if let Some(open) = open.filter(|open| Some(*open) > block) {
                    self.frames.truncate(open);
                }
                at + 1
            }
            ('{', _) => {
                let switch = self.frames.last().is_some_and(|frame| frame.switch);
                self.frames.iter_mut().for_each(|frame| frame.switch = false);
                self.open(if switch { Kind::Switch } else { Kind::Block }, at, 1)
            }
            (c, _) if word(c) => {
                let end = self.word_end(at);
                if self.is(at..end, "switch")
                    && let Some(frame) = self.frames.last_mut()
                {
                    frame.switch = true;
                }
                end
            }
            _ => at + 1,
        }
    }

    /// Whether a line begins here with a word that stands in no expression.
    fn begins_statement(&self, at: usize) -> bool {
        const WORDS: [&str; 6] = ["const", "export", "fn", "import", "let", "private"];
        let open = self.current().is_some();
        let before = self.text[..at].iter().rev().find(|c| **c == '\n' || !c.is_whitespace());
        let here = at..self.word_end(at);
        open && before == Some(&'\n') && WORDS.iter().any(|word| self.is(here.clone(), word))
    }

    /// The statement that is being read in the innermost block.
    fn current(&self) -> Option<usize> {
        self.frames.iter().rev().find(|frame| frame.kind == Kind::Block)?.current
    }

    /// Something of a statement stands here.
    fn begin(&mut self, at: usize) {
        let count = self.pieces.len();
        if let Some(frame) = self.frames.last_mut()
            && frame.kind == Kind::Block
            && frame.current.is_none()
        {
            frame.current = Some(count);
            self.pieces.push(Piece::begin(at));
        }
    }

    fn finish(&mut self, piece: Option<usize>, end: usize) {
        if let Some(piece) = piece {
            self.pieces[piece].range.end = end;
        }
    }

    /// The statement ends here, whatever is open in it.
    fn unwind(&mut self, end: usize) {
        let block = self.frames.iter().rposition(|frame| frame.kind == Kind::Block);
        self.frames.truncate(block.unwrap_or(0) + 1);
        if let Some(frame) = self.frames.last_mut() {
            frame.switch = false;
            let current = frame.current.take();
            self.finish(current, end);
        }
    }

    fn open(&mut self, kind: Kind, at: usize, length: usize) -> usize {
        self.frames.push(Frame::new(kind, at));
        at + length
    }

    fn close_brace(&mut self, at: usize) -> usize {
        let found = self.frames.iter().skip(1).rposition(|frame| frame.kind != Kind::Bracket);
        let Some(found) = found.map(|found| found + 1) else {
            // It closes nothing: a statement of its own.
            self.unwind(at);
            self.pieces.push(Piece { range: at..at + 1, ..Piece::begin(at) });
            return at + 1;
        };
        self.frames.truncate(found + 1);
        let Some(frame) = self.frames.pop() else { return at + 1 };
        self.finish(frame.current, at);
        if frame.kind == Kind::Block
            && let Some(around) = self.current()
        {
            self.pieces[around].blocks.push(frame.at..at + 1);
        }
        let statement = self.frames.last().filter(|frame| frame.kind == Kind::Block);
        if frame.kind != Kind::Map
            && let Some(current) = statement.and_then(|frame| frame.current)
            && self.ends_with_block(current, at + 1)
        {
            self.unwind(at + 1);
        }
        at + 1
    }

    /// Whether a statement needs no semicolon behind its block, which ends at `at`.
    fn ends_with_block(&self, piece: usize, at: usize) -> bool {
        const FIRST: [&str; 9] =
            ["do", "fn", "for", "if", "loop", "private", "switch", "try", "while"];
        let start = self.pieces[piece].range.start;
        let first = start..self.word_end(start);
        if self.text[start] != '{' && !FIRST.iter().any(|word| self.is(first.clone(), word)) {
            return false;
        }
        let mut next = at;
        while self.text.get(next).is_some_and(|c| c.is_whitespace()) {
            next += 1;
        }
        let next = next..self.word_end(next);
        let more: &[&str] = match () {
            () if self.is(first.clone(), "if") => &["else"],
            () if self.is(first.clone(), "try") => &["catch"],
            () if self.is(first, "do") => &["while", "until"],
            () => &[],
        };
        !more.iter().any(|word| self.is(next.clone(), word))
    }

    fn is(&self, range: Range<usize>, text: &str) -> bool {
        range.len() == text.len() && self.text[range].iter().copied().eq(text.chars())
    }

    fn word_end(&self, at: usize) -> usize {
        let rest = self.text[at.min(self.text.len())..].iter();
        at + rest.take_while(|c| word(**c)).count()
    }

    fn line_end(&self, at: usize) -> usize {
        at + self.text[at..].iter().take_while(|c| **c != '\n').count()
    }

    /// Behind a comment, which may hold others.
    fn comment(&self, mut at: usize) -> usize {
        let mut depth = 0;
        while at < self.text.len() {
            match (self.text[at], self.text.get(at + 1)) {
                ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
                ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
            if depth == 0 {
                return at;
            }
        }
        at
    }

    /// Behind a string. One that is not closed ends with the line, and its statement with it.
    fn string(&mut self, start: usize) -> usize {
        let mut at = start + 1;
        while let Some(c) = self.text.get(at) {
            match c {
                '"' => return at + 1,
                '\\' => at += 2,
                '\n' => break,
                _ => at += 1,
            }
        }
        let end = at.min(self.text.len());
        self.unwind(end);
        end
    }
}

/// How deep texts may be in texts.
const DEEPEST: usize = 16;

/// Behind a text in back-ticks, with `${…}` in it; none when it is not closed.
fn literal(text: &[char], start: usize, depth: usize) -> Option<usize> {
    let mut at = start + 1;
    let mut braces = 0usize;
    while let Some(c) = text.get(at) {
        at = match (c, braces) {
            ('`', 0) => return Some(at + 1),
            ('`', _) if depth < DEEPEST => literal(text, at, depth + 1)?,
            ('$', 0) if text.get(at + 1) == Some(&'{') => {
                braces = 1;
                at + 2
            }
            ('{', 1..) => {
                braces += 1;
                at + 1
            }
            ('}', 1..) => {
                braces -= 1;
                at + 1
            }
            ('"', 1..) => {
                let mut end = at + 1;
                while text.get(end).is_some_and(|c| !matches!(c, '"' | '\n')) {
                    end += if text[end] == '\\' { 2 } else { 1 };
                }
                end + 1
            }
            _ => at + 1,
        };
    }
    None
}

/// Behind a raw string: `#"…"#`.
fn raw(text: &[char], start: usize) -> Option<usize> {
    let hashes = text[start..].iter().take_while(|c| **c == '#').count();
    if text.get(start + hashes) != Some(&'"') {
        return None;
    }
    let closes = |at: &usize| {
        let behind = text.get(at + 1..at + 1 + hashes);
        text[*at] == '"' && behind.is_some_and(|behind| behind.iter().all(|c| *c == '#'))
    };
    (start + hashes + 1..text.len()).find(closes).map(|at| at + 1 + hashes)
}

pub(super) fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let text: Vec<char> = text.chars().collect();
        let own = |range: &Range<usize>| text[range.clone()].iter().collect::<String>();
        pieces(&text)
            .iter()
            .map(|piece| {
                let blocks: Vec<String> = piece.blocks.iter().map(own).collect();
                let open = piece.open.map(|at| format!(" open at {at}")).unwrap_or_default();
                format!("{}|{}{open}", own(&piece.range), blocks.join("|"))
            })
            .collect()
    }

    #[test]
    fn statements_and_blocks() {
        assert_eq!(read("let a = 1; b(2)"), ["let a = 1;|", "b(2)|"]);
        assert_eq!(
            read("if a { b; } else { c } d"),
            ["if a { b; } else { c }|{ b; }|{ c }", "b;|", "c |", "d|"]
        );
        assert_eq!(
            read("let a = if b { 1 } else { 2 }; c"),
            ["let a = if b { 1 } else { 2 };|{ 1 }|{ 2 }", "1 |", "2 |", "c|"]
        );
        assert_eq!(
            read("f(#{ a: 1, b: [2] }, |c| { d; });"),
            ["f(#{ a: 1, b: [2] }, |c| { d; });|{ d; }", "d;|"]
        );
        assert_eq!(
            read("switch a { 1 => b, _ => { c; } } d"),
            ["switch a { 1 => b, _ => { c; } }|{ c; }", "c;|", "d|"]
        );
        assert_eq!(read("do { a } while b; try { c } catch { d }").len(), 5);
    }

    #[test]
    fn what_hides_braces() {
        assert_eq!(
            read("a(\"{;\", '{', `;{${b({ c }) + `}`}`); // {\n/* { /* */ { */ d"),
            ["a(\"{;\", '{', `;{${b({ c }) + `}`}`);|", "d|"]
        );
        assert_eq!(read("a(#\"{;\"#, \"\\\"{\", '\\'');"), ["a(#\"{;\"#, \"\\\"{\", '\\'');|"]);
    }

    #[test]
    fn what_is_broken() {
        assert_eq!(read("a(1; b"), ["a(1;|", "b|"]);
        assert_eq!(read("f(\"abc);\nb"), ["f(\"abc);|", "b|"]);
        assert_eq!(read("f(`abc);\nb"), ["f(`abc);|", "b|"]);
        assert_eq!(read("a([1,\nlet b = 1;"), ["a([1,\n|", "let b = 1;|"]);
        assert_eq!(
            read("a(\nfn b() {\nlet c = 1; }"),
            ["a(\n|", "fn b() {\nlet c = 1; }|{\nlet c = 1; }", "let c = 1;|"]
        );
        assert_eq!(read("a; } b"), ["a;|", "}|", "b|"]);
        assert_eq!(read("if a { b; c"), ["if a { b; c|{ open at 5", "b;|", "c|"]);
        assert_eq!(read("f(1"), ["f(1| open at 1"]);
    }
}
