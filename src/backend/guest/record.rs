//! What sandscript knows of a sandbox, kept with the instance itself: any machine can read it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::sandbox::{
    CacheMount, CloneSpec, Device, Hardware, Info, Limits, Mount, Network, Owner, Policy, Spec,
    State,
};

/// What is kept of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::backend) struct Record {
    /// The version of this record.
    pub version: u32,
    /// Tells one creation from another of the same name.
    pub token: String,
    pub image: String,
    pub fingerprint: String,
    pub hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub limits: Limits,
    #[serde(skip_serializing_if = "Hardware::is_plain")]
    pub hardware: Hardware,
    pub mounts: Vec<Mount>,
    /// Where the backend keeps some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheMount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nesting: bool,
    pub egress: Policy,
    /// Whatever it may reach, it reaches through the gate of the server's machine, and has no interface.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
    /// Its network is its own, and lets through what its rules do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fence: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<SystemTime>,
    /// When it was made, where the server does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<SystemTime>,
}

/// Sixteen random letters and digits.
pub(in crate::backend) fn token() -> String {
    let mut bytes = [0u8; 8];
    // A system without randomness has no TLS and no Incus either.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Record {
    /// Of a sandbox that is to be made.
    pub fn new(spec: &Spec, image: String, fingerprint: String) -> Record {
        Record {
            version: 1,
            token: token(),
            image,
            fingerprint,
            hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            source: None,
            limits: spec.limits.clone(),
            hardware: spec.hardware.clone(),
            mounts: spec.mounts.clone(),
            caches: spec.caches.clone(),
            devices: spec.devices.clone(),
            nesting: spec.nesting,
            egress: spec.egress.clone(),
            gate: false,
            fence: false,
            networks: spec.networks.clone(),
            env: spec.env.clone(),
            user: spec.user.clone(),
            cwd: spec.cwd.clone(),
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            created: None,
        }
    }

    /// Of a clone of the sandbox `source`.
    pub fn of_clone(&self, source: &str, spec: &CloneSpec) -> Record {
        let mut env = self.env.clone();
        env.extend(spec.env.clone());
        Record {
            version: 1,
            token: token(),
            image: self.image.clone(),
            fingerprint: self.fingerprint.clone(),
            hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            source: Some(match &spec.label {
                Some(label) => format!("{source}/{label}"),
                None => source.to_owned(),
            }),
            limits: spec.limits.clone().unwrap_or_else(|| self.limits.clone()),
            hardware: self.hardware.of_clone(),
            mounts: self.mounts.clone(),
            // The source's are not taken over.
            caches: spec.caches.clone(),
            devices: Device::all_of_clone(&self.devices, &spec.devices),
            nesting: self.nesting || spec.nesting,
            egress: spec.egress.clone().unwrap_or_else(|| self.egress.clone()),
            gate: false,
            fence: false,
            networks: spec.networks.clone(),
            env,
            user: self.user.clone(),
            cwd: self.cwd.clone(),
            labels: spec.labels.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            created: None,
        }
    }

    /// What holds for commands in it.
    pub fn defaults(&self) -> super::Defaults<'_> {
        super::Defaults { env: &self.env, user: self.user.as_ref(), cwd: self.cwd.as_ref() }
    }

    /// The sandbox, with what the server says of it.
    pub fn into_info(self, name: String, state: State, created: SystemTime) -> Info {
        Info {
            name,
            state,
            image: self.image,
            fingerprint: self.fingerprint,
            hostname: self.hostname,
            created,
            used: created,
            source: self.source,
            limits: self.limits,
            hardware: self.hardware,
            mounts: self.mounts,
            caches: self.caches,
            devices: self.devices,
            nesting: self.nesting,
            networks: self.networks,
            ports: Default::default(),
            egress: self.egress,
            env: self.env,
            user: self.user,
            cwd: self.cwd,
            labels: self.labels,
            owner: self.owner,
            expires: self.expires,
            addresses: Vec::new(),
            member: None,
            dataset: None,
            exec: None,
        }
    }
}
