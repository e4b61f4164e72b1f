//! What must not be shown, for a whole run.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::forms::{Form, forms};
use super::{Masker, Secret};
use crate::workflow::Event;

/// What stands in a secret's place.
pub const MASKED: &str = "***";

/// The secrets that a run has used so far, in all the forms they may be printed in.
#[derive(Debug, Default)]
pub struct Mask {
    known: Mutex<Arc<Known>>,
    count: AtomicUsize,
}

/// All forms. What was known once stays at its place.
pub(super) struct Known {
    pub forms: Vec<Form>,
    /// For each byte the forms that may begin with it.
    pub begins: Vec<Vec<u32>>,
    /// The plain values, for looking whether a text holds one.
    secrets: Vec<Secret>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.secrets).finish()
    }
}

impl Default for Known {
    fn default() -> Self {
        Known { forms: Vec::new(), begins: vec![Vec::new(); 256], secrets: Vec::new() }
    }
}

impl Mask {
    /// Masks this one, too, from now on.
    pub fn add(&self, secret: &Secret) {
        let mut current = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if secret.expose().is_empty() || current.secrets.contains(secret) {
            return;
        }
        let mut all = Known {
            forms: current.forms.clone(),
            begins: current.begins.clone(),
            secrets: current.secrets.clone(),
        };
        all.secrets.push(secret.clone());
        for form in forms(secret.expose()) {
            if all.forms.contains(&form) {
                continue;
            }
            let (number, first) = (all.forms.len() as u32, form.bytes[0]);
            let plus = (first == b' ').then_some(b'+');
            for byte in [Some(first), (first != b'%').then_some(b'%'), plus].into_iter().flatten() {
                all.begins[usize::from(byte)].push(number);
            }
            all.forms.push(form);
        }
        self.count.store(all.forms.len(), Ordering::Release);
        *current = Arc::new(all);
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many forms there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The secrets it knows. For a report that has to tell somebody else what to mask.
    pub fn secrets(&self) -> Vec<Secret> {
        self.known().secrets.clone()
    }

    /// The name of a secret that is in `text` as it is; short ones may be there by chance and do
    /// not count.
    pub fn found(&self, text: &str) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let known = self.known();
        let within = |secret: &&Secret| {
            let value = secret.expose().trim_ascii();
            value.len() >= 8 && text.as_bytes().windows(value.len()).any(|part| part == value)
        };
        known.secrets.iter().find(within).map(|secret| secret.name().to_owned())
    }

    /// A text without them.
    pub fn text<'a>(self: &Arc<Self>, text: &'a str) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut masker = Masker::new(Arc::clone(self));
        let mut masked = masker.push(text.as_bytes());
        masked.extend(masker.finish());
        match String::from_utf8(masked) {
            Ok(masked) if masked == text => Cow::Borrowed(text),
            Ok(masked) => Cow::Owned(masked),
            Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        }
    }

    /// Masks a text in place.
    pub fn clean(self: &Arc<Self>, text: &mut String) {
        if let Cow::Owned(masked) = self.text(text) {
            *text = masked;
        }
    }

    /// An event without them, whatever texts it has.
    pub(in crate::workflow) fn event(self: &Arc<Self>, mut event: Event) -> Event {
        if self.is_empty() {
            return event;
        }
        // There are many of these, and they are simple.
        if let Event::StepOutput { text, .. } | Event::CellOutput { text, .. } = &mut event {
            self.clean(text);
            return event;
        }
        let Ok(mut value) = serde_json::to_value(&event) else { return unsayable() };
        if !self.value(&mut value) {
            return event;
        }
        serde_json::from_value(value).unwrap_or_else(|_| unsayable())
    }

    /// Masks the texts of a JSON value, names included; whether there was something to mask.
    pub fn value(self: &Arc<Self>, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.text(text) {
                Cow::Owned(masked) => {
                    *text = masked;
                    true
                }
                Cow::Borrowed(_) => false,
            },
            Value::Array(items) => {
                items.iter_mut().fold(false, |found, item| self.value(item) | found)
            }
            Value::Object(map) => {
                let mut found = false;
                for (name, mut value) in std::mem::take(map) {
                    found |= self.value(&mut value);
                    let masked = self.text(&name);
                    found |= matches!(masked, Cow::Owned(_));
                    map.insert(masked.into_owned(), value);
                }
                found
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

/// Stands for an event that can't be told without a secret.
fn unsayable() -> Event {
    Event::warning("something happened that can't be told without a secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_masked_in_every_text() {
        let mask = Arc::new(Mask::default());
        let event = Event::StepFailed {
            base: "b".into(),
            step: 1,
            title: "run curl -H hunter2".into(),
            duration: std::time::Duration::from_secs(1),
            message: "hunter2 was wrong".into(),
            hint: Some("not hunter2".into()),
            tail: "hunter\nhunter2\n".into(),
        };
        assert_eq!(mask.event(event.clone()), event);
        mask.add(&Secret::new("PASSWORD", *b"hunter2").unwrap());
        let masked = mask.event(event);
        let Event::StepFailed { title, message, hint, tail, .. } = &masked else {
            panic!("{masked:?}")
        };
        assert_eq!((title.as_str(), message.as_str()), ("run curl -H ***", "*** was wrong"));
        assert_eq!((hint.as_deref(), tail.as_str()), (Some("not ***"), "hunter\n***\n"));
        assert!(!format!("{mask:?}").contains("hunter"));
    }

    #[test]
    fn a_short_secret_is_not_looked_for_in_commands() {
        let mask = Mask::default();
        mask.add(&Secret::new("A", *b"test").unwrap());
        mask.add(&Secret::new("B", *b"correct horse").unwrap());
        assert_eq!(mask.found("cargo test"), None);
        assert_eq!(mask.found("echo correct horse!").as_deref(), Some("B"));
    }
}
