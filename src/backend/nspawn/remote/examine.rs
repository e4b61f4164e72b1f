//! What another host is like, for whoever wants to know what is missing.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;

use super::dial::{Stop, Talk, enter};
use super::script::{self, SAYS};
use super::{Access, RemoteConfig};
use crate::sandbox::{Check, Error};
use crate::transport::ssh::Ssh;

/// How long the host may take for its answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at a host step by step, as far as one comes; nothing is changed there.
pub async fn examine(config: &RemoteConfig) -> Vec<Check> {
    let mut found = Vec::new();
    match line(config, &mut found).await {
        Ok(ssh) => match look(&ssh).await {
            Ok(said) => judge(&said, &config.access, &mut found),
            Err(error) => found.push(bad("shell", &error)),
        },
        Err(check) => found.push(check),
    }
    found
}

fn bad(what: &str, error: &Error) -> Check {
    let text = match error {
        Error::Auth { message } | Error::Transport { message } => message.clone(),
        Error::InvalidInput { message, .. } => message.clone(),
        error => error.to_string(),
    };
    match text.split_once("; ") {
        Some((says, hint)) => Check::bad(what, says, hint),
        None => Check::bad(what, text, error.hint().unwrap_or_default()),
    }
}

/// Whether one gets there, to whom, and in.
async fn line(config: &RemoteConfig, found: &mut Vec<Check>) -> Result<Ssh, Check> {
    let way = config.access.way(&config.host).map_err(|error| bad("settings", &error))?;
    let place = way.target.to_string();
    match enter(&way).await {
        Ok(ssh) => {
            found.push(Check::good("reachable", format!("{place} answers")));
            found.push(Check::good("host key", format!("the one that is known: {}", ssh.key())));
            found.push(Check::good("key", "it lets us in"));
            Ok(ssh)
        }
        Err((Stop::Way, error)) => Err(match bad("reachable", &error) {
            Check { hint: None, says, .. } => Check::bad(
                "reachable",
                says,
                "look at the name and the port (--host root@nas.lan:22), and whether its SSH server runs",
            ),
            check => check,
        }),
        Err((stop, error)) => {
            found.push(Check::good("reachable", format!("{place} answers")));
            Err(bad(if stop == Stop::HostKey { "host key" } else { "key" }, &error))
        }
    }
}

/// What the host says of itself, by the word that it is said under.
async fn look(ssh: &Ssh) -> Result<HashMap<String, String>, Error> {
    let stream = ssh.run(&script::look()).await.map_err(super::dial::of_ssh)?;
    let mut talk = Talk { stream, buffer: BytesMut::new(), place: ssh.place() };
    let mut said: HashMap<String, String> = HashMap::new();
    let all = async {
        loop {
            let line = talk.line().await?;
            let Some(line) = line.strip_prefix(SAYS) else { continue };
            match line.split_once(' ').unwrap_or((line, "")) {
                ("end", _) => return Ok(()),
                (word, rest) => {
                    let slot = said.entry(word.to_owned()).or_default();
                    if !slot.is_empty() {
                        slot.push_str(", ");
                    }
                    slot.push_str(rest);
                }
            }
        }
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(done) => done.map(|()| said),
        Err(_) => Err(Error::Transport { message: "its shell does not answer".into() }),
    }
}

fn judge(said: &HashMap<String, String>, access: &Access, found: &mut Vec<Check>) {
    let of = |word: &str| said.get(word).map_or("", String::as_str);
    let (own, there) = (std::env::consts::ARCH, of("arch"));
    let kind = format!("{there}, Linux {}", of("kernel"));
    found.push(match &access.program {
        Some(program) => Check::good("machine", format!("{kind}; the program there is {program}")),
        None if there == own => Check::good("machine", kind),
        None => Check::bad(
            "machine",
            format!("{kind}; this one is {own}"),
            format!("put a sandscript for {there} there, and say where it is: program = \"/…\" in your config.toml"),
        ),
    });
    found.push(match of("root").split_once(' ').unwrap_or((of("root"), "")) {
        ("yes", _) => Check::good("root", "we are root there"),
        ("sudo", _) => Check::good("root", "by sudo, without a password"),
        (_, user) => Check::bad(
            "root",
            format!("'{user}' is not root there, and may not 'sudo' without a password"),
            "use root@…, or let it (NOPASSWD)",
        ),
    });
    found.push(match (of("nspawn"), of("lacks")) {
        ("", _) => Check::bad(
            "systemd-nspawn",
            "it is not there",
            "install it there: apt install systemd-container",
        ),
        (version, "") => Check::good("systemd-nspawn", version),
        (version, lacks) => Check::bad(
            "systemd-nspawn",
            format!("{version}, but these are not there: {lacks}"),
            "install them: apt install systemd-container util-linux coreutils",
        ),
    });
    found.push(match of("booted") {
        "yes" => Check::good("systemd", "it has booted that host: machines are services of it"),
        _ => Check::good("systemd", "it is not the first process there: we keep the machines"),
    });
    let noexec = of("run").split(',').any(|option| option == "noexec");
    found.push(match (&access.program, noexec) {
        (Some(_), _) => Check::good("program", "it is there; nothing is sent"),
        (None, false) => Check::good("program", format!("it is sent to {}", script::FOLDER)),
        (None, true) => Check::good(
            "program",
            format!(
                "it is sent to a tmpfs of its own at {}: no program may run in /run",
                script::FOLDER
            ),
        ),
    });
    let store = access.store.clone().unwrap_or_else(|| super::super::STORE.to_owned());
    found.push(Check::good("store", format!("{store}, there")));
}
