//! Steps: when a rollout's next one may be taken, and what must be recorded with it.

use schemas::judgement::{Begun, Counted, Judged, Verdict};
use schemas::outcome;
use schemas::policy::Deadline;
use schemas::rollout::HoldKind;
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{Event, RolloutId, Stream, Timestamp, Weight, Weights, rollout, text};

use super::rollout::{Phase, Rollout, Step, later};
use super::{Case, Deployment, Traffic};
use crate::decision::{Decision, Rejection};
use crate::judgement::Judgements;
use crate::judgement::analysis::Analysis;
use crate::judgement::metric::Trial;
use crate::judgement::policy;

/// Whether a rollout's next step may be taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not before this moment.
    NotBefore(Timestamp),
    /// It is due, but something speaks against it.
    Held(Hold),
}

/// What a due step waits for. The reason holds no counts, so that it is the same at every look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What kind of thing.
    pub kind: HoldKind,
    /// In words.
    pub reason: String,
}

impl Hold {
    /// Returns a hold for a reason.
    pub fn new(kind: HoldKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// For how long nothing must have been recorded of a rollout before nobody is said to have driven it, in milliseconds.
pub const UNDRIVEN_MS_MIN: u64 = 5_000;

/// Returns whether `rollout` may take its next step, by what the judge knows.
///
/// No step is taken before the plan's distance from the one before it has passed; `early` in the policy shortens that. A
/// step is more than the ramp allows until the canary is accepted or the plan is at its end; then the policy's deadline
/// decides. Without the minimum of requests, or without one during the step, nothing is.
pub fn gate(traffic: &Traffic, rollout: &Rollout, analysis: Option<&Analysis>, now: Timestamp) -> Gate {
    let Some((next, weight)) = rollout.next_step().map(|next| (next, rollout.plan.steps[usize::from(next)])) else {
        return Gate::Held(Hold::new(HoldKind::NoStep, "no step is left"));
    };
    let (Some(last), false) = (&rollout.step, rollout.is_unjudged()) else {
        let due = rollout.due_at(next);
        return if now < due { Gate::NotBefore(due) } else { Gate::Open };
    };
    let Some(analysis) = analysis else {
        return Gate::Held(Hold::new(HoldKind::Judge, "the judge has not begun to listen"));
    };
    let not_before = due(traffic, rollout, analysis, last, next, weight);
    if now < not_before {
        return Gate::NotBefore(not_before);
    }
    match against(rollout, analysis, last, weight, now) {
        None => Gate::Open,
        Some(hold) => Gate::Held(hold),
    }
}

/// When the step is due: as planned, or, with `early`, as soon as the judgement lets it; a bake is not shortened. All traffic
/// waits for the soak.
fn due(traffic: &Traffic, rollout: &Rollout, analysis: &Analysis, last: &Step, next: u16, weight: Weight) -> Timestamp {
    let (policy, planned) = (&rollout.policy, rollout.due_at(next));
    let soaked = if weight == Weight::FULL { rollout.after_ms(policy.judgement.soak_ms) } else { planned };
    let Some(after_ms) = policy.rollout.early_after_ms.filter(|_| !rollout.is_baking()) else {
        return planned.max(soaked);
    };
    let accepted = analysis.judge().verdict() == Verdict::NotWorse;
    // The bake gives the canary nearly all traffic, so it begins when all of it would be given without one.
    let is_all = weight == Weight::FULL || rollout.plan.bake_step() == Some(next);
    let early = match weight {
        _ if is_all && accepted => rollout.after_ms(after_ms),
        _ if is_all => planned,
        _ if weight <= weight_max(rollout, analysis) => last.at,
        _ => planned,
    };
    let early = early.max(stayed(traffic, rollout, last).unwrap_or(planned)).min(planned);
    if weight == Weight::FULL { early.max(soaked) } else { early }
}

/// Until when a step is judged at least where the judgement sets the pace: 2 s, two readings of the source, and until the
/// router has settled, which it has by the time it confirms the weights. None before that.
fn stayed(traffic: &Traffic, rollout: &Rollout, last: &Step) -> Option<Timestamp> {
    let settled_at = traffic.applied.as_ref().filter(|_| traffic.is_applied())?.at;
    let ms = policy::step_ms_min(&rollout.policy.judgement).saturating_add(rollout.paused_ms_since(last));
    Some(later(last.at, ms).max(settled_at))
}

/// The most that the ramp gives the canary now.
fn weight_max(rollout: &Rollout, analysis: &Analysis) -> Weight {
    let judge = analysis.judge();
    let accepted = judge.verdict() == Verdict::NotWorse;
    let ramp = policy::ramp(&rollout.policy.judgement);
    ramp.weight_max(Weight::ZERO, analysis.requests_per_second(), judge.severity_excluded(), accepted)
}

/// What speaks against a step that is due.
fn against(rollout: &Rollout, analysis: &Analysis, last: &Step, weight: Weight, now: Timestamp) -> Option<Hold> {
    let hold = |kind, reason: String| Some(Hold { kind, reason });
    let (judge, policy) = (analysis.judge(), &rollout.policy.judgement);
    let (canary, min) = (analysis.measured().canary.requests, policy.requests_min);
    if judge.verdict() == Verdict::Worse {
        return hold(HoldKind::Worse, "the canary is judged worse".to_owned());
    }
    if canary == 0 {
        return hold(
            HoldKind::NoRequests,
            format!("the canary got no requests, {min} {} needed", if min == 1 { "is" } else { "are" }),
        );
    }
    if judge.share_alarm().is_broken() {
        let reason = "the router does not share requests out as the weights say; that says nothing about the canary";
        return hold(HoldKind::Routing, reason.to_owned());
    }
    if judge.in_incident() {
        let reason = "the baseline itself has an incident; nothing can be learned about the canary until it is over";
        return hold(HoldKind::Incident, reason.to_owned());
    }
    if canary < min {
        return hold(
            HoldKind::FewRequests,
            format!("the canary needs {} in all", text::count(min, "request", "requests")),
        );
    }
    // Counts of another rule than this judge's are no place to count from.
    let before =
        if last.counted_from.epoch == schemas::judgement::IN_TICKS { last.counted_from.canary.requests } else { 0 };
    if canary <= before {
        return hold(HoldKind::NoneSinceStep, "the canary got no requests since its last step".to_owned());
    }
    // A burst is told from a bad version by its end; one bad node is named.
    if judge.bad_node().is_none() && judge.trials().iter().any(Trial::is_far_above) {
        let reason = "the canary's failures are far above the tolerance; it is not known yet whether that is a burst";
        return hold(HoldKind::Burst, reason.to_owned());
    }
    if judge.verdict() == Verdict::NotWorse {
        return None;
    }
    let ended = now >= rollout.ends_at();
    match policy.deadline {
        Deadline::GoOn if ended => None,
        Deadline::Hold if ended => {
            let reason = "the plan is at its end and the canary is not accepted; the policy says hold";
            hold(HoldKind::Deadline, reason.to_owned())
        }
        Deadline::GoOn | Deadline::Hold if weight <= weight_max(rollout, analysis) => None,
        Deadline::GoOn | Deadline::Hold => {
            let most = policy::ramp(policy).until_accepted;
            if weight > most {
                let reason = format!("until the canary is accepted or the plan ends it gets at most {most}");
                hold(HoldKind::Unaccepted, reason)
            } else {
                let most = policy.bad_requests_max;
                let reason = format!(
                    "the canary may still be so bad that more would risk over {}",
                    text::count(most.into(), "request", "requests")
                );
                hold(HoldKind::Risk, reason)
            }
        }
    }
}

/// When a rollout is expected to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// When its next step may be taken.
    pub next_at: Timestamp,
    /// How long the plan takes from there to all traffic, in milliseconds.
    pub then_ms: u64,
    /// How long it takes to all traffic once it goes on, in milliseconds, where nobody knows when that is: it is paused, or its due
    /// step waits for something that no clock brings. The times above are then those of going on now.
    pub remaining_ms: Option<u64>,
}

impl Expected {
    /// Returns when the canary is expected to have all traffic.
    pub fn end_at(self) -> Timestamp {
        later(self.next_at, self.then_ms)
    }
}

/// Returns when a live rollout is expected to go on and to end, as of `now`; none if no step is left.
///
/// Nobody knows when evidence comes: a step that waits for requests is taken to be let soon. One that waits to be accepted
/// is let at the plan's end, where the policy says go on. A pause is taken to end now.
pub fn expected(traffic: &Traffic, rollout: &Rollout, analysis: Option<&Analysis>, now: Timestamp) -> Option<Expected> {
    let next = rollout.next_step().filter(|_| rollout.is_live())?;
    let paused_ms = match &rollout.phase {
        Phase::Paused { since, .. } => u64::try_from(now.duration_since(*since).as_millis()).unwrap_or(0),
        _ => 0,
    };
    let goes_on = rollout.policy.judgement.deadline == Deadline::GoOn;
    let next_at = match gate(traffic, rollout, analysis, now) {
        Gate::NotBefore(due) => later(due, paused_ms),
        Gate::Held(Hold { kind: HoldKind::Unaccepted | HoldKind::Risk, .. }) if goes_on => {
            later(rollout.ends_at(), paused_ms)
        }
        Gate::Open | Gate::Held(_) => later(rollout.due_at(next), paused_ms),
    };
    let waits = rollout.held.is_some() && next_at <= now;
    let next_at = next_at.max(now);
    let soaked = rollout.after_ms(rollout.policy.judgement.soak_ms).duration_since(next_at).as_millis();
    let then_ms = rollout.plan.all_ms().saturating_sub(rollout.plan.due_ms(next));
    let then_ms = then_ms.max(u64::try_from(soaked).unwrap_or(0));
    let until_next = u64::try_from(next_at.duration_since(now).as_millis()).unwrap_or(0);
    let stands = waits || matches!(rollout.phase, Phase::Paused { .. });
    Some(Expected { next_at, then_ms, remaining_ms: stands.then(|| until_next.saturating_add(then_ms)) })
}

/// Returns when somebody last gave a sign of driving a rollout.
pub fn driven_at(rollout: &Rollout, judgements: Option<&Judgements>) -> Timestamp {
    let heard_at = judgements.and_then(|judgements| judgements.heard_at(rollout.id));
    heard_at.map_or(rollout.driven_at, |heard_at| heard_at.max(rollout.driven_at))
}

impl Rollout {
    /// Says whether all traffic comes at once, so that there is nothing to compare.
    pub fn is_unjudged(&self) -> bool {
        self.plan.steps.len() == 1
    }
}

impl Case<'_> {
    fn analysis(&self, rollout: RolloutId) -> Option<&Analysis> {
        self.judgements.and_then(|judgements| judgements.of(rollout))
    }

    /// Returns what the judge knows once `counted` is recorded too.
    fn heard(&self, rollout: RolloutId, counted: Option<&Counted>) -> Result<Option<Analysis>, String> {
        let mut analysis = self.analysis(rollout).cloned();
        if let Some(counted) = counted {
            let analysis = analysis.as_mut().ok_or("the judge has not begun to listen to it")?;
            if !analysis.follows(counted) {
                return Err("what was counted does not follow what is recorded".to_owned());
            }
            analysis.take(counted);
        }
        Ok(analysis)
    }

    /// Returns what the judge knows once `counted` is recorded too, if it then says what `judged` has.
    pub(super) fn check_judged(
        &self,
        rollout: &Rollout,
        counted: Option<&Counted>,
        judged: Option<&Judged>,
    ) -> Result<Option<Analysis>, String> {
        let analysis = self.heard(rollout.id, counted)?;
        let Some(judged) = judged else { return Ok(analysis) };
        let said = analysis.as_ref().and_then(|analysis| judged_of(self.deployment, rollout, analysis));
        if said.as_ref() == Some(judged) {
            Ok(analysis)
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
pub fn judged_of(deployment: &Deployment, rollout: &Rollout, analysis: &Analysis) -> Option<Judged> {
    let step = rollout.step.as_ref()?.number;
    Some(analysis.judged(step, &deployment.name_of(rollout.canary)?.to_string()))
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
    if case.analysis(rollout.id).is_some() {
        return Ok(Decision::default());
    }
    if begun.plan != rollout.plan || begun.policy != rollout.policy.judgement {
        return Err(outdated("it has another plan or policy"));
    }
    Analysis::begin(begun.clone()).map_err(|error| outdated(&error.to_string()))?;
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

/// Decides that a rollout takes its next step. After the last one it is complete once the router has confirmed it.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is not running, the step is not the next or not due, the canary is not ready, or the
/// judge does not let it, on what is recorded and what was counted since.
pub(super) fn decide_step(case: &Case<'_>, taken: &outcome::TakeStep) -> Result<Decision, Rejection> {
    let outcome::TakeStep { rollout, step, counted, judged } = taken;
    let rollout = case.running(*rollout)?;
    let outdated = |why: &str| Rejection::Outdated(format!("rollout {}: {why}", rollout.id));
    if rollout.next_step() != Some(*step) {
        return Err(outdated("that is not its next step"));
    }
    if case.deployment.stacks.get(&rollout.canary).is_none_or(super::Stack::is_unfit) {
        return Err(outdated("its canary is not ready"));
    }
    let analysis = case.check_judged(rollout, counted.as_ref(), judged.as_ref()).map_err(|why| outdated(&why))?;
    if !rollout.is_unjudged() && analysis.is_none() {
        return Err(outdated("the judge has not begun to listen to it"));
    }
    match gate(&case.deployment.traffic, rollout, analysis.as_ref(), case.now.time) {
        Gate::Open => {}
        Gate::NotBefore(_) => return Err(outdated("its next step is not due")),
        Gate::Held(hold) => return Err(outdated(&hold.reason)),
    }
    if rollout.step.is_some() && judged.is_none() {
        return Err(outdated("the judge said nothing of the step before"));
    }
    let weight = rollout.plan.steps[usize::from(*step)];
    let counted_from = analysis.as_ref().map(Analysis::measured).unwrap_or_default();
    let taken = rollout::StepTaken { rollout: rollout.id, step: *step, weight, counted_from };
    let weights = Weights::split(rollout.baseline, rollout.canary, weight);
    let set = WeightsSet { weights, purpose: Purpose::Step { rollout: rollout.id, step: *step } };
    let mut events: Vec<Event> = vec![taken.into()];
    if weight == Weight::FULL {
        events.extend(case.left_for_older(&set.weights));
    }
    events.push(set.into());
    Ok(case.with_judgement(Decision::on(case.stream(), events), counted.as_ref(), judged.as_ref()))
}

/// Decides that a due step is not taken yet: none if the same kind of reason is known.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is not running, or the judge says something else.
pub(super) fn decide_hold(case: &Case<'_>, hold: &outcome::Hold) -> Result<Decision, Rejection> {
    let outcome::Hold { rollout, kind, reason, counted, judged } = hold;
    let rollout = case.running(*rollout)?;
    if !rollout.is_news(*kind, case.now.time) {
        return Ok(Decision::default());
    }
    let outdated = |why: String| Rejection::Outdated(format!("rollout {}: {why}", rollout.id));
    case.check_judged(rollout, counted.as_ref(), judged.as_ref()).map_err(outdated)?;
    let step = rollout.step.as_ref().map(|step| step.number);
    let held = rollout::Held { rollout: rollout.id, step, kind: *kind, reason: reason.clone() };
    Ok(case.with_judgement(Decision::on(case.stream(), vec![held.into()]), counted.as_ref(), judged.as_ref()))
}

/// Decides that a running rollout is driven again, of which nothing was recorded for a time.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it is not running, or was driven a moment ago.
pub(super) fn decide_drive_again(case: &Case<'_>, rollout: RolloutId) -> Result<Decision, Rejection> {
    let rollout = case.running(rollout)?;
    let since = driven_at(rollout, case.judgements);
    let undriven_ms = u64::try_from(case.now.time.duration_since(since).as_millis()).unwrap_or(0);
    if undriven_ms < UNDRIVEN_MS_MIN {
        return Err(Rejection::Outdated(format!("rollout {}: it was driven a moment ago", rollout.id)));
    }
    let again = rollout::DrivenAgain { rollout: rollout.id, undriven_ms };
    Ok(Decision::on(case.stream(), vec![again.into()]))
}
