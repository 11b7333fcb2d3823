//! Steps: when a rollout's next one may be taken, and what must be recorded with it.

use std::time::Duration;

use schemas::command::DeploymentOutcome;
use schemas::judgement::{Begun, Counted, Judged, Verdict};
use schemas::policy::Deadline;
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{Event, RolloutId, Stream, Timestamp, Weight, Weights, rollout};

use super::rollout::{Rollout, Step};
use super::{Case, Deployment};
use crate::decide::{Decision, Rejection};
use crate::judgement::hearing::Hearing;
use crate::judgement::metric::Trial;
use crate::judgement::policy;

/// Whether a rollout's next step may be taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not before this moment.
    NotBefore(Timestamp),
    /// It is due, but something speaks against it. The reason holds no counts, so that it is the same at every look.
    Held(String),
}

/// How long the weights of a step are judged at least before those of the next, where the judgement sets the pace. Source:
/// "Judging a canary", the ramp rule: a rise by four each time that the weights are moved.
const STEP_MIN: Duration = Duration::from_secs(2);

/// Returns whether `rollout` may take its next step, by what the judge knows.
///
/// Without `early` in the policy no step is taken before the plan has it. A step is more than the ramp allows until the
/// canary is accepted or the plan is at its end; then the policy's deadline decides. Without the minimum of requests, or
/// without one during the step, nothing is.
pub fn gate(rollout: &Rollout, hearing: Option<&Hearing>, now: Timestamp) -> Gate {
    let Some((next, weight)) = rollout.next_step().map(|next| (next, rollout.plan.steps[usize::from(next)])) else {
        return Gate::Held("no step is left".to_owned());
    };
    let (Some(last), false) = (&rollout.step, rollout.is_unjudged()) else {
        let due = rollout.due_at(next);
        return if now < due { Gate::NotBefore(due) } else { Gate::Open };
    };
    let Some(hearing) = hearing else { return Gate::Held("the judge has not begun to listen".to_owned()) };
    let not_before = due(rollout, hearing, last, next, weight);
    if now < not_before {
        return Gate::NotBefore(not_before);
    }
    match against(rollout, hearing, last, weight, now) {
        None => Gate::Open,
        Some(reason) => Gate::Held(reason),
    }
}

/// When the step is due: as planned, or, with `early`, as soon as the judgement lets it. All traffic waits for the soak.
fn due(rollout: &Rollout, hearing: &Hearing, last: &Step, next: u16, weight: Weight) -> Timestamp {
    let (policy, planned) = (&rollout.policy, rollout.due_at(next));
    let soaked = if weight == Weight::FULL { rollout.after_ms(policy.judgement.soak_ms) } else { rollout.started_at };
    let Some(after_ms) = policy.rollout.early_after_ms else { return planned.max(soaked) };
    let accepted = hearing.judge().verdict() == Verdict::NotWorse;
    let early = match weight {
        Weight::FULL if accepted => rollout.after_ms(after_ms.max(policy.judgement.soak_ms)),
        Weight::FULL => planned,
        _ if weight <= weight_max(rollout, hearing) => rollout.started_at,
        _ => planned,
    };
    let stayed = last.at.checked_add(STEP_MIN).unwrap_or(Timestamp::MAX);
    early.max(stayed).min(planned).max(soaked)
}

/// The most that the ramp gives the canary now.
fn weight_max(rollout: &Rollout, hearing: &Hearing) -> Weight {
    let judge = hearing.judge();
    let accepted = judge.verdict() == Verdict::NotWorse;
    let ramp = policy::ramp(&rollout.policy.judgement);
    ramp.weight_max(Weight::ZERO, hearing.requests_per_second(), judge.severity_excluded(), accepted)
}

/// What speaks against a step that is due.
fn against(rollout: &Rollout, hearing: &Hearing, last: &Step, weight: Weight, now: Timestamp) -> Option<String> {
    let (judge, policy) = (hearing.judge(), &rollout.policy.judgement);
    let (canary, min) = (hearing.measured().canary.requests, policy.requests_min);
    if judge.verdict() == Verdict::Worse {
        return Some("the canary is judged worse".to_owned());
    }
    if canary == 0 {
        return Some(format!("the canary got no requests, {min} are needed"));
    }
    if judge.routing().is_broken() {
        return Some(
            "the router does not share requests out as the weights say; that says nothing of the canary".into(),
        );
    }
    if judge.in_incident() {
        return Some("the baseline itself is in an incident; nothing is learnt of the canary meanwhile".to_owned());
    }
    if canary < min {
        return Some(format!("the canary needs {min} requests in all"));
    }
    // Counts of another rule than this judge's are no place to count from.
    let before =
        if last.counted_from.epoch == schemas::judgement::IN_TICKS { last.counted_from.canary.requests } else { 0 };
    if canary <= before {
        return Some("the canary got no requests since its last step".to_owned());
    }
    // A burst is told from a bad version by its end; one bad node is named.
    if judge.bad_node().is_none() && judge.trials().iter().any(Trial::is_far_above) {
        return Some("the canary fails far above the tolerance; whether that is a burst is not told yet".to_owned());
    }
    if judge.verdict() == Verdict::NotWorse {
        return None;
    }
    let ended = now >= rollout.ends_at();
    match policy.deadline {
        Deadline::GoOn if ended => None,
        Deadline::Hold if ended => {
            Some("the plan is at its end and the canary is not accepted; the policy says hold".to_owned())
        }
        Deadline::GoOn | Deadline::Hold if weight <= weight_max(rollout, hearing) => None,
        Deadline::GoOn | Deadline::Hold => {
            let most = policy::ramp(policy).until_accepted;
            Some(if weight > most {
                format!("until the canary is accepted or the plan ends it gets at most {most}")
            } else {
                format!("the canary may still be so bad that more would risk over {} requests", policy.bad_requests_max)
            })
        }
    }
}

impl Rollout {
    /// Says whether all traffic comes at once, so that there is nothing to compare.
    pub fn is_unjudged(&self) -> bool {
        self.plan.steps.len() == 1
    }

    /// Returns when the plan ends, as it and the pauses so far have it.
    pub fn ends_at(&self) -> Timestamp {
        self.due_at(u16::try_from(self.plan.steps.len().saturating_sub(1)).unwrap_or(u16::MAX))
    }
}

impl Case<'_> {
    fn hearing(&self, rollout: RolloutId) -> Option<&Hearing> {
        self.judgements.and_then(|judgements| judgements.of(rollout))
    }

    /// Returns what the judge knows once `counted` is recorded too.
    fn heard(&self, rollout: RolloutId, counted: Option<&Counted>) -> Result<Option<Hearing>, String> {
        let mut hearing = self.hearing(rollout).cloned();
        if let Some(counted) = counted {
            let hearing = hearing.as_mut().ok_or("the judge has not begun to listen to it")?;
            if !hearing.follows(counted) {
                return Err("what was counted does not follow what is recorded".to_owned());
            }
            hearing.hear(counted);
        }
        Ok(hearing)
    }

    /// Returns what the judge knows once `counted` is recorded too, if it then says what `judged` has.
    pub(super) fn check_judged(
        &self,
        rollout: &Rollout,
        counted: Option<&Counted>,
        judged: Option<&Judged>,
    ) -> Result<Option<Hearing>, String> {
        let hearing = self.heard(rollout.id, counted)?;
        let Some(judged) = judged else { return Ok(hearing) };
        let said = hearing.as_ref().and_then(|hearing| judged_of(self.deployment, rollout, hearing));
        if said.as_ref() == Some(judged) {
            Ok(hearing)
        } else {
            Err("its verdict is not what the judge says of what was counted".to_owned())
        }
    }

    /// The events of the judge's stream, before those of the decision.
    pub(super) fn with_judgement(
        &self,
        mut decision: Decision,
        counted: Option<&Counted>,
        judged: Option<&Judged>,
    ) -> Decision {
        let counted = counted.filter(|counted| !counted.ticks.is_empty()).cloned().map(Event::from);
        let events: Vec<Event> = counted.into_iter().chain(judged.cloned().map(Event::from)).collect();
        let stream = Stream::Judgement(self.id.clone());
        if events.is_empty() {
            return decision.requiring(stream);
        }
        decision.events.splice(0..0, events.into_iter().map(|event| (stream.clone(), event)));
        decision
    }
}

/// Returns what the judge says of a rollout at its present step; nothing before the first, or if its canary is gone.
pub fn judged_of(deployment: &Deployment, rollout: &Rollout, hearing: &Hearing) -> Option<Judged> {
    let step = rollout.step.as_ref()?.number;
    Some(hearing.judged(step, deployment.version_of(rollout.canary)?.as_str()))
}

/// Decides that the judge begins to listen to a rollout: none if it does.
///
/// # Errors
///
/// [`Rejection::Outdated`] if the rollout has ended, or what the judge is told is not what the rollout has.
pub(super) fn decide_begin(case: &Case<'_>, begun: &Begun) -> Result<Decision, Rejection> {
    let outdated = |why: &str| Rejection::Outdated(format!("rollout {}: {why}", begun.rollout));
    let rollout = case.deployment.rollout.as_ref().filter(|live| live.is_live() && live.id == begun.rollout);
    let rollout = rollout.ok_or_else(|| outdated("it has ended"))?;
    if case.hearing(rollout.id).is_some() {
        return Ok(Decision::default());
    }
    if begun.plan != rollout.plan || begun.policy != rollout.policy.judgement {
        return Err(outdated("it has another plan or policy"));
    }
    Hearing::begin(begun.clone()).map_err(|error| outdated(&error.to_string()))?;
    Ok(Decision::on(Stream::Judgement(case.id.clone()), vec![begun.clone().into()]).requiring(case.stream()))
}

/// Decides that what was counted is recorded. It does not rely on the deployment's head, so that it neither waits for
/// it nor keeps it hot.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it does not follow what is recorded, or the judge says something else of it.
pub(super) fn decide_count(case: &Case<'_>, counted: &Counted, judged: Option<&Judged>) -> Result<Decision, Rejection> {
    let outdated = |why: String| Rejection::Outdated(format!("rollout {}: {why}", counted.rollout));
    let rollout = case.deployment.rollout.as_ref().filter(|rollout| rollout.id == counted.rollout);
    let rollout = rollout.ok_or_else(|| outdated("another has taken its place".to_owned()))?;
    case.check_judged(rollout, Some(counted), judged).map_err(outdated)?;
    let events = [Event::from(counted.clone())].into_iter().chain(judged.cloned().map(Event::from));
    Ok(Decision::on(Stream::Judgement(case.id.clone()), events.collect()))
}

/// Decides that a rollout takes its next step. The last one completes it.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is not running, the step is not the next or not due, the canary is not ready, or the
/// judge does not let it, on what is recorded and what was counted since.
pub(super) fn decide_step(case: &Case<'_>, outcome: &DeploymentOutcome) -> Result<Decision, Rejection> {
    let DeploymentOutcome::TakeStep { rollout, step, counted, judged } = outcome else {
        return Ok(Decision::default());
    };
    let rollout = case.running(*rollout)?;
    let outdated = |why: &str| Rejection::Outdated(format!("rollout {}: {why}", rollout.id));
    if rollout.next_step() != Some(*step) {
        return Err(outdated("that is not its next step"));
    }
    if case.deployment.stacks.get(&rollout.canary).is_none_or(super::Stack::is_unfit) {
        return Err(outdated("its canary is not ready"));
    }
    let hearing = case.check_judged(rollout, counted.as_ref(), judged.as_ref()).map_err(|why| outdated(&why))?;
    if !rollout.is_unjudged() && hearing.is_none() {
        return Err(outdated("the judge has not begun to listen to it"));
    }
    match gate(rollout, hearing.as_ref(), case.now.time) {
        Gate::Open => {}
        Gate::NotBefore(_) => return Err(outdated("its next step is not due")),
        Gate::Held(why) => return Err(outdated(&why)),
    }
    if rollout.step.is_some() && judged.is_none() {
        return Err(outdated("the judge said nothing of the step before"));
    }
    let weight = rollout.plan.steps[usize::from(*step)];
    let counted_from = hearing.as_ref().map(Hearing::measured).unwrap_or_default();
    let taken = rollout::StepTaken { rollout: rollout.id, step: *step, weight, counted_from };
    let weights = Weights::split(rollout.baseline, rollout.canary, weight);
    let set = WeightsSet { weights, purpose: Purpose::Step { rollout: rollout.id, step: *step } };
    let mut events: Vec<Event> = vec![taken.into(), set.into()];
    if weight == Weight::FULL {
        events.push(rollout::Completed { rollout: rollout.id }.into());
    }
    Ok(case.with_judgement(Decision::on(case.stream(), events), counted.as_ref(), judged.as_ref()))
}

/// Decides that a due step is not taken yet: none if the same is known.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is not running, or the judge says something else.
pub(super) fn decide_hold(case: &Case<'_>, outcome: &DeploymentOutcome) -> Result<Decision, Rejection> {
    let DeploymentOutcome::Hold { rollout, reason, counted, judged } = outcome else { return Ok(Decision::default()) };
    let rollout = case.running(*rollout)?;
    if rollout.held.as_ref() == Some(reason) {
        return Ok(Decision::default());
    }
    let outdated = |why: String| Rejection::Outdated(format!("rollout {}: {why}", rollout.id));
    case.check_judged(rollout, counted.as_ref(), judged.as_ref()).map_err(outdated)?;
    let step = rollout.step.as_ref().map_or(0, |step| step.number);
    let held = rollout::Held { rollout: rollout.id, step, reason: reason.clone() };
    Ok(case.with_judgement(Decision::on(case.stream(), vec![held.into()]), counted.as_ref(), judged.as_ref()))
}
