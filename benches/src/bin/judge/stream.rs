//! Streams of requests: what a baseline and a canary do, tick by tick, as every judge sees it.

use ledger::judgement::observed::Observed;
use ledger::judgement::plan::{BaselineHistory, Kind, Plan};
use schemas::judgement::{NodeTally, Tally};

use crate::dice::Dice;

pub(crate) const DAY: f64 = 86_400.0;

/// Errors of a good version, in hits a request.
pub(crate) const USUAL: f64 = 0.001;

/// Latencies are log-logistic: the median in milliseconds and the shape; the p99 is then 321 ms.
const MEDIAN_MS: f64 = 50.0;
const SHAPE: f64 = 2.47;

const RATIO: f64 = 1.01;

/// What both versions do at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The canary's share of requests.
    pub(crate) share: f64,
    /// The versions' chances of an error.
    pub(crate) errors: (f64, f64),
    /// How many times slower than usual both are.
    pub(crate) slow: f64,
    /// How many times slower the canary's middle and tail are.
    pub(crate) slower: (f64, f64),
}

/// What happens, by seconds since the start.
pub(crate) type Happens = fn(f64, f64) -> Moment;

/// A stream of requests of two versions.
pub(crate) struct Stream {
    dice: Dice,
    rps: f64,
    share: f64,
    happens: Happens,
    /// Seconds until now.
    pub(crate) seconds: f64,
    owed: f64,
    edges: [f64; 4],
}

/// What came of one tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) requests: (u64, u64),
    pub(crate) errors: (u64, u64),
    /// Above the baseline's median, that and its tolerance, its p99, that and its tolerance.
    pub(crate) above: ([u64; 4], [u64; 4]),
}

/// The chance that a request is slower than `ms`, on a version `times` slower than usual.
fn above(ms: f64, times: f64) -> f64 {
    1.0 / (1.0 + (ms / (MEDIAN_MS * times)).powf(SHAPE))
}

/// The latency below which a share of `chance` lies.
pub(crate) fn latency_ms(chance: f64) -> f64 {
    MEDIAN_MS * (chance / (1.0 - chance)).powf(1.0 / SHAPE)
}

pub(crate) fn upper_edge(ms: f64) -> f64 {
    RATIO.powi((ms.ln() / RATIO.ln()).ceil() as i32)
}

pub(crate) fn good(_: f64, share: f64) -> Moment {
    Moment { share, errors: (USUAL, USUAL), slow: 1.0, slower: (1.0, 1.0) }
}

impl Stream {
    pub(crate) fn new(seed: u64, rps: f64, share: f64, happens: Happens) -> Self {
        let (p50, p99) = (upper_edge(latency_ms(0.5)), upper_edge(latency_ms(0.99)));
        let edges = [p50, p50 * RATIO.powi(10), p99, p99 * RATIO.powi(19)];
        Self { dice: Dice::new(seed), rps, share, happens, seconds: 0.0, owed: 0.0, edges }
    }

    /// Returns what happens now.
    pub(crate) fn now(&self) -> Moment {
        (self.happens)(self.seconds, self.share)
    }

    /// Returns the plan of errors, p50 and p99 with the history of as long as the past counts.
    pub(crate) fn plan(&mut self) -> Plan {
        let mut plan = Plan::new(DAY);
        plan.half_life_seconds = Plan::half_life_seconds_at(self.rps);
        let requests = (plan.half_life_seconds * self.rps) as u64;
        let moment = (self.happens)(0.0, self.share);
        let errors = self.dice.binomial(requests, moment.errors.0);
        let slow = self.slow(requests, 1.0, 1.0);
        for metric in &mut plan.metrics {
            let (hits, beyond) = match metric.kind {
                Kind::Status => (errors, errors),
                Kind::Latency { quantile, .. } if quantile < 0.9 => (slow[0], slow[1]),
                Kind::Latency { .. } => (slow[2], slow[3]),
            };
            metric.history = Some(BaselineHistory { requests, hits, beyond });
        }
        plan
    }

    /// Draws a tick.
    pub(crate) fn tick(&mut self, seconds: f64) -> Counted {
        let moment = self.now();
        self.owed += self.rps * seconds;
        let requests = self.owed.floor();
        self.owed -= requests;
        let canary = self.dice.binomial(requests as u64, moment.share);
        let baseline = requests as u64 - canary;
        self.seconds += seconds;
        Counted {
            requests: (baseline, canary),
            errors: (self.dice.binomial(baseline, moment.errors.0), self.dice.binomial(canary, moment.errors.1)),
            above: (
                self.slow(baseline, moment.slow, moment.slow),
                self.slow(canary, moment.slow * moment.slower.0, moment.slow * moment.slower.1),
            ),
        }
    }

    fn slow(&mut self, requests: u64, middle: f64, tail: f64) -> [u64; 4] {
        let chances: Vec<f64> =
            self.edges.iter().zip([middle, middle, tail, tail]).map(|(ms, times)| above(*ms, times)).collect();
        let mut slow = [0; 4];
        let (mut left, mut chance) = (requests, 1.0);
        for (i, next) in chances.into_iter().enumerate() {
            left = self.dice.binomial(left, (next / chance).min(1.0));
            (slow[i], chance) = (left, next);
        }
        slow
    }

    /// Draws the p99 of so many requests.
    pub(crate) fn p99_ms(&mut self, requests: u64, times: f64) -> f64 {
        let k = (0.99 * requests as f64).ceil().max(1.0) as u64;
        latency_ms(self.dice.order_statistic(k, requests)) * times
    }
}

impl Counted {
    pub(crate) fn observed(&self, seconds: f64, share: f64) -> Observed {
        let ((n_a, n_b), (x_a, x_b), (above_a, above_b)) = (self.requests, self.errors, self.above);
        let tally = |requests, hits, beyond| Tally { requests, hits, beyond };
        let baseline =
            vec![tally(n_a, x_a, x_a), tally(n_a, above_a[0], above_a[1]), tally(n_a, above_a[2], above_a[3])];
        let canary = vec![tally(n_b, x_b, 0), tally(n_b, above_b[1], 0), tally(n_b, above_b[3], 0)];
        Observed::of_versions(seconds, share / (1.0 - share), baseline, canary)
    }
}

/// Ninety nodes of the baseline and ten of the canary, whose requests fail together: each node has two seconds an hour
/// in which half of its requests fail and are slow.
pub(crate) struct Hiccups {
    dice: Dice,
    rps_of_node: u64,
    ill: Vec<u32>,
}

impl Hiccups {
    pub(crate) fn new(seed: u64, rps: u64) -> Self {
        Self { dice: Dice::new(seed), rps_of_node: rps / 100, ill: vec![0; 100] }
    }

    /// Draws a second.
    pub(crate) fn second(&mut self, failing: f64) -> Observed {
        let mut nodes = [Vec::with_capacity(90), Vec::with_capacity(10)];
        for node in 0..100_u32 {
            let canary = node >= 90;
            let ill = &mut self.ill[node as usize];
            if *ill == 0 && self.dice.chance(1.0 / 3_600.0) {
                *ill = 2;
            }
            let rate = if *ill > 0 {
                0.5
            } else if canary {
                failing
            } else {
                USUAL
            };
            *ill = ill.saturating_sub(1);
            let hits = self.dice.binomial(self.rps_of_node, rate);
            let counts = vec![Tally { requests: self.rps_of_node, hits, beyond: hits }];
            nodes[usize::from(canary)].push(NodeTally { node, age_ms: u64::MAX, counts });
        }
        let [baseline, canary] = nodes;
        Observed { seconds: 1.0, nu: 1.0 / 9.0, baseline, canary }
    }
}
