//! A backend that is worked on, and what was said there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Host, Value};
use crate::cli::{CommandError, Result};
use crate::lang::{self, Language, Session};

/// A backend with the sandboxes that were made on it, and a conversation in each language.
pub struct Place {
    /// The backend's name.
    pub name: String,
    /// Who made the sandboxes.
    pub host: Arc<Host>,
    talks: BTreeMap<&'static str, Talk>,
}

/// A conversation in one language.
pub struct Talk {
    pub session: Arc<dyn Session>,
    /// What was entered and worked.
    pub said: Vec<String>,
}

/// The name of a backend, with the machine that it drives where it drives another one.
pub fn title(backend: &str, host: Option<&str>) -> String {
    match host {
        Some(host) => format!("{backend} {host}"),
        None => backend.to_owned(),
    }
}

impl Place {
    pub fn new(name: String, host: Arc<Host>) -> Place {
        Place { name, host, talks: BTreeMap::new() }
    }

    /// The conversation in a language; begins it when there is none.
    pub fn talk(&mut self, language: &'static dyn Language) -> Result<&mut Talk> {
        use std::collections::btree_map::Entry;
        match self.talks.entry(language.name()) {
            Entry::Occupied(talk) => Ok(talk.into_mut()),
            Entry::Vacant(free) => match language.session(&self.host) {
                Some(session) => Ok(free.insert(Talk { session, said: Vec::new() })),
                None => Err(CommandError::usage(format!("{} has no repl", language.name()))),
            },
        }
    }
}

/// Declares in one conversation the handles that variables of the other hold; their names.
pub fn share(from: &dyn Session, to: &dyn Session) -> Vec<String> {
    let held = |name: &String| match from.get(name) {
        Some(value @ Value::Handle(_)) => Some(value),
        _ => None,
    };
    let mut shared = Vec::new();
    for name in from.names() {
        if let Some(value) = held(&name) {
            to.set(&name, value);
            shared.push(name);
        }
    }
    shared
}

/// The language that a word stands for: its name or the ending of its files.
pub fn language(word: &str) -> Result<&'static dyn Language> {
    let wanted = word.to_lowercase();
    let all = lang::languages();
    let is = |language: &&&dyn Language| {
        language.name().to_lowercase() == wanted || language.extensions().contains(&wanted.as_str())
    };
    all.iter().find(is).copied().ok_or_else(|| {
        let names: Vec<String> = all.iter().map(|one| one.name().to_lowercase()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        CommandError::usage(format!("there is no language '{word}'"))
            .hint(crate::config::suggest(&wanted, &names))
    })
}
