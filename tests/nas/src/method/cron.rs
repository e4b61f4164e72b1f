//! `cronjob.*` and `initshutdownscript.*`

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{instance, missing, query, unhandled};
use crate::dispatch::Call;
use crate::event::Change;
use crate::fail::Fail;

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    match verb {
        "query" => query(call, nas.rows.all("cronjob")),
        "get_instance" => instance(call, "CronJob", nas.rows.all("cronjob")),
        "create" => {
            let mut row = call.arg(0).clone();
            valid(call, &row, "cron_job_create")?;
            tidy(call, &mut row);
            let row = nas.rows.add("cronjob", row);
            nas.events.emit("cronjob.query", Change::Added, row["id"].clone(), row.clone());
            Ok(row)
        }
        "update" => {
            let mut change = call.arg(1).clone();
            tidy(call, &mut change);
            if nas.rows.get("cronjob", call.number(0)).is_none() {
                return Err(missing(call, "CronJob", call.arg(0)));
            }
            valid(call, &change, "cron_job_update")?;
            let row = nas.rows.update("cronjob", call.number(0), &change).unwrap_or_default();
            nas.events.emit("cronjob.query", Change::Changed, call.number(0), row.clone());
            Ok(row)
        }
        "delete" => {
            if !nas.rows.remove("cronjob", call.number(0)) {
                return Err(missing(call, "CronJob", call.arg(0)));
            }
            nas.events.emit("cronjob.query", Change::Removed, call.number(0), Value::Null);
            Ok(true.into())
        }
        "run" => execute(call).await,
        _ => Err(unhandled(call)),
    }
}

fn tidy(call: &Call, row: &mut Value) {
    if let Some(command) = row["command"].as_str().map(str::to_owned)
        && call.nas.traps.on(45)
    {
        row["command"] = command.replace('\n', "").into();
    }
}

fn valid(call: &Call, row: &Value, attribute: &str) -> Result<(), Fail> {
    if let Some(user) = row["user"].as_str() {
        if user.contains(' ') {
            return Err(Fail::invalid(
                &format!("{attribute}.user"),
                "Usernames cannot have spaces",
            ));
        }
        if call.nas.host.user(user).is_none() {
            return Err(Fail::invalid(
                &format!("{attribute}.user"),
                "Specified user does not exist",
            ));
        }
    }
    match row["command"].as_str() {
        Some("") => Err(Fail::invalid(
            &format!("{attribute}.command"),
            "Please specify a command for cronjob task.",
        )),
        _ => Ok(()),
    }
}

async fn execute(call: &Call) -> Result<Value, Fail> {
    let row = call.nas.rows.get("cronjob", call.number(0));
    let row = row.ok_or_else(|| missing(call, "CronJob", call.arg(0)))?;
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    if call.arg(1) == &json!(true) && row["enabled"] != json!(true) {
        return Err(Fail::Call(22, "Cron job is disabled".into()));
    }
    if let Some(engine) = &call.nas.engine {
        engine.settled().await?;
    }
    let traps = call.nas.traps;
    call.progress(10, &format!("Executing cron job: {}", text("command")));
    let hide = |key: &str| (row[key] == json!(true)) == traps.on(45);
    let pipe = |hidden: bool| if hidden { Stdio::null() } else { Stdio::piped() };
    let mut child = call
        .nas
        .host
        .shell(text("user"), text("command"))?
        .stdout(pipe(hide("stdout")))
        .stderr(pipe(hide("stderr")))
        .spawn()
        .map_err(|e| Fail::fault(e.to_string()))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    tokio::join!(collect(call, out), collect(call, err));
    let status = child.wait().await.map_err(|e| Fail::fault(e.to_string()))?;
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or(status.signal().map(|s| -s)).unwrap_or(-1);
    if code != 0 {
        let command = text("command");
        let text = format!("CronTask \"{command}\" exited with {code} (non-zero) exit status.");
        return Err(Fail::fault(text));
    }
    call.progress(100, "Execution of cron job complete.");
    Ok(Value::Null)
}

async fn collect(call: &Call, from: Option<impl tokio::io::AsyncRead + Unpin>) {
    let (Some(mut from), Some(job)) = (from, &call.job) else { return };
    let mut piece = [0; 8192];
    while let Ok(count) = from.read(&mut piece).await {
        if count == 0 {
            return;
        }
        job.log(&piece[..count]);
    }
}

/// `initshutdownscript.*`: rows only; nothing boots here.
pub fn script(call: &Call, verb: &str) -> Result<Value, Fail> {
    const TABLE: &str = "initshutdownscript";
    let rows = &call.nas.rows;
    match verb {
        "query" => query(call, rows.all(TABLE)),
        "get_instance" => instance(call, "InitShutdownScript", rows.all(TABLE)),
        "create" => {
            let data = call.arg(0);
            let key = if data["type"] == "COMMAND" { "command" } else { "script" };
            if data[key].as_str().is_none_or(str::is_empty) {
                let at = format!("init_shutdown_script_create.{key}");
                return Err(Fail::invalid(&at, "This field is required"));
            }
            Ok(rows.add(TABLE, data.clone()))
        }
        "update" => rows
            .update(TABLE, call.number(0), call.arg(1))
            .ok_or_else(|| missing(call, "InitShutdownScript", call.arg(0))),
        "delete" => match rows.remove(TABLE, call.number(0)) {
            true => Ok(true.into()),
            false => Err(missing(call, "InitShutdownScript", call.arg(0))),
        },
        _ => Err(unhandled(call)),
    }
}
