//! What people do to a rollout: pause it, let it go on, give it up, or give its canary all traffic.

use schemas::rollout;
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{Weights, text};

use super::super::{Case, Stack, hold, rollback};
use super::{Phase, Rollout, START_ONE};
use crate::decide::{Decision, Rejection};

/// While a node of the canary passes its check, an abort sends its users to no baseline that has none.
fn check_baseline_passes(case: &Case<'_>, rollout: &Rollout) -> Result<(), Rejection> {
    let failure = rollback::failure(case.deployment, case.probed, rollout.baseline);
    let Some((why, version)) = failure.zip(case.deployment.name_of(rollout.baseline)) else { return Ok(()) };
    let why = format!(
        "no node of it passes its check ({why}), and the canary's users would be sent there; `ionledger rollback {0}` goes to \
         an older version or starts this one again, and `ionledger rollback {0} --unready` sends them there all the same",
        case.id.arguments()
    );
    Err(Rejection::NotReady { deployment: case.id.clone(), version, why })
}

/// Decides `pause`: none if it is paused.
///
/// # Errors
///
/// [`Rejection::NoRollout`].
pub(in crate::deployment) fn decide_pause(case: &Case<'_>) -> Result<Decision, Rejection> {
    let rollout = case.live_rollout(START_ONE)?;
    if !rollout.is_running() {
        return Ok(Decision::default());
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

/// Decides `abort`: none if the last rollout was aborted. It does not ask what the ledger knows of the baseline: that has most
/// of the traffic, and a canary is given up for a reason.
///
/// # Errors
///
/// [`Rejection::NoRollout`], or [`Rejection::NotReady`] if the probes say that no node of the baseline passes its check and
/// one of the canary does.
pub(in crate::deployment) fn decide_abort(case: &Case<'_>) -> Result<Decision, Rejection> {
    if case.deployment.rollout.as_ref().is_some_and(|rollout| rollout.phase == Phase::Aborted) {
        return Ok(Decision::default());
    }
    let rollout = case.live_rollout(&nothing_to_abort(case))?;
    check_baseline_passes(case, rollout)?;
    let aborted = rollout::Aborted { rollout: rollout.id, reason: case.by.because(text::UNSAID) };
    let weights = Weights::all_on(rollout.baseline);
    let set = WeightsSet { weights, purpose: Purpose::Abort { rollout: rollout.id } };
    let mut decision = Decision::on(case.stream(), vec![aborted.into(), set.into()]);
    if let Some(why) = case.deployment.stacks.get(&rollout.baseline).and_then(Stack::not_ready) {
        decision.notes.push(format!("the baseline has all traffic again, but {why}; `ionledger traffic` moves it on"));
    }
    Ok(decision)
}

/// What to do for who aborts where no rollout is under way: nothing after a rollback, which another one would not better.
fn nothing_to_abort(case: &Case<'_>) -> String {
    let traffic = &case.deployment.traffic;
    let name = |stack| case.deployment.name_of(stack).map_or("a gone stack".to_owned(), |name| name.to_string());
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
        None => format!("`ionledger rollback {}` sends all traffic back to the version before", case.id.arguments()),
    }
}

/// Decides `promote`: none if the last rollout was promoted or came to its end by itself.
///
/// # Errors
///
/// [`Rejection::NoRollout`], or [`Rejection::NotReady`] if the canary cannot take the traffic.
pub(in crate::deployment) fn decide_promote(case: &Case<'_>) -> Result<Decision, Rejection> {
    let last = case.deployment.rollout.as_ref();
    if last.is_some_and(|rollout| matches!(rollout.phase, Phase::Promoted | Phase::Completed)) {
        return Ok(Decision::default());
    }
    let rollout = case.live_rollout(START_ONE)?;
    if rollout.is_at_end() {
        let note = "its last step is taken; the rollout is complete once the router has confirmed it";
        return Ok(Decision::nothing(note.to_owned()));
    }
    let canary = case.deployment.stacks.get(&rollout.canary).ok_or_else(|| case.canary_gone())?;
    if let Some(why) = canary.not_ready() {
        return Err(Rejection::NotReady { deployment: case.id.clone(), version: canary.name(), why });
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
