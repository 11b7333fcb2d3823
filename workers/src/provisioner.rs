//! The provisioner: wanted stacks become running, verified ones.

use std::time::Duration;

use ledger::State;
use ledger::deployment::{Node, NodePhase, Phase, Stack};
use schemas::command::DeploymentOutcome;
use schemas::{DeploymentId, EffectId, LedgerId, StackId, Timestamp};

use crate::effect::{Effect, Key, Reaction};
use crate::facts::{Facts, RETRY_AFTER, later};
use crate::nodes::{Fault, Launch, Seen};

/// How many attempts at one place a starting stack gets before it has failed.
const ATTEMPTS_MAX: u32 = 5;

/// For how many looks in a row, and for how long, a node must be missing before it is lost. One "not found" is not
/// "gone".
const MISSING_LOOKS: u32 = 3;
const MISSING_FOR: Duration = Duration::from_secs(10);

/// For how many looks in a row a stack must be under its `min_ready` before it is unhealthy. Source: the first issue.
const UNDER_LOOKS: u32 = 3;

/// The longest wait before a place is filled again.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Reacts to the state and the facts.
pub fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
    let mut reaction = Reaction::default();
    let Some(ledger) = state.ledger else { return reaction };
    let mut ports = facts.free_ports.iter().copied().filter(|port| !port_is_taken(state, *port));
    for (id, deployment) in &state.deployments {
        for (stack_id, stack) in &deployment.stacks {
            let mut place = Place { ledger, id, stack_id: *stack_id, stack, facts, now, reaction: &mut reaction };
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
    facts: &'a Facts,
    now: Timestamp,
    reaction: &'a mut Reaction,
}

impl Place<'_> {
    /// Starts a launch for every place without a node.
    fn fill(&mut self, ports: &mut impl Iterator<Item = u16>) {
        for slot in (0..self.stack.capacity.nodes).filter(|slot| !self.stack.nodes.contains_key(slot)) {
            let attempt = self.stack.attempts.get(&slot).copied().unwrap_or(0);
            if self.stack.phase == Phase::Starting && attempt >= ATTEMPTS_MAX {
                continue;
            }
            if let Some(vacated_at) = self.stack.vacated_at.get(&slot) {
                let due = later(*vacated_at, backoff(attempt));
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

    fn launch(&mut self, slot: u16, node: &Node) {
        let launch = Launch {
            effect: node.effect,
            deployment: self.id.clone(),
            stack: self.stack_id,
            version: self.stack.version.clone(),
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
            Phase::Starting => self.follow_start(ready),
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
        let stack = self.stack_id;
        let empty = |slot: &u16| !self.stack.nodes.contains_key(slot);
        let spent = self.stack.attempts.iter().any(|(slot, attempts)| *attempts >= ATTEMPTS_MAX && empty(slot));
        let deadline = later(self.stack.requested_at, Duration::from_millis(self.stack.run.start_deadline_ms));
        let late = self.now >= deadline;
        if !spent && !late {
            self.reaction.wake(deadline);
            return;
        }
        let what = if spent { "a node was launched too often" } else { "it was not ready in time" };
        let nodes = self.stack.capacity.nodes;
        let last = self.last_trouble().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        let reason = format!("{what}, {ready} of {nodes} nodes are ready{last}");
        self.reaction.record(self.id, DeploymentOutcome::StackFailed { stack, reason });
    }

    /// Returns the last thing that went wrong with the stack's nodes, for its reason to fail.
    fn last_trouble(&self) -> Option<String> {
        let failing = self.stack.nodes.values().filter_map(|node| self.facts.probes.get(&node.effect));
        let check = failing.filter(|probes| probes.failed > 0).map(|probes| format!("check: {}", probes.reason)).next();
        check.or_else(|| self.stack.last_failure.clone())
    }
}

/// Returns how long a place stays empty after its `attempts`-th node: 1 s, then doubling.
fn backoff(attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts.saturating_sub(1).min(16)).unwrap_or(u32::MAX);
    (Duration::from_secs(1) * factor).min(BACKOFF_MAX)
}

fn port_is_taken(state: &State, port: u16) -> bool {
    let stacks = state.deployments.values().flat_map(|deployment| deployment.stacks.values());
    stacks.flat_map(|stack| stack.nodes.values()).any(|node| node.port == port)
}
