//! Looks: what a worker looks at outside, and when next. Pure; the runtime carries the looks out, the simulation
//! answers them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ledger::State;
use ledger::deployment::{Deployment, NodePhase, Phase, retention};
use schemas::policy::JudgementPolicy;
use schemas::run::HttpCheck;
use schemas::{DeploymentId, EffectId, Offset, Role, Timestamp};

use crate::checks::Probe;
use crate::facts::Facts;
use crate::measures::{Asked, Failure, Reading};
use crate::nodes::{Fault, Seen};
use crate::traffic::{ApplyError, Entry, Measures};
use crate::watch;

/// How many ports are offered at a time.
const PORTS: u16 = 32;

/// How often is looked at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At all nodes.
    pub nodes: Duration,
    /// At a node that was launched and is not yet ready, at the longest; afterwards its check's interval counts.
    pub starting: Duration,
    /// At the router of a deployment with a rollout, which the judge listens to.
    pub judging: Duration,
    /// At the router of a deployment whose traffic is moving.
    pub moving: Duration,
    /// At the router of a deployment whose traffic is not.
    pub quiet: Duration,
    /// At the router of a deployment with a stack that may be taken down.
    pub unused: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            nodes: ms(500),
            starting: ms(250),
            judging: ms(100),
            moving: ms(250),
            quiet: ms(2_000),
            unused: ms(1_000),
        }
    }
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// At all nodes, and for as many free ports.
    Nodes {
        /// How many ports are wanted.
        ports: u16,
    },
    /// At one node, with its check.
    Probe {
        /// The node.
        effect: EffectId,
        /// Where it listens.
        address: SocketAddr,
        /// The check.
        check: HttpCheck,
    },
    /// At what another source than the router counted of a rollout.
    Source {
        /// Of what.
        asked: Asked,
        /// Since when.
        from: Timestamp,
        /// Which source, and what it is to count.
        policy: Box<JudgementPolicy>,
    },
    /// At what a router serves.
    Router {
        /// Whose requests.
        deployment: DeploymentId,
        /// Whether its counters are wanted too.
        measures: bool,
    },
}

/// What a look showed.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // few at a time, and none is kept
pub enum Sight {
    /// All nodes and the free ports, or why they could not be looked at; and the log's end, asked for afterwards.
    Nodes(Result<BTreeMap<EffectId, Seen>, Fault>, Vec<u16>, Option<Offset>),
    /// What a probe found.
    Probe(EffectId, Probe),
    /// What another source than the router answered.
    Source(DeploymentId, Result<Reading, Failure>),
    /// What a router serves, and its counters if they could be read.
    Router(DeploymentId, Result<Option<Entry>, ApplyError>, Option<Measures>),
}

/// What is looked at, and when next.
#[derive(Debug)]
pub struct Looks {
    role: Role,
    pace: Pace,
    nodes: Due,
    probes: BTreeMap<EffectId, Due>,
    routers: BTreeMap<DeploymentId, Due>,
    sources: BTreeMap<DeploymentId, Due>,
}

/// When something is looked at next, and whether a look is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    at: Duration,
    began: Duration,
    busy: bool,
}

impl Due {
    fn begin(&mut self, now: Duration, every: Duration) -> bool {
        let due = !self.busy && now >= self.at;
        if due {
            *self = Due { at: now + every, began: now, busy: true };
        }
        due
    }

    fn next(&self) -> Option<Duration> {
        (!self.busy).then_some(self.at)
    }
}

impl Looks {
    /// Returns the looks of a worker that has looked at nothing yet.
    pub fn new(role: Role, pace: Pace) -> Self {
        Self {
            role,
            pace,
            nodes: Due::default(),
            probes: BTreeMap::new(),
            routers: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Begins the looks that are due by the steady clock, and returns them with when the next one is.
    pub fn begin(&mut self, state: &State, facts: &Facts) -> (Vec<Look>, Duration) {
        let (mut looks, now) = (Vec::new(), facts.steady);
        if self.role != Role::TrafficShifter {
            self.begin_nodes(state, now, &mut looks);
        }
        if self.role == Role::Provisioner {
            self.begin_probes(state, now, &mut looks);
        } else {
            self.begin_routers(state, facts, &mut looks);
        }
        if self.role == Role::TrafficShifter {
            self.begin_sources(state, facts, &mut looks);
        }
        let nodes = (self.role != Role::TrafficShifter).then(|| self.nodes.next()).flatten();
        let all = self
            .probes
            .values()
            .chain(self.routers.values())
            .chain(self.sources.values())
            .filter_map(Due::next)
            .chain(nodes);
        (looks, all.min().unwrap_or(now + self.pace.nodes))
    }

    fn begin_nodes(&mut self, state: &State, now: Duration, looks: &mut Vec<Look>) {
        if self.nodes.begin(now, self.pace.nodes) {
            let wanted = self.role == Role::Provisioner && state.deployments.values().any(|d| has_empty_place(d));
            looks.push(Look::Nodes { ports: if wanted { PORTS } else { 0 } });
        }
    }

    fn begin_probes(&mut self, state: &State, now: Duration, looks: &mut Vec<Look>) {
        let stacks = state.deployments.values().flat_map(|deployment| deployment.stacks.values());
        let live = stacks.filter(|stack| is_live(&stack.phase));
        let mut wanted = BTreeSet::new();
        for (node, check) in live.flat_map(|stack| stack.nodes.values().map(|node| (node, &stack.run.check))) {
            let Some(address) = node.address() else { continue };
            let effect = node.effect;
            wanted.insert(effect);
            // A node that is not yet ready is probed faster, so that a stack does not wait for its check's interval.
            let interval = Duration::from_millis(check.interval_ms);
            let starting = matches!(node.phase, NodePhase::Launched { .. });
            let every = if starting { interval.min(self.pace.starting) } else { interval };
            if self.probes.entry(effect).or_default().begin(now, every) {
                looks.push(Look::Probe { effect, address, check: check.clone() });
            }
        }
        self.probes.retain(|effect, _| wanted.contains(effect));
    }

    fn begin_routers(&mut self, state: &State, facts: &Facts, looks: &mut Vec<Look>) {
        let now = facts.steady;
        for (id, deployment) in &state.deployments {
            let Some(every) = self.router_interval(deployment, facts) else {
                self.routers.remove(id);
                continue;
            };
            let due = self.routers.entry(id.clone()).or_default();
            // Something began to move: do not wait for the quiet interval to end.
            due.at = due.at.min(now + every);
            if due.begin(now, every) {
                // Also without a rollout: what a version does now is what its successor will be judged against.
                let measures = self.role == Role::TrafficShifter;
                looks.push(Look::Router { deployment: id.clone(), measures });
            }
        }
        self.routers.retain(|id, _| state.deployments.contains_key(id));
    }

    /// Asks the sources that policies name, as often as they have something new.
    fn begin_sources(&mut self, state: &State, facts: &Facts, looks: &mut Vec<Look>) {
        let mut wanted = BTreeSet::new();
        for (id, deployment) in &state.deployments {
            let Some(rollout) = deployment.rollout.as_ref().filter(|rollout| rollout.is_live()) else { continue };
            let policy = &rollout.policy.judgement;
            let Some(prometheus) = &policy.prometheus else { continue };
            wanted.insert(id.clone());
            let every = Duration::from_millis(prometheus.scrape_interval_ms);
            if self.sources.entry(id.clone()).or_default().begin(facts.steady, every) {
                let listens = state.judgements.get(id).is_some_and(|judgements| judgements.of(rollout.id).is_some());
                let watch = facts.watches.get(id).cloned().unwrap_or_default();
                let from = watch.source_from(rollout, listens, facts.wall);
                let (asked, policy) = (watch::asked(id, deployment, rollout), Box::new(policy.clone()));
                looks.push(Look::Source { asked, from, policy });
            }
        }
        self.sources.retain(|id, _| wanted.contains(id));
    }

    /// Returns how often the router is asked about a deployment, or nothing if there is nothing to know.
    fn router_interval(&self, deployment: &Deployment, facts: &Facts) -> Option<Duration> {
        if self.role == Role::Collector {
            // A node without an owner may be called by any router.
            let unused = |id| retention::in_use(deployment, id).is_none();
            let wanted = !facts.unowned.is_empty() || deployment.stacks.keys().any(|id| unused(*id));
            return wanted.then_some(self.pace.unused);
        }
        let traffic = &deployment.traffic;
        let live = deployment.rollout.as_ref().is_some_and(|rollout| rollout.is_live());
        if live {
            return Some(self.pace.judging);
        }
        if !traffic.is_applied() || traffic.drift.is_some() {
            return Some(self.pace.moving);
        }
        (traffic.set.is_some() || traffic.retired_at.is_some()).then_some(self.pace.quiet)
    }

    /// Takes what a look showed into the facts; `state` is what the log says before `folded`.
    pub fn take_in(&mut self, facts: &mut Facts, state: &State, folded: Offset, sight: Sight) {
        match sight {
            Sight::Nodes(seen, ports, end) => {
                let current = end.is_some_and(|end| folded >= end);
                self.nodes.busy = false;
                facts.free_ports = ports;
                match seen {
                    Ok(seen) => facts.looked(state, seen, current),
                    Err(error) => tracing::warn!(role = %self.role, %error, "nodes cannot be looked at"),
                }
            }
            Sight::Probe(effect, probe) => {
                if let Some(due) = self.probes.get_mut(&effect) {
                    due.busy = false;
                }
                let now = facts.steady;
                facts.probes.entry(effect).or_default().add(probe, now);
            }
            Sight::Source(id, answer) => {
                let Some(due) = self.sources.get_mut(&id) else { return };
                due.busy = false;
                facts.read_source(state, &id, answer);
            }
            Sight::Router(id, entry, measures) => {
                // Nobody wants to know any more.
                let Some(due) = self.routers.get_mut(&id) else { return };
                due.busy = false;
                let began = due.began;
                if let (Ok(entry), Some(measures)) = (&entry, measures) {
                    facts.read_measures(state, &id, entry.as_ref(), measures);
                }
                facts.read_router(id, began, entry);
            }
        }
    }
}

fn is_live(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting | Phase::Ready | Phase::Unhealthy)
}

fn has_empty_place(deployment: &Deployment) -> bool {
    let mut live = deployment.stacks.values().filter(|stack| is_live(&stack.phase));
    live.any(|stack| stack.nodes.len() < usize::from(stack.capacity.nodes))
}
