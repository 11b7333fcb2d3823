//! The provisioner: wanted stacks become running, verified ones.

use std::time::Duration;

use ledger::State;
use ledger::deployment::failure::{self, FAILED_STARTS_MAX};
use ledger::deployment::retention;
use ledger::deployment::{Deployment, Node, NodePhase, Phase, Stack};
use schemas::outcome;
use schemas::run::HttpCheck;
use schemas::{DeploymentId, EffectId, LedgerId, StackId, Timestamp, text};

use crate::effect::{Effect, EffectKey, Reaction};
use crate::facts::{Facts, Probes, RETRY_AFTER, later};
use crate::nodes::{Fault, Launch, Observed};
use crate::poll::{Pace, PollInterval, PollTarget, is_live};

/// For how many looks in a row, and for how long, a node must be missing before it is lost. One "not found" is not
/// "gone".
const MISSING_LOOKS: u32 = 3;
const MISSING_FOR: Duration = Duration::from_secs(10);

/// For how many looks in a row a stack must be under its `min_ready` before it is unhealthy. Source: the first issue.
const UNDER_LOOKS: u32 = 3;

/// For how long a node that is not ready yet must fail its check before that is recorded: most programs take a moment
/// until they listen.
const FAILING_AFTER: Duration = Duration::from_secs(3);

/// And for how many looks in a row.
const FAILING_LOOKS: u16 = 3;

/// How far apart it is recorded that the check of such a node says something else.
const FAILING_EVERY: Duration = Duration::from_secs(10);

/// Reacts to one deployment. It reads that deployment and what was seen of its nodes, nothing of another one.
pub fn react_deployment(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    now: Timestamp,
) -> Reaction {
    let mut reaction = Reaction::default();
    let Some(ledger) = state.ledger else { return reaction };
    for (stack_id, stack) in &deployment.stacks {
        let may_give_up = failure::may_give_up(deployment, *stack_id);
        let leaves = retention::leaves(deployment, *stack_id).is_some();
        let mut place = StackView {
            ledger,
            id,
            stack_id: *stack_id,
            stack,
            may_give_up,
            leaves,
            facts,
            now,
            reaction: &mut reaction,
        };
        if is_live(&stack.phase) {
            place.fill();
            place.follow_nodes();
            place.follow_stack();
        }
    }
    reaction
}

/// Returns what the provisioner polls of a deployment: the check of every node that was launched.
pub fn polls(deployment: &Deployment, pace: &Pace) -> Vec<PollInterval> {
    let live = deployment.stacks.values().filter(|stack| is_live(&stack.phase));
    let nodes = live.flat_map(|stack| stack.nodes.values().map(|node| (node, &stack.run.check)));
    let launched = nodes.filter(|(node, _)| node.address().is_some());
    let poll = |(node, check): (&Node, &HttpCheck)| {
        // A node that is not yet ready is probed faster, so that a stack does not wait for its check's interval.
        let interval = Duration::from_millis(check.interval_ms);
        let starting = matches!(node.phase, NodePhase::Launched { .. });
        let every = if starting { interval.min(pace.starting) } else { interval };
        PollInterval { what: PollTarget::Probe(node.effect), every }
    };
    launched.map(poll).collect()
}

/// Returns when a place of a stack may be filled again: after each failed start it waits longer. Nothing if at once.
pub(crate) fn fill_at(stack: &Stack, slot: u16) -> Option<Timestamp> {
    let vacated_at = stack.vacated_at.get(&slot)?;
    Some(later(*vacated_at, failure::EMPTY_FOR.after(stack.failed_starts(slot))))
}

/// One stack and everything its reaction looks at.
struct StackView<'a> {
    ledger: LedgerId,
    id: &'a DeploymentId,
    stack_id: StackId,
    stack: &'a Stack,
    /// Whether it is given up once it has failed too often: nothing needs it.
    may_give_up: bool,
    /// Whether the collector is about to take it down: then no node of it is launched.
    leaves: bool,
    facts: &'a Facts,
    now: Timestamp,
    reaction: &'a mut Reaction,
}

impl StackView<'_> {
    /// Starts a launch for every place without a node.
    fn fill(&mut self) {
        if self.leaves {
            return;
        }
        let allotted = self.facts.ports.get(&self.stack_id).map(Vec::as_slice).unwrap_or_default();
        let is_used = |port: u16| self.stack.nodes.values().any(|node| node.port == port);
        let unused: Vec<u16> = allotted.iter().copied().filter(|port| !is_used(*port)).collect();
        let mut ports = unused.into_iter();
        for slot in (0..self.stack.capacity.nodes).filter(|slot| !self.stack.nodes.contains_key(slot)) {
            let attempt = self.stack.attempts.get(&slot).copied().unwrap_or(0);
            let failed = self.stack.failed_starts(slot);
            if self.may_give_up && failed >= FAILED_STARTS_MAX {
                continue;
            }
            if let Some(due) = fill_at(self.stack, slot).filter(|due| self.now < *due) {
                self.reaction.wake(due);
                continue;
            }
            let Some(port) = ports.next() else { continue };
            let (stack, effect) = (self.stack_id, EffectId::of_launch(self.ledger, self.stack_id, slot, attempt));
            self.reaction.record(self.id, outcome::StartLaunch { stack, slot, attempt, effect, port });
        }
    }

    fn follow_nodes(&mut self) {
        let stack = self.stack;
        for (slot, node) in &stack.nodes {
            match &node.phase {
                NodePhase::Launching => self.follow_launch(*slot, node),
                NodePhase::Launched { .. } | NodePhase::Ready { .. } | NodePhase::Unhealthy { .. } => {
                    self.follow_node(node);
                }
            }
        }
    }

    /// An intent without outcome: look first, then make the same call again.
    fn follow_launch(&mut self, slot: u16, node: &Node) {
        let effect = node.effect;
        if self.facts.in_flight.contains(&EffectKey::Launch(effect)) {
            return;
        }
        let seen = self.facts.nodes.as_ref().map(|nodes| nodes.get(&effect));
        match (self.facts.launches.get(&effect), seen) {
            (Some((Ok(instance), _)), _) | (None | Some((Err(_), _)), Some(Some(Observed::Running(instance)))) => {
                let (address, instance) = (instance.address, instance.name.clone());
                self.reaction.record(self.id, outcome::Launched { effect, address, instance });
            }
            (Some((Err(Fault::Permanent(reason)), _)), _) => {
                self.reaction.record(self.id, outcome::LaunchFailed { effect, reason: reason.clone() });
            }
            (Some((Err(Fault::Hopeless(reason)), _)), _) => self.end_hopeless(effect, reason),
            (_, Some(Some(Observed::Exited(exit)))) => {
                self.reaction.record(self.id, outcome::LaunchFailed { effect, reason: exit.to_string() });
            }
            (Some((Err(Fault::Retryable(_) | Fault::Unknown(_)), at)), _) if !self.facts.may_retry(*at) => {
                self.reaction.wake_steady(*at + RETRY_AFTER);
            }
            // Nobody has looked yet, or the look could not tell.
            (_, None | Some(Some(Observed::Starting | Observed::Unknown { .. }))) => {}
            (_, Some(None)) if self.leaves => {}
            (_, Some(None)) => self.launch(slot, node),
        }
    }

    /// No launch of this release can succeed as things are: a stack that still starts has failed, without another try.
    fn end_hopeless(&mut self, effect: EffectId, reason: &str) {
        let stack = self.stack_id;
        self.reaction.record(self.id, outcome::LaunchFailed { effect, reason: reason.to_owned() });
        if self.stack.phase == Phase::Starting && self.may_give_up {
            self.reaction.record(self.id, outcome::StackFailed { stack, reason: reason.to_owned() });
        }
    }

    fn launch(&mut self, slot: u16, node: &Node) {
        let launch = Launch {
            effect: node.effect,
            deployment: self.id.clone(),
            stack: self.stack_id,
            version: self.stack.version.clone(),
            number: self.stack.number,
            slot,
            attempt: node.attempt,
            port: node.port,
            artifact: self.stack.artifact.sha256,
            args: self.stack.run.args.clone(),
            env: self.stack.run.env.clone(),
            user: self.stack.run.user.clone(),
        };
        self.reaction.effects.push(Effect::Launch(Box::new(launch)));
    }

    fn follow_node(&mut self, node: &Node) {
        let effect = node.effect;
        if let Some(reason) = self.loss(node).or_else(|| self.never_passed(node)) {
            self.reaction.record(self.id, outcome::NodeLost { effect, reason });
            return;
        }
        let Some(probes) = self.facts.probes.get(&effect) else { return };
        let needed = self.stack.run.check.healthy_after;
        if probes.passed >= needed && !node.is_ready() {
            self.reaction.record(self.id, outcome::NodeReady { effect });
        } else if probes.failed >= needed && node.is_ready() {
            let reason = probes.reason.clone();
            self.reaction.record(self.id, outcome::NodeUnhealthy { effect, reason });
        } else if matches!(node.phase, NodePhase::Launched { .. }) && self.is_failing(node, probes) {
            let reason = probes.reason.clone();
            self.reaction.record(self.id, outcome::NodeFailing { effect, reason });
        }
    }

    /// Says whether it is to be recorded what the check of a node says that is not ready yet.
    fn is_failing(&mut self, node: &Node, probes: &Probes) -> bool {
        if probes.failed < FAILING_LOOKS {
            return false;
        }
        let long_at = probes.failing_since + FAILING_AFTER;
        if self.facts.steady < long_at {
            self.reaction.wake_steady(long_at);
            return false;
        }
        let Some(failing) = &node.failing else { return true };
        if failing.reason == text::tidy(&probes.reason) {
            return false;
        }
        let due = later(failing.at, FAILING_EVERY);
        if self.now < due {
            self.reaction.wake(due);
        }
        self.now >= due
    }

    /// Says why a node that was launched in another's place is given up, if it is: it had its time and never passed its
    /// check. A stack that is still starting has its own deadline.
    fn never_passed(&mut self, node: &Node) -> Option<String> {
        if self.stack.phase == Phase::Starting || !matches!(node.phase, NodePhase::Launched { .. }) {
            return None;
        }
        let patience = Duration::from_millis(self.stack.run.start_deadline_ms);
        let deadline = later(node.started_at, patience);
        if self.now < deadline {
            self.reaction.wake(deadline);
            return None;
        }
        let last = self.facts.probes.get(&node.effect).map(|probes| probes.reason.as_str()).unwrap_or_default();
        Some(format!("it did not pass its check within {} s; {last}", patience.as_secs()))
    }

    /// Says why the node is lost, if it is.
    fn loss(&mut self, node: &Node) -> Option<String> {
        match self.facts.nodes.as_ref()?.get(&node.effect) {
            Some(Observed::Exited(exit)) => Some(exit.to_string()),
            Some(Observed::Running(_) | Observed::Starting | Observed::Unknown { .. }) => None,
            None => {
                let missing = self.facts.missing.get(&node.effect)?;
                let long_at = missing.since + MISSING_FOR;
                if self.facts.steady < long_at {
                    self.reaction.wake_steady(long_at);
                    return None;
                }
                (missing.count >= MISSING_LOOKS).then(|| format!("it was not found on {} looks", missing.count))
            }
        }
    }

    fn follow_stack(&mut self) {
        let stack = self.stack_id;
        let ready = self.stack.ready_nodes();
        match self.stack.phase {
            Phase::Starting if self.stack.retired => {
                let reason = "the deployment was retired".to_owned();
                self.reaction.record(self.id, outcome::StackFailed { stack, reason });
            }
            Phase::Starting if ready == self.stack.capacity.nodes => {
                self.reaction.record(self.id, outcome::StackReady { stack });
            }
            // A rollback waits for it: it is tried for ever.
            Phase::Starting if !self.may_give_up => {}
            Phase::Starting => self.follow_start(ready),
            Phase::Ready | Phase::Unhealthy if self.may_give_up && self.stack.is_spent() => {
                let what = format!("its nodes failed {FAILED_STARTS_MAX} times in a row and nothing needs it");
                self.give_up(&what, ready);
            }
            Phase::Ready => {
                if self.facts.under.get(&stack).is_some_and(|under| under.count >= UNDER_LOOKS) {
                    self.reaction.record(self.id, outcome::StackUnhealthy { stack });
                }
            }
            Phase::Unhealthy if ready >= self.stack.capacity.min_ready => {
                self.reaction.record(self.id, outcome::StackRecovered { stack });
            }
            Phase::Unhealthy | Phase::Failed { .. } | Phase::Collecting { .. } => {}
        }
    }

    /// A starting stack fails at its deadline, or when a place was tried too often.
    fn follow_start(&mut self, ready: u16) {
        let deadline = later(self.stack.requested_at, Duration::from_millis(self.stack.run.start_deadline_ms));
        if self.stack.is_spent() {
            self.give_up("a node was launched too often", ready);
        } else if self.now >= deadline {
            self.give_up("it was not ready in time", ready);
        } else {
            self.reaction.wake(deadline);
        }
    }

    fn give_up(&mut self, what: &str, ready: u16) {
        let (stack, nodes) = (self.stack_id, self.stack.capacity.nodes);
        let cause = self.first_trouble().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        let reason = format!("{what}, {}{cause}", text::nodes_ready(ready, nodes));
        self.reaction.record(self.id, outcome::StackFailed { stack, reason });
    }

    /// Returns what went wrong with the stack's nodes first, for its reason to fail: what came later mostly follows from
    /// it. How a node ended says more than that it could not be asked afterwards.
    fn first_trouble(&self) -> Option<String> {
        let stack = self.stack;
        stack.first_failure.clone().or_else(|| stack.last_failure.clone()).or_else(|| {
            let now = |node: &Node| self.facts.probes.get(&node.effect).filter(|probes| probes.failed > 0);
            let said = |node: &Node| {
                let probed = now(node).map(|probes| probes.reason.clone());
                probed.or_else(|| node.failing.as_ref().map(|failing| failing.reason.clone()))
            };
            stack.nodes.values().find_map(said).map(|said| format!("check: {said}"))
        })
    }
}

#[cfg(test)]
mod tests;
