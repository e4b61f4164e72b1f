//! The server: everything that its connections share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::auth;
use crate::engine::Engine;
use crate::event::Bus;
use crate::fault::Faults;
use crate::host::Host;
use crate::job::Jobs;
use crate::options::Options;
use crate::release::Release;
use crate::rows::Rows;
use crate::schema::{self, Table};
use crate::session::Out;
use crate::shell::Shells;
use crate::source::Sources;
use crate::trap::Traps;
use crate::zfs::Zfs;

/// The server: everything that its connections share.
pub struct Nas {
    /// What it was started with.
    pub options: Options,
    /// Which release it is.
    pub release: Release,
    /// Which traps are set.
    pub traps: Traps,
    /// Users, keys and tokens.
    pub auth: auth::Store,
    /// All jobs.
    pub jobs: Jobs,
    /// Who is told of what.
    pub events: Bus,
    /// Its own root folder, and commands in it.
    pub host: Host,
    /// The pool.
    pub zfs: Zfs,
    /// Cron jobs and other configuration.
    pub rows: Rows,
    /// Event sources that run.
    pub sources: Sources,
    /// The shells that are open.
    pub shells: Shells,
    /// The containers, where it has any.
    pub engine: Option<Engine>,
    /// Its number since boot.
    pub boot_id: String,
    /// When it came up, in milliseconds.
    pub booted: i64,
    /// How many connections it had.
    pub connections: AtomicU64,
    restarting: AtomicBool,
    faults: Mutex<Faults>,
    tables: HashMap<&'static str, Table>,
    newest: Table,
}

impl Nas {
    /// A server with these parts.
    pub fn new(
        options: Options,
        host: Host,
        zfs: Zfs,
        engine: Option<Engine>,
    ) -> Result<Self, String> {
        let release = options.release;
        let newest = schema::table(release)?;
        let mut tables = HashMap::new();
        for version in release.versions() {
            let Some(of) = Release::of_version(version) else { continue };
            let mut table = schema::table(of.min(release))?;
            table.retain(|name, _| newest.contains_key(name));
            tables.insert(version, table);
        }
        Ok(Self {
            release,
            traps: Traps::without(&options.without),
            auth: auth::Store::new(options.users.clone(), options.keys.clone()),
            jobs: Jobs::default(),
            events: Bus::default(),
            rows: Rows::default(),
            sources: Sources::default(),
            shells: Shells::default(),
            host,
            zfs,
            engine,
            boot_id: crate::random::uuid(),
            booted: now(),
            connections: AtomicU64::new(0),
            restarting: AtomicBool::new(false),
            faults: Mutex::new(options.faults.clone()),
            tables,
            newest,
            options,
        })
    }

    /// The methods of a version; `None` is the newest.
    pub fn table(&self, version: Option<&str>) -> &Table {
        version.and_then(|v| self.tables.get(v)).unwrap_or(&self.newest)
    }

    /// The time in milliseconds, as far off as it was asked to be.
    pub fn now(&self) -> i64 {
        now() + self.faults(|f| f.skew)
    }

    /// A point in time as the wire shows it.
    pub fn date(&self, millis: i64) -> Value {
        let whole = millis / 1000 * 1000;
        if self.traps.on(48) { json!({"$date": whole}) } else { crate::time::iso(whole).into() }
    }

    /// Looks at the faults, or changes them.
    pub fn faults<T>(&self, look: impl FnOnce(&mut Faults) -> T) -> T {
        look(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the middleware is away for a moment.
    pub fn restarting(&self) -> bool {
        self.restarting.load(Ordering::SeqCst)
    }

    /// Restarts the middleware: connections close, jobs and tokens are forgotten.
    pub async fn restart(self: &Arc<Self>) {
        self.restarting.store(true, Ordering::SeqCst);
        for session in self.events.sessions() {
            session.set_credential(None);
            session.out(Out::Close(1001, ""));
        }
        if self.traps.on(5) {
            self.jobs.lose();
            self.auth.lock().tokens.clear();
        }
        tokio::time::sleep(self.options.restart_takes).await;
        self.restarting.store(false, Ordering::SeqCst);
    }

    /// The containers, or what the real server says when it has none.
    pub fn engine(&self) -> Result<&Engine, crate::fail::Fail> {
        self.engine
            .as_ref()
            .ok_or_else(|| crate::fail::Fail::fault("Virtualization not initialized."))
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Nas {
    /// A session of root's own, for what the host calls itself.
    pub fn internal(self: &Arc<Self>) -> Arc<crate::session::Session> {
        let (out, _) = tokio::sync::mpsc::unbounded_channel();
        let here = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let session = crate::session::Session::new(self.clone(), here, true, None, out);
        let credential = self.auth.lock().credential("UNIX_SOCKET", "root");
        session.set_credential(credential);
        session
    }

    /// A folder of the pool's namespace as the host's own root shows it.
    pub fn inside(&self, folder: &str) -> String {
        if let Some(rest) = folder.strip_prefix("/mnt/host") {
            return rest.to_owned();
        }
        match folder.strip_prefix("/mnt/incus") {
            Some(rest) => format!("/var/lib/incus/storage-pools/{}{rest}", self.zfs.pool),
            None => folder.to_owned(),
        }
    }
}
