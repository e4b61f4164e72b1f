//! This machine does nothing for its guests' networks without the backend `local`, whose gate does it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::IncusConfig;
use super::client::Client;
use super::record::Record;
use crate::sandbox::{EgressLog, Policy, Published, Result};

/// There is none.
pub(super) struct Host(Infallible);

/// There is none.
pub(super) struct Lock(Infallible);

impl Drop for Lock {
    fn drop(&mut self) {
        match self.0 {}
    }
}

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub(super) fn is_gated(record: &Record) -> bool {
    record.egress != Policy::None || !record.networks.is_empty()
}

impl Host {
    pub fn find(_: &Client, _: &Value, _: &IncusConfig) -> std::result::Result<Host, String> {
        Err("this program was built without the backend 'local'".into())
    }

    pub async fn changing(&self, _: &str) -> Result<Lock> {
        match self.0 {}
    }

    pub async fn admit(&self, _: &Lock, _: &str, _: &Record, _: u64) -> Result<bool> {
        match self.0 {}
    }

    pub async fn is_served(&self, _: &str) -> bool {
        match self.0 {}
    }

    pub async fn is_ready(&self, _: &str) -> bool {
        match self.0 {}
    }

    pub fn keeps(&self, _: &str) -> bool {
        match self.0 {}
    }

    pub async fn revive(&self) -> Result<()> {
        match self.0 {}
    }

    pub async fn set(&self, _: &Lock, _: &str, _: &Policy) -> Result<()> {
        match self.0 {}
    }

    pub async fn log(&self, _: &str, _: &Record) -> Result<EgressLog> {
        match self.0 {}
    }

    pub async fn publish(
        &self,
        _: &Lock,
        _: &str,
        _: u16,
        _: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        match self.0 {}
    }

    pub async fn unpublish(
        &self,
        _: &Lock,
        _: &str,
        _: u16,
        _: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        match self.0 {}
    }

    pub async fn ports(&self, _: &str) -> Vec<Published> {
        match self.0 {}
    }

    pub async fn forget(&self, _: &str) -> Result<()> {
        match self.0 {}
    }

    pub async fn forget_others(&self, _: &[&str]) -> Result<()> {
        match self.0 {}
    }
}
