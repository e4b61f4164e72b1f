//! `core.*`: options, subscriptions, jobs, downloads.

use serde_json::{Value, json};

use super::{missing, query, unhandled};
use crate::auth::allows;
use crate::dispatch::{self, Call};
use crate::fail::Fail;
use crate::job::{self, Job, State};
use crate::release::Release;
use crate::schema::{self, Method};
use crate::source;

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    match verb {
        "ping" => Ok("pong".into()),
        "set_options" => Ok(set_options(call)),
        "subscribe" => subscribe(call),
        "unsubscribe" => {
            let was = call.session.unsubscribe(call.text(0)).unwrap_or_default();
            if source::role(nas.release, short(&was)).is_some() {
                source::ended(&call.session, &was, Value::Null);
            }
            Ok(Value::Null)
        }
        "get_methods" => Ok(methods(call)),
        "get_services" => Ok(services(call)),
        "get_jobs" => get_jobs(call),
        "job_wait" => job_wait(call).await,
        "job_abort" => {
            match nas.jobs.get(call.number(0)) {
                Some(job) => job.abort.notify_one(),
                None if nas.release == Release::V25_04 => {
                    return Err(Fail::Raised("KeyError", call.number(0).to_string()));
                }
                None => return Err(missing(call, "Job", call.arg(0))),
            }
            Ok(Value::Null)
        }
        "bulk" => bulk(call).await,
        "download" => download(call),
        "job_download_logs" => job_download_logs(call),
        "resize_shell" => {
            let (cols, rows) = (call.number(1) as u16, call.number(2) as u16);
            nas.shells.resize(call.text(0), cols, rows)?;
            Ok(Value::Null)
        }
        _ => Err(unhandled(call)),
    }
}

fn set_options(call: &Call) -> Value {
    let options = call.arg(0);
    let settings = call.session.set(|s| {
        let set = |name: &str, value: &mut bool| {
            if let Some(new) = options[name].as_bool() {
                *value = new;
            }
        };
        set("legacy_jobs", &mut s.legacy_jobs);
        set("private_methods", &mut s.private_methods);
        set("py_exceptions", &mut s.py_exceptions);
    });
    if call.nas.release == Release::V25_04 {
        return Value::Null;
    }
    json!({
        "legacy_jobs": settings.legacy_jobs, "private_methods": settings.private_methods,
        "py_exceptions": settings.py_exceptions,
    })
}

fn subscribe(call: &Call) -> Result<Value, Fail> {
    let (nas, event) = (&call.nas, call.text(0));
    let name = short(event);
    let credential = call.credential()?;
    if let Some(role) = source::role(nas.release, name) {
        if !allows(&credential.roles, role) {
            return Err(Fail::Call(13, "Not authorized".into()));
        }
        return Ok(source::subscribe(&call.session, event).into());
    }
    let agent = name == "virt.instance.agent_running" && !nas.release.is_26();
    match nas.table(None).get(name) {
        // Who may query may listen.
        Some(method) => dispatch::allowed(&call.session, method)?,
        None if credential.admin() => {}
        None if agent && allows(&credential.roles, "VIRT_INSTANCE_READ") => {}
        None => return Err(Fail::Call(13, "Not authorized".into())),
    }
    Ok(call.session.subscribe(event).into())
}

/// A collection without its arguments.
fn short(event: &str) -> &str {
    event.split(':').next().unwrap_or(event)
}

fn methods(call: &Call) -> Value {
    let table = call.nas.table(call.session.version);
    let wanted = call.arg(0).as_str();
    let shown = table.values().filter(|m| {
        let space = m.name.rsplit_once('.').map_or("", |(s, _)| s);
        !m.private && wanted.is_none_or(|w| w == space)
    });
    shown
        .map(|m| {
            let about = json!({
                "description": null, "cli_description": null, "examples": {},
                "accepts": m.accepts.iter().map(schema::parameter).collect::<Vec<_>>(),
                "returns": returns(m), "job": m.job, "downloadable": m.output, "uploadable": m.input,
                "filterable": m.name.ends_with(".query"), "roles": m.roles,
            });
            (m.name.clone(), about)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What a method gives, as a list of one schema, or none where it is not known.
fn returns(method: &Method) -> Vec<Value> {
    match (&method.returns, &method.entry) {
        (Some(ty), _) => vec![schema::schema(ty)],
        (None, Some(row)) if method.name.ends_with(".config") => vec![schema::schema(row)],
        (None, Some(row)) => {
            let rows = json!({"type": "array", "items": schema::schema(row)});
            vec![json!({"anyOf": [rows, schema::schema(row), {"type": "integer"}]})]
        }
        (None, None) => Vec::new(),
    }
}

fn services(call: &Call) -> Value {
    let table = call.nas.table(call.session.version);
    table
        .keys()
        .filter_map(|name| name.rsplit_once('.'))
        .map(|(space, _)| {
            let kind =
                if table.contains_key(&format!("{space}.create")) { "crud" } else { "service" };
            (space.to_owned(), json!({"type": kind, "config": {}}))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn get_jobs(call: &Call) -> Result<Value, Fail> {
    let credential = call.credential()?;
    let mine = |job: &Job| {
        credential.admin()
            || job.credential.as_ref().is_some_and(|c| c.username == credential.username)
    };
    let jobs = call.nas.jobs.all();
    query(call, jobs.iter().filter(|j| mine(j)).map(|j| j.row(&call.nas)).collect())
}

async fn job_wait(call: &Call) -> Result<Value, Fail> {
    match call.nas.jobs.get(call.number(0)) {
        Some(job) => job.outcome().await,
        None => Err(missing(call, "Job", call.arg(0))),
    }
}

async fn bulk(call: &Call) -> Result<Value, Fail> {
    let name = call.text(0);
    let nas = &call.nas;
    let Some(method) = nas.table(call.session.version).get(name).cloned() else {
        return Err(Fail::invalid("method", "Method does not exist"));
    };
    dispatch::allowed(&call.session, &method)?;
    let all = call.arg(1).as_array().cloned().unwrap_or_default();
    let mut results = Vec::new();
    for (i, params) in all.iter().enumerate() {
        let params = params.as_array().cloned().unwrap_or_default();
        let mut result = json!({"job_id": null, "error": null, "result": null});
        let outcome = match dispatch::prepare(&call.session, method.clone(), params) {
            Err(fail) => Err(fail),
            Ok(inner) if method.job => match job::start(inner, None) {
                Err(fail) => Err(fail),
                Ok(job) => {
                    result["job_id"] = job.id.into();
                    job.outcome().await
                }
            },
            Ok(inner) => Box::pin(super::run(&inner)).await,
        };
        match outcome {
            Ok(value) => result["result"] = value,
            Err(fail) => result["error"] = fail.reason().into(),
        }
        results.push(result);
        call.progress((i + 1) * 100 / all.len(), "");
    }
    Ok(results.into())
}

fn download(call: &Call) -> Result<Value, Fail> {
    let name = call.text(0);
    let Some(method) = call.nas.table(call.session.version).get(name).cloned() else {
        return Err(Fail::invalid("method", "Method does not exist"));
    };
    dispatch::allowed(&call.session, &method)?;
    if !method.output {
        return Err(Fail::fault(format!("{name} has no output to download")));
    }
    let params = call.arg(1).as_array().cloned().unwrap_or_default();
    let mut inner = dispatch::prepare(&call.session, method, params)?;
    inner.piped = true;
    let job = job::start(inner, None)?;
    link(call, &job)
}

fn job_download_logs(call: &Call) -> Result<Value, Fail> {
    let job = call.nas.jobs.get(call.number(0)).ok_or_else(|| missing(call, "Job", call.arg(0)))?;
    if !job.has_logs || job.state() == State::Waiting {
        return Err(Fail::fault("This job has no logs"));
    }
    Ok(link(call, &job)?[1].clone())
}

/// A token that opens one job's output once.
fn link(call: &Call, job: &Job) -> Result<Value, Fail> {
    let credential = call.credential()?;
    let attrs = json!({"job": job.id, "filename": call.arg(2).as_str().unwrap_or(call.text(1))});
    let token = crate::auth::login::issue(call, credential, 300, attrs, true, true);
    Ok(json!([job.id, format!("/_download/{}?auth_token={token}", job.id)]))
}
