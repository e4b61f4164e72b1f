//! `sandscript create`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{FormatArg, LimitArgs, device, key_value, network, port, target};
use super::egress::{self, EgressArgs};
use super::session::Session;
use super::{Result, publish, view};
use crate::egress::Origin;
use crate::sandbox::{
    CacheMount, Cancel, Device, DeviceKind, Hardware, Mount, Network, Placement, Policy,
    PublishSpec, Setup, Spec,
};

const EXAMPLES: &str = "\
Examples:
  sandscript create web
  sandscript create web --image ./rootfs.tar.zst --memory 512MiB --cpu 2
  sandscript create web --mount ./src:/src:ro --env LANG=C --label team=infra
  sandscript create web --egress registries --allow example.com:443
  sandscript create web --publish 9000:8080
  sandscript create db --network back          others with --network back reach it as 'db'";

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
    /// A device of the server's machine in it: disk, gpu, nic, proxy or usb, with its keys, such as
    /// data=disk,pool=fast,source=vol,target=/data or web=proxy,listen=9000,connect=80
    #[arg(long, value_name = "NAME=TYPE,KEY=VALUE", value_parser = device)]
    device: Vec<Device>,
    /// Let containers run in it, which weakens what keeps it in
    #[arg(long)]
    nesting: bool,
    /// A port that its programs listen on, to be opened on this machine until it stops: 8080,
    /// 9000:8080 or ADDRESS:9000:8080; without ADDRESS for this machine only
    #[arg(long, value_name = "PORT", value_parser = port, conflicts_with = "bare")]
    publish: Vec<PublishSpec>,
    /// A network whose members reach each other by name, whatever their egress policies are: all that
    /// are made with --network NAME, and no script's
    #[arg(long, value_name = "NAME", value_parser = network)]
    network: Vec<Network>,
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
    /// Where in a cluster: a member's name, or @ and a group's [default: where the cluster puts it]
    #[arg(long, value_name = "MEMBER", value_parser = target)]
    target: Option<Placement>,
    /// The storage pool that its files are on [default: the machine's choice]
    #[arg(long)]
    pool: Option<String>,
    /// The CPUs that it runs on, such as 0-3 or 0,2
    #[arg(long, value_name = "SET", conflicts_with = "cpu")]
    cpus: Option<String>,
    /// Its card's hardware address
    #[arg(long)]
    mac: Option<String>,
    /// A fixed address with the length of its network, such as 192.168.1.50/24
    #[arg(long, value_name = "ADDRESS/BITS")]
    address: Option<String>,
    /// An account to make in it
    #[arg(long, value_name = "USER")]
    account: Vec<String>,
    /// A public key that lets one in by SSH, as root and each --account
    #[arg(long, value_name = "LINE")]
    ssh_key: Vec<String>,
    /// Whom it asks for names
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<std::net::IpAddr>,
    /// A package of its distribution to install; it needs egress for that
    #[arg(long, value_name = "PACKAGE")]
    tool: Vec<String>,
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
        let mut devices = self.device;
        for device in &mut devices {
            if let DeviceKind::Disk { source, pool: None, .. } = &mut device.kind {
                *source = folder.join(&*source).to_string_lossy().into_owned();
            }
        }
        let spec = Spec {
            name: self.name,
            image: self.image,
            sha256: self.sha256,
            hostname: self.hostname,
            limits: self.limits.limits(),
            hardware: Hardware {
                address: self.address,
                cpus: self.cpus,
                mac: self.mac,
                pool: self.pool,
            },
            setup: Setup {
                dns: self.dns,
                keys: self.ssh_key,
                tools: self.tool,
                users: self.account,
            },
            machine: Default::default(),
            mounts,
            caches: self.cache.into_iter().map(|(n, path)| CacheMount::new(n, path)).collect(),
            devices,
            nesting: self.nesting,
            egress: Policy::None,
            networks: self.network,
            env: self.env.into_iter().collect(),
            user: self.user,
            cwd: self.cwd,
            labels: self.label.into_iter().collect(),
            owner: None,
            expires: None,
            bare: self.bare,
            target: self.target,
        };
        spec.check()?;
        Ok(spec)
    }

    pub fn call(mut self: Box<Self>, session: &Session<'_>) -> Result {
        let json = self.format.json();
        let ports = std::mem::take(&mut self.publish);
        let catalog = &session.settings.egress;
        let asked = self.egress.over(catalog.standard(), catalog)?;
        let mut spec = self.spec(&session.folder)?;
        let info = session.work(false, |work| async move {
            publish::check(&work, &ports)?;
            let (image, sha256) = (spec.image.clone(), spec.sha256.clone());
            let origin = Origin::Image { image, sha256 };
            let (env, user) = (spec.env.clone(), spec.user.clone());
            spec.egress = egress::resolve(session, &work, &asked, origin, env, user).await?;
            let mut info = work.backend.create(&spec, &work.cancel).await?;
            match publish::open(&work, &info.name, &ports).await {
                Ok(opened) => info.ports = opened,
                Err(error) => {
                    // As if it had never been: with a token of its own, a cancelled one, too.
                    let _ = work.backend.delete(&info.name, &Cancel::new()).await;
                    return Err(error);
                }
            }
            Ok(info)
        })?;
        publish::warn(session.output, &info.ports);
        if json {
            session.output.json(&view::sandbox_json(&info));
        } else {
            session.output.note(format!("{} is {}", info.name, info.state.word()));
            for open in &info.ports {
                session.output.note(format!("port {} of it is at {}", open.port, open.at));
            }
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
