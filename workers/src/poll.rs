//! Polls: what a worker asks outside, and when next. Pure; the runtime carries the polls out, the simulation
//! answers them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ledger::State;
use ledger::deployment::{Deployment, Phase};
use schemas::policy::JudgementPolicy;
use schemas::run::HttpCheck;
use schemas::{DeploymentId, EffectId, Offset, Role, Timestamp};

use crate::checks::Probe;
use crate::facts::Facts;
use crate::measures::{Asked, Failure, Reading};
use crate::nodes::{Fault, Observed};
use crate::traffic::{ApplyError, Entry, Measures};
use crate::{collector, provisioner, traffic_shifter, watch};

/// How far ahead of its time a poll is begun together with one that is due, so that a worker is woken less often.
const BATCH: Duration = Duration::from_millis(20);

/// How often it is asked again of all deployments what is polled: what should ever be left out is polled again then.
const ALL_EVERY: Duration = Duration::from_secs(60);

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

/// Something to ask outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
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

/// What a poll showed.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // few at a time, and none is kept
pub enum PollResult {
    /// All nodes and the free ports, or why they could not be looked at; and the log's end, asked for afterwards.
    Nodes(Result<BTreeMap<EffectId, Observed>, Fault>, Vec<u16>, Option<Offset>),
    /// What a probe found.
    Probe(EffectId, Probe),
    /// What another source than the router answered.
    Source(DeploymentId, Result<Reading, Failure>),
    /// What a router serves, and its counters if they could be read.
    Router(DeploymentId, Result<Option<Entry>, ApplyError>, Option<Measures>),
}

/// What a worker polls of a deployment, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollInterval {
    /// What.
    pub what: PollTarget,
    /// How often.
    pub every: Duration,
}

/// What can be polled of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollTarget {
    /// A node's check.
    Probe(EffectId),
    /// Its router.
    Router,
    /// The other source that its rollout's policy names.
    Source,
}

/// What is looked at, and when next. What is polled of a deployment is asked again only when the state says something else of
/// it.
#[derive(Debug)]
pub struct PollSchedule {
    role: Role,
    pace: Pace,
    nodes: Due,
    targets: BTreeMap<Target, Due>,
    /// The targets that no poll is under way at, by when they are due.
    queue: BTreeSet<(Duration, Target)>,
    of: BTreeMap<DeploymentId, Vec<Target>>,
    nodes_of: BTreeMap<EffectId, DeploymentId>,
    /// The deployments with an empty place, which need ports.
    empty: BTreeSet<DeploymentId>,
    seen: State,
    some_unowned: bool,
    all_at: Duration,
}

/// One thing that is polled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Probe(EffectId),
    Router(DeploymentId),
    Source(DeploymentId),
}

/// When something is polled next, and whether a poll is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    at: Duration,
    began: Duration,
    every: Duration,
    busy: bool,
}

impl Due {
    fn begin(&mut self, now: Duration) {
        // What begins a little early, together with others, is not polled more often for it.
        let at = self.at.max(now) + self.every;
        *self = Due { at, began: now, busy: true, ..*self };
    }
}

impl PollSchedule {
    /// Returns the polls of a worker that has polled nothing yet.
    pub fn new(role: Role, pace: Pace) -> Self {
        Self {
            role,
            pace,
            nodes: Due { every: pace.nodes, ..Due::default() },
            targets: BTreeMap::new(),
            queue: BTreeSet::new(),
            of: BTreeMap::new(),
            nodes_of: BTreeMap::new(),
            empty: BTreeSet::new(),
            seen: State::default(),
            some_unowned: false,
            all_at: Duration::ZERO,
        }
    }

    /// Begins the polls that are due by the steady clock, and returns them with when the next one is.
    pub fn begin(&mut self, state: &State, facts: &Facts) -> (Vec<Poll>, Duration) {
        let (mut polls, now) = (Vec::new(), facts.steady);
        self.follow(state, facts);
        if self.role != Role::TrafficShifter && !self.nodes.busy && now >= self.nodes.at {
            self.nodes.begin(now);
            let wanted = self.role == Role::Provisioner && !self.empty.is_empty();
            polls.push(Poll::Nodes { ports: if wanted { PORTS } else { 0 } });
        }
        while let Some((_, target)) = self.queue.first().filter(|(at, _)| *at <= now + BATCH) {
            let target = target.clone();
            if self.queue.first().is_some_and(|(at, _)| *at > now) && polls.is_empty() {
                break;
            }
            self.queue.pop_first();
            if let Some(poll) = self.poll_of(&target, state, facts) {
                if let Some(due) = self.targets.get_mut(&target) {
                    due.begin(now);
                }
                polls.push(poll);
            }
        }
        let nodes = (self.role != Role::TrafficShifter && !self.nodes.busy).then_some(self.nodes.at);
        let next = self.queue.first().map(|(at, _)| *at).into_iter().chain(nodes).min();
        (polls, next.unwrap_or(now + self.pace.nodes))
    }

    /// Asks again what is polled of the deployments that the state says something else of, and once in a while of all.
    fn follow(&mut self, state: &State, facts: &Facts) {
        let some_unowned = self.role == Role::Collector && !facts.unowned.is_empty();
        let is_all = facts.steady >= self.all_at;
        let changed: Vec<DeploymentId> = if some_unowned == self.some_unowned && !is_all {
            state.changes_since(&self.seen).deployments.into_iter().collect()
        } else {
            self.of.keys().chain(state.deployments.keys()).cloned().collect::<BTreeSet<_>>().into_iter().collect()
        };
        if is_all {
            self.all_at = facts.steady + ALL_EVERY;
        }
        self.some_unowned = some_unowned;
        self.seen = state.clone();
        for id in changed {
            self.follow_deployment(state, id, facts.steady);
        }
    }

    fn follow_deployment(&mut self, state: &State, id: DeploymentId, now: Duration) {
        let deployment = state.deployment(&id);
        if deployment.is_some_and(has_empty_place) {
            self.empty.insert(id.clone());
        } else {
            self.empty.remove(&id);
        }
        let polls = deployment.map(|deployment| self.polls(deployment)).unwrap_or_default();
        let polls: Vec<(Target, Duration)> =
            polls.into_iter().map(|poll| (target(&id, poll.what), poll.every)).collect();
        let before = self.of.remove(&id).unwrap_or_default();
        for target in before.iter().filter(|before| !polls.iter().any(|(target, _)| target == *before)) {
            self.forget(target);
        }
        for (target, every) in &polls {
            if let Target::Probe(effect) = target {
                self.nodes_of.insert(*effect, id.clone());
            }
            let due = self.targets.entry(target.clone()).or_insert(Due { at: now, every: *every, ..Due::default() });
            self.queue.remove(&(due.at, target.clone()));
            due.every = *every;
            // Something began to move: do not wait for the quiet interval to end.
            due.at = due.at.min(now + *every);
            if !due.busy {
                self.queue.insert((due.at, target.clone()));
            }
        }
        self.of.insert(id, polls.into_iter().map(|(target, _)| target).collect());
    }

    fn polls(&self, deployment: &Deployment) -> Vec<PollInterval> {
        match self.role {
            Role::Provisioner => provisioner::polls(deployment, &self.pace),
            Role::TrafficShifter => traffic_shifter::polls(deployment, &self.pace),
            Role::Collector => collector::polls(deployment, self.some_unowned, &self.pace),
        }
    }

    fn forget(&mut self, target: &Target) {
        if let Some(due) = self.targets.remove(target) {
            self.queue.remove(&(due.at, target.clone()));
        }
        if let Target::Probe(effect) = target {
            self.nodes_of.remove(effect);
        }
    }

    /// Returns the poll of a target, if it is still there.
    fn poll_of(&self, target: &Target, state: &State, facts: &Facts) -> Option<Poll> {
        match target {
            Target::Probe(effect) => {
                let (stack, _, node) = state.deployment(self.nodes_of.get(effect)?)?.node(*effect)?;
                let check = &state.deployment(self.nodes_of.get(effect)?)?.stacks.get(&stack)?.run.check;
                Some(Poll::Probe { effect: *effect, address: node.address()?, check: check.clone() })
            }
            // Also without a rollout: what a version does now is what its successor will be judged against.
            Target::Router(id) => {
                Some(Poll::Router { deployment: id.clone(), measures: self.role == Role::TrafficShifter })
            }
            Target::Source(id) => {
                let deployment = state.deployment(id)?;
                let rollout = deployment.rollout.as_ref()?;
                let listens = state.judgements.get(id).is_some_and(|judgements| judgements.of(rollout.id).is_some());
                let watch = facts.watches.get(id).cloned().unwrap_or_default();
                let from = watch.source_from(rollout, listens, facts.wall);
                let policy = Box::new(rollout.policy.judgement.clone());
                Some(Poll::Source { asked: watch::asked(id, deployment, rollout), from, policy })
            }
        }
    }

    /// Notes that a poll has ended without a result. It is due again when it would have been.
    pub fn lost(&mut self, poll: &Poll) {
        match poll {
            Poll::Nodes { .. } => self.nodes.busy = false,
            Poll::Probe { effect, .. } => drop(self.ended(Target::Probe(*effect))),
            Poll::Source { asked, .. } => drop(self.ended(Target::Source(asked.deployment.clone()))),
            Poll::Router { deployment, .. } => drop(self.ended(Target::Router(deployment.clone()))),
        }
    }

    /// Notes that a poll has ended, and returns when it began; nothing if nobody wants to know any more.
    fn ended(&mut self, target: Target) -> Option<Duration> {
        let due = self.targets.get_mut(&target)?;
        due.busy = false;
        let (at, began) = (due.at, due.began);
        self.queue.insert((at, target));
        Some(began)
    }

    /// Takes what a poll showed into the facts; `state` is what the log says before `folded`.
    pub fn take_in(&mut self, facts: &mut Facts, state: &State, folded: Offset, result: PollResult) {
        match result {
            PollResult::Nodes(seen, ports, end) => {
                let current = end.is_some_and(|end| folded >= end);
                self.nodes.busy = false;
                facts.offer_ports(state, &ports);
                match seen {
                    Ok(seen) => facts.looked(state, seen, current),
                    Err(error) => tracing::warn!(role = %self.role, %error, "nodes cannot be looked at"),
                }
            }
            PollResult::Probe(effect, probe) => {
                self.ended(Target::Probe(effect));
                facts.probed(effect, probe);
            }
            PollResult::Source(id, answer) => {
                if self.ended(Target::Source(id.clone())).is_some() {
                    facts.read_source(state, &id, answer);
                }
            }
            PollResult::Router(id, entry, measures) => {
                // Nobody wants to know any more.
                let Some(began) = self.ended(Target::Router(id.clone())) else { return };
                if let (Ok(entry), Some(measures)) = (&entry, measures) {
                    facts.read_measures(state, &id, entry.as_ref(), measures);
                }
                facts.read_router(id, began, entry);
            }
        }
    }
}

fn target(id: &DeploymentId, what: PollTarget) -> Target {
    match what {
        PollTarget::Probe(effect) => Target::Probe(effect),
        PollTarget::Router => Target::Router(id.clone()),
        PollTarget::Source => Target::Source(id.clone()),
    }
}

/// Says whether the nodes of a stack in this phase are kept running.
pub(crate) fn is_live(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting | Phase::Ready | Phase::Unhealthy)
}

fn has_empty_place(deployment: &Deployment) -> bool {
    let mut live = deployment.stacks.values().filter(|stack| is_live(&stack.phase));
    live.any(|stack| stack.nodes.len() < usize::from(stack.capacity.nodes))
}

#[cfg(test)]
mod tests;
