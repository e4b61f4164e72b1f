//! Our templates: machines for what people run in machines.

/// A template.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// What `extends` calls it.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! template {
    ($name:literal, $about:literal) => {
        Template {
            name: $name,
            about: $about,
            text: include_str!(concat!("templates/", $name, ".toml")),
        }
    };
}

/// All of them, sorted.
pub const ALL: &[Template] = &[
    template!(
        "agent",
        "for an agent that writes and runs code: no host, no extra rights, its own sandboxes work"
    ),
    template!("docker", "Docker CE with compose, from Docker's own packages"),
    template!("incus", "Incus from Zabbly's packages, with containers and virtual machines"),
    template!("k3s", "a Kubernetes node with helm"),
    template!("lxd", "LXD as a snap"),
    template!("nixos", "NixOS with its configuration in a folder of the host"),
    template!("podman", "Podman, as root and as an ordinary user"),
    template!("router", "a router between two networks: nftables, DHCP and names by dnsmasq"),
];

/// A template by its name.
pub fn find(name: &str) -> Option<&'static Template> {
    ALL.iter().find(|template| template.name == name)
}
