//! What Tab offers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::command::{self, COMMANDS};
use super::cursor::{Cursor, Link, Open, links, look};
use super::view::Now;
use crate::api::{FnSpec, SandboxObject, Type, Use, Value};
use crate::backend;
use crate::lang;
use crate::sandbox::Cancel;

/// How long Tab may wait for the backend.
const PATIENCE: Duration = Duration::from_millis(500);

/// Something to put in place of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it is called in a list.
    pub shown: String,
    /// What is put there.
    pub text: String,
}

impl Offer {
    fn plain(text: impl Into<String>) -> Offer {
        let text = text.into();
        Offer { shown: text.clone(), text }
    }

    fn of(spec: &FnSpec) -> Offer {
        let end = match (spec.usage, spec.arity()) {
            (Use::Property, _) => "",
            (Use::Call, (_, 0)) => "()",
            (Use::Call, _) => "(",
        };
        Offer { shown: spec.name.into(), text: format!("{}{end}", spec.name) }
    }
}

/// What may stand at the cursor: where the word begins, and what could be there.
pub fn complete(text: &str, now: &Now) -> (usize, Vec<Offer>) {
    if let Some((name, rest)) = command::split(text) {
        let behind = text.trim_start()[1..].contains(char::is_whitespace);
        if !behind {
            let start = text.len() - name.len();
            let offers = COMMANDS.iter().map(|command| Offer::plain(command.name)).collect();
            return finish(&text[start..], start, offers);
        }
        if name != "time" {
            let start = text.len() - rest.len();
            return finish(&text[start..], start, argument(name, rest, now));
        }
        let skipped = text.len() - rest.len();
        let (start, offers) = complete(rest, now);
        return (start + skipped, offers);
    }
    let cursor = look(text, now.lua());
    if cursor.comment {
        return (text.len(), Vec::new());
    }
    let offers = if cursor.quoted {
        quoted(&cursor, &text[cursor.start..], now)
    } else if let Some((of, sign)) = &cursor.of {
        members(of, *sign, now)
    } else {
        options(&cursor, now).unwrap_or_else(|| words(now))
    };
    finish(&text[cursor.start..], cursor.start, offers)
}

/// Those that begin like the word, each once, in order.
fn finish(word: &str, start: usize, mut offers: Vec<Offer>) -> (usize, Vec<Offer>) {
    offers.retain(|offer| offer.text.starts_with(word));
    offers.sort_by(|a, b| a.shown.cmp(&b.shown));
    offers.dedup_by(|a, b| a.shown == b.shown);
    (start, offers)
}

/// What may stand behind a command.
fn argument(name: &str, rest: &str, now: &Now) -> Vec<Offer> {
    match name {
        "backend" => backend::NAMES.iter().map(|name| Offer::plain(*name)).collect(),
        "help" | "h" | "?" => {
            let specs = now.host.registry.specs().iter();
            let names = specs.flat_map(|spec| [Some(spec.name), spec.receiver]).flatten();
            let commands = COMMANDS.iter().map(|command| format!(":{}", command.name));
            names.map(Offer::plain).chain(commands.map(Offer::plain)).collect()
        }
        "lang" => {
            let words = lang::languages().iter().map(|language| language.name().to_lowercase());
            words.map(Offer::plain).collect()
        }
        "load" | "save" | "save!" => files(rest, Path::new(".")),
        _ => Vec::new(),
    }
}

/// The files and folders that `typed` may be the beginning of.
fn files(typed: &str, from: &Path) -> Vec<Offer> {
    let folder = typed.rfind('/').map_or("", |at| &typed[..=at]);
    let home = std::env::var_os("HOME");
    let found = match (folder.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => Path::new(&home).join(below),
        _ => from.join(folder),
    };
    let Ok(entries) = std::fs::read_dir(found) else { return Vec::new() };
    let hidden = typed[folder.len()..].starts_with('.');
    let offer = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let end = if entry.path().is_dir() { "/" } else { "" };
        let shown = format!("{name}{end}");
        let visible = (hidden || !name.starts_with('.')) && !name.contains(char::is_control);
        visible.then(|| Offer { text: format!("{folder}{shown}"), shown })
    };
    entries.flatten().take(10_000).filter_map(offer).collect()
}

/// Functions, variables, words of the language.
fn words(now: &Now) -> Vec<Offer> {
    let registry = &now.host.registry;
    let functions = registry.functions().into_iter().filter_map(|name| registry.function(name));
    let mut offers: Vec<Offer> = now.session.names().into_iter().map(Offer::plain).collect();
    offers.extend(functions.map(|spec| Offer::of(spec)));
    offers.extend(now.session.words().iter().map(|word| Offer::plain(*word)));
    offers.push(Offer { shown: "help".into(), text: "help(".into() });
    offers
}

/// The members of what stands before the sign; of everything, where that is not known.
fn members(of: &str, sign: char, now: &Now) -> Vec<Offer> {
    let usable = |spec: &FnSpec| !now.lua() || (sign == ':') == (spec.usage == Use::Call);
    if let Some(Value::Map(map)) = variable(of, now) {
        let plain = |key: &&String| key.chars().all(|c| c.is_alphanumeric() || c == '_');
        return map.keys().filter(plain).map(Offer::plain).collect();
    }
    let specs = now.host.registry.specs().iter().filter(|spec| usable(spec));
    match kind(&links(of), now) {
        Some(Type::Object(of)) => {
            specs.filter(|spec| spec.receiver == Some(of)).map(|spec| Offer::of(spec)).collect()
        }
        Some(_) => Vec::new(),
        None if of.is_empty() || of.chars().all(|c| c.is_ascii_digit()) => Vec::new(),
        None => specs.filter(|spec| spec.receiver.is_some()).map(|spec| Offer::of(spec)).collect(),
    }
}

fn variable(name: &str, now: &Now) -> Option<Value> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain { now.session.get(name) } else { None }
}

/// The type of a chain such as `sandbox("a").run("ls")`, from the registry and the variables.
fn kind(links: &[Link], now: &Now) -> Option<Type> {
    let (first, rest) = links.split_first()?;
    let mut kind = match first.called {
        true => now.host.registry.function(&first.name)?.returns.clone(),
        false => match variable(&first.name, now)? {
            Value::Handle(handle) => Type::Object(handle.0.type_name()),
            Value::List(items) => match items.first() {
                Some(Value::Handle(handle)) => Type::list(Type::Object(handle.0.type_name())),
                _ => return None,
            },
            Value::String(_) => Type::String,
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => Type::Number,
            _ => return None,
        },
    };
    kind = item(kind, first);
    for link in rest {
        let Type::Object(of) = kind else { return None };
        kind = item(now.host.registry.member(of, &link.name)?.returns.clone(), link);
    }
    (kind != Type::Any).then_some(kind)
}

fn item(kind: Type, link: &Link) -> Type {
    match kind {
        Type::List(of) if link.indexed => *of,
        Type::Option(of) => *of,
        other => other,
    }
}

/// The entries that a bracket may be a call of.
fn called<'a>(open: &Open, now: &'a Now) -> Vec<&'a Arc<FnSpec>> {
    let links = links(&open.before);
    let Some((last, before)) = links.split_last().filter(|_| open.bracket == '(') else {
        return Vec::new();
    };
    let registry = &now.host.registry;
    if before.is_empty() {
        return registry.function(&last.name).into_iter().collect();
    }
    match kind(before, now) {
        Some(Type::Object(of)) => registry.member(of, &last.name).into_iter().collect(),
        Some(_) => Vec::new(),
        None => {
            let named = registry.specs().iter();
            named.filter(|spec| spec.receiver.is_some() && spec.name == last.name).collect()
        }
    }
}

/// The names of options, where the cursor is in an options map and not at a value.
fn options(cursor: &Cursor, now: &Now) -> Option<Vec<Offer>> {
    let [.., call, map] = cursor.open.as_slice() else { return None };
    if map.bracket != '{' || map.key.is_some() {
        return None;
    }
    let specs = called(call, now);
    let options = specs.iter().flat_map(|spec| &spec.options);
    let end = if now.lua() { " = " } else { ": " };
    let offers: Vec<Offer> = options
        .map(|option| Offer { shown: option.name.into(), text: format!("{}{end}", option.name) })
        .collect();
    (!offers.is_empty()).then_some(offers)
}

/// What a text may be: names of sandboxes, labels of snapshots, words.
fn quoted(cursor: &Cursor, typed: &str, now: &Now) -> Vec<Offer> {
    let (call, param) = match cursor.open.as_slice() {
        [.., call, map] if map.bracket == '{' => (call, map.key.clone()),
        [.., call] => (call, None),
        [] => return Vec::new(),
    };
    let specs = called(call, now);
    let mut offers = Vec::new();
    for spec in &specs {
        let (name, ty) = match &param {
            Some(key) => match spec.options.iter().find(|option| option.name == key) {
                Some(option) => (option.name, &option.ty),
                None => continue,
            },
            None => match spec.params.get(call.commas) {
                Some(param) => (param.name, &param.ty),
                None => continue,
            },
        };
        match (spec.name, name) {
            ("push" | "copy", "from") | ("pull", "to") if param.is_none() => {
                offers.extend(files(typed, &now.host.run.project));
            }
            ("open" | "delete", "name") | (_, "from") => offers.extend(sandboxes(now)),
            ("snapshot", _) => {}
            (_, "label") => offers.extend(labels(&call.before, now)),
            (_, "egress") => {
                offers.extend(["none", "unrestricted"].map(Offer::plain));
                offers.extend(now.host.egress().names().map(Offer::plain));
            }
            _ => {
                if let Type::Word(words) = ty {
                    offers.extend(words.iter().map(|word| Offer::plain(*word)));
                }
            }
        }
    }
    offers
}

fn sandboxes(now: &Now) -> Vec<Offer> {
    let backend = Arc::clone(&now.host.run.backend);
    let names = now.wait(PATIENCE, async move {
        let all = backend.list(&Cancel::new()).await.ok()?;
        Some(all.into_iter().map(|info| info.name).collect::<Vec<_>>())
    });
    names.unwrap_or_default().into_iter().map(Offer::plain).collect()
}

/// The labels of the snapshots of the sandbox a method is called on; of all, where it is not known.
fn labels(call: &str, now: &Now) -> Vec<Offer> {
    let receiver = call.rfind(['.', ':']).map_or("", |at| &call[..at]);
    let name = match variable(receiver, now) {
        Some(Value::Handle(handle)) => {
            handle.downcast::<SandboxObject>().and_then(|box_| box_.name().ok().map(String::from))
        }
        _ => None,
    };
    let backend = Arc::clone(&now.host.run.backend);
    let labels = now.wait(PATIENCE, async move {
        let cancel = Cancel::new();
        let snapshots = match name {
            Some(name) => backend.snapshots(&name, &cancel).await.ok()?,
            None => {
                let all = backend.find_snapshots("", &cancel).await.ok()?;
                all.into_iter().map(|(_, snapshot)| snapshot).collect()
            }
        };
        Some(snapshots.into_iter().map(|snapshot| snapshot.label).collect::<Vec<_>>())
    });
    labels.unwrap_or_default().into_iter().map(Offer::plain).collect()
}
