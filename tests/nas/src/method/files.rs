//! `filesystem.*`

use std::io::{Read as _, Seek as _, Write as _};
use std::time::Duration;

use base64::Engine as _;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use serde_json::{Value, json};

use super::{locate, unhandled};
use crate::dispatch::Call;
use crate::fail::Fail;
use crate::host::Looked;
use crate::nas::Nas;

pub async fn run(call: &Call, verb: &str) -> Result<Value, Fail> {
    let wanted = match call.arg(0) {
        Value::String(path) => path.clone(),
        data => data["path"].as_str().unwrap_or_default().to_owned(),
    };
    if !wanted.starts_with('/') {
        return Err(Fail::Call(22, "path must be absolute".into()));
    }
    let path = locate(&call.nas, &wanted).await;
    match verb {
        "stat" => stat(call, &wanted, &path),
        "listdir" => listdir(call, &wanted, &path),
        "statfs" => statfs(call, &wanted, &path),
        "mkdir" => mkdir(call, &wanted, &path),
        "chown" | "setperm" => permissions(call, &path, verb),
        "file_receive" => receive(call, &wanted, &path),
        "put" => put(call, &path).await,
        "get" => get(call, &wanted, &path).await,
        _ => Err(unhandled(call)),
    }
}

fn kind(mode: u32) -> &'static str {
    match mode & 0o170_000 {
        0o040_000 => "DIRECTORY",
        0o100_000 => "FILE",
        0o120_000 => "SYMLINK",
        _ => "OTHER",
    }
}

fn described(nas: &Nas, looked: &Looked) -> Value {
    let s = &looked.stat;
    let mode = s.st_mode;
    json!({
        "realpath": looked.real, "type": kind(mode), "size": s.st_size,
        "allocation_size": s.st_blocks * 512, "mode": mode, "mount_id": 51, "uid": s.st_uid, "gid": s.st_gid,
        "atime": s.st_atime as f64, "mtime": s.st_mtime as f64, "ctime": s.st_ctime as f64,
        "btime": s.st_ctime as f64, "dev": s.st_dev, "inode": s.st_ino, "nlink": s.st_nlink, "acl": false,
        "is_mountpoint": looked.real == format!("/mnt/{}", nas.zfs.pool), "is_ctldir": false,
        "attributes": [], "user": nas.host.name("etc/passwd", s.st_uid), "group": nas.host.name("etc/group", s.st_gid),
    })
}

/// As a folder's list shows it.
fn entry(nas: &Nas, looked: &Looked, path: &str) -> Value {
    let mut row = described(nas, looked);
    row["name"] = path.rsplit('/').next().unwrap_or_default().into();
    row["path"] = path.into();
    row["xattrs"] = json!([]);
    row["zfs_attrs"] = json!(["ARCHIVE"]);
    for key in ["atime", "mtime", "ctime", "btime", "dev", "inode", "nlink", "user", "group"] {
        row.as_object_mut().map(|r| r.remove(key));
    }
    row
}

fn stat(call: &Call, wanted: &str, path: &str) -> Result<Value, Fail> {
    let looked =
        call.nas.host.look(path).map_err(|_| Fail::Call(2, format!("Path {wanted} not found")))?;
    Ok(described(&call.nas, &looked))
}

fn listdir(call: &Call, wanted: &str, path: &str) -> Result<Value, Fail> {
    let host = &call.nas.host;
    let looked =
        host.look(path).map_err(|_| Fail::Call(2, format!("Directory {wanted} does not exist")))?;
    if kind(looked.stat.st_mode) == "FILE" {
        return Err(Fail::Call(20, format!("Path {wanted} is not a directory")));
    }
    let mut rows = Vec::new();
    for name in host.list(path).map_err(|e| Fail::os(&e, wanted))? {
        let Ok(looked) = host.look(&format!("{path}/{name}")) else { continue };
        rows.push(entry(&call.nas, &looked, &format!("{}/{name}", wanted.trim_end_matches('/'))));
    }
    crate::query::run(rows, call.arg(1), call.arg(2), call.nas.traps)
}

fn statfs(call: &Call, wanted: &str, path: &str) -> Result<Value, Fail> {
    let new = call.nas.release.is_26();
    if !new && !wanted.starts_with("/mnt/") {
        return Err(Fail::Call(22, format!("{wanted}: path must be within /mnt")));
    }
    let file = call.nas.host.open(path, OFlags::PATH, new).map_err(|e| Fail::os(&e, wanted))?;
    let s = rustix::fs::fstatvfs(&file).map_err(|e| Fail::os(&e.into(), wanted))?;
    let bytes = |blocks: u64| blocks * s.f_frsize;
    // The dataset that is mounted next above.
    let (dest, source) = {
        let tree = call.nas.zfs.tree();
        let all =
            tree.datasets.iter().map(|(n, d)| (super::mountpoint(&call.nas, n, &d.folder), n));
        let above = all.filter(|(m, _)| wanted == m || wanted.starts_with(&format!("{m}/")));
        let nearest = above.max_by_key(|(m, _)| m.len());
        nearest.map_or(("/".into(), "boot-pool/ROOT".into()), |(m, n)| (m, n.clone()))
    };
    Ok(json!({
        "flags": ["RW", "NOATIME"], "fsid": format!("{:x}", s.f_fsid), "fstype": "zfs",
        "source": source, "dest": dest, "blocksize": s.f_bsize, "total_blocks": s.f_blocks,
        "free_blocks": s.f_bfree, "avail_blocks": s.f_bavail, "total_blocks_str": s.f_blocks.to_string(),
        "free_blocks_str": s.f_bfree.to_string(), "avail_blocks_str": s.f_bavail.to_string(), "files": s.f_files,
        "free_files": s.f_ffree, "name_max": s.f_namemax, "total_bytes": bytes(s.f_blocks),
        "free_bytes": bytes(s.f_bfree), "avail_bytes": bytes(s.f_bavail), "total_bytes_str": bytes(s.f_blocks).to_string(),
        "free_bytes_str": bytes(s.f_bfree).to_string(), "avail_bytes_str": bytes(s.f_bavail).to_string(),
    }))
}

fn octal(text: &str) -> Result<Mode, Fail> {
    let number = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    number
        .map(Mode::from_raw_mode)
        .ok_or_else(|| Fail::invalid("mode", "Please provide a valid octal mode"))
}

fn mkdir(call: &Call, wanted: &str, path: &str) -> Result<Value, Fail> {
    let host = &call.nas.host;
    let ssh = ["/root/.ssh", "/home/truenas_admin/.ssh"];
    let strict = call.nas.traps.on(43);
    if strict && !wanted.starts_with("/mnt/") && !ssh.iter().any(|s| wanted.starts_with(s)) {
        return Err(Fail::Call(1, format!("{wanted}: path not permitted")));
    }
    let mode = octal(call.arg(0)["options"]["mode"].as_str().unwrap_or("755"))?;
    if host.look(path).is_ok() {
        return Err(Fail::Call(17, format!("{wanted}: path already exists")));
    }
    if !strict {
        let parent = path.rsplit_once('/').map_or("/", |(p, _)| p);
        host.make_folders(parent, false).map_err(|e| Fail::os(&e, wanted))?;
    }
    let (parent, name) = host.parent(path, false).map_err(|e| Fail::os(&e, wanted))?;
    rustix::fs::mkdirat(&parent, &name, mode).map_err(|e| Fail::os(&e.into(), wanted))?;
    rustix::fs::chmodat(&parent, &name, mode, AtFlags::empty())
        .map_err(|e| Fail::os(&e.into(), wanted))?;
    let looked = host.look(path).map_err(|e| Fail::os(&e, wanted))?;
    Ok(entry(&call.nas, &looked, wanted))
}

fn owner(call: &Call, key: &str, names: &str) -> Result<Option<u32>, Fail> {
    let data = call.arg(0);
    if let Some(name) = data[names].as_str() {
        let found = if names == "user" {
            call.nas.host.user(name).map(|u| u.0)
        } else {
            call.nas.host.group(name)
        };
        return found.map(Some).ok_or_else(|| {
            Fail::invalid(
                &format!("{}.{names}", call.method.name),
                format!("{name}: does not exist"),
            )
        });
    }
    Ok(data[key].as_i64().filter(|n| *n >= 0).map(|n| n as u32))
}

fn permissions(call: &Call, path: &str, verb: &str) -> Result<Value, Fail> {
    let data = call.arg(0);
    let (uid, gid) = (owner(call, "uid", "user")?, owner(call, "gid", "group")?);
    let mode = match data["mode"].as_str() {
        Some(text) => Some(octal(text)?),
        None => None,
    };
    if verb == "chown" && uid.is_none() && gid.is_none() {
        return Err(Fail::invalid(
            "filesystem.chown.uid",
            "Please specify either user or group to change.",
        ));
    }
    let recursive = data["options"]["recursive"] == json!(true);
    apply(&call.nas, path, uid, gid, mode, recursive)?;
    call.progress(100, "");
    Ok(Value::Null)
}

fn apply(
    nas: &Nas,
    path: &str,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<Mode>,
    recursive: bool,
) -> Result<(), Fail> {
    let fails = |e: std::io::Error| Fail::os(&e, path);
    let looked =
        nas.host.look(path).map_err(|_| Fail::Call(2, format!("{path}: path does not exist")))?;
    let (parent, name) = nas.host.parent(path, false).map_err(fails)?;
    let (owner, group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    if owner.is_some() || group.is_some() {
        rustix::fs::chownat(&parent, &name, owner, group, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| fails(e.into()))?;
    }
    if let (Some(mode), true) = (mode, kind(looked.stat.st_mode) != "SYMLINK") {
        rustix::fs::chmodat(&parent, &name, mode, AtFlags::empty()).map_err(|e| fails(e.into()))?;
    }
    if recursive && kind(looked.stat.st_mode) == "DIRECTORY" {
        for name in nas.host.list(path).map_err(fails)? {
            apply(nas, &format!("{path}/{name}"), uid, gid, mode, true)?;
        }
    }
    Ok(())
}

fn receive(call: &Call, wanted: &str, path: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    let strict = nas.release.is_26() == nas.traps.on(42);
    let options = call.arg(2);
    let content = base64::engine::general_purpose::STANDARD
        .decode(call.text(1))
        .map_err(|e| Fail::Raised("binascii.Error", e.to_string()))?;
    if nas.faults(|f| f.full) {
        return Err(Fail::os(&std::io::Error::from_raw_os_error(28), wanted));
    }
    let fails = |e: std::io::Error| Fail::os(&e, wanted);
    if wanted.ends_with("/pwenc_secret") && nas.release.is_26() {
        return Err(Fail::Call(13, format!("{wanted}: path not permitted")));
    }
    let parent = path.rsplit_once('/').map_or("/", |(p, _)| p);
    // The container's own root is reached by a path without links, whatever is below it.
    nas.host.make_folders(parent, strict).map_err(fails)?;
    let mut flags = OFlags::WRONLY | OFlags::CREATE;
    flags |= if options["append"] == json!(true) { OFlags::APPEND } else { OFlags::TRUNC };
    let mut file = nas.host.open(path, flags, strict).map_err(fails)?;
    file.write_all(&content).map_err(fails)?;
    if let Some(mode) = options["mode"].as_u64().filter(|m| *m != 0) {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode as u32 & 0o7777))
            .map_err(|e| fails(e.into()))?;
    }
    let id = |key: &str| options[key].as_i64().filter(|n| *n >= 0).map(|n| n as u32);
    rustix::fs::fchown(&file, id("uid").map(Uid::from_raw), id("gid").map(Gid::from_raw))
        .map_err(|e| fails(e.into()))?;
    Ok(true.into())
}

/// How long a pipe waits for its other end.
const WAIT: Duration = Duration::from_secs(60);

async fn put(call: &Call, path: &str) -> Result<Value, Fail> {
    let nas = &call.nas;
    let options = call.arg(1);
    let no_pipe = || Fail::fault("Pipe 'input' is not open");
    let mut input = call
        .job
        .as_ref()
        .and_then(|j| j.pipe.as_ref())
        .and_then(|p| p.read())
        .ok_or_else(no_pipe)?;
    let first = tokio::time::timeout(WAIT, input.recv()).await.map_err(|_| no_pipe())?;
    let fails = |e: std::io::Error| Fail::os(&e, path);
    let parent = path.rsplit_once('/').map_or("/", |(p, _)| p);
    nas.host.make_folders(parent, false).map_err(fails)?;
    let mut flags = OFlags::WRONLY | OFlags::CREATE;
    flags |= if options["append"] == json!(true) { OFlags::APPEND } else { OFlags::TRUNC };
    let mut file = nas.host.open(path, flags, nas.release.is_26()).map_err(fails)?;
    if let Some(mode) = options["mode"].as_u64().filter(|m| *m != 0) {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode as u32 & 0o7777))
            .map_err(|e| fails(e.into()))?;
    }
    let mut next = first;
    while let Some(piece) = next {
        file.write_all(&piece).map_err(fails)?;
        next = input.recv().await;
    }
    Ok(true.into())
}

async fn get(call: &Call, wanted: &str, path: &str) -> Result<Value, Fail> {
    let job = call.job.as_ref().ok_or_else(|| Fail::fault("Pipe 'output' is not open"))?;
    let looked = call
        .nas
        .host
        .open(path, OFlags::RDONLY, false)
        .map_err(|_| Fail::fault("File does not exist"))?;
    if looked.metadata().is_ok_and(|m| !m.is_file()) {
        return Err(Fail::fault(format!("{wanted} is not a file")));
    }
    let mut file = looked;
    let pipe = job.pipe.as_ref().ok_or_else(|| Fail::fault("Pipe 'output' is not open"))?;
    let opened = tokio::time::timeout(WAIT, pipe.opened.notified()).await;
    opened.map_err(|_| Fail::fault("Pipe was not opened in time"))?;
    let output = pipe.write().ok_or_else(|| Fail::fault("Pipe 'output' is not open"))?;
    let _ = file.rewind();
    loop {
        let mut piece = vec![0; 1 << 16];
        let count = file.read(&mut piece).map_err(|e| Fail::os(&e, wanted))?;
        piece.truncate(count);
        if count == 0 || output.send(piece).await.is_err() {
            return Ok(Value::Null);
        }
    }
}
