//! The past: what the baseline did before it was compared with a canary; older measurements weigh less.

use std::collections::BTreeMap;

use ledger::judgement::analysis::metrics;
use ledger::judgement::judge::RULE;
use ledger::judgement::latency::{Latencies, canary_slow_bucket};
use ledger::judgement::maths::decay;
use ledger::judgement::plan::{Kind, Plan};
use schemas::StackId;
use schemas::judgement::{Begun, Tally};
use schemas::policy::metric;

use super::Since;
use crate::traffic::measures::{Counts, Histogram};
use ledger::deployment::Rollout;

/// Below so many requests a baseline has no past that could be relied on.
const REQUESTS_MIN: f64 = 50.0;

/// A baseline's past.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Past {
    stack: StackId,
    latencies: Latencies,
    requests: f64,
    /// Of each metric that is a share of requests, by its name.
    hits: BTreeMap<&'static str, f64>,
    seconds: f64,
    fresh: Option<(Counts, Histogram, f64)>,
}

impl Past {
    /// Returns the past of a stack of which nothing is known yet.
    pub(super) fn of(stack: StackId) -> Self {
        let latencies = Latencies::default();
        Self { stack, latencies, requests: 0.0, hits: BTreeMap::new(), seconds: 0.0, fresh: None }
    }

    pub(super) fn stack(&self) -> StackId {
        self.stack
    }

    pub(super) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Takes in what the stack did; it is the past only once it is [settled](Past::settle).
    pub(super) fn take_in(&mut self, since: &[Since], seconds: f64) {
        let (mut counts, mut latency) = (Counts::default(), Histogram::default());
        for node in since {
            counts.merge(&node.measures.counts);
            latency.merge(&node.measures.latency);
        }
        self.fresh = Some((counts, latency, seconds));
    }

    /// Learns what was taken in.
    pub(super) fn settle(&mut self) {
        let Some((counts, latency, seconds)) = self.fresh.take() else { return };
        let half_life = self.half_life_seconds();
        let kept = decay(seconds, half_life);
        self.requests = self.requests * kept + counts.ended() as f64;
        for metric in metric::share_metrics() {
            let hits = self.hits.entry(metric.name).or_default();
            *hits = *hits * kept + counts.hits(metric.name).unwrap_or(0) as f64;
        }
        self.seconds = self.seconds * kept + seconds;
        self.latencies.learn(seconds, half_life, &latency.0);
    }

    fn half_life_seconds(&self) -> f64 {
        Plan::half_life_seconds_at(if self.seconds > 0.0 { self.requests / self.seconds } else { 0.0 })
    }

    /// Returns what a metric had, as far as it is enough to bet on.
    fn history(&self, name: &str, kind: Kind) -> Option<Tally> {
        let (requests, hits, beyond) = match kind {
            Kind::Status => {
                let hits = *self.hits.get(name)?;
                (self.requests, hits, hits)
            }
            Kind::Latency { quantile, buckets } => {
                let edge = self.latencies.edge(quantile)?;
                let (hits, requests) = self.latencies.above(edge);
                (requests, hits, self.latencies.above(canary_slow_bucket(edge, i32::from(buckets))).0)
            }
        };
        let [requests, hits, beyond] = [requests, hits, beyond].map(|count| count.round() as u64);
        (requests as f64 >= REQUESTS_MIN).then(|| Tally {
            requests,
            hits: hits.min(requests),
            beyond: beyond.min(hits),
        })
    }
}

/// Returns what the judge of a rollout is told beforehand.
pub(super) fn begun(past: Option<&Past>, rollout: &Rollout) -> Begun {
    let mut begun = Begun {
        rollout: rollout.id,
        rule: RULE.to_owned(),
        plan: rollout.plan.clone(),
        policy: rollout.policy.judgement.clone(),
        half_life_s: past.map_or(600, |past| past.half_life_seconds() as u32),
        history: vec![],
    };
    begun.history =
        metrics(&begun).into_iter().map(|(name, kind)| past.and_then(|past| past.history(&name, kind))).collect();
    begun
}
