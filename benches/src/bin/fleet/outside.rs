//! An outside world that does at once what it is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ledger::State;
use schemas::run::HttpCheck;
use schemas::{DeploymentId, EffectId, StreamVersion, Timestamp};
use uuid::Uuid;
use workers::checks::{Checks, Probe};
use workers::nodes::{Fault, Instance, Launch, Nodes, Observed, Stopped};
use workers::probing::Probing;
use workers::routing;
use workers::runtime::Adapters;
use workers::traffic::measures::{Counts, Histogram, NodeMeasures, StackMeasures};
use workers::traffic::routes::{self, Admission};
use workers::traffic::{ApplyError, Entry, HeldRoutes, Measures, Router, Routes};

/// Requests a second to each deployment.
const REQUESTS_PER_S: u64 = 20;

/// Nodes that run, checks that pass, and a router that serves what it is told.
pub struct Outside {
    nodes: Mutex<BTreeMap<EffectId, Instance>>,
    entries: Mutex<BTreeMap<DeploymentId, Entry>>,
    began: Instant,
}

impl Outside {
    /// Returns the world in which all that `state` says is so.
    pub fn of(state: &State) -> Arc<Self> {
        let stacks = state.deployments.values().flat_map(|deployment| deployment.stacks.values());
        let instance = |node: &ledger::deployment::Node| Some((node.effect, instance(node.address()?)));
        let nodes = stacks.flat_map(|stack| stack.nodes.values()).filter_map(instance).collect();
        let routes = state.deployments.iter().filter_map(|(id, of)| routing::routes(state, id, of));
        let entries = routes.map(|routes| (routes.deployment.clone(), Entry::Routed(held(&routes)))).collect();
        Arc::new(Self { nodes: Mutex::new(nodes), entries: Mutex::new(entries), began: Instant::now() })
    }

    /// Returns the ports to it.
    pub fn adapters(self: &Arc<Self>) -> Adapters {
        let checks = Probing::new(Arc::clone(self) as _);
        Adapters { nodes: Arc::clone(self) as _, checks, router: Arc::clone(self) as _, break_glass: None }
    }

    /// Returns what a poll at all nodes shows.
    pub fn seen(&self) -> BTreeMap<EffectId, Observed> {
        let nodes = self.nodes.lock().unwrap();
        nodes.iter().map(|(effect, instance)| (*effect, Observed::Running(instance.clone()))).collect()
    }

    /// Returns what is served of a deployment.
    pub fn served(&self, id: &DeploymentId) -> Option<Entry> {
        self.entries.lock().unwrap().get(id).cloned()
    }
}

fn instance(address: SocketAddr) -> Instance {
    Instance { name: format!("node at {address}"), address, started_at: Timestamp::UNIX_EPOCH }
}

fn held(routes: &Routes) -> HeldRoutes {
    HeldRoutes { routes: routes.clone(), listening: SocketAddr::from(([127, 0, 0, 1], 80)) }
}

#[async_trait]
impl Nodes for Outside {
    async fn launch(&self, launch: &Launch) -> Result<Instance, Fault> {
        let started = instance(SocketAddr::from(([127, 0, 0, 1], launch.port)));
        self.nodes.lock().unwrap().insert(launch.effect, started.clone());
        Ok(started)
    }

    async fn look(&self) -> Result<BTreeMap<EffectId, Observed>, Fault> {
        Ok(self.seen())
    }

    async fn stop(&self, effect: EffectId, _: Duration) -> Result<Stopped, Fault> {
        self.nodes.lock().unwrap().remove(&effect);
        Ok(Stopped::Ended)
    }

    async fn cleanup(&self, _: EffectId) -> Result<(), Fault> {
        Ok(())
    }

    async fn free_ports(&self, n: u16) -> Result<Vec<u16>, Fault> {
        Ok((20_000..20_000 + n).collect())
    }
}

#[async_trait]
impl Checks for Outside {
    async fn probe(&self, _: SocketAddr, _: &HttpCheck) -> Probe {
        Probe::Passed { latency_ms: 1 }
    }
}

#[async_trait]
impl Router for Outside {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.get(&routes.deployment);
        match routes::admit(entry, routes) {
            Ok(Admission::AlreadyHeld) => Ok(entry.and_then(Entry::held).expect("it is held").clone()),
            Ok(Admission::Apply) => {
                let held = held(routes);
                entries.insert(routes.deployment.clone(), Entry::Routed(held.clone()));
                Ok(held)
            }
            Err(routes::Refusal::Superseded { held, .. }) => Err(ApplyError::Superseded { held }),
            Err(other) => Err(ApplyError::Refused(other.to_string())),
        }
    }

    async fn remove(&self, id: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        self.entries.lock().unwrap().insert(id.clone(), Entry::Retired { generation });
        Ok(())
    }

    async fn entry(&self, id: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        Ok(self.served(id))
    }

    /// Every node has answered as many requests as its stack's weight gives it since the beginning, all of them well.
    async fn measures(&self, id: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        let Some(Entry::Routed(HeldRoutes { routes, .. })) = self.served(id) else { return Ok(None) };
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).expect("short");
        let stacks = routes.backends.iter().map(|(stack, of)| {
            let share = u64::from(routes.weights.of(*stack).basis_points());
            let status_2xx = at_ms * REQUESTS_PER_S * share / 10_000_000;
            let mut latency = Histogram::default();
            latency.0.insert(100, status_2xx);
            let node = |node: &workers::traffic::Node| {
                let counts = Counts { status_2xx, ..Counts::default() };
                let measures = NodeMeasures {
                    address: node.address,
                    counts,
                    passed_on: 0,
                    latency: latency.clone(),
                    in_flight: Histogram::default(),
                    oldest_in_flight_ms: None,
                };
                (node.effect, measures)
            };
            let nodes = of.nodes.iter().map(node).collect();
            (*stack, StackMeasures { version: of.version.clone(), nodes })
        });
        Ok(Some(Measures {
            epoch: Uuid::from_u128(1),
            deployment: id.clone(),
            generation: routes.generation,
            at_ms,
            refused: 0,
            stacks: stacks.collect(),
        }))
    }
}
