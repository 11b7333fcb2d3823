//! A rollout: what moves weight from one stack to another, how far it is, and what is known of it.

use ledger::deployment::{self, Deployment, rollout, step};
use ledger::judgement::Judgements;
use ledger::judgement::analysis::Analysis;
use schemas::break_glass::Unrecorded;
use schemas::judgement::{Counts, Evidence, Verdict};
use schemas::rollout::{HoldKind, Plan};
use schemas::{RolloutId, StackId, StackName, Timestamp, Version, Weight};
use serde::{Deserialize, Serialize};

use super::stack::MeasuredStatus;

/// What was measured of a rollout's two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutMeasured {
    /// The baseline's requests.
    pub baseline: MeasuredStatus,
    /// The canary's.
    pub canary: MeasuredStatus,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The rollout.
    pub rollout: RolloutId,
    /// The version that served; none if its stack is unknown here.
    pub baseline: Option<Version>,
    /// The baseline's stack.
    pub baseline_stack: StackId,
    /// The name of that stack.
    #[serde(default)]
    pub baseline_name: Option<StackName>,
    /// The canary; none if its stack is gone.
    pub canary: Option<Version>,
    /// The canary's stack.
    pub canary_stack: StackId,
    /// The name of that stack.
    #[serde(default)]
    pub canary_name: Option<StackName>,
    /// How it stands.
    pub phase: RolloutPhase,
    /// Whether it is running or paused.
    pub live: bool,
    /// Whether it bakes: the old version keeps a small share, and the canary is judged on.
    #[serde(default)]
    pub baking: bool,
    /// Why it is paused, came back, or was ended by somebody.
    pub reason: Option<String>,
    /// How many steps were taken.
    pub steps_taken: u16,
    /// How many steps there are.
    pub steps: u16,
    /// The canary's weight at the step it is at.
    pub weight: Weight,
    /// How it was planned.
    pub plan: Plan,
    /// When it started.
    pub started_at: Timestamp,
    /// When its present step was taken.
    pub step_taken_at: Option<Timestamp>,
    /// When it was paused, if it is.
    pub paused_since: Option<Timestamp>,
    /// How long it was paused in all before, in milliseconds.
    pub paused_ms: u64,
    /// For how long nobody drove it in all, in milliseconds.
    #[serde(default)]
    pub undriven_ms: u64,
    /// Why a due step is not taken, if it is not.
    pub held: Option<String>,
    /// What kind of thing that step waits for.
    #[serde(default)]
    pub held_kind: Option<HoldKind>,
    /// Since when it is known to.
    #[serde(default)]
    pub held_since: Option<Timestamp>,
    /// The step that comes next, while it is live.
    pub next: Option<NextStep>,
    /// When it is expected to end, while it is live and has a step left: as of the moment that this speaks of. None while it is
    /// paused, or its due step waits for something that no clock brings.
    #[serde(default)]
    pub expected_end_at: Option<Timestamp>,
    /// While it stands still, how many milliseconds its remaining steps take once it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// Where a rollback that the ledger does not have yet sends all traffic back to: no step of this rollout comes any more. Only of
    /// now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comes_back_to: Option<StackName>,
    /// Whether the router confirmed that this rollback moved users; none if that is not known, or there is no such rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_back: Option<bool>,
    /// What the judge said of it last.
    pub verdict: Option<VerdictStatus>,
    /// What the judge knows of it by now, whether there was something to say or not.
    #[serde(default)]
    pub evidence: Option<EvidenceStatus>,
    /// What its two versions did, where `explain` asks and it was measured. Only of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<RolloutMeasured>,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// It goes on as planned and judged.
    Running,
    /// Somebody froze its weights.
    Paused,
    /// The canary holds all traffic and was not judged worse.
    Completed,
    /// The canary came back.
    CameBack,
    /// Somebody ended it at its baseline.
    Aborted,
    /// Somebody gave the canary all traffic over the judgement.
    Promoted,
    /// Something else took its place.
    Superseded,
}

/// The step of a rollout that comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// Which, from 1.
    pub number: u16,
    /// Its weight.
    pub weight: Weight,
    /// When it is due, not counting a pause under way.
    pub due_at: Timestamp,
    /// How long the plan takes from there to all traffic, in milliseconds.
    #[serde(default)]
    pub then_ms: u64,
}

/// What the judge said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStatus {
    /// Of which step, from 1.
    pub step: u16,
    /// What.
    pub verdict: Verdict,
    /// In words.
    pub reason: String,
    /// What the baseline did since the rollout began.
    pub baseline: Counts,
    /// What the canary did since then.
    pub canary: Counts,
    /// What it rests on.
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// What the judge knows of a rollout: as of the last ticks that are recorded, at most a minute ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// What it would say now.
    pub verdict: Verdict,
    /// In words.
    pub reason: String,
    /// What the baseline did since the rollout began.
    pub baseline: Counts,
    /// What the canary did since then.
    pub canary: Counts,
    /// What that rests on.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// The bad nodes by their places, from 1, as far as they are still there.
    pub bad_places: Vec<u16>,
}

impl RolloutStatus {
    /// Says that the traffic of a rollout under way goes back, if one of these rollbacks of its deployment is younger than it and
    /// nothing was decided since.
    pub fn name_unrecorded<'u>(&mut self, of_deployment: impl IntoIterator<Item = &'u Unrecorded>) {
        let started_at = self.started_at;
        let ends = |back: &&Unrecorded| back.at >= started_at && back.overtaken.is_none();
        let Some(back) = of_deployment.into_iter().filter(ends).last().filter(|_| self.live) else { return };
        (self.comes_back_to, self.came_back) = (Some(back.name()), back.moved);
        (self.next, self.expected_end_at, self.remaining_ms) = (None, None, None);
        (self.held, self.held_kind, self.held_since) = (None, None, None);
    }
}

pub(super) fn rollout_status(
    deployment: &Deployment,
    rollout: &deployment::Rollout,
    judgements: Option<&Judgements>,
    at: Option<Timestamp>,
) -> RolloutStatus {
    let (phase, reason, paused_since) = match &rollout.phase {
        rollout::Phase::Running => (RolloutPhase::Running, None, None),
        rollout::Phase::Paused { since, reason } => (RolloutPhase::Paused, Some(reason.clone()), Some(*since)),
        rollout::Phase::Completed => (RolloutPhase::Completed, None, None),
        rollout::Phase::CameBack { reason } => (RolloutPhase::CameBack, Some(reason.clone()), None),
        rollout::Phase::Aborted => (RolloutPhase::Aborted, rollout.ended_because.clone(), None),
        rollout::Phase::Promoted => (RolloutPhase::Promoted, rollout.ended_because.clone(), None),
        rollout::Phase::Superseded => (RolloutPhase::Superseded, rollout.ended_because.clone(), None),
    };
    let [baseline, canary] = [rollout.baseline, rollout.canary].map(|stack| deployment.remembered_name(stack));
    let next = rollout.next_step().filter(|_| rollout.is_live());
    let judged = judgements.and_then(|judgements| judgements.last.as_ref());
    let analysis = judgements.and_then(|judgements| judgements.of(rollout.id));
    let expected = step::expected(&deployment.traffic, rollout, analysis, at.unwrap_or(rollout.started_at));
    RolloutStatus {
        rollout: rollout.id,
        baseline: baseline.as_ref().map(|name| name.version.clone()),
        baseline_stack: rollout.baseline,
        baseline_name: baseline,
        canary: canary.as_ref().map(|name| name.version.clone()),
        canary_stack: rollout.canary,
        canary_name: canary,
        phase,
        live: rollout.is_live(),
        baking: rollout.is_baking(),
        reason,
        steps_taken: rollout.step.as_ref().map_or(0, |step| step.number + 1),
        steps: u16::try_from(rollout.plan.steps.len()).unwrap_or(u16::MAX),
        weight: rollout.weight(),
        plan: rollout.plan.clone(),
        started_at: rollout.started_at,
        step_taken_at: rollout.step.as_ref().map(|step| step.at),
        paused_since,
        paused_ms: rollout.still.paused_ms,
        undriven_ms: rollout.still.undriven_ms,
        held: rollout.held.as_ref().map(|held| held.reason.clone()),
        held_kind: rollout.held.as_ref().map(|held| held.kind),
        held_since: rollout.held.as_ref().map(|held| held.at),
        next: next.map(|step| NextStep {
            number: step + 1,
            weight: rollout.plan.steps[usize::from(step)],
            due_at: rollout.due_at(step),
            then_ms: expected.map_or(0, |expected| expected.then_ms),
        }),
        expected_end_at: expected.filter(|expected| expected.remaining_ms.is_none()).map(step::Expected::end_at),
        remaining_ms: expected.and_then(|expected| expected.remaining_ms),
        comes_back_to: None,
        came_back: None,
        verdict: judged.filter(|judged| judged.rollout == rollout.id).map(|judged| VerdictStatus {
            step: judged.step + 1,
            verdict: judged.verdict,
            reason: judged.reason.clone(),
            baseline: judged.baseline,
            canary: judged.canary,
            evidence: judged.evidence.clone(),
        }),
        evidence: analysis.and_then(|analysis| evidence_status(deployment, rollout, analysis)),
        measured: None,
    }
}

fn evidence_status(
    deployment: &Deployment,
    rollout: &deployment::Rollout,
    analysis: &Analysis,
) -> Option<EvidenceStatus> {
    let judged = step::judged_of(deployment, rollout, analysis)?;
    let evidence = judged.evidence?;
    let places = deployment.stacks.get(&rollout.canary).map(|stack| &stack.nodes);
    let bad = |(_, node): &(&u16, &deployment::Node)| evidence.bad_nodes.contains(&node.effect);
    let bad_places = places.into_iter().flatten().filter(bad).map(|(slot, _)| slot + 1).collect();
    Some(EvidenceStatus {
        verdict: judged.verdict,
        reason: judged.reason,
        baseline: judged.baseline,
        canary: judged.canary,
        evidence,
        bad_places,
    })
}
