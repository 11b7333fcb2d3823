//! Rollback: all traffic back to the rollback target. It passes no gate, raises the fence, and twice is once.

use schemas::judgement::{Counted, Judged, Verdict};
use schemas::traffic::{self, Purpose};
use schemas::{Event, RolloutId, StackId, Stream, Version, Weights, rollout, stack};

use super::{Case, Deployment, Phase, Rollout, Stack, rejected};
use crate::decide::{Decision, Rejection};

/// Where a rollback goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A stack that can take the traffic at once.
    Warm {
        /// The stack.
        stack: StackId,
        /// Stacks before it that are known to be unhealthy.
        passed_over: Vec<StackId>,
    },
    /// A version whose stack is gone: it must be deployed again.
    Gone {
        /// The version.
        version: Version,
        /// Stacks before it that are known to be unhealthy.
        passed_over: Vec<StackId>,
    },
}

impl Target {
    /// Returns the warm stack.
    pub fn stack(&self) -> Option<StackId> {
        match self {
            Target::Warm { stack, .. } => Some(*stack),
            Target::Gone { .. } => None,
        }
    }
}

/// Returns where a rollback would go now, if anywhere.
///
/// Within a rollout that is its baseline; else the latest version before the present one that held all traffic and is not
/// rejected. One that is known to be unhealthy is passed over for the next older. If all that are
/// warm are, it is the nearest version whose stack is gone, or, within a rollout, the baseline all the same.
/// Source: design, "Rollouts".
pub fn target(deployment: &Deployment) -> Option<Target> {
    let mut passed_over = Vec::new();
    let mut gone = None;
    for Candidate { stack, version } in candidates(deployment) {
        match warm(deployment, stack, &version) {
            Some((stack, Phase::Ready)) => return Some(Target::Warm { stack, passed_over }),
            Some((stack, _)) => passed_over.push(stack),
            None if passed_over.is_empty() => return Some(Target::Gone { version, passed_over }),
            None => gone = gone.or(Some(version)),
        }
    }
    match gone {
        Some(version) if live(deployment).is_none() => Some(Target::Gone { version, passed_over }),
        _ => passed_over.first().map(|first| Target::Warm { stack: *first, passed_over: vec![] }),
    }
}

/// Returns the candidate's stack that can take traffic: its own, or another of its version if that is gone.
fn warm<'a>(deployment: &'a Deployment, stack: StackId, version: &Version) -> Option<(StackId, &'a Phase)> {
    let fit = |stack: &Stack| matches!(stack.phase, Phase::Ready | Phase::Unhealthy);
    let own = deployment.stacks.get(&stack).filter(|own| fit(own)).map(|own| (stack, own));
    let another =
        || deployment.stack_for(version).filter(|(id, other)| fit(other) && rejected::own(deployment, *id).is_none());
    own.or_else(another).map(|(id, stack)| (id, &stack.phase))
}

fn live(deployment: &Deployment) -> Option<&Rollout> {
    deployment.rollout.as_ref().filter(|rollout| rollout.is_live())
}

/// A stack that held all traffic, and its version: where the stack is gone, that is deployed again.
struct Candidate {
    stack: StackId,
    version: Version,
}

/// Returns where a rollback may go to, the nearest first, each once.
fn candidates(deployment: &Deployment) -> Vec<Candidate> {
    let traffic = &deployment.traffic;
    let live = live(deployment);
    let present = traffic.set.as_ref().and_then(|set| set.weights.sole());
    let left: Vec<StackId> = present.into_iter().chain(live.map(|rollout| rollout.canary)).collect();
    let baseline = live.and_then(|rollout| {
        let version = deployment.version_of(rollout.baseline)?.clone();
        Some(Candidate { stack: rollout.baseline, version })
    });
    let mut candidates: Vec<Candidate> = baseline.into_iter().collect();
    for holder in traffic.holders.iter().rev() {
        let (stack, version) = (holder.stack, &holder.version);
        let there = deployment.stacks.contains_key(&stack);
        let rejected = if there {
            rejected::own(deployment, stack).is_some()
        } else {
            rejected::of_version(deployment, version).is_some()
        };
        // A version deployed again is no other.
        let is_left =
            left.iter().any(|left| *left == stack || (!there && deployment.version_of(*left) == Some(version)));
        let known = candidates.iter().any(|known| known.stack == stack || (!there && known.version == *version));
        if !rejected && !is_left && !known {
            candidates.push(Candidate { stack, version: version.clone() });
        }
    }
    candidates
}

/// Decides `rollback`: none if the last thing that happened to the weights was one, or one waits for its target.
///
/// # Errors
///
/// [`Rejection::NoTarget`] if no version held all traffic before, [`Rejection::AllRejected`] if each that did is rejected.
pub(super) fn decide(case: &Case<'_>) -> Result<Decision, Rejection> {
    let deployment = case.deployment;
    let back = deployment.traffic.set.as_ref().is_some_and(|set| set.purpose == Purpose::Rollback);
    if live(deployment).is_none() && (back || deployment.traffic.awaited.is_some()) {
        let note = format!("{} is rolled back already; `ionledger traffic` goes further back", case.id);
        return Ok(Decision::nothing(note));
    }
    let reason = "asked for";
    match target(deployment) {
        None => {
            let (deployment, rejected) = (case.id.clone(), case.rejected_targets());
            Err(if rejected.is_empty() {
                Rejection::NoTarget { deployment }
            } else {
                Rejection::AllRejected { deployment, rejected: rejected.join("; ") }
            })
        }
        Some(Target::Warm { stack, passed_over }) => {
            Ok(Decision::on(case.stream(), all_back(deployment, stack, passed_over, reason)))
        }
        Some(Target::Gone { version, passed_over }) => deploy_again(case, &version, passed_over, reason),
    }
}

/// Decides that a canary goes back because it is worse or unhealthy; the verdict, if there is one, is in the same
/// commit.
///
/// # Errors
///
/// [`Rejection::Outdated`] if that rollout has ended, the verdict is not "worse", or without one the canary is healthy.
pub(super) fn decide_send_back(
    case: &Case<'_>,
    rollout: RolloutId,
    reason: &str,
    counted: Option<&Counted>,
    judged: Option<&Judged>,
) -> Result<Decision, Rejection> {
    let deployment = case.deployment;
    let outdated = |why: String| Rejection::Outdated(format!("rollout {rollout}: {why}"));
    let live = live(deployment).filter(|live| live.id == rollout).ok_or_else(|| outdated("it has ended".to_owned()))?;
    let unfit = deployment.stacks.get(&live.canary).is_none_or(Stack::is_unfit);
    // An unfit canary goes back whatever the judge has counted; a rollback waits for no record.
    let counted = match (case.check_judged(live, counted, judged), judged) {
        (Err(why), Some(_)) => return Err(outdated(why)),
        (Ok(_), Some(judged)) if judged.verdict != Verdict::Worse => {
            return Err(outdated("its canary is not judged worse".to_owned()));
        }
        (_, None) if !unfit => return Err(outdated("its canary is healthy".to_owned())),
        (Err(_), None) => None,
        (Ok(_), _) => counted,
    };
    let (to, passed_over) = match target(deployment) {
        Some(Target::Warm { stack, passed_over }) => (stack, passed_over),
        Some(Target::Gone { .. }) | None => (live.baseline, vec![]),
    };
    let decision = Decision::on(case.stream(), all_back(deployment, to, passed_over, reason));
    Ok(if counted.is_some() || judged.is_some() { case.with_judgement(decision, counted, judged) } else { decision })
}

/// The events that move all traffic to `to` now.
pub(super) fn all_back(deployment: &Deployment, to: StackId, passed_over: Vec<StackId>, reason: &str) -> Vec<Event> {
    let back = rolled_back(deployment, to, passed_over, reason);
    let set = traffic::WeightsSet { weights: Weights::all_on(to), purpose: Purpose::Rollback };
    [back.into(), set.into()].into_iter().chain(came_back(deployment, reason)).collect()
}

fn rolled_back(deployment: &Deployment, to: StackId, passed_over: Vec<StackId>, reason: &str) -> traffic::RolledBack {
    let serving = deployment.traffic.set.iter().flat_map(|set| set.weights.iter().map(|(stack, _)| stack));
    let mut from: Vec<StackId> = serving.filter(|stack| *stack != to).collect();
    if let Some(canary) = live(deployment).map(|rollout| rollout.canary)
        && !from.contains(&canary)
    {
        from.push(canary);
    }
    let fence = deployment.traffic.fence.next();
    traffic::RolledBack { from, to, passed_over, fence, reason: reason.to_owned() }
}

fn came_back(deployment: &Deployment, reason: &str) -> Option<Event> {
    live(deployment).map(|live| rollout::CameBack { rollout: live.id, reason: reason.to_owned() }.into())
}

/// The target's stack is gone: it is deployed again and gets all traffic once it is ready. The fence is raised now.
fn deploy_again(
    case: &Case<'_>,
    version: &Version,
    passed_over: Vec<StackId>,
    reason: &str,
) -> Result<Decision, Rejection> {
    let Case { id, deployment, service, now, .. } = case;
    let definition = service.definition.as_ref().ok_or_else(|| Rejection::unknown_service(&id.service, []))?;
    let release = service
        .releases
        .get(version)
        .ok_or_else(|| Rejection::unknown_release(&id.service, version, service.releases.keys()))?;
    let starting = deployment.stack_for(version).filter(|(_, stack)| stack.phase == Phase::Starting);
    let to = starting.map_or(now.commit.into(), |(stack, _)| stack);
    let mut events: Vec<Event> = Vec::new();
    if starting.is_none() {
        let requested = stack::Requested {
            stack: to,
            version: version.clone(),
            artifact: release.recorded.artifact.clone(),
            run: release.recorded.run.clone(),
            capacity: definition.capacity,
            then_roll: None,
        };
        events.push(requested.into());
    }
    events.push(rolled_back(deployment, to, passed_over, reason).into());
    events.extend(came_back(deployment, reason));
    let mut decision = Decision::on(case.stream(), events);
    decision.notes.push(format!(
        "the rollback target {version} is gone; it is deployed again and gets all traffic once it is ready. \
         A longer retention.warm_for in the policy of {} would have kept it",
        id.service
    ));
    Ok(decision.requiring(Stream::Service(id.service.clone())))
}
