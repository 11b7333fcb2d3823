//! Measures: what was seen of a deployment's requests, cumulative since a router's start.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemas::{DeploymentId, EffectId, StackId, StackName, StreamVersion};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The ratio between a histogram bucket's edges. Source: "Judging a canary", log buckets of 1 %.
pub const RATIO: f64 = 1.01;

/// The bucket of everything up to a microsecond.
pub const LOWEST_BUCKET: i32 = -694;

/// The bucket of everything above an hour.
pub const HIGHEST_BUCKET: i32 = 1518;

/// How often a duration fell into each bucket; bucket `i` ends at `RATIO^i` milliseconds, itself included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(pub BTreeMap<i32, u64>);

/// Requests that ended, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered with 1xx as the last word (no router passes that on; kept so that the classes are whole).
    pub status_1xx: u64,
    /// Answered with 2xx.
    pub status_2xx: u64,
    /// Answered with 3xx.
    pub status_3xx: u64,
    /// Answered with 4xx.
    pub status_4xx: u64,
    /// Answered with 5xx by the node.
    pub status_5xx: u64,
    /// Not answered, or not to the end: no connection, a broken one, or a timeout (502 or 504 by the router).
    pub failed: u64,
    /// Given up by the user before the answer was whole.
    pub abandoned: u64,
}

/// What was seen of one node's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMeasures {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its ended requests.
    pub counts: Counts,
    /// Attempts to connect that failed and were followed by an attempt at another node; not in `counts`.
    pub passed_on: u64,
    /// From the request's head to the end of the answer, of every ended request.
    pub latency: Histogram,
    /// The ages of the requests that have not ended.
    pub in_flight: Histogram,
    /// The age of the oldest of them, in milliseconds.
    pub oldest_in_flight_ms: Option<u64>,
}

/// What was seen of one stack's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackMeasures {
    /// Its name.
    pub version: StackName,
    /// Its nodes, those that have left since included for a while.
    pub nodes: BTreeMap<EffectId, NodeMeasures>,
}

/// What was seen of one deployment's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// The router's start: counters of another epoch began again at zero.
    pub epoch: Uuid,
    /// Whose requests.
    pub deployment: DeploymentId,
    /// The generation of the routes at this moment.
    pub generation: StreamVersion,
    /// When this was read, in milliseconds of the router's monotone clock since its start.
    pub at_ms: u64,
    /// Requests refused before a stack was chosen (malformed, or asking for what the router does not do).
    pub refused: u64,
    /// Its stacks.
    pub stacks: BTreeMap<StackId, StackMeasures>,
}

/// Returns the bucket of `ms` milliseconds.
pub fn bucket_of(ms: f64) -> i32 {
    // The cast saturates and takes NaN to 0; the clamp keeps both ends finite.
    ((ms.ln() / RATIO.ln()).ceil() as i32).clamp(LOWEST_BUCKET, HIGHEST_BUCKET)
}

/// Returns the upper edge of `bucket`, in milliseconds.
pub fn upper_edge_ms(bucket: i32) -> f64 {
    RATIO.powi(bucket)
}

impl Histogram {
    /// Counts a duration of `ms` milliseconds.
    pub fn add(&mut self, ms: f64) {
        *self.0.entry(bucket_of(ms)).or_default() += 1;
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// Returns what was counted after `earlier`, an older reading of the same epoch.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let rest = self
            .0
            .iter()
            .map(|(bucket, count)| (*bucket, count.saturating_sub(earlier.0.get(bucket).copied().unwrap_or_default())));
        Histogram(rest.filter(|(_, count)| *count > 0).collect())
    }

    /// Returns how many durations were counted.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns how many durations fell into buckets above `bucket`.
    pub fn count_above(&self, bucket: i32) -> u64 {
        self.0.range(bucket.saturating_add(1)..).map(|(_, count)| count).sum()
    }

    /// Returns the bucket that holds the `q`-quantile (0 to 1), if anything was counted.
    pub fn quantile_bucket(&self, q: f64) -> Option<i32> {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.0.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then_some(*bucket)
        })
    }
}

impl Counts {
    /// Returns how many requests ended.
    pub fn ended(&self) -> u64 {
        self.status_1xx
            + self.status_2xx
            + self.status_3xx
            + self.status_4xx
            + self.status_5xx
            + self.failed
            + self.abandoned
    }

    /// Returns how many of them are the version's errors: 5xx and what was not answered to the end.
    pub fn errors(&self) -> u64 {
        self.status_5xx + self.failed
    }

    /// Returns how many of them are hits of the metric of this name; none if it is no share of requests that is counted.
    pub fn hits(&self, metric: &str) -> Option<u64> {
        match metric {
            "errors" => Some(self.errors()),
            "4xx" => Some(self.status_4xx),
            _ => None,
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs;
        }
    }

    /// Returns what was counted after `earlier`, an older reading of the same epoch.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        let mut rest = *self;
        for (mine, theirs) in rest.fields_mut().into_iter().zip(earlier.fields()) {
            *mine = mine.saturating_sub(theirs);
        }
        rest
    }

    fn fields(&self) -> [u64; 7] {
        let Counts { status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, failed, abandoned } = *self;
        [status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, failed, abandoned]
    }

    fn fields_mut(&mut self) -> [&mut u64; 7] {
        let Counts { status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, failed, abandoned } = self;
        [status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, failed, abandoned]
    }
}

impl NodeMeasures {
    /// Adds what was seen of the same node at another address.
    pub fn merge(&mut self, other: NodeMeasures) {
        self.counts.merge(&other.counts);
        self.passed_on += other.passed_on;
        self.latency.merge(&other.latency);
        self.in_flight.merge(&other.in_flight);
        self.oldest_in_flight_ms = self.oldest_in_flight_ms.max(other.oldest_in_flight_ms);
    }
}

impl StackMeasures {
    /// Returns the counts of all nodes.
    pub fn counts(&self) -> Counts {
        self.nodes.values().fold(Counts::default(), |mut sum, node| {
            sum.merge(&node.counts);
            sum
        })
    }

    /// Returns the latencies of all nodes.
    pub fn latency(&self) -> Histogram {
        self.nodes.values().fold(Histogram::default(), |mut sum, node| {
            sum.merge(&node.latency);
            sum
        })
    }

    /// Returns the ages of all requests that have not ended.
    pub fn in_flight(&self) -> Histogram {
        self.nodes.values().fold(Histogram::default(), |mut sum, node| {
            sum.merge(&node.in_flight);
            sum
        })
    }

    /// Returns how many requests have come in.
    pub fn arrived(&self) -> u64 {
        self.counts().ended() + self.in_flight().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reaches_from_its_lower_edge_to_one_percent_above() {
        assert_eq!(bucket_of(1.0), 0);
        for bucket in [LOWEST_BUCKET + 1, -3, 1, 2, 463, HIGHEST_BUCKET - 1] {
            let edge = upper_edge_ms(bucket);
            assert_eq!(bucket_of(edge * 0.9999), bucket);
            assert_eq!(bucket_of(edge * 1.0001), bucket + 1);
        }
    }

    #[test]
    fn durations_beyond_the_ends_stay_in_the_outermost_buckets() {
        assert_eq!(bucket_of(0.0), LOWEST_BUCKET);
        assert_eq!(bucket_of(1e-9), LOWEST_BUCKET);
        assert_eq!(bucket_of(1e12), HIGHEST_BUCKET);
        assert!((0.000_99..0.001_011).contains(&upper_edge_ms(LOWEST_BUCKET)));
        assert!(upper_edge_ms(HIGHEST_BUCKET) > 3_600_000.0);
    }

    #[test]
    fn histograms_merge_and_subtract_without_loss() {
        let mut early = Histogram::default();
        (1..=100).for_each(|ms| early.add(f64::from(ms)));
        let mut late = early.clone();
        let mut more = Histogram::default();
        (50..=150).for_each(|ms| more.add(f64::from(ms)));
        late.merge(&more);
        assert_eq!(late.since(&early), more);
        assert_eq!(late.count(), 201);
    }

    #[test]
    fn a_quantile_is_within_one_percent() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.add(f64::from(ms)));
        for (q, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let edge = upper_edge_ms(histogram.quantile_bucket(q).unwrap());
            assert!((exact..exact * 1.0101).contains(&edge), "{q}: {edge}");
        }
        let p99 = histogram.quantile_bucket(0.99).unwrap();
        assert!(histogram.count_above(p99) <= 10);
        assert_eq!(Histogram::default().quantile_bucket(0.5), None);
    }

    #[test]
    fn a_histogram_reads_back_as_written() {
        let mut histogram = Histogram::default();
        [0.5, 0.5, 20.0].into_iter().for_each(|ms| histogram.add(ms));
        let json = serde_json::to_string(&histogram).unwrap();
        assert_eq!(json, r#"{"-69":2,"302":1}"#);
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
    }
}
