//! Lines for people where nothing can move: logs, pipes, CI.

use std::io;

use super::super::Record;
use super::narrator::Narrator;
use super::{Out, Report, Show, Style};

/// Writes a line for everything that begins and ends, and the table at the end.
pub struct Plain {
    out: Out,
    prints: Option<Out>,
    narrator: Narrator,
}

impl Plain {
    /// A report that writes to `out`. What scripts print goes to `prints` where that is given, so
    /// that it can be piped into another program.
    pub fn new(out: Out, style: Style, prints: Option<Out>) -> Self {
        Plain { out, prints, narrator: Narrator::new(style, 100, true) }
    }

    /// Shows what cells printed of others than those that failed, or of none.
    pub fn show(mut self, show: Show) -> Self {
        self.narrator.show = show;
        self
    }
}

impl Report for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if let (Some(text), Some(prints)) = (super::data(&record.event), &mut self.prints) {
            writeln!(prints, "{text}")?;
            return prints.flush();
        }
        let lines = self.narrator.tell(&record.event);
        write(&mut self.out, lines)
    }

    fn finish(&mut self) -> io::Result<()> {
        let lines = self.narrator.end();
        write(&mut self.out, lines)
    }
}

/// All lines in one write, so that lines of other programs don't come between.
fn write(out: &mut Out, lines: Vec<String>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::super::super::Event;
    use super::super::sample::{Full, Paper, feed, run, trouble};
    use super::*;

    fn plain(style: Style, events: Vec<Event>) -> String {
        let paper = Paper::default();
        let mut report = Plain::new(Box::new(paper.clone()), style, None);
        feed(&mut report, events).unwrap();
        report.finish().unwrap();
        paper.text()
    }

    #[test]
    fn a_whole_run() {
        insta::assert_snapshot!(plain(Style::default(), run()));
    }

    #[test]
    fn trouble_is_told_once() {
        insta::assert_snapshot!(plain(Style::default(), trouble()), @r#"
        base cc from host
        base py from host
          … py 1 waiting for run run-2, which builds it in base-py-1
        … base cc waits for cache 'pip', which sandbox base-py-1 has
          · cc 1 run make                                                 it was never built
          ✗ cc 1 run make                                                 700ms
            │ make: *** [all] Error 1
            make: exit code 2
          base cc was not built
          base py was not built: cancelled
        matrix none the filter selects none of its 3 cells
        opt=-O0,std=c99
        "#);
    }

    #[test]
    fn colour_is_only_colour() {
        let colored = plain(Style { color: true }, run());
        assert!(colored.contains("\x1b["));
        assert_eq!(super::super::style::clean(&colored), plain(Style::default(), run()));
    }

    #[test]
    fn what_a_script_prints_can_go_elsewhere() {
        let (out, prints) = (Paper::default(), Paper::default());
        let elsewhere: Option<Out> = Some(Box::new(prints.clone()));
        let mut report = Plain::new(Box::new(out.clone()), Style::default(), elsewhere);
        let print = |text: &str| Event::Print { text: text.into(), cell: None };
        feed(&mut report, vec![print("{\"a\":\t1}"), Event::warning("careful")]).unwrap();
        assert_eq!(prints.text(), "{\"a\":\t1}\n");
        assert_eq!(out.text(), "warning: careful\n");
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut report = Plain::new(Box::new(Full), Style::default(), None);
        let error = feed(&mut report, run()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
