//! The other end of the host's commands.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use crate::nas::Nas;
use crate::{dispatch, method, zfs};

/// Answers the host's commands until the task is aborted.
pub async fn serve(nas: Arc<Nas>) {
    let path = nas.host.root.join(super::tool::SOCKET.trim_start_matches('/'));
    let Ok(listener) = UnixListener::bind(path) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let nas = nas.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_ok()
                && let Ok(question) = serde_json::from_str::<Value>(&line)
            {
                let answer = answer(&nas, &question).await;
                let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
            }
        });
    }
}

async fn answer(nas: &Arc<Nas>, question: &Value) -> Value {
    let argv: Vec<String> = question["argv"]
        .as_array()
        .map(|a| a.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    match question["tool"].as_str() {
        Some("zfs") => zfs::command::run(nas, &argv).await,
        Some("mount.zfs") => mount(nas, &argv),
        Some("truenas-nsexec") => nsexec(nas, &argv, question["tty"] == json!(true)),
        Some("midclt") => midclt(nas, &argv).await,
        _ => said("", "no such command\n", 127),
    }
}

/// What a command printed, and its exit code.
pub fn said(stdout: &str, stderr: &str, code: i32) -> Value {
    json!({"stdout": stdout, "stderr": stderr, "code": code})
}

/// `mount -t zfs DATASET FOLDER` ends here.
fn mount(nas: &Nas, argv: &[String]) -> Value {
    let [dataset, target, ..] = argv else {
        return said("", "usage: mount.zfs DATASET FOLDER\n", 1);
    };
    let folder = nas.zfs.tree().get(dataset).map(|d| nas.inside(&d.folder));
    match folder {
        Ok(folder) => json!({"exec": ["mount", "--bind", folder, target]}),
        Err(_) => said(
            "",
            &format!("filesystem '{dataset}' cannot be mounted, unable to open the dataset\n"),
            1,
        ),
    }
}

/// `truenas-nsexec [-n] [-T] [--env K=V] NAME|UUID -- argv…`
fn nsexec(nas: &Nas, argv: &[String], tty: bool) -> Value {
    let (mut exec, mut rest, mut quiet) =
        (vec!["/usr/local/lib/nas-sim/incus".to_owned(), "exec".into()], argv.iter(), false);
    let mut terminal = tty;
    let wrong = |text: &str| said("", &format!("truenas-nsexec: {text}\n"), 2);
    let name = loop {
        match rest.next().map(String::as_str) {
            Some("-n") => quiet = true,
            Some("-T") => terminal = false,
            Some("--env") => match rest.next() {
                Some(pair) => exec.extend(["--env".into(), pair.clone()]),
                None => return wrong("--env wants K=V"),
            },
            Some(option) if option.starts_with('-') => {
                return wrong(&format!("unknown option {option}"));
            }
            Some(name) => break name,
            None => {
                return wrong("usage: truenas-nsexec [-n] [-T] [--env K=V] NAME|UUID -- COMMAND…");
            }
        }
    };
    let rows = nas.rows.all("container");
    let Some(row) = rows.iter().find(|r| r["name"] == name || r["uuid"] == name) else {
        return wrong(&format!("{name}: no such container"));
    };
    exec.push(if terminal { "-t".into() } else { "-T".into() });
    if quiet {
        exec.push("-n".into());
    }
    exec.push(method::engine_name(row));
    exec.push("--".into());
    let command: Vec<String> = rest.skip_while(|a| *a == "--").cloned().collect();
    if command.is_empty() {
        exec.push("/bin/sh".into());
    }
    exec.extend(command);
    json!({"exec": exec})
}

/// `midclt call METHOD ARGUMENT…`, as root.
async fn midclt(nas: &Arc<Nas>, argv: &[String]) -> Value {
    let argv: Vec<&String> = argv.iter().filter(|a| *a != "-j" && *a != "--job").collect();
    let [verb, name, params @ ..] = &argv[..] else {
        return said("", "usage: midclt call METHOD …\n", 2);
    };
    if *verb != "call" {
        return said("", "usage: midclt call METHOD …\n", 2);
    }
    let params = params
        .iter()
        .map(|p| serde_json::from_str(p).unwrap_or_else(|_| Value::String((*p).clone())))
        .collect();
    let session = nas.internal();
    match dispatch::call(&session, name, params, None).await {
        Ok(Value::String(text)) => said(&format!("{text}\n"), "", 0),
        Ok(value) => said(&format!("{value}\n"), "", 0),
        Err(fail) => said("", &format!("{}\n", fail.reason()), 1),
    }
}
