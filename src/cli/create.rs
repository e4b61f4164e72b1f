//! `sandscript create`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{FormatArg, LimitArgs, key_value};
use super::egress::{self, EgressArgs};
use super::session::Session;
use super::{Result, view};
use crate::egress::Origin;
use crate::sandbox::{CacheMount, Mount, Policy, Spec};

const EXAMPLES: &str = "\
Examples:
  sandscript create web
  sandscript create web --image ./rootfs.tar.zst --memory 512MiB --cpu 2
  sandscript create web --mount ./src:/src:ro --env LANG=C --label team=infra
  sandscript create web --egress registries --allow example.com:443";

/// Make a sandbox and start it
///
/// When this returns, commands run in it. It stays until it is deleted.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Create {
    /// Its name: a-z, 0-9 and '-'
    name: String,
    /// What it starts from: host, a tarball's path or URL [default: the backend's, see doctor]
    #[arg(long)]
    image: Option<String>,
    /// The sha256 that an image given by URL must have
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// A variable in the environment of every command
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    env: Vec<(String, String)>,
    /// A folder or file of this machine in the guest; ':ro' at the end: only to read
    #[arg(long, value_name = "SRC:DST[:ro]", value_parser = mount)]
    mount: Vec<Mount>,
    /// A folder of the backend's that outlives it, in the guest: who has it has it alone
    #[arg(long, value_name = "NAME=PATH", value_parser = key_value)]
    cache: Vec<(String, String)>,
    #[command(flatten)]
    egress: EgressArgs,
    /// User of every command that names none [default: root]
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory of every command that names none [default: the user's home]
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// The guest's host name [default: the name]
    #[arg(long)]
    hostname: Option<String>,
    /// A label to find it by
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Leave it stopped
    #[arg(long)]
    bare: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

impl Create {
    fn spec(self, folder: &Path) -> Result<Spec> {
        let mut mounts = self.mount;
        for mount in &mut mounts {
            mount.source = folder.join(&mount.source);
        }
        let spec = Spec {
            name: self.name,
            image: self.image,
            sha256: self.sha256,
            hostname: self.hostname,
            limits: self.limits.limits(),
            mounts,
            caches: self.cache.into_iter().map(|(n, path)| CacheMount::new(n, path)).collect(),
            egress: Policy::None,
            env: self.env.into_iter().collect(),
            user: self.user,
            cwd: self.cwd,
            labels: self.label.into_iter().collect(),
            owner: None,
            expires: None,
            bare: self.bare,
        };
        spec.check()?;
        Ok(spec)
    }

    pub fn call(self: Box<Self>, session: &Session<'_>) -> Result {
        let json = self.format.json();
        let catalog = &session.settings.egress;
        let asked = self.egress.asked(catalog)?.unwrap_or_else(|| catalog.standard());
        let mut spec = self.spec(&session.folder)?;
        let info = session.work(false, |work| async move {
            let (image, sha256) = (spec.image.clone(), spec.sha256.clone());
            let origin = Origin::Image { image, sha256 };
            let (env, user) = (spec.env.clone(), spec.user.clone());
            spec.egress = egress::resolve(session, &work, &asked, origin, env, user).await?;
            Ok(work.backend.create(&spec, &work.cancel).await?)
        })?;
        if json {
            session.output.json(&view::sandbox_json(&info));
        } else {
            session.output.note(format!("{} is {}", info.name, info.state.word()));
        }
        Ok(0)
    }
}

fn mount(text: &str) -> Result<Mount, String> {
    let (rest, readonly) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    match rest.rsplit_once(':') {
        Some((source, target)) if !source.is_empty() && target.starts_with('/') => {
            Ok(Mount { source: PathBuf::from(source), target: target.into(), readonly })
        }
        _ => Err("write it as SRC:DST or SRC:DST:ro; DST starts with '/'".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let parsed = mount("a:b:/c:ro").unwrap();
        assert_eq!((parsed.source, parsed.target.as_str()), ("a:b".into(), "/c"));
        assert!(parsed.readonly);
        assert!(!mount("/a:/c").unwrap().readonly);
        for bad in ["", "/a", "/a:c", ":/c", "/a:ro"] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }
}
