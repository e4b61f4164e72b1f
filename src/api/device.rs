//! Devices: the option `devices`, and `nesting`.

use super::{Args, Ctx, Map, Opt, Result, ScriptError, Type, Value, path};
use crate::sandbox::{Device, DeviceKeys, DeviceKind};

/// The option by which a sandbox gets devices.
pub(super) fn option(doc: &'static str) -> Opt {
    Opt { name: "devices", ty: Type::map_of(Type::Map), doc }
}

/// The option that lets containers run in a sandbox.
pub(super) fn nesting() -> Opt {
    Opt {
        name: "nesting",
        ty: Type::Bool,
        doc: "Let containers run in it, which weakens what keeps it in. Default: false; a clone is as \
              its source.",
    }
}

/// What the option says.
pub(super) fn devices(ctx: &Ctx, args: &Args) -> Result<Vec<Device>> {
    let Value::Map(map) = args.get("devices") else { return Ok(Vec::new()) };
    let devices = map.iter().map(|(name, value)| one(ctx, name, value));
    let devices = devices.collect::<Result<Vec<_>>>()?;
    let can = ctx.backend().capabilities().require_devices(&devices, args.flag("nesting"));
    can.map_err(|error| ctx.error(error).focus("devices"))?;
    Ok(devices)
}

fn one(ctx: &Ctx, name: &str, value: &Value) -> Result<Device> {
    let wrong = |what: String| ScriptError::runtime(format!("device '{name}': {what}")).focus(name);
    let Value::Map(map) = value else {
        return Err(wrong(format!("it must be a map, got {}", value.quoted()))
            .hint("write it as #{ type: \"proxy\", listen: 9000, connect: 80 }"));
    };
    let mut keys = DeviceKeys::new();
    for (key, value) in map {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Int(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(wrong(format!("'{key}' must be a string")).focus(key)),
        };
        keys.insert(key.clone(), text);
    }
    // A folder of this machine, as of a mount: one of the project's.
    let is_folder = keys.get("type").is_some_and(|ty| ty == "disk") && !keys.contains_key("pool");
    if is_folder
        && !ctx.backend().mounts_its_own()
        && let Some(source) = keys.get_mut("source")
    {
        *source = path::there(ctx, source)?.to_string_lossy().into_owned();
    }
    Device::new(name, keys).map_err(|error| ScriptError::from(error).focus(name))
}

/// A sandbox's devices, for `info()`.
pub(super) fn map(devices: &[Device]) -> Value {
    let one = |device: &Device| {
        let mut map = Map::new();
        let mut set = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
        match &device.kind {
            DeviceKind::Disk { source, pool, target, readonly } => {
                set("type", "disk".into());
                set("source", source.as_str().into());
                set("pool", Value::option(pool.clone()));
                set("target", target.as_str().into());
                set("readonly", (*readonly).into());
            }
            DeviceKind::Gpu { pci } => {
                set("type", "gpu".into());
                set("pci", Value::option(pci.clone()));
            }
            DeviceKind::Nic { network, address, mac } => {
                set("type", "nic".into());
                set("network", network.as_str().into());
                set("address", Value::option(address.map(|address| address.to_string())));
                set("mac", Value::option(mac.clone()));
            }
            DeviceKind::Proxy { listen, connect, protocol } => {
                set("type", "proxy".into());
                set("listen", listen.to_string().into());
                set("connect", connect.to_string().into());
                set("protocol", protocol.to_string().into());
            }
            DeviceKind::Usb { vendor, product } => {
                set("type", "usb".into());
                set("vendor", vendor.as_str().into());
                set("product", Value::option(product.clone()));
            }
        }
        (device.name.clone(), Value::Map(map))
    };
    Value::Map(devices.iter().map(one).collect())
}
