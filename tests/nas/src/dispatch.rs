//! From a name and parameters to a result: who may call, with what, and what is run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::auth::{Credential, allows};
use crate::fail::Fail;
use crate::job::{self, Job, State};
use crate::method;
use crate::nas::Nas;
use crate::release::Release;
use crate::schema::{self, Method};
use crate::session::{Out, Session};

/// How long a session lives, in milliseconds.
const SESSION: i64 = 30 * 24 * 3600 * 1000;

/// A call on its way to the code that answers it.
#[derive(Clone)]
pub struct Call {
    /// The server.
    pub nas: Arc<Nas>,
    /// Who calls.
    pub session: Arc<Session>,
    /// What is called.
    pub method: Arc<Method>,
    /// The parameters, checked and completed.
    pub args: Vec<Value>,
    /// The job, where the method is one.
    pub job: Option<Arc<Job>>,
    /// Whether the transport is one that a key may be shown on.
    pub secure: bool,
    /// Whether its job has a pipe to a request.
    pub piped: bool,
}

impl Call {
    /// Who is logged in.
    pub fn credential(&self) -> Result<Credential, Fail> {
        self.session.credential().ok_or_else(not_authenticated)
    }

    /// Says how far the job is; nothing for a plain call.
    pub fn progress(&self, percent: impl Into<Value>, step: &str) {
        if let Some(job) = &self.job {
            job.progress(&self.nas, percent, step);
        }
    }

    /// The text at parameter `i`.
    pub fn text(&self, i: usize) -> &str {
        self.args.get(i).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number at parameter `i`.
    pub fn number(&self, i: usize) -> i64 {
        self.args.get(i).and_then(Value::as_i64).unwrap_or_default()
    }

    /// The parameter `i`, null when there is none.
    pub fn arg(&self, i: usize) -> &Value {
        self.args.get(i).unwrap_or(&Value::Null)
    }
}

fn not_authenticated() -> Fail {
    Fail::Call(207, "Not authenticated".into())
}

/// Calls a method for a client.
pub async fn call(
    session: &Arc<Session>,
    name: &str,
    params: Vec<Value>,
    id: Option<Value>,
) -> Result<Value, Fail> {
    let nas = session.nas.clone();
    let (delay, drops, failing) = nas.faults(|f| {
        let delay = f.latency + f.jitter.mul_f64(crate::random::below(1000) as f64 / 1000.0);
        (delay, f.drop_at.iter().any(|m| m == name), f.fails(name))
    });
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if drops {
        session.out(Out::Cut);
        return Err(Fail::Aborted);
    }
    // A session lives for thirty days.
    if session.credential().is_some_and(|c| nas.now() - c.since > SESSION) {
        session.set_credential(None);
    }
    let method = find(session, name)?;
    if session.credential().is_none()
        && name != "core.set_options"
        && nas.traps.on(16)
        && nas.auth.too_many(name, &session.origin(), nas.now())
    {
        let wait = Duration::from_millis(1000 + crate::random::below(9000));
        tokio::time::sleep(wait).await;
        return Err(Fail::Call(16, "Rate Limit Exceeded".into()));
    }
    allowed(session, &method)?;
    if let Some(fail) = failing {
        return Err(fail);
    }
    run(session, method, params, id).await
}

fn find(session: &Session, name: &str) -> Result<Arc<Method>, Fail> {
    let nas = &session.nas;
    let newest = nas.table(None).get(name).cloned();
    let Some(version) = session.version else {
        return newest.ok_or_else(|| unknown(nas, name));
    };
    let Some(newest) = newest else { return Err(unknown(nas, name)) };
    if !nas.traps.on(22) {
        return Ok(newest);
    }
    match nas.table(Some(version)).get(name) {
        Some(method) if !newest.private && !newest.raw => Ok(method.clone()),
        _ => Err(Fail::Call(201, format!("Method '{name}' not found in '{version}'"))),
    }
}

fn unknown(nas: &Nas, name: &str) -> Fail {
    let other = if nas.release.is_26() { "virt." } else { "container." };
    if name.starts_with(other) && !nas.traps.on(21) {
        return Fail::Call(95, format!("{name} is not available in this release"));
    }
    Fail::Rpc(-32601, "Method does not exist".into())
}

/// Whether the session may call this at all.
pub fn allowed(session: &Session, method: &Method) -> Result<(), Fail> {
    let nas = &session.nas;
    let open = method.open || (method.name == "core.ping" && !nas.traps.on(19));
    let Some(credential) = session.credential() else {
        return if open { Ok(()) } else { Err(not_authenticated()) };
    };
    let fits = if method.private && !method.open {
        credential.admin()
    } else {
        method.roles.is_empty() || method.roles.iter().all(|r| allows(&credential.roles, r))
    };
    if fits { Ok(()) } else { Err(Fail::Call(13, "Not authorized".into())) }
}

/// Checks parameters and runs the method, as a job if it is one.
pub async fn run(
    session: &Arc<Session>,
    method: Arc<Method>,
    params: Vec<Value>,
    id: Option<Value>,
) -> Result<Value, Fail> {
    let call = prepare(session, method.clone(), params)?;
    let nas = call.nas.clone();
    // Trap 33: in the betas a container is deleted by a call, later by a job.
    let turned = method.name == "container.delete" && !nas.traps.on(33);
    if method.job == turned {
        let result = method::run(&call).await?;
        return present(session, &method, &call.args, result);
    }
    if (method.input || method.output) && !method.loose {
        // Only an upload or a download opens one.
        let pipe = if method.input { "input" } else { "output" };
        return Err(Fail::Raised("ValueError", format!("Pipe '{pipe}' is not open")));
    }
    let args = call.args.clone();
    let job = job::start(call, id)?;
    let blocks = nas.release >= Release::V25_10 && !session.settings().legacy_jobs;
    let direct = method.name == "core.job_wait" && !nas.traps.on(4);
    if (blocks && nas.traps.on(7)) || direct {
        let result = job.outcome().await?;
        return present(session, &method, &args, result);
    }
    if !nas.traps.on(3) {
        // What fails at once is said at once.
        let soon = tokio::time::timeout(Duration::from_millis(300), job.outcome()).await;
        if let (Ok(Err(fail)), State::Failed) = (soon, job.state()) {
            return Err(fail);
        }
    }
    Ok(job.id.into())
}

/// Checks the parameters of a call.
pub fn prepare(
    session: &Arc<Session>,
    method: Arc<Method>,
    mut params: Vec<Value>,
) -> Result<Call, Fail> {
    let nas = session.nas.clone();
    let local = nas.options.loopback_is_local && session.remote.ip().is_loopback();
    let secure = session.tls || local;
    if !nas.traps.on(11) {
        params.truncate(method.accepts.len());
    }
    let mut faults = Vec::new();
    let checked = schema::arguments(&method.accepts, &params, &mut faults);
    let args = if nas.traps.on(10) {
        method::check(&nas, &method.name, &checked, &mut faults);
        if !faults.is_empty() {
            return Err(Fail::Validation(faults));
        }
        checked
    } else {
        params.resize(method.accepts.len().max(params.len()), Value::Null);
        params
            .iter()
            .zip(checked.into_iter().map(Some).chain(std::iter::repeat(None)))
            .map(|(p, c)| c.unwrap_or_else(|| p.clone()))
            .collect()
    };
    Ok(Call { nas, session: session.clone(), method, args, job: None, secure, piped: false })
}

/// How a result looks to the version that was asked for.
fn present(
    session: &Session,
    method: &Method,
    args: &[Value],
    result: Value,
) -> Result<Value, Fail> {
    if session.version.is_none() {
        return Ok(result);
    }
    let shown = match (&method.returns, &method.entry, result) {
        (Some(ty), _, result) => schema::project(ty, result),
        (None, Some(ty), Value::Array(rows)) => {
            rows.into_iter().map(|row| schema::project(ty, row)).collect()
        }
        (None, Some(ty), result @ Value::Object(_)) => schema::project(ty, result),
        (_, _, result) => result,
    };
    let nas = &session.nas;
    if nas.options.check_results && nas.traps.all() {
        method::fits(method, args, &shown)?;
    }
    Ok(shown)
}
