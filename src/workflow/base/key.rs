//! What a step's result depends on, as a printable record, and its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Capabilities, Capability, Policy};

/// The version of [`StepKey`]. It grows when the same script would give another result.
pub const KEY_SCHEMA: u32 = 1;

/// What is done in a step, with digests for contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum StepInput {
    /// Nothing: the base is what it starts from.
    Start,
    /// A command.
    Run {
        /// Exactly what is executed.
        argv: Vec<String>,
        /// Whether the profile is sourced first.
        login: bool,
        /// Digest of its standard input, when it has any; of a secret its name.
        stdin: Option<String>,
        /// The environment variables that are secrets: what each of these is called.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        secrets: BTreeMap<String, String>,
    },
    /// A tree or file of the host.
    Copy {
        /// Where it goes.
        target: String,
        /// Digest of names, modes, links and contents.
        content: String,
        /// Whose it becomes.
        owner: Option<String>,
        /// The mode of a single file.
        mode: Option<u32>,
    },
    /// A file made of given bytes.
    Write {
        /// Where it goes.
        target: String,
        /// Digest of the bytes.
        content: String,
        /// Whose it becomes.
        owner: Option<String>,
        /// Its permission bits.
        mode: Option<u32>,
    },
}

/// Everything a step's result depends on. Limits are no part of it: they decide whether a step
/// succeeds, not what it leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepKey {
    /// [`KEY_SCHEMA`].
    pub schema: u32,
    /// Name of the backend.
    pub backend: String,
    /// What the backend can do that shows in a step's result.
    pub class: String,
    /// What the base starts from: a digest, never an alias.
    pub image: String,
    /// The key of the step before, or of the base this one starts from.
    pub parent: Option<String>,
    /// What is done.
    pub step: StepInput,
    /// The declared environment.
    pub env: BTreeMap<String, String>,
    /// The user it is done as.
    pub user: Option<String>,
    /// The directory it is done in.
    pub cwd: Option<String>,
    /// What it may reach.
    pub egress: Policy,
}

impl StepKey {
    /// The digest of the record: 64 hex digits.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        blake3::Hasher::new_derive_key("sandscript 1 step key")
            .update(&text)
            .finalize()
            .to_hex()
            .to_string()
    }

    /// How many fields are different; another parent weighs more than all others together.
    pub(super) fn distance(&self, other: &StepKey) -> usize {
        let same = [
            self.schema == other.schema,
            self.backend == other.backend,
            self.class == other.class,
            self.image == other.image,
            self.step == other.step,
            self.env == other.env,
            self.user == other.user,
            self.cwd == other.cwd,
            self.egress == other.egress,
        ];
        let parent = if self.parent == other.parent { 0 } else { same.len() + 1 };
        parent + same.iter().filter(|same| !**same).count()
    }

    /// What changed from `old` to this, as a person would say it; `None` when nothing did.
    pub fn difference(&self, old: &StepKey) -> Option<String> {
        let text = |text: &str| format!("`{}`", short(text));
        let option = |value: &Option<String>| match value {
            Some(value) => text(value),
            None => "the default".into(),
        };
        let change =
            |what: &str, old: String, new: String| Some(format!("{what} changed: {old} → {new}"));
        if self.schema != old.schema {
            return Some("sandscript makes keys differently now".into());
        }
        if self.backend != old.backend {
            return change("backend", text(&old.backend), text(&self.backend));
        }
        if self.class != old.class {
            return change("what the backend can do", text(&old.class), text(&self.class));
        }
        if self.image != old.image {
            return change("image", text(&old.image), text(&self.image));
        }
        if let Some(change) = self.step.difference(&old.step) {
            return Some(change);
        }
        for (name, value) in &self.env {
            match old.env.get(name) {
                None => return Some(format!("env {name} is new: {}", text(value))),
                Some(before) if before != value => {
                    return change(&format!("env {name}"), text(before), text(value));
                }
                Some(_) => {}
            }
        }
        if let Some(name) = old.env.keys().find(|name| !self.env.contains_key(*name)) {
            return Some(format!("env {name} is gone"));
        }
        if self.user != old.user {
            return change("user", option(&old.user), option(&self.user));
        }
        if self.cwd != old.cwd {
            return change("directory", option(&old.cwd), option(&self.cwd));
        }
        if self.egress != old.egress {
            return change("egress", text(&old.egress.to_string()), text(&self.egress.to_string()));
        }
        (self.parent != old.parent).then(|| "an earlier step changed".into())
    }
}

impl StepInput {
    fn difference(&self, old: &StepInput) -> Option<String> {
        use StepInput::{Copy, Run, Write};
        if self == old {
            return None;
        }
        Some(match (old, self) {
            (
                Run { argv: a, login: l, secrets: s, .. },
                Run { argv: b, login: m, secrets: t, .. },
            ) => {
                if a != b {
                    format!("command changed: `{}` → `{}`", short(&words(a)), short(&words(b)))
                } else if l != m {
                    format!("login changed: {l} → {m}")
                } else if s != t {
                    format!("secrets changed: {} → {}", named(s), named(t))
                } else {
                    "standard input changed".into()
                }
            }
            (
                Copy { target: a, content: x, .. } | Write { target: a, content: x, .. },
                Copy { target: b, content: y, .. } | Write { target: b, content: y, .. },
            ) if self.word() == old.word() => {
                if a != b {
                    format!("target changed: `{}` → `{}`", short(a), short(b))
                } else if x != y {
                    format!("content of {a} changed")
                } else {
                    format!("mode or owner of {a} changed")
                }
            }
            _ => format!("it was a {} step and is a {} step now", old.word(), self.word()),
        })
    }

    /// The word for it in a script.
    pub fn word(&self) -> &'static str {
        match self {
            StepInput::Start => "start",
            StepInput::Run { .. } => "run",
            StepInput::Copy { .. } => "copy",
            StepInput::Write { .. } => "write",
        }
    }
}

/// Which variables are which secrets, as a person would say it.
fn named(secrets: &BTreeMap<String, String>) -> String {
    if secrets.is_empty() {
        return "none".into();
    }
    let pair = |(variable, name): (&String, &String)| format!("{variable} is {name}");
    secrets.iter().map(pair).collect::<Vec<_>>().join(", ")
}

/// What a backend can do that shows in what a step leaves behind.
pub(super) fn class(capabilities: &Capabilities) -> String {
    let shows = [Capability::Init, Capability::SystemWritable, Capability::Users];
    let words: Vec<&str> =
        shows.iter().filter(|c| capabilities.has(**c)).map(|c| c.as_str()).collect();
    if words.is_empty() { "basic".into() } else { words.join("+") }
}

/// A digest of bytes that go into a key.
pub(super) fn content(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn words(argv: &[String]) -> String {
    match argv {
        [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => line.clone(),
        argv => crate::sandbox::Program::Argv(argv.to_vec()).to_string(),
    }
}

/// One line of at most 60 characters.
pub(super) fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 60 {
        return line;
    }
    let cut: String = line.chars().take(59).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> StepKey {
        StepKey {
            schema: KEY_SCHEMA,
            backend: "local".into(),
            class: "users".into(),
            image: "f1".into(),
            parent: Some("p1".into()),
            step: StepInput::Run {
                argv: vec!["/bin/sh".into(), "-c".into(), "make".into()],
                login: false,
                stdin: None,
                secrets: BTreeMap::new(),
            },
            env: [("A".to_string(), "1".to_string())].into(),
            user: None,
            cwd: None,
            egress: Policy::None,
        }
    }

    /// One change of each field, and what is said about it.
    fn changes() -> Vec<(StepKey, &'static str)> {
        let changed = |change: &dyn Fn(&mut StepKey), said| {
            let mut key = key();
            change(&mut key);
            (key, said)
        };
        let run = |argv: &[&str], login, stdin: Option<&str>| StepInput::Run {
            argv: argv.iter().map(|word| word.to_string()).collect(),
            login,
            stdin: stdin.map(String::from),
            secrets: BTreeMap::new(),
        };
        let make = ["/bin/sh", "-c", "make"];
        vec![
            changed(&|k| k.schema += 1, "sandscript makes keys differently now"),
            changed(&|k| k.backend = "incus".into(), "backend changed: `local` → `incus`"),
            changed(
                &|k| k.class = "basic".into(),
                "what the backend can do changed: `users` → `basic`",
            ),
            changed(&|k| k.image = "f2".into(), "image changed: `f1` → `f2`"),
            changed(&|k| k.parent = None, "an earlier step changed"),
            changed(
                &|k| k.step = run(&["make", "a b"], false, None),
                "command changed: `make` → `make 'a b'`",
            ),
            changed(&|k| k.step = run(&make, true, None), "login changed: false → true"),
            changed(&|k| k.step = run(&make, false, Some("x")), "standard input changed"),
            changed(
                &|k| {
                    if let StepInput::Run { secrets, .. } = &mut k.step {
                        secrets.insert("TOKEN".into(), "CI_TOKEN".into());
                    }
                },
                "secrets changed: none → TOKEN is CI_TOKEN",
            ),
            changed(
                &|k| {
                    let (target, content) = ("/x".into(), "c".into());
                    k.step = StepInput::Write { target, content, owner: None, mode: None };
                },
                "it was a run step and is a write step now",
            ),
            changed(&|k| drop(k.env.insert("A".into(), "2".into())), "env A changed: `1` → `2`"),
            changed(&|k| drop(k.env.insert("B".into(), "2".into())), "env B is new: `2`"),
            changed(&|k| k.env.clear(), "env A is gone"),
            changed(&|k| k.user = Some("u".into()), "user changed: the default → `u`"),
            changed(&|k| k.cwd = Some("/x".into()), "directory changed: the default → `/x`"),
            changed(
                &|k| k.egress = Policy::Unrestricted,
                "egress changed: `none` → `unrestricted`",
            ),
        ]
    }

    #[test]
    fn every_change_is_another_key_and_is_named() {
        let base = key();
        assert_eq!(base.difference(&base), None);
        let mut digests = vec![base.digest()];
        for (key, said) in changes() {
            assert_eq!(key.difference(&base).as_deref(), Some(said));
            digests.push(key.digest());
        }
        digests.sort();
        let before = digests.len();
        digests.dedup();
        assert_eq!(digests.len(), before);
    }

    #[test]
    fn the_digest_stays_what_it_was() {
        insta::assert_snapshot!(serde_json::to_string(&key()).unwrap(), @r#"{"schema":1,"backend":"local","class":"users","image":"f1","parent":"p1","step":{"kind":"run","argv":["/bin/sh","-c","make"],"login":false,"stdin":null},"env":{"A":"1"},"user":null,"cwd":null,"egress":"none"}"#);
        insta::assert_snapshot!(key().digest(), @"5eaa8f871d55fccee4e4c036d83ee3e85284b5c6aeb27aa7fb525d729051658e");
    }

    #[test]
    fn a_record_reads_back() {
        for (key, _) in changes() {
            let text = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<StepKey>(&text).unwrap(), key);
        }
    }

    proptest! {
        #[test]
        fn words_never_run_together(
            a in prop::collection::vec(".{0,4}", 1..4),
            b in prop::collection::vec(".{0,4}", 1..4),
        ) {
            let with = |argv: &Vec<String>| StepKey {
                step: StepInput::Run {
                    argv: argv.clone(),
                    login: false,
                    stdin: None,
                    secrets: BTreeMap::new(),
                },
                ..key()
            };
            prop_assert_eq!(a == b, with(&a).digest() == with(&b).digest());
        }

        #[test]
        fn the_order_of_env_does_not_matter(
            pairs in prop::collection::btree_map("[A-Z]{1,3}", ".{0,4}", 0..6),
        ) {
            let mut forward = key();
            let mut backward = key();
            forward.env = pairs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            backward.env = pairs.iter().rev().map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(forward.digest(), backward.digest());
        }
    }
}
