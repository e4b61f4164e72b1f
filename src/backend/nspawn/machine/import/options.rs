//! Options of systemd-nspawn's command line as settings.

use super::draft::Draft;
use crate::backend::nspawn::machine::native::{Form, Settings, by_option};

/// Short options, and the long ones that they stand for. Those without a value have none after them.
const SHORT: &[(&str, &str)] = &[
    ("-b", "boot"),
    ("-x", "ephemeral"),
    ("-a", "as-pid2"),
    ("-n", "network-veth"),
    ("-q", "quiet"),
    ("-U", "private-users=pick"),
    ("-D", "directory"),
    ("-M", "machine"),
    ("-u", "user"),
    ("-E", "setenv"),
    ("-p", "port"),
    ("-S", "slice"),
    ("-j", "link-journal=try-guest"),
];

/// What belongs to whoever starts the machine, and is said anew.
const OURS: &[&str] =
    &["quiet", "keep-unit", "register", "directory", "machine", "settings", "console", "slice"];

/// Options of which a value follows, if need be as a word of its own.
fn takes_value(option: &str) -> bool {
    match by_option(option) {
        Some(known) => !matches!(known.form, Form::Switch),
        None => {
            matches!(option, "directory" | "machine" | "slice" | "property" | "rlimit" | "image")
        }
    }
}

/// Reads the words of a command line. What can't be said in a machine file is noted.
pub fn read(words: &[String], settings: &mut Settings, draft: &mut Draft) {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let long = SHORT.iter().find(|(short, _)| short == word).map(|(_, long)| *long);
        let Some(option) = long.or_else(|| word.strip_prefix("--")).filter(|one| !one.is_empty())
        else {
            // A short option with its value in the same word, as -Ufoo, is rare, and not guessed at.
            draft.note(format!("'{word}' is not taken over: it is no option that is known here"));
            continue;
        };
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None if takes_value(option) => (option, words.next().cloned()),
            None => (option, None),
        };
        one(option, value, settings, draft);
    }
}

fn one(option: &str, value: Option<String>, settings: &mut Settings, draft: &mut Draft) {
    if OURS.contains(&option) {
        return;
    }
    let said = value.as_deref().map_or(String::new(), |value| format!("={value}"));
    match (option, value) {
        ("property", Some(value)) => match value.split_once('=') {
            Some((key, value)) => draft.set(&["unit", "Service", key], value),
            None => draft.note(format!("--property={value} is not taken over: it has no value")),
        },
        ("rlimit", Some(value)) => match value.split_once('=') {
            Some((name, value)) => {
                let key = format!("Limit{}", name.trim_start_matches("RLIMIT_"));
                settings.add("Exec", &key, value);
            }
            None => draft.note(format!("--rlimit={value} is not taken over: it has no value")),
        },
        ("capability" | "drop-capability", Some(value)) => {
            if let Some(known) = by_option(option) {
                value.split(',').for_each(|one| settings.add(known.section, known.key, one));
            }
        }
        (option, value) => match (by_option(option), value) {
            (Some(known), None) if known.form == Form::Switch => {
                settings.set(known.section, known.key, true);
            }
            (Some(known), Some(value)) if known.form != Form::Rest => {
                settings.add(known.section, known.key, value);
            }
            _ => draft.note(format!(
                "--{option}{said} is not taken over: systemd-nspawn's settings have no key for it"
            )),
        },
    }
}
