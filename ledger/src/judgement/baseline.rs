//! What the baseline is used to: its decayed rate, and whether it is in an incident of its own.

use serde::{Deserialize, Serialize};

use super::exact;
use super::maths::decay;
use super::plan::{BaselineHistory, Metric};

/// Over how many seconds an incident shows: the half-life of the short memory.
const SHORT_HALF_LIFE_SECONDS: f64 = 10.0;

/// How many hits an incident has at least.
const INCIDENT_HITS_MIN: f64 = 10.0;

/// A baseline without a history is listened to for so many requests before anything is bet on its rate.
const LISTEN_REQUESTS: f64 = 50.0;

/// The baseline's rate of hits, remembered for a long and for a short while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    #[serde(with = "exact")]
    hits: f64,
    #[serde(with = "exact")]
    requests: f64,
    #[serde(with = "exact")]
    beyond: f64,
    #[serde(with = "exact")]
    short_hits: f64,
    #[serde(with = "exact")]
    short_requests: f64,
    listening: bool,
    in_incident: bool,
}

impl Baseline {
    /// Returns the baseline of `metric` as its history has it.
    pub fn new(metric: &Metric) -> Self {
        let BaselineHistory { requests, hits, beyond } =
            metric.history.unwrap_or(BaselineHistory { requests: 0, hits: 0, beyond: 0 });
        Self {
            hits: hits as f64,
            requests: requests as f64,
            beyond: beyond as f64,
            short_hits: 0.0,
            short_requests: 0.0,
            listening: metric.history.is_none(),
            in_incident: false,
        }
    }

    /// Returns the rate, never 0 or 1.
    pub fn rate(&self) -> f64 {
        (self.hits + 0.5) / (self.requests + 1.0)
    }

    /// Returns the rate by the canary's edge as a multiple of the rate, for latencies.
    pub fn beyond_ratio(&self) -> f64 {
        ((self.beyond + 0.5) / (self.hits + 0.5)).min(1.0)
    }

    /// Whether too little is known of the rate to bet on it.
    pub fn is_listening(&self) -> bool {
        self.listening
    }

    /// Whether the baseline itself fails far more often than it is used to.
    pub fn in_incident(&self) -> bool {
        self.in_incident
    }

    /// Adds what was counted during `seconds`. Nothing is learnt from an incident: `frozen` says that one is on.
    ///
    /// `hits` may be capped, `raw_hits` are not: a cap must not hide an incident.
    pub fn learn(&mut self, seconds: f64, half_life: f64, frozen: bool, counted: Counted) {
        if !frozen {
            let kept = decay(seconds, half_life);
            self.hits = self.hits * kept + counted.hits;
            self.requests = self.requests * kept + counted.requests;
            self.beyond = self.beyond * kept + counted.beyond;
        }
        self.listening &= self.requests < LISTEN_REQUESTS;
        let kept = decay(seconds, SHORT_HALF_LIFE_SECONDS);
        self.short_hits = self.short_hits * kept + counted.raw_hits;
        self.short_requests = self.short_requests * kept + counted.requests;
        let rate = self.rate();
        let short = self.short_hits / self.short_requests.max(1.0);
        self.in_incident = self.short_hits >= INCIDENT_HITS_MIN && short > (3.0 * rate).max(rate + 0.01);
    }
}

/// What was counted of the baseline in a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Requests.
    pub requests: f64,
    /// Hits, as far as they count.
    pub hits: f64,
    /// All hits.
    pub raw_hits: f64,
    /// Hits by the canary's edge.
    pub beyond: f64,
}
