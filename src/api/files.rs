//! Files inside a sandbox.

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::sandbox::name_of;
use super::secret::{self, data_or_secret};
use super::{Args, Ctx, FnSpec, Opt, Result, ScriptError, Type, Value};
use crate::sandbox::{Error, FileEntry, FileKind, ReadOptions, WriteOptions, format_size};

const MAX_READ: u64 = 64 << 20;

/// The options `mode` and `owner`.
pub(super) fn write_options(args: &Args, parents: bool) -> Result<WriteOptions> {
    Ok(WriteOptions {
        mode: args.mode("mode")?,
        owner: args.string("owner").map(str::to_owned),
        parents,
    })
}

fn owner_options() -> Vec<Opt> {
    vec![
        Opt {
            name: "mode",
            ty: Type::OneOf(vec![Type::Int, Type::String]),
            doc: "Permission bits, such as 0o755 or \"755\".",
        },
        Opt { name: "owner", ty: Type::String, doc: "Owner: \"user\" or \"user:group\"." },
    ]
}

async fn content(ctx: &Ctx, args: &Args) -> Result<Vec<u8>> {
    let (name, path) = (name_of(args)?, args.need("path")?);
    let max = args.size("max")?.unwrap_or(MAX_READ);
    let length = args.size("length")?;
    let options = ReadOptions { offset: args.size("offset")?.unwrap_or(0), length };
    let reader =
        ctx.backend().read(&name, path, options, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    let mut bytes = Vec::new();
    let read = reader.take(max.saturating_add(1)).read_to_end(&mut bytes).await;
    read.map_err(|error| ScriptError::from(Error::Transport { message: error.to_string() }))?;
    if bytes.len() as u64 > max {
        return Err(ScriptError::runtime(format!(
            "'{path}' in sandbox '{name}' is larger than {}",
            format_size(max)
        ))
        .hint("read a part of it with offset and length, allow more with max, or pull() it"));
    }
    Ok(bytes)
}

async fn read(ctx: Ctx, args: Args) -> Result<Value> {
    let bytes = content(&ctx, &args).await?;
    String::from_utf8(bytes).map(Value::String).map_err(|_| {
        ScriptError::runtime(format!("'{}' is not UTF-8 text", args.string("path").unwrap_or("")))
            .hint("read_bytes() gives it as bytes")
    })
}

async fn read_bytes(ctx: Ctx, args: Args) -> Result<Value> {
    Ok(content(&ctx, &args).await?.into())
}

async fn write(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, path) = (name_of(&args)?, args.need("path")?);
    let options = write_options(&args, args.flag("parents"))?;
    let bytes: Bytes = secret::data(&args, "content").unwrap_or_default();
    let reader = Box::new(std::io::Cursor::new(bytes));
    ctx.backend()
        .write(&name, path, reader, &options, ctx.cancel())
        .await
        .map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

fn entry(entry: FileEntry) -> Value {
    let kind = match entry.kind {
        FileKind::Dir => "dir",
        FileKind::File => "file",
        FileKind::Symlink => "symlink",
        FileKind::Other => "other",
    };
    Value::map([
        ("name", entry.name.into()),
        ("kind", kind.into()),
        ("size", entry.size.into()),
        ("mode", entry.mode.into()),
        ("uid", entry.uid.into()),
        ("gid", entry.gid.into()),
        ("modified", entry.modified.into()),
        ("target", Value::option(entry.target)),
    ])
}

async fn list(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, path) = (name_of(&args)?, args.need("path")?);
    let entries =
        ctx.backend().read_dir(&name, path, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::List(entries.into_iter().map(entry).collect()))
}

async fn stat(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, path) = (name_of(&args)?, args.need("path")?);
    Ok(entry(ctx.backend().stat(&name, path, ctx.cancel()).await.map_err(|e| ctx.error(e))?))
}

async fn exists(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, path) = (name_of(&args)?, args.need("path")?);
    match ctx.backend().stat(&name, path, ctx.cancel()).await {
        Ok(_) => Ok(true.into()),
        Err(Error::NotFound { kind: crate::sandbox::Kind::File, .. }) => Ok(false.into()),
        Err(error) => Err(ctx.error(error)),
    }
}

async fn remove(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, path) = (name_of(&args)?, args.need("path")?);
    let recursive = args.flag("recursive");
    match ctx.backend().remove(&name, path, recursive, ctx.cancel()).await {
        Err(Error::NotFound { kind: crate::sandbox::Kind::File, .. })
            if args.flag("missing_ok") => {}
        done => done.map_err(|e| ctx.error(e))?,
    }
    Ok(Value::Unit)
}

async fn mkdir(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, path) = (name_of(&args)?, args.need("path")?);
    let options = write_options(&args, true)?;
    ctx.backend().mkdir(&name, path, &options, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Sandbox";
    let path = "An absolute path in the sandbox.";
    let range = || {
        let option = |name, doc| Opt { name, ty: Type::Size, doc };
        vec![
            option("offset", "First byte. Default: 0."),
            option("length", "How many bytes at most; to the end when not given."),
            option("max", "A larger file is an error. Default: 64MiB."),
        ]
    };
    vec![
        FnSpec::method(on, "read", read)
            .doc("Reads a text file.")
            .param("path", Type::String, path)
            .options(range())
            .returns(Type::String)
            .error("not_found", "It is not there any more.")
            .error("not_found", "There is nothing at the path.")
            .error("runtime", "The file is no text, or larger than max.")
            .example(
                "let users = box.read(\"/etc/passwd\");",
                "local users = box:read(\"/etc/passwd\")",
            ),
        FnSpec::method(on, "read_bytes", read_bytes)
            .doc("Reads a file as bytes.")
            .param("path", Type::String, path)
            .options(range())
            .returns(Type::Bytes)
            .error("not_found", "It is not there any more.")
            .error("not_found", "There is nothing at the path.")
            .example(
                "let head = box.read_bytes(\"/etc/passwd\", #{ length: 4 });",
                "local head = box:read_bytes(\"/etc/passwd\", { length = 4 })",
            ),
        FnSpec::method(on, "write", write)
            .doc(
                "Replaces a file at once: a reader sees the old content or the new one. Mode and \
                  owner of a file that is there stay, unless they are given.",
            )
            .param("path", Type::String, path)
            .param("content", data_or_secret(), "Text or bytes.")
            .options(owner_options())
            .option("parents", Type::Bool, "Make missing folders above it. Default: false.")
            .error("not_found", "It is not there any more.")
            .error("not_found", "The folder of the path is not there.")
            .example(
                "box.write(\"/etc/motd\", \"hello\\n\", #{ mode: 0o644 });",
                "box:write(\"/etc/motd\", \"hello\\n\", { mode = \"644\" })",
            ),
        FnSpec::method(on, "list", list)
            .doc("The entries of a folder, by name; each a map as stat() gives it.")
            .param("path", Type::String, path)
            .returns(Type::list(Type::Map))
            .error("not_found", "It is not there any more.")
            .error("not_found", "There is nothing at the path.")
            .example(
                "for entry in box.list(\"/etc\") { print(entry.name); }",
                "for _, entry in ipairs(box:list(\"/etc\")) do print(entry.name) end",
            ),
        FnSpec::method(on, "stat", stat)
            .doc(
                "What is known about a file: name, kind (\"file\", \"dir\", \"symlink\", \
                  \"other\"), size, mode, uid, gid, modified, target. A link is not followed.",
            )
            .param("path", Type::String, path)
            .returns(Type::Map)
            .error("not_found", "It is not there any more.")
            .error("not_found", "There is nothing at the path.")
            .example(
                "print(box.stat(\"/etc/passwd\").size);",
                "print(box:stat(\"/etc/passwd\").size)",
            ),
        FnSpec::method(on, "exists", exists)
            .doc("Whether there is something at the path. A link is not followed.")
            .param("path", Type::String, path)
            .returns(Type::Bool)
            .error("not_found", "It is not there any more.")
            .example(
                "if !box.exists(\"/opt/tool\") { box.write(\"/opt/tool\", \"\"); }",
                "if not box:exists(\"/opt/tool\") then box:write(\"/opt/tool\", \"\") end",
            ),
        FnSpec::method(on, "remove", remove)
            .doc("Deletes a file, a link, or an empty folder.")
            .param("path", Type::String, path)
            .option("recursive", Type::Bool, "Delete a folder with all in it. Default: false.")
            .option("missing_ok", Type::Bool, "Do nothing when it is not there. Default: false.")
            .error("not_found", "It is not there any more.")
            .error("not_found", "There is nothing at the path.")
            .example(
                "box.mkdir(\"/tmp/work\");\nbox.remove(\"/tmp/work\", #{ recursive: true });",
                "box:mkdir(\"/tmp/work\")\nbox:remove(\"/tmp/work\", { recursive = true })",
            ),
        FnSpec::method(on, "mkdir", mkdir)
            .doc("Makes a folder and those above it. One that is there is fine.")
            .param("path", Type::String, path)
            .options(owner_options())
            .error("not_found", "It is not there any more.")
            .example("box.mkdir(\"/opt/app/data\");", "box:mkdir(\"/opt/app/data\")"),
    ]
}
