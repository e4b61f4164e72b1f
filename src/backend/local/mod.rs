//! Sandboxes on this machine, by namespaces, overlays and cgroups.

pub mod cgroup;
pub mod net;
