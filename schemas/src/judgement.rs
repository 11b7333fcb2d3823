//! Judgement: what was measured of two versions and what the judge made of it.
//!
//! The judge's stream holds what it was told, tick by tick, and what it said. The second follows from the first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::{EffectId, RolloutId};
use crate::policy::JudgementPolicy;
use crate::rollout::Plan;
use crate::upcast::unchanged;
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

/// What was counted of both versions of a rollout until one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Where it was counted: [`IN_TICKS`] since the rollout began, or by the router in this run of it, as the rule
    /// `plain/1` had it.
    pub epoch: String,
    /// The baseline's.
    pub baseline: Counts,
    /// The canary's.
    pub canary: Counts,
}

/// The epoch of what was counted in recorded ticks.
pub const IN_TICKS: &str = "ticks";

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

/// The judge said something about a rollout, with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    /// The rollout.
    pub rollout: RolloutId,
    /// The step it was at.
    pub step: u16,
    /// What it says.
    pub verdict: Verdict,
    /// What the baseline did since the rollout began; during the step, as the rule `plain/1` had it.
    pub baseline: Counts,
    /// What the canary did, as above.
    pub canary: Counts,
    /// The tolerance of the policy, in errors per million requests.
    pub errors_tolerance_ppm: u32,
    /// The rule that judged and its version.
    pub rule: String,
    /// The verdict in words.
    pub reason: String,
    /// What it rests on; the rule `plain/1` had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What a verdict rests on. Evidence is the logarithm of odds, in thousandths: 4,605 is 100 to 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// On how many recorded ticks of the rollout, from its first.
    pub ticks: u64,
    /// That the canary is worse, over all metrics.
    pub worse_milli: i64,
    /// How much of that convicts.
    pub worse_needed_milli: i64,
    /// That it is not worse, by the metric that shows it least.
    pub not_worse_milli: i64,
    /// How much of that, by every metric, accepts.
    pub not_worse_needed_milli: i64,
    /// About how many more requests of the canary are needed until it is accepted, if it is like its baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_still_needed: Option<u64>,
    /// The smallest regression that is excluded: by how many more requests in a million the canary would fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_ppm: Option<u32>,
    /// Whether the baseline itself is in an incident, so that nothing speaks for the canary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_incident: bool,
    /// Whether requests do not fall as the weights say: the router's doing, not the version's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routing_broken: bool,
    /// The canary's nodes of which one is bad while the version without them is not known to be; one, unless the canary
    /// has very many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_nodes: Vec<EffectId>,
    /// Metric by metric.
    pub metrics: Vec<MetricEvidence>,
}

/// What is known of one metric. Evidence as in [`Evidence`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetricEvidence {
    /// The metric: `errors`, `4xx`, `p50`, `p99`.
    pub name: String,
    /// All that was counted of the baseline.
    pub baseline: Tally,
    /// All that was counted of the canary.
    pub canary: Tally,
    /// The highest rate of hits that is tolerated of the canary, in hits per million requests.
    pub tolerated_ppm: u32,
    /// That the canary is worse, as if all capital were on this metric.
    pub worse_milli: i64,
    /// That it is not.
    pub not_worse_milli: i64,
    /// Whether the metric has been accepted.
    pub accepted: bool,
}

/// The judge began to listen to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Begun {
    /// The rollout.
    pub rollout: RolloutId,
    /// The rule that judges and its version.
    pub rule: String,
    /// How the rollout was planned.
    pub plan: Plan,
    /// What is tolerated.
    pub policy: JudgementPolicy,
    /// After how many seconds the baseline's past counts half.
    pub half_life_s: u32,
    /// What the baseline did before, one a metric in the order of the judge's plan; `null` if too little is known.
    pub history: Vec<Option<Tally>>,
}

/// What both versions of a rollout did was counted, tick by tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counted {
    /// The rollout.
    pub rollout: RolloutId,
    /// How many ticks of it were recorded before.
    pub first: u64,
    /// The baseline's nodes that the ticks before did not have; they take the next numbers in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baseline_nodes: Vec<EffectId>,
    /// The canary's, as above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary_nodes: Vec<EffectId>,
    /// The ticks.
    pub ticks: Vec<Tick>,
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

/// What was counted of one node in a tick. Written as a list, `[node, age_ms, counts]`, for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "(u32, u64, Vec<Tally>)", into = "(u32, u64, Vec<Tally>)")]
#[schemars(with = "(u32, u64, Vec<Tally>)")]
pub struct NodeTally {
    /// The node's number in this rollout; one that takes its place has another.
    pub node: u32,
    /// How long it had served users when the tick began, in milliseconds.
    pub age_ms: u64,
    /// Its counts, one a metric, in the order of the judge's plan.
    pub counts: Vec<Tally>,
}

impl From<(u32, u64, Vec<Tally>)> for NodeTally {
    fn from((node, age_ms, counts): (u32, u64, Vec<Tally>)) -> Self {
        Self { node, age_ms, counts }
    }
}

impl From<NodeTally> for (u32, u64, Vec<Tally>) {
    fn from(NodeTally { node, age_ms, counts }: NodeTally) -> Self {
        (node, age_ms, counts)
    }
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
    /// The baseline's nodes, those without a request left out.
    pub baseline: Vec<NodeTally>,
    /// The canary's nodes, as above.
    pub canary: Vec<NodeTally>,
}

events! {
    /// What happens at the judge's.
    Begun = "judgement.begun" [unchanged],
    Counted = "judgement.counted",
    Judged = "judgement.judged",
}
