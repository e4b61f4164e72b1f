//! Egress in the settings: presets, the operator's own mirrors, and profiles.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Config, ConfigError, suggest};
use crate::egress::{Asked, Catalog, PresetSpec, Profile, builtin};
use crate::sandbox::{Error, Rule};

/// `[egress]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// `[egress.presets.NAME]`, by name. Both files count.
    pub presets: BTreeMap<String, PresetConfig>,
    /// `[egress.registries]`: only the user's.
    pub registries: Option<RegistriesConfig>,
}

/// A preset of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresetConfig {
    /// Other presets that belong to it.
    pub include: Vec<String>,
    /// Rules that allow.
    pub allow: Vec<String>,
    /// Rules that deny, in front of those.
    pub deny: Vec<String>,
}

/// What `registries` is beside what the guest's tools say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// The operator's own mirrors.
    pub allow: Vec<String>,
    /// Whether the guest's tools are asked; they are when not said.
    pub ask: Option<bool>,
}

/// `[profiles.NAME]`: what an operator lays down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileConfig {
    /// The policy of what is made from an image and names none.
    pub egress: Option<PolicyConfig>,
    /// What no policy allows.
    pub forbid: Vec<String>,
}

/// A policy as a script writes it: a word, a list of rules, or a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a word, a list of rules, or { preset, allow, deny }")]
pub enum PolicyConfig {
    /// `"agent"`.
    Word(String),
    /// `["example.com"]`.
    List(Vec<String>),
    /// `{ preset = "agent", deny = ["example.com"] }`.
    Table(PolicyTable),
}

/// A policy as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyTable {
    /// The preset.
    pub preset: Option<String>,
    /// What is allowed beside it.
    pub allow: Vec<String>,
    /// What is not.
    pub deny: Vec<String>,
}

impl PolicyConfig {
    fn asked(&self) -> crate::sandbox::Result<Asked> {
        match self {
            PolicyConfig::Word(word) => Asked::word(word),
            PolicyConfig::List(rules) => Asked::list(rules),
            PolicyConfig::Table(PolicyTable { preset, allow, deny }) => {
                Asked::merged(preset.as_deref(), allow, deny)
            }
        }
    }
}

/// The profile that is there without being set up.
const AGENTS: &str = "agents";

/// Where a setting is wrong, before its file is known.
fn wrong(place: &str, error: &Error) -> ConfigError {
    let text = error.to_string();
    let text = text.strip_prefix("egress: ").unwrap_or(&text);
    let message = format!("{place}: {text}");
    ConfigError { path: Default::default(), at: None, message, hint: error.hint() }
}

fn rules(place: &str, texts: &[String]) -> Result<Vec<Rule>, ConfigError> {
    texts.iter().map(|text| text.parse().map_err(|error| wrong(place, &error))).collect()
}

impl Config {
    /// Reads every rule in a file, so that a mistake is told where it stands.
    pub(super) fn check_egress(&self) -> Result<(), ConfigError> {
        self.own_presets()?;
        if let Some(registries) = &self.egress.registries {
            rules("egress.registries.allow", &registries.allow)?;
        }
        self.own_profiles().map(drop)
    }

    /// A project is somebody else's word: it may add presets for its scripts to name, and change none
    /// of what else is said about egress.
    pub(super) fn check_project_egress(
        &self,
        path: &Path,
        user: &Config,
        user_file: Option<&Path>,
    ) -> Result<(), ConfigError> {
        let ours = builtin();
        let taken = self
            .egress
            .presets
            .keys()
            .find(|name| ours.contains_key(*name) || user.egress.presets.contains_key(*name));
        let profile = self
            .egress
            .presets
            .keys()
            .find(|name| *name == AGENTS || user.profiles.contains_key(*name));
        let message = if let Some(name) = profile {
            format!("egress.presets.{name}: a project file may not take the name of a profile")
        } else if let Some(name) = taken {
            let whose = if user.egress.presets.contains_key(name) { "your" } else { "the" };
            format!("egress.presets.{name}: a project file may not change {whose} preset '{name}'")
        } else if self.egress.registries.is_some() {
            "egress.registries: a project file may not say what 'registries' is".into()
        } else if self.profile.is_some() {
            "profile: a project file may not choose the profile".into()
        } else if let Some(name) = self.profiles.keys().next() {
            format!("profiles.{name}: a project file may not set up a profile")
        } else {
            return Ok(());
        };
        let file =
            user_file.map_or("your own config.toml".into(), |file| file.display().to_string());
        let hint = match taken.or(profile) {
            Some(_) => format!("give the project's preset another name, or put it into {file}"),
            None => format!("put it into {file}"),
        };
        Err(ConfigError { path: path.to_owned(), at: None, message, hint: Some(hint) })
    }

    fn own_presets(&self) -> Result<BTreeMap<String, PresetSpec>, ConfigError> {
        let one = |(name, preset): (&String, &PresetConfig)| {
            let place = format!("egress.presets.{name}");
            match Asked::word(name) {
                Ok(Asked::Rules { .. }) => {}
                _ => {
                    let hint = "use a-z, 0-9, '-' and '_', a letter in front, and neither \"none\", \
                                \"allowlist\" nor \"unrestricted\"";
                    let error =
                        Error::invalid_hint("egress", "this can't be a preset's name", hint);
                    return Err(wrong(&place, &error));
                }
            }
            let PresetConfig { include, allow, deny } = preset;
            let spec = PresetSpec::new(include.clone(), allow, deny);
            Ok((name.clone(), spec.map_err(|error| wrong(&place, &error))?))
        };
        self.egress.presets.iter().map(one).collect()
    }

    fn own_profiles(&self) -> Result<BTreeMap<String, Profile>, ConfigError> {
        let one = |(name, profile): (&String, &ProfileConfig)| {
            let place = format!("profiles.{name}");
            if builtin().contains_key(name) || self.egress.presets.contains_key(name) {
                let hint = "give it another name: a policy may be written as the name of either";
                let error = Error::invalid_hint("egress", "a preset has this name", hint);
                return Err(wrong(&place, &error));
            }
            let egress = profile.egress.as_ref().map(PolicyConfig::asked).transpose();
            let egress = egress.map_err(|error| wrong(&format!("{place}.egress"), &error))?;
            let forbid = rules(&format!("{place}.forbid"), &profile.forbid)?;
            Ok((name.clone(), Profile { name: name.clone(), egress, forbid }))
        };
        self.profiles.iter().map(one).collect()
    }

    /// What all this means, with the profile of this name where another one than the settings' is
    /// wanted.
    pub fn catalog(&self, profile: Option<&str>) -> Result<Catalog, ConfigError> {
        let mut profiles = self.own_profiles()?;
        profiles.entry(AGENTS.into()).or_insert_with(|| Profile {
            name: AGENTS.into(),
            egress: Asked::word("agent").ok(),
            forbid: Vec::new(),
        });
        let profile = match profile.or(self.profile.as_deref()) {
            None => None,
            Some(name) => match profiles.get(name) {
                Some(profile) => Some(profile.clone()),
                None => {
                    let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
                    return Err(ConfigError {
                        path: Default::default(),
                        at: None,
                        message: format!("there is no profile '{name}'"),
                        hint: Some(suggest(name, &known)),
                    });
                }
            },
        };
        let registries = self.egress.registries.clone().unwrap_or_default();
        let mirrors = rules("egress.registries.allow", &registries.allow)?;
        let catalog = Catalog::default()
            .presets(self.own_presets()?)
            .registries(mirrors, registries.ask.unwrap_or(true))
            .profile(profile)
            .profiles(profiles);
        for name in self.egress.presets.keys() {
            let asked = Asked::Rules { preset: Some(name.clone()), rules: Vec::new() };
            let checked = catalog.check(&asked);
            checked.map_err(|error| wrong(&format!("egress.presets.{name}.include"), &error))?;
        }
        for (name, profile) in self.own_profiles()? {
            let checked = catalog.check(&profile.egress.unwrap_or_default());
            checked.map_err(|error| wrong(&format!("profiles.{name}.egress"), &error))?;
        }
        Ok(catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PROJECT_FILE;
    use super::*;

    fn load(user: &str, project: &str) -> Result<Config, ConfigError> {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("user.toml");
        std::fs::write(&file, user).unwrap();
        std::fs::write(temp.path().join(PROJECT_FILE), project).unwrap();
        let folder = temp.path().display().to_string();
        Config::load(temp.path(), Some(&file)).map_err(|error| ConfigError {
            path: error.path.file_name().unwrap_or_default().into(),
            hint: error.hint.map(|hint| hint.replace(&folder, "FOLDER")),
            ..error
        })
    }

    fn said<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
        let error = result.unwrap_err();
        format!("{error} ({})", error.hint.clone().unwrap_or_default())
    }

    #[test]
    fn presets_of_both_files_and_a_profile() {
        let user = "profile = \"strict\"\n[egress.presets.corp]\nallow = [\"git.corp@10.0.0.0/8:443\"]\n\
            [egress.registries]\nallow = [\"mirror.corp@10.0.0.0/8\"]\nask = false\n\
            [profiles.strict]\negress = { preset = \"agent\", deny = [\"gist.github.com\"] }\nforbid = [\"10.9.0.0/16\"]\n";
        let project = "[egress.presets.ci]\ninclude = [\"corp\", \"git\"]\nallow = [\"ci.test\"]\n";
        let config = load(user, project).unwrap();
        let catalog = config.catalog(None).unwrap();
        let names: Vec<&str> = catalog.names().collect();
        let presets = ["agent", "ai", "ci", "corp", "git", "registries"];
        assert_eq!(names, [&presets[..], &["agents", "strict"]].concat());
        let wanted = Asked::merged(Some("agent"), [""; 0], ["gist.github.com"]).unwrap();
        assert_eq!(catalog.standard(), wanted);
        assert!(!catalog.is_free(&"10.9.1.1".parse().unwrap()));
        let agents = config.catalog(Some("agents")).unwrap();
        assert_eq!(agents.standard(), Asked::word("agent").unwrap());
        assert_eq!(load("", "").unwrap().catalog(None).unwrap().standard(), Asked::None);
        insta::assert_snapshot!(said(config.catalog(Some("agent"))), @"there is no profile 'agent' (did you mean 'agents'?)");
    }

    #[test]
    fn a_project_widens_nothing_that_is_the_operators() {
        let mine = "[egress.presets.corp]\nallow = [\"a.test\"]\n[profiles.careful]\nforbid = []\n";
        let refused = [
            "[egress.presets.agent]\nallow = [\"*\"]",
            "[egress.presets.corp]\nallow = [\"*\"]",
            "[egress.registries]\nallow = [\"evil.test\"]",
            "profile = \"agents\"",
            "[profiles.strict]\nforbid = []",
            "[egress.presets.agents]\nallow = [\"*\"]",
            "[egress.presets.careful]\nallow = [\"*\"]",
        ];
        let said: Vec<String> = refused.iter().map(|text| said(load(mine, text))).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn mistakes_say_where() {
        let wrong = [
            "[egress.presets.x]\nallow = [\"http://a.test\"]",
            "[egress.presets.x]\ninclude = [\"gti\"]",
            "[egress.presets.None]",
            "[egress.presets.x]\nalow = []",
            "[egress.registries]\nallow = [\"a b\"]",
            "[profiles.x]\nforbid = [\"10.0.0.0/99\"]",
            "[profiles.x]\negress = \"example.com\"",
            "[profiles.x]\negress = 3",
            "[profiles.x]\negress = \"agnet\"",
            "[profiles.git]\negress = \"agent\"",
            "[egress.presets.x]\ninclude = [\"y\"]\n[egress.presets.y]\ninclude = [\"git\", \"x\"]",
            "[egress.presets.agent]\ninclude = [\"agent\"]\nallow = [\"a.test\"]",
        ];
        let said: Vec<String> = wrong
            .iter()
            .map(|text| said(load(text, "").and_then(|config| config.catalog(None))))
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
