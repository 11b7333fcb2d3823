//! Rollback: all traffic back to the rollback target. It passes no gate, raises the fence, and twice is once. It never
//! moves users from a stack that passes its check to one that does not.

use std::collections::BTreeSet;

use schemas::judgement::{Counted, Judged, Verdict};
use schemas::traffic::{self, Purpose};
use schemas::{DeploymentId, Event, Probed, RolloutId, StackId, Stream, Version, Weights, rollout, text};

use super::{Case, Deployment, Phase, Rollout, Stack, rejected, served, stranded, waiting};
use crate::decision::{Decision, Rejection};

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
        let failure = probed.failure(stack).map(str::to_owned);
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
    let users_pass = self::failure(deployment, probed, stack).is_some();
    Some(match (failure, passing, gone) {
        // Fewer nodes than must be are better than none.
        (Some(_), Some(n), _) => Target::Warm { stack: unfit[n].0, passed_over: stacks(&unfit[..n]) },
        (Some(why), None, _) if users_pass => Target::Failing { stack, why },
        (_, _, Some(version)) if live(deployment).is_none() => Target::Gone { version, passed_over: stacks(&unfit) },
        _ => Target::Warm { stack, passed_over: vec![] },
    })
}

fn stacks(unfit: &[(StackId, Option<String>)]) -> Vec<StackId> {
    unfit.iter().map(|(stack, _)| *stack).collect()
}

/// Says which stacks a rollback goes past, and why, by what `probed` and the ledger know of them: none if it goes past none.
pub fn told_passed_over(deployment: &Deployment, passed_over: &[StackId], probed: &Probed) -> Option<String> {
    let one = |stack: &StackId| {
        let known = || deployment.stacks.get(stack).map_or("its stack is gone".to_owned(), Stack::trouble);
        let said = probed.failure(*stack).map_or_else(known, str::to_owned);
        format!("{}, which does not pass ({})", deployment.told_name(*stack), stranded::why(deployment, *stack, &said))
    };
    let told: Vec<String> = passed_over.iter().map(one).collect();
    (!told.is_empty()).then(|| format!("it goes past {}", told.join(", and past ")))
}

/// Returns why users must not be moved to `to`: none of its nodes passes, and one of a stack they would be moved from does.
pub(super) fn failure(deployment: &Deployment, probed: &Probed, to: StackId) -> Option<String> {
    let why = probed.failure(to)?;
    let mut from = served::stacks_set_or_on(deployment);
    from.any(|stack| stack != to && probed.has_passed(stack)).then(|| why.to_owned())
}

/// Returns the stacks that a rollback asks before it is decided: those that users are on and those that it may go to.
pub fn to_probe(deployment: &Deployment) -> BTreeSet<StackId> {
    let serving = served::stacks_set_or_on(deployment);
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

/// Returns the stacks that a rollback leaves: the one with all traffic, or of several that share it by hand the youngest, where
/// another of them may be gone back to; and the canary.
fn left(deployment: &Deployment) -> Vec<StackId> {
    let live = live(deployment);
    let serving = deployment.traffic.stacks_set();
    let asked_at = |stack: &StackId| deployment.stacks.get(stack).map(|stack| stack.requested_at);
    let serving: Vec<StackId> = serving.collect();
    let youngest = serving.iter().copied().max_by_key(|stack| (asked_at(stack), *stack));
    let held_all = |stack: &StackId| deployment.traffic.holders.iter().any(|holder| holder.stack == *stack);
    let may_be = |stack: &StackId| held_all(stack) && rejected::own(deployment, *stack).is_none();
    let others: Vec<StackId> = serving.into_iter().filter(|stack| Some(*stack) != youngest).collect();
    let leaves = others.is_empty() || (live.is_none() && others.iter().any(may_be));
    youngest.filter(|_| leaves).into_iter().chain(live.map(|rollout| rollout.canary)).collect()
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
        false => target_by(deployment, case.probed, case.service.goes_past()),
    };
    let overrules = unready && matches!(target, Some(Target::Warm { .. }));
    if let Some(decision) = done_already(case, target.as_ref(), overrules) {
        return Ok(decision);
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
            let mut decision = Decision::on(case.stream(), all_back(deployment, stack, passed_over, reason));
            decision.notes.extend(told_failing(case, stack));
            Ok(decision)
        }
        Some(Target::Failing { stack, why }) => start_again(case, stack, &why, reason),
        Some(Target::Gone { version, passed_over }) => {
            let mut decision = deploy_again(case, &version, None, passed_over, reason)?;
            decision.notes.push(told_gone(case, &version));
            Ok(decision)
        }
    };
    decision.map(|decision| told_of_stranded(case, decision))
}

/// Says that the stack which users are sent to does not pass, and why they are: it was asked for so, or what they were on does not
/// pass either.
fn told_failing(case: &Case<'_>, to: StackId) -> Option<String> {
    let (deployment, probed) = (case.deployment, case.probed);
    let said = probed.failure(to)?;
    let (name, why) = (deployment.told_name(to), stranded::why(deployment, to, said));
    let neither = match users_fail(deployment, probed) {
        true => "; what users were on does not pass either",
        false => "",
    };
    Some(format!("{name} gets all traffic although it does not pass its check ({why}){neither}"))
}

/// Says that a rollback deploys its target again, and what would have spared that: a longer time that it is kept warm for, unless
/// a stack of it is known to have failed.
fn told_gone(case: &Case<'_>, version: &Version) -> String {
    let again = "it is deployed again and gets all traffic once it is ready";
    if let Some((name, why)) = case.deployment.last_failure_of(version) {
        return format!("the rollback target {version} is gone: {name} failed ({why}); {again}");
    }
    let service = &case.id.service;
    format!(
        "the rollback target {version} is gone; {again}. A longer retention.warm_for in the policy of {service} would have \
         kept it"
    )
}

/// Adds to the answer of a rollback whose target is yet to be ready which users it leaves on a stack that does not pass, and
/// the command that moves them: it does not move them to what it goes back from.
fn told_of_stranded(case: &Case<'_>, mut decision: Decision) -> Decision {
    let after = waiting::after(case, &decision);
    decision.not_yet = not_yet(&after);
    if after.traffic.awaited.is_some() {
        let stranded = stranded::stranded(&after, case.id, case.probed);
        decision.notes.extend(stranded.iter().map(|stranded| stranded::told(&after, stranded)));
    }
    decision
}

/// Says why a rollback has not moved users yet, and where they are: none if no rollback waits for its target.
pub fn not_yet(deployment: &Deployment) -> Option<String> {
    let target = deployment.stacks.get(&deployment.traffic.awaited?)?;
    let (name, so_far, users) = (target.name(), target.progress(), served::named(deployment));
    Some(format!("{name} gets all traffic once it is ready, by now {so_far}; users stay on {users}"))
}

/// Decides nothing where a rollback was the last thing that happened to the weights and another to `target` would not help, or
/// where one waits for its target and this one does not overrule that.
fn done_already(case: &Case<'_>, target: Option<&Target>, overrules: bool) -> Option<Decision> {
    let (deployment, id) = (case.deployment, case.id);
    let back = deployment.traffic.set.as_ref().filter(|set| set.purpose == Purpose::Rollback);
    let back = back.and_then(|set| set.weights.sole());
    let awaited = deployment.traffic.awaited.and_then(|stack| Some((stack, deployment.stacks.get(&stack)?)));
    let helps = |back| overrules && fails(deployment, case.probed, back);
    match (awaited, back) {
        _ if live(deployment).is_some() => None,
        (Some((to, stack)), _) if !overrules => {
            let (name, so_far) = (stack.name(), stack.progress());
            let unready = unready(deployment, id);
            let unready = unready.map(|next| format!("; `{next}` sends all traffic there now")).unwrap_or_default();
            let note = format!(
                "{id} is being rolled back already: {name} gets all traffic once it is ready; by now {so_far}{unready}"
            );
            Some(told_of_stranded(case, Decision::nothing_for(to, note)))
        }
        (None, Some(to)) if is_settled(deployment, case.probed, target) && !helps(to) => {
            let note = match unserved(deployment) {
                Some(unserved) => format!("{id} is rolled back already: {unserved}"),
                None => further_back(case, target),
            };
            let mut decision = Decision::nothing_for(to, note);
            decision.not_yet = unhelped(deployment, id, case.probed);
            Some(decision)
        }
        _ => None,
    }
}

/// Says whether a rollback was the last thing that happened to the weights and another one to `target` changes nothing: users are
/// on a stack that has a passing node, or would get no better one.
pub fn is_settled(deployment: &Deployment, probed: &Probed, target: Option<&Target>) -> bool {
    let set = deployment.traffic.set.as_ref().filter(|set| set.purpose == Purpose::Rollback);
    if set.is_none() || live(deployment).is_some() {
        return false;
    }
    let helps = match target {
        Some(Target::Warm { stack, .. }) => !fails(deployment, probed, *stack),
        Some(Target::Gone { .. }) => true,
        Some(Target::Failing { .. }) | None => false,
    };
    !(users_fail(deployment, probed) && helps)
}

/// Says whether every stack that users are on fails.
fn users_fail(deployment: &Deployment, probed: &Probed) -> bool {
    served::on(deployment).is_some_and(|on| on.stacks().all(|stack| fails(deployment, probed, stack)))
}

/// Says whether no node of a stack passes its check, or, where it cannot be asked, none can be called.
fn fails(deployment: &Deployment, probed: &Probed, stack: StackId) -> bool {
    probed.failure(stack).is_some() || (!probed.has_passed(stack) && !deployment.can_be_called(stack))
}

fn further_back(case: &Case<'_>, target: Option<&Target>) -> String {
    let id = case.id;
    let ready = |stack: &StackId| case.deployment.stacks.get(stack).is_some_and(|found| found.phase == Phase::Ready);
    let stack = target.and_then(Target::stack).filter(ready);
    let stack = stack.filter(|stack| !fails(case.deployment, case.probed, *stack));
    let now = case.deployment.traffic.set.as_ref().and_then(|set| set.weights.sole());
    let stack = stack.filter(|stack| now.is_some_and(|now| case.is_older(*stack, now)));
    let name = stack.and_then(|stack| case.deployment.name_of(stack));
    let further =
        name.map(|name| format!("; `ionledger traffic {} {name} 100{}` goes further back", id.service, id.env_flag()));
    format!("{id} is rolled back already{}", further.unwrap_or_default())
}

/// Says what a rollback waits for whose weights are set and of which no node can be called, and where users are.
fn unserved(deployment: &Deployment) -> Option<String> {
    let set = deployment.traffic.set.as_ref().filter(|set| set.purpose == Purpose::Rollback)?;
    let to = set.weights.sole().filter(|_| served::on(deployment) != Some(&set.weights))?;
    let (name, users) = (deployment.told_name(to), served::named(deployment));
    Some(format!("{name} gets all traffic once a node of it can be called; users stay on {users}"))
}

/// Says that users are on a stack that does not pass, where a rollback that changed nothing could not help: it was rolled back
/// before, and no earlier version passes. Where no node of that can be called and the router has yet to serve it, says where users
/// are instead.
pub fn unhelped(deployment: &Deployment, id: &DeploymentId, probed: &Probed) -> Option<String> {
    let set = deployment.traffic.set.as_ref().filter(|set| set.purpose == Purpose::Rollback)?;
    if let Some(unserved) = unserved(deployment) {
        return Some(unserved);
    }
    let (stack, _) = set.weights.iter().find(|(stack, _)| fails(deployment, probed, *stack))?;
    let said = probed.failure(stack).unwrap_or("no node of it can be called");
    let (name, why) = (deployment.told_name(stack), stranded::why(deployment, stack, said));
    Some(format!(
        "{id} is rolled back already and users stay on {name}, which does not pass ({why}): no earlier version passes that a rollback may go to"
    ))
}

/// Returns the command that overrules a rollback which waits for its target, where there is a stack that it would go to and the
/// router can send users there.
pub fn unready(deployment: &Deployment, id: &DeploymentId) -> Option<String> {
    let target = target_by(deployment, &Probed::default(), false);
    let warm = matches!(target, Some(Target::Warm { stack, .. }) if deployment.can_be_called(stack));
    warm.then(|| format!("ionledger rollback {} --unready", id.arguments()))
}

/// Says why a rollback cannot move users without the ledger, by what the newest probes say: its target must be started first.
/// Names the command that moves them all the same, where there is one.
pub fn why_cold(deployment: &Deployment, id: &DeploymentId, probed: &Probed, past: bool) -> String {
    let target = match target_by(deployment, probed, past) {
        Some(Target::Failing { stack, why }) => {
            let (name, why) = (deployment.told_name(stack), stranded::why(deployment, stack, &why));
            format!("no node of the rollback target {name} passes its check ({why})")
        }
        Some(Target::Gone { version, .. }) => format!("the stack of the rollback target {version} is gone"),
        Some(Target::Warm { stack, .. }) => {
            format!("the rollback target {} must be started first", deployment.told_name(stack))
        }
        None => "there is no version to go back to".to_owned(),
    };
    let users = served::named(deployment);
    let unready = unready(deployment, id).map(|next| format!("; `{next}` sends all traffic there now"));
    format!(
        "{target}, and without the ledger nothing starts it again; users stay on {users}{}",
        unready.unwrap_or_default()
    )
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
    let (to, passed_over) = match target_by(deployment, case.probed, case.service.goes_past()) {
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
    let serving = deployment.traffic.stacks_set();
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
    let unready = unready(case.deployment, case.id).map(|next| format!("; `{next}` sends all traffic there now"));
    decision.notes.push(format!(
        "users stay where they are: no node of the rollback target {name} passes its check ({why}). It is started again \
         and gets all traffic once it is ready{}",
        unready.unwrap_or_default()
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
