//! A backend in memory: deterministic, without a kernel behind it, for the tests of everything
//! above a backend and of programs that embed sandscript.
//!
//! Files, snapshots, clones, states, limits and labels are kept as data; commands are run by a small
//! interpreter that knows a few programs and a little of the shell, says so when it meets
//! something else, and never pretends. Calls can be made to fail, to wait or to hang, and are logged.
//!
//! ```
//! use sandscript::backend::fake::{Effect, FakeBackend, Fault, Verb};
//! use sandscript::sandbox::{Backend, Cancel, Command, Error, Spec, exec};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let fake = FakeBackend::new();
//! let cancel = Cancel::new();
//! fake.create(&Spec::new("box"), &cancel).await?;
//! let output = exec(&fake, "box", &Command::shell("echo hello > /tmp/f; cat /tmp/f"), &cancel).await?;
//! assert_eq!(output.stdout, b"hello\n");
//!
//! fake.inject(Fault::new(Verb::Spawn, Effect::Error(Error::Cancelled)).on("box").nth(1));
//! assert!(exec(&fake, "box", &Command::argv(["true"]), &cancel).await.is_err());
//! assert!(exec(&fake, "box", &Command::argv(["true"]), &cancel).await?.exit.ok());
//! # Ok::<(), Error>(()) }).unwrap();
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::sandbox::{Capabilities, Capability, EgressLog, Enforcer, Member, MemberState, Result};

mod adopt;
mod archive;
mod backend;
mod builtin;
mod cache;
mod clock;
mod cluster;
mod fault;
mod image;
mod machine;
mod parse;
mod port;
mod process;
mod shell;
#[cfg(test)]
mod tests;
mod tree;
mod users;

pub use fault::{Call, Effect, Fault, Verb};

use clock::Clock;
use image::Image;
use machine::{Shared, World};

/// The backend in memory. Share it in an `Arc` to inject faults while others use it.
pub struct FakeBackend {
    shared: Arc<Shared>,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeBackend {
    /// The image used when a spec names none.
    pub const DEFAULT_IMAGE: &'static str = "fake";

    /// One with all capabilities that need no kernel, the system's clock and the default image.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To change what it can do.
    pub fn builder() -> FakeBuilder {
        FakeBuilder::default()
    }

    /// Lets calls that match `fault` fail, wait or hang.
    pub fn inject(&self, fault: Fault) {
        self.shared.world().faults.inject(fault);
    }

    /// Takes all injected faults back.
    pub fn clear_faults(&self) {
        self.shared.world().faults.clear();
    }

    /// Every call so far whose names were valid, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.world().faults.calls()
    }

    /// Empties the log of calls.
    pub fn clear_calls(&self) {
        self.shared.world().faults.forget_calls();
    }

    /// How often `verb` was called.
    pub fn count(&self, verb: Verb) -> usize {
        self.calls().iter().filter(|call| call.verb == verb).count()
    }

    /// Says that a run is dead: `gc` takes what it owns. All other runs count as alive.
    pub fn end_run(&self, run: impl Into<String>) {
        self.shared.world().ended.insert(run.into());
    }

    /// Says what a sandbox has been refused and has reached: nothing here does it by itself.
    pub fn set_egress_log(&self, name: &str, log: EgressLog) -> Result<()> {
        self.shared.world().get(name)?.log = log;
        Ok(())
    }

    /// Adds an image, or replaces it: another `version` is another fingerprint. It holds a few
    /// folders, the built-in commands, and `version` in `/etc/image`.
    pub fn set_image(&self, name: impl Into<String>, version: &str) {
        let image = Image::new(version, self.shared.clock.now());
        self.shared.world().images.insert(name.into(), image);
    }
}

/// Makes a [`FakeBackend`].
pub struct FakeBuilder {
    name: String,
    default_image: String,
    images: Vec<(String, String)>,
    missing: BTreeMap<Capability, String>,
    parallelism: usize,
    members: Vec<Member>,
    counter_clock: bool,
}

impl Default for FakeBuilder {
    fn default() -> Self {
        let kernel = "the fake backend has no kernel";
        let missing = [
            (Capability::Cluster, "the fake backend is one machine here"),
            (Capability::CpuSet, kernel),
            (Capability::Devices, "the fake backend never touches this machine"),
            (Capability::EgressUnrestricted, "the fake backend has no network"),
            (Capability::HostImage, "the fake backend never touches this machine"),
            (Capability::Init, kernel),
            (Capability::Mounts, "the fake backend never touches this machine"),
            (Capability::NetworkCard, "the fake backend has no network"),
            (Capability::MachineFiles, "machine files are for backend 'nspawn'"),
            (Capability::StoragePool, "the fake backend never touches this machine"),
            (Capability::Nesting, kernel),
            (Capability::Programs, kernel),
            (Capability::Setup, kernel),
            (Capability::TarImage, "the fake backend knows its images by name only"),
            (Capability::Usage, kernel),
        ];
        FakeBuilder {
            name: "fake".to_owned(),
            default_image: FakeBackend::DEFAULT_IMAGE.to_owned(),
            images: vec![
                (FakeBackend::DEFAULT_IMAGE.to_owned(), "1".to_owned()),
                ("debian/12".to_owned(), "debian/12".to_owned()),
            ],
            missing: missing.into_iter().map(|(c, hint)| (c, hint.to_owned())).collect(),
            parallelism: 4,
            members: Vec::new(),
            counter_clock: false,
        }
    }
}

impl FakeBuilder {
    /// The name it reports in its capabilities.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Another default image; it is added when it is not there.
    pub fn default_image(mut self, name: impl Into<String>) -> Self {
        self.default_image = name.into();
        if !self.images.iter().any(|(image, _)| *image == self.default_image) {
            self.images.push((self.default_image.clone(), self.default_image.clone()));
        }
        self
    }

    /// One more image; see [`FakeBackend::set_image`].
    pub fn image(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.images.push((name.into(), version.into()));
        self
    }

    /// Claims a capability. Only the claim changes: limits on CPU, memory and processes are
    /// kept as data, mounts and the network stay unreal.
    pub fn with(mut self, capability: Capability) -> Self {
        self.missing.remove(&capability);
        self
    }

    /// Does without a capability; what needs it is `Unsupported` with this hint.
    pub fn without(mut self, capability: Capability, hint: impl Into<String>) -> Self {
        self.missing.insert(capability, hint.into());
        self
    }

    /// How many sandboxes may work at once.
    pub fn parallelism(mut self, parallelism: usize) -> Self {
        self.parallelism = parallelism;
        self
    }

    /// Makes it a cluster of members of these names, each with so many processors and in the group
    /// `default`; the first one is in the group `first`, too.
    pub fn cluster<'a>(mut self, members: impl IntoIterator<Item = &'a str>, cpus: usize) -> Self {
        let member = |(at, name): (usize, &str)| {
            let groups = ["default", "first"].into_iter().take(if at == 0 { 2 } else { 1 });
            Member {
                name: name.to_owned(),
                groups: groups.map(str::to_owned).collect(),
                state: MemberState::Online,
                cpus,
                load: 0.0,
            }
        };
        self.members = members.into_iter().enumerate().map(member).collect();
        self.with(Capability::Cluster)
    }

    /// Times count up from 2001-09-09T01:46:40Z, a second at each reading.
    pub fn counter_clock(mut self) -> Self {
        self.counter_clock = true;
        self
    }

    /// The backend.
    pub fn build(self) -> FakeBackend {
        let clock = if self.counter_clock { Clock::counter() } else { Clock::System };
        let images = self
            .images
            .into_iter()
            .map(|(name, version)| (name, Image::new(&version, clock.now())))
            .collect();
        let has = Capability::ALL.iter().copied().filter(|c| !self.missing.contains_key(c));
        let capabilities = Capabilities {
            backend: self.name,
            default_image: self.default_image,
            egress: Enforcer::Host,
            has: has.collect(),
            missing: self.missing,
            parallelism: self.parallelism,
            verbs: Default::default(),
        };
        let world = World {
            machines: BTreeMap::new(),
            caches: BTreeMap::new(),
            images,
            faults: fault::Faults::default(),
            ended: BTreeSet::new(),
            cluster: cluster::Cluster { members: self.members, ..Default::default() },
            serial: 0,
        };
        FakeBackend { shared: Arc::new(Shared { world: Mutex::new(world), clock, capabilities }) }
    }
}
