//! Starting a job and seeing it to its end.

use std::sync::Arc;

use serde_json::Value;

use super::{Job, State, excerpt, new};
use crate::dispatch::Call;
use crate::event::Change;
use crate::fail::Fail;
use crate::method;
use crate::nas::Nas;

/// Starts the job of a call, or joins one that waits already.
pub fn start(mut call: Call, message: Option<Value>) -> Result<Arc<Job>, Fail> {
    let nas = call.nas.clone();
    let lock = call.method.lock.as_ref().map(|l| lock_name(l, &call.args));
    let credential = call.session.credential();
    let (job, turn) = {
        let mut jobs = nas.jobs.lock();
        if let Some(lock) = lock.as_deref().filter(|_| nas.traps.on(47)) {
            let waiting = jobs.waiting(lock);
            if waiting.len() >= call.method.queue.max(1) {
                let mine = |j: &&Arc<Job>| {
                    j.credential.as_ref().map(|c| &c.username)
                        == credential.as_ref().map(|c| &c.username)
                };
                let admin = credential.as_ref().is_some_and(|c| c.admin());
                return match waiting.iter().rev().find(|j| admin || mine(j)) {
                    Some(job) => {
                        job.join(message);
                        Ok(job.clone())
                    }
                    None => Err(Fail::Call(
                        16,
                        "This job is already being performed by another user".into(),
                    )),
                };
            }
        }
        let turn = lock.as_ref().map(|l| jobs.locks.entry(l.clone()).or_default().clone());
        let id = jobs.next();
        let now = nas.now();
        let job = new(id, &call, lock, credential, message, now);
        jobs.jobs.insert(id, job.clone());
        (job, turn)
    };
    call.job = Some(job.clone());
    if nas.traps.on(1) {
        job.tell(&nas, Change::Added);
    }
    let task = tokio::spawn(run(nas.clone(), call, job.clone(), turn));
    let mut jobs = nas.jobs.lock();
    jobs.tasks.retain(|_, task| !task.is_finished());
    jobs.tasks.insert(job.id, task.abort_handle());
    Ok(job)
}

async fn run(nas: Arc<Nas>, call: Call, job: Arc<Job>, turn: Option<Arc<tokio::sync::Mutex<()>>>) {
    if !nas.traps.on(1) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        job.tell(&nas, Change::Added);
    }
    let held = tokio::select! {
        held = async { match &turn { Some(t) => Some(t.lock().await), None => None } } => held,
        () = job.abort.notified() => {
            end(&nas, &job, Err(Fail::Aborted));
            return;
        }
    };
    job.inner().state = State::Running;
    job.tell(&nas, Change::Changed);
    let result = tokio::select! {
        result = method::run(&call) => result,
        () = job.abort.notified() => Err(Fail::Aborted),
    };
    end(&nas, &job, result);
    drop(held);
    if let Some(lock) = &job.lock {
        let mut jobs = nas.jobs.lock();
        // Two hold it when nobody waits: the table and this task.
        if jobs.locks.get(lock).is_some_and(|l| Arc::strong_count(l) <= 2) {
            jobs.locks.remove(lock);
        }
    }
}

fn end(nas: &Nas, job: &Job, result: Result<Value, Fail>) {
    let (succeeded, early) = {
        let mut inner = job.inner();
        inner.state = match &result {
            Ok(_) => State::Success,
            Err(Fail::Aborted) => State::Aborted,
            Err(_) => State::Failed,
        };
        let early = inner.percent == 100;
        if result.is_ok() {
            inner.percent = 100.into();
        }
        inner.result = result;
        inner.finished = Some(nas.now());
        (inner.state == State::Success, early)
    };
    // The automatic 100 % is told before the log is closed.
    if succeeded && !early && nas.traps.on(2) {
        job.tell(nas, Change::Changed);
    }
    if job.has_logs {
        let mut inner = job.inner();
        inner.excerpt = excerpt(&inner.logs).into();
    }
    job.tell(nas, Change::Changed);
    job.ended.send_replace(true);
}

fn lock_name(pattern: &str, args: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let first = args.first().cloned().unwrap_or(Value::Null);
    pattern.replace("{0.name}", &text(&first["name"])).replace("{0}", &text(&first))
}
