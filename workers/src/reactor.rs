//! The reactor: a worker's reaction, at the cost of what changed. Pure; the runtime and the simulation run the same.
//!
//! A worker's `react` is the union of what it says of each deployment, and of the sweep. What it says of one depends on that
//! deployment, its service, its judge, the worker's lease, the facts about it, and the time. So it is asked again only of
//! those of which one of these changed, or whose timer is due. What asked for something is asked again at every turn until it
//! asks for nothing, and all are where it is not sure what changed, and once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::lease::Lease;
use ledger::state::Changes;
use ledger::{Deployment, State};
use schemas::{DeploymentId, EffectId, LedgerId, Role, ServiceName, Timestamp};

use crate::effect::Reaction;
use crate::facts::Facts;
use crate::touched::Touched;
use crate::{collector, provisioner, traffic_shifter};

/// What a worker says of one deployment.
pub type ReactDeployment = fn(&State, &Facts, &DeploymentId, &Deployment, Timestamp) -> Reaction;

/// What a worker says of nodes that no deployment has.
pub type Sweep = fn(&State, &Facts) -> Reaction;

/// Returns what the worker of `role` says of one deployment, and of nodes that no deployment has.
fn of(role: Role) -> (ReactDeployment, Option<Sweep>) {
    match role {
        Role::Provisioner => (provisioner::react_deployment, None),
        Role::TrafficShifter => (traffic_shifter::react_deployment, None),
        Role::Collector => (collector::react_deployment, Some(collector::sweep)),
    }
}

/// Reacts to everything: what the worker of `role` says of all deployments, and of nodes that none of them has. The loop reacts
/// to what changed alone; this is what that must come to.
pub fn react(role: Role, state: &State, facts: &Facts, now: Timestamp) -> Reaction {
    let (react, sweep) = of(role);
    let mut reaction = Reaction::default();
    for (id, deployment) in &state.deployments {
        reaction.add(react(state, facts, id, deployment, now));
    }
    if let Some(sweep) = sweep {
        reaction.add(sweep(state, facts));
    }
    reaction
}

/// How often all deployments are reacted to, whatever changed: what should ever go unnoticed is noticed then.
const ALL_EVERY: Duration = Duration::from_secs(60);

/// How far the wall clock may go on otherwise than the steady one between two turns, before everything is reacted to.
const JUMP_MAX: Duration = Duration::from_secs(1);

/// A worker's reaction, and what it knows of the last one.
#[derive(Debug)]
pub struct Reactor {
    role: Role,
    react: ReactDeployment,
    sweep: Option<Sweep>,
    last: Option<Last>,
    kept: BTreeMap<DeploymentId, Kept>,
    of_service: BTreeMap<ServiceName, BTreeSet<DeploymentId>>,
    of_node: BTreeMap<EffectId, DeploymentId>,
    /// The deployments that asked for something.
    open: BTreeSet<DeploymentId>,
    wall: BTreeSet<(Timestamp, DeploymentId)>,
    steady: BTreeSet<(Duration, DeploymentId)>,
    /// The deployments that the last turn reacted to.
    reacted: BTreeSet<DeploymentId>,
    all_at: Duration,
}

/// What the last turn was about.
#[derive(Debug)]
struct Last {
    state: State,
    common: Common,
    now: Timestamp,
    steady: Duration,
}

/// What the reaction to every deployment depends on.
#[derive(Debug, PartialEq)]
struct Common {
    ledger: Option<LedgerId>,
    lease: Lease,
    woke_at: Option<Timestamp>,
    started: Duration,
    clock_is_wrong: bool,
}

/// What is kept of the last reaction to a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    wake_at: Option<Timestamp>,
    wake_steady_at: Option<Duration>,
    nodes: Vec<EffectId>,
}

impl Reactor {
    /// Returns the reactor of a worker that has not reacted yet.
    pub fn new(role: Role) -> Self {
        let (react, sweep) = of(role);
        Self {
            role,
            react,
            sweep,
            last: None,
            kept: BTreeMap::new(),
            of_service: BTreeMap::new(),
            of_node: BTreeMap::new(),
            open: BTreeSet::new(),
            wall: BTreeSet::new(),
            steady: BTreeSet::new(),
            reacted: BTreeSet::new(),
            all_at: Duration::ZERO,
        }
    }

    /// Reacts to what changed since the last time, and takes note of what it was told of in `facts.touched`.
    pub fn react(&mut self, state: &State, facts: &mut Facts, now: Timestamp) -> Reaction {
        let touched = std::mem::take(&mut facts.touched);
        let common = Common {
            ledger: state.ledger,
            lease: state.lease(self.role),
            woke_at: facts.woke_at,
            started: facts.started,
            clock_is_wrong: facts.clock.is_some(),
        };
        let due = match self.changes(state, facts, &touched, &common, now) {
            Some(changes) => self.due(changes, touched, facts.steady, now),
            None => {
                self.all_at = facts.steady + ALL_EVERY;
                self.kept.keys().chain(state.deployments.keys()).cloned().collect()
            }
        };
        let mut reaction = Reaction::default();
        for id in &due {
            self.react_to(state, facts, id, now, &mut reaction);
        }
        self.reacted = due;
        if let Some(sweep) = self.sweep {
            reaction.add(sweep(state, facts));
        }
        self.wall.first().into_iter().for_each(|(at, _)| reaction.wake(*at));
        self.steady.first().into_iter().for_each(|(at, _)| reaction.wake_steady(*at));
        self.last = Some(Last { state: state.clone(), common, now, steady: facts.steady });
        reaction
    }

    /// Says whether the last turn reacted to a deployment.
    pub fn has_reacted_to(&self, id: &DeploymentId) -> bool {
        self.reacted.contains(id)
    }

    /// Returns the reaction to a deployment that the last turn skipped although it needed one. Always `None` unless there is a
    /// bug; the simulation checks this.
    pub fn missed_reaction(
        &self,
        state: &State,
        facts: &Facts,
        id: &DeploymentId,
        deployment: &Deployment,
        now: Timestamp,
    ) -> Option<Reaction> {
        if self.has_reacted_to(id) {
            return None;
        }
        let kept = self.kept.get(id).cloned().unwrap_or_default();
        let reaction = (self.react)(state, facts, id, deployment, now);
        let earlier = reaction.wake_at.is_some_and(|at| kept.wake_at.is_none_or(|kept| at < kept))
            || reaction.wake_steady_at.is_some_and(|at| kept.wake_steady_at.is_none_or(|kept| at < kept));
        (!reaction.is_idle() || earlier).then_some(reaction)
    }

    /// Returns what the state says otherwise than at the last turn; nothing if all deployments are to be reacted to.
    fn changes(
        &self,
        state: &State,
        facts: &Facts,
        touched: &Touched,
        common: &Common,
        now: Timestamp,
    ) -> Option<Changes> {
        let last = self.last.as_ref()?;
        let elapsed = facts.steady.checked_sub(last.steady)?;
        let on_the_wall = Duration::try_from(now.duration_since(last.now)).ok()?;
        let is_all = touched.everything
            || *common != last.common
            || on_the_wall > elapsed + JUMP_MAX
            || facts.steady >= self.all_at;
        (!is_all).then(|| state.changes_since(&last.state))
    }

    /// Returns the deployments that are to be reacted to.
    fn due(&self, changes: Changes, touched: Touched, steady: Duration, now: Timestamp) -> BTreeSet<DeploymentId> {
        let mut due = changes.deployments;
        let of_services = changes.services.iter().filter_map(|service| self.of_service.get(service)).flatten();
        let of_nodes = touched.effects.iter().filter_map(|effect| self.of_node.get(effect));
        let on_the_wall = self.wall.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id);
        let on_the_steady = self.steady.iter().take_while(|(at, _)| *at <= steady).map(|(_, id)| id);
        due.extend(of_services.chain(of_nodes).chain(on_the_wall).chain(on_the_steady).chain(&self.open).cloned());
        due.extend(touched.deployments);
        due
    }

    fn react_to(&mut self, state: &State, facts: &Facts, id: &DeploymentId, now: Timestamp, reaction: &mut Reaction) {
        let Some(deployment) = state.deployment(id) else { return self.forget(id) };
        let own = (self.react)(state, facts, id, deployment, now);
        if own.is_idle() {
            self.open.remove(id);
        } else {
            self.open.insert(id.clone());
        }
        let nodes = deployment.stacks.values().flat_map(|stack| stack.nodes.values().map(|node| node.effect)).collect();
        self.keep(id, Kept { wake_at: own.wake_at, wake_steady_at: own.wake_steady_at, nodes });
        reaction.effects.extend(own.effects);
        reaction.outcomes.extend(own.outcomes);
    }

    /// Keeps the timers of a deployment, and what its facts are found by.
    fn keep(&mut self, id: &DeploymentId, kept: Kept) {
        let before = self.kept.get(id);
        if before == Some(&kept) {
            return;
        }
        match before.cloned() {
            Some(before) => self.untie(id, &before),
            None => {
                self.of_service.entry(id.service.clone()).or_default().insert(id.clone());
            }
        }
        self.wall.extend(kept.wake_at.map(|at| (at, id.clone())));
        self.steady.extend(kept.wake_steady_at.map(|at| (at, id.clone())));
        self.of_node.extend(kept.nodes.iter().map(|node| (*node, id.clone())));
        self.kept.insert(id.clone(), kept);
    }

    fn untie(&mut self, id: &DeploymentId, before: &Kept) {
        if let Some(at) = before.wake_at {
            self.wall.remove(&(at, id.clone()));
        }
        if let Some(at) = before.wake_steady_at {
            self.steady.remove(&(at, id.clone()));
        }
        for node in &before.nodes {
            self.of_node.remove(node);
        }
    }

    /// Forgets a deployment that the state does not have: its reader was put back.
    fn forget(&mut self, id: &DeploymentId) {
        self.open.remove(id);
        if let Some(before) = self.kept.remove(id) {
            self.untie(id, &before);
        }
        if let Some(of_service) = self.of_service.get_mut(&id.service) {
            of_service.remove(id);
        }
    }
}
