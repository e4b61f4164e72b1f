//! What `sandscript doctor` tries, since a machine may forbid what it seems to have.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::run::this_machine;
use super::session::{Session, Work};
use super::{CommandError, Result};
use crate::api::new_run_id;
use crate::sandbox::{
    Backend, Cancel, Capability, CloneSpec, Command, Error, Limits, Owner, SnapshotSpec, Spec, exec,
};
use crate::workflow::exit;

/// How long everything may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Default)]
pub struct Tried {
    /// Why no sandbox can be had at all.
    pub sandbox: Option<CommandError>,
    /// What the backend says it can, and can't.
    pub failed: BTreeMap<Capability, CommandError>,
}

impl Tried {
    /// The exit code.
    pub fn code(&self) -> u8 {
        let first = self.sandbox.iter().chain(self.failed.values()).next();
        first.map_or(exit::OK, |error| error.code)
    }
}

/// Tries what the backend says it can. Nothing is left.
pub async fn all(session: &Session<'_>, work: &Work) -> Tried {
    let mut tried = Tried::default();
    let scratch = Scratch::new(session);
    let done = async {
        let backend = scratch.open(session, work).await?;
        tokio::time::timeout(LONGEST, each(&backend, &mut tried.failed, &work.cancel))
            .await
            .unwrap_or(Err(Error::Timeout { what: "a sandbox".into(), after: LONGEST }))
            .map_err(CommandError::from)
    };
    tried.sandbox = done.await.err();
    tried
}

/// A store of its own, inside the real one: what that file system can't is seen. It is among what is
/// thrown away there, so that nothing is left of it whatever happens, and locked against that until then.
struct Scratch(Option<(PathBuf, Option<File>)>);

impl Scratch {
    fn new(session: &Session<'_>) -> Scratch {
        let local = session.settings.backend == "local";
        let name = format!("doctor-{}", &new_run_id()[1..9]);
        let folder = session.settings.store.join("trash").join(name);
        Scratch(local.then(|| {
            let lock = std::fs::create_dir(&folder).and_then(|()| {
                let lock = File::open(&folder)?;
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
                Ok(lock)
            });
            (folder, lock.ok())
        }))
    }

    async fn open(&self, session: &Session<'_>, work: &Work) -> Result<Arc<dyn Backend>> {
        let Some((folder, _)) = &self.0 else { return Ok(Arc::clone(&work.backend)) };
        let mut settings = session.settings.clone();
        settings.store.clone_from(folder);
        session.open(&settings).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some((folder, _)) = &self.0 {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

async fn each(
    backend: &Arc<dyn Backend>,
    failed: &mut BTreeMap<Capability, CommandError>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let backend = backend.as_ref();
    let owner = Owner::new(new_run_id(), this_machine());
    let name = format!("doctor-{}", &owner.run[1..9]);
    let spec = Spec { owner: Some(owner.clone()), ..Spec::new(&name) };
    backend.create(&spec, cancel).await?;
    let works = async {
        run(backend, &name, None, cancel).await?;
        match twin(backend, &owner, &name, cancel).await {
            // Who may make sandboxes may not be let do this: doctor says so in a line of its own.
            Err(Error::Unsupported { .. }) => Ok(()),
            done => done,
        }
    };
    let works = works.await;
    if works.is_ok() {
        for capability in backend.capabilities().has.clone() {
            let done = match capability {
                Capability::Users => run(backend, &name, Some("1:1"), cancel).await,
                Capability::Freeze => freeze(backend, &name, cancel).await,
                _ => match limits(capability) {
                    Some(limits) => limited(backend, &owner, limits, cancel).await,
                    None => Ok(()),
                },
            };
            if let Err(error) = done {
                failed.insert(capability, error.into());
            }
        }
    }
    backend.delete(&name, &Cancel::new()).await?;
    works
}

/// Takes a snapshot, and makes a sandbox of it.
async fn twin(
    backend: &dyn Backend,
    owner: &Owner,
    name: &str,
    cancel: &Cancel,
) -> Result<(), Error> {
    let twin = format!("{name}-twin");
    backend.snapshot(name, &SnapshotSpec::new("tried"), cancel).await?;
    let clone = CloneSpec { owner: Some(owner.clone()), ..CloneSpec::of("tried", &twin) };
    Backend::clone(backend, name, &clone, cancel).await?;
    let ran = run(backend, &twin, None, cancel).await;
    backend.delete(&twin, &Cancel::new()).await?;
    ran
}

async fn run(
    backend: &dyn Backend,
    name: &str,
    user: Option<&str>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut command = Command::argv(["true"]);
    command.user = user.map(str::to_owned);
    command.cwd = Some("/".into());
    let done = exec(backend, name, &command, cancel).await?;
    match done.exit.ok() {
        true => Ok(()),
        false => Err(Error::internal(format!("'true' failed in a sandbox: {}", done.exit))),
    }
}

async fn freeze(backend: &dyn Backend, name: &str, cancel: &Cancel) -> Result<(), Error> {
    backend.freeze(name, cancel).await?;
    backend.thaw(name, cancel).await
}

/// Generous ones, of one kind.
fn limits(capability: Capability) -> Option<Limits> {
    let none = Limits::default();
    Some(match capability {
        Capability::LimitCpu => Limits { cpu: Some(1.0), ..none },
        Capability::LimitMemory => Limits { memory: Some(256 << 20), ..none },
        Capability::LimitPids => Limits { pids: Some(100), ..none },
        Capability::LimitDisk => Limits { disk: Some(2 << 30), ..none },
        Capability::LimitInodes => Limits { inodes: Some(10_000), ..none },
        _ => return None,
    })
}

async fn limited(
    backend: &dyn Backend,
    owner: &Owner,
    limits: Limits,
    cancel: &Cancel,
) -> Result<(), Error> {
    let name = format!("doctor-{}", &new_run_id()[1..9]);
    let spec = Spec { owner: Some(owner.clone()), limits, ..Spec::new(&name) };
    backend.create(&spec, cancel).await?;
    let ran = run(backend, &name, None, cancel).await;
    backend.delete(&name, &Cancel::new()).await?;
    ran
}
