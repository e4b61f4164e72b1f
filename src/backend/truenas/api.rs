//! The two families of methods: `virt.*` of 25.x and `container.*` of 26.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::guest::Record;
use super::devices::Nic;
use super::hardware::pinned;
use super::lifecycle::{TRIES, pause};
use super::row::{self, Found, Row};
use super::{BACKEND, Inner};
use crate::sandbox::{Error, Result, State};
use crate::transport::jsonrpc::RpcError;

/// How often one is looked at again that the NAS could not look at.
const LOOKS: u32 = 3;

/// How a row of the NAS's list is read; none where it is no sandbox.
type Reading = fn(&Value) -> Option<Row>;

/// What has this name, of what was listed.
fn of((all, read): &(Vec<Value>, Reading), name: &str) -> Found {
    match all.iter().find(|one| one["name"] == name) {
        None => Found::Nothing,
        Some(one) => read(one).map_or(Found::Foreign, |row| Found::Ours(Box::new(row))),
    }
}

/// Which methods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// 25.04 and 25.10: Incus.
    Virt,
    /// 26: LXC.
    Container,
}

impl Inner {
    /// What the NAS lists of these, and how a row is read. One that it could not look at for a moment is looked at
    /// again: 25.x gives no more of it than its name then.
    async fn query(&self, filters: Value) -> Result<(Vec<Value>, Reading), RpcError> {
        let (method, read): (_, Reading) = match self.api {
            Api::Virt => ("virt.instance.query", row::of_virt),
            Api::Container => ("container.query", row::of_container),
        };
        let blank = |one: &Value| {
            let nothing = one["environment"].as_object().is_none_or(|all| all.is_empty());
            self.api == Api::Virt && one["status"] == "ERROR" && nothing
        };
        for tries in 0.. {
            let mut all = self.client.read(method, json!([filters, {}])).await?;
            let all = all.as_array_mut().map(std::mem::take).unwrap_or_default();
            if tries == LOOKS || !all.iter().any(blank) {
                return Ok((all, read));
            }
            tokio::time::sleep(pause(tries)).await;
        }
        Ok((Vec::new(), read))
    }

    /// An error where 25.x lists nothing because it can't look: while it starts, or its pool is locked.
    async fn is_all(&self, all: &[Value], what: &str) -> Result<()> {
        if self.api != Api::Virt || !all.is_empty() {
            return Ok(());
        }
        let Ok(config) = self.client.read("virt.global.config", json!([])).await else {
            return Ok(());
        };
        let hint = match config["state"].as_str().unwrap_or_default() {
            "INITIALIZING" => "it is just starting: try again in a moment",
            "LOCKED" => "the pool of its instances is locked: unlock it (Storage)",
            "ERROR" => "look at Instances > Configuration > Global Settings there",
            _ => return Ok(()),
        };
        Err(Error::unsupported(format!("{what} while the NAS has none at hand"), BACKEND, hint))
    }

    /// Everything that the NAS lists, by name.
    pub(super) async fn rows(&self) -> Result<Vec<Row>> {
        let all = self.query(json!([])).await;
        let (all, read) = all.map_err(|error| doing(error, "listing sandboxes"))?;
        self.is_all(&all, "listing sandboxes").await?;
        let mut rows: Vec<Row> = all.iter().filter_map(read).collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(rows)
    }

    /// Names and datasets of everything that the NAS lists, of others too; none where it does not say all of them.
    pub(super) async fn taken(&self) -> Result<Option<Vec<(String, String)>>> {
        let all = self.query(json!([])).await;
        let (all, _) = all.map_err(|error| doing(error, "listing sandboxes"))?;
        let read = |one: &Value| {
            Some((one["name"].as_str()?.to_owned(), one["dataset"].as_str()?.to_owned()))
        };
        Ok(all.iter().map(read).collect())
    }

    /// What has this name.
    pub(super) async fn find(&self, name: &str) -> Result<Found> {
        let all = self.query(json!([["name", "=", name]])).await;
        let all = all.map_err(|error| doing(error, &format!("looking at sandbox '{name}'")))?;
        self.is_all(&all.0, "looking at a sandbox").await?;
        Ok(of(&all, name))
    }

    /// A sandbox, and what has another name.
    pub(super) async fn pair(&self, name: &str, other: &str) -> Result<(Row, Found)> {
        let all = self.query(json!([["name", "in", [name, other]]])).await;
        let all = all.map_err(|error| doing(error, &format!("looking at sandbox '{name}'")))?;
        self.is_all(&all.0, "looking at a sandbox").await?;
        Ok((of(&all, name).sandbox(name)?, of(&all, other)))
    }

    /// A sandbox.
    pub(super) async fn row(&self, name: &str) -> Result<Row> {
        self.find(name).await?.sandbox(name)
    }

    /// Makes a machine that does not run yet. Gives what there is of it then, where the NAS says that.
    pub(super) async fn api_create(
        &self,
        name: &str,
        record: &Record,
        nic: Option<&Nic>,
    ) -> Result<Option<Row>, RpcError> {
        let environment = row::pieces(record).map_err(|error| RpcError::Auth(error.to_string()))?;
        let limits = &record.limits;
        match self.api {
            Api::Virt => {
                let mut body = json!({
                    "name": name, "image": record.image, "autostart": false, "environment": environment,
                    "devices": Inner::virt_devices(record, nic),
                });
                if let Some(cpu) = limits.cpu {
                    body["cpu"] = format!("{}", cpu as u64).into();
                }
                if let Some(cpus) = &record.hardware.cpus {
                    body["cpu"] = pinned(cpus).into();
                }
                if let Some(memory) = limits.memory {
                    body["memory"] = memory.into();
                }
                if let Some(pool) = record.hardware.pool.as_ref().or(self.pool.as_ref()) {
                    body["storage_pool"] = pool.as_str().into();
                }
                let made = self.make("virt.instance.create", "environment", body).await?;
                // With it at once, the NAS would start it before anything is in force in it.
                if self.autostart {
                    let change = json!({"autostart": true});
                    self.client.job("virt.instance.update", json!([name, change])).await?;
                }
                Ok(row::of_virt(&made))
            }
            Api::Container => {
                let (image, version) = record.fingerprint.split_once('@').unwrap_or_default();
                let mut body = json!({
                    "name": name, "description": format!("sandscript: {}", record.image),
                    "autostart": self.autostart, "initenv": environment,
                    "image": {"name": image, "version": version},
                });
                if let Some(cpus) = &record.hardware.cpus {
                    body["cpuset"] = cpus.as_str().into();
                }
                if let Some(pool) = record.hardware.pool.as_ref().or(self.pool.as_ref()) {
                    body["pool"] = pool.as_str().into();
                }
                let made = self.make("container.create", "initenv", body).await?;
                let id = made["id"].as_i64().unwrap_or_default();
                self.add_devices(id, record, nic).await?;
                Ok(row::of_container(&made))
            }
        }
    }

    /// Makes one by a job. Where the answer to the call is lost, the job is found by what it makes: the
    /// record in it is nobody else's.
    async fn make(&self, method: &str, kept: &str, body: Value) -> Result<Value, RpcError> {
        match self.client.job(method, json!([body])).await {
            Err(error) if error.is_unsure() => {
                let ours = |arguments: &Value| arguments[0][kept] == body[kept];
                self.client.lost_job(method, ours).await?.ok_or(error)
            }
            done => done,
        }
    }

    /// Starts it, and again where nobody knows whether it was.
    pub(super) async fn boot(&self, row: &Row, what: &str) -> Result<()> {
        let mut unsure = false;
        for tries in 0.. {
            let error = match self.api_start(row).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            unsure |= error.is_unsure();
            if !unsure || tries + 1 == TRIES {
                return Err(doing(error, what));
            }
            if self.row(&row.name).await?.state == State::Running {
                return Ok(());
            }
            tokio::time::sleep(pause(tries)).await;
        }
        Ok(())
    }

    pub(super) async fn api_start(&self, row: &Row) -> Result<(), RpcError> {
        match self.api {
            Api::Virt => self.client.job("virt.instance.start", json!([row.name])).await,
            Api::Container => {
                let limit = Duration::from_secs(300);
                self.client.call_within("container.start", json!([row.id]), limit).await
            }
        }
        .map(drop)
    }

    /// Stops it: at once, or within so many seconds. It may still run when this returns.
    pub(super) async fn api_stop(&self, row: &Row, grace: Option<u64>) -> Result<(), RpcError> {
        let force = grace.is_none();
        match self.api {
            Api::Virt => {
                let seconds = grace.map_or(-1, |grace| grace as i64);
                let how = json!({"timeout": seconds, "force": force});
                self.client.job("virt.instance.stop", json!([row.name, how])).await
            }
            Api::Container => {
                let how = json!({"force": force, "force_after_timeout": !force});
                self.client.job("container.stop", json!([row.id, how])).await
            }
        }
        .map(drop)
    }

    /// Says how long the next stop may take, where that is said of the machine and not with the stop. What is kept of
    /// the sandbox is told again, for the NAS may take what is not said for empty: nobody may change it meanwhile.
    pub(super) async fn api_grace(&self, row: &Row, grace: u64) -> Result<(), RpcError> {
        let kept = row::pieces(&row.record).map_err(|error| RpcError::Auth(error.to_string()))?;
        let wait = json!({"shutdown_timeout": grace.clamp(5, 300), "initenv": kept});
        self.client.call("container.update", json!([row.id, wait])).await.map(drop)
    }

    /// Deletes it with all that it has; one that runs must have been stopped on 26.
    pub(super) async fn api_delete(&self, row: &Row) -> Result<(), RpcError> {
        match self.api {
            Api::Virt => self.client.job("virt.instance.delete", json!([row.name])).await,
            Api::Container if self.early.get() == Some(&true) => {
                self.client.job("container.delete", json!([row.id])).await
            }
            Api::Container => {
                let how = json!({"force": true, "recursive": false});
                self.client.job("container.delete", json!([row.id, how])).await
            }
        }
        .map(drop)
    }

    /// Keeps another record.
    pub(super) async fn api_record(&self, row: &Row, record: &Record) -> Result<()> {
        let environment = row::pieces(record)?;
        let done = match self.api {
            Api::Virt => {
                let change = json!({"environment": environment});
                self.client.job("virt.instance.update", json!([row.name, change])).await
            }
            Api::Container => {
                let change = json!({"initenv": environment});
                self.client.call("container.update", json!([row.id, change])).await
            }
        };
        done.map(drop).map_err(|error| doing(error, "changing settings"))
    }
}

/// An error with what was tried.
pub(super) fn doing(error: RpcError, what: &str) -> Error {
    let with = |message: String| format!("{what}: {message}");
    match Error::from(error) {
        Error::Auth { message } => Error::Auth { message: with(message) },
        Error::Internal { message } => Error::internal(with(format!("the NAS says: {message}"))),
        Error::Transport { message } => Error::Transport { message: with(message) },
        other => other,
    }
}
