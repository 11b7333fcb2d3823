//! Rollback: all traffic back to the rollback target. It passes no gate, raises the fence, and twice is once.

use schemas::judgement::Judged;
use schemas::rollout::Plan;
use schemas::traffic::{self, Purpose};
use schemas::{Event, RolloutId, StackId, Stream, Version, Weight, Weights, rollout, stack};

use super::{Case, Deployment, Phase};
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
/// Within a rollout that is its baseline; else the latest stack before the present one that held all traffic and was
/// not rolled back from since. One that is known to be unhealthy is passed over for the next older; if all are, the
/// first of them it is. Source: design, "Rollouts".
pub fn target(deployment: &Deployment) -> Option<Target> {
    let candidates = candidates(deployment);
    let unfit = |stack: &StackId| deployment.stacks.get(stack).is_some_and(|stack| stack.phase == Phase::Unhealthy);
    let mut passed_over = Vec::new();
    for (stack, version) in &candidates {
        if !super::traffic::can_serve(deployment, *stack) {
            if passed_over.is_empty() {
                return Some(Target::Gone { version: version.clone() });
            }
            continue;
        }
        if !unfit(stack) {
            return Some(Target::Warm { stack: *stack, passed_over });
        }
        passed_over.push(*stack);
    }
    passed_over.first().map(|first| Target::Warm { stack: *first, passed_over: vec![] })
}

/// Returns the stacks a rollback may go to, the nearest first, each once.
fn candidates(deployment: &Deployment) -> Vec<(StackId, Version)> {
    let traffic = &deployment.traffic;
    let present = traffic.set.as_ref().and_then(|set| set.weights.sole());
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    let mut candidates: Vec<(StackId, Version)> = Vec::new();
    if let Some(rollout) = live
        && let Some(version) = deployment.version_of(rollout.baseline)
    {
        candidates.push((rollout.baseline, version.clone()));
    }
    for holder in traffic.holders.iter().rev() {
        let canary = live.is_some_and(|rollout| rollout.canary == holder.stack);
        let known = candidates.iter().any(|(stack, _)| *stack == holder.stack);
        if holder.rolled_back_at.is_none() && Some(holder.stack) != present && !canary && !known {
            candidates.push((holder.stack, holder.version.clone()));
        }
    }
    candidates
}

/// Decides `rollback`: none if the last thing that happened to the weights was one.
///
/// # Errors
///
/// [`Rejection::NoTarget`] if no version held all traffic before.
pub(super) fn decide(case: &Case<'_>) -> Result<Decision, Rejection> {
    let deployment = case.deployment;
    if deployment.traffic.set.as_ref().is_some_and(|set| set.purpose == Purpose::Rollback) {
        let mut nothing = Decision::default();
        nothing.notes.push(format!("{} is rolled back already", case.id));
        return Ok(nothing);
    }
    match target(deployment) {
        None => Err(Rejection::NoTarget { deployment: case.id.clone() }),
        Some(Target::Warm { stack, passed_over }) => {
            let reason = "asked for".to_owned();
            Ok(Decision::on(case.stream(), events(deployment, stack, passed_over, &reason)))
        }
        Some(Target::Gone { version }) => deploy_again(case, &version),
    }
}

/// Decides that a canary goes back because it is worse or unhealthy; the verdict, if there is one, is in the same
/// commit.
///
/// # Errors
///
/// [`Rejection::Outdated`] if that rollout has ended.
pub(super) fn decide_send_back(
    case: &Case<'_>,
    rollout: RolloutId,
    reason: &str,
    judged: Option<&Judged>,
) -> Result<Decision, Rejection> {
    let deployment = case.deployment;
    let live = deployment.rollout.as_ref().filter(|live| live.is_live() && live.id == rollout);
    let live = live.ok_or_else(|| Rejection::Outdated(format!("rollout {rollout} has ended")))?;
    let (to, passed_over) = match target(deployment) {
        Some(Target::Warm { stack, passed_over }) => (stack, passed_over),
        _ => (live.baseline, vec![]),
    };
    let mut decision = Decision::on(case.stream(), events(deployment, to, passed_over, reason));
    if let Some(judged) = judged {
        decision.events.insert(0, (Stream::Judgement(case.id.clone()), judged.clone().into()));
    }
    Ok(decision)
}

fn events(deployment: &Deployment, to: StackId, passed_over: Vec<StackId>, reason: &str) -> Vec<Event> {
    let traffic = &deployment.traffic;
    let mut from: Vec<StackId> =
        traffic.set.iter().flat_map(|set| set.weights.iter().map(|(stack, _)| stack)).collect();
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    if let Some(rollout) = live
        && !from.contains(&rollout.canary)
    {
        from.push(rollout.canary);
    }
    from.retain(|stack| *stack != to);
    let fence = traffic.fence.next();
    let back = traffic::RolledBack { from, to, passed_over, fence, reason: reason.to_owned() };
    let mut events: Vec<Event> =
        vec![back.into(), traffic::WeightsSet { weights: Weights::all_on(to), purpose: Purpose::Rollback }.into()];
    if let Some(rollout) = live {
        events.push(rollout::CameBack { rollout: rollout.id, reason: reason.to_owned() }.into());
    }
    events
}

/// The target's stack is gone: it is deployed again and gets all traffic once it is ready.
fn deploy_again(case: &Case<'_>, version: &Version) -> Result<Decision, Rejection> {
    let Case { id, deployment, service, now } = case;
    let definition = service.definition.as_ref().ok_or_else(|| Rejection::unknown_service(&id.service))?;
    let release = service.releases.get(version).ok_or_else(|| Rejection::unknown_release(&id.service, version))?;
    let note = format!(
        "the rollback target {version} is gone; it is deployed again and gets all traffic once it is ready. \
         A longer retention.warm_for in the policy of {} would have kept it",
        id.service
    );
    let starting = deployment.newest_stack(version).is_some_and(|(_, stack)| stack.phase == Phase::Starting);
    let mut decision = if starting {
        Decision::default()
    } else {
        let requested = stack::Requested {
            stack: now.commit.into(),
            version: version.clone(),
            artifact: release.recorded.artifact.clone(),
            run: release.recorded.run.clone(),
            capacity: definition.capacity,
            then_roll: Some(Plan { steps: vec![Weight::FULL], duration_ms: 0 }),
        };
        Decision::on(case.stream(), vec![requested.into()])
    };
    decision.notes.push(note);
    Ok(decision.requiring(Stream::Service(id.service.clone())))
}
