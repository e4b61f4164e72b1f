//! Help, made from the registry.

use std::fmt::Write;

use super::command::{self, COMMANDS};
use super::table::wrap;
use crate::api::{FnSpec, Registry, Type, Use, Value, suggest};
use crate::cli::{CommandError, Result};
use crate::lang::{Session, spellings};

/// What help is asked with.
pub struct Help<'a> {
    /// What there is.
    pub registry: &'a Registry,
    /// What was declared.
    pub session: &'a dyn Session,
    /// The language, as a file ending.
    pub language: &'a str,
    /// Columns to use.
    pub width: usize,
}

impl Help<'_> {
    /// Help on a word; on everything when it is empty.
    pub fn on(&self, topic: &str) -> Result<String> {
        let topic = topic.trim().trim_end_matches(';').trim();
        let topic = topic.trim_matches(['"', '\'', '`']).trim_end_matches("()").trim();
        if topic.is_empty() {
            return Ok(self.all());
        }
        if let Some(name) = topic.strip_prefix(':') {
            return command::find(name).map(|command| command.help(self.width));
        }
        if let Some((of, name)) = topic.split_once(['.', ':']) {
            return self.member(of, name);
        }
        if let Some(spec) = self.registry.function(topic) {
            return Ok(self.entry(spec));
        }
        if let Some(of) = self.receiver(topic) {
            return Ok(self.members(of));
        }
        let named = self.registry.specs().iter().filter(|spec| spec.name == topic);
        let entries: Vec<String> = named.map(|spec| self.entry(spec)).collect();
        if !entries.is_empty() {
            return Ok(entries.join("\n"));
        }
        if let Some(value) = self.session.get(topic) {
            return Ok(format!(
                "{topic} is a variable of this session, of type {}\n",
                value.type_name()
            ));
        }
        if self.session.words().contains(&topic) {
            return Ok(format!("'{topic}' is a word of the language itself\n"));
        }
        let known = self.registry.specs().iter().map(|spec| spec.name).chain(self.receivers());
        Err(self.unknown(topic, suggest::nearest(topic, known)))
    }

    fn unknown(&self, topic: &str, near: Option<&str>) -> CommandError {
        CommandError::usage(format!("there is no help on '{topic}'")).hint(match near {
            Some(near) => format!("did you mean '{near}'?"),
            None => ":help lists what there is".to_owned(),
        })
    }

    fn receivers(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> =
            self.registry.specs().iter().filter_map(|spec| spec.receiver).collect();
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|name| seen.insert(*name));
        all
    }

    /// The type that a name stands for: its own, or that of the handle in a variable.
    fn receiver(&self, name: &str) -> Option<&'static str> {
        let held = match self.session.get(name) {
            Some(Value::Handle(handle)) => Some(handle.0.type_name()),
            _ => None,
        };
        let same = |of: &&'static str| {
            held.is_some_and(|held| held == *of) || of.eq_ignore_ascii_case(name)
        };
        self.receivers().into_iter().find(same)
    }

    fn member(&self, of: &str, name: &str) -> Result<String> {
        let Some(of) = self.receiver(of) else {
            // A name the manual uses, such as box: nobody has declared it.
            let named: Vec<_> =
                self.registry.specs().iter().filter(|spec| spec.name == name).collect();
            return match named.as_slice() {
                [] => Err(self.unknown(&format!("{of}.{name}"), None)),
                all => Ok(all.iter().map(|s| self.entry(s)).collect::<Vec<_>>().join("\n")),
            };
        };
        match self.registry.member(of, name) {
            Some(spec) => Ok(self.entry(spec)),
            None => {
                let near = suggest::nearest(name, self.registry.members(of));
                let near = near.map(|near| format!("{of}.{near}"));
                Err(self.unknown(&format!("{of}.{name}"), near.as_deref()))
            }
        }
    }

    fn spelling(&self, spec: &FnSpec) -> String {
        let (rhai, lua) = spellings(spec);
        if self.language == "lua" { lua } else { rhai }
    }

    /// A list of names under a heading, in lines that hang below it.
    fn names(&self, out: &mut String, head: &str, names: &[&str]) {
        let text = wrap(&names.join(", "), self.width.saturating_sub(12).max(20), 0);
        for (index, line) in text.lines().enumerate() {
            let head = if index == 0 { head } else { "" };
            let _ = writeln!(out, "{head:<10}  {line}");
        }
    }

    fn all(&self) -> String {
        let mut out = String::new();
        let mut functions = self.registry.functions();
        functions.sort_unstable();
        self.names(&mut out, "functions", &functions);
        for of in self.receivers() {
            self.names(&mut out, of, &self.registry.members(of));
        }
        let commands: Vec<String> =
            COMMANDS.iter().map(|command| format!(":{}", command.name)).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        self.names(&mut out, "commands", &commands);
        let more = "help(sandbox), help(Sandbox.run) or :help :load tell more. Tab completes, the right \
                    arrow takes a hint, Ctrl-C ends a call, Ctrl-D leaves.";
        let _ = writeln!(out, "\n{}", wrap(more, self.width, 0));
        out
    }

    fn members(&self, of: &str) -> String {
        let mut out = String::new();
        for name in self.registry.members(of) {
            let Some(spec) = self.registry.member(of, name) else { continue };
            let call = if spec.usage == Use::Call { "()" } else { "" };
            let head = format!("{of}.{name}{call}");
            let doc = spec.doc.split_inclusive(['.', ';', ':']).next().unwrap_or_default();
            let doc = doc.trim_end_matches(['.', ';', ':']);
            let room = self.width.saturating_sub(28).max(20);
            for (index, line) in wrap(doc, room, 0).lines().enumerate() {
                let head = if index == 0 { head.as_str() } else { "" };
                let _ = writeln!(out, "{head:<26}  {line}");
            }
        }
        out
    }

    fn entry(&self, spec: &FnSpec) -> String {
        let mut out = wrap(&self.spelling(spec), self.width, 4) + "\n";
        let _ = writeln!(out, "  {}", wrap(spec.doc, self.width.saturating_sub(2), 2));
        let mut rows: Vec<(String, String)> = Vec::new();
        for param in &spec.params {
            let mark = if param.optional { "?" } else { "" };
            rows.push((format!("{}{mark}", param.name), about(&param.ty, param.doc)));
        }
        if !spec.options.is_empty() {
            rows.push(("options:".into(), String::new()));
        }
        for option in &spec.options {
            rows.push((format!("  {}", option.name), about(&option.ty, option.doc)));
        }
        if !spec.errors.is_empty() {
            rows.push(("errors:".into(), String::new()));
        }
        for error in &spec.errors {
            rows.push((format!("  {}", error.code), error.when.to_owned()));
        }
        for (name, text) in rows {
            let room = self.width.saturating_sub(20).max(20);
            let mut lines = wrap(&text, room, 0);
            if lines.is_empty() {
                lines.push('\n');
            }
            for (index, line) in lines.lines().enumerate() {
                let name = if index == 0 { name.as_str() } else { "" };
                out.push_str(format!("  {name:<16}  {line}").trim_end());
                out.push('\n');
            }
        }
        let example = if self.language == "lua" { spec.example_lua } else { spec.example };
        if !example.is_empty() {
            out.push_str("  example:\n");
            for line in example.lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
        out
    }
}

fn about(ty: &Type, doc: &str) -> String {
    match ty {
        Type::Callback(_) => doc.to_owned(),
        ty => format!("{}. {doc}", ty.word()),
    }
}

/// The topic when the entry is a call of help, such as `help(box.run)`.
pub fn asked<'a>(entry: &'a str, session: &dyn Session) -> Option<&'a str> {
    let entry = entry.trim().trim_end_matches(';').trim_end();
    let rest = entry.strip_prefix("help")?;
    let topic = match rest.chars().next() {
        None => "",
        Some(' ' | '(') => {
            let rest = rest.trim();
            rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest)
        }
        Some(_) => return None,
    };
    let plain = topic.chars().all(|c| c.is_alphanumeric() || " _.:()\"'`".contains(c));
    (plain && !session.names().iter().any(|name| name == "help")).then_some(topic.trim())
}
