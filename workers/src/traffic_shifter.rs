//! The traffic shifter: wanted weights become applied ones. It drives rollouts step by step, reads the judgement and
//! sends canaries back.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::State;
use ledger::deployment::rollout::Step;
use ledger::deployment::{Deployment, Phase, Rollout, Stack, generation};
use ledger::judgement::{self, Window};
use schemas::command::DeploymentOutcome;
use schemas::judgement::{Judged, Measured, Verdict};
use schemas::{DeploymentId, StackId, Timestamp, Weight, Weights};

use crate::effect::{Effect, Key, Reaction};
use crate::facts::{FRESH_MAX, Facts, RETRY_AFTER, later};
use crate::traffic::{Backends, Entry, Held, Node, Routes, Timeouts};

/// Reacts to the state and the facts.
pub fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
    let mut reaction = Reaction::default();
    for (id, deployment) in &state.deployments {
        follow_traffic(state, facts, id, deployment, now, &mut reaction);
        follow_rollout(facts, id, deployment, now, &mut reaction);
        start_requested(id, deployment, &mut reaction);
    }
    reaction
}

/// Returns the routes that serve what is set, if anything is and a node of every version with weight can be called.
pub fn routes(state: &State, id: &DeploymentId, deployment: &Deployment) -> Option<Routes> {
    routes_by(&deployment.traffic.set.as_ref()?.weights, state, id, deployment)
}

/// Returns the routes that serve `weights` with the nodes of now, if a node of every version with weight can be called.
pub(crate) fn routes_by(
    weights: &Weights,
    state: &State,
    id: &DeploymentId,
    deployment: &Deployment,
) -> Option<Routes> {
    let definition = state.service(&id.service)?.definition.as_ref()?;
    let mut backends = BTreeMap::new();
    for (stack_id, _) in weights.iter() {
        let stack = deployment.stacks.get(&stack_id)?;
        let nodes = nodes(stack);
        if nodes.is_empty() {
            return None;
        }
        backends.insert(stack_id, Backends { version: stack.version.clone(), nodes });
    }
    Some(Routes {
        deployment: id.clone(),
        generation: deployment.generation(),
        listen: definition.listen.get(&id.environment).copied(),
        weights: weights.clone(),
        backends,
        timeouts: Timeouts::default(),
    })
}

/// Returns the nodes to call: the ready ones, or all that run while none is ready.
fn nodes(stack: &Stack) -> Vec<Node> {
    let call = |node: &ledger::deployment::Node| node.address().map(|address| Node { effect: node.effect, address });
    let ready: Vec<Node> = stack.nodes.values().filter(|node| node.is_ready()).filter_map(call).collect();
    if ready.is_empty() { stack.nodes.values().filter_map(call).collect() } else { ready }
}

fn follow_traffic(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    now: Timestamp,
    reaction: &mut Reaction,
) {
    // What cannot be read changes nothing.
    let Some(entry) = facts.routers.get(id) else { return };
    if facts.in_flight.contains(&Key::Route(id.clone())) {
        return;
    }
    let traffic = &deployment.traffic;
    let Some(set) = &traffic.set else {
        // Retiring is the last word, also over a rollback that was carried out before it and that the ledger does not know.
        if let (Some(_), Some(Entry::Routed(held))) = (traffic.retired_at, entry)
            && generation::version(held.routes.generation) < deployment.version
        {
            let glass = generation::glass(held.routes.generation).max(deployment.glass);
            let generation = generation::of(glass, deployment.version);
            reaction.effects.push(Effect::Unroute { deployment: id.clone(), generation });
        }
        return;
    };
    let held = entry.as_ref().and_then(Entry::held);
    let mut left_alone = None;
    let serves = held.is_some_and(|held| held.routes.weights == set.weights && held.routes.generation >= set.version);
    if let (true, Some(held)) = (serves, held) {
        let listening = Some(held.listening);
        let known = traffic.applied.as_ref().is_some_and(|applied| applied.listening == listening);
        if !traffic.is_applied() || traffic.drift.is_some() || !known {
            let (generation, weights) = (held.routes.generation, set.weights.clone());
            reaction.record(id, DeploymentOutcome::WeightsApplied { generation, weights, listening });
        }
    } else {
        let seen: BTreeMap<StackId, Weight> = held.map(|held| shares(&held.routes.weights)).unwrap_or_default();
        match traffic.drift.as_ref().filter(|drift| drift.seen == seen) {
            // Whoever sent the traffic back had a reason; a person or their intent explains it. Its weights are left alone,
            // the nodes behind them are kept up to date.
            Some(drift) if drift.towards_target => left_alone = held.map(|held| held.routes.weights.clone()),
            Some(_) => {}
            None if is_drift(deployment, entry.as_ref()) => {
                let generation = entry.as_ref().map(Entry::generation);
                reaction.record(id, DeploymentOutcome::DriftSeen { seen, generation });
                return;
            }
            None => {}
        }
    }
    let right = serves || left_alone.is_some();
    let weights = left_alone.as_ref().unwrap_or(&set.weights);
    let Some(routes) = routes_by(weights, state, id, deployment) else { return };
    if held.is_some_and(|held| right && same_but_for_generation(&held.routes, &routes)) || is_newer(held, deployment) {
        return;
    }
    match facts.route_failures.get(id) {
        Some((_, at)) if !facts.may_retry(*at) => reaction.wake(later(now, RETRY_AFTER)),
        _ => reaction.effects.push(Effect::Route(Box::new(routes))),
    }
}

/// Says whether what the router holds, which is not what is set, is somebody else's doing.
///
/// One generation has one content: once what is set was confirmed, even what is as young as this worker's view is. A
/// generation of broken glass that the ledger has not heard of always is, whatever is on its way.
fn is_drift(deployment: &Deployment, entry: Option<&Entry>) -> bool {
    let applied = deployment.traffic.is_applied();
    let Some(entry) = entry else { return applied };
    let by_glass = generation::glass(entry.generation()) > deployment.glass;
    by_glass || (applied && entry.held().is_none_or(|held| held.routes.generation <= deployment.generation()))
}

fn shares(weights: &Weights) -> BTreeMap<StackId, Weight> {
    weights.iter().collect()
}

/// The router holds what was decided at least as late as this worker has read: it catches up before it acts, since a
/// router takes only what is younger.
fn is_newer(held: Option<&Held>, deployment: &Deployment) -> bool {
    held.is_some_and(|held| held.routes.generation >= deployment.generation())
}

fn same_but_for_generation(held: &Routes, wanted: &Routes) -> bool {
    held.weights == wanted.weights && held.backends == wanted.backends && held.listen == wanted.listen
}

/// Drives the rollout under way: back at once if the canary is worse or unhealthy, on when a step is due and judged.
fn follow_rollout(facts: &Facts, id: &DeploymentId, deployment: &Deployment, now: Timestamp, reaction: &mut Reaction) {
    let Some(rollout) = deployment.rollout.as_ref().filter(|rollout| rollout.is_live()) else { return };
    if let Some(reason) = canary_trouble(deployment, rollout) {
        reaction.record(id, DeploymentOutcome::SendBack { rollout: rollout.id, reason, judged: None });
        return;
    }
    let measured = measured(facts, id, rollout);
    let judged = rollout.step.as_ref().zip(measured.as_ref()).map(|(step, measured)| judge(rollout, step, measured));
    if let Some(judged) = judged.as_ref().filter(|judged| judged.verdict == Verdict::Worse) {
        let (reason, judged) = (judged.reason.clone(), Some(judged.clone()));
        reaction.record(id, DeploymentOutcome::SendBack { rollout: rollout.id, reason, judged });
        return;
    }
    let Some(next) = rollout.next_step().filter(|_| rollout.is_running()) else { return };
    let due = rollout.due_at(next);
    if now < due {
        reaction.wake(due);
        return;
    }
    let hold = |reason: String, judged: Option<Judged>| DeploymentOutcome::Hold { rollout: rollout.id, reason, judged };
    let patient = later(due, ROUTER_PATIENCE);
    let outcome = match (measured, judged) {
        // A router that was not asked yet, or has just been told, is given a moment before it is called silent.
        (None, _) if now < patient => return reaction.wake(patient),
        (Some(_), _) if !deployment.traffic.is_applied() && now < patient => return reaction.wake(patient),
        (None, _) => hold("the router's counters cannot be read".to_owned(), None),
        (Some(_), _) if !deployment.traffic.is_applied() => {
            hold("the router has not confirmed the weights".to_owned(), None)
        }
        (Some(_), Some(judged)) if judged.verdict != Verdict::NotWorse => {
            hold(inconclusive(rollout, &judged), Some(judged))
        }
        (Some(measured), judged) => DeploymentOutcome::TakeStep { rollout: rollout.id, step: next, measured, judged },
    };
    if !is_known(rollout, &outcome) {
        reaction.record(id, outcome);
    }
}

/// How long after a step was due a router may be silent before the rollout is visibly held.
const ROUTER_PATIENCE: Duration = Duration::from_secs(5);

/// A rollout that is held for the same reason is not held again.
fn is_known(rollout: &Rollout, outcome: &DeploymentOutcome) -> bool {
    matches!(outcome, DeploymentOutcome::Hold { reason, .. } if rollout.held.as_ref() == Some(reason))
}

fn canary_trouble(deployment: &Deployment, rollout: &Rollout) -> Option<String> {
    match deployment.stacks.get(&rollout.canary) {
        None => Some("the canary's stack is gone".to_owned()),
        Some(stack) => match &stack.phase {
            Phase::Ready => None,
            Phase::Unhealthy => {
                let (ready, min) = (stack.ready_nodes(), stack.capacity.min_ready);
                Some(format!("the canary is unhealthy: {ready} of its nodes are ready, {min} must be"))
            }
            Phase::Failed { reason } => Some(format!("the canary failed: {reason}")),
            Phase::Starting | Phase::Collecting { .. } => Some("the canary is not running".to_owned()),
        },
    }
}

fn measured(facts: &Facts, id: &DeploymentId, rollout: &Rollout) -> Option<Measured> {
    let measures = facts.measures.get(id)?;
    let fresh = facts.steady.saturating_sub(measures.at) <= FRESH_MAX;
    fresh.then(|| measures.of(rollout.baseline, rollout.canary))
}

fn judge(rollout: &Rollout, step: &Step, measured: &Measured) -> Judged {
    let window = Window::between(&step.counted_from, measured);
    judgement::judge(rollout.id, step.number, &rollout.policy.judgement, window)
}

/// Says why a due step is held, without the counts that change at every look.
fn inconclusive(rollout: &Rollout, judged: &Judged) -> String {
    let min = rollout.policy.judgement.requests_min;
    if judged.canary.requests == 0 {
        format!("the canary got no requests, {min} are needed")
    } else if judged.canary.requests < min {
        format!("the canary needs {min} requests in a step")
    } else {
        "the canary's errors are above the tolerance, but too few to tell".to_owned()
    }
}

/// Starts the rollout that a stack's request asked for, once the stack is ready and nothing is in the way.
fn start_requested(id: &DeploymentId, deployment: &Deployment, reaction: &mut Reaction) {
    if deployment.rollout.as_ref().is_some_and(Rollout::is_live) || deployment.traffic.awaited.is_some() {
        return;
    }
    // Somebody sent the traffic back past the ledger: nothing starts by itself until that is explained.
    if deployment.traffic.drift.as_ref().is_some_and(|drift| drift.towards_target) {
        return;
    }
    let wanted = deployment.stacks.iter().filter(|(_, stack)| stack.then_roll.is_some() && stack.phase == Phase::Ready);
    // Of several, the newest: what it replaces need not be rolled out any more.
    let Some((stack, _)) = wanted.max_by_key(|(id, stack)| (stack.requested_at, **id)) else { return };
    let free = deployment.traffic.set.as_ref().is_none_or(|set| set.weights.sole().is_some_and(|sole| sole != *stack));
    if free {
        reaction.record(id, DeploymentOutcome::StartRequestedRollout { stack: *stack });
    }
}

/// How often the shifter looks at a deployment whose traffic is moving.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
