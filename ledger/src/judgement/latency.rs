//! Latencies as hits: where the baseline's quantile lies, and which requests count as slower.

use std::collections::BTreeMap;

use schemas::judgement::Tally;

use super::maths::{decay, ln};
use super::plan::{Kind, Metric};

/// Durations by bucket; bucket `i` ends at `1.01^i` milliseconds, itself included.
pub type Buckets = BTreeMap<i32, u64>;

/// The baseline's latencies, the old ones fading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    buckets: BTreeMap<i32, f64>,
}

/// Below this a bucket is forgotten: less than a request in a million.
const FORGOTTEN: f64 = 1e-6;

impl Latencies {
    /// Adds what ended during `seconds`.
    pub fn learn(&mut self, seconds: f64, half_life_seconds: f64, ended: &Buckets) {
        let kept = decay(seconds, half_life_seconds);
        self.buckets.values_mut().for_each(|count| *count *= kept);
        self.buckets.retain(|_, count| *count > FORGOTTEN);
        for (bucket, count) in ended.iter().filter(|(_, count)| **count > 0) {
            *self.buckets.entry(*bucket).or_default() += *count as f64;
        }
    }

    /// Returns the bucket that holds the `quantile` (0 to 1), if there is any request: the edge that the next tick's
    /// requests are measured by. To be asked before that tick.
    pub fn edge(&self, quantile: f64) -> Option<i32> {
        let all: f64 = self.buckets.values().sum();
        let mut below = 0.0;
        let found = self.buckets.iter().find(|(_, count)| {
            below += **count;
            below >= quantile * all
        });
        found.or(self.buckets.last_key_value()).map(|(bucket, _)| *bucket)
    }

    /// Returns how many of its requests lie above `bucket`, and how many it has.
    pub fn above(&self, bucket: i32) -> (f64, f64) {
        let above = self.buckets.range(bucket.saturating_add(1)..).map(|(_, count)| count).sum();
        (above, self.buckets.values().sum())
    }
}

/// What a router knows of one node's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLatencies {
    /// The latencies of the requests that ended since the look before.
    pub ended: Buckets,
    /// How many of them ended badly.
    pub failed: u64,
    /// The ages of those that have not ended now.
    pub in_flight: Buckets,
}

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The baseline's.
    Baseline,
    /// The canary's.
    Canary,
}

/// Counts one node's requests of one metric from look to look, each request once.
///
/// A request that hangs is not waited for: as soon as it is older than the edge it is a slow one, and older than the
/// deadline a failed one. Failures come faster than answers, and a canary must not look bad because its good answers
/// are still under way: so its requests count from their beginning, as good ones until they fail. Those of the baseline
/// count when they end; it has served for long, so that what ends in a tick is a fair sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Requests that had not ended at the last look.
    open: u64,
    /// Those of them that were counted as hits.
    overdue: u64,
    /// Requests that were counted before they began, so that a failure has its request in its tick.
    ahead: u64,
}

impl InFlight {
    /// Returns the tally of `metric` for what was `seen`. `edge` is the baseline's for this tick; without one a latency
    /// is not counted. `deadline` is the bucket of the age at which a request counts as failed.
    pub fn count(
        &mut self,
        metric: &Metric,
        side: Side,
        edge: Option<i32>,
        deadline: i32,
        seen: &NodeLatencies,
    ) -> Tally {
        match (metric.kind, edge) {
            (Kind::Status, _) => self.failures(side, deadline, seen),
            (Kind::Latency { buckets, .. }, Some(edge)) => self.slow(side, edge, i32::from(buckets), seen),
            (Kind::Latency { .. }, None) => {
                *self = Self::default();
                Tally::default()
            }
        }
    }

    fn failures(&mut self, side: Side, deadline: i32, seen: &NodeLatencies) -> Tally {
        let (open, overdue) = (count(&seen.in_flight), above(&seen.in_flight, deadline));
        let hits = (seen.failed + overdue).saturating_sub(self.overdue);
        let since = |now: u64, before: u64| (count(&seen.ended) + now).saturating_sub(before);
        let (decided, began) = (since(overdue, self.overdue), since(open, self.open));
        (self.open, self.overdue) = (open, overdue);
        match side {
            Side::Baseline => Tally { requests: decided, hits: hits.min(decided), beyond: hits.min(decided) },
            Side::Canary => {
                let due = began.saturating_sub(self.ahead);
                let requests = due.max(hits);
                self.ahead = self.ahead + requests - began.min(self.ahead + requests);
                Tally { requests, hits, beyond: 0 }
            }
        }
    }

    fn slow(&mut self, side: Side, edge: i32, buckets: i32, seen: &NodeLatencies) -> Tally {
        let further = canary_slow_bucket(edge, buckets);
        let own = if side == Side::Canary { further } else { edge };
        let overdue = above(&seen.in_flight, own);
        let since = |now: u64| (now + overdue).saturating_sub(self.overdue);
        let decided = since(count(&seen.ended));
        let hits = since(above(&seen.ended, own)).min(decided);
        self.overdue = overdue;
        let beyond = if side == Side::Baseline { above(&seen.ended, further).min(hits) } else { 0 };
        Tally { requests: decided, hits, beyond }
    }
}

/// Differences of latencies below this are nobody's concern, in milliseconds: where answers take less than that, a fresh
/// process on another processor is slower than any tolerance in percent, and no worse a version.
pub const DIFFERENCE_MS_MIN: f64 = 5.0;

/// Returns the bucket above which a request of the canary is slow, `edge` being the baseline's: so many buckets on, at
/// least [`DIFFERENCE_MS_MIN`].
pub fn canary_slow_bucket(edge: i32, buckets: i32) -> i32 {
    let ln_ratio = ln(RATIO);
    let at_least = ln(libm::pow(RATIO, f64::from(edge)) + DIFFERENCE_MS_MIN) / ln_ratio;
    edge.saturating_add(buckets).max(libm::ceil(at_least) as i32)
}

/// The ratio between a bucket's edges.
const RATIO: f64 = 1.01;

fn count(buckets: &Buckets) -> u64 {
    buckets.values().sum()
}

fn above(buckets: &Buckets, edge: i32) -> u64 {
    buckets.range(edge.saturating_add(1)..).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: i32 = 1_000;

    fn seen(ended: &[i32], failed: u64, in_flight: &[i32]) -> NodeLatencies {
        let buckets = |of: &[i32]| {
            let mut buckets = Buckets::new();
            of.iter().for_each(|bucket| *buckets.entry(*bucket).or_default() += 1);
            buckets
        };
        NodeLatencies { ended: buckets(ended), failed, in_flight: buckets(in_flight) }
    }

    fn pairs(metric: &str, side: Side, looks: &[NodeLatencies]) -> Vec<(u64, u64)> {
        let (metric, mut in_flight) = (Metric::named(metric), InFlight::default());
        let tally = |seen| in_flight.count(&metric, side, Some(500), DEADLINE, seen);
        looks.iter().map(tally).map(|tally| (tally.requests, tally.hits)).collect()
    }

    #[test]
    fn the_edge_is_the_bucket_of_the_quantile_and_old_latencies_fade() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.edge(0.99), None);
        latencies.learn(1.0, 600.0, &Buckets::from([(100, 99), (400, 1)]));
        assert_eq!(
            (latencies.edge(0.5), latencies.edge(0.99), latencies.edge(0.995)),
            (Some(100), Some(100), Some(400))
        );
        assert_eq!(latencies.above(100), (1.0, 100.0));
        latencies.learn(6_000.0, 600.0, &Buckets::from([(200, 9)]));
        assert_eq!(latencies.edge(0.5), Some(200));
        latencies.learn(60_000.0, 600.0, &Buckets::new());
        assert_eq!(latencies.edge(0.5), None, "what has faded is forgotten");
    }

    #[test]
    fn a_difference_of_a_few_milliseconds_is_none() {
        assert_eq!(canary_slow_bucket(500, 19), 519, "144.8 ms and a fifth more");
        assert_eq!(canary_slow_bucket(0, 10), 181, "1 ms is slow from 6 ms on");
        assert_eq!(canary_slow_bucket(-694, 10), 162, "a microsecond from 5 ms on");
    }

    #[test]
    fn a_hung_request_is_slow_once_it_is_older_than_the_edge_and_once_only() {
        let looks = [
            seen(&[300, 519], 0, &[400]), // the canary's edge is 519
            seen(&[], 0, &[520]),
            seen(&[100], 0, &[700]),
            seen(&[800, 100], 0, &[]),
        ];
        assert_eq!(pairs("p99", Side::Canary, &looks), [(2, 0), (1, 1), (1, 0), (1, 0)]);
        assert_eq!(pairs("p99", Side::Baseline, &looks), [(2, 1), (1, 1), (1, 0), (1, 0)]);
    }

    #[test]
    fn a_request_that_ends_late_is_slow_when_it_ends() {
        let looks = [seen(&[], 0, &[100]), seen(&[600], 0, &[]), seen(&[600, 1], 0, &[])];
        assert_eq!(pairs("p99", Side::Canary, &looks), [(0, 0), (1, 1), (2, 1)]);
    }

    #[test]
    fn a_request_past_the_deadline_has_failed_and_fails_once() {
        let looks = [seen(&[], 0, &[900]), seen(&[], 0, &[1_001]), seen(&[], 0, &[1_050]), seen(&[1_060], 1, &[])];
        assert_eq!(pairs("errors", Side::Canary, &looks), [(1, 0), (1, 1), (0, 0), (0, 0)]);
        assert_eq!(pairs("errors", Side::Baseline, &looks), [(0, 0), (1, 1), (0, 0), (0, 0)]);
    }

    #[test]
    fn requests_under_way_speak_for_the_canary_until_they_fail_and_none_is_counted_twice() {
        let looks = [
            seen(&[10], 1, &[1, 1, 1, 1]), // the first of five has failed at once
            seen(&[10, 10], 2, &[50, 50]), // two more fail and none begins
            seen(&[10], 0, &[90, 1, 1, 1]),
            seen(&[10, 10, 10, 10], 0, &[]),
        ];
        assert_eq!(pairs("errors", Side::Canary, &looks), [(5, 1), (2, 2), (1, 0), (0, 0)]);
        assert_eq!(pairs("errors", Side::Baseline, &looks), [(1, 1), (2, 2), (1, 0), (4, 0)]);
    }
}
