//! The collector: unused stacks are taken down when the policy says so, never before.

use std::time::Duration;

use ledger::State;
use ledger::deployment::{Deployment, Phase, Stack, retention};
use schemas::outcome;
use schemas::{DeploymentId, EffectId, StackId, Timestamp, Weight};

use crate::effect::{Effect, EffectKey, Reaction};
use crate::facts::{Facts, RETRY_AFTER};
use crate::nodes::Observed;
use crate::poll::{Pace, PollInterval, PollTarget};
use crate::traffic::{Entry, HeldRoutes};

/// How long a node may take to end by itself.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// For how many looks in a row, and for how long, a node without an owner must be seen before it is taken down: the
/// first look never does, and a reader that lags must have caught up by then.
const UNOWNED_LOOKS: u32 = 3;
const UNOWNED_FOR: Duration = Duration::from_secs(60);

/// For how long a process must have run by itself before it takes a stack down for its age: until then it cannot know
/// whether the wall clock, by which that age is counted, is right. Source: the first issue.
const SETTLED_AFTER: Duration = Duration::from_secs(10 * 60);

/// Reacts to one deployment. It reads that deployment, its service, and what was seen of it, nothing of another one.
pub fn react_deployment(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    now: Timestamp,
) -> Reaction {
    let mut reaction = Reaction::default();
    for (stack_id, stack) in &deployment.stacks {
        match stack.phase {
            Phase::Collecting { drain_ms, .. } => {
                let drain = Duration::from_millis(drain_ms);
                take_down(facts, id, deployment, *stack_id, stack, drain, &mut reaction);
            }
            Phase::Starting | Phase::Ready | Phase::Unhealthy | Phase::Failed { .. } => {
                start(state, facts, id, deployment, *stack_id, now, &mut reaction);
            }
        }
    }
    reaction
}

/// Returns what the collector polls of a deployment: its router, while a stack of it is unused. A node without an owner may
/// be called by any router, so that all are polled while there is one.
pub fn polls(deployment: &Deployment, some_unowned: bool, pace: &Pace) -> Vec<PollInterval> {
    let unused = |id: &StackId| retention::in_use(deployment, *id).is_none();
    let wanted = some_unowned || deployment.stacks.keys().any(unused);
    wanted.then_some(PollInterval { what: PollTarget::Router, every: pace.unused }).into_iter().collect()
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
        // That the clock is right again is a fact, and noticed.
        if ran < SETTLED_AFTER {
            reaction.wake_steady(facts.started + SETTLED_AFTER);
        }
    } else if weight_in(facts.router(id), stack) == Some(Weight::ZERO) {
        reaction.record(id, outcome::StartCollection { stack, reason: reason.to_owned() });
    }
}

/// Returns the weight that a stack has in what a router serves; nothing if that is unknown.
fn weight_in(router: Option<Option<&Entry>>, stack: StackId) -> Option<Weight> {
    Some(router?.and_then(Entry::held).map_or(Weight::ZERO, |held| held.routes.weights.of(stack)))
}

/// Takes a stack's nodes down once it has drained: the wait is counted by this instance, on a clock that nobody sets.
fn take_down(
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    stack_id: StackId,
    stack: &Stack,
    drain: Duration,
    reaction: &mut Reaction,
) {
    let Some(since) = facts.collecting.get(&stack_id) else { return };
    let drained_at = *since + drain;
    if facts.steady < drained_at {
        reaction.wake_steady(drained_at);
        return;
    }
    let router = facts.router_after(id, drained_at);
    // A router without a mark that the deployment was retired would take a call that comes late.
    if deployment.traffic.retired_at.is_some() && router == Some(None) {
        return;
    }
    // A rollback that did not know of the collection may have given it traffic in the meantime.
    if weight_in(router, stack_id) != Some(Weight::ZERO) || deployment.traffic.set_weight(stack_id) > Weight::ZERO {
        return;
    }
    if stack.nodes.is_empty() {
        reaction.record(id, outcome::Collected { stack: stack_id });
    }
    for node in stack.nodes.values() {
        match facts.stops.get(&node.effect) {
            Some((Ok(()), _)) => reaction.record(id, outcome::NodeStopped { effect: node.effect }),
            failed => stop(facts, node.effect, failed.map(|(_, at)| *at), reaction),
        }
    }
}

fn stop(facts: &Facts, node: EffectId, failed_at: Option<Duration>, reaction: &mut Reaction) {
    if facts.in_flight.contains(&EffectKey::Stop(node)) {
        return;
    }
    if let Some(at) = failed_at.filter(|at| !facts.may_retry(*at)) {
        reaction.wake_steady(at + RETRY_AFTER);
        return;
    }
    reaction.effects.push(Effect::Stop { node, grace: STOP_GRACE });
}

/// Takes nodes down that nobody owns: a launch that landed after its place was given up, or was lost and came back.
/// An ended one is stopped too, since it may have left children behind; then what is left of it is cleaned up.
///
/// It reads the routers of all deployments, but only while there is such a node.
pub fn sweep(state: &State, facts: &Facts) -> Reaction {
    let mut reaction = Reaction::default();
    let Some(nodes) = &facts.nodes else { return reaction };
    for (effect, looks) in &facts.unowned {
        let long_at = looks.since + UNOWNED_FOR;
        if facts.steady < long_at {
            reaction.wake_steady(long_at);
            continue;
        }
        if looks.count < UNOWNED_LOOKS {
            continue;
        }
        let last = facts.stops.get(effect);
        let stopped = matches!(last, Some((Ok(()), _)));
        match nodes.get(effect) {
            Some(Observed::Exited(_)) if stopped => {
                if !facts.in_flight.contains(&EffectKey::CleanUp(*effect)) {
                    reaction.effects.push(Effect::CleanUp { node: *effect });
                }
            }
            // Nobody is answered by an ended one, whatever a router still holds.
            Some(Observed::Exited(_)) => stop(facts, *effect, last.map(|(_, at)| *at), &mut reaction),
            // One that was stopped and is still seen is stopped again.
            Some(Observed::Running(_) | Observed::Starting) if !may_be_called(state, facts, *effect) => {
                stop(facts, *effect, last.map(|(_, at)| *at), &mut reaction);
            }
            Some(Observed::Running(_) | Observed::Starting | Observed::Unknown { .. }) | None => {}
        }
    }
    reaction
}

/// Says whether a router may send requests to a node, though the ledger gave it up: it may hold older routes. One that
/// cannot be read might.
fn may_be_called(state: &State, facts: &Facts, effect: EffectId) -> bool {
    let calls =
        |held: &HeldRoutes| held.routes.backends.values().any(|of| of.nodes.iter().any(|node| node.effect == effect));
    state
        .deployments
        .keys()
        .any(|id| facts.router(id).is_none_or(|entry| entry.and_then(Entry::held).is_some_and(calls)))
}

#[cfg(test)]
mod tests;
