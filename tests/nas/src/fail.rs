//! What goes wrong, and how the wire shows it.

use serde_json::{Value, json};

use crate::release::Release;
use crate::trap::Traps;

/// One thing wrong with the parameters.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which parameter; `None` where it is the row itself that is missing.
    pub attribute: Option<String>,
    /// What is wrong with it.
    pub message: String,
    /// A Linux errno.
    pub errno: i32,
}

impl Fault {
    /// A fault of a parameter.
    pub fn new(attribute: &str, message: String, errno: i32) -> Self {
        Self { attribute: Some(attribute.to_owned()), message, errno }
    }

    fn line(&self) -> String {
        let attribute = self.attribute.as_deref().unwrap_or("None");
        format!("[{}] {attribute}: {}", errname(self.errno), self.message)
    }
}

/// Why a call or a job failed.
#[derive(Debug, Clone)]
pub enum Fail {
    /// The server says no, with an errno.
    Call(i32, String),
    /// The parameters are wrong, by the model or by the plugin.
    Validation(Vec<Fault>),
    /// An exception that nobody foresaw: its class and text.
    Raised(&'static str, String),
    /// A plain JSON-RPC error without data.
    Rpc(i64, String),
    /// The job was aborted.
    Aborted,
}

impl Fail {
    /// A `CallError` of the default errno.
    pub fn fault(text: impl Into<String>) -> Self {
        Fail::Call(14, text.into())
    }

    /// One wrong parameter.
    pub fn invalid(attribute: &str, message: impl Into<String>) -> Self {
        Fail::Validation(vec![Fault::new(attribute, message.into(), 22)])
    }

    /// One wrong parameter with an errno of its own.
    pub fn invalid_errno(attribute: &str, message: impl Into<String>, errno: i32) -> Self {
        Fail::Validation(vec![Fault::new(attribute, message.into(), errno)])
    }

    /// The row does not exist. `class` is the service's name, such as `VirtInstance`.
    pub fn missing(traps: Traps, class: &str, id: impl std::fmt::Display) -> Self {
        let message = format!("{class} {id} does not exist");
        if traps.on(8) {
            Fail::Validation(vec![Fault { attribute: None, message, errno: 2 }])
        } else {
            Fail::Call(2, message)
        }
    }

    /// A bare `OSError`, which keeps its errno only in its text.
    pub fn os(error: &std::io::Error, path: &str) -> Self {
        let number = error.raw_os_error().unwrap_or(5);
        Fail::Raised("OSError", format!("[Errno {number}] {}: '{path}'", strerror(number)))
    }

    /// The text in `reason` and in a job's `error`.
    pub fn reason(&self) -> String {
        match self {
            Fail::Call(errno, text) => format!("[{}] {text}", errname(*errno)),
            Fail::Validation(faults) => match &faults[..] {
                [one] if one.attribute.is_none() => one.line(),
                all => all.iter().map(|f| f.line() + "\n").collect(),
            },
            Fail::Raised(_, text) | Fail::Rpc(_, text) => text.clone(),
            Fail::Aborted => "Aborted".to_owned(),
        }
    }

    fn class(&self) -> &'static str {
        match self {
            Fail::Call(..) => "CallError",
            Fail::Validation(f) if f.len() == 1 && f[0].attribute.is_none() => "InstanceNotFound",
            Fail::Validation(_) => "ValidationErrors",
            Fail::Raised(class, _) => class,
            Fail::Rpc(..) => "Exception",
            Fail::Aborted => "CancelledError",
        }
    }

    fn extra(&self) -> Value {
        match self {
            Fail::Validation(faults) => {
                faults.iter().map(|f| json!([f.attribute, f.message, f.errno])).collect()
            }
            _ => Value::Null,
        }
    }

    fn repr(&self) -> String {
        format!("{}({:?})", self.class(), self.reason())
    }

    /// The stack that the server would print.
    pub fn traceback(&self) -> String {
        format!(
            "Traceback (most recent call last):\n  File \"/usr/lib/python3/dist-packages/middlewared/main.py\", line 1, in call\nmiddlewared.service_exception.{}: {}\n",
            self.class(),
            self.reason()
        )
    }

    /// A job's `exc_info`.
    pub fn exc_info(&self) -> Value {
        let kind = match self {
            Fail::Validation(_) => "VALIDATION",
            other => other.class(),
        };
        let errno = match self {
            Fail::Call(errno, _) => Some(*errno),
            _ => None,
        };
        json!({"repr": self.repr(), "type": kind, "errno": errno, "extra": self.extra()})
    }

    /// The `error` member of a reply.
    pub fn object(&self, release: Release, traps: Traps) -> Value {
        let (code, message, error) = match self {
            Fail::Rpc(code, message) => return json!({"code": code, "message": message}),
            Fail::Validation(_) => (-32602, "Invalid params", 22),
            Fail::Call(errno, _) => (-32001, "Method call error", *errno),
            Fail::Raised("CalledProcessError", _) => (-32001, "Method call error", 14),
            _ => (-32001, "Method call error", 22),
        };
        let mut trace = json!({
            "class": self.class(), "formatted": self.traceback(), "repr": self.repr(),
        });
        if traps.on(49) != release.is_26() {
            trace["frames"] = json!([{
                "filename": "/usr/lib/python3/dist-packages/middlewared/main.py", "lineno": 1,
                "method": "call", "line": "", "argspec": [], "locals": {},
            }]);
        }
        json!({"code": code, "message": message, "data": {
            "error": error, "errname": errname(error), "reason": self.reason(),
            "trace": trace, "extra": self.extra(),
        }})
    }
}

/// The name of an errno, the server's own among them.
pub fn errname(errno: i32) -> &'static str {
    match errno {
        1 => "EPERM",
        2 => "ENOENT",
        5 => "EIO",
        11 => "EAGAIN",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        28 => "ENOSPC",
        39 => "ENOTEMPTY",
        40 => "ELOOP",
        74 => "EBADMSG",
        95 => "EOPNOTSUPP",
        109 => "ETOOMANYREFS",
        201 => "ENOMETHOD",
        207 => "ENOTAUTHENTICATED",
        _ => "EFAULT",
    }
}

/// The number of an errno's name, for faults on demand.
pub fn errno(name: &str) -> Option<i32> {
    (1..=210).find(|n| errname(*n) == name)
}

fn strerror(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
