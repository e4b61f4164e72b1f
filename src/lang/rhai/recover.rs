//! Reading on after a mistake: the statement that can't be read is left out, and the rest read again.

use std::collections::BTreeSet;
use std::ops::Range;

use ::rhai::{AST, Engine, ParseError, ParseErrorType, Position};

use super::pieces::{code_before, pieces, word};

/// After that many, the rest mostly follows from them.
const MISTAKES: usize = 5;
/// How often the rest is read again.
const TRIES: usize = 50;
/// A larger script is not read again.
const LARGEST: usize = 256 << 10;

/// What could be read of a script.
pub(super) struct Recovered {
    /// Its statements without those that are broken.
    pub ast: AST,
    /// What is wrong, in the order in which it was found.
    pub mistakes: Vec<ParseError>,
    /// The words in what was left out.
    pub unread: BTreeSet<String>,
}

struct Text {
    chars: Vec<char>,
    /// What was left out.
    spent: Vec<Range<usize>>,
    unread: BTreeSet<String>,
    semicolons: usize,
}

/// Reads a script in which `first` is wrong as far as it can be read.
pub(super) fn recover(engine: &Engine, script: &str, first: ParseError) -> Recovered {
    let mut text = Text {
        chars: script.chars().collect(),
        spent: Vec::new(),
        unread: BTreeSet::new(),
        semicolons: 0,
    };
    let mut mistakes = Vec::new();
    let mut next = Some(first);
    for _ in 0..TRIES {
        let Some(mistake) = next.take() else { break };
        let at = text.offset(mistake.position());
        let follows = text.spent.iter().any(|range| range.contains(&at));
        if !follows && mistakes.len() < MISTAKES {
            mistakes.push(mistake.clone());
        }
        if script.len() > LARGEST || !(text.semicolon(&mistake, at) || text.leave_out(at)) {
            text.unread.extend(words(&text.chars));
            return Recovered { ast: AST::empty(), mistakes, unread: text.unread };
        }
        match engine.compile(text.chars.iter().collect::<String>()) {
            Ok(ast) => return Recovered { ast, mistakes, unread: text.unread },
            Err(again) => next = Some(again),
        }
    }
    text.unread.extend(words(&text.chars));
    Recovered { ast: AST::empty(), mistakes, unread: text.unread }
}

/// Where the brace stands that is never closed, when that is what is wrong at the end of a script.
pub(super) fn never_closed(script: &str) -> Option<(char, usize)> {
    if script.len() > LARGEST {
        return None;
    }
    let chars: Vec<char> = script.chars().collect();
    let at = pieces(&chars).iter().filter_map(|piece| piece.open).max()?;
    let line = chars[..at].iter().filter(|c| **c == '\n').count() + 1;
    let brace = chars[at..].iter().find(|c| **c != '#')?;
    Some((*brace, line))
}

impl Text {
    fn offset(&self, position: Position) -> usize {
        let (Some(line), column) = (position.line(), position.position().unwrap_or(1)) else {
            return self.chars.len();
        };
        let mut starts = vec![0];
        starts.extend((0..self.chars.len()).filter(|at| self.chars[*at] == '\n').map(|at| at + 1));
        match starts.get(line - 1) {
            Some(start) => (start + column - 1).min(self.chars.len()),
            None => self.chars.len(),
        }
    }

    /// Puts a semicolon where only that is missing.
    fn semicolon(&mut self, mistake: &ParseError, at: usize) -> bool {
        let missing =
            matches!(mistake.err_type(), ParseErrorType::MissingToken(token, _) if token == ";");
        if !missing || self.semicolons >= MISTAKES {
            return false;
        }
        let end = code_before(&self.chars, at);
        if end == 0 || end >= at {
            return false;
        }
        // A word alone, such as another language's `local`, is no statement.
        let begin =
            self.chars[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1);
        let alone = pieces(&self.chars).iter().any(|piece| piece.range.start == begin);
        if alone && self.chars[begin..end].iter().all(|c| word(*c)) {
            return false;
        }
        self.semicolons += 1;
        if self.chars[end] == ' ' {
            // On one line something else may be meant.
            let begin = self.chars[..end].iter().rposition(|c| *c == '\n').unwrap_or(0);
            let line = self.chars[begin..].split(|c| *c == '\n').find(|line| !line.is_empty());
            self.unread.extend(line.map(words).unwrap_or_default());
            self.chars[end] = ';';
            return true;
        }
        // Behind it only the end of the line, or a comment, moves on.
        self.chars.insert(end, ';');
        for range in &mut self.spent {
            range.start += usize::from(range.start >= end);
            range.end += usize::from(range.end > end);
        }
        true
    }

    /// Leaves out the statement around `at`; what its blocks hold stays when they are not the
    /// reason. False when nothing is left to leave out.
    fn leave_out(&mut self, at: usize) -> bool {
        let all = pieces(&self.chars);
        let mut around: Vec<_> = all.iter().filter(|piece| piece.range.contains(&at)).collect();
        if around.is_empty() {
            // The end of the script, or between statements: what stands before it.
            around = all.iter().filter(|piece| piece.range.end <= at.max(1)).collect();
            around.sort_by_key(|piece| (piece.range.end, piece.range.start));
            if let Some(open) =
                all.iter().filter(|piece| piece.open.is_some()).max_by_key(|p| p.open)
            {
                around.push(open);
            }
        } else {
            around.sort_by_key(|piece| piece.range.start);
        }
        around.extend(all.iter().find(|piece| piece.cut && piece.range.end == at));
        around.into_iter().rev().any(|piece| {
            let unclosed = piece.open.is_some_and(|open| !piece.blocks.contains(&(open..open + 1)));
            let blocks = if unclosed { &[][..] } else { &piece.blocks };
            let mut gaps = Vec::new();
            let mut from = piece.range.start;
            for block in blocks {
                gaps.push(from..block.start);
                from = block.end;
                if piece.open == Some(block.start) {
                    // What follows are statements in it.
                    gaps.push(block.clone());
                    from = piece.range.end;
                }
            }
            gaps.push(from..piece.range.end);
            let left_out = gaps.into_iter().filter(|gap| self.blank(gap.clone())).count() > 0;
            left_out || self.blank(piece.range.clone())
        })
    }

    /// Makes spaces of all in the range. False when there was nothing but spaces.
    fn blank(&mut self, range: Range<usize>) -> bool {
        let chars = &mut self.chars[range.clone()];
        if chars.iter().all(|c| c.is_whitespace()) {
            return false;
        }
        self.unread.extend(words(chars));
        chars.iter_mut().filter(|c| **c != '\n').for_each(|c| *c = ' ');
        self.spent.push(range);
        true
    }
}

fn words(chars: &[char]) -> Vec<String> {
    let words = chars.split(|c| !word(*c));
    words.filter(|word| !word.is_empty()).map(|word| word.iter().collect()).collect()
}
