//! Asking the tools of a sandbox where they fetch from.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::files;
use super::sources::Answer;
use crate::sandbox::{Backend, Cancel, Capability, Command, Policy, ReadOptions, Ruleset, exec};

/// No tool takes longer to say what it is set to.
const PATIENCE: Duration = Duration::from_secs(30);
/// No configuration is longer.
const LONGEST: u64 = 1 << 20;

/// Pip knows its own index, and where that keeps its files.
const PIP_INDEX: &str = "\
try:
    from pip._internal.models.index import PyPI
except ImportError:
    from pip.models import PyPI
print(PyPI.simple_url)
print('https://' + PyPI.file_storage_domain)
";
/// Cargo tells its index when it is asked for what it can't find.
const CARGO_TRY: &str = "\
set -e
folder=$(mktemp -d)
mkdir \"$folder/src\"
: > \"$folder/src/lib.rs\"
printf '[package]\\nname = \"ask\"\\nversion = \"0.0.0\"\\n[dependencies]\\nno-such-package-is-there = \"*\"\\n' \\
    > \"$folder/Cargo.toml\"
cd \"$folder\"
LC_ALL=C CARGO_NET_RETRY=0 CARGO_HTTP_TIMEOUT=5 CARGO_TERM_COLOR=never cargo fetch
";
/// What cargo keeps of an index that it has seen.
const CARGO_SEEN: &str = "cat \"${CARGO_HOME:-$HOME/.cargo}\"/registry/index/*/config.json";

/// A sandbox that is there to be asked, and that nobody else has used.
pub(super) struct Tools<'a> {
    pub backend: &'a dyn Backend,
    pub name: &'a str,
    pub cancel: &'a Cancel,
}

impl Tools<'_> {
    /// Asks all of them.
    pub async fn ask(&self) -> Answer {
        let env = self.run(&["env"]).await.unwrap_or_default();
        let variable = |name: &str| {
            env.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(String::from)
        };
        let home = variable("HOME").unwrap_or_else(|| "/root".into());
        let mut answer = Answer::default();
        for name in ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy"] {
            for name in [name.to_owned(), name.to_uppercase()] {
                if let Some(url) = variable(&name) {
                    answer.add("environment", &url);
                }
            }
        }
        let (apt, pip, npm, cargo, go) = tokio::join!(
            self.apt(),
            self.pip(&home, &variable),
            self.npm(&home, &variable),
            self.cargo(&home, &variable),
            self.go(&home, &variable),
        );
        for one in [apt, pip, npm, cargo, go] {
            answer.extend(one);
        }
        answer
    }

    async fn apt(&self) -> Answer {
        let mut answer = Answer::default();
        let targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)"];
        let (targets, config) =
            tokio::join!(self.run(&targets), self.run(&["apt-config", "dump", "Acquire"]),);
        match config {
            Some(text) => files::apt_config(&text, &mut answer),
            None => {
                for path in self.files("/etc/apt/apt.conf.d", "").await {
                    files::apt_config(&self.text(&path).await, &mut answer);
                }
            }
        }
        if let Some(text) = targets.filter(|text| !text.trim().is_empty()) {
            for line in text.lines() {
                match line.strip_prefix("mirror+file:") {
                    Some(path) => {
                        let list = self.text(path).await;
                        let first = |line: &str| Some(line.split_whitespace().next()?.to_owned());
                        list.lines()
                            .filter_map(first)
                            .for_each(|url| files::apt_address(&url, &mut answer));
                    }
                    None => files::apt_address(line, &mut answer),
                }
            }
            return answer;
        }
        files::apt_list(&self.text("/etc/apt/sources.list").await, &mut answer);
        for path in self.files("/etc/apt/sources.list.d", "").await {
            let text = self.text(&path).await;
            if path.ends_with(".list") {
                files::apt_list(&text, &mut answer);
            } else if path.ends_with(".sources") {
                files::apt_deb822(&text, &mut answer);
            }
        }
        answer
    }

    async fn pip(&self, home: &str, variable: &impl Fn(&str) -> Option<String>) -> Answer {
        let mut answer = Answer::default();
        let (list, index) = tokio::join!(
            self.run(&["python3", "-m", "pip", "config", "list"]),
            self.run(&["python3", "-c", PIP_INDEX]),
        );
        let Some(list) = list else {
            for path in [
                "/etc/pip.conf".to_owned(),
                "/etc/xdg/pip/pip.conf".to_owned(),
                format!("{home}/.pip/pip.conf"),
                format!("{home}/.config/pip/pip.conf"),
            ] {
                files::pip_conf(&self.text(&path).await, &mut answer);
            }
            for name in ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_PROXY"] {
                let value = variable(name).unwrap_or_default();
                value.split_whitespace().for_each(|url| answer.add("pip", url));
            }
            return answer;
        };
        if files::pip_list(&list, &mut answer) {
            return answer;
        }
        match index {
            Some(index) => index.lines().for_each(|url| answer.add("pip", url)),
            None => answer.note("this pip does not say which index it has built in"),
        }
        answer
    }

    async fn npm(&self, home: &str, variable: &impl Fn(&str) -> Option<String>) -> Answer {
        let mut answer = Answer::default();
        if let Some(text) = self.run(&["npm", "config", "list", "--json"]).await
            && files::npm_json(&text, &mut answer)
        {
            return answer;
        }
        for path in [
            "/etc/npmrc".to_owned(),
            "/usr/etc/npmrc".to_owned(),
            "/usr/local/etc/npmrc".to_owned(),
            format!("{home}/.npmrc"),
        ] {
            files::npmrc(&self.text(&path).await, &mut answer);
        }
        for name in ["npm_config_registry", "NPM_CONFIG_REGISTRY"] {
            answer.add("npm", &variable(name).unwrap_or_default());
        }
        answer
    }

    async fn go(&self, home: &str, variable: &impl Fn(&str) -> Option<String>) -> Answer {
        let mut answer = Answer::default();
        if let Some(text) = self.run(&["go", "env", "GOPROXY", "GOSUMDB"]).await {
            let mut lines = text.lines();
            files::go_proxy(lines.next().unwrap_or_default(), &mut answer);
            files::go_sumdb(lines.next().unwrap_or_default(), &mut answer);
            return answer;
        }
        for path in ["/usr/local/go/go.env".to_owned(), format!("{home}/.config/go/env")] {
            files::go_env(&self.text(&path).await, &mut answer);
        }
        files::go_proxy(&variable("GOPROXY").unwrap_or_default(), &mut answer);
        files::go_sumdb(&variable("GOSUMDB").unwrap_or_default(), &mut answer);
        answer
    }

    async fn cargo(&self, home: &str, variable: &impl Fn(&str) -> Option<String>) -> Answer {
        let mut answer = Answer::default();
        let mut get =
            Command::argv(["cargo", "-Zunstable-options", "config", "get", "--format", "json"]);
        // Without it only the nightly compiler prints its configuration.
        get.env.insert("RUSTC_BOOTSTRAP".into(), "1".into());
        match self.output(get).await {
            Some((text, _, true)) => files::cargo_json(&text, &mut answer),
            _ => {
                let folder = variable("CARGO_HOME").unwrap_or_else(|| format!("{home}/.cargo"));
                for name in ["config.toml", "config"] {
                    let text = self.text(&format!("{folder}/{name}")).await;
                    files::cargo_toml(&text, &mut answer);
                }
            }
        }
        answer.extend(self.cargo_index().await);
        answer
    }

    /// The index that cargo goes to, and the host that this index sends it on to.
    async fn cargo_index(&self) -> Answer {
        let mut answer = Answer::default();
        let said = match self.output(Command::shell(CARGO_TRY)).await {
            // 127: there is no cargo.
            Some((_, said, false)) if said.contains('`') => said,
            _ => return answer,
        };
        said.split('`').skip(1).step_by(2).for_each(|word| {
            if word.contains("://") {
                answer.add("cargo", word);
            }
        });
        if !answer.has("cargo") {
            answer.note("this cargo does not say which index it has built in");
            return answer;
        }
        let seen = async || self.output(Command::shell(CARGO_SEEN)).await.map(|(text, ..)| text);
        let mut index = seen().await.filter(|text| !text.trim().is_empty());
        if index.is_none() && self.backend.capabilities().has(Capability::EgressAllowlist) {
            let rules = answer.rules();
            let policy = Policy::Rules(Ruleset { preset: None, rules });
            if self.backend.set_policy(self.name, &policy, self.cancel).await.is_ok() {
                let _ = self.output(Command::shell(CARGO_TRY)).await;
                index = seen().await.filter(|text| !text.trim().is_empty());
            }
            let _ = self.backend.set_policy(self.name, &Policy::None, self.cancel).await;
        }
        let index = index.unwrap_or_default();
        let mut told = false;
        for value in serde_json::Deserializer::from_str(&index)
            .into_iter::<serde_json::Value>()
            .map_while(|value| value.ok())
        {
            for url in ["dl", "api"].iter().filter_map(|key| value.get(key)?.as_str()) {
                told = true;
                answer.add("cargo", url);
            }
        }
        if !told {
            answer.note(
                "the index of cargo names the host of its downloads, and could not be reached to \
                 say it: allow that host by its name",
            );
        }
        answer
    }

    /// What a program prints, when it succeeds.
    async fn run(&self, argv: &[&str]) -> Option<String> {
        let (stdout, _, ok) = self.output(Command::argv(argv.iter().copied())).await?;
        ok.then_some(stdout)
    }

    /// What a program prints on both streams, and whether it succeeded; nothing when it can't be
    /// started.
    async fn output(&self, mut command: Command) -> Option<(String, String, bool)> {
        command.timeout = Some(PATIENCE);
        command.max_output = LONGEST as usize;
        command.cwd = Some("/".into());
        let output = exec(self.backend, self.name, &command, self.cancel).await.ok()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(&output.stdout), text(&output.stderr), output.exit.ok()))
    }

    /// The text of a file; none when it is not there.
    async fn text(&self, path: &str) -> String {
        let options = ReadOptions { length: Some(LONGEST), ..ReadOptions::default() };
        let mut bytes = Vec::new();
        if let Ok(mut file) = self.backend.read(self.name, path, options, self.cancel).await {
            let _ = file.read_to_end(&mut bytes).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The files in a folder whose names end like this, in order.
    async fn files(&self, folder: &str, end: &str) -> Vec<String> {
        let entries = self.backend.read_dir(self.name, folder, self.cancel).await;
        let mut names: Vec<String> = entries
            .unwrap_or_default()
            .into_iter()
            .filter(|entry| entry.name.ends_with(end))
            .map(|entry| format!("{folder}/{}", entry.name))
            .collect();
        names.sort();
        names
    }
}
