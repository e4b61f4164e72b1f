//! What a case has to work with.

use super::*;

/// What one case works with; everything it makes is deleted after it.
#[derive(Clone)]
pub struct Scope {
    pub rig: Arc<Rig>,
    pub cancel: Cancel,
    pub(super) stem: String,
    pub(super) names: Arc<Mutex<BTreeSet<String>>>,
    pub(super) serial: Arc<AtomicUsize>,
}

impl Scope {
    pub fn backend(&self) -> &dyn Backend {
        self.rig.backend.as_ref()
    }

    pub fn has(&self, capability: Capability) -> bool {
        self.backend().capabilities().has(capability)
    }

    /// A name no other case uses.
    pub fn name(&self) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{serial}", self.stem);
        self.names.lock().unwrap().insert(name.clone());
        name
    }

    /// Moments to cancel at, a few of each part of what a create takes here.
    pub fn moments(&self, most: u32) -> impl Iterator<Item = Duration> + use<> {
        // With an init system, making one takes half a second instead of a few milliseconds.
        let slow = self.has(Capability::Init);
        let (count, pause) = if slow { (8, 25_000) } else { (most, 250) };
        (0..count).map(move |step| Duration::from_micros(u64::from(step) * pause))
    }

    /// How long it takes at most until a command has surely begun.
    pub fn begun(&self) -> Duration {
        Duration::from_millis(if self.has(Capability::Init) { 3000 } else { 500 })
    }

    /// A name for a cache that no other case uses.
    pub fn cache_name(&self) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("{}.{serial}", self.stem)
    }

    /// A folder of this case on the host.
    pub fn host_dir(&self) -> std::io::Result<PathBuf> {
        let path = self.rig.host.path().join(&self.stem);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A running sandbox with everything at its default.
    pub async fn sandbox(&self) -> CaseResult<Sandbox> {
        self.sandbox_of(|_| {}).await
    }

    pub async fn sandbox_of(&self, change: impl FnOnce(&mut Spec)) -> CaseResult<Sandbox> {
        let mut spec = Spec::new(self.name());
        if self.rig.choice == Choice::BySsh {
            spec.egress = sandscript::sandbox::Policy::Unrestricted;
        }
        change(&mut spec);
        self.backend().create(&spec, &self.cancel).await?;
        Ok(self.at(&spec.name))
    }

    /// A handle on a sandbox by name.
    pub fn at(&self, name: &str) -> Sandbox {
        Sandbox {
            backend: self.rig.backend.clone(),
            name: name.to_owned(),
            cancel: self.cancel.clone(),
        }
    }

    /// A clone of `source`, from a label or from its current state.
    pub async fn clone_of(&self, source: &Sandbox, label: Option<&str>) -> CaseResult<Sandbox> {
        let mut spec = CloneSpec::new(self.name());
        spec.label = label.map(str::to_owned);
        self.backend().clone(&source.name, &spec, &self.cancel).await?;
        Ok(self.at(&spec.name))
    }

    pub async fn exists(&self, name: &str) -> CaseResult<bool> {
        // It may come and go between one question and the next, but not each time.
        for _ in 0..5 {
            let all = self.backend().list(&self.cancel).await?;
            let listed = all.iter().any(|info: &Info| info.name == name);
            match self.backend().get(name, &self.cancel).await {
                Ok(_) => return Ok(true),
                Err(Error::NotFound { kind: Kind::Sandbox, .. }) if !listed => return Ok(false),
                Err(Error::NotFound { kind: Kind::Sandbox, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        panic!("{name} is listed, but get says there is none");
    }

    pub async fn clean(&self) -> Result<()> {
        let names = self.names.lock().unwrap().clone();
        for name in names {
            let mut tries = 0;
            loop {
                match self.backend().delete(&name, &Cancel::new()).await {
                    Ok(()) | Err(Error::NotFound { .. }) => break,
                    Err(Error::Busy { .. }) if tries < 100 => {
                        tries += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The names of everything below `path`, to see that nothing was added.
pub fn below(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        found.push(entry.path());
        if entry.file_type()?.is_dir() {
            found.extend(below(&entry.path())?);
        }
    }
    found.sort();
    Ok(found)
}
