//! A `.nspawn` file.

use super::Imported;
use super::draft::Draft;
use super::settings::{From, absorb};
use crate::backend::nspawn::machine::error::{MachineError, Place, Result};
use crate::backend::nspawn::machine::native::{Form, SECTIONS, Settings, by_key};

/// Reads the settings of a file: `systemd.nspawn(5)`. Keys that are not known are kept as they are.
///
/// # Errors
/// `Invalid` with the line that is none of a section, a key with its value, and a comment; for a section
/// that there is not.
pub fn read(file: &str, text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut section: Option<&str> = None;
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let place = Place { file: file.into(), line: at + 1, column: 1 };
        let mut line = line.trim().to_owned();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        while goes_on(&line) {
            line.pop();
            let Some((_, next)) = lines.next() else { break };
            if !next.trim_start().starts_with(['#', ';']) {
                line.push(' ');
                line.push_str(next.trim());
            } else {
                line.push('\\');
            }
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let known = SECTIONS.iter().find(|known| **known == name).copied();
            // Sections that begin so are for other programs, and systemd passes them over.
            if known.is_none() && !name.starts_with("X-") {
                return Err(MachineError::invalid(place, format!("there is no section '{name}'"))
                    .or_hint(format!("there are: {}", SECTIONS.join(", "))));
            }
            section = Some(known.unwrap_or_default());
            continue;
        }
        let Some(section) = section else {
            return Err(MachineError::invalid(place, "this stands before the first section")
                .or_hint("begin with [Exec], [Files] or [Network]"));
        };
        let Some((key, value)) = line.split_once('=') else {
            return Err(MachineError::invalid(place, "this is no key with a value")
                .or_hint("write it as Key=value"));
        };
        if section.is_empty() {
            continue;
        }
        let (key, value) = (key.trim(), value.trim());
        match by_key(section, key).map(|known| known.form) {
            // An empty one takes back what was said before, as everywhere in systemd.
            Some(Form::Many | Form::Words | Form::Rest | Form::Commas) if value.is_empty() => {
                settings.clear(section, key);
            }
            Some(Form::Words | Form::Rest) => {
                for word in words(value) {
                    settings.add(section, key, word);
                }
            }
            _ => settings.add(section, key, value),
        }
    }
    Ok(settings)
}

/// Whether a line ends in a backslash that is not itself behind one.
fn goes_on(line: &str) -> bool {
    line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// Words with quotes, in which a backslash stands for itself.
fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in value.chars() {
        match c {
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            c if quote.is_none() && c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Makes a machine file of it.
///
/// # Errors
/// As [`read`].
pub fn import(file: &str, text: &str, name: &str) -> Result<Imported> {
    let settings = read(file, text)?;
    let mut draft = Draft::default();
    absorb(&settings, From::NspawnFile, &mut draft);
    Ok(Imported {
        name: name.to_owned(),
        text: draft.text(&format!("{name}, as {file} said it.")),
        notes: draft.notes,
    })
}
