//! What the tests share: plans, ticks and seeded chance.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemas::judgement::{NodeTally, Tally};

use crate::judgement::judge::Judge;
use crate::judgement::observed::Observed;
use crate::judgement::plan::{BaselineHistory, Metric, Plan};

/// A plan of these metrics with a long history of a good baseline.
pub(super) fn plan(names: &[&str]) -> Plan {
    let mut metrics: Vec<Metric> = names.iter().map(|name| Metric::named(name)).collect();
    for metric in &mut metrics {
        let (hits, beyond) = match metric.name.as_str() {
            "p99" => (6_000, 4_000),
            "p50" => (300_000, 250_000),
            _ => (600, 600),
        };
        metric.weight = 1.0 / names.len() as f64;
        metric.history = Some(BaselineHistory { requests: 600_000, hits, beyond });
    }
    Plan { metrics, ..Plan::new(86_400.0) }
}

pub(super) fn tally(requests: u64, hits: u64) -> Tally {
    Tally { requests, hits, beyond: 0 }
}

pub(super) fn node(node: u32, counts: &[Tally]) -> NodeTally {
    NodeTally { node, age_ms: 3_600_000, counts: counts.to_vec() }
}

/// A second of one metric, the canary at a tenth.
pub(super) fn second(baseline: &[(u64, u64)], canary: &[(u64, u64)]) -> Observed {
    let nodes = |pairs: &[(u64, u64)]| (0_u32..).zip(pairs).map(|(i, (n, x))| node(i, &[tally(*n, *x)])).collect();
    Observed { seconds: 1.0, nu: 1.0 / 9.0, baseline: nodes(baseline), canary: nodes(canary) }
}

pub(super) fn judge(names: &[&str]) -> Judge {
    Judge::new(plan(names)).unwrap()
}

pub(super) struct Dice(pub(super) ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(super) fn hits(&mut self, requests: u64, rate: f64) -> u64 {
        (0..requests).filter(|_| self.0.random_bool(rate)).count() as u64
    }
}
