//! Copying between the host and a sandbox.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::files::write_options;
use super::sandbox::name_of;
use super::{Args, Ctx, FnSpec, Result, ScriptError, Type, Value, path};
use crate::sandbox::{Error, FileKind, ReadOptions};
use crate::transfer::{PackOptions, UnpackOptions, pack, unpack};

async fn push(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, guest) = (name_of(&args)?, args.need("to")?);
    let host = path::existing(&ctx, args.need("from")?).await?;
    let mut options = write_options(&args, true)?;
    let (backend, cancel) = (ctx.backend(), ctx.cancel());
    let packing = PackOptions {
        exclude: args.strings("exclude"),
        ignore_files: !args.flag("all"),
        ..PackOptions::default()
    };
    let reading = ctx.reading(&host, &packing).await;
    if host.is_dir() {
        let tar = pack(&host, &packing)?;
        options.mode = None;
        backend.unpack(&name, guest, tar, &options, cancel).await.map_err(|e| ctx.error(e))?;
        if let Some(reading) = reading {
            reading.done().await;
        }
        return Ok(Value::Unit);
    }
    let file = std::fs::File::open(&host).map_err(|error| on_host(&host, &error))?;
    if options.mode.is_none() {
        let meta = file.metadata().map_err(|error| on_host(&host, &error))?;
        options.mode = Some(meta.permissions().mode() & 0o7777);
    }
    let target = inside(guest, host.file_name());
    let reader = Box::new(tokio::fs::File::from_std(file));
    backend.write(&name, &target, reader, &options, cancel).await.map_err(|e| ctx.error(e))?;
    if let Some(reading) = reading {
        reading.done().await;
    }
    Ok(Value::Unit)
}

async fn pull(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, guest) = (name_of(&args)?, args.need("from")?);
    let given = args.need("to")?;
    let host = path::confined(&ctx, given)?;
    if ctx.host.plan.dry {
        return Ok(Value::Unit);
    }
    let (backend, cancel) = (ctx.backend(), ctx.cancel());
    let entry = backend.stat(&name, guest, cancel).await.map_err(|e| ctx.error(e))?;
    if entry.kind == FileKind::Dir {
        let _writing = ctx.writing(&host);
        let tar = backend.pack(&name, guest, cancel).await.map_err(|e| ctx.error(e))?;
        unpack(tar, &host, &UnpackOptions::default()).await?;
        return Ok(Value::Unit);
    }
    if entry.kind != FileKind::File {
        return Err(ScriptError::runtime(format!("'{guest}' is neither a file nor a folder"))
            .hint("pull what the link points to"));
    }
    let target = match given.ends_with('/') || host.is_dir() {
        // By the path that was asked for: what the guest calls it may be anything.
        true => path::confined(&ctx, &format!("{given}/{}", last(guest)?))?,
        false => host,
    };
    let _writing = ctx.writing(&target);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(|error| on_host(parent, &error))?;
    }
    let mut reader = backend
        .read(&name, guest, ReadOptions::default(), cancel)
        .await
        .map_err(|e| ctx.error(e))?;
    // Written beside it and renamed: a link that waits at the target is replaced, not followed.
    let staged = target.with_file_name(format!(".{}.part", super::new_run_id()));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(entry.mode & 0o777)
        .open(&staged)
        .map_err(|error| on_host(&staged, &error))?;
    let staged = Staged(&staged);
    let mut file = tokio::fs::File::from_std(file);
    tokio::io::copy(&mut reader, &mut file)
        .await
        .map_err(|error| ScriptError::from(Error::Transport { message: error.to_string() }))?;
    file.sync_data().await.map_err(|error| on_host(&target, &error))?;
    std::fs::rename(staged.0, &target).map_err(|error| on_host(&target, &error))?;
    Ok(Value::Unit)
}

/// Takes the half-written file away, also when the future is dropped.
struct Staged<'a>(&'a Path);

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// The last part of a guest's path.
fn last(guest: &str) -> Result<&str> {
    match guest.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") => Ok(name),
        _ => Err(ScriptError::runtime(format!("'{guest}' names no file"))
            .hint("say what the file is to be called here")),
    }
}

/// The guest path of a single file: in the folder when the path ends in `/`, else the path itself.
fn inside(guest: &str, name: Option<&std::ffi::OsStr>) -> String {
    match name {
        Some(name) if guest.ends_with('/') => format!("{guest}{}", name.to_string_lossy()),
        _ => guest.to_owned(),
    }
}

fn on_host(path: &Path, error: &std::io::Error) -> ScriptError {
    ScriptError::runtime(format!("{}: {error}", path.display()))
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Sandbox";
    vec![
        FnSpec::method(on, "push", push)
            .doc(
                "Copies a host file or folder into the sandbox. What is in a folder comes to lie \
                  in the folder `to`; a file becomes `to`, or lies in it when `to` ends in '/'. \
                  Mode, time and links are kept; what ignore files such as .gitignore name is \
                  left out.",
            )
            .param("from", Type::String, "A host path, relative to the project folder.")
            .param("to", Type::String, "An absolute path in the sandbox.")
            .option("all", Type::Bool, "Copy what ignore files name, too. Default: false.")
            .option(
                "exclude",
                Type::list(Type::String),
                "Patterns of what is left out, as in \
                  .gitignore.",
            )
            .option(
                "mode",
                Type::OneOf(vec![Type::Int, Type::String]),
                "Permission bits of a \
                  single file.",
            )
            .option("owner", Type::String, "Owner in the sandbox; root when not given.")
            .error("not_found", "It is not there any more.")
            .error("runtime", "The host path is not in the project folder.")
            .example(
                "box.push(\"src\", \"/src\", #{ exclude: [\"*.o\"] });",
                "box:push(\"src\", \"/src\", { exclude = { \"*.o\" } })",
            ),
        FnSpec::method(on, "pull", pull)
            .doc(
                "Copies a file or folder of the sandbox to the host. What is in a folder comes \
                  to lie in the folder `to`; a file becomes `to`, or lies in it when that is a \
                  folder.",
            )
            .param("from", Type::String, "An absolute path in the sandbox.")
            .param("to", Type::String, "A host path, relative to the project folder.")
            .error("not_found", "It is not there any more.")
            .error("not_found", "There is nothing at the path.")
            .error("runtime", "The host path is not in the project folder.")
            .example(
                "box.pull(\"/etc/passwd\", \"out/passwd\");",
                "box:pull(\"/etc/passwd\", \"out/passwd\")",
            ),
    ]
}
