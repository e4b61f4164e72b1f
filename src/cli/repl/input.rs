//! Where entries come from: a person at a terminal, or lines of another program.

use std::io::{self, BufRead};
use std::sync::mpsc;

use tokio::sync::mpsc as answers;

use super::editor::Editor;
use super::view::View;

/// The longest entry: bytes and lines. After each line it is read again.
const MOST: usize = 1 << 20;
const MOST_LINES: usize = 2000;

/// What was entered.
#[derive(Debug)]
pub enum Input {
    /// An entry, of one line or more.
    Entry(String),
    /// Ctrl-C: what was typed is thrown away.
    Interrupted,
    /// There is no more.
    End,
    /// It can't be read.
    Failed(String),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// The next entry in this language, a file ending.
    Entry(&'static str),
    /// The answer to a question.
    Answer(String),
}

/// Reads on a thread of its own, one entry each time it is asked to.
pub struct Reader {
    asks: mpsc::Sender<Ask>,
    answers: answers::UnboundedReceiver<Input>,
}

impl Reader {
    /// From an editor.
    pub fn terminal(mut editor: Editor) -> io::Result<Reader> {
        Reader::start(move |ask| editor.read(&ask))
    }

    /// From standard input, line by line; `view` knows when an entry is whole.
    pub fn lines(view: View) -> io::Result<Reader> {
        Reader::start(move |_| entry(&mut io::stdin().lock(), &view))
    }

    fn start(mut read: impl FnMut(Ask) -> Input + Send + 'static) -> io::Result<Reader> {
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = answers::unbounded_channel();
        let body = move || {
            while let Ok(ask) = asked.recv() {
                if answer.send(read(ask)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("input".into()).spawn(body)?;
        Ok(Reader { asks, answers })
    }

    /// Waits for what was asked for.
    pub async fn read(&mut self, ask: Ask) -> Input {
        if self.asks.send(ask).is_err() {
            return Input::End;
        }
        self.answers.recv().await.unwrap_or(Input::End)
    }
}

/// Lines until they are a whole entry.
fn entry(from: &mut impl BufRead, view: &View) -> Input {
    let mut text = String::new();
    for _ in 0..MOST_LINES {
        let mut line = Vec::new();
        let limit = (MOST + 1 - text.len().min(MOST)) as u64;
        match io::Read::take(&mut *from, limit).read_until(b'\n', &mut line) {
            Ok(0) if text.is_empty() => return Input::End,
            // What is missing is an error when it is run.
            Ok(0) => return Input::Entry(text),
            Ok(_) => {}
            Err(error) => return Input::Failed(format!("standard input can't be read: {error}")),
        }
        match String::from_utf8(line) {
            Ok(line) => text.push_str(&line),
            Err(_) => return Input::Failed("standard input is not UTF-8 text".into()),
        }
        if text.len() > MOST {
            break;
        }
        let whole = super::command::split(&text).is_some()
            || !view.now().session.incomplete(text.trim_end());
        if whole {
            return Input::Entry(text.trim_end_matches(['\n', '\r']).to_owned());
        }
    }
    Input::Failed(format!(
        "an entry of standard input is longer than {MOST_LINES} lines or 1MiB; 'run' takes longer scripts"
    ))
}
