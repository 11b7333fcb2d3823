//! The judge: what it says of a canary, and what it has said.
//!
//! [`judge::Judge`] is a fold over ticks. A [`analysis::Analysis`] is that fold over what the judge's stream holds of one
//! rollout, and so a part of the state: whoever decides on a verdict can check it, and whoever takes a rollout over
//! goes on with it.

pub mod policy;
pub mod plan;
pub mod observed;
pub mod judge;
pub mod analysis;
pub mod evidence;
pub mod forecast;
pub mod ramp;
pub mod latency;

pub mod metric;
pub mod baseline;
pub mod burst;
pub mod ladder;
pub mod nodes;
pub mod share_alarm;
pub mod wealth;
pub mod evalue;
pub mod maths;
mod exact;

#[cfg(test)]
mod tests;

use schemas::judgement::{self, Judged};
use schemas::{RolloutId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::at::At;
use analysis::Analysis;

/// What the judge knows and said of a deployment's rollouts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgements {
    /// The last that it said.
    pub last: Option<Judged>,
    /// What it knows of the last rollout that it listened to.
    #[serde(default)]
    pub analysis: Option<Analysis>,
    /// When something was last recorded of that rollout.
    #[serde(default)]
    pub heard_at: Option<Timestamp>,
}

impl Judgements {
    /// Returns what the judge knows of `rollout`, if it listens to it.
    pub fn of(&self, rollout: RolloutId) -> Option<&Analysis> {
        self.analysis.as_ref().filter(|analysis| analysis.rollout() == rollout)
    }

    /// Returns when something was last recorded of `rollout`, if the judge listens to it.
    pub fn heard_at(&self, rollout: RolloutId) -> Option<Timestamp> {
        self.of(rollout).and(self.heard_at)
    }
}

/// Returns what the judge knows and has said after `event`.
pub fn evolve(mut judgements: Judgements, event: &judgement::Event, at: &At) -> Judgements {
    match event {
        judgement::Event::Begun(begun) => {
            // A rule that this program does not know is not guessed at; its verdicts are still shown.
            judgements.analysis = Analysis::begin(begun.clone()).ok();
            judgements.heard_at = Some(at.time);
        }
        judgement::Event::Counted(counted) => {
            if let Some(analysis) = &mut judgements.analysis {
                analysis.take(counted);
                judgements.heard_at = Some(at.time);
            }
        }
        judgement::Event::Judged(judged) => judgements.last = Some(judged.clone()),
    }
    judgements
}
