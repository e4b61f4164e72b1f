//! Making a sandbox to ask, of what another one is made from, and deleting it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::sources::Answer;
use super::tools::Tools;
use crate::sandbox::{Backend, Cancel, CloneSpec, Error, Owner, Policy, Result, Spec};

/// Whose tools are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An image's.
    Image {
        /// The image; the backend's default when not given.
        image: Option<String>,
        /// The sha256 of one given by URL.
        sha256: Option<String>,
    },
    /// Those of a base, as its steps left it.
    Base {
        /// The base's sandbox.
        sandbox: String,
        /// The snapshot that is the base.
        label: String,
    },
    /// Those that a sandbox began with, whatever has happened in it since.
    Sandbox(String),
    /// Those of a sandbox as it is now. What ran in it may have changed what they say.
    Guest(String),
}

/// Who asks, and where.
pub struct Asker<'a> {
    /// Where the sandboxes are.
    pub backend: &'a dyn Backend,
    /// Ends it.
    pub cancel: &'a Cancel,
    /// Who owns the sandbox that is asked.
    pub owner: Option<Owner>,
    /// The environment that commands will have.
    pub env: BTreeMap<String, String>,
    /// The user that commands will have.
    pub user: Option<String>,
    /// Nothing may be made: what is not known already stays unknown.
    pub dry: bool,
    /// What the backend is called, which may be one of several of its kind.
    pub place: String,
}

/// After this time `gc` may take the sandbox that is asked, whoever owns it.
const EXPIRES: Duration = Duration::from_secs(3600);

impl Asker<'_> {
    /// Makes a closed sandbox, asks its tools and deletes it.
    pub(super) async fn ask(&self, origin: &Origin) -> Result<Answer> {
        let name = name();
        let made = self.make(&name, origin).await;
        let answer = match &made {
            Ok(()) => Ok(self.listen(&name).await),
            Err(error) => Err(error.clone()),
        };
        if made.is_ok() {
            // Also when it was cancelled.
            let _ = self.backend.delete(&name, &Cancel::new()).await;
        }
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { answer }
    }

    async fn listen(&self, name: &str) -> Answer {
        Tools { backend: self.backend, name, cancel: self.cancel }.ask().await
    }

    async fn make(&self, name: &str, origin: &Origin) -> Result<()> {
        let labels: BTreeMap<String, String> =
            [("sandscript.kind".to_owned(), "question".to_owned())].into();
        let expires = SystemTime::now().checked_add(EXPIRES);
        let (source, label) = match origin {
            Origin::Image { image, sha256 } => {
                let spec = Spec {
                    image: image.clone(),
                    sha256: sha256.clone(),
                    env: self.env.clone(),
                    user: self.user.clone(),
                    labels,
                    owner: self.owner.clone(),
                    expires,
                    ..Spec::new(name)
                };
                return self.backend.create(&spec, self.cancel).await.map(drop);
            }
            Origin::Base { sandbox, label } => (sandbox, Some(label.clone())),
            Origin::Sandbox(sandbox) | Origin::Guest(sandbox) => (sandbox, None),
        };
        let spec = CloneSpec {
            label,
            egress: Some(Policy::None),
            env: self.env.clone(),
            labels,
            owner: self.owner.clone(),
            expires,
            ..CloneSpec::new(name)
        };
        Backend::clone(self.backend, source, &spec, self.cancel).await.map(drop)
    }
}

/// A name that no other sandbox has.
fn name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = format!(
        "{} {} {}",
        now.as_nanos(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    format!("ask-{}", &blake3::hash(seed.as_bytes()).to_hex()[..12])
}
