//! Rows in columns, as wide as the window.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::output::{Style, paint};

/// No column is made narrower than this, unless its cells are.
const LEAST: usize = 8;
const GAP: usize = 2;

/// A table. `width` is the window's; none when there is no window.
pub fn table(head: &[String], rows: &[Vec<String>], width: Option<usize>, color: bool) -> String {
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.width());
    let natural: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, name)| {
            rows.iter().map(|row| cell(row, column)).chain([name.width()]).max().unwrap_or(0)
        })
        .collect();
    let widths = fit_columns(&natural, width);
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(&pad(&cut(cell, *width), *width + GAP));
        }
        line.trim_end().to_owned()
    };
    let mut out = paint(color, Style::Bold, line(head)) + "\n";
    for row in rows {
        out.push_str(&line(row));
        out.push('\n');
    }
    if widths.len() < head.len() {
        let left: Vec<&str> = head[widths.len()..].iter().map(String::as_str).collect();
        let note = format!("… and {}", left.join(", "));
        out.push_str(&wrap(&note, width.unwrap_or(usize::MAX), 2));
        out.push('\n');
    }
    out
}

/// How wide the columns may be; fewer than there are when not all have room.
fn fit_columns(natural: &[usize], width: Option<usize>) -> Vec<usize> {
    let Some(width) = width else { return natural.to_vec() };
    let least = |columns: &[usize]| -> usize {
        columns.iter().map(|natural| (*natural).min(LEAST) + GAP).sum::<usize>() - GAP
    };
    let mut count = natural.len();
    while count > 1 && least(&natural[..count]) > width {
        count -= 1;
    }
    let mut widths = natural[..count].to_vec();
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
    while !widths.is_empty() && total(&widths) > width {
        let Some(widest) = widths.iter_mut().max() else { break };
        if *widest <= 1 {
            break;
        }
        *widest -= 1;
    }
    widths
}

/// `text` in at most `width` columns, cut where it is longer.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// `text` in lines of at most `width` columns; all but the first begin with `indent` blanks.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if used > 0 && used + 1 + word.width() > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            used = indent;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += word.width();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(width: Option<usize>) -> String {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let rows =
            [row(&["web", "running", "debian/12"]), row(&["größe", "stopped", "日本語のイメージ"])];
        table(&row(&["name", "state", "image"]), &rows, width, false)
    }

    #[test]
    fn wide_and_narrow() {
        insta::assert_snapshot!(sample(None), @"
        name   state    image
        web    running  debian/12
        größe  stopped  日本語のイメージ
        ");
        insta::assert_snapshot!(sample(Some(26)), @"
        name   state    image
        web    running  debian/12
        größe  stopped  日本語の…
        ");
        insta::assert_snapshot!(sample(Some(20)), @"
        name   state
        web    running
        größe  stopped
        … and image
        ");
        insta::assert_snapshot!(sample(Some(4)), @"
        name
        web
        grö…
        …
          and
          state,
          image
        ");
        for width in 1..60 {
            let table = sample(Some(width));
            let lines = table.lines().filter(|line| !line.starts_with(['…', ' ']));
            assert!(lines.into_iter().all(|line| line.width() <= width), "{width}:\n{table}");
        }
    }

    #[test]
    fn long_text() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("unbreakable", 3, 2), "unbreakable");
        assert_eq!(cut("日本語", 4), "日…");
    }
}
