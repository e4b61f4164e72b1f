//! What becomes of the sandboxes that were made, when a person leaves.

use super::input::{Ask, Input, Reader};
use super::shell::Shell;
use crate::api::suggest;
use crate::cli::CommandError;
use crate::cli::session::Work;
use crate::cli::signals::Interrupts;

/// What a person wants to be kept.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    All,
    Nothing,
    These(Vec<String>),
}

/// Asks what is kept, where something was made; whether to leave then.
pub async fn ask(shell: &mut Shell<'_>, reader: &mut Reader, work: &Work) -> bool {
    let made = match shell.made().await {
        made if made.is_empty() => return true,
        made => made,
    };
    shell.note(&format!("made here: {}", made.join(", ")));
    loop {
        work.signals.interrupt(Interrupts::Nothing);
        let question = Ask::Answer("destroy them? [Y/n, or names to keep]".into());
        let input = tokio::select! {
            input = reader.read(question) => input,
            () = work.cancel.cancelled() => return true,
        };
        let answer = match input {
            Input::Entry(text) => read(&text, &made),
            Input::Interrupted => {
                shell.note("still here");
                return false;
            }
            Input::End | Input::Failed(_) => Ok(Answer::Nothing),
        };
        let keep = match answer {
            Ok(Answer::Nothing) => Vec::new(),
            Ok(Answer::All) => made.clone(),
            Ok(Answer::These(names)) => names,
            Err(error) => {
                shell.error(&error);
                continue;
            }
        };
        if shell.keep(&keep).await {
            return true;
        }
    }
}

fn read(text: &str, made: &[String]) -> Result<Answer, CommandError> {
    let words: Vec<&str> = text.split([' ', ',', '\t']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [] => return Ok(Answer::Nothing),
        [word] if made.iter().all(|name| name != word) => match word.to_lowercase().as_str() {
            "y" | "yes" | "destroy" | "d" => return Ok(Answer::Nothing),
            "n" | "no" | "keep" | "k" => return Ok(Answer::All),
            _ => {}
        },
        _ => {}
    }
    for word in &words {
        if made.iter().all(|name| name != word) {
            let near = suggest::nearest(word, made.iter().map(String::as_str));
            let error = CommandError::usage(format!("'{word}' was not made here"));
            return Err(error.hint(match near {
                Some(near) => format!("did you mean '{near}'?"),
                None => "answer y, n, or the names of those to keep".to_owned(),
            }));
        }
    }
    Ok(Answer::These(words.into_iter().map(String::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let made = ["web".to_owned(), "n".to_owned(), "db".to_owned()];
        let read = |text: &str| read(text, &made).map_err(|error| error.message);
        assert_eq!(read(""), Ok(Answer::Nothing));
        assert_eq!(read(" Yes "), Ok(Answer::Nothing));
        assert_eq!(read("no"), Ok(Answer::All));
        assert_eq!(read("n"), Ok(Answer::These(vec!["n".into()])), "it is a name, too");
        assert_eq!(read("web, db"), Ok(Answer::These(vec!["web".into(), "db".into()])));
        assert_eq!(read("web y"), Err("'y' was not made here".into()));
    }
}
