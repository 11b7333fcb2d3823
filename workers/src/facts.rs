//! Facts: what a worker has seen outside. It is gathered by the runtime and forgotten when the worker ends; whatever
//! must not be forgotten is an event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::State;
use ledger::deployment::Phase;
use ledger::execute::ClockTrouble;
use schemas::{DeploymentId, EffectId, StackId, Timestamp};

use crate::checks::Probe;
use crate::effect::{Done, Effect, EffectKey};
use crate::measures::{self, Failure};
use crate::nodes::{Fault, Instance, Observed};
use crate::tcp_ports;
use crate::touched::{Before, Touched};
use crate::traffic::monitored::LOGGED_EVERY;
use crate::traffic::{ApplyError, Entry, Measures};
use crate::watch::{Reading, Watch};

/// How long a look may be old and still say something, unless something newer is under way.
pub const FRESH_MAX: Duration = Duration::from_secs(15);

/// What a worker has seen outside, and when by a clock that nobody sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The time now by the steady clock.
    pub steady: Duration,
    /// The time by the wall clock.
    pub wall: Timestamp,
    /// When this worker last went on after it had stood still, by the wall clock: it was stopped, or the machine slept.
    pub woke_at: Option<Timestamp>,
    /// When this process began to follow the ledger, by the steady clock.
    pub started: Duration,
    /// What is wrong with this machine's wall clock, if something is.
    pub clock: Option<ClockTrouble>,
    /// Nodes that were seen at the last look that succeeded; nothing before the first.
    pub nodes: Option<BTreeMap<EffectId, Observed>>,
    /// For how many looks in a row, and since when, a node that the ledger has as running was not seen at all.
    pub missing: BTreeMap<EffectId, Looks>,
    /// For how many looks in a row, and since when, a node was seen that the ledger does not have. Looks by a reader who
    /// lagged behind the log do not count: the ledger may have known better.
    pub unowned: BTreeMap<EffectId, Looks>,
    /// For how many looks in a row, and since when, a ready stack was under its `min_ready`.
    pub under: BTreeMap<StackId, Looks>,
    /// Since when a stack is known here to be being taken down.
    pub collecting: BTreeMap<StackId, Duration>,
    /// Probes of nodes.
    pub probes: BTreeMap<EffectId, Probes>,
    /// What routers said they serve: nothing is unknown, `Some(None)` is a deployment they do not know.
    pub routers: BTreeMap<DeploymentId, Option<Entry>>,
    /// When that was.
    pub routers_at: BTreeMap<DeploymentId, Duration>,
    /// When the last routing of a deployment ended.
    pub routed_at: BTreeMap<DeploymentId, Duration>,
    /// What the routers counted, and what the judge makes of it.
    pub watches: BTreeMap<DeploymentId, Watch>,
    /// How the last launch of a node ended, and when.
    pub launches: BTreeMap<EffectId, (Result<Instance, Fault>, Duration)>,
    /// How the last stop of a node ended, and when.
    pub stops: BTreeMap<EffectId, (Result<(), Fault>, Duration)>,
    /// How the last routing of a deployment failed, and when.
    pub route_failures: BTreeMap<DeploymentId, (String, Duration)>,
    /// When that was last logged, since routes were applied.
    pub route_failures_logged: BTreeMap<DeploymentId, Duration>,
    /// Effects that are under way.
    pub in_flight: BTreeSet<EffectKey>,
    /// The free ports on which each stack's next nodes may listen. No two stacks have one of them in common.
    pub ports: BTreeMap<StackId, Vec<u16>>,
    /// What of all this changed since the last reaction.
    pub touched: Touched,
}

/// How often in a row something was seen, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Looks in a row.
    pub count: u32,
    /// The first of them.
    pub since: Duration,
}

/// Probes of a node in a row that ended alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Passes in a row.
    pub passed: u16,
    /// Failures in a row.
    pub failed: u16,
    /// What the last failure said.
    pub reason: String,
    /// When the first of the failures in a row was seen, by the steady clock.
    pub failing_since: Duration,
}

impl Probes {
    /// Adds a probe that ended at `now`. One that says nothing of the node changes nothing.
    pub fn add(&mut self, probe: Probe, now: Duration) {
        match probe {
            Probe::Passed { .. } => {
                self.passed = self.passed.saturating_add(1);
                self.failed = 0;
            }
            Probe::Failed { reason } => {
                if self.failed == 0 {
                    self.failing_since = now;
                }
                self.failed = self.failed.saturating_add(1);
                self.passed = 0;
                self.reason = reason;
            }
            Probe::Unknown { .. } => {}
        }
    }
}

impl Facts {
    /// Takes a look at all nodes in, and counts what it says about what the ledger has. `current`: the state holds
    /// everything that was in the log when the look ended.
    pub fn looked(&mut self, state: &State, nodes: BTreeMap<EffectId, Observed>, current: bool) {
        let now = self.steady;
        let before = Before::of(self);
        let stacks = || state.deployments.values().flat_map(|deployment| &deployment.stacks);
        let owned: BTreeSet<EffectId> =
            stacks().flat_map(|(_, stack)| stack.nodes.values().map(|node| node.effect)).collect();
        let running = |stack: &&ledger::deployment::Node| stack.address().is_some();
        let gone = stacks().flat_map(|(_, stack)| stack.nodes.values().filter(running).map(|node| node.effect));
        self.missing = count(&self.missing, gone.filter(|effect| !nodes.contains_key(effect)), now);
        if current {
            self.unowned = count(&self.unowned, nodes.keys().filter(|effect| !owned.contains(effect)).copied(), now);
        }
        let under =
            stacks().filter(|(_, stack)| stack.phase == Phase::Ready && stack.ready_nodes() < stack.capacity.min_ready);
        self.under = count(&self.under, under.map(|(id, _)| *id), now);
        let collecting = stacks().filter(|(_, stack)| matches!(stack.phase, Phase::Collecting { .. }));
        self.collecting = collecting.map(|(id, _)| (*id, self.collecting.get(id).copied().unwrap_or(now))).collect();
        self.probes.retain(|effect, _| owned.contains(effect));
        self.launches.retain(|effect, _| owned.contains(effect));
        self.stops.retain(|effect, _| owned.contains(effect) || nodes.contains_key(effect));
        self.nodes = Some(nodes);
        before.touch_changed(state, self);
    }

    /// Shares the free ports out over the stacks with empty places.
    pub fn offer_ports(&mut self, state: &State, offered: &[u16]) {
        if offered.is_empty() && self.ports.is_empty() {
            return;
        }
        let ports = tcp_ports::allot(state, offered, &self.ports, self.wall);
        for (id, deployment) in &state.deployments {
            let differs = |stack: &StackId| ports.get(stack) != self.ports.get(stack);
            if deployment.stacks.keys().any(differs) {
                self.touched.deployment(id);
            }
        }
        self.ports = ports;
    }

    /// Takes in what a probe of a node found.
    pub fn probed(&mut self, effect: EffectId, probe: Probe) {
        self.probes.entry(effect).or_default().add(probe, self.steady);
        self.touched.effect(effect);
    }

    /// Returns what a router was lately seen to serve; nothing if that is unknown, or long ago.
    pub fn router(&self, id: &DeploymentId) -> Option<Option<&Entry>> {
        let at = self.routers_at.get(id)?;
        let fresh = self.steady.saturating_sub(*at) <= FRESH_MAX;
        self.routers.get(id).filter(|_| fresh).map(Option::as_ref)
    }

    /// Returns what the router serves of a deployment, if it was read after `since` on this process's steady clock.
    pub fn router_after(&self, id: &DeploymentId, since: Duration) -> Option<Option<&Entry>> {
        self.router(id).filter(|_| self.routers_at.get(id).is_some_and(|at| *at > since))
    }

    /// Takes in what a router counted, and what it served meanwhile.
    pub fn read_measures(&mut self, state: &State, id: &DeploymentId, entry: Option<&Entry>, measures: Measures) {
        let held = entry.and_then(Entry::held).filter(|held| held.routes.generation == measures.generation);
        let reading = Reading { weights: held.map(|held| held.routes.weights.clone()), measures, at: self.steady };
        self.watches.entry(id.clone()).or_default().take_in(state, id, reading, self.wall);
        self.touched.deployment(id);
    }

    /// Takes in what another source than the router answered.
    pub fn read_source(&mut self, state: &State, id: &DeploymentId, answer: Result<measures::Reading, Failure>) {
        let now = (self.steady, self.wall);
        self.watches.entry(id.clone()).or_default().add_source_reading(state, id, answer, now);
        self.touched.deployment(id);
    }

    /// Takes in what a router said it serves, to a look that began at `began`.
    pub fn read_router(&mut self, id: DeploymentId, began: Duration, entry: Result<Option<Entry>, ApplyError>) {
        self.touched.deployment(&id);
        match entry {
            // A look that began before an effect on the same deployment ended says nothing of what comes after it.
            Ok(_) if self.in_flight.contains(&EffectKey::Route(id.clone())) => {}
            Ok(_) if self.routed_at.get(&id).is_some_and(|ended| began <= *ended) => {}
            Ok(entry) => {
                self.routers_at.insert(id.clone(), began);
                self.routers.insert(id, entry);
            }
            // That it does not answer is logged where every read of it is seen: `traffic::monitored`.
            Err(ApplyError::NotRunning(_) | ApplyError::Unreachable(_)) => drop(self.routers.remove(&id)),
            Err(error) => {
                tracing::warn!(deployment = %id, %error, "the router cannot be read");
                self.routers.remove(&id);
            }
        }
    }

    /// Notes that an effect begins; says no if one on the same thing is under way. A port is for one launch: whatever becomes of
    /// that, the next one waits for what is offered then.
    pub fn begin(&mut self, effect: &Effect) -> bool {
        if let Effect::Launch(launch) = effect
            && let Some(ports) = self.ports.get_mut(&launch.stack)
        {
            ports.retain(|port| *port != launch.port);
        }
        self.in_flight.insert(effect.key())
    }

    /// Takes in how an effect ended.
    pub fn take_in(&mut self, key: EffectKey, done: Done) {
        let at = self.steady;
        self.in_flight.remove(&key);
        match &key {
            EffectKey::Launch(effect) | EffectKey::Stop(effect) | EffectKey::CleanUp(effect) => {
                self.touched.effect(*effect)
            }
            EffectKey::Route(id) => self.touched.deployment(id),
        }
        if let EffectKey::Route(id) = &key {
            self.routed_at.insert(id.clone(), at);
            self.routers_at.insert(id.clone(), at);
        }
        match (key, done) {
            (EffectKey::Launch(effect), Done::Launched(result)) => drop(self.launches.insert(effect, (result, at))),
            (EffectKey::Stop(effect), Done::Stopped(result)) => drop(self.stops.insert(effect, (result, at))),
            (EffectKey::Route(id), Done::Routed(Ok(held))) => {
                self.route_failures.remove(&id);
                if self.route_failures_logged.remove(&id).is_some() {
                    tracing::warn!(deployment = %id, "routes are applied again");
                }
                self.routers.insert(id, Some(Entry::Routed(held)));
            }
            (EffectKey::Route(id), Done::Routed(Err(error))) => {
                if self.is_due_to_log(&id) {
                    tracing::warn!(deployment = %id, %error, "routes were not applied");
                    self.route_failures_logged.insert(id.clone(), at);
                }
                // What it holds now is not known until it is read.
                self.routers.remove(&id);
                self.route_failures.insert(id, (error.to_string(), at));
            }
            (EffectKey::Route(id), _) => drop(self.routers.remove(&id)),
            (EffectKey::CleanUp(effect), _) => {
                // It is gone unless the next look shows it still.
                if let Some(nodes) = &mut self.nodes {
                    nodes.remove(&effect);
                }
            }
            _ => {}
        }
    }

    /// Says whether it is logged now that a deployment's routes were not applied: at first, then once a minute.
    fn is_due_to_log(&self, id: &DeploymentId) -> bool {
        let logged = self.route_failures_logged.get(id);
        logged.is_none_or(|at| self.steady.saturating_sub(*at) >= LOGGED_EVERY)
    }

    /// Says whether a failure at `at` is old enough to try again.
    pub fn may_retry(&self, at: Duration) -> bool {
        self.steady.saturating_sub(at) >= RETRY_AFTER
    }
}

/// How long to wait before a call that failed is made again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

fn count<K: Ord + Copy>(
    before: &BTreeMap<K, Looks>,
    seen: impl Iterator<Item = K>,
    now: Duration,
) -> BTreeMap<K, Looks> {
    seen.map(|key| {
        let looks =
            before.get(&key).map_or(Looks { count: 1, since: now }, |looks| Looks { count: looks.count + 1, ..*looks });
        (key, looks)
    })
    .collect()
}

/// Returns `at` plus `after`, or the end of time.
pub(crate) fn later(at: Timestamp, after: Duration) -> Timestamp {
    let after = jiff::SignedDuration::try_from(after).unwrap_or(jiff::SignedDuration::MAX);
    at.checked_add(after).unwrap_or(Timestamp::MAX)
}
