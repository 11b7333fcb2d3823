//! From readings to what the judge is told, for a source that counts whole versions.

use ledger::judgement::latency::{Latencies, canary_slow_bucket};
use ledger::judgement::plan::{BaselineHistory, Kind, Metric, Plan};
use schemas::judgement::{NodeTally, Tally, Tick};
use schemas::{StackId, Weight};

use super::{Measured, NodeMeasured};

/// Makes a tick of each reading, one node a version.
///
/// The edges that a tick's latencies are measured by come from the baseline's latencies before it: a ticker that has seen
/// none counts none in its first tick.
#[derive(Clone, Debug)]
pub struct Ticker {
    metrics: Vec<Metric>,
    half_life_seconds: f64,
    latencies: Latencies,
}

impl Ticker {
    /// Returns a ticker for the metrics of `plan` that has seen nothing.
    pub fn new(plan: &Plan) -> Self {
        Self {
            metrics: plan.metrics.clone(),
            half_life_seconds: plan.half_life_seconds,
            latencies: Latencies::default(),
        }
    }

    /// Learns from what the baseline did, as before the first tick.
    pub fn learn(&mut self, measured: &Measured, baseline: StackId) {
        if let Some(latency) = &measured.of(baseline).latency {
            self.latencies.learn(seconds(measured), self.half_life_seconds, &latency.at_most.0);
        }
    }

    /// Returns the tick of a reading. `share` is the canary's by the weights that were applied meanwhile, `age_ms` the age
    /// of its youngest node when the span began, by which a warm-up is told.
    pub fn tick(
        &mut self,
        measured: &Measured,
        baseline: StackId,
        canary: StackId,
        share: Weight,
        age_ms: u64,
    ) -> Tick {
        let edges: Vec<Option<i32>> = self.metrics.iter().map(|metric| edge(metric, &self.latencies)).collect();
        let (of_baseline, of_canary) = (measured.of(baseline), measured.of(canary));
        let tallies = |of: fn(&Metric, Option<i32>, &NodeMeasured) -> Tally, node: &NodeMeasured| {
            self.metrics.iter().zip(&edges).map(|(metric, edge)| of(metric, *edge, node)).collect()
        };
        let tick = Tick {
            ms: u32::try_from((seconds(measured) * 1_000.0) as u64).unwrap_or(u32::MAX),
            share,
            baseline: vec![NodeTally { node: 0, age_ms: u64::MAX, counts: tallies(of_the_baseline, &of_baseline) }],
            canary: vec![NodeTally { node: 0, age_ms, counts: tallies(of_the_canary, &of_canary) }],
            edges,
        };
        self.learn(measured, baseline);
        tick
    }
}

/// Tells the judge's plan what the baseline did before, and for how long to remember it.
pub fn seed(plan: &mut Plan, measured: &Measured, baseline: StackId) {
    let (before, seconds) = (measured.of(baseline), seconds(measured));
    if seconds > 0.0 {
        plan.half_life_seconds = Plan::half_life_seconds_at(before.requests as f64 / seconds);
    }
    let mut ticker = Ticker::new(plan);
    ticker.learn(measured, baseline);
    for metric in &mut plan.metrics {
        let Tally { requests, hits, beyond } = of_the_baseline(metric, edge(metric, &ticker.latencies), &before);
        metric.history = (requests > 0).then_some(BaselineHistory { requests, hits, beyond });
    }
}

fn edge(metric: &Metric, latencies: &Latencies) -> Option<i32> {
    match metric.kind {
        Kind::Status => None,
        Kind::Latency { quantile, .. } => latencies.edge(quantile),
    }
}

fn seconds(measured: &Measured) -> f64 {
    measured.span.to.duration_since(measured.span.from).as_secs_f64().max(0.0)
}

fn of_the_baseline(metric: &Metric, edge: Option<i32>, node: &NodeMeasured) -> Tally {
    match (metric.kind, edge, &node.latency) {
        (Kind::Status, ..) => status(metric, node),
        (Kind::Latency { buckets, .. }, Some(edge), Some(latency)) => {
            let hits = latency.at_most.count_above(edge);
            let beyond = latency.at_least.count_above(canary_slow_bucket(edge, i32::from(buckets)));
            Tally { requests: latency.at_most.count(), hits, beyond: beyond.min(hits) }
        }
        _ => Tally::default(),
    }
}

fn of_the_canary(metric: &Metric, edge: Option<i32>, node: &NodeMeasured) -> Tally {
    match (metric.kind, edge, &node.latency) {
        (Kind::Status, ..) => Tally { beyond: 0, ..status(metric, node) },
        (Kind::Latency { buckets, .. }, Some(edge), Some(latency)) => {
            let hits = latency.at_least.count_above(canary_slow_bucket(edge, i32::from(buckets)));
            Tally { requests: latency.at_least.count(), hits, beyond: 0 }
        }
        _ => Tally::default(),
    }
}

/// A metric that is not known has no requests, so that nothing is ever made of it.
fn status(metric: &Metric, node: &NodeMeasured) -> Tally {
    node.hits(&metric.name).map_or_else(Tally::default, |hits| {
        let hits = hits.min(node.requests);
        Tally { requests: node.requests, hits, beyond: hits }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Latency, Span};
    use super::*;
    use crate::traffic::Histogram;
    use crate::traffic::measures::bucket_of;
    use schemas::Timestamp;
    use uuid::Uuid;

    fn ids() -> (StackId, StackId) {
        (StackId(Uuid::from_u128(1)), StackId(Uuid::from_u128(2)))
    }

    /// Returns requests that took from 100 to 250 ms and those that took from 250 to 500.
    fn node(fast: u64, slow: u64) -> NodeMeasured {
        let of = |edges: [f64; 2]| {
            Histogram(edges.map(bucket_of).into_iter().zip([fast, slow]).filter(|(_, count)| *count > 0).collect())
        };
        NodeMeasured {
            requests: fast + slow,
            hits: BTreeMap::from([("errors", 1)]),
            latency: Some(Latency { at_most: of([250.0, 500.0]), at_least: of([100.0, 250.0]) }),
            ..NodeMeasured::default()
        }
    }

    fn measured(seconds: i64, baseline: NodeMeasured, canary: NodeMeasured) -> Measured {
        let span = Span { from: Timestamp::UNIX_EPOCH, to: Timestamp::from_second(seconds).unwrap() };
        let (a, b) = ids();
        Measured { span, stacks: BTreeMap::from([(a, vec![baseline]), (b, vec![canary])]) }
    }

    fn tally(requests: u64, hits: u64, beyond: u64) -> Tally {
        Tally { requests, hits, beyond }
    }

    #[test]
    fn a_tick_measures_latencies_by_the_edges_that_were_known_before_it() {
        let (baseline, canary) = ids();
        let mut plan = Plan::new(3_600.0);
        plan.metrics.push(Metric::named("4xx"));
        let mut ticker = Ticker::new(&plan);
        let reading = measured(15, node(90, 10), node(8, 2));
        let first = ticker.tick(&reading, baseline, canary, Weight::from_percent(10), 7);
        assert_eq!((first.ms, first.share, first.edges), (15_000, Weight::from_percent(10), vec![None; 4]));
        let second = ticker.tick(&reading, baseline, canary, Weight::from_percent(10), 15_007);
        let (p50, p99) = (bucket_of(250.0), bucket_of(500.0));
        assert_eq!(second.edges, [None, Some(p50), Some(p99), None]);
        assert_eq!(second.canary[0].age_ms, 15_007);
        let a = &second.baseline[0].counts;
        assert_eq!(a[..2], [tally(100, 1, 1), tally(100, 10, 0)]);
        assert_eq!(a[3], tally(0, 0, 0), "what is not known is no request");
        let b = &second.canary[0].counts;
        assert_eq!(b[..3], [tally(10, 1, 0), tally(10, 0, 0), tally(10, 0, 0)], "slow ones may have taken 251 ms");
    }

    #[test]
    fn a_made_up_metric_is_counted_by_its_name_and_not_at_all_where_nobody_counts_it() {
        let (baseline, canary) = ids();
        let plan = Plan { metrics: vec![Metric::named("aborted")], ..Plan::new(3_600.0) };
        let counts = |of: NodeMeasured| {
            let tick =
                Ticker::new(&plan).tick(&measured(15, of.clone(), of), baseline, canary, Weight::from_percent(10), 7);
            [tick.baseline[0].counts[0], tick.canary[0].counts[0]]
        };
        let counted = NodeMeasured { hits: BTreeMap::from([("aborted", 3), ("errors", 9)]), ..node(90, 10) };
        assert_eq!(counts(counted), [tally(100, 3, 3), tally(100, 3, 0)]);
        assert_eq!(counts(node(90, 10)), [tally(0, 0, 0); 2], "what nobody counts is no request");
    }

    #[test]
    fn the_past_of_the_baseline_is_told_to_the_judge_before_it_begins() {
        let (baseline, _) = ids();
        let mut plan = Plan::new(3_600.0);
        seed(&mut plan, &measured(600, node(5_980, 20), node(0, 0)), baseline);
        assert_eq!(plan.half_life_seconds, 2_000.0);
        assert_eq!(plan.metrics[0].history, Some(BaselineHistory { requests: 6_000, hits: 1, beyond: 1 }));
        assert_eq!(plan.metrics[1].history, Some(BaselineHistory { requests: 6_000, hits: 20, beyond: 0 }));
        assert_eq!(plan.validate(), Ok(()));
        let mut silent = Plan::new(3_600.0);
        seed(&mut silent, &measured(600, node(0, 0), node(0, 0)), baseline);
        assert_eq!(silent.metrics[0].history, None, "a baseline without requests has no past");
    }
}
