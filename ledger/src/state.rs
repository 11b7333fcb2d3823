//! Everything that follows rules, folded from the log: services, deployments, judgements, leases.

mod changes;

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use schemas::{DeploymentId, Event, LedgerId, Role, ServiceName, Stream, Version, genesis};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::at::At;
use crate::deployment::{self, Deployment};
use crate::judgement::{self, Judgements};
use crate::lease::{self, Lease};
use crate::service::{self, Release, Service};

pub use changes::Changes;

/// The state of production at one offset. A copy takes a constant time, and shares with its original all that neither
/// changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The ledger's own id; none before its first record.
    pub ledger: Option<LedgerId>,
    /// Where the ledger goes on, if it was sealed.
    pub sealed: Option<String>,
    /// Services by name.
    pub services: OrdMap<ServiceName, Arc<Service>>,
    /// Deployments.
    pub deployments: OrdMap<DeploymentId, Arc<Deployment>>,
    /// What the judge said.
    pub judgements: OrdMap<DeploymentId, Arc<Judgements>>,
    /// Who acts.
    pub leases: BTreeMap<Role, Lease>,
}

/// A part of the state under its own name, so that a projection can keep each with its history:
/// `service/api`, `release/api/1.2.3`, `deployment/production/api`, `judgement/..`, `worker/..`, `ledger`.
pub type Row = (String, Box<RawValue>);

/// The row of a ledger that was sealed; before that it is the id alone.
#[derive(Serialize, Deserialize)]
struct LedgerRow {
    ledger: LedgerId,
    sealed: Option<String>,
}

impl State {
    /// Applies an event of `stream`. Total: the ledger has already accepted it.
    pub fn evolve(&mut self, stream: &Stream, event: &Event, at: &At) {
        match (stream, event) {
            (Stream::Ledger, Event::Ledger(genesis::Event::Created(created))) => self.ledger = Some(created.ledger),
            (Stream::Ledger, Event::Ledger(genesis::Event::Sealed(sealed))) => {
                self.sealed = Some(sealed.target.clone());
            }
            (Stream::Service(name), Event::Service(event)) => {
                update(self.services.entry(name.clone()).or_default(), |old| service::evolve(old, event));
            }
            (Stream::Service(name), Event::Release(event)) => {
                update(self.services.entry(name.clone()).or_default(), |old| service::evolve_release(old, event, at));
            }
            (Stream::Deployment(id), event) => {
                update(self.deployments.entry(id.clone()).or_default(), |old| deployment::evolve(old, event, at));
            }
            (Stream::Judgement(id), Event::Judgement(event)) => {
                update(self.judgements.entry(id.clone()).or_default(), |old| judgement::evolve(old, event, at));
            }
            (Stream::Worker(role), Event::Lease(event)) => {
                let lease = self.leases.entry(*role).or_default();
                *lease = lease::evolve(std::mem::take(lease), event, at);
            }
            // An event in a stream of another category means nothing to anybody.
            (Stream::Ledger | Stream::Service(_) | Stream::Judgement(_) | Stream::Worker(_), _) => {}
        }
    }

    /// Returns the service, if it was ever declared.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name).map(Arc::as_ref)
    }

    /// Returns the deployment, if anything ever happened to it.
    pub fn deployment(&self, id: &DeploymentId) -> Option<&Deployment> {
        self.deployments.get(id).map(Arc::as_ref)
    }

    /// Returns the lease of `role`.
    pub fn lease(&self, role: Role) -> Lease {
        self.leases.get(&role).cloned().unwrap_or_default()
    }

    /// Returns the rows of `stream` that `event` touches, as they are now.
    pub fn rows_touched(&self, stream: &Stream, event: &Event) -> Vec<Row> {
        match (stream, event) {
            (Stream::Service(name), Event::Release(schemas::release::Event::Recorded(recorded))) => {
                self.release_row(name, &recorded.version).into_iter().collect()
            }
            _ => self.row_of(stream).into_iter().collect(),
        }
    }

    /// Returns every row, ordered by name.
    pub fn rows(&self) -> BTreeMap<String, Box<RawValue>> {
        let streams = self.ledger.iter().map(|_| Stream::Ledger);
        let streams = streams
            .chain(self.services.keys().cloned().map(Stream::Service))
            .chain(self.deployments.keys().cloned().map(Stream::Deployment))
            .chain(self.judgements.keys().cloned().map(Stream::Judgement))
            .chain(self.leases.keys().copied().map(Stream::Worker));
        let mut rows: BTreeMap<String, Box<RawValue>> = streams.filter_map(|stream| self.row_of(&stream)).collect();
        for (name, service) in &self.services {
            rows.extend(service.releases.keys().filter_map(|version| self.release_row(name, version)));
        }
        rows
    }

    /// Puts a state together from its rows.
    ///
    /// # Errors
    ///
    /// What is wrong with the first row that is none.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Result<Self, String> {
        let mut state = Self::default();
        for (name, json) in rows {
            state.put(&name, json.get().as_bytes())?;
        }
        Ok(state)
    }

    /// Puts the entity of the row `name` into the state, in place of what was there.
    ///
    /// # Errors
    ///
    /// What is wrong with the row.
    pub fn put(&mut self, name: &str, json: &[u8]) -> Result<(), String> {
        self.put_row(name, json).map_err(|why| format!("row {name}: {why}"))
    }

    /// Takes over all that `other` holds, in place of what was there under the same names.
    pub fn extend(&mut self, other: State) {
        let State { ledger, sealed, services, deployments, judgements, leases } = other;
        if ledger.is_some() {
            (self.ledger, self.sealed) = (ledger, sealed);
        }
        for (name, service) in services {
            let Service { definition, releases } = Arc::unwrap_or_clone(service);
            let known = Arc::make_mut(self.services.entry(name).or_default());
            known.definition = definition.or(known.definition.take());
            known.releases.extend(releases);
        }
        self.deployments.extend(deployments);
        self.judgements.extend(judgements);
        self.leases.extend(leases);
    }

    fn put_row(&mut self, name: &str, json: &[u8]) -> Result<(), String> {
        if let Some((service, version)) = name.strip_prefix("release/").and_then(|rest| rest.split_once('/')) {
            let (service, version): (ServiceName, Version) = (parse(service)?, parse(version)?);
            let release: Release = from(json)?;
            Arc::make_mut(self.services.entry(service).or_default()).releases.insert(version, release);
            return Ok(());
        }
        match parse::<Stream>(name)? {
            Stream::Ledger => {
                let LedgerRow { ledger, sealed } = match json.first() {
                    Some(b'"') => LedgerRow { ledger: from(json)?, sealed: None },
                    _ => from(json)?,
                };
                (self.ledger, self.sealed) = (Some(ledger), sealed);
            }
            Stream::Service(name) => {
                let declared: Service = from(json)?;
                Arc::make_mut(self.services.entry(name).or_default()).definition = declared.definition;
            }
            Stream::Deployment(id) => drop(self.deployments.insert(id, Arc::new(from(json)?))),
            Stream::Judgement(id) => drop(self.judgements.insert(id, Arc::new(from(json)?))),
            Stream::Worker(role) => drop(self.leases.insert(role, from(json)?)),
        }
        Ok(())
    }

    fn row_of(&self, stream: &Stream) -> Option<Row> {
        let value = match stream {
            Stream::Ledger => self.ledger.map(|ledger| match &self.sealed {
                None => to(&ledger),
                Some(_) => to(&LedgerRow { ledger, sealed: self.sealed.clone() }),
            }),
            Stream::Service(name) => self.services.get(name).map(|service| to(service.as_ref())),
            Stream::Deployment(id) => self.deployments.get(id).map(|deployment| to(deployment.as_ref())),
            Stream::Judgement(id) => self.judgements.get(id).map(|judgements| to(judgements.as_ref())),
            Stream::Worker(role) => self.leases.get(role).map(to),
        };
        value.map(|value| (stream.to_string(), value))
    }

    fn release_row(&self, name: &ServiceName, version: &Version) -> Option<Row> {
        let release = self.services.get(name)?.releases.get(version)?;
        Some((format!("release/{name}/{version}"), to(release)))
    }
}

fn update<T: Clone + Default>(slot: &mut Arc<T>, change: impl FnOnce(T) -> T) {
    let value = Arc::make_mut(slot);
    *value = change(std::mem::take(value));
}

fn to<T: serde::Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("state is plain JSON")
}

fn from<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
