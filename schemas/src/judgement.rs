//! Judgement: what was measured of two versions and what the judge made of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::RolloutId;

/// Requests that ended and those of them that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Requests that ended, with any status or by a timeout.
    pub requests: u64,
    /// Those that ended with a 5xx status, a timeout or a broken connection.
    pub errors: u64,
}

impl Counts {
    /// Returns what was counted since `earlier`, or `None` if the counters fell, as after a restart of the router.
    pub fn since(self, earlier: Counts) -> Option<Counts> {
        Some(Counts {
            requests: self.requests.checked_sub(earlier.requests)?,
            errors: self.errors.checked_sub(earlier.errors)?,
        })
    }

    /// Returns errors per million requests, or `None` without requests.
    pub fn errors_ppm(self) -> Option<u64> {
        (self.requests > 0)
            .then(|| u64::try_from(u128::from(self.errors) * 1_000_000 / u128::from(self.requests)).unwrap_or(u64::MAX))
    }
}

/// The router's counters of both versions of a rollout at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// The router's run that counted; counters of two runs cannot be compared.
    pub epoch: String,
    /// The baseline's.
    pub baseline: Counts,
    /// The canary's.
    pub canary: Counts,
}

/// What the judge says of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better or equal, within the tolerance.
    NotWorse,
    /// Worse by more than the tolerance.
    Worse,
    /// Too little is known.
    Inconclusive,
}

/// The judge said something about a step, with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    /// The rollout.
    pub rollout: RolloutId,
    /// The step it speaks of.
    pub step: u16,
    /// What it says.
    pub verdict: Verdict,
    /// What the baseline did during the step.
    pub baseline: Counts,
    /// What the canary did during the step.
    pub canary: Counts,
    /// The tolerance, in errors per million requests.
    pub errors_tolerance_ppm: u32,
    /// The rule that judged and its version.
    pub rule: String,
    /// The verdict in words.
    pub reason: String,
}

events! {
    /// What happens at the judge's.
    Judged = "judgement.judged",
}
