//! Why a server did not do something.

use crate::sandbox::Error;
#[cfg(any(feature = "incus", feature = "truenas"))]
use crate::transport::HttpError;

/// Why the server did not do it.
#[derive(Clone, Debug)]
pub(in crate::backend) enum Fail {
    /// It refused: HTTP's status and what it said.
    Refused(u16, String),
    /// It began, and failed: what it said, and a command's exit code where it has one.
    Failed(String, Option<i64>),
    /// It can't be reached, and nothing was asked of it.
    Unreachable(String),
    /// Somebody else is there, and nothing was asked.
    Untrusted(String),
    /// The answer is lost: whether it was done is unknown.
    Lost(String),
    /// The member of the cluster that works on it does not answer.
    Away(String),
    /// The way that was asked for leads nowhere: why, and what would help.
    #[cfg_attr(not(feature = "truenas"), allow(dead_code))]
    NoWay(String),
}

#[cfg(any(feature = "incus", feature = "truenas"))]
impl From<HttpError> for Fail {
    fn from(error: HttpError) -> Fail {
        match &error {
            HttpError::Unreachable { .. } => Fail::Unreachable(error.to_string()),
            HttpError::Untrusted { .. } => Fail::Untrusted(error.to_string()),
            HttpError::Broken { .. } | HttpError::Silent { .. } => Fail::Lost(error.to_string()),
        }
    }
}

impl Fail {
    /// Whether the thing is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Fail::Refused(404, _))
    }

    /// As the domain has it, where nothing better is known.
    pub fn plain(self, doing: &str) -> Error {
        match self {
            Fail::Refused(401 | 403, text) => Error::Auth { message: format!("{doing}: {text}") },
            Fail::Untrusted(text) => Error::Auth { message: format!("{doing}: {text}") },
            Fail::Refused(_, text) | Fail::Failed(text, _) => {
                Error::internal(format!("{doing}: the server says: {text}"))
            }
            Fail::Away(member) => Error::MemberAway { member, what: doing.to_owned() },
            Fail::Unreachable(text) | Fail::Lost(text) | Fail::NoWay(text) => {
                Error::Transport { message: format!("{doing}: {text}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fail_is_an_error_by_its_kind() {
        let error = |fail: Fail| fail.plain("creating 'a'");
        assert!(matches!(error(Fail::Refused(403, "no".into())), Error::Auth { .. }));
        assert!(matches!(error(Fail::Refused(500, "no".into())), Error::Internal { .. }));
        assert!(matches!(error(Fail::Lost("cut".into())), Error::Transport { .. }));
        insta::assert_snapshot!(error(Fail::Failed("no space".into(), None)), @"creating 'a': the server says: no space");
    }
}
