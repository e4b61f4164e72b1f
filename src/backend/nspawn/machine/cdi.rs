//! What a graphics card brings into a machine: by the Container Device Interface, else by
//! nvidia-container-cli, and `/dev/dri` for those that need no files.
//!
//! A specification is a JSON or YAML file below `/etc/cdi` or `/var/run/cdi`
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).

use serde::Deserialize;
use yaml_rust2::{Yaml, YamlLoader};

use super::bind::Bind;
use super::device::Device;
use super::error::{MachineError, Result};
use super::gpu::{Gpu, Vendor};
use super::host::Host;

/// Where specifications are; those of the second folder beat those of the first.
const FOLDERS: &[&str] = &["/etc/cdi", "/var/run/cdi"];

/// What is put into a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Nodes.
    pub devices: Vec<Device>,
    /// Files and folders of the host.
    pub binds: Vec<Bind>,
    /// Links in the machine: what each says, and where it is.
    pub links: Vec<(String, String)>,
    /// Folders of the machine in which its loader is to look.
    pub libraries: Vec<String>,
    /// What a specification wants besides and is not done, for a person to read.
    pub undone: Vec<String>,
}

impl Edits {
    /// The script that makes links and tells the loader, in the machine before it starts.
    pub fn guest_script(&self) -> Option<String> {
        if self.links.is_empty() && self.libraries.is_empty() {
            return None;
        }
        let quote = super::render::quote::shell;
        let mut script = String::new();
        for (target, link) in &self.links {
            let folder = link.rsplit_once('/').map_or("/", |(folder, _)| folder);
            script.push_str(&format!(
                "mkdir -p {}\nln -sfn {} {}\n",
                quote(if folder.is_empty() { "/" } else { folder }),
                quote(target),
                quote(link)
            ));
        }
        let conf = "/etc/ld.so.conf.d/00-sandscript-devices.conf";
        if !self.libraries.is_empty() {
            let folders: Vec<String> = self.libraries.iter().map(|one| quote(one)).collect();
            script.push_str(&format!(
                "mkdir -p /etc/ld.so.conf.d\nprintf '%s\\n' {} > {conf}\nif command -v ldconfig >/dev/null; then ldconfig; fi\n",
                folders.join(" ")
            ));
        }
        Some(script)
    }

    fn library(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_library = name.ends_with(".so") || name.contains(".so.");
        if is_library && !folder.is_empty() && !self.libraries.iter().any(|one| one == folder) {
            self.libraries.push(folder.to_owned());
        }
    }

    fn device(&mut self, device: Device) {
        if !self.devices.iter().any(|other| other.path == device.path) {
            self.devices.push(device);
        }
    }

    fn bind(&mut self, bind: Bind) {
        if !self.binds.iter().any(|other| other.target == bind.target) {
            self.binds.push(bind);
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
    #[serde(default)]
    container_edits: Container,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    container_edits: Container,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<OciHook>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    #[serde(default)]
    host_path: Option<String>,
    #[serde(default)]
    permissions: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciHook {
    #[serde(default)]
    hook_name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    args: Vec<String>,
}

/// Looks up what cards bring, on the host that has them.
///
/// # Errors
/// `Host` for a card that is not there and is not optional, with what makes it be there.
pub fn look_up(gpus: &[Gpu], host: &dyn Host) -> Result<Edits> {
    let mut edits = Edits::default();
    for gpu in gpus {
        let found = match gpu.vendor {
            Vendor::Dri => dri(gpu, host, &mut edits),
            Vendor::Nvidia => nvidia(gpu, host, &mut edits),
            Vendor::Cdi => by_name(&gpu.device, host, &mut edits),
        };
        if let Err(error) = found
            && !gpu.optional
        {
            return Err(error);
        }
    }
    Ok(edits)
}

fn lacks(what: impl Into<String>, hint: impl Into<String>) -> MachineError {
    MachineError::Host { what: what.into(), hint: hint.into() }
}

fn dri(gpu: &Gpu, host: &dyn Host, edits: &mut Edits) -> Result<()> {
    let nodes = host.list("/dev/dri");
    if nodes.is_empty() {
        return Err(lacks(
            "the host has no /dev/dri",
            "its driver is not loaded: modprobe i915, xe or amdgpu, or turn the card on in the firmware",
        ));
    }
    if gpu.device == "all" {
        edits.device(Device::new("/dev/dri"));
        return Ok(());
    }
    let node = gpu.device.trim_start_matches("/dev/dri/");
    if !nodes.iter().any(|name| name == node) {
        let all = nodes.join(", ");
        return Err(lacks(format!("the host has no /dev/dri/{node}"), format!("there are: {all}")));
    }
    edits.device(Device::new(format!("/dev/dri/{node}")));
    Ok(())
}

fn nvidia(gpu: &Gpu, host: &dyn Host, edits: &mut Edits) -> Result<()> {
    let name = format!("nvidia.com/gpu={}", gpu.device);
    let specs = specs(host)?;
    if specs.iter().any(|spec| spec.kind == "nvidia.com/gpu") {
        return apply(&name, &specs, edits);
    }
    let device = format!("--device={}", gpu.device);
    let listed = host.output(&["nvidia-container-cli", &device, "list"]);
    // Older releases list every card and take no such option there.
    let listed = listed.or_else(|| host.output(&["nvidia-container-cli", "list"]));
    let Some(listed) = listed.filter(|text| !text.trim().is_empty()) else {
        return Err(lacks(
            "the host tells of no NVIDIA card, neither by CDI nor by nvidia-container-cli",
            "with its driver and the NVIDIA container toolkit: nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml",
        ));
    };
    for path in listed.lines().map(str::trim).filter(|path| path.starts_with('/')) {
        if path.starts_with("/dev/") {
            edits.device(Device::new(path));
        } else {
            edits.library(path);
            edits.bind(Bind { readonly: true, ..Bind::new(path, path) });
        }
    }
    Ok(())
}

fn by_name(name: &str, host: &dyn Host, edits: &mut Edits) -> Result<()> {
    apply(name, &specs(host)?, edits)
}

/// All specifications of a host.
fn specs(host: &dyn Host) -> Result<Vec<Spec>> {
    let mut all: Vec<Spec> = Vec::new();
    for folder in FOLDERS {
        for name in host.list(folder) {
            let path = format!("{folder}/{name}");
            let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
            if !is_yaml && !name.ends_with(".json") {
                continue;
            }
            let wrong = |why: String| {
                lacks(
                    format!("{path} is no CDI specification: {why}"),
                    "make it again, or take it away",
                )
            };
            let Some(text) = host.read(&path) else { continue };
            let value = if is_yaml {
                let all =
                    YamlLoader::load_from_str(&text).map_err(|error| wrong(error.to_string()))?;
                all.first().map(|yaml| json(yaml, 0)).unwrap_or_default()
            } else {
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?
            };
            let spec = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
            all.insert(0, spec);
        }
    }
    Ok(all)
}

fn json(yaml: &Yaml, depth: usize) -> serde_json::Value {
    use serde_json::Value;
    match yaml {
        _ if depth > 32 => Value::Null,
        Yaml::String(text) | Yaml::Real(text) => Value::String(text.clone()),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Boolean(flag) => (*flag).into(),
        Yaml::Array(all) => all.iter().map(|one| json(one, depth + 1)).collect(),
        Yaml::Hash(all) => {
            let entry = |(key, value): (&Yaml, &Yaml)| {
                let key = match key {
                    Yaml::Integer(number) => number.to_string(),
                    key => key.as_str().unwrap_or_default().to_owned(),
                };
                (key, json(value, depth + 1))
            };
            Value::Object(all.iter().map(entry).collect())
        }
        _ => Value::Null,
    }
}

fn apply(name: &str, specs: &[Spec], edits: &mut Edits) -> Result<()> {
    let (kind, device) = name.split_once('=').unwrap_or((name, "all"));
    let of_kind: Vec<&Spec> = specs.iter().filter(|spec| spec.kind == kind).collect();
    let found = of_kind
        .iter()
        .find_map(|spec| Some((spec, spec.devices.iter().find(|one| one.name == device)?)));
    let Some((spec, found)) = found else {
        let names = of_kind.iter().flat_map(|spec| &spec.devices);
        let names: Vec<&str> = names.map(|one| one.name.as_str()).collect();
        return Err(match names.as_slice() {
            [] => lacks(
                format!("no CDI specification of the host is of {kind}"),
                "they are in /etc/cdi and /var/run/cdi; the vendor's toolkit makes them",
            ),
            all => lacks(
                format!("CDI knows no {name} on the host"),
                format!("there are: {}", all.join(", ")),
            ),
        });
    };
    for part in [&spec.container_edits, &found.container_edits] {
        part.add_to(edits)?;
    }
    Ok(())
}

impl Container {
    fn add_to(&self, edits: &mut Edits) -> Result<()> {
        for both in &self.env {
            let (name, value) = both.split_once('=').unwrap_or((both, ""));
            edits.env.retain(|(other, _)| other != name);
            edits.env.push((name.to_owned(), value.to_owned()));
        }
        for node in &self.device_nodes {
            let host = node.host_path.as_deref().unwrap_or(&node.path);
            let access = node.permissions.clone().unwrap_or_else(|| "rw".into());
            edits.device(Device { access, ..Device::new(host) });
            if host != node.path {
                edits
                    .undone
                    .push(format!("{host} is called that in the machine, too, not {}", node.path));
            }
        }
        for mount in &self.mounts {
            if !mount.host_path.starts_with('/') || !mount.container_path.starts_with('/') {
                return Err(lacks(
                    format!(
                        "CDI wants to mount '{}' at '{}'",
                        mount.host_path, mount.container_path
                    ),
                    "its paths must be absolute: make the specification again",
                ));
            }
            let readonly = !mount.options.iter().any(|option| option == "rw");
            edits.bind(Bind { readonly, ..Bind::new(&mount.host_path, &mount.container_path) });
        }
        for hook in &self.hooks {
            hook.add_to(edits);
        }
        Ok(())
    }
}

impl OciHook {
    /// Programs for the hooks of OCI runtimes want such a runtime's state. What NVIDIA's do is known,
    /// and done without them.
    fn add_to(&self, edits: &mut Edits) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let after = |flag: &'static str| {
            args.windows(2).filter(move |pair| pair[0] == flag).map(|pair| pair[1])
        };
        if args.contains(&"update-ldcache") {
            for folder in after("--folder") {
                if !edits.libraries.iter().any(|one| one == folder) {
                    edits.libraries.push(folder.to_owned());
                }
            }
        } else if args.contains(&"create-symlinks") {
            let links = after("--link").filter_map(|link| link.split_once("::"));
            edits.links.extend(links.map(|(to, at)| (to.to_owned(), at.to_owned())));
        } else {
            let words = if args.is_empty() { self.path.clone() } else { args.join(" ") };
            edits.undone.push(format!("the {} hook '{words}' is not run", self.hook_name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::MadeUp;
    use super::*;

    const NVIDIA: &str = r#"
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card1
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
  - path: /dev/nvidia-uvm
    permissions: rwm
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, create-symlinks, --link, "libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so"]
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu]
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, disable-device-node-modification]
  mounts:
  - hostPath: /usr/bin/nvidia-smi
    containerPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, rbind, rprivate]
  - hostPath: /run/nvidia-persistenced/socket
    containerPath: /run/nvidia-persistenced/socket
    options: [rw]
"#;

    fn gpu(vendor: Vendor, device: &str) -> [Gpu; 1] {
        [Gpu { vendor, device: device.into(), optional: false }]
    }

    #[test]
    fn by_cdi_in_yaml() {
        let host =
            MadeUp::with([("/var/run/cdi/nvidia.yaml", NVIDIA), ("/etc/cdi/notes.txt", "x")]);
        let edits = look_up(&gpu(Vendor::Nvidia, "0"), &host).unwrap();
        let nodes: Vec<&str> = edits.devices.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(nodes, ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/dri/card1"]);
        assert_eq!(edits.devices[3].allow, "char-drm");
        assert_eq!(edits.devices[1].access, "rwm");
        assert!(edits.binds[0].readonly && !edits.binds[1].readonly);
        assert_eq!(edits.env, [("NVIDIA_VISIBLE_DEVICES".to_owned(), "void".to_owned())]);
        assert_eq!(
            edits.undone,
            [
                "the createContainer hook 'nvidia-cdi-hook disable-device-node-modification' is not run"
            ]
        );
        insta::assert_snapshot!(edits.guest_script().unwrap(), @r"
        mkdir -p /usr/lib/x86_64-linux-gnu
        ln -sfn libcuda.so.1 /usr/lib/x86_64-linux-gnu/libcuda.so
        mkdir -p /etc/ld.so.conf.d
        printf '%s\n' /usr/lib/x86_64-linux-gnu > /etc/ld.so.conf.d/00-sandscript-devices.conf
        if command -v ldconfig >/dev/null; then ldconfig; fi
        ");
        let error = look_up(&gpu(Vendor::Nvidia, "7"), &host).unwrap_err();
        assert_eq!(error.to_string(), "CDI knows no nvidia.com/gpu=7 on the host");
        assert_eq!(error.hint().unwrap(), "there are: 0, all");
    }

    #[test]
    fn by_cdi_in_json_and_by_its_whole_name() {
        let text = r#"{"cdiVersion":"0.6.0","kind":"vendor.com/net","devices":
            [{"name":"a","containerEdits":{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y"}]}}]}"#;
        let host = MadeUp::with([("/etc/cdi/v.json", text)]);
        let edits = look_up(&gpu(Vendor::Cdi, "vendor.com/net=a"), &host).unwrap();
        assert_eq!(edits.devices[0].path, "/dev/y");
        assert_eq!(edits.undone, ["/dev/y is called that in the machine, too, not /dev/x"]);
        let error = look_up(&gpu(Vendor::Cdi, "other.com/net=a"), &host).unwrap_err();
        assert!(error.to_string().contains("no CDI specification of the host is of other.com/net"));
        let broken = MadeUp::with([("/etc/cdi/v.json", "{")]);
        let error = look_up(&gpu(Vendor::Cdi, "vendor.com/net=a"), &broken).unwrap_err();
        assert!(
            error.to_string().starts_with("/etc/cdi/v.json is no CDI specification"),
            "{error}"
        );
    }

    #[test]
    fn by_nvidia_container_cli_where_there_is_no_cdi() {
        let listed = "/dev/nvidiactl\n/dev/nvidia0\n/usr/bin/nvidia-smi\n/usr/lib/x86_64-linux-gnu/libcuda.so.550.1\n";
        let mut host = MadeUp::default();
        host.programs.insert("nvidia-container-cli list".into(), listed.into());
        let edits = look_up(&gpu(Vendor::Nvidia, "all"), &host).unwrap();
        assert_eq!(edits.devices.len(), 2);
        assert_eq!(edits.binds.len(), 2);
        assert_eq!(edits.libraries, ["/usr/lib/x86_64-linux-gnu"]);
        let error = look_up(&gpu(Vendor::Nvidia, "all"), &MadeUp::default()).unwrap_err();
        assert!(error.hint().unwrap().contains("nvidia-ctk cdi generate"));
        let optional = [Gpu { optional: true, ..Gpu::all(Vendor::Nvidia) }];
        assert_eq!(look_up(&optional, &MadeUp::default()).unwrap(), Edits::default());
    }

    #[test]
    fn dri_is_one_folder_or_one_node() {
        let host = MadeUp::with([("/dev/dri/card0", ""), ("/dev/dri/renderD128", "")]);
        let edits = look_up(&gpu(Vendor::Dri, "all"), &host).unwrap();
        assert_eq!(
            (edits.devices[0].path.as_str(), edits.devices[0].allow.as_str()),
            ("/dev/dri", "char-drm")
        );
        let edits = look_up(&gpu(Vendor::Dri, "renderD128"), &host).unwrap();
        assert_eq!(edits.devices[0].path, "/dev/dri/renderD128");
        let error = look_up(&gpu(Vendor::Dri, "card9"), &host).unwrap_err();
        assert_eq!(error.hint().unwrap(), "there are: card0, renderD128");
        assert!(look_up(&gpu(Vendor::Dri, "all"), &MadeUp::default()).is_err());
    }
}
