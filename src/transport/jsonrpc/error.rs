//! Why a call has no result.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// What a server said no with: to a call, or at the end of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusal {
    /// JSON-RPC's code; 0 for a job.
    pub code: i64,
    /// The system's error number, of the server's view.
    pub errno: i64,
    /// The text.
    pub reason: String,
    /// For wrong arguments: which, what of them, and an error number each.
    pub extra: Vec<(String, String, i64)>,
}

impl Refusal {
    /// A method that the server does not have.
    const NO_METHOD: i64 = -32601;
    /// More calls at once than the server takes.
    const TOO_MANY: i64 = -32000;

    /// The error of a reply.
    pub fn of_reply(error: &Value) -> Refusal {
        let data = &error["data"];
        let text = data["reason"].as_str().or(error["message"].as_str());
        Refusal {
            code: error["code"].as_i64().unwrap_or_default(),
            errno: data["error"].as_i64().unwrap_or_default(),
            reason: text.unwrap_or("it gives no reason").trim().to_owned(),
            extra: extra(&data["extra"]),
        }
    }

    /// The end of a job that failed.
    pub fn of_job(job: &Value) -> Refusal {
        let text = job["error"].as_str().unwrap_or("it gives no reason");
        let text = if job["state"] == "ABORTED" { "the job was aborted" } else { text };
        Refusal {
            code: 0,
            errno: job["exc_info"]["errno"].as_i64().unwrap_or_default(),
            reason: text.trim().to_owned(),
            extra: extra(&job["exc_info"]["extra"]),
        }
    }

    /// Whether it has this error number. For wrong arguments the number is with the argument.
    pub fn is(&self, errno: i64) -> bool {
        match self.extra.is_empty() {
            true => self.errno == errno,
            false => self.extra.iter().any(|(_, _, of)| *of == errno),
        }
    }

    /// Whether the thing is not there.
    pub fn is_missing(&self) -> bool {
        self.is(2)
    }

    /// Whether the server does not know the method.
    pub fn is_no_method(&self) -> bool {
        self.code == Self::NO_METHOD || self.errno == 201
    }

    /// Whether the session lacks the right for it.
    pub fn is_denied(&self) -> bool {
        self.code != Self::TOO_MANY && (self.is(13) || self.is(207))
    }

    /// Whether it may be done a moment later.
    pub fn is_passing(&self) -> bool {
        self.code == Self::TOO_MANY || self.is(11) || self.is(16)
    }

    /// What it says of this argument.
    pub fn about(&self, argument: &str) -> Option<&str> {
        self.extra.iter().find(|(of, _, _)| of == argument).map(|(_, text, _)| text.as_str())
    }
}

fn extra(value: &Value) -> Vec<(String, String, i64)> {
    let row = |row: &Value| {
        let text = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
        (text(0), text(1), row[2].as_i64().unwrap_or_default())
    };
    value.as_array().into_iter().flatten().filter(|one| one.is_array()).map(row).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.extra.is_empty() {
            let text = self.reason.split_once("] ").filter(|(word, _)| {
                word.starts_with("[E") && word[1..].bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
            return f.write_str(text.map_or(self.reason.as_str(), |(_, text)| text));
        }
        for (at, (argument, text, _)) in self.extra.iter().enumerate() {
            let text = text.strip_prefix("Value error, ").unwrap_or(text);
            let argument = argument.split_once('.').map_or("", |(_, argument)| argument);
            let colon = if argument.is_empty() { "" } else { ": " };
            write!(f, "{}{argument}{colon}{text}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// The server did not let us in: what it said, and what to do.
    #[error("{0}")]
    Auth(String),
    /// The connection broke after the call was sent: whether it was done is unknown.
    #[error("the connection to {place} broke: {why}")]
    Broken {
        /// Where.
        place: String,
        /// What happened.
        why: String,
    },
    /// There was no answer in time. It may still be done.
    #[error("{method} has no answer after {}", crate::sandbox::format_duration(*after))]
    Deadline {
        /// What was called.
        method: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server was restarted, and has forgotten the job: how far it came is unknown.
    #[error("{place} was restarted while it did {method}")]
    Forgotten {
        /// Where.
        place: String,
        /// What was called.
        method: String,
    },
    /// Nothing was sent: it is older than what is known here.
    #[error("{place} is a TrueNAS {release}, which is too old")]
    Old {
        /// Where.
        place: String,
        /// Which release it is.
        release: String,
    },
    /// The server refused it, or it failed there.
    #[error("{0}")]
    Refused(Refusal),
    /// It is larger than the server takes, and was not sent.
    #[error("a call of {method} has {size} characters, and the server takes {most}")]
    TooLong {
        /// What was called.
        method: String,
        /// How many characters.
        size: usize,
        /// How many are allowed.
        most: usize,
    },
    /// Nothing was sent.
    #[error("{place} can't be reached: {why}")]
    Unreachable {
        /// Where.
        place: String,
        /// What the system says.
        why: String,
    },
    /// Nothing was sent: the server's certificate is not one that may be trusted.
    #[error("{0}")]
    Untrusted(String),
}

impl RpcError {
    /// What the server said, if it said something.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            RpcError::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether nobody knows if it was done.
    pub fn is_unsure(&self) -> bool {
        matches!(
            self,
            RpcError::Broken { .. } | RpcError::Deadline { .. } | RpcError::Forgotten { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_numbers() {
        let missing = Refusal::of_reply(
            &json!({"code": -32602, "message": "Invalid params", "data": {
            "error": 22, "errname": "EINVAL", "reason": "[ENOENT] None: VirtInstance dev does not exist",
            "extra": [[null, "VirtInstance dev does not exist", 2]]}}),
        );
        assert!(missing.is_missing() && !missing.is(22));
        assert_eq!(missing.to_string(), "VirtInstance dev does not exist");
        let plain = Refusal::of_reply(
            &json!({"code": -32001, "message": "Method call error", "data": {
            "error": 13, "errname": "EACCES", "reason": "[EACCES] Not authorized", "extra": null}}),
        );
        assert!(plain.is_denied());
        assert_eq!(plain.to_string(), "Not authorized");
        let many = Refusal::of_reply(&json!({"code": -32000, "message": "Maximum"}));
        assert!(many.is_passing() && many.to_string() == "Maximum");
        assert!(Refusal::of_reply(&json!({"code": -32601, "message": "x"})).is_no_method());
        let job = Refusal::of_job(&json!({"state": "FAILED", "error": "[EINVAL] x", "exc_info": {
            "type": "VALIDATION", "errno": null, "repr": "",
            "extra": [["virt_instance_create.memory", "Value error, too little", 22]]}}));
        assert_eq!(job.about("virt_instance_create.memory"), Some("Value error, too little"));
        assert_eq!(job.to_string(), "memory: too little");
        assert_eq!(
            Refusal::of_job(&json!({"state": "ABORTED"})).to_string(),
            "the job was aborted"
        );
    }
}
