//! Snapshots, restoring and cloning.

use super::sandbox::{expires, fresh_name, limits, machine_options, made, name_of, scalar};
use super::{Args, Ctx, FnSpec, Result, Type, Value, cache, device, member};
use super::{egress, network, secret};
use crate::sandbox::{
    CloneSpec, Error, Kind, Limits, Restore, Snapshot, SnapshotSpec, check_label, check_name,
};

fn map(snapshot: Snapshot) -> Value {
    Value::map([
        ("label", snapshot.label.into()),
        ("created", snapshot.created.into()),
        ("size", snapshot.size.into()),
        ("frozen", snapshot.frozen.into()),
        ("labels", snapshot.labels.into()),
        ("expires", Value::option(snapshot.expires)),
    ])
}

async fn snapshot(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let (name, label) = (name_of(&args)?, args.need("label")?);
    check_label(label)?;
    let spec = SnapshotSpec {
        label: label.to_owned(),
        labels: args.string_map("labels"),
        expires: expires(&args)?,
    };
    let taken =
        ctx.backend().snapshot(&name, &spec, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(map(taken))
}

async fn snapshots(ctx: Ctx, args: Args) -> Result<Value> {
    let name = name_of(&args)?;
    let all = ctx.backend().snapshots(&name, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::List(all.into_iter().map(map).collect()))
}

async fn delete_snapshot(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, label) = (name_of(&args)?, args.need("label")?);
    check_label(label)?;
    match ctx.backend().delete_snapshot(&name, label, ctx.cancel()).await {
        Err(Error::NotFound { kind: Kind::Snapshot, .. }) if args.flag("missing_ok") => {}
        done => done.map_err(|e| ctx.error(e))?,
    }
    Ok(Value::Unit)
}

async fn restore(ctx: Ctx, args: Args) -> Result<Value> {
    let (name, label) = (name_of(&args)?, args.need("label")?);
    check_label(label)?;
    let options = Restore { discard_newer: args.flag("discard_newer") };
    ctx.backend().restore(&name, label, options, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
    Ok(Value::Unit)
}

async fn clone(ctx: Ctx, args: Args) -> Result<Value> {
    secret::check_kept(&ctx, &args)?;
    let source = name_of(&args)?;
    let name = args.string("name").map_or_else(|| fresh_name("clone"), str::to_owned);
    check_name(&name)?;
    if let Some(label) = args.string("label") {
        check_label(label)?;
    }
    let keep = args.flag("keep");
    let limits = match limits(&args)? {
        None => None,
        Some(new) => {
            let info = ctx.backend().get(&source, ctx.cancel()).await.map_err(|e| ctx.error(e))?;
            Some(merge(new, info.limits))
        }
    };
    let spec = CloneSpec {
        label: args.string("label").map(str::to_owned),
        hostname: args.string("hostname").map(str::to_owned),
        limits,
        egress: egress::from(&ctx, &args, egress::Origin::Sandbox(source.clone())).await?,
        networks: network::networks(&ctx, &args)?,
        caches: cache::caches(&args)?,
        devices: device::devices(&ctx, &args)?,
        nesting: args.flag("nesting"),
        env: args.string_map("env"),
        labels: args.string_map("labels"),
        owner: ctx.host.owner(keep),
        expires: expires(&args)?,
        bare: args.flag("bare"),
        target: member::target(&args)?,
        ..CloneSpec::new(name)
    };
    let clone = || ctx.backend().clone(&source, &spec, ctx.cancel());
    let info = cache::when_free(&ctx, &spec.name, clone).await?;
    Ok(made(&ctx, info, keep))
}

fn merge(new: Limits, old: Limits) -> Limits {
    Limits {
        cpu: new.cpu.or(old.cpu),
        memory: new.memory.or(old.memory),
        pids: new.pids.or(old.pids),
        disk: new.disk.or(old.disk),
        inodes: new.inodes.or(old.inodes),
    }
}

pub(super) fn specs() -> Vec<FnSpec> {
    let on = "Sandbox";
    let label = "The snapshot's label: A-Z, a-z, 0-9, '.', '_' and '-'.";
    vec![
        FnSpec::method(on, "snapshot", snapshot)
            .doc(
                "Takes a snapshot; the sandbox goes on as it was. Gives label, created, size, \
                  frozen (seconds that its processes stood still), labels and expires.",
            )
            .param("label", Type::String, label)
            .option("labels", Type::map_of(scalar()), "Labels of your own, kept with it.")
            .option("expires", Type::Duration, "After this long gc or the server deletes it. Default: never.")
            .returns(Type::Map)
            .error("already_exists", "There is one with that label.")
            .error("not_found", "It is not there any more.")
            .example("box.snapshot(\"clean\");", "box:snapshot(\"clean\")"),
        FnSpec::method(on, "snapshots", snapshots)
            .doc("Its snapshots, oldest first; each a map as snapshot() gives it.")
            .returns(Type::list(Type::Map))
            .error("not_found", "It is not there any more.")
            .example("for s in box.snapshots() { print(s.label); }", "for _, s in ipairs(box:snapshots()) do print(s.label) end"),
        FnSpec::method(on, "delete_snapshot", delete_snapshot)
            .doc("Deletes a snapshot. Clones of it live on.")
            .param("label", Type::String, label)
            .option("missing_ok", Type::Bool, "Do nothing when there is none. Default: false.")
            .error("not_found", "There is none with that label.")
            .example("box.delete_snapshot(\"clean\", #{ missing_ok: true });", "box:delete_snapshot(\"clean\", { missing_ok = true })"),
        FnSpec::method(on, "restore", restore)
            .doc(
                "Takes the sandbox back to a snapshot, any of them. One that ran is running \
                  again. Newer snapshots stay.",
            )
            .param("label", Type::String, label)
            .option(
                "discard_newer",
                Type::Bool,
                "Allow a backend that can't do otherwise to \
                  delete newer snapshots. Default: false.",
            )
            .error("not_found", "There is none with that label.")
            .example("box.snapshot(\"clean\");\nbox.run(\"echo broken > /etc/motd\");\nbox.restore(\"clean\");", "box:snapshot(\"clean\")\nbox:run(\"echo broken > /etc/motd\")\nbox:restore(\"clean\")"),
        FnSpec::method(on, "clone", clone)
            .doc(
                "Makes a new machine from a snapshot or from the current state. It keeps the \
                  limits, environment and egress policy, and is deleted when the run ends, unless \
                  it is kept. The source keeps running.",
            )
            .optional("label", Type::String, "The snapshot; the current state when not given.")
            .option("name", Type::String, "The new sandbox's name. Made up when not given.")
            .options(machine_options())
            .returns(Type::Object(on))
            .error("already_exists", "There is a sandbox of that name.")
            .error("not_found", "There is no snapshot with that label.")
            .example("box.snapshot(\"clean\");\nlet twin = box.clone(\"clean\", #{ name: \"twin\" });", "box:snapshot(\"clean\")\nlocal twin <close> = box:clone(\"clean\", { name = \"twin\" })"),
    ]
}
