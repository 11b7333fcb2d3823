//! The lookout: gathers a worker's facts, each look in a task of its own, so that a slow one delays nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::State;
use ledger::deployment::{Deployment, NodePhase, Phase, retention};
use schemas::run::HttpCheck;
use schemas::{DeploymentId, EffectId, Role};
use tokio::sync::mpsc;

use super::{Adapters, Done};
use crate::checks::Probe;
use crate::effect::Key;
use crate::facts::{Facts, Measures};
use crate::nodes::{Fault, Seen};
use crate::traffic::{self, ApplyError, Entry, router};

/// How often all nodes are looked at.
const NODES_EVERY: Duration = Duration::from_millis(500);

/// How often a router is asked about a deployment where nothing moves.
const QUIET_EVERY: Duration = Duration::from_secs(2);

/// How many ports are offered at a time.
const PORTS: u16 = 32;

/// Something a worker hears of.
pub(super) enum News {
    /// An effect ended.
    Done(Key, Done),
    /// All nodes were looked at.
    Nodes(Result<BTreeMap<EffectId, Seen>, Fault>, Vec<u16>),
    /// A node was probed.
    Probed(EffectId, Probe),
    /// A router said what it serves, and if it was asked, what it counted.
    Router(DeploymentId, Result<Option<Entry>, ApplyError>, Option<traffic::Measures>),
}

/// What is looked at, and when next.
pub(super) struct Lookout {
    role: Role,
    adapters: Adapters,
    send: mpsc::UnboundedSender<News>,
    nodes: Due,
    probes: BTreeMap<EffectId, Due>,
    routers: BTreeMap<DeploymentId, Due>,
}

/// When something is looked at next, and whether a look is under way.
#[derive(Clone, Copy, Default)]
struct Due {
    at: Duration,
    busy: bool,
}

impl Due {
    fn begin(&mut self, now: Duration, every: Duration) -> bool {
        let due = !self.busy && now >= self.at;
        if due {
            *self = Due { at: now + every, busy: true };
        }
        due
    }

    fn next(&self) -> Option<Duration> {
        (!self.busy).then_some(self.at)
    }
}

impl Lookout {
    pub(super) fn new(role: Role, adapters: Adapters, send: mpsc::UnboundedSender<News>) -> Self {
        let (probes, routers) = (BTreeMap::new(), BTreeMap::new());
        Self { role, adapters, send, nodes: Due::default(), probes, routers }
    }

    /// Begins the looks that are due and returns when the next one is.
    pub(super) fn look(&mut self, state: &State, now: Duration) -> Duration {
        match self.role {
            Role::Provisioner => {
                self.look_at_nodes(state, now);
                self.probe(state, now);
            }
            Role::TrafficShifter => self.look_at_routers(state, now, shifter_interval),
            Role::Collector => {
                self.look_at_nodes(state, now);
                self.look_at_routers(state, now, collector_interval);
            }
        }
        let uses_nodes = self.role != Role::TrafficShifter;
        let nodes = uses_nodes.then(|| self.nodes.next()).flatten();
        let all = self.probes.values().chain(self.routers.values()).filter_map(Due::next).chain(nodes);
        all.min().unwrap_or(now + NODES_EVERY)
    }

    fn look_at_nodes(&mut self, state: &State, now: Duration) {
        if !self.nodes.begin(now, NODES_EVERY) {
            return;
        }
        let wants_ports = self.role == Role::Provisioner && state.deployments.values().any(|d| has_empty_place(d));
        let (nodes, send) = (self.adapters.nodes.clone(), self.send.clone());
        tokio::spawn(async move {
            let seen = nodes.look().await;
            let ports = if wants_ports { nodes.free_ports(PORTS).await.unwrap_or_default() } else { vec![] };
            let _ = send.send(News::Nodes(seen, ports));
        });
    }

    fn probe(&mut self, state: &State, now: Duration) {
        let stacks = state.deployments.values().flat_map(|deployment| deployment.stacks.values());
        let live = stacks.filter(|stack| matches!(stack.phase, Phase::Starting | Phase::Ready | Phase::Unhealthy));
        let mut wanted = BTreeSet::new();
        for (node, check) in live.flat_map(|stack| stack.nodes.values().map(|node| (node, &stack.run.check))) {
            let Some(address) = node.address() else { continue };
            wanted.insert(node.effect);
            // A node that is not yet ready is probed faster, so that a stack does not wait for its check's interval.
            let interval = Duration::from_millis(check.interval_ms);
            let every =
                if matches!(node.phase, NodePhase::Launched { .. }) { interval.min(STARTING_EVERY) } else { interval };
            if self.probes.entry(node.effect).or_default().begin(now, every) {
                self.spawn_probe(node.effect, address, check.clone());
            }
        }
        self.probes.retain(|effect, _| wanted.contains(effect));
    }

    fn spawn_probe(&self, effect: EffectId, address: std::net::SocketAddr, check: HttpCheck) {
        let (checks, send) = (self.adapters.checks.clone(), self.send.clone());
        tokio::spawn(async move {
            let probe = checks.probe(address, &check).await;
            let _ = send.send(News::Probed(effect, probe));
        });
    }

    fn look_at_routers(&mut self, state: &State, now: Duration, interval: fn(&Deployment) -> Option<Duration>) {
        for (id, deployment) in &state.deployments {
            let Some(every) = interval(deployment) else {
                self.routers.remove(id);
                continue;
            };
            let due = self.routers.entry(id.clone()).or_default();
            // Something began to move: do not wait for the quiet interval to end.
            due.at = due.at.min(now + every);
            if !due.begin(now, every) {
                continue;
            }
            let measures = deployment.rollout.as_ref().is_some_and(|rollout| rollout.is_live());
            let (router, send, id) = (self.adapters.router.clone(), self.send.clone(), id.clone());
            tokio::spawn(async move {
                let entry = router.entry(&id).await;
                let measures = if measures { router.measures(&id).await.ok().flatten() } else { None };
                let _ = send.send(News::Router(id, entry, measures));
            });
        }
        self.routers.retain(|id, _| state.deployments.contains_key(id));
    }

    /// Takes news of a look into the facts.
    pub(super) fn take_in(&mut self, facts: &mut Facts, state: &State, news: News) {
        match news {
            News::Nodes(seen, ports) => {
                self.nodes.busy = false;
                facts.free_ports = ports;
                match seen {
                    Ok(seen) => facts.looked(state, seen),
                    Err(error) => tracing::warn!(role = %self.role, %error, "nodes cannot be looked at"),
                }
            }
            News::Probed(effect, probe) => {
                if let Some(due) = self.probes.get_mut(&effect) {
                    due.busy = false;
                }
                facts.probes.entry(effect).or_default().add(probe);
            }
            News::Router(id, entry, measures) => {
                if let Some(due) = self.routers.get_mut(&id) {
                    due.busy = false;
                }
                take_in_router(facts, id, entry, measures);
            }
            News::Done(..) => {}
        }
    }
}

/// A node that was launched is probed at least this often until it is ready.
const STARTING_EVERY: Duration = Duration::from_millis(250);

fn take_in_router(
    facts: &mut Facts,
    id: DeploymentId,
    entry: Result<Option<Entry>, ApplyError>,
    measures: Option<traffic::Measures>,
) {
    if let Some(measures) = measures {
        let stacks = measures.stacks.iter();
        let stacks = stacks.map(|(stack, of)| (*stack, router::judged_counts(&of.counts()))).collect();
        let measures = Measures { epoch: measures.epoch.to_string(), stacks, at: facts.steady };
        facts.measures.insert(id.clone(), measures);
    }
    match entry {
        // A read that began before an effect on the same deployment says nothing of what comes after it.
        Ok(_) if facts.in_flight.contains(&Key::Route(id.clone())) => {}
        Ok(entry) => drop(facts.routers.insert(id, entry)),
        Err(error) => {
            tracing::warn!(deployment = %id, %error, "the router cannot be read");
            facts.routers.remove(&id);
        }
    }
}

fn has_empty_place(deployment: &Deployment) -> bool {
    let live = deployment
        .stacks
        .values()
        .filter(|stack| matches!(stack.phase, Phase::Starting | Phase::Ready | Phase::Unhealthy));
    live.into_iter().any(|stack| stack.nodes.len() < usize::from(stack.capacity.nodes))
}

fn shifter_interval(deployment: &Deployment) -> Option<Duration> {
    let traffic = &deployment.traffic;
    let live = deployment.rollout.as_ref().is_some_and(|rollout| rollout.is_live());
    if live || !traffic.is_applied() || traffic.drift.is_some() {
        Some(crate::traffic_shifter::LOOK_EVERY)
    } else {
        (traffic.set.is_some() || traffic.retired_at.is_some()).then_some(QUIET_EVERY)
    }
}

fn collector_interval(deployment: &Deployment) -> Option<Duration> {
    let unused = |id| retention::in_use(deployment, id).is_none();
    deployment.stacks.keys().any(|id| unused(*id)).then_some(NODES_EVERY * 2)
}
