//! Judgement: what was measured of two versions and what the judge made of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::RolloutId;
use crate::weight::Weight;

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

/// What was counted of one node for one metric in a tick. Written as a list, `[requests, hits, beyond]`, because a
/// rollout has a hundred thousand of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
#[schemars(with = "[u64; 3]")]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Those that were hits: that failed, or took longer than the edge of their version.
    pub hits: u64,
    /// Those of the baseline that took longer even than the canary's edge.
    pub beyond: u64,
}

impl From<[u64; 3]> for Tally {
    fn from([requests, hits, beyond]: [u64; 3]) -> Self {
        Self { requests, hits, beyond }
    }
}

impl From<Tally> for [u64; 3] {
    fn from(tally: Tally) -> Self {
        [tally.requests, tally.hits, tally.beyond]
    }
}

/// What was counted of one node in a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeTally {
    /// The node's number in this rollout; one that takes its place has another.
    pub node: u32,
    /// How long it had been ready when the tick began, in milliseconds.
    pub age_ms: u64,
    /// Its counts, one a metric, in the order of the judge's plan.
    pub counts: Vec<Tally>,
}

/// What the judge was told at a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tick {
    /// How long it was, in milliseconds.
    pub ms: u32,
    /// The canary's share of the traffic by the weights that were applied.
    pub share: Weight,
    /// The bucket of the baseline's latency above which a request is a hit, one a metric; chosen before the tick. `null`
    /// for metrics that are no latencies.
    pub edges: Vec<Option<i32>>,
    /// The baseline's nodes.
    pub baseline: Vec<NodeTally>,
    /// The canary's nodes.
    pub canary: Vec<NodeTally>,
}

events! {
    /// What happens at the judge's.
    Judged = "judgement.judged",
}
