//! Which releases are known, and what one that is not may be used for.

use super::api::Api;
use super::{BACKEND, Inner};
use crate::sandbox::{Error, Result};
use crate::transport::jsonrpc::release_name;

/// The names of those that are known, oldest first.
const KNOWN: &[&str] = &["25.04", "25.10", "26"];

/// How a release is worked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub api: Api,
    /// The name of one that is not known: it is only looked at.
    pub unknown: Option<String>,
}

/// What a release is, by the newest version of the API that it has. One that is not known may be taken
/// for another one.
pub(super) fn of(newest: (u32, u32, u32), assumed: Option<&str>) -> Result<Release> {
    let wrong = |assumed: &str| {
        Error::invalid_hint(
            "assume-release",
            format!("there is no release '{assumed}' that is known here"),
            format!("it is one of {}", KNOWN.join(", ")),
        )
    };
    let assumed = match assumed {
        Some("25.04" | "25.10") => Some(Api::Virt),
        Some("26") => Some(Api::Container),
        Some(other) => return Err(wrong(other)),
        None => None,
    };
    match (newest.0, newest.1) {
        (25, 4 | 10) => Ok(Release { api: Api::Virt, unknown: None }),
        (26, _) => Ok(Release { api: Api::Container, unknown: None }),
        (year, _) => {
            let newer = if year < 26 { Api::Virt } else { Api::Container };
            let unknown = assumed.is_none().then(|| release_name(newest));
            Ok(Release { api: assumed.unwrap_or(newer), unknown })
        }
    }
}

/// The newest release that is known with these methods.
pub(super) fn newest_of(api: Api) -> &'static str {
    match api {
        Api::Virt => "25.10",
        Api::Container => KNOWN[KNOWN.len() - 1],
    }
}

impl Inner {
    /// Whether more may be done than to look.
    pub(super) fn may(&self, verb: &str) -> Result<()> {
        let Some(release) = &self.unknown else { return Ok(()) };
        Err(Error::unsupported(
            format!("{verb} on TrueNAS {release}"),
            BACKEND,
            format!(
                "this release is not known here and only looked at; look for a newer sandscript, or treat it \
                 as one that is known: --assume-release {}",
                newest_of(self.api)
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ones_are_used_and_newer_ones_looked_at() {
        let known = |newest, api| {
            assert_eq!(of(newest, None).unwrap(), Release { api, unknown: None });
        };
        known((25, 4, 2), Api::Virt);
        known((25, 10, 7), Api::Virt);
        known((26, 0, 1), Api::Container);
        for newest in [(27, 0, 0), (25, 12, 0), (26, 0, 0)] {
            let taken = of(newest, Some("26")).unwrap();
            assert_eq!(taken, Release { api: Api::Container, unknown: None });
        }
        let newer = of((27, 0, 0), None).unwrap();
        assert_eq!(newer, Release { api: Api::Container, unknown: Some("27".into()) });
        assert_eq!(of((27, 4, 0), None).unwrap().unknown.as_deref(), Some("27.4"));
        let error = of((26, 0, 0), Some("goldeye")).unwrap_err();
        insta::assert_snapshot!(error, @"assume-release: there is no release 'goldeye' that is known here");
        assert_eq!(error.hint().unwrap(), "it is one of 25.04, 25.10, 26");
    }
}
