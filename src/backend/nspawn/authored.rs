//! Machines of files: what one file says is read from the store each time, and rendered for this host.
//!
//! ```text
//! machines/NAME/file/machine.toml   what the machine is, as somebody wrote it
//! machines/NAME/file/1.toml         what it extends, where that is no template
//! machines/NAME/setup.json          which steps of its set-up were done
//! machines/NAME/setup.log           what they said
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::check;
use super::launch::tail;
use super::lifecycle::Plan;
use super::machine::host::{Host as Looked, ThisHost};
use super::machine::render::{self, Context};
use super::machine::{self, Network, Ownership, cdi, checks};
use super::record::{Machine, RANGE};
use super::{BACKEND, Inner};
use crate::backend::guest::{Ask, Record, guarded};
use crate::backend::local::store_error;
use crate::egress::Asked;
use crate::sandbox::{
    Cancel, Capability, Error, Info, Policy, Result, Spec, Verdict, check_name, wall_clock,
};

/// What the file of a machine is called in the store.
pub(super) const OWN: &str = "machine.toml";

/// A machine of a file, as it is rendered for this host.
pub(super) struct Authored {
    pub file: machine::Machine,
    pub plan: render::Plan,
    /// Its service, where systemd has booted the host.
    pub unit: String,
}

/// Writes the files of a machine into a folder of their own.
fn write(folder: &Path, files: &BTreeMap<String, String>) -> Result<PathBuf> {
    let place = folder.join("file");
    let failed = |error| store_error("making", &place, error);
    fs::create_dir(&place).map_err(failed)?;
    for (name, text) in files {
        let plain = name.strip_suffix(".toml").is_some_and(|stem| check_name(stem).is_ok());
        if !plain {
            return Err(Error::invalid("machine", format!("'{name}' can't be a machine file")));
        }
        fs::write(place.join(name), text).map_err(failed)?;
    }
    match files.contains_key(OWN) {
        true => Ok(place.join(OWN)),
        false => Err(Error::invalid("machine", format!("there is no {OWN}"))),
    }
}

/// What a machine of a file may reach, for which a policy was asked.
fn reaches(file: &machine::Machine, policy: &Policy) -> Policy {
    match &file.network {
        Network::Gate => policy.clone(),
        Network::Nothing => Policy::None,
        // That is up to its interfaces, and nobody looks.
        Network::Own(_) | Network::Host => Policy::Unrestricted,
    }
}

fn has_interfaces() -> Error {
    Error::unsupported(
        "an egress policy, or a published port, of a machine with interfaces of its own",
        BACKEND,
        "give rules to what they are plugged into; or leave nics and network out of its file, so that all it sends goes through the gate",
    )
}

fn disk_elsewhere() -> Error {
    Error::unsupported(
        "limits.disk of a machine whose files are somebody else's folder",
        BACKEND,
        "leave it out, or make the machine of an image",
    )
}

/// What this host has not that the machine can't start without, in one sentence.
pub(super) fn preflight(file: &machine::Machine, host: &dyn Looked) -> Result<()> {
    // Nothing but the devices that a service may open keeps root of the host from its disks.
    if !file.users.namespace && !host.exists("/run/systemd/system") {
        return Err(Error::unsupported(
            "users.namespace = false where systemd is not the first process",
            BACKEND,
            "root of the machine could read the host's disks there: leave users.namespace alone, or use a host that systemd has booted",
        ));
    }
    let all = checks(file, host);
    let bad: Vec<_> = all.iter().filter(|check| check.verdict == Verdict::Bad).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let said: Vec<String> =
        bad.iter().map(|check| format!("{}: {}", check.what, check.says)).collect();
    let hints: Vec<&str> = bad.iter().filter_map(|check| check.hint.as_deref()).collect();
    let what = format!("starting '{}' here ({})", file.name, said.join("; "));
    Err(Error::unsupported(what, BACKEND, hints.join("; ")))
}

impl Inner {
    /// What a machine's file says; none of one that has no file.
    pub(super) fn file(&self, name: &str, machine: &Machine) -> Result<Option<machine::Machine>> {
        if !machine.authored {
            return Ok(None);
        }
        let path = self.store.folder(name).join("file").join(OWN);
        let mut file = machine::Machine::load(&path, &BTreeMap::new())?;
        let known = self.store.machine_name(name);
        let record = &machine.record;
        let hostname = match (&record.source, &file.hostname) {
            (None, hostname) => hostname.clone().unwrap_or_else(|| name.to_owned()),
            _ => record.hostname.clone(),
        };
        if let Some(cloud) = &mut file.cloud_init
            && cloud.meta_data.is_none()
        {
            cloud.meta_data =
                Some(format!("instance-id: {}\nlocal-hostname: {hostname}\n", machine.machine_id));
        }
        // What jails hide of the kernel, where this one has it.
        let hidden = file.nspawn.get("Files", "Inaccessible").to_vec();
        file.nspawn.clear("Files", "Inaccessible");
        let kernels = |path: &str| path.starts_with("/sys/") || path.starts_with("/proc/");
        for path in hidden.iter().filter(|path| !kernels(path) || Path::new(path).exists()) {
            file.nspawn.add("Files", "Inaccessible", path);
        }
        file.resolv = file.resolv.settled(&file.network, &ThisHost);
        file.hostname = Some(hostname);
        file.name = known;
        // A clone has limits of its own.
        if record.source.is_some() {
            file.limits = record.limits.clone();
        }
        if self.gives_ids(machine, &self.store.tree(name)) {
            file.users.ownership = Ownership::Off;
        } else if machine.chown && file.users.ownership == Ownership::Auto {
            file.users.ownership = Ownership::Chown;
        }
        Ok(Some(file))
    }

    /// Whether the store gives a machine's files, or those of its copies, to its ids, so that nobody else has to.
    fn gives_ids(&self, machine: &Machine, tree: &Path) -> bool {
        machine.elsewhere.is_none() && self.storage.ownership(tree) == "off"
    }

    /// A machine of a file as it is rendered for this host; none of one that has no file.
    pub(super) fn authored(&self, name: &str, machine: &Machine) -> Result<Option<Authored>> {
        let Some(file) = self.file(name, machine)? else { return Ok(None) };
        let edits = cdi::look_up(&file.gpus, &ThisHost)?;
        let context = Context {
            root: self.root(name, machine),
            base: file.users.namespace.then_some(machine.base),
            edits,
            places: render::Places::default(),
            log: Some(self.store.folder(name).join("console.log")),
        };
        let source = self.store.folder(name).join("file").join(OWN);
        let plan = render::Plan::new(&file, &context, &source.display().to_string())?;
        let unit = render::unit_name(&file.name);
        Ok(Some(Authored { file, plan, unit }))
    }

    /// Whether a machine's files are mapped to its ids, and may be given to them should that not work: its file
    /// leaves that open.
    fn is_mapped(&self, name: &str, machine: &Machine) -> bool {
        let open = |file: machine::Machine| {
            file.users.namespace && file.users.ownership == Ownership::Auto
        };
        // A folder of somebody else's keeps its owners.
        machine.elsewhere.is_none()
            && !machine.chown
            && self.file(name, machine).is_ok_and(|file| file.is_some_and(open))
    }

    /// Whether a machine that did not start is to be tried with files that are given to its ids: it said that
    /// its mounts can't map them.
    pub(super) fn may_own(&self, name: &str, machine: &Machine) -> bool {
        let said = tail(&self.store.folder(name).join("console.log"));
        let unmapped = ["id mapped mount", "id-mapped mount", "idmapped mount", "map uid"];
        // All else is the machine's own word.
        let failed = said.lines().filter(|line| line.starts_with("Failed to "));
        failed.map(str::to_lowercase).any(|line| unmapped.iter().any(|word| line.contains(word)))
            && self.is_mapped(name, machine)
    }

    /// Whether root of a machine that runs for the first time can do with its files what root can: on some file
    /// systems it can't, although its mounts map them.
    pub(super) async fn owns(&self, name: &str, machine: &Machine) -> bool {
        if machine.ready || !self.is_mapped(name, machine) {
            return true;
        }
        let own = format!("/root/.sandscript-{}", machine.record.token);
        let tried: [&[&str]; 3] =
            [&["stat", "/root"], &["mkdir", &own, "", ""], &["remove", &own, ""]];
        for request in tried {
            if self.ask_once(name, request).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Where a machine's files are.
    pub(super) fn root(&self, name: &str, machine: &Machine) -> PathBuf {
        self.store.root_of(name, machine)
    }

    /// Refuses what takes copies of a machine's files where these are not in the store.
    pub(super) fn in_store(&self, name: &str) -> Result<()> {
        match self.store.machine(name)?.elsewhere {
            None => Ok(()),
            Some(folder) => Err(Error::unsupported(
                "snapshots and clones of a machine whose files are somebody else's folder",
                BACKEND,
                format!(
                    "its files are {}: make a machine of an image, or of an archive of it",
                    folder.display()
                ),
            )),
        }
    }

    /// Makes a machine of a file.
    pub(super) async fn create_authored(
        self: &Arc<Self>,
        spec: &Spec,
        cancel: &Cancel,
    ) -> Result<Info> {
        self.is_free(&spec.name)?;
        let (inner, spec) = (Arc::clone(self), spec.clone());
        let name = spec.name.clone();
        let info = guarded(cancel, move |cancel| async move {
            let (making, lock) = inner.store.new_folder()?;
            let done = inner.make_authored(&spec, &making, &cancel).await;
            drop(lock);
            if making.exists() {
                inner.clear(&making).await?;
            }
            done
        })
        .await?;
        // What fails in here leaves a machine that is there and goes on where it stopped.
        self.set_up(&name, cancel).await?;
        Ok(info)
    }

    async fn make_authored(&self, spec: &Spec, making: &Path, cancel: &Cancel) -> Result<Info> {
        let path = write(making, &spec.machine)?;
        let file = machine::Machine::load(&path, &BTreeMap::new())?;
        self.check_limits(&file.limits)?;
        if file.limits.disk.is_some() && matches!(file.image, Some(machine::Image::Folder(_))) {
            return Err(disk_elsewhere());
        }
        self.starts_with_host(&file)?;
        let gate = file.network == Network::Gate;
        self.is_kept(&file, &spec.egress)?;
        let named = machine::Machine { name: spec.name.clone(), ..file.clone() };
        // What must not be is refused before anything is fetched for it.
        render::Plan::new(&named, &Context::usual(&named), &spec.name)?;
        if !spec.bare {
            preflight(&named, &ThisHost)?;
        }
        let (image, sha256, elsewhere) = match &file.image {
            Some(machine::Image::Folder(folder)) => {
                let found = folder.canonicalize().map_err(|error| {
                    Error::invalid("image", format!("{}: {error}", folder.display()))
                })?;
                (folder.display().to_string(), None, Some(found))
            }
            Some(machine::Image::Tarball { from, sha256 }) => (from.clone(), sha256.clone(), None),
            Some(image) => (image.reference(), None, None),
            None => (self.capabilities.default_image.clone(), None, None),
        };
        let own = self.store.tree(&spec.name);
        self.is_unknown(&spec.name, elsewhere.as_deref().unwrap_or(&own))?;
        let (tree, fingerprint) = match &elsewhere {
            None => self.image(&image, sha256.as_deref(), cancel).await?,
            Some(folder) => {
                check(folder, &image)?;
                (folder.clone(), String::new())
            }
        };
        let mut record = Record::new(spec, image, fingerprint);
        record.created = Some(wall_clock());
        record.limits = file.limits.clone();
        record.env = file.env.iter().cloned().collect();
        record.hostname = file.hostname.clone().unwrap_or_else(|| spec.name.clone());
        record.egress = reaches(&file, &spec.egress);
        let taken = self.taken()?;
        let mut machine = Machine { authored: true, gate, ..Machine::new(record, &taken) };
        let plain = file.users.namespace
            && file.users.size == RANGE
            && file.users.ownership == Ownership::Auto;
        if !plain && elsewhere.is_none() && self.gives_ids(&machine, &tree) {
            return Err(Error::invalid_hint(
                "users",
                format!(
                    "a store on this file system gives a machine {RANGE} ids of its own, and nothing else"
                ),
                "leave users out of the file, or use a store on btrfs (--store)",
            ));
        }
        if file.users.size != RANGE || file.users.base.is_some() {
            let free = |base: u32| {
                let one = Machine { base, size: Some(file.users.size), ..Machine::default() };
                !one.blocks().any(|block| taken.contains(&block))
            };
            machine.size = Some(file.users.size);
            machine.base = file.users.base_for(&spec.name, &|base| !free(base)).unwrap_or_default();
            if file.users.namespace && !free(machine.base) {
                return Err(Error::invalid_hint(
                    "users",
                    format!("another machine has ids from {} on", machine.base),
                    "leave users.base out, and a free range is taken",
                ));
            }
        }
        match &elsewhere {
            None => {
                let own = making.join("tree");
                self.storage.copy(&tree, &own, false).await?;
                self.measure_disk(&mut machine, &own).await?;
            }
            Some(folder) => {
                let id = fs::read_to_string(folder.join("etc/machine-id")).unwrap_or_default();
                let id = id.trim();
                // Its own, as long as it has one.
                if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    machine.machine_id = id.to_ascii_lowercase();
                }
            }
        }
        machine.elsewhere = elsewhere;
        let plan = Plan { name: spec.name.clone(), machine, user: None, bare: spec.bare };
        self.place(&plan, making, cancel).await
    }

    /// Gives a clone the file of its source.
    ///
    /// # Errors
    /// `Unsupported` for what there can be once only.
    pub(super) fn clone_file(
        &self,
        name: &str,
        source: &Machine,
        machine: &mut Machine,
        making: &Path,
    ) -> Result<()> {
        let Some(file) = self.file(name, source)? else { return Ok(()) };
        let alone = |nic: &machine::Nic| {
            !nic.addresses.is_empty() || matches!(nic.link, machine::Link::Interface(_))
        };
        if matches!(&file.network, Network::Own(nics) if nics.iter().any(alone)) {
            return Err(Error::unsupported(
                "a clone of a machine with a fixed address, or with an interface of the host's",
                BACKEND,
                "two can't have the same: let it ask by DHCP, or make another machine of a file of its own",
            ));
        }
        let (from, to) = (self.store.folder(name).join("file"), making.join("file"));
        let failed = |error| store_error("copying", &from, error);
        fs::create_dir(&to).map_err(failed)?;
        for entry in fs::read_dir(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
        }
        // What was done is in its files.
        let done = self.store.folder(name).join("setup.json");
        if done.exists() {
            fs::copy(&done, making.join("setup.json")).map_err(failed)?;
        }
        (machine.authored, machine.gate) = (true, source.gate);
        machine.chown = source.chown;
        if let Some(size) = source.size {
            let taken = self.taken()?;
            let used = |base: u32| {
                let one = Machine { base, size: Some(size), ..Machine::default() };
                one.blocks().any(|block| taken.contains(&block))
            };
            let free = machine::Users { base: None, ..file.users };
            let token = &machine.record.token;
            machine.base = free.base_for(token, &used).unwrap_or(machine.base);
            machine.size = Some(size);
        }
        Ok(())
    }

    /// Refuses a policy that nobody could keep for a machine of this file.
    fn is_kept(&self, file: &machine::Machine, policy: &Policy) -> Result<()> {
        self.capabilities.require_egress(policy)?;
        if *policy == Policy::None {
            return Ok(());
        }
        if file.network != Network::Gate {
            return Err(has_interfaces());
        }
        match file.users.namespace {
            true => Ok(()),
            false => Err(Error::unsupported(
                "an egress policy with users.namespace = false",
                BACKEND,
                "root of the machine would be root of the host's network, too: leave users.namespace alone, or say egress = \"none\"",
            )),
        }
    }

    /// What a machine's file says now, where that was changed since the last start: limits, environment, host name
    /// and network. A clone has its own. Somebody holds the machine's lock.
    pub(super) async fn refresh(&self, name: &str, machine: &Machine) -> Result<Machine> {
        let Some(file) = self.file(name, machine)? else { return Ok(machine.clone()) };
        let mut now = machine.clone();
        let gate = file.network == Network::Gate;
        if gate != machine.gate {
            // What it reached by its interfaces is no policy.
            let plain = file.egress.as_ref().and_then(Asked::plain).unwrap_or_default();
            now.gate = gate;
            now.record.egress = reaches(&file, &plain);
        }
        if machine.record.source.is_none() {
            now.record.env = file.env.iter().cloned().collect();
            now.record.hostname = file.hostname.clone().unwrap_or_else(|| name.to_owned());
            self.check_limits(&file.limits)?;
            now.record.limits = file.limits.clone();
        }
        if now == *machine {
            return Ok(now);
        }
        self.is_kept(&file, if gate { &now.record.egress } else { &Policy::None })?;
        if now.record.limits.disk != machine.record.limits.disk {
            self.limit_anew(name, &mut now).await?;
        }
        self.store.save(name, &now)?;
        Ok(now)
    }

    async fn limit_anew(&self, name: &str, machine: &mut Machine) -> Result<()> {
        let tree = self.store.tree(name);
        if machine.elsewhere.is_some() {
            return Err(disk_elsewhere());
        }
        match machine.record.limits.disk {
            Some(_) => self.measure_disk(machine, &tree).await,
            None => Err(Error::unsupported(
                "taking limits.disk away from a machine",
                BACKEND,
                "say a larger one: sandscript machine set FILE limits.disk=1TiB",
            )),
        }
    }

    /// Refuses a policy for a machine that has interfaces of its own.
    pub(super) fn is_ruled(&self, machine: &Machine) -> Result<()> {
        match machine.authored && !machine.gate {
            false => Ok(()),
            true => Err(has_interfaces()),
        }
    }

    /// Refuses what a machine of a file is asked for beside its file.
    pub(super) fn only_file(&self, spec: &Spec) -> Result<()> {
        self.capabilities.require(Capability::MachineFiles)?;
        let plain = Spec {
            name: spec.name.clone(),
            machine: spec.machine.clone(),
            bare: spec.bare,
            egress: spec.egress.clone(),
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            ..Spec::default()
        };
        match *spec == plain {
            true => Ok(()),
            false => Err(Error::invalid_hint(
                "machine",
                "a machine of a file is what its file says",
                "write it into the file: nothing else but labels can be given beside it",
            )),
        }
    }
}
