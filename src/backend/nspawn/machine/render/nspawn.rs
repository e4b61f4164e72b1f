//! The `.nspawn` file.

use super::{Result, quote};
use crate::backend::nspawn::machine::error::MachineError;
use crate::backend::nspawn::machine::native::{Form, Settings};

/// The text of the file, without its stamp.
pub fn text(settings: &Settings) -> Result<String> {
    let mut text = String::new();
    let mut section = "";
    for setting in settings.iter() {
        if setting.section != section {
            if !section.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("[{}]\n", setting.section));
            section = &setting.section;
        }
        let unsayable = || MachineError::Host {
            what: format!("{} has a value that a .nspawn file has no way to say", setting.key),
            hint: "it may have no line breaks, no spaces at its ends, and no backslash at its end"
                .into(),
        };
        let form = setting.known().map(|known| known.form);
        let lines: Vec<String> = match form {
            Some(Form::Commas) => {
                let words: Vec<&str> =
                    setting.values.iter().flat_map(|one| one.split([' ', ','])).collect();
                vec![
                    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
                ]
            }
            Some(Form::Words | Form::Rest) => {
                let words: Option<Vec<String>> =
                    setting.values.iter().map(|one| quote::nspawn_word(one)).collect();
                let words = words.ok_or_else(unsayable)?;
                // One a line is easier to read, and the same; what is run is one line.
                if form == Some(Form::Rest) { vec![words.join(" ")] } else { words }
            }
            _ => {
                let lines: Option<Vec<String>> =
                    setting.values.iter().map(|one| quote::nspawn_value(one)).collect();
                lines.ok_or_else(unsayable)?
            }
        };
        for line in lines {
            text.push_str(&format!("{}={line}\n", setting.key));
        }
    }
    Ok(text)
}
