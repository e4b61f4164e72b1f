//! The releases, and what differs between them.

/// A release of TrueNAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Release {
    /// 25.04.2.6, Fangtooth.
    #[value(name = "25.04")]
    V25_04,
    /// 25.10.6, Goldeye.
    #[value(name = "25.10")]
    V25_10,
    /// 26.0.0-BETA.3.
    #[value(name = "26-beta", alias = "26b")]
    V26Beta,
    /// 26.0.0-RC.1.
    #[value(name = "26-rc", alias = "26rc")]
    V26Rc,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Release; 4] =
        [Release::V25_04, Release::V25_10, Release::V26Beta, Release::V26Rc];

    /// What the command line and transcripts call it.
    pub fn name(self) -> &'static str {
        match self {
            Release::V25_04 => "25.04",
            Release::V25_10 => "25.10",
            Release::V26Beta => "26-beta",
            Release::V26Rc => "26-rc",
        }
    }

    /// What `system.version_short` answers.
    pub fn version(self) -> &'static str {
        match self {
            Release::V25_04 => "25.04.2.6",
            Release::V25_10 => "25.10.6",
            Release::V26Beta => "26.0.0-BETA.3",
            Release::V26Rc => "26.0.0-RC.1",
        }
    }

    /// What `GET /api/versions` answers, oldest first.
    pub fn versions(self) -> Vec<&'static str> {
        let mut all = vec!["v25.04.0", "v25.04.1", "v25.04.2"];
        if self >= Release::V25_10 {
            all.extend(["v25.10.0", "v25.10.1", "v25.10.2", "v25.10.3", "v25.10.4", "v25.10.5"]);
        }
        if self.is_26() {
            all.push("v26.0.0");
        }
        all
    }

    /// The release whose models an API version has.
    pub fn of_version(version: &str) -> Option<Release> {
        match version {
            v if v.starts_with("v25.04") => Some(Release::V25_04),
            v if v.starts_with("v25.10") => Some(Release::V25_10),
            v if v.starts_with("v26") => Some(Release::V26Rc),
            _ => None,
        }
    }

    /// Whether containers are `container.*` (libvirt) instead of `virt.*` (Incus).
    pub fn is_26(self) -> bool {
        self >= Release::V26Beta
    }
}
