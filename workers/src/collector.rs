//! The collector: unused stacks are taken down when the policy says so, never before.

use std::time::Duration;

use ledger::State;
use ledger::deployment::{Deployment, Phase, Stack, retention};
use schemas::command::DeploymentOutcome;
use schemas::{DeploymentId, EffectId, StackId, Timestamp, Weight};

use crate::effect::{Effect, Key, Reaction};
use crate::facts::{Facts, RETRY_AFTER, later};
use crate::nodes::Seen;
use crate::traffic::{Entry, Held};

/// How long a node may take to end by itself.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// For how many looks in a row, and for how long, a node without an owner must be seen before it is taken down: the
/// first look never does, and a reader that lags must have caught up by then.
const UNOWNED_LOOKS: u32 = 3;
const UNOWNED_FOR: Duration = Duration::from_secs(60);

/// For how long a process must have run by itself before it takes a stack down for its age: until then it cannot know
/// whether the wall clock, by which that age is counted, is right. Source: the first issue.
const SETTLED_AFTER: Duration = Duration::from_secs(10 * 60);

/// Reacts to the state and the facts.
pub fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
    let mut reaction = Reaction::default();
    for (id, deployment) in &state.deployments {
        for (stack_id, stack) in &deployment.stacks {
            match stack.phase {
                Phase::Collecting { drain_ms, .. } => {
                    let drain = Duration::from_millis(drain_ms);
                    take_down(facts, id, deployment, *stack_id, stack, drain, now, &mut reaction);
                }
                Phase::Starting => {}
                Phase::Ready | Phase::Unhealthy | Phase::Failed { .. } => {
                    start(state, facts, id, deployment, *stack_id, now, &mut reaction);
                }
            }
        }
    }
    sweep(state, facts, now, &mut reaction);
    reaction
}

/// Begins to take a stack down that is due, unless the router gives it traffic or cannot be read. One that is due for its
/// age waits while the clock cannot be relied on.
fn start(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    stack: StackId,
    now: Timestamp,
    reaction: &mut Reaction,
) {
    let Some(definition) = state.service(&id.service).and_then(|service| service.definition.as_ref()) else { return };
    let Some((due, reason)) = retention::due(deployment, stack, &definition.policy.retention) else { return };
    let ran = facts.steady.saturating_sub(facts.started);
    if now < due {
        reaction.wake(due);
    } else if reason == retention::BY_AGE && (ran < SETTLED_AFTER || facts.clock.is_some()) {
        reaction.wake(later(now, SETTLED_AFTER.saturating_sub(ran).max(RETRY_AFTER)));
    } else if weight_in(facts.router(id), stack) == Some(Weight::ZERO) {
        reaction.record(id, DeploymentOutcome::StartCollection { stack, reason: reason.to_owned() });
    }
}

/// Returns the weight that a stack has in what a router serves; nothing if that is unknown.
fn weight_in(router: Option<Option<&Entry>>, stack: StackId) -> Option<Weight> {
    Some(router?.and_then(Entry::held).map_or(Weight::ZERO, |held| held.routes.weights.of(stack)))
}

/// Takes a stack's nodes down once it has drained: the wait is counted by this instance, on a clock that nobody sets.
#[allow(clippy::too_many_arguments)]
fn take_down(
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    stack_id: StackId,
    stack: &Stack,
    drain: Duration,
    now: Timestamp,
    reaction: &mut Reaction,
) {
    let Some(since) = facts.collecting.get(&stack_id) else { return };
    let waited = facts.steady.saturating_sub(*since);
    if waited < drain {
        reaction.wake(later(now, drain - waited));
        return;
    }
    // A rollback that did not know of the collection may have given it traffic in the meantime.
    if weight_in(facts.router_after(id, *since + drain), stack_id) != Some(Weight::ZERO)
        || deployment.traffic.set_weight(stack_id) > Weight::ZERO
    {
        return;
    }
    if stack.nodes.is_empty() {
        reaction.record(id, DeploymentOutcome::Collected { stack: stack_id });
    }
    for node in stack.nodes.values() {
        match facts.stops.get(&node.effect) {
            Some((Ok(()), _)) => reaction.record(id, DeploymentOutcome::NodeStopped { effect: node.effect }),
            failed => stop(facts, node.effect, failed.map(|(_, at)| *at), now, reaction),
        }
    }
}

fn stop(facts: &Facts, node: EffectId, failed_at: Option<Duration>, now: Timestamp, reaction: &mut Reaction) {
    if facts.in_flight.contains(&Key::Stop(node)) {
        return;
    }
    if failed_at.is_some_and(|at| !facts.may_retry(at)) {
        reaction.wake(later(now, RETRY_AFTER));
        return;
    }
    reaction.effects.push(Effect::Stop { node, grace: STOP_GRACE });
}

/// Takes nodes down that nobody owns: a launch that landed after its place was given up, or was lost and came back.
/// An ended one is stopped too, since it may have left children behind; then what is left of it is cleaned up.
fn sweep(state: &State, facts: &Facts, now: Timestamp, reaction: &mut Reaction) {
    let Some(nodes) = &facts.nodes else { return };
    for (effect, looks) in &facts.unowned {
        if looks.count < UNOWNED_LOOKS || facts.steady.saturating_sub(looks.since) < UNOWNED_FOR {
            continue;
        }
        let last = facts.stops.get(effect);
        let stopped = matches!(last, Some((Ok(()), _)));
        match nodes.get(effect) {
            Some(Seen::Exited(_)) if stopped => {
                if !facts.in_flight.contains(&Key::CleanUp(*effect)) {
                    reaction.effects.push(Effect::CleanUp { node: *effect });
                }
            }
            // Nobody is answered by an ended one, whatever a router still holds.
            Some(Seen::Exited(_)) => stop(facts, *effect, last.map(|(_, at)| *at), now, reaction),
            // One that was stopped and is still seen is stopped again.
            Some(Seen::Running(_) | Seen::Starting) if !may_be_called(state, facts, *effect) => {
                stop(facts, *effect, last.map(|(_, at)| *at), now, reaction);
            }
            Some(Seen::Running(_) | Seen::Starting | Seen::Unknown { .. }) | None => {}
        }
    }
}

/// Says whether a router may send requests to a node, though the ledger gave it up: it may hold older routes. One that
/// cannot be read might.
fn may_be_called(state: &State, facts: &Facts, effect: EffectId) -> bool {
    let calls = |held: &Held| held.routes.backends.values().any(|of| of.nodes.iter().any(|node| node.effect == effect));
    state
        .deployments
        .keys()
        .any(|id| facts.router(id).is_none_or(|entry| entry.and_then(Entry::held).is_some_and(calls)))
}

#[cfg(test)]
mod tests;
