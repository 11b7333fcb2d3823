//! Rollouts: the plan and progress of moving weight from baseline to canary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::{RolloutId, StackId, Version};
use crate::judgement::Measured;
use crate::policy::Policy;
use crate::upcast::unchanged;
use crate::weight::Weight;

/// The canary's weights over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The weights, rising, the last of them 100 %, at even times from the start to the end.
    pub steps: Vec<Weight>,
    /// The time from the first step to the last, in milliseconds; with a bake, to the last but one.
    pub duration_ms: u64,
    /// How long the last step but one is held after that, in milliseconds: the bake, with a small share left to the old
    /// version. 0 if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bake_ms: u64,
}

pub(crate) fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

impl Plan {
    /// Returns when `step` is due, in milliseconds from the start, if all before it are taken when they are due.
    pub fn due_ms(&self, step: u16) -> u64 {
        let last = self.steps.len().saturating_sub(1);
        if self.bake_ms > 0 && usize::from(step) >= last {
            return self.duration_ms.saturating_add(self.bake_ms);
        }
        let even = if self.bake_ms > 0 { last.saturating_sub(1) } else { last };
        let due = u128::from(self.duration_ms) * u128::from(step);
        due.checked_div(even as u128).map_or(0, |due| u64::try_from(due).unwrap_or(u64::MAX))
    }

    /// Returns the step that is the bake, if there is one: the last but one.
    pub fn bake_step(&self) -> Option<u16> {
        let step = self.steps.len().checked_sub(2).filter(|_| self.bake_ms > 0)?;
        u16::try_from(step).ok()
    }

    /// Returns the time from the first step to the last, in milliseconds.
    pub fn all_ms(&self) -> u64 {
        self.due_ms(u16::try_from(self.steps.len().saturating_sub(1)).unwrap_or(u16::MAX))
    }

    /// Returns how long after `from` the later step `to` is taken at the earliest, in milliseconds; 0 if it is not later.
    pub fn distance_ms(&self, from: u16, to: u16) -> u64 {
        self.due_ms(to).saturating_sub(self.due_ms(from))
    }
}

/// A rollout was asked for with its stack. It waits, and begins by itself once nothing is in its way. At most one waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// The canary's stack.
    pub stack: StackId,
    /// How it shall go.
    pub plan: Plan,
    /// Whether a person asked. What a pipeline asks for begins only while the deployment is not on hold.
    pub by_hand: bool,
    /// The version that the release fixes, if it says so. A rollout to that version which bakes gives way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixes: Option<Version>,
}

/// The rollout that waited will not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestDropped {
    /// The stack that it was asked for with.
    pub stack: StackId,
    /// Why.
    pub reason: String,
}

/// A rollout began. The traffic shifter takes its first step at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The rollout.
    pub rollout: RolloutId,
    /// The stack that serves.
    pub baseline: StackId,
    /// The canary.
    pub canary: StackId,
    /// How it shall go.
    pub plan: Plan,
    /// The policy it is judged by, as it was at the start.
    pub policy: Policy,
}

/// The canary got the weight of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepTaken {
    /// The rollout.
    pub rollout: RolloutId,
    /// The step, from 0.
    pub step: u16,
    /// Its weight.
    pub weight: Weight,
    /// What was counted when the step was taken; what comes after it is the step's own.
    pub counted_from: Measured,
}

/// A due step is not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// The rollout.
    pub rollout: RolloutId,
    /// The step it stays at; none before the first. Version 1 wrote 0 there, as for the first.
    pub step: Option<u16>,
    /// What kind of thing it waits for.
    pub kind: HoldKind,
    /// Why.
    pub reason: String,
}

/// What kind of thing a due step waits for. It is recorded once, however often its words change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// Not known: recorded by version 1.
    Unnamed,
    /// Whoever counts the requests gives no answer, or an incomplete one.
    Source,
    /// The judge has not begun to listen.
    Judge,
    /// The router has not confirmed the weights.
    Router,
    /// The canary is judged worse, and is about to come back.
    Worse,
    /// The canary got no request at all.
    NoRequests,
    /// The canary has not had the policy's minimum of requests.
    FewRequests,
    /// The canary got no request since its last step.
    NoneSinceStep,
    /// Requests do not fall as the weights say.
    Routing,
    /// The baseline itself is in an incident.
    Incident,
    /// The canary fails far above the tolerance, which may be a burst.
    Burst,
    /// Until it is accepted, or the plan ends, the canary gets no more than a part.
    Unaccepted,
    /// More would risk too many bad requests.
    Risk,
    /// The plan is at its end, and the policy says hold.
    Deadline,
    /// No step is left.
    NoStep,
}

/// The step from version 1, whose reasons had no kind.
fn with_kind(mut payload: serde_json::Value) -> serde_json::Value {
    if let Some(held) = payload.as_object_mut() {
        held.insert("kind".to_owned(), "unnamed".into());
    }
    payload
}

/// Nobody drove a running rollout for a time, as while the traffic shifter was down. The end at which its deadline
/// applies moves by that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrivenAgain {
    /// The rollout.
    pub rollout: RolloutId,
    /// How long nothing was recorded of it, in milliseconds: so long nobody drove it, at most.
    pub undriven_ms: u64,
}

/// The weights stay as they are until somebody resumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paused {
    /// The rollout.
    pub rollout: RolloutId,
    /// Why.
    pub reason: String,
}

/// A paused rollout goes on; its plan moves by the time it was paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    /// The rollout.
    pub rollout: RolloutId,
}

/// The router confirmed that the canary holds all traffic, and it was not judged worse. Before this was recorded with the
/// confirmation, it was recorded with the last step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Completed {
    /// The rollout.
    pub rollout: RolloutId,
}

/// The canary came back. The rollback is in the same commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CameBack {
    /// The rollout.
    pub rollout: RolloutId,
    /// Why.
    pub reason: String,
}

/// Somebody ended the rollout at its baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Aborted {
    /// The rollout.
    pub rollout: RolloutId,
    /// Why.
    pub reason: String,
}

/// Somebody gave the canary all traffic over the judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Promoted {
    /// The rollout.
    pub rollout: RolloutId,
    /// Why.
    pub reason: String,
}

/// Another rollout or other weights took the rollout's place, as `--supersede` asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Superseded {
    /// The rollout.
    pub rollout: RolloutId,
    /// The rule that was used.
    pub rule: String,
}

events! {
    /// What happens to a rollout.
    // Version 2: the plan may have a bake, and the release fix a version.
    Requested = "rollout.requested" [unchanged],
    RequestDropped = "rollout.request_dropped",
    // Version 2: the plan may have a bake, the policy more keys.
    Started = "rollout.started" [unchanged],
    StepTaken = "rollout.step_taken",
    Held = "rollout.held" [with_kind],
    DrivenAgain = "rollout.driven_again",
    Paused = "rollout.paused",
    Resumed = "rollout.resumed",
    Completed = "rollout.completed",
    CameBack = "rollout.came_back",
    Aborted = "rollout.aborted",
    Promoted = "rollout.promoted",
    Superseded = "rollout.superseded",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_due_at_even_times_and_the_last_at_the_end() {
        let plan = Plan { steps: [1, 10, 50, 100].map(Weight::from_percent).to_vec(), duration_ms: 1_000, bake_ms: 0 };
        assert_eq!([0, 1, 2, 3].map(|step| plan.due_ms(step)), [0, 333, 666, 1_000]);
        let at_once = Plan { steps: vec![Weight::FULL], duration_ms: 1_000, bake_ms: 0 };
        assert_eq!((at_once.due_ms(0), at_once.bake_step()), (0, None));
    }

    #[test]
    fn a_bake_begins_at_the_plans_end_and_its_time_comes_after() {
        let plan = |steps: &[u16]| Plan {
            steps: steps.iter().copied().map(Weight::from_percent).collect(),
            duration_ms: 1_000,
            bake_ms: 5_000,
        };
        let usual = plan(&[10, 50, 95, 100]);
        assert_eq!([0, 1, 2, 3].map(|step| usual.due_ms(step)), [0, 500, 1_000, 6_000]);
        assert_eq!((usual.bake_step(), usual.all_ms()), (Some(2), 6_000));
        let short = plan(&[95, 100]);
        assert_eq!((short.due_ms(0), short.due_ms(1), short.bake_step()), (0, 6_000, Some(0)));
    }
}
