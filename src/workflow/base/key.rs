//! What a step's result depends on, as a printable record, and its digest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sandbox::{Capabilities, Capability, Device, Policy};

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
    /// A script of the host, run inside.
    Script {
        /// Digest of the script.
        content: String,
        /// Its arguments.
        args: Vec<String>,
        /// Whether the profile is sourced first.
        login: bool,
        /// As of [`StepInput::Run`].
        stdin: Option<String>,
        /// As of [`StepInput::Run`].
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        secrets: BTreeMap<String, String>,
    },
    /// A file from the network, known by its digest. Where it comes from does not count.
    Fetch {
        /// Where it goes.
        target: String,
        /// Of its bytes.
        sha256: String,
        /// Whose it becomes.
        owner: Option<String>,
        /// Its permission bits.
        mode: Option<u32>,
    },
    /// The tree of a commit. Where it comes from does not count.
    Git {
        /// Where it goes.
        target: String,
        /// The commit's whole id.
        commit: String,
        /// Whose it becomes.
        owner: Option<String>,
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
    /// The machine's devices in it that may show in what it leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// It may run containers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nesting: bool,
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
            self.devices == other.devices,
            self.nesting == other.nesting,
        ];
        let parent = if self.parent == other.parent { 0 } else { same.len() + 1 };
        parent + same.iter().filter(|same| !**same).count()
    }

    /// What changed from `old` to this, as a person would say it; `None` when nothing did.
    pub fn difference(&self, old: &StepKey) -> Option<String> {
        Some(self.changes(old).into_iter().next()?.said)
    }

    /// Everything that changed from `old` to this, what weighs most first.
    pub fn changes(&self, old: &StepKey) -> Vec<Change> {
        let mut changes = Changes::default();
        let text = |text: &str| Some(text.to_owned());
        if self.schema != old.schema {
            changes.add("schema", text(&old.schema.to_string()), text(&self.schema.to_string()));
            changes.say("sandscript makes keys differently now");
        }
        changes.text("backend", "backend", &old.backend, &self.backend);
        changes.text("class", "what the backend can do", &old.class, &self.class);
        changes.text("image", "image", &old.image, &self.image);
        self.step.compare(&old.step, &mut changes);
        let names: BTreeSet<&String> = old.env.keys().chain(self.env.keys()).collect();
        for name in names {
            let (before, now) = (old.env.get(name), self.env.get(name));
            if changes.add(&format!("env.{name}"), before.cloned(), now.cloned()) {
                changes.say(match (before, now) {
                    (None, Some(now)) => format!("env {name} is new: `{}`", short(now)),
                    (Some(_), None) => format!("env {name} is gone"),
                    (before, now) => changed(&format!("env {name}"), before, now),
                });
            }
        }
        changes.option("user", "user", &old.user, &self.user);
        changes.option("cwd", "directory", &old.cwd, &self.cwd);
        let (before, now) = (old.egress.to_string(), self.egress.to_string());
        if before == now && self.egress != old.egress {
            // What a preset stands for is another.
            let differences = crate::egress::changes(&old.egress, &self.egress).join(", ");
            changes.add("egress", text(&before), text(&format!("{now}: {differences}")));
            changes.say(format!("egress changed: `{now}` stands for others now: {differences}"));
        } else {
            changes.text("egress", "egress", &before, &now);
        }
        changes.text("devices", "devices", &listed(&old.devices), &listed(&self.devices));
        let said = |nesting: bool| if nesting { "yes" } else { "no" };
        changes.text("nesting", "nesting", said(old.nesting), said(self.nesting));
        if changes.add("parent", old.parent.clone(), self.parent.clone()) {
            changes.say("an earlier step changed");
        }
        changes.0
    }
}

/// One field that is different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which: `image`, `env.CC`, `step.argv`.
    pub field: String,
    /// What it was; none when it was not there.
    pub old: Option<String>,
    /// What it is now.
    pub new: Option<String>,
    /// As a person would say it.
    pub said: String,
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    /// Notes a field when it is different, which it says.
    fn add(&mut self, field: &str, old: Option<String>, new: Option<String>) -> bool {
        let different = old != new;
        if different {
            let said = changed(field, old.as_ref(), new.as_ref());
            self.0.push(Change { field: field.into(), old, new, said });
        }
        different
    }

    /// Says the last one otherwise.
    fn say(&mut self, said: impl Into<String>) {
        if let Some(last) = self.0.last_mut() {
            last.said = said.into();
        }
    }

    fn text(&mut self, field: &str, what: &str, old: &str, new: &str) {
        if self.add(field, Some(old.into()), Some(new.into())) {
            self.say(changed(what, Some(&old.to_owned()), Some(&new.to_owned())));
        }
    }

    fn option(&mut self, field: &str, what: &str, old: &Option<String>, new: &Option<String>) {
        if self.add(field, old.clone(), new.clone()) {
            self.say(changed(what, old.as_ref(), new.as_ref()));
        }
    }
}

fn listed(devices: &[Device]) -> String {
    match devices {
        [] => "none".to_owned(),
        all => all.iter().map(Device::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn changed(what: &str, old: Option<&String>, new: Option<&String>) -> String {
    let shown = |value: Option<&String>| match value {
        Some(value) => format!("`{}`", short(value)),
        None => "the default".into(),
    };
    format!("{what} changed: {} → {}", shown(old), shown(new))
}

impl StepInput {
    /// Notes what is different: whatever is written of a step is compared, by its name.
    fn compare(&self, old: &StepInput, changes: &mut Changes) {
        if self == old {
            return;
        }
        if self.word() != old.word() {
            changes.add("step.kind", Some(old.word().into()), Some(self.word().into()));
            let (before, now) = (old.word(), self.word());
            changes.say(format!("it was a {before} step and is a {now} step now"));
            return;
        }
        let (before, now) = (fields(old), fields(self));
        let target = now.get("target").cloned().unwrap_or_default();
        // A command and its words weigh most, what is secret least.
        let order = ["argv", "target", "content", "sha256", "commit", "args", "login", "stdin"];
        let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
        names.sort_by_key(|name| {
            let place = order.iter().position(|known| known == name);
            (place.unwrap_or(order.len()), *name)
        });
        names.dedup();
        for name in names {
            let (was, is) = (before.get(name), now.get(name));
            if !changes.add(&format!("step.{name}"), was.cloned(), is.cloned()) {
                continue;
            }
            changes.say(match name.as_str() {
                "argv" => changed("command", was, is),
                "args" => changed("arguments", was, is),
                "commit" => changed("commit", was, is),
                "sha256" => changed("sha256", was, is),
                "target" => changed("target", was, is),
                "login" => {
                    let word = |value: Option<&String>| value.cloned().unwrap_or_default();
                    format!("login changed: {} → {}", word(was), word(is))
                }
                "stdin" => "standard input changed".into(),
                "content" if target.is_empty() => "the script changed".into(),
                "content" => format!("content of {target} changed"),
                "secrets" => {
                    let none = || "none".to_owned();
                    let (was, is) = (was.cloned(), is.cloned());
                    let (was, is) = (was.unwrap_or_else(none), is.unwrap_or_else(none));
                    format!("secrets changed: {was} → {is}")
                }
                _ => format!("mode or owner of {target} changed"),
            });
        }
    }

    /// The word for it in a script.
    pub fn word(&self) -> &'static str {
        match self {
            StepInput::Start => "start",
            StepInput::Run { .. } => "run",
            StepInput::Script { .. } => "script",
            StepInput::Fetch { .. } => "fetch",
            StepInput::Git { .. } => "git",
            StepInput::Copy { .. } => "copy",
            StepInput::Write { .. } => "write",
        }
    }
}

/// What is written of a step, by name, each as a person would write it.
fn fields(step: &StepInput) -> BTreeMap<String, String> {
    let Ok(Value::Object(map)) = serde_json::to_value(step) else { return BTreeMap::new() };
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let shown = |(name, value): (String, Value)| {
        let text = match &value {
            Value::Null => return None,
            Value::Array(items) if name == "argv" || name == "args" => {
                words(&items.iter().map(plain).collect::<Vec<_>>())
            }
            Value::Object(pairs) => {
                let pair =
                    |(variable, name): (&String, &Value)| format!("{variable} is {}", plain(name));
                pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
            }
            Value::Number(mode) if name == "mode" => {
                format!("{:o}", mode.as_u64().unwrap_or_default())
            }
            other => plain(other),
        };
        Some((name, text))
    };
    map.into_iter().filter(|(name, _)| name != "kind").filter_map(shown).collect()
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
            devices: Vec::new(),
            nesting: false,
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
            changed(
                &|k| {
                    k.step = StepInput::Script {
                        content: "c".into(),
                        args: Vec::new(),
                        login: false,
                        stdin: None,
                        secrets: BTreeMap::new(),
                    };
                },
                "it was a run step and is a script step now",
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
            changed(
                &|k| {
                    k.devices = vec![Device {
                        name: "card".into(),
                        kind: crate::sandbox::DeviceKind::Gpu { pci: None },
                    }]
                },
                "devices changed: `none` → `card=gpu`",
            ),
            changed(&|k| k.nesting = true, "nesting changed: `no` → `yes`"),
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
    fn a_preset_that_stands_for_others_is_another_key() {
        let with = |rule: &str| {
            let rules = vec![rule.parse().unwrap(), "git.test".parse().unwrap()];
            let preset = Some(crate::sandbox::Preset { name: "agent".into(), rules });
            let rules = vec!["a.test".parse().unwrap()];
            let egress = Policy::Rules(crate::sandbox::Ruleset { preset, rules });
            StepKey { egress, ..key() }
        };
        let (old, new) = (with("old.test:443"), with("new.test:443"));
        assert_ne!(old.digest(), new.digest());
        assert_eq!(
            new.difference(&old).unwrap(),
            "egress changed: `agent (a.test)` stands for others now: - old.test:443, + new.test:443"
        );
    }

    #[test]
    fn every_field_of_every_step_is_named() {
        let none = BTreeMap::new;
        let text = |text: &str| text.to_owned();
        let named = |old: StepInput, new: StepInput| {
            let (old, new) = (StepKey { step: old, ..key() }, StepKey { step: new, ..key() });
            let changes = new.changes(&old).into_iter();
            changes.map(|change| format!("{}: {}", change.field, change.said)).collect::<Vec<_>>()
        };
        let script = |content: &str, args: &[&str]| StepInput::Script {
            content: text(content),
            args: args.iter().map(|arg| text(arg)).collect(),
            login: false,
            stdin: None,
            secrets: none(),
        };
        assert_eq!(
            named(script("a", &["x"]), script("b", &["x", "y z"])),
            ["step.content: the script changed", "step.args: arguments changed: `x` → `x 'y z'`"]
        );
        let fetch = |target: &str, sha256: &str, mode| StepInput::Fetch {
            target: text(target),
            sha256: text(sha256),
            owner: None,
            mode,
        };
        assert_eq!(
            named(fetch("/a", "1", None), fetch("/b", "2", Some(0o755))),
            [
                "step.target: target changed: `/a` → `/b`",
                "step.sha256: sha256 changed: `1` → `2`",
                "step.mode: mode or owner of /b changed"
            ]
        );
        let git = |commit: &str, owner: Option<&str>| StepInput::Git {
            target: text("/src"),
            commit: text(commit),
            owner: owner.map(text),
        };
        assert_eq!(
            named(git("a1", None), git("b2", Some("u"))),
            [
                "step.commit: commit changed: `a1` → `b2`",
                "step.owner: mode or owner of /src changed"
            ]
        );
        let copy = |content: &str, owner: Option<&str>| StepInput::Copy {
            target: text("/t"),
            content: text(content),
            owner: owner.map(text),
            mode: None,
        };
        assert_eq!(
            named(copy("a", None), copy("b", Some("u"))),
            ["step.content: content of /t changed", "step.owner: mode or owner of /t changed"]
        );
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
