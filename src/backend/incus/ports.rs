//! Published ports where the server's machine is not ours: the server itself listens there, by a device of
//! the instance, and connects to the guest's loopback interface from inside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::Method;
use serde_json::{Map, Value, json};

use super::Inner;
use super::client::escape;
use super::record;
use crate::backend::guest::Guests;
use crate::sandbox::{Error, Published, Result, State};
use crate::transport::Place;

/// Before the name of a device that is a published port.
const PORT: &str = "port-";
/// Where free ports are looked for: below those that the kernel gives to whoever connects.
const FREE: std::ops::Range<u16> = 20_000..32_000;
/// How many of them are tried.
const TRIES: u32 = 10;

/// What is open of an instance by itself.
pub(super) fn of(instance: &Value) -> Vec<Published> {
    let devices = instance["devices"].as_object().into_iter().flatten();
    let place = |value: &Value| value.as_str()?.strip_prefix("tcp:")?.parse::<SocketAddr>().ok();
    let open = devices.filter(|(name, _)| name.starts_with(PORT)).filter_map(|(_, device)| {
        let port = place(&device["connect"])?.port();
        Some(Published { port, at: place(&device["listen"])? })
    });
    let mut open: Vec<Published> = open.collect();
    open.sort_by_key(|one| (one.port, one.at));
    open
}

/// The devices that are published ports.
pub(super) fn devices(instance: &Value) -> Map<String, Value> {
    let all = instance["devices"].as_object().into_iter().flatten();
    all.filter(|(name, _)| name.starts_with(PORT)).map(|(n, d)| (n.clone(), d.clone())).collect()
}

/// Takes published ports away; whether there were any.
pub(super) fn take(instance: &mut Value) -> bool {
    let Some(devices) = instance["devices"].as_object_mut() else { return false };
    let before = devices.len();
    devices.retain(|name, _| !name.starts_with(PORT));
    devices.len() != before
}

fn name_of(one: &Published) -> String {
    let digest = blake3::hash(one.to_string().as_bytes()).to_hex();
    format!("{PORT}{}-{}", one.port, &digest[..12])
}

impl Inner {
    /// The address of the machine that holds a sandbox, by which it is reached from here.
    async fn address_of(&self, instance: &Value) -> Result<IpAddr> {
        let authority = match (&self.cluster, self.client.place()) {
            (Some(_), _) => {
                let member = instance["location"].as_str().unwrap_or_default();
                let path = format!("/1.0/cluster/members/{}", escape(member));
                let member = self.client.get(&path).await;
                let member = member.map_err(|fail| fail.plain("looking for a member's address"))?;
                let url = member["url"].as_str().unwrap_or_default();
                url.trim_start_matches("https://").to_owned()
            }
            (None, Place::Unix(_)) => return Ok(Ipv4Addr::LOCALHOST.into()),
            (None, Place::Tls(server)) => server.authority(),
        };
        let found = tokio::net::lookup_host(&authority).await;
        let found = found.ok().and_then(|mut all| all.next());
        found.map(|place| place.ip()).ok_or_else(|| {
            Error::invalid_hint(
                "at",
                format!("the server's address is not known: '{authority}' has none"),
                "name one of the server's addresses, such as 0.0.0.0 for all of them",
            )
        })
    }

    pub(super) async fn publish_there(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<SocketAddr> {
        let _one = self.ports.lock().await;
        let (instance, _) = self.instance(name).await?;
        if !matches!(record::state(&instance), State::Running | State::Frozen) {
            return Err(Error::NotRunning { name: name.to_owned() });
        }
        let own = match at {
            None => Some(self.address_of(&instance).await?),
            Some(_) => None,
        };
        let open = of(&instance);
        let known = |open: &&Published| {
            open.port == port && at.map_or(Some(open.at.ip()) == own, |at| open.at == at)
        };
        if let Some(open) = open.iter().find(known) {
            return Ok(open.at);
        }
        let ip = at.map_or(own, |at| Some(at.ip())).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let asked = at.map(|at| at.port()).filter(|port| *port != 0);
        let mut tries = 0;
        loop {
            let at = SocketAddr::new(ip, asked.unwrap_or_else(any_port));
            let one = Published { port, at };
            let device = json!({
                "type": "proxy", "bind": "host", "listen": format!("tcp:{at}"),
                "connect": format!("tcp:{}", SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            });
            let body = json!({"devices": {(name_of(&one)): device}});
            let path = format!("/1.0/instances/{name}");
            let Err(fail) = self.client.run(Method::PATCH, &path, &body).await else {
                return Ok(at);
            };
            // The server keeps no device that it could not start.
            let (instance, _) = self.instance(name).await?;
            if record::state(&instance) == State::Stopped {
                return Err(Error::NotRunning { name: name.to_owned() });
            }
            tries += 1;
            if asked.is_some() || tries == TRIES {
                return Err(match self.explain(name, fail, "opening a port").await {
                    Error::Internal { message } | Error::InvalidInput { message, .. } => {
                        Error::invalid_hint(
                            "at",
                            format!("the server can't listen at {at}: {message}"),
                            "leave the server's port out for a free one, or name another of its addresses",
                        )
                    }
                    error => error,
                });
            }
        }
    }

    pub(super) async fn unpublish_there(
        &self,
        name: &str,
        port: u16,
        at: Option<SocketAddr>,
    ) -> Result<Vec<Published>> {
        let _one = self.ports.lock().await;
        self.instance(name).await?;
        let mut closing = Vec::new();
        self.alter(name, "closing a port", |instance| {
            let open = match record::state(instance) {
                State::Running | State::Frozen => of(instance),
                _ => Vec::new(),
            };
            closing = Published::matching(&open, name, port, at)?;
            if let Some(devices) = instance["devices"].as_object_mut() {
                let names: Vec<String> = closing.iter().map(name_of).collect();
                devices.retain(|name, _| !names.contains(name));
            }
            Ok(true)
        })
        .await?;
        Ok(closing)
    }

    /// Closes what is open of one that has stopped: nothing opens it again by itself.
    pub(super) async fn close_ports(&self, name: &str) -> Result<()> {
        let _one = self.ports.lock().await;
        match self.alter(name, "closing ports", |instance| Ok(take(instance))).await {
            Err(Error::NotFound { .. }) => Ok(()),
            done => done,
        }
    }
}

/// A port that is likely to be free.
fn any_port() -> u16 {
    let mut bytes = [0; 2];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    FREE.start + u16::from_le_bytes(bytes) % (FREE.end - FREE.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_read_from_the_devices() {
        let one = Published { port: 80, at: "[::1]:9000".parse().unwrap() };
        let mut instance = json!({"devices": {
            "root": {"type": "disk"}, "own-web": {"type": "proxy", "listen": "tcp:127.0.0.1:1", "connect": "tcp:127.0.0.1:2"},
            (name_of(&one)): {"type": "proxy", "listen": "tcp:[::1]:9000", "connect": "tcp:127.0.0.1:80"},
        }});
        assert_eq!(of(&instance), [one]);
        assert!(take(&mut instance) && !take(&mut instance));
        assert_eq!(instance["devices"].as_object().unwrap().len(), 2);
        assert!((0..100).all(|_| FREE.contains(&any_port())));
    }
}
