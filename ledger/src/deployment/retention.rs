//! Retention: which stacks are kept warm, and taking the others down.

use jiff::SignedDuration;
use schemas::policy::RetentionPolicy;
use schemas::{StackId, Stream, Timestamp, Weight, retention};

use super::{Case, Deployment, Phase, Stack, failure, waiting};
use crate::at::At;
use crate::decision::{Decision, Rejection};

/// The reason to take a stack down that rests on the clock alone: it was unused for the policy's time.
pub const BY_AGE: &str = "it was unused for the policy's time";

/// Changes the deployment as an event of its retention says.
pub(super) fn evolve(deployment: &mut Deployment, event: &retention::Event, at: &At) {
    match event {
        retention::Event::CollectionStarted(started) => {
            if let Some(stack) = deployment.stacks.get_mut(&started.stack) {
                stack.phase = Phase::Collecting { since: at.time, drain_ms: started.drain_ms };
            }
        }
        retention::Event::Collected(collected) => {
            if let Some(stack) = deployment.stacks.remove(&collected.stack) {
                failure::keep(deployment, collected.stack, stack);
            }
        }
    }
}

/// Says why `stack` may not be taken down, if it may not.
///
/// It is needed, its rollout waits, or it starts and no rollout of it was dropped.
pub fn in_use(deployment: &Deployment, stack: StackId) -> Option<&'static str> {
    let found = deployment.stacks.get(&stack)?;
    if let Some(why) = needed(deployment, stack) {
        Some(why)
    } else if found.phase == Phase::Starting && !found.dropped {
        Some("it is starting")
    } else if deployment.waiting.as_ref().is_some_and(|waiting| waiting.stack == stack) {
        Some("its rollout waits")
    } else {
        None
    }
}

/// Says what needs `stack`, if something does, so that its nodes are replaced as often as they fail.
///
/// It has weight set, applied or seen, is the rollback target, is in a live rollout, or a rollback waits for it.
pub fn needed(deployment: &Deployment, stack: StackId) -> Option<&'static str> {
    let traffic = &deployment.traffic;
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    let found = deployment.stacks.get(&stack)?;
    if traffic.set_weight(stack) > Weight::ZERO {
        Some("it has traffic")
    } else if traffic.applied_weight(stack) > Weight::ZERO {
        Some("the router still gives it traffic")
    } else if traffic.drift.as_ref().and_then(|drift| drift.seen.get(&stack)).is_some_and(|seen| *seen > Weight::ZERO) {
        Some("the router was seen to give it traffic")
    } else if live.is_some_and(|rollout| rollout.baseline == stack || rollout.canary == stack) {
        Some("it is in a rollout")
    } else if traffic.awaited == Some(stack) {
        Some("a rollback waits for it")
    } else if !found.retired && super::rollback::target(deployment).and_then(|target| target.stack()) == Some(stack) {
        Some("it is the rollback target")
    } else {
        None
    }
}

/// Says why `stack`, which is not being taken down yet, goes at once and not for its age: its rollout was dropped, and nothing
/// else needs it.
pub fn leaves(deployment: &Deployment, stack: StackId) -> Option<&'static str> {
    let found = deployment.stacks.get(&stack).filter(|found| found.dropped && found.may_serve())?;
    (!found.retired && in_use(deployment, stack).is_none()).then_some(DROPPED)
}

/// Why a stack goes whose rollout was dropped.
const DROPPED: &str = "its rollout was dropped";

/// Adds to a decision which stacks go because it drops their rollout, and how there is another one.
pub(super) fn noted(case: &Case<'_>, mut decision: Decision) -> Decision {
    if decision.events.is_empty() {
        return decision;
    }
    let after = waiting::after(case, &decision);
    let leaving = after.stacks.iter().filter(|(id, _)| leaves(&after, **id).is_some());
    for (id, stack) in leaving.filter(|(id, _)| leaves(case.deployment, **id).is_none()) {
        // `new` makes none where another stack of the version stays.
        let stays = |(other, found): (&StackId, &Stack)| {
            other != id && found.version == stack.version && found.may_serve() && leaves(&after, *other).is_none()
        };
        let make = if after.stacks.iter().any(stays) { "renew" } else { "new" };
        let new = format!("ionledger {make} {} {}{}", case.id.service, stack.version, case.id.env_flag());
        decision.notes.push(format!("{} is taken down: {DROPPED}; `{new}` makes another", stack.name()));
    }
    decision
}

/// Returns when `stack` is to be taken down, and why: `None` while it is in use or being taken down already.
///
/// A failed stack, one whose rollout was dropped, also while it starts, and every stack that was retired go at once. An unused
/// one goes after the policy's time, or earlier if more than the policy's number are kept warm and it is the longest unused.
pub fn due(deployment: &Deployment, stack: StackId, policy: &RetentionPolicy) -> Option<(Timestamp, &'static str)> {
    let found = deployment.stacks.get(&stack)?;
    if in_use(deployment, stack).is_some() {
        return None;
    }
    let since = found.unused_since.unwrap_or(found.requested_at);
    if found.retired {
        return match found.phase {
            Phase::Collecting { .. } => None,
            _ => Some((since, "its deployment was retired")),
        };
    }
    match found.phase {
        Phase::Collecting { .. } => None,
        Phase::Failed { .. } => Some((since, "it failed")),
        Phase::Starting | Phase::Ready | Phase::Unhealthy if found.dropped => Some((since, DROPPED)),
        Phase::Starting => None,
        Phase::Ready | Phase::Unhealthy => {
            let later =
                |id: StackId, other: &super::Stack| other.unused_since.is_some_and(|at| (at, id) > (since, stack));
            let warm = |other: &super::Stack| matches!(other.phase, Phase::Ready | Phase::Unhealthy);
            let newer = deployment.stacks.iter().filter(|(id, other)| {
                warm(other) && !other.dropped && later(**id, other) && in_use(deployment, **id).is_none()
            });
            if newer.count() >= usize::from(policy.warm_max) {
                return Some((since, "more stacks are kept warm than the policy allows"));
            }
            let warm = SignedDuration::from_millis(i64::try_from(policy.warm_for_ms).unwrap_or(i64::MAX));
            Some((since.checked_add(warm).unwrap_or(Timestamp::MAX), BY_AGE))
        }
    }
}

/// Decides to take a stack down: none if that has begun.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is in use or not due.
pub(super) fn decide_start(case: &Case<'_>, stack: StackId, reason: &str) -> Result<Decision, Rejection> {
    let outdated = |why: &str| Rejection::Outdated(format!("stack {stack}: {why}"));
    let found = case.deployment.stacks.get(&stack).ok_or_else(|| outdated("it is gone"))?;
    if matches!(found.phase, Phase::Collecting { .. }) {
        return Ok(Decision::default());
    }
    if let Some(why) = in_use(case.deployment, stack) {
        return Err(outdated(why));
    }
    let definition = case.service.definition.as_ref().ok_or_else(|| outdated("its service is undeclared"))?;
    let policy = &definition.policy.retention;
    let due = due(case.deployment, stack, policy);
    if due.is_none_or(|(at, _)| case.now.time < at) {
        return Err(outdated("it is kept warm"));
    }
    let started = retention::CollectionStarted { stack, reason: reason.to_owned(), drain_ms: policy.drain_ms };
    let decision = Decision::on(case.stream(), vec![started.into()]);
    Ok(decision.requiring(Stream::Service(case.id.service.clone())))
}

/// Decides that a stack is gone.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is not being taken down or has nodes left.
pub(super) fn decide_collected(case: &Case<'_>, stack: StackId) -> Result<Decision, Rejection> {
    let found = case.deployment.stacks.get(&stack);
    let ended = found.is_some_and(|found| matches!(found.phase, Phase::Collecting { .. }) && found.nodes.is_empty());
    if !ended {
        return Err(Rejection::Outdated(format!("stack {stack} is not at the end of its removal")));
    }
    Ok(Decision::on(case.stream(), vec![retention::Collected { stack }.into()]))
}
