//! Argument types that more than one verb uses.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::config::Settings;
use crate::api::HostBuilder;
use crate::sandbox::{self, Device, DeviceKeys, Limits, Network, Placement, PublishSpec};
use crate::workflow::{Order, Partition, SecretSource};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// `--format`.
#[derive(Args, Clone, Copy, Debug)]
pub struct FormatArg {
    /// How to print the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

impl FormatArg {
    /// Whether it is JSON.
    pub fn json(self) -> bool {
        self.format == Format::Json
    }
}

/// What a script itself may use up.
#[derive(Args, Clone, Debug, Default)]
pub struct ScriptLimits {
    /// How much memory the script's own values may take, such as 256MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_memory: Option<u64>,
    /// How many operations the script may do, in steps of 1000 [default: any number]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max_operations: Option<u64>,
}

impl ScriptLimits {
    /// Sets them where they are given, here or in the settings.
    pub fn apply(&self, mut host: HostBuilder, settings: &Settings) -> HostBuilder {
        if let Some(memory) = self.max_memory.or(settings.max_memory) {
            host = host.memory(memory);
        }
        if let Some(operations) = self.max_operations.or(settings.max_operations) {
            host = host.operations(operations);
        }
        host
    }
}

/// Upper bounds.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// CPUs, such as 0.5 or 2
    #[arg(long, value_name = "CPUS", allow_negative_numbers = true)]
    pub cpu: Option<f64>,
    /// Memory, such as 512MiB
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    pub memory: Option<u64>,
    /// Processes and threads
    #[arg(long, value_name = "COUNT", value_parser = count, allow_negative_numbers = true)]
    pub pids: Option<u64>,
    /// What the guest may write, such as 2GiB
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    pub disk: Option<u64>,
    /// Files and folders the guest may create
    #[arg(long, value_name = "COUNT", value_parser = count, allow_negative_numbers = true)]
    pub inodes: Option<u64>,
}

impl LimitArgs {
    /// As the domain has them.
    pub fn limits(&self) -> Limits {
        Limits {
            cpu: self.cpu,
            memory: self.memory,
            pids: self.pids,
            disk: self.disk,
            inodes: self.inodes,
        }
    }
}

/// A size.
pub fn size(text: &str) -> Result<u64, String> {
    sandbox::parse_size(text).map_err(sentence)
}

/// How many of something.
pub fn count(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "use a whole number, 1 or more".into())
}

/// A duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    sandbox::parse_duration(text).map_err(sentence)
}

/// A port of a sandbox, and where on this machine.
pub fn port(text: &str) -> Result<PublishSpec, String> {
    text.parse().map_err(sentence)
}

/// A network that is of no run.
pub fn network(text: &str) -> Result<Network, String> {
    Network::by_hand(text).map_err(|error| {
        let message = error.to_string();
        let message = message.strip_prefix("network: ").unwrap_or(&message);
        format!("{message}; {}", error.hint().unwrap_or_default())
    })
}

/// A device: `NAME=TYPE,KEY=VALUE,…`.
pub fn device(text: &str) -> Result<Device, String> {
    let how = || "write it as NAME=TYPE,KEY=VALUE: web=proxy,listen=9000,connect=80".to_owned();
    let (name, rest) = key_value(text).map_err(|_| how())?;
    let mut parts = rest.split(',');
    let mut keys = DeviceKeys::new();
    keys.insert("type".into(), parts.next().unwrap_or_default().to_owned());
    for part in parts {
        let (key, value) = key_value(part).map_err(|_| how())?;
        if keys.insert(key.clone(), value).is_some() {
            return Err(format!("'{key}' is given twice"));
        }
    }
    Device::new(&name, keys).map_err(sentence)
}

/// Where in a cluster.
pub fn target(text: &str) -> Result<Placement, String> {
    text.parse().map_err(sentence)
}

/// In which order cells start.
pub fn order(text: &str) -> Result<Order, String> {
    text.parse().map_err(sentence)
}

/// A part of a matrix.
pub fn partition(text: &str) -> Result<Partition, String> {
    text.parse().map_err(sentence)
}

/// `KEY=VALUE`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// `NAME=env:VARIABLE`, `NAME=file:PATH` or `NAME=command:LINE`.
pub fn secret(text: &str) -> Result<(String, SecretSource), String> {
    let (name, source) = key_value(text).map_err(|_| "write it as NAME=SOURCE".to_owned())?;
    Ok((name, SecretSource::parse(&source).map_err(sentence)?))
}

fn sentence(error: sandbox::Error) -> String {
    match error {
        sandbox::Error::InvalidInput { message, hint: Some(hint), .. } => {
            format!("{message}; {hint}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), String::new())));
        assert!(key_value("a").is_err());
        assert!(key_value("=a").is_err());
    }

    #[test]
    fn a_wrong_size_says_what_is_right() {
        assert_eq!(
            size("much").unwrap_err(),
            "'much' is not a size; write it as \"512MiB\", \"2GB\" or a number of bytes"
        );
    }
}
