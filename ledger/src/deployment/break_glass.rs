//! Break glass: a rollback that was carried out while the log gave no verdict is recorded once it is back.

use schemas::break_glass::Intent;
use schemas::traffic::{GlassBroken, Purpose};
use schemas::{ActorKind, Event, StackId, StreamVersion, Timestamp};

use super::traffic::Set;
use super::{Case, Deployment, Phase, generation, rollback};
use crate::decision::{Decision, Rejection};
use crate::lease::Lease;

/// Decides to record what `intent` says was asked for, when the router holds `generation`, `moved` says whether it served it
/// before now, and `lease` is the traffic shifter's: as the rollback that it was, or, if newer work stands by now, as what
/// happened and no more.
///
/// # Errors
///
/// None; that the deployment is known is for the caller to see to.
pub(super) fn decide(
    case: &Case<'_>,
    lease: &Lease,
    intent: &Intent,
    generation: StreamVersion,
    moved: Option<bool>,
) -> Result<Decision, Rejection> {
    let deployment = case.deployment;
    let overtaken = overtaken(deployment, lease, intent);
    let broken = |overtaken| GlassBroken {
        to: intent.to,
        generation,
        recorded_at: case.now.time,
        overtaken,
        asked_at: Some(intent.at),
        moved,
    };
    if let Some(why) = overtaken {
        let mut decision = Decision::on(case.stream(), vec![broken(Some(why.clone())).into()]);
        decision.notes.push(format!("the rollback to {} was recorded and changes nothing: {why}", intent.version));
        return Ok(decision);
    }
    let known = |stack: &StackId| deployment.stacks.contains_key(stack);
    let passed_over = intent.passed_over.iter().copied().filter(known).collect();
    let mut events: Vec<Event> = vec![broken(None).into()];
    events.extend(rollback::all_back(deployment, intent.to, passed_over, &intent.why));
    let decision = Decision::on(case.stream(), events);
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    let Some((judged, live)) = intent.judged.as_ref().zip(live) else { return Ok(decision) };
    let (counted, judged) = (intent.counted.as_ref(), Some(judged));
    let still_said = intent.rollout == Some(live.id) && case.check_judged(live, counted, judged).is_ok();
    Ok(if still_said { case.with_judgement(decision, counted, judged) } else { decision })
}

/// Returns why a rollback that was carried out without the ledger has no effect in it; none if it is still the last
/// word on the weights.
///
/// What stands against it is what somebody decided since: a later rollback, weights, a rollout that was begun or let go on.
/// The steps of a rollout that was under way are no decisions, they are what the rollback was against.
pub fn overtaken(deployment: &Deployment, lease: &Lease, intent: &Intent) -> Option<String> {
    let traffic = &deployment.traffic;
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    let since = |at: Option<Timestamp>| at.is_some_and(|at| at > intent.at);
    // A rollback without the ledger that was recorded since may be the one that this came after; its fence is the one expected.
    let is_before = |set: &Set| {
        let of_late_record = traffic.recorded_late.as_ref().is_some_and(|late| late.commit == set.commit);
        intent.after.is_some() && set.purpose == Purpose::Rollback && of_late_record
    };
    let expected = |set: &&Set| matches!(set.purpose, Purpose::Step { .. }) || is_before(set);
    let set_since = traffic.set.as_ref().filter(|set| !expected(set)).map(|set| set.at);
    let (kind, name) = (intent.actor.kind, intent.actor.name.split_once('/').map(|(_, holder)| holder));
    let deposed = kind == ActorKind::Worker && lease.holder.as_deref() != name && !since(lease.since);
    // One that waited for its target, which whoever decided this one did not see come true.
    let unseen = |set: &Set| set.purpose == Purpose::Rollback && generation::version(set.version) > intent.head.version;
    let came_true = intent.after.is_none() && traffic.set.as_ref().is_some_and(unseen);
    let why = if deposed {
        "whoever carried it out did not act for its role any more".to_owned()
    } else if traffic.fence != intent.fence {
        "it was rolled back or retired in the ledger as well".to_owned()
    } else if came_true {
        "the rollback that was under way moved all users meanwhile".to_owned()
    } else if since(set_since) {
        "other weights were asked for since".to_owned()
    } else if since(live.map(|live| live.started_at)) {
        "a rollout was started since".to_owned()
    } else if since(live.and_then(|live| live.resumed_at)) {
        "its rollout was let go on since".to_owned()
    } else if live.is_none() && traffic.set.as_ref().and_then(|set| set.weights.sole()) == Some(intent.to) {
        "all traffic was set to its target already".to_owned()
    } else if !matches!(
        deployment.stacks.get(&intent.to).map(|stack| &stack.phase),
        Some(Phase::Ready | Phase::Unhealthy)
    ) {
        format!("the stack of {} is gone by now", intent.version)
    } else {
        return None;
    };
    Some(why)
}
