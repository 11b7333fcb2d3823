//! The provisioner: wanted stacks become running, verified ones.

use std::time::Duration;

use ledger::State;
use ledger::deployment::failure::{self, FAILED_STARTS_MAX};
use ledger::deployment::{Node, NodePhase, Phase, Stack};
use schemas::command::DeploymentOutcome;
use schemas::{DeploymentId, EffectId, LedgerId, StackId, Timestamp, text};

use crate::effect::{Effect, Key, Reaction};
use crate::facts::{Facts, Probes, RETRY_AFTER, later};
use crate::nodes::{Fault, Launch, Seen};

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

/// Reacts to the state and the facts.
pub fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
    let mut reaction = Reaction::default();
    let Some(ledger) = state.ledger else { return reaction };
    let mut ports = facts.free_ports.iter().copied().filter(|port| !port_is_taken(state, *port));
    for (id, deployment) in &state.deployments {
        for (stack_id, stack) in &deployment.stacks {
            let may_give_up = failure::may_give_up(deployment, *stack_id);
            let mut place =
                Place { ledger, id, stack_id: *stack_id, stack, may_give_up, facts, now, reaction: &mut reaction };
            match stack.phase {
                Phase::Starting | Phase::Ready | Phase::Unhealthy => {
                    place.fill(&mut ports);
                    place.follow_nodes();
                    place.follow_stack();
                }
                Phase::Failed { .. } | Phase::Collecting { .. } => {}
            }
        }
    }
    reaction
}

/// One stack and everything its reaction looks at.
struct Place<'a> {
    ledger: LedgerId,
    id: &'a DeploymentId,
    stack_id: StackId,
    stack: &'a Stack,
    /// Whether it is given up once it has failed too often: nothing needs it.
    may_give_up: bool,
    facts: &'a Facts,
    now: Timestamp,
    reaction: &'a mut Reaction,
}

impl Place<'_> {
    /// Starts a launch for every place without a node.
    fn fill(&mut self, ports: &mut impl Iterator<Item = u16>) {
        for slot in (0..self.stack.capacity.nodes).filter(|slot| !self.stack.nodes.contains_key(slot)) {
            let attempt = self.stack.attempts.get(&slot).copied().unwrap_or(0);
            let failed = self.stack.failed_starts(slot);
            if self.may_give_up && failed >= FAILED_STARTS_MAX {
                continue;
            }
            if let Some(vacated_at) = self.stack.vacated_at.get(&slot) {
                let due = later(*vacated_at, failure::EMPTY_FOR.after(failed));
                if self.now < due {
                    self.reaction.wake(due);
                    continue;
                }
            }
            let Some(port) = ports.next() else { continue };
            let (stack, effect) = (self.stack_id, EffectId::of_launch(self.ledger, self.stack_id, slot, attempt));
            self.reaction.record(self.id, DeploymentOutcome::StartLaunch { stack, slot, attempt, effect, port });
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
        if self.facts.in_flight.contains(&Key::Launch(effect)) {
            return;
        }
        let seen = self.facts.nodes.as_ref().map(|nodes| nodes.get(&effect));
        match (self.facts.launches.get(&effect), seen) {
            (Some((Ok(instance), _)), _) | (None | Some((Err(_), _)), Some(Some(Seen::Running(instance)))) => {
                let (address, instance) = (instance.address, instance.name.clone());
                self.reaction.record(self.id, DeploymentOutcome::Launched { effect, address, instance });
            }
            (Some((Err(Fault::Permanent(reason)), _)), _) => {
                self.reaction.record(self.id, DeploymentOutcome::LaunchFailed { effect, reason: reason.clone() });
            }
            (Some((Err(Fault::Hopeless(reason)), _)), _) => self.end_hopeless(effect, reason),
            (_, Some(Some(Seen::Exited(exit)))) => {
                self.reaction.record(self.id, DeploymentOutcome::LaunchFailed { effect, reason: exit.to_string() });
            }
            (Some((Err(Fault::Retryable(_) | Fault::Unknown(_)), at)), _) if !self.facts.may_retry(*at) => {
                self.reaction.wake(later(self.now, RETRY_AFTER));
            }
            // Nobody has looked yet, or the look could not tell.
            (_, None | Some(Some(Seen::Starting | Seen::Unknown { .. }))) => {}
            (_, Some(None)) => self.launch(slot, node),
        }
    }

    /// No launch of this release can succeed as things are: a stack that still starts has failed, without another try.
    fn end_hopeless(&mut self, effect: EffectId, reason: &str) {
        let stack = self.stack_id;
        self.reaction.record(self.id, DeploymentOutcome::LaunchFailed { effect, reason: reason.to_owned() });
        if self.stack.phase == Phase::Starting && self.may_give_up {
            self.reaction.record(self.id, DeploymentOutcome::StackFailed { stack, reason: reason.to_owned() });
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
            self.reaction.record(self.id, DeploymentOutcome::NodeLost { effect, reason });
            return;
        }
        let Some(probes) = self.facts.probes.get(&effect) else { return };
        let needed = self.stack.run.check.healthy_after;
        if probes.passed >= needed && !node.is_ready() {
            self.reaction.record(self.id, DeploymentOutcome::NodeReady { effect });
        } else if probes.failed >= needed && node.is_ready() {
            let reason = probes.reason.clone();
            self.reaction.record(self.id, DeploymentOutcome::NodeUnhealthy { effect, reason });
        } else if matches!(node.phase, NodePhase::Launched { .. }) && self.is_failing(node, probes) {
            let reason = probes.reason.clone();
            self.reaction.record(self.id, DeploymentOutcome::NodeFailing { effect, reason });
        }
    }

    /// Says whether it is to be recorded what the check of a node says that is not ready yet.
    fn is_failing(&mut self, node: &Node, probes: &Probes) -> bool {
        let for_long = self.facts.steady.saturating_sub(probes.failing_since) >= FAILING_AFTER;
        if probes.failed < FAILING_LOOKS || !for_long {
            return false;
        }
        match &node.failing {
            None => true,
            Some(failing) => {
                failing.reason != text::tidy(&probes.reason) && self.now >= later(failing.at, FAILING_EVERY)
            }
        }
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
    fn loss(&self, node: &Node) -> Option<String> {
        match self.facts.nodes.as_ref()?.get(&node.effect) {
            Some(Seen::Exited(exit)) => Some(exit.to_string()),
            Some(Seen::Running(_) | Seen::Starting | Seen::Unknown { .. }) => None,
            None => {
                let missing = self.facts.missing.get(&node.effect)?;
                let long = self.facts.steady.saturating_sub(missing.since) >= MISSING_FOR;
                (missing.count >= MISSING_LOOKS && long).then(|| format!("it was not found on {} looks", missing.count))
            }
        }
    }

    fn follow_stack(&mut self) {
        let stack = self.stack_id;
        let ready = self.stack.ready_nodes();
        match self.stack.phase {
            Phase::Starting if self.stack.retired => {
                let reason = "the deployment was retired".to_owned();
                self.reaction.record(self.id, DeploymentOutcome::StackFailed { stack, reason });
            }
            Phase::Starting if ready == self.stack.capacity.nodes => {
                self.reaction.record(self.id, DeploymentOutcome::StackReady { stack });
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
                    self.reaction.record(self.id, DeploymentOutcome::StackUnhealthy { stack });
                }
            }
            Phase::Unhealthy if ready >= self.stack.capacity.min_ready => {
                self.reaction.record(self.id, DeploymentOutcome::StackRecovered { stack });
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
        self.reaction.record(self.id, DeploymentOutcome::StackFailed { stack, reason });
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

fn port_is_taken(state: &State, port: u16) -> bool {
    let stacks = state.deployments.values().flat_map(|deployment| deployment.stacks.values());
    stacks.flat_map(|stack| stack.nodes.values()).any(|node| node.port == port)
}

#[cfg(test)]
mod tests;
