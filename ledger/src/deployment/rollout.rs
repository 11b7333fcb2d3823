//! A rollout: the plan and progress of moving weight from baseline to canary.

mod control;

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::command::PlanAsked;
use schemas::judgement::Measured;
use schemas::policy::Policy;
use schemas::rollout::{self, HoldKind, Plan};
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{Event, RolloutId, StackId, StackName, Stream, Timestamp, Version, Weight, Weights};
use serde::{Deserialize, Serialize};

use super::rejected::{self, RejectionCause};
use super::{Case, Deployment, hold, plan};
use crate::at::At;
use crate::decision::{By, Decision, Rejection};

pub(super) use control::{decide_abort, decide_pause, decide_promote, decide_resume};

/// A rollout after its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The rollout.
    pub id: RolloutId,
    /// The stack that serves.
    pub baseline: StackId,
    /// The canary's stack.
    pub canary: StackId,
    /// What the two are called, also once they are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Names>,
    /// How it shall go.
    pub plan: Plan,
    /// What it is judged by.
    pub policy: Policy,
    /// When it started.
    pub started_at: Timestamp,
    /// How it stands.
    pub phase: Phase,
    /// Why somebody ended it: aborted, promoted or superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_because: Option<String>,
    /// The step it is at; none before the first.
    pub step: Option<Step>,
    /// When its first step was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Mark>,
    /// For how long in all it stood still.
    pub still: Still,
    /// When somebody last gave a sign of driving it; what the judge records is a sign too, and is not in here.
    pub driven_at: Timestamp,
    /// When somebody last let it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// Why a due step is not taken, if it is not.
    pub held: Option<HeldStep>,
    /// When each kind of reason was last recorded since the last step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held_for: BTreeMap<HoldKind, Timestamp>,
}

/// What a rollout's stacks are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The stack that serves.
    pub baseline: StackName,
    /// The canary's.
    pub canary: StackName,
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which, from 0.
    pub number: u16,
    /// When.
    pub at: Timestamp,
    /// For how long the rollout had stood still in all until then.
    pub still: Still,
    /// What was counted until then.
    pub counted_from: Measured,
}

/// A moment of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// For how long the rollout had stood still in all until then.
    pub still: Still,
}

/// For how long a rollout stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Still {
    /// Somebody had paused it, in milliseconds.
    pub paused_ms: u64,
    /// Nobody drove it, in milliseconds.
    pub undriven_ms: u64,
}

/// Why a due step is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStep {
    /// What kind of thing it waits for.
    pub kind: HoldKind,
    /// In words.
    pub reason: String,
    /// When that was recorded.
    pub at: Timestamp,
}

/// After how long a kind of reason is recorded again, if another was recorded in between: two that take turns are told
/// apart in the history, and do not fill it.
const HELD_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// How a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It goes on as planned and judged.
    Running,
    /// Somebody froze its weights.
    Paused {
        /// When.
        since: Timestamp,
        /// Why.
        reason: String,
    },
    /// The canary holds all traffic and was not judged worse.
    Completed,
    /// The canary came back.
    CameBack {
        /// Why.
        reason: String,
    },
    /// Somebody ended it at its baseline.
    Aborted,
    /// Somebody gave the canary all traffic over the judgement.
    Promoted,
    /// Something else took its place.
    Superseded,
}

impl Still {
    /// Returns the sum, in milliseconds.
    pub fn all_ms(self) -> u64 {
        self.paused_ms.saturating_add(self.undriven_ms)
    }
}

/// Returns the moment so many milliseconds after another.
pub(super) fn later(at: Timestamp, ms: u64) -> Timestamp {
    let after = jiff::SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    at.checked_add(after).unwrap_or(Timestamp::MAX)
}

impl Phase {
    /// Says how it ended, after "the last one"; for a live one, how it stands.
    fn ended(&self) -> &'static str {
        match self {
            Phase::Running => "is running",
            Phase::Paused { .. } => "is paused",
            Phase::Completed => "completed",
            Phase::CameBack { .. } => "came back",
            Phase::Aborted => "was aborted",
            Phase::Promoted => "was promoted",
            Phase::Superseded => "was superseded",
        }
    }
}

/// What to do where a rollout is asked about and there is none.
const START_ONE: &str = "start one with `ionledger roll`";

impl Rollout {
    /// Says whether it is running or paused.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused { .. })
    }

    /// Says whether it is running.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Says whether it ended with all traffic on its canary.
    fn had_all(&self) -> bool {
        matches!(self.phase, Phase::Promoted | Phase::Completed)
    }

    /// Returns the number of the step to take next, if one is left.
    pub fn next_step(&self) -> Option<u16> {
        let next = self.step.as_ref().map_or(0, |step| step.number.saturating_add(1));
        (usize::from(next) < self.plan.steps.len()).then_some(next)
    }

    /// Says whether its last step has been taken: all traffic is set to the canary, and the router has not confirmed it yet.
    pub fn is_at_end(&self) -> bool {
        self.is_live() && self.step.is_some() && self.next_step().is_none()
    }

    /// Returns when `step` is due: the plan's distance after the step it is at, pauses since then not counted. So a step
    /// that was taken late moves all later ones. The first is due at the start.
    pub fn due_at(&self, step: u16) -> Timestamp {
        let Some(last) = &self.step else {
            return later(self.started_at, self.plan.due_ms(step).saturating_add(self.still.paused_ms));
        };
        // A bake is time in which the canary is judged: without anybody who judges it does not pass.
        let still_ms = if self.plan.bake_step() == Some(last.number) {
            self.still.all_ms().saturating_sub(last.still.all_ms())
        } else {
            self.paused_ms_since(last)
        };
        later(last.at, self.plan.distance_ms(last.number, step).saturating_add(still_ms))
    }

    /// Says whether it bakes: the old version keeps a small share, and the canary is judged on.
    pub fn is_baking(&self) -> bool {
        let step = self.step.as_ref().map(|step| step.number);
        self.is_live() && step.is_some() && step == self.plan.bake_step()
    }

    /// Returns the version that it bakes, if `fixes` says that another release fixes it: the rollout gives way to that.
    pub fn gives_way<'a>(&self, deployment: &Deployment, fixes: Option<&'a Version>) -> Option<&'a Version> {
        fixes.filter(|fixes| self.is_baking() && deployment.version_of(self.canary) == Some(fixes))
    }

    /// Returns for how long it was paused since `step` was taken, in milliseconds.
    pub fn paused_ms_since(&self, step: &Step) -> u64 {
        self.still.paused_ms.saturating_sub(step.still.paused_ms)
    }

    /// Returns the moment so many milliseconds after the first step, or after the start before it. Time in which it stood
    /// still is not counted.
    pub fn after_ms(&self, ms: u64) -> Timestamp {
        let start = Mark { at: self.started_at, still: Still::default() };
        let first = self.first.unwrap_or(start);
        later(first.at, ms.saturating_add(self.still.all_ms().saturating_sub(first.still.all_ms())))
    }

    /// Returns when the plan ends and its deadline applies. Late steps do not move that; time in which it was paused, or
    /// nobody drove it, does.
    pub fn ends_at(&self) -> Timestamp {
        later(self.started_at, self.plan.duration_ms.saturating_add(self.still.all_ms()))
    }

    /// Says whether it is news that a due step waits for `kind`: it waits for something else as far as is recorded, and did
    /// not wait for this a short time ago.
    pub fn is_news(&self, kind: HoldKind, now: Timestamp) -> bool {
        let same = self.held.as_ref().is_some_and(|held| held.kind == kind);
        let lately = self.held_for.get(&kind).is_some_and(|at| now < *at + HELD_AGAIN_AFTER);
        !same && !lately
    }

    /// Returns from when on it may be news again that a due step waits for `kind`, if it ever waited for that.
    pub fn news_at(&self, kind: HoldKind) -> Option<Timestamp> {
        self.held_for.get(&kind).map(|at| *at + HELD_AGAIN_AFTER)
    }

    /// Ends it as somebody said, and keeps why.
    fn end(&mut self, phase: Phase, because: &str) {
        (self.phase, self.ended_because) = (phase, Some(because.to_owned()));
    }

    /// Returns the canary's weight now.
    pub fn weight(&self) -> Weight {
        let step = self.step.as_ref().and_then(|step| self.plan.steps.get(usize::from(step.number)));
        step.copied().unwrap_or(Weight::ZERO)
    }
}

/// Changes the deployment as an event of its rollout says.
pub(super) fn evolve(deployment: &mut Deployment, event: &rollout::Event, at: &At) {
    if let rollout::Event::Started(started) = event {
        let names = deployment.name_of(started.baseline).zip(deployment.name_of(started.canary));
        deployment.rollout = Some(Rollout {
            names: names.map(|(baseline, canary)| Names { baseline, canary }),
            id: started.rollout,
            baseline: started.baseline,
            canary: started.canary,
            plan: started.plan.clone(),
            policy: started.policy.clone(),
            started_at: at.time,
            phase: Phase::Running,
            ended_because: None,
            step: None,
            first: None,
            still: Still::default(),
            driven_at: at.time,
            resumed_at: None,
            held: None,
            held_for: BTreeMap::new(),
        });
        return;
    }
    let Some(canary) = deployment.rollout.as_ref().map(|rollout| rollout.canary) else { return };
    if let rollout::Event::Completed(_) = event {
        rejected::clear(deployment, canary);
    } else if let rollout::Event::Aborted(aborted) = event {
        rejected::mark(deployment, canary, RejectionCause::Aborted, &aborted.reason, at.time);
    }
    let Some(rollout) = deployment.rollout.as_mut() else { return };
    match event {
        rollout::Event::Started(_) | rollout::Event::Requested(_) | rollout::Event::RequestDropped(_) => {}
        rollout::Event::StepTaken(taken) => {
            (rollout.held, rollout.driven_at) = (None, at.time);
            rollout.held_for.clear();
            let still = rollout.still;
            rollout.first.get_or_insert(Mark { at: at.time, still });
            let counted_from = taken.counted_from.clone();
            rollout.step = Some(Step { number: taken.step, at: at.time, still, counted_from });
        }
        rollout::Event::Held(held) => {
            rollout.driven_at = at.time;
            rollout.held = Some(HeldStep { kind: held.kind, reason: held.reason.clone(), at: at.time });
            rollout.held_for.insert(held.kind, at.time);
        }
        rollout::Event::DrivenAgain(again) => {
            rollout.driven_at = at.time;
            rollout.still.undriven_ms = rollout.still.undriven_ms.saturating_add(again.undriven_ms);
        }
        rollout::Event::Paused(paused) => {
            rollout.phase = Phase::Paused { since: at.time, reason: paused.reason.clone() };
        }
        rollout::Event::Resumed(_) => {
            if let Phase::Paused { since, .. } = rollout.phase {
                rollout.still.paused_ms += u64::try_from(at.time.duration_since(since).as_millis()).unwrap_or(0);
            }
            rollout.phase = Phase::Running;
            (rollout.resumed_at, rollout.driven_at) = (Some(at.time), at.time);
            // Whoever lets it go on has explained the drift that paused it; now it is corrected.
            if let Some(drift) = &mut deployment.traffic.drift {
                drift.towards_target = false;
            }
        }
        rollout::Event::Completed(_) => rollout.phase = Phase::Completed,
        rollout::Event::CameBack(back) => rollout.phase = Phase::CameBack { reason: back.reason.clone() },
        rollout::Event::Aborted(aborted) => rollout.end(Phase::Aborted, &aborted.reason),
        rollout::Event::Promoted(promoted) => rollout.end(Phase::Promoted, &promoted.reason),
        rollout::Event::Superseded(superseded) => rollout.end(Phase::Superseded, &superseded.rule),
    }
}

impl Case<'_> {
    pub(super) fn rollout_running(&self, rollout: &Rollout) -> Rejection {
        let name = |stack| self.deployment.name_of(stack);
        let (Some(from), Some(to)) = (name(rollout.baseline), name(rollout.canary)) else {
            return Rejection::Invalid(format!("{} has a rollout under way; abort it first", self.id));
        };
        Rejection::RolloutRunning { deployment: self.id.clone(), from, to, weight: rollout.weight() }
    }

    /// Says that `name` is being rolled out with another plan than was asked for, and how that is replaced.
    pub(super) fn rolled_otherwise(&self, live: &Rollout, name: &StackName) -> Rejection {
        let from = self.deployment.name_of(live.baseline).map_or("FROM".to_owned(), |from| from.to_string());
        Rejection::Invalid(format!(
            "{} already rolls out {name} with another plan, now at {}; to start again with the new plan, run \
             `ionledger roll {} {from} {name}{} --supersede` and add a duration",
            self.id,
            live.weight(),
            self.id.service,
            self.id.env_flag()
        ))
    }

    /// Returns the rollout under way; `next` is what to do if there is none.
    fn live_rollout(&self, next: &str) -> Result<&Rollout, Rejection> {
        let rollout = self.deployment.rollout.as_ref();
        rollout.filter(|rollout| rollout.is_live()).ok_or_else(|| Rejection::NoRollout {
            deployment: self.id.clone(),
            last: rollout.map(|last| format!("; the last one {}", last.phase.ended())).unwrap_or_default(),
            next: next.to_owned(),
        })
    }

    /// Collection spares both stacks of a live rollout; only a history written by another program can come here.
    fn canary_gone(&self) -> Rejection {
        Rejection::Invalid(format!("the canary's stack of {} is gone; abort the rollout", self.id))
    }

    pub(super) fn running(&self, rollout: RolloutId) -> Result<&Rollout, Rejection> {
        let running = self.deployment.rollout.as_ref().filter(|live| live.is_running() && live.id == rollout);
        running.ok_or_else(|| Rejection::Outdated(format!("rollout {rollout} is not running")))
    }
}

/// What `roll` may do besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roll {
    /// End a rollout that is under way.
    pub(super) supersede: bool,
    /// Go to a rejected version.
    pub(super) again: bool,
}

/// Decides `roll`: none if the same rollout is under way, or the canary has all traffic. A rollout whose place is
/// taken gives its canary's traffic back first, so that every rollout begins with all of it on its baseline.
///
/// # Errors
///
/// [`Rejection`]: a pipeline that would go back to an older release, a version that is not ready, a baseline without all
/// the traffic, a plan that cannot be, another rollout under way, a rollback that waits for its target, or a rejected
/// version without `again`.
pub(super) fn decide_roll(
    case: &Case<'_>,
    from: &StackName,
    to: &StackName,
    asked: &PlanAsked,
    may: Roll,
) -> Result<Decision, Rejection> {
    let Roll { supersede, again } = may;
    let older = |from: &StackName, to: &StackName| {
        let person = Case { by: By::PERSON, ..*case };
        older(case, from, to, decide_roll(&person, from, to, asked, may).is_ok())
    };
    let definition =
        case.service.definition.as_ref().ok_or_else(|| Rejection::unknown_service(&case.id.service, []))?;
    if case.deployment.traffic.awaited.is_some() {
        return Err(Rejection::Invalid(format!(
            "{} waits for its rollback target to be ready; ask again after that, or set weights with `ionledger traffic`",
            case.id
        )));
    }
    if !case.by.is_person() && case.service.is_older(&to.version, &from.version) {
        return Err(older(from, to));
    }
    let (baseline, serving) = case.stack_of(from)?;
    let (canary, to_stack) = case.ready_stack_of(to)?;
    let (from, to) = (&serving.name(), &to_stack.name());
    if baseline == canary {
        return Err(Rejection::Invalid(format!("a rollout needs two stacks, both are {from}")));
    }
    if !case.by.is_person() && case.is_older(canary, baseline) {
        return Err(older(from, to));
    }
    let plan = plan::plan(asked, &definition.policy)?;
    let mut events: Vec<Event> = Vec::new();
    if let Some(live) = case.deployment.rollout.as_ref().filter(|rollout| rollout.is_live()) {
        if live.baseline == baseline && live.canary == canary && live.plan == plan {
            return Ok(Decision::default());
        }
        let fixes = case.service.releases.get(&to.version).and_then(|release| release.recorded.fixes.as_ref());
        let rule = match live.gives_way(case.deployment, fixes) {
            _ if supersede => case.by.and_because("--supersede: a new rollout takes the place of the one under way"),
            Some(fixed) => given_way(&to.version, fixed),
            None => return Err(case.rollout_running(live)),
        };
        events.extend(taken_over(case.deployment, live, baseline, rule));
    } else if case.deployment.traffic.set_weight(canary) == Weight::FULL {
        return Ok(Decision::nothing(format!("{to} has all the traffic of {} already", case.id)));
    }
    hold::check(case, &to.version)?;
    case.check_again(to.clone(), canary, again)?;
    check_baseline(case, from, baseline)?;
    events.extend(ended_holds(case, to));
    let rollout: RolloutId = case.now.commit.into();
    let (unjudged, baked) = (plan.steps.len() == 1, plan::bake_note(asked, &plan, &definition.policy));
    events.push(rollout::Started { rollout, baseline, canary, plan, policy: definition.policy.clone() }.into());
    let mut decision = Decision::on(case.stream(), events).requiring(Stream::Service(case.id.service.clone()));
    if unjudged {
        decision.notes.push(format!("the plan's only step is 100 %: {to} gets all traffic at once and is not judged"));
    }
    decision.notes.extend(baked);
    Ok(decision)
}

/// Says no to a pipeline that would go back. `may_person` says whether a person may do the same now.
fn older(case: &Case<'_>, from: &StackName, to: &StackName, may_person: bool) -> Rejection {
    let (deployment, version, newer) = (case.id.clone(), to.clone().into(), from.clone().into());
    let next = match may_person {
        true => format!("`ionledger roll {} {from} {to}{}`", case.id.service, case.id.env_flag()),
        false => "`ionledger roll`".to_owned(),
    };
    Rejection::Older { deployment, version, newer, does: "serves", next: next.into() }
}

/// The events that end the holds that a rollout to `to` ends: all of them if a person begins it.
fn ended_holds(case: &Case<'_>, to: &StackName) -> Vec<Event> {
    match case.by.is_person() {
        true => hold::lifted(case.deployment, &format!("a person began a rollout to {to}")),
        false => hold::lifted_by_fix(case, &to.version).into_iter().collect(),
    }
}

/// The events that end `live` for a rollout from `baseline`: if that is its own, its canary's traffic goes back first.
pub(super) fn taken_over(deployment: &Deployment, live: &Rollout, baseline: StackId, rule: String) -> Vec<Event> {
    let mut events: Vec<Event> = vec![rollout::Superseded { rollout: live.id, rule }.into()];
    if live.baseline == baseline && deployment.traffic.set_weight(baseline) != Weight::FULL {
        let purpose = Purpose::Abort { rollout: live.id };
        events.push(WeightsSet { weights: Weights::all_on(baseline), purpose }.into());
    }
    events
}

/// Why a rollout that bakes ended for one to a release that fixes its version.
pub(super) fn given_way(to: &Version, fixed: &Version) -> String {
    format!("{to} fixes {fixed}, which was baking")
}

/// A baseline holds all traffic, or will once a rollout of its own gives its canary's back.
fn check_baseline(case: &Case<'_>, from: &StackName, baseline: StackId) -> Result<(), Rejection> {
    let has = case.deployment.traffic.set_weight(baseline);
    let of_live = case.deployment.rollout.as_ref().is_some_and(|live| live.is_live() && live.baseline == baseline);
    if has == Weight::FULL || of_live {
        return check_serves(case, from, baseline);
    }
    let (service, env) = (&case.id.service, case.id.env_flag());
    let whole = case.deployment.traffic.set.as_ref().and_then(|set| case.deployment.name_of(set.weights.sole()?));
    if let Some(other) = whole.filter(|other| other.version == from.version) {
        return Err(Rejection::Invalid(format!(
            "{other} has the traffic of {}, not {from}; roll from {other}",
            case.id
        )));
    }
    Err(Rejection::Invalid(format!(
        "{from} has {has} of the traffic of {}, not all of it; give it all with `ionledger traffic {service} {from} 100{env}`",
        case.id
    )))
}

/// A baseline that answers nobody is nothing to compare with, and its users would get errors for as long as the plan takes.
fn check_serves(case: &Case<'_>, from: &StackName, baseline: StackId) -> Result<(), Rejection> {
    let Some(stack) = case.deployment.stacks.get(&baseline) else { return Ok(()) };
    let failure = case.probed.failure(baseline);
    if case.probed.has_passed(baseline) || (failure.is_none() && stack.ready_nodes() > 0) {
        return Ok(());
    }
    let env = case.id.env_flag();
    let supersede = if super::rollback::live(case.deployment).is_some() { " --supersede" } else { "" };
    let because = stack.last_failure.as_ref().map(|why| format!(" (the last one: {why})"));
    let because = because.or_else(|| failure.map(|why| format!(" ({why})"))).unwrap_or_default();
    let next = format!(
        "move all of them to a version that is ready with `ionledger traffic {} VERSION 100{env}{supersede}`",
        case.id.service
    );
    Err(Rejection::BaselineFails { version: from.clone(), because, next })
}
