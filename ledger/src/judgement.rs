//! The judge: what it says of a canary, and what it has said.
//!
//! Rollouts still ask the plain judge, behind one function, [`fn@judge`], over what was counted of both versions during a
//! step. The one that is valid at every look is [`judge::Judge`], a fold over recorded ticks.

pub mod policy;
pub mod plan;
pub mod observed;
pub mod judge;
pub mod evidence;
pub mod forecast;
pub mod ramp;
pub mod latency;

pub mod metric;
pub mod baseline;
pub mod burst;
pub mod ladder;
pub mod nodes;
pub mod routing;
pub mod wealth;
pub mod evalue;
pub mod maths;

pub mod plain;

#[cfg(test)]
mod tests;

use schemas::judgement::{Counts, Judged, Measured};
use schemas::policy::JudgementPolicy;
use schemas::{RolloutId, judgement};
use serde::{Deserialize, Serialize};

/// What the judge said of a deployment's rollouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgements {
    /// The last of it.
    pub last: Option<Judged>,
}

/// Returns what the judge has said after `event`.
pub fn evolve(_: Judgements, event: &judgement::Event) -> Judgements {
    match event {
        judgement::Event::Judged(judged) => Judgements { last: Some(judged.clone()) },
    }
}

/// What both versions did during a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The baseline's requests.
    pub baseline: Counts,
    /// The canary's requests.
    pub canary: Counts,
}

impl Window {
    /// Returns what was counted from `from` to `to`. After a restart of the router what it counted since then is all
    /// that is known.
    pub fn between(from: &Measured, to: &Measured) -> Self {
        let since = |now: Counts, then: Counts| {
            if from.epoch == to.epoch { now.since(then).unwrap_or(now) } else { now }
        };
        Self { baseline: since(to.baseline, from.baseline), canary: since(to.canary, from.canary) }
    }
}

/// Judges a step of a rollout on what both versions did during it.
pub fn judge(rollout: RolloutId, step: u16, policy: &JudgementPolicy, window: Window) -> Judged {
    let (verdict, reason) = plain::judge(policy, window);
    Judged {
        rollout,
        step,
        verdict,
        baseline: window.baseline,
        canary: window.canary,
        errors_tolerance_ppm: policy.errors_tolerance_ppm,
        rule: plain::RULE.to_owned(),
        reason,
    }
}
