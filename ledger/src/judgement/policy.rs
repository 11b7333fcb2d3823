//! From a service's policy to what the judge and the ramp are told.

use schemas::policy::{JudgementPolicy, Tolerance, metric};
use schemas::rollout;

use super::evalue::Line;
use super::maths::ln;
use super::plan::{Kind, Metric, ODDS_STATUS, Plan};
use super::ramp::Ramp;

/// How wide a bucket of latencies is.
const BUCKET_RATIO: f64 = 1.01;

/// How long the weights of a step are judged at least before those of the next, in milliseconds, where the judgement sets the
/// pace. Source: "Judging a canary", the ramp rule: a rise by four each time that the weights are moved.
const STEP_MS_MIN: u64 = 2_000;

/// How many readings of another source than the router must fit between two steps, where the judgement sets the pace:
/// the first may cover the time before the step.
const READINGS_MIN: u64 = 2;

/// The shortest rollout that the judge's capital is spread over, in seconds.
const PLAN_SECONDS_MIN: f64 = 1.0;

/// Returns the judge's plan of a rollout. Metrics stand in the order of [`schemas::policy::metric::METRICS`]; one without a weight is left out.
///
/// What only the baseline's traffic can tell is for the caller to add before the judge begins: each metric's `history`,
/// and `half_life_seconds` by [`Plan::half_life_seconds_at`].
pub fn plan(policy: &JudgementPolicy, rollout: &rollout::Plan) -> Plan {
    Plan {
        alpha: of_million(policy.alpha_ppm),
        beta: of_million(policy.beta_ppm),
        burst_cap: policy.burst_cap,
        warm_up_seconds: policy.warm_up_ms as f64 / 1_000.0,
        metrics: policy.metrics.judged().map(|(metric, tolerance)| judged(metric, tolerance)).collect(),
        ..Plan::new((rollout.duration_ms.saturating_add(rollout.bake_ms) as f64 / 1_000.0).max(PLAN_SECONDS_MIN))
    }
}

/// Returns how a canary's traffic may rise under `policy`.
pub fn ramp(policy: &JudgementPolicy) -> Ramp {
    Ramp { budget_requests: f64::from(policy.bad_requests_max), ..Ramp::default() }
}

/// Returns how long a step is judged at least where the judgement sets the pace, in milliseconds: 2 s and two readings of the
/// source.
pub fn step_ms_min(policy: &JudgementPolicy) -> u64 {
    policy.source().interval_ms.unwrap_or(0).saturating_mul(READINGS_MIN).max(STEP_MS_MIN)
}

/// Returns a tolerance of latencies in buckets of 1 %, to the nearest, at least one.
pub fn buckets(tolerance_ppm: u32) -> u16 {
    libm::round(ln(1.0 + of_million(tolerance_ppm)) / ln(BUCKET_RATIO)).clamp(1.0, 500.0) as u16
}

/// Returns a metric as the judge is told it.
fn judged(metric: &schemas::policy::Metric, of: &Tolerance) -> Metric {
    let weight = f64::from(of.weight_percent) / 100.0;
    let line = Line { r: f64::from(of.ratio_percent) / 100.0, d: of_million(of.tolerance_ppm) };
    match metric.kind {
        metric::Kind::Share { .. } => {
            Metric { weight, line, kind: Kind::Status, odds: ODDS_STATUS.to_vec(), ..Metric::named(metric.name) }
        }
        metric::Kind::Quantile { ppm } => {
            let kind = Kind::Latency { quantile: of_million(ppm), buckets: buckets(of.tolerance_ppm) };
            Metric { weight, kind, name: metric.name.to_owned(), ..Metric::of_quantile(of_million(ppm)) }
        }
    }
}

fn of_million(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgement::judge::Judge;
    use schemas::Weight;
    use schemas::policy::Metrics;

    fn rollout(duration_ms: u64) -> rollout::Plan {
        rollout::Plan { steps: vec![Weight::from_percent(10), Weight::FULL], duration_ms, bake_ms: 0 }
    }

    #[test]
    fn the_default_policy_is_the_default_plan_with_the_burst_cap() {
        let plan = plan(&JudgementPolicy::default(), &rollout(86_400_000));
        assert_eq!(plan, Plan { burst_cap: true, ..Plan::new(86_400.0) });
    }

    #[test]
    fn what_the_policy_says_is_what_the_judge_is_told() {
        let mut metrics = Metrics::default().weighing(&[("errors", 40), ("4xx", 10), ("p99", 50)]);
        (metrics["errors"].tolerance_ppm, metrics["errors"].ratio_percent) = (10_000, 150);
        metrics["p99"].tolerance_ppm = 504_000;
        let policy = JudgementPolicy {
            metrics,
            alpha_ppm: 1_000,
            warm_up_ms: 1_500,
            burst_cap: false,
            bad_requests_max: 20,
            ..JudgementPolicy::default()
        };
        let plan = plan(&policy, &rollout(0));
        let told: Vec<_> = plan.metrics.iter().map(|metric| (metric.name.as_str(), metric.weight)).collect();
        assert_eq!(told, [("errors", 0.4), ("4xx", 0.1), ("p99", 0.5)]);
        assert_eq!(plan.metrics[0].line, Line { r: 1.5, d: 0.01 });
        assert_eq!(plan.metrics[2].kind, Kind::Latency { quantile: 0.99, buckets: 41 });
        assert_eq!((plan.alpha, plan.beta, plan.warm_up_seconds, plan.burst_cap), (0.001, 0.05, 1.5, false));
        assert_eq!(plan.plan_seconds, 1.0, "a rollout without a length has one for the judge");
        assert_eq!(ramp(&policy).budget_requests, 20.0);
    }

    /// What the judge is told of a metric that nobody has: its row says it all.
    #[test]
    fn a_made_up_metric_is_judged_as_its_row_says() {
        let row = |name, kind| schemas::policy::Metric {
            name,
            kind,
            weight_percent: 50,
            tolerance_ppm: 208_000,
            always_stored: false,
            stored: ["", "", ""],
            counted: "",
            help: ["", ""],
        };
        let share = row("aborted", metric::Kind::Share { overdue: false, assumed_ppm: 500 });
        let slow = row("slowest", metric::Kind::Quantile { ppm: 999_000 });
        let of = Tolerance { weight_percent: 50, tolerance_ppm: 208_000, ratio_percent: 150 };
        let (share, slow) = (judged(&share, &of), judged(&slow, &of));
        assert_eq!((share.name.as_str(), share.kind, share.weight), ("aborted", Kind::Status, 0.5));
        assert_eq!(share.line, Line { r: 1.5, d: 0.208 });
        assert_eq!((slow.name.as_str(), slow.kind), ("slowest", Kind::Latency { quantile: 0.999, buckets: 19 }));
        let plan = Plan { metrics: vec![share, slow], ..Plan::new(60.0) };
        assert_eq!(plan.validate(), Ok(()));
    }

    /// Source: "Judging a canary", the line: k = 5, 10, 19 and 41 buckets are 5.1, 10.5, 20.8 and 50.4 %.
    #[test]
    fn a_tolerance_of_latencies_is_a_number_of_buckets() {
        assert_eq!([51_000, 105_000, 208_000, 504_000].map(buckets), [5, 10, 19, 41]);
        assert_eq!([50_000, 100_000, 200_000, 500_000].map(buckets), [5, 10, 18, 41]);
        assert_eq!([0, 10_000, 100_000_000].map(buckets), [1, 1, 464]);
    }

    #[test]
    fn every_policy_at_the_ends_of_what_is_valid_gives_a_plan_that_the_judge_takes() {
        for alpha_ppm in [1, 500_000] {
            for (errors_ratio_percent, errors_tolerance_ppm) in [(100, 1), (10_000, 0), (10_000, 899_999)] {
                for latency_ppm in [10_000, 100_000_000] {
                    let mut metrics = Metrics::default().weighing(&[("errors", 98), ("4xx", 1), ("p99", 1)]);
                    let errors = &mut metrics["errors"];
                    (errors.ratio_percent, errors.tolerance_ppm) = (errors_ratio_percent, errors_tolerance_ppm);
                    for slow in ["p50", "p99"] {
                        metrics[slow].tolerance_ppm = latency_ppm;
                    }
                    let policy = JudgementPolicy {
                        alpha_ppm,
                        beta_ppm: alpha_ppm,
                        metrics,
                        warm_up_ms: 24 * 3_600_000,
                        ..JudgementPolicy::default()
                    };
                    assert_eq!(policy.validate(), Ok(()));
                    for duration_ms in [0, 52 * 7 * 24 * 3_600_000] {
                        assert!(Judge::new(plan(&policy, &rollout(duration_ms))).is_ok(), "{policy:?}");
                    }
                }
            }
        }
    }
}
