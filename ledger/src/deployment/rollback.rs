//! Rollback: all traffic back to the rollback target. It passes no gate, raises the fence, and twice is once. It never
//! moves users from a stack that passes its check to one that does not.

use std::collections::BTreeSet;

use schemas::judgement::{Counted, Judged, Verdict};
use schemas::traffic::{self, Purpose};
use schemas::{DeploymentId, Event, Probed, RolloutId, StackId, Stream, Version, Weights, rollout, text};

use super::{Case, Deployment, Phase, Rollout, Stack, rejected, stranded, waiting};
use crate::decide::{Decision, Rejection};

/// Where a rollback goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A stack that can take the traffic at once.
    Warm {
        /// The stack.
        stack: StackId,
        /// Stacks before it that are known to be unhealthy, or whose check fails.
        passed_over: Vec<StackId>,
    },
    /// A stack of which no node passes its check, while one that users are on does: it is started again.
    Failing {
        /// The stack.
        stack: StackId,
        /// What the check said.
        why: String,
    },
    /// A version whose stack is gone: it must be deployed again.
    Gone {
        /// The version.
        version: Version,
        /// Stacks before it that are known to be unhealthy, or whose check fails.
        passed_over: Vec<StackId>,
    },
}

impl Target {
    /// Returns the stack, if it is not gone.
    pub fn stack(&self) -> Option<StackId> {
        match self {
            Target::Warm { stack, .. } | Target::Failing { stack, .. } => Some(*stack),
            Target::Gone { .. } => None,
        }
    }
}

/// Returns where a rollback would go now, if anywhere, as far as the ledger knows.
///
/// Within a rollout that is its baseline; else the latest version before the present one that held all traffic and is not
/// rejected. One that is known to be unhealthy is passed over for the next older. If all that are
/// warm are, it is the nearest version whose stack is gone, or, within a rollout, the baseline all the same.
/// Source: design, "Rollouts".
pub fn target(deployment: &Deployment) -> Option<Target> {
    target_by(deployment, &Probed::default(), true)
}

/// Returns where a rollback would go now, as [`target`], and by what the newest probes say: while users are on a stack that
/// passes, it goes only to one that passes or cannot be asked. `past` says whether it may go past its target to an older one.
/// Source: design, "Invariants", 18.
pub fn target_by(deployment: &Deployment, probed: &Probed, past: bool) -> Option<Target> {
    let mut unfit: Vec<(StackId, Option<String>)> = Vec::new();
    let mut gone = None;
    for Candidate { stack, version } in candidates(deployment) {
        let Some((stack, phase)) = warm(deployment, stack, &version) else {
            if unfit.is_empty() {
                return Some(Target::Gone { version, passed_over: vec![] });
            }
            gone = gone.or(Some(version));
            continue;
        };
        let failure = failure(deployment, probed, stack);
        if *phase == Phase::Ready && failure.is_none() {
            return Some(Target::Warm { stack, passed_over: stacks(&unfit) });
        }
        unfit.push((stack, failure));
        if !past {
            break;
        }
    }
    let (stack, failure) = unfit.first()?.clone();
    let passing = unfit.iter().position(|(stack, failure)| failure.is_none() && probed.has_passed(*stack));
    Some(match (failure, passing, gone) {
        // Fewer nodes than must be are better than none.
        (Some(_), Some(n), _) => Target::Warm { stack: unfit[n].0, passed_over: stacks(&unfit[..n]) },
        (Some(why), None, _) => Target::Failing { stack, why },
        (None, _, Some(version)) if live(deployment).is_none() => Target::Gone { version, passed_over: stacks(&unfit) },
        (None, ..) => Target::Warm { stack, passed_over: vec![] },
    })
}

fn stacks(unfit: &[(StackId, Option<String>)]) -> Vec<StackId> {
    unfit.iter().map(|(stack, _)| *stack).collect()
}

/// Returns why users must not be moved to `to`: none of its nodes passes, and one of a stack they would be moved from does.
pub(super) fn failure(deployment: &Deployment, probed: &Probed, to: StackId) -> Option<String> {
    let why = probed.failure(to)?;
    let mut from = deployment.traffic.set.iter().flat_map(|set| set.weights.iter()).map(|(stack, _)| stack);
    from.any(|stack| stack != to && probed.has_passed(stack)).then(|| why.to_owned())
}

/// Returns the stacks that a rollback asks before it is decided: those that users are on and those that it may go to.
pub fn to_probe(deployment: &Deployment) -> BTreeSet<StackId> {
    let serving = deployment.traffic.set.iter().flat_map(|set| set.weights.iter()).map(|(stack, _)| stack);
    let targets = candidates(deployment).into_iter();
    let targets =
        targets.filter_map(|Candidate { stack, version }| warm(deployment, stack, &version).map(|(id, _)| id));
    serving.chain(targets).collect()
}

/// Returns the candidate's stack that can take traffic: its own, or another of its version if that is gone.
fn warm<'a>(deployment: &'a Deployment, stack: StackId, version: &Version) -> Option<(StackId, &'a Phase)> {
    let fit = |stack: &Stack| matches!(stack.phase, Phase::Ready | Phase::Unhealthy);
    let own = deployment.stacks.get(&stack).filter(|own| fit(own)).map(|own| (stack, own));
    let left = left(deployment);
    let standing = |id: &StackId| rejected::own(deployment, *id).is_none() && !left.contains(id);
    let another = || deployment.stack_for(version).filter(|(id, other)| fit(other) && standing(id));
    own.or_else(another).map(|(id, stack)| (id, &stack.phase))
}

/// Returns the rollout under way.
pub(super) fn live(deployment: &Deployment) -> Option<&Rollout> {
    deployment.rollout.as_ref().filter(|rollout| rollout.is_live())
}

/// Returns the stacks that a rollback leaves: the one with all traffic, and the canary.
fn left(deployment: &Deployment) -> Vec<StackId> {
    let present = deployment.traffic.set.as_ref().and_then(|set| set.weights.sole());
    present.into_iter().chain(live(deployment).map(|rollout| rollout.canary)).collect()
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
    let left = left(deployment);
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

/// Decides `rollback`: none if the last thing that happened to the weights was one, or one waits for its target. `unready`
/// says that it goes to its target whatever is known of that, past none to an older one, and also while one waits.
///
/// # Errors
///
/// [`Rejection::NoTarget`] if no version held all traffic before, [`Rejection::AllRejected`] if each that did is rejected.
pub(super) fn decide(case: &Case<'_>, unready: bool) -> Result<Decision, Rejection> {
    let deployment = case.deployment;
    let target = match unready {
        true => target_by(deployment, &Probed::default(), false),
        false => target_by(deployment, case.probed, case.goes_past()),
    };
    let overrules = unready && matches!(target, Some(Target::Warm { .. }));
    if let Some(note) = done_already(case, overrules) {
        return Ok(told_of_stranded(case, Decision::nothing(note)));
    }
    let reason = &case.by.because(text::UNSAID);
    let decision = match target {
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
        Some(Target::Failing { stack, why }) => start_again(case, stack, &why, reason),
        Some(Target::Gone { version, passed_over }) => {
            let mut decision = deploy_again(case, &version, None, passed_over, reason)?;
            decision.notes.push(format!(
                "the rollback target {version} is gone; it is deployed again and gets all traffic once it is ready. \
                 A longer retention.warm_for in the policy of {} would have kept it",
                case.id.service
            ));
            Ok(decision)
        }
    };
    decision.map(|decision| told_of_stranded(case, decision))
}

/// Adds to the answer of a rollback whose target is yet to be ready which users it leaves on a stack that does not pass, and
/// the command that moves them: it does not move them to what it goes back from.
fn told_of_stranded(case: &Case<'_>, mut decision: Decision) -> Decision {
    let after = waiting::after(case, &decision);
    if after.traffic.awaited.is_some() {
        let stranded = stranded::stranded(&after, case.id, case.probed);
        decision.notes.extend(stranded.iter().map(|stranded| stranded::told(&after, stranded)));
    }
    decision
}

/// Says that a rollback was the last thing that happened to the weights, or that one waits for its target and this one does
/// not overrule that.
fn done_already(case: &Case<'_>, overrules: bool) -> Option<String> {
    let (deployment, id) = (case.deployment, case.id);
    let back = deployment.traffic.set.as_ref().is_some_and(|set| set.purpose == Purpose::Rollback);
    let awaited = deployment.traffic.awaited.and_then(|stack| deployment.stacks.get(&stack));
    match awaited {
        _ if live(deployment).is_some() => None,
        Some(stack) if !overrules => {
            let (name, so_far) = (stack.name(), stack.progress());
            let unready = unready(deployment, id);
            let unready = unready.map(|next| format!("; `{next}` sends all traffic there now")).unwrap_or_default();
            Some(format!(
                "{id} is being rolled back already: {name} gets all traffic once it is ready; by now {so_far}{unready}"
            ))
        }
        None if back => Some(format!("{id} is rolled back already; `ionledger traffic` goes further back")),
        _ => None,
    }
}

/// Returns the command that overrules a rollback which waits for its target, where there is a stack that it would go to.
pub fn unready(deployment: &Deployment, id: &DeploymentId) -> Option<String> {
    let target = target_by(deployment, &Probed::default(), false);
    matches!(target, Some(Target::Warm { .. })).then(|| format!("ionledger rollback {} --unready", id.arguments()))
}

impl Case<'_> {
    /// Whether the policy lets a rollback go past a target that does not pass its check.
    fn goes_past(&self) -> bool {
        self.service.definition.as_ref().is_none_or(|definition| definition.policy.rollout.rollback_past_target)
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
    let with_judgement = |decision: Decision, counted: Option<&Counted>| {
        if counted.is_some() || judged.is_some() { case.with_judgement(decision, counted, judged) } else { decision }
    };
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
    let (to, passed_over) = match target_by(deployment, case.probed, case.goes_past()) {
        Some(Target::Warm { stack, passed_over }) => (stack, passed_over),
        Some(Target::Failing { stack, why }) => {
            return Ok(with_judgement(start_again(case, stack, &why, reason)?, counted));
        }
        Some(Target::Gone { .. }) | None => (live.baseline, vec![]),
    };
    let decision = Decision::on(case.stream(), all_back(deployment, to, passed_over, reason));
    Ok(with_judgement(decision, counted))
}

/// The events that move all traffic to `to` now.
pub(super) fn all_back(deployment: &Deployment, to: StackId, passed_over: Vec<StackId>, reason: &str) -> Vec<Event> {
    let back = rolled_back(deployment, to, |_| false, passed_over, reason);
    let set = traffic::WeightsSet { weights: Weights::all_on(to), purpose: Purpose::Rollback };
    [back.into(), set.into()].into_iter().chain(came_back(deployment, reason)).collect()
}

/// `again` says of which stacks `to` is another start; nobody leaves those.
fn rolled_back(
    deployment: &Deployment,
    to: StackId,
    again: impl Fn(StackId) -> bool,
    passed_over: Vec<StackId>,
    reason: &str,
) -> traffic::RolledBack {
    let stays = |stack: StackId| stack == to || again(stack);
    let serving = deployment.traffic.set.iter().flat_map(|set| set.weights.iter().map(|(stack, _)| stack));
    let mut from: Vec<StackId> = serving.filter(|stack| !stays(*stack)).collect();
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

/// Starts the target again in a new stack, since no node of it passes its check. Users stay where they are until that is
/// ready.
fn start_again(case: &Case<'_>, stack: StackId, why: &str, reason: &str) -> Result<Decision, Rejection> {
    let unknown = || Rejection::Outdated(format!("stack {stack} is gone"));
    let name = case.deployment.name_of(stack).ok_or_else(unknown)?;
    let mut decision = deploy_again(case, &name.version, Some(stack), vec![], reason)?;
    let why = stranded::why(case.deployment, stack, why);
    decision.notes.push(format!(
        "users stay where they are: no node of the rollback target {name} passes its check ({why}). It is started again \
         and gets all traffic once it is ready; `ionledger rollback {} --unready` sends all traffic there now",
        case.id.arguments()
    ));
    Ok(decision)
}

/// Makes a stack of `version`, or waits for one that is starting: it gets all traffic once it is ready. The fence is raised
/// now. `failing` is the stack of which it is another start; without one it is another start of all that are gone.
fn deploy_again(
    case: &Case<'_>,
    version: &Version,
    failing: Option<StackId>,
    passed_over: Vec<StackId>,
    reason: &str,
) -> Result<Decision, Rejection> {
    let Case { id, deployment, service, now, .. } = case;
    let definition = service.definition.as_ref().ok_or_else(|| Rejection::unknown_service(&id.service, []))?;
    let release = service
        .releases
        .get(version)
        .ok_or_else(|| Rejection::unknown_release(&id.service, version, service.releases.keys()))?;
    let starts = |stack: &Stack| stack.version == *version && stack.phase == Phase::Starting && !stack.retired;
    let starting = deployment.stacks.iter().filter(|(_, stack)| starts(stack));
    let starting = starting.max_by_key(|(id, stack)| (stack.requested_at, **id)).map(|(id, _)| *id);
    let to = starting.unwrap_or(now.commit.into());
    let mut events: Vec<Event> = Vec::new();
    if starting.is_none() {
        events.push(case.requested(release, definition.capacity).into());
    }
    let again = |stack| match failing {
        Some(failing) => stack == failing,
        None => deployment.version_of(stack) == Some(version),
    };
    events.push(rolled_back(deployment, to, again, passed_over, reason).into());
    events.extend(came_back(deployment, reason));
    Ok(Decision::on(case.stream(), events).requiring(Stream::Service(id.service.clone())))
}
