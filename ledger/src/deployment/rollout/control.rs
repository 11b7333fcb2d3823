//! What people do to a rollout: pause it, let it go on, give it up, or give its canary all traffic.

use schemas::rollout;
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{StackName, Weight, Weights, text};

use super::super::rejected::{self, Rejected};
use super::super::{Case, NotReady, Stack, hold, rollback};
use super::{Phase, Rollout, START_ONE};
use crate::decision::{Decision, Rejection};

/// While a node of the canary passes its check, an abort sends its users to no baseline that has none.
fn check_baseline_passes(case: &Case<'_>, rollout: &Rollout) -> Result<(), Rejection> {
    let failure = rollback::failure(case.deployment, case.probed, rollout.baseline);
    let Some((why, version)) = failure.zip(case.deployment.name_of(rollout.baseline)) else { return Ok(()) };
    let why = format!("no node of it passes its check ({why}), and the canary's users would be sent there");
    let next = format!(
        "`ionledger rollback {0}` goes to an older version or starts this one again, and `ionledger rollback {0} --unready` \
         sends them there all the same",
        case.id.arguments()
    );
    Err(Rejection::NotReady { deployment: case.id.clone(), version, why: why.into(), next: next.into() })
}

/// Decides `pause`: none if it is paused.
///
/// # Errors
///
/// [`Rejection::NoRollout`].
pub(in crate::deployment) fn decide_pause(case: &Case<'_>) -> Result<Decision, Rejection> {
    let rollout = case.live_rollout(START_ONE)?;
    if let Phase::Paused { since, reason } = &rollout.phase {
        let at = since.strftime("%Y-%m-%dT%H:%M:%SZ");
        let lost = case
            .by
            .reason
            .filter(|given| given != reason)
            .map_or("", |_| "; the reason that you give is not kept: resume it first, then pause it with that");
        let why = text::given(reason).map(|reason| format!(" ({reason})")).unwrap_or_default();
        return Ok(Decision::nothing(format!("{} is paused already, since {at}{why}{lost}", case.id)));
    }
    let paused = rollout::Paused { rollout: rollout.id, reason: case.by.because(text::UNSAID) };
    Ok(Decision::on(case.stream(), vec![paused.into()]))
}

/// Decides `resume`: none if it is running.
///
/// # Errors
///
/// [`Rejection::NoRollout`].
pub(in crate::deployment) fn decide_resume(case: &Case<'_>) -> Result<Decision, Rejection> {
    let rollout = case.live_rollout(START_ONE)?;
    if rollout.is_running() {
        return Ok(Decision::default());
    }
    Ok(Decision::on(case.stream(), vec![rollout::Resumed { rollout: rollout.id }.into()]))
}

/// Decides `abort`: it ends the rollout under way; where there is none, it drops the one that waits; none if the last rollout was
/// aborted, its canary has no traffic since, and none waits. It does not ask what the ledger knows of the baseline: that has most
/// of the traffic, and a canary is given up for a reason.
///
/// # Errors
///
/// [`Rejection::NoRollout`], or [`Rejection::NotReady`] if the probes say that no node of the baseline passes its check and
/// one of the canary does.
pub(in crate::deployment) fn decide_abort(case: &Case<'_>) -> Result<Decision, Rejection> {
    let last = case.deployment.rollout.as_ref();
    if !last.is_some_and(Rollout::is_live)
        && let Some(waiting) = &case.deployment.waiting
    {
        let reason = case.by.and_because(BEFORE_IT_BEGAN);
        let dropped = rollout::RequestDropped { stack: waiting.stack, reason };
        return Ok(Decision::on(case.stream(), vec![dropped.into()]));
    }
    if let Some(name) = dropped_by_abort(case) {
        return Ok(Decision::nothing(format!("the waiting rollout of {name} was dropped already")));
    }
    let unused = |stack| case.deployment.traffic.set_weight(stack) == Weight::ZERO;
    if last.is_some_and(|rollout| rollout.phase == Phase::Aborted && unused(rollout.canary)) {
        return Ok(Decision::default());
    }
    let rollout = case.live_rollout(&nothing_to_abort(case))?;
    check_baseline_passes(case, rollout)?;
    let aborted = rollout::Aborted { rollout: rollout.id, reason: case.by.because(text::UNSAID) };
    let weights = Weights::all_on(rollout.baseline);
    let set = WeightsSet { weights, purpose: Purpose::Abort { rollout: rollout.id } };
    let mut decision = Decision::on(case.stream(), vec![aborted.into(), set.into()]);
    if let Some(NotReady { why, .. }) = case.deployment.stacks.get(&rollout.baseline).and_then(Stack::not_ready) {
        decision.notes.push(format!("the baseline has all traffic again, but {why}; `ionledger traffic` moves it on"));
    }
    Ok(decision)
}

/// Why an abort drops what waits.
const BEFORE_IT_BEGAN: &str = "it was aborted before it began";

/// Returns what an abort dropped, if no rollout has ended or is under way since.
fn dropped_by_abort(case: &Case<'_>) -> Option<StackName> {
    let last = case.deployment.dropped.last().filter(|last| last.reason.starts_with(BEFORE_IT_BEGAN))?;
    let rollout = case.deployment.rollout.as_ref();
    let is_last = rollout.is_none_or(|rollout| !rollout.is_live() && rollout.started_at < last.at);
    is_last.then(|| StackName::new(last.version.clone(), last.number))
}

/// What to do for who aborts where no rollout is under way: nothing after a rollback, which another one would not better.
fn nothing_to_abort(case: &Case<'_>) -> String {
    let traffic = &case.deployment.traffic;
    let name = |stack| case.deployment.told_name(stack);
    let undone = "there is nothing to abort";
    if let Some(awaited) = traffic.awaited {
        return format!("{undone}: it is being rolled back, and {} gets all traffic once it is ready", name(awaited));
    }
    match traffic.set.as_ref().filter(|set| set.purpose == Purpose::Rollback) {
        Some(set) => {
            let (to, at) = (set.weights.sole().map(name), set.at.strftime("%Y-%m-%dT%H:%M:%SZ"));
            let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
            format!("{undone}: all traffic went back{to} by a rollback at {at}")
        }
        None if matches!(rollback::target(case.deployment), Some(rollback::Target::Warm { .. })) => {
            format!("`ionledger rollback {}` sends all traffic back to the version before", case.id.arguments())
        }
        None => {
            format!("{undone}, and no version to go back to; look at `ionledger status {}`", case.id.arguments())
        }
    }
}

/// What to do for who promotes where no rollout is under way: where the last one's canary had all traffic and lost it since, how
/// it gets that again.
fn nothing_to_promote(case: &Case<'_>) -> String {
    let (deployment, id) = (case.deployment, case.id);
    let (traffic, name) = (&deployment.traffic, |stack| deployment.told_name(stack));
    let undone = "there is nothing to promote";
    if let Some(awaited) = traffic.awaited {
        return format!("{undone}: it is being rolled back, and {} gets all traffic once it is ready", name(awaited));
    }
    let promoted = deployment.rollout.as_ref().filter(|rollout| rollout.had_all());
    let canary = promoted
        .map(|rollout| rollout.canary)
        .filter(|canary| deployment.stacks.get(canary).is_some_and(|stack| stack.phase == super::super::Phase::Ready));
    let set = traffic.set.as_ref().and_then(|set| Some((set, set.weights.sole()?)));
    let (Some((set, serving)), Some(canary)) = (set, canary) else { return START_ONE.to_owned() };
    let how = match set.purpose {
        Purpose::Rollback => {
            let at = set.at.strftime("%Y-%m-%dT%H:%M:%SZ");
            format!("all traffic went back to {} by a rollback at {at}", name(serving))
        }
        _ => format!("all traffic is on {}", name(serving)),
    };
    let needs_again = rejected::of(deployment, canary).is_some_and(Rejected::needs_again);
    let again = if needs_again { " --again --reason WHY" } else { "" };
    let [from, to] = [serving, canary].map(name);
    format!(
        "{undone}: {how}, and `ionledger roll {} {from} {to}{}{again}` tries {to} once more",
        id.service,
        id.env_flag()
    )
}

/// Decides `promote`: none if the last rollout was promoted or came to its end by itself, and its canary still has all traffic.
///
/// # Errors
///
/// [`Rejection::NoRollout`], or [`Rejection::NotReady`] if the canary cannot take the traffic.
pub(in crate::deployment) fn decide_promote(case: &Case<'_>) -> Result<Decision, Rejection> {
    let last = case.deployment.rollout.as_ref();
    let traffic = &case.deployment.traffic;
    let has_all = |stack| traffic.awaited.is_none() && traffic.set_weight(stack) == Weight::FULL;
    if last.is_some_and(|rollout| rollout.had_all() && has_all(rollout.canary)) {
        return Ok(Decision::default());
    }
    let rollout = case.live_rollout(&nothing_to_promote(case))?;
    if rollout.is_at_end() {
        let note = "its last step has been taken; the rollout is complete once the router has confirmed it";
        return Ok(Decision::nothing(note.to_owned()));
    }
    let canary = case.deployment.stacks.get(&rollout.canary).ok_or_else(|| case.canary_gone())?;
    if let Some(not_ready) = canary.not_ready() {
        return Err(not_ready.refused(case.id, canary.name()));
    }
    hold::check(case, &canary.version)?;
    let reason = case.by.because("over the judgement");
    let promoted = rollout::Promoted { rollout: rollout.id, reason };
    let weights = Weights::all_on(rollout.canary);
    let left = case.left_for_older(&weights);
    let set = WeightsSet { weights, purpose: Purpose::Promotion { rollout: rollout.id } };
    let events = [promoted.into()].into_iter().chain(left).chain([set.into()]);
    Ok(Decision::on(case.stream(), events.collect()))
}
