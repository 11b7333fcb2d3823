//! What the judge is told at a tick: counts of both versions, node by node.

use schemas::judgement::{NodeTally, Tally, Tick};

/// One tick's counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// How long the tick was, in seconds.
    pub seconds: f64,
    /// How many requests the canary is to get for each of the baseline's, by the weights that are applied.
    pub nu: f64,
    /// The baseline's nodes.
    pub baseline: Vec<NodeTally>,
    /// The canary's.
    pub canary: Vec<NodeTally>,
}

impl Observed {
    /// Returns a tick of versions whose nodes are not told apart; one tally a metric, in the plan's order.
    pub fn of_versions(seconds: f64, nu: f64, baseline: Vec<Tally>, canary: Vec<Tally>) -> Self {
        let node = |counts| vec![NodeTally { node: 0, age_ms: u64::MAX, counts }];
        Self { seconds, nu, baseline: node(baseline), canary: node(canary) }
    }
}

impl From<&Tick> for Observed {
    fn from(tick: &Tick) -> Self {
        let share = f64::from(tick.share.basis_points());
        Self {
            seconds: f64::from(tick.ms) / 1_000.0,
            nu: share / (10_000.0 - share),
            baseline: tick.baseline.clone(),
            canary: tick.canary.clone(),
        }
    }
}
