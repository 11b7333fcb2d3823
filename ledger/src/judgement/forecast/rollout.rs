//! What a planned rollout will be able to tell, metric by metric, from its baseline's traffic.

use schemas::policy::{Deadline, Policy, metric};
use schemas::{Weight, rollout};
use serde::{Deserialize, Serialize};

use super::{requests_to_accept, smallest_detectable};
use crate::judgement::latency::{Buckets, Latencies};
use crate::judgement::maths::{exp, ln};
use crate::judgement::plan::{BaselineHistory, Kind, Metric, Plan};
use crate::judgement::policy;

/// How often requests are hits of a metric that has no row.
const RATE_ASSUMED: f64 = 0.001;

/// From how many requests on any rate of a baseline can be told at the least.
const REQUESTS_TO_TELL_MIN: u64 = 100;

/// From how many hits on a rate is told from fewer requests, too: it is then known to about a third.
const HITS_TO_TELL: u64 = 10;

/// How fast the odds of a long request fall with its length, where no latencies are known. Source: "Judging a canary",
/// fixtures: a log-logistic distribution with this exponent.
const TAIL_EXPONENT_ASSUMED: f64 = 2.47;

/// The most buckets of 1 % by which a canary may be slower and still be searched for: 145 times as slow.
const SLOWER_BUCKETS_MAX: i32 = 500;

/// What is known of a baseline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Its latencies; without any they are assumed. Failures are in the plan's history.
    pub latencies: Option<Buckets>,
    /// Whether its traffic was measured, however little there was.
    pub is_measured: bool,
}

/// A time during which the canary has the same share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// The canary's share, above 0 and below 1.
    pub share: f64,
    /// How long, in seconds.
    pub seconds: f64,
}

/// What a rollout will be able to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// How long it is judged, in seconds: until the step to all traffic, or until its bake, which comes on top.
    pub seconds: f64,
    /// The requests of the canary until then.
    pub requests_canary: f64,
    /// The requests of the baseline until then.
    pub requests_baseline: f64,
    /// Each metric that is judged, in the plan's order.
    pub metrics: Vec<MetricForecast>,
}

/// What it will be able to tell by one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricForecast {
    /// The metric: `errors`, `4xx`, `p50`, `p99`.
    pub name: String,
    /// Whether the baseline's rate was measured, or is assumed: nothing was measured, or too little to tell.
    pub measured: bool,
    /// What was seen of the baseline, where its traffic was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<BaselineSeen>,
    /// From how many requests of the baseline on its rate can be told: as many as show one hit at the rate that is assumed
    /// else, and 100 at least. Ten hits tell it sooner.
    #[serde(default)]
    pub requests_to_tell: u64,
    /// The baseline's rate of hits, 0 to 1; of a latency the rate above its quantile.
    pub baseline_rate: f64,
    /// The highest rate of hits that is tolerated of the canary.
    pub tolerated_rate: f64,
    /// By how much of the baseline's latency the canary may be slower; nothing for what is no latency.
    pub tolerated_slowdown: Option<f64>,
    /// The smallest rate of hits that is likely to be seen; none if not even every request is.
    pub smallest_rate: Option<f64>,
    /// The smallest slowdown that is likely to be seen, as a part of the baseline's latency: 0.5 is a latency of 1.5 times the baseline's.
    pub smallest_slowdown: Option<f64>,
    /// How many requests a canary like its baseline needs until the metric is accepted; none if it never is.
    pub requests_to_accept: Option<f64>,
    /// After how many seconds it has had them; none if not within the plan.
    pub seconds_to_accept: Option<f64>,
}

/// What was seen of a baseline by one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineSeen {
    /// Its requests.
    pub requests: u64,
    /// How many of them were hits; none for a latency, whose rate is its quantile's by definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
}

impl Stage {
    /// Returns the stages of a plan until its step to all traffic, or to its bake. A plan that begins with its bake has that
    /// as its only stage.
    pub fn of(plan: &rollout::Plan) -> Vec<Self> {
        let of = |(step, weight): (usize, &Weight)| {
            let due = |step: usize| plan.due_ms(u16::try_from(step).unwrap_or(u16::MAX));
            Self { share: part(*weight), seconds: (due(step + 1) - due(step)) as f64 / 1_000.0 }
        };
        let until = plan.bake_step().filter(|step| *step > 0).map_or(plan.steps.len(), usize::from);
        let judged = plan.steps.iter().enumerate().take(until).filter(|(_, weight)| **weight < Weight::FULL);
        judged.map(of).filter(|stage| stage.share > 0.0 && stage.seconds > 0.0).collect()
    }
}

/// Returns after how many seconds a canary like its baseline is expected to have all traffic, by the steps of `plan` and
/// what `forecast` says of them; none if it would wait for requests that do not come, or would never be accepted.
///
/// It gets no more than the ramp's share before it is accepted, or the plan ends and the policy says go on; each step keeps
/// the plan's distance from the one before it, however late that was, unless the policy's `early` shortens it.
pub fn end_seconds(
    plan: &rollout::Plan,
    policy: &Policy,
    requests_per_second: f64,
    forecast: &Forecast,
) -> Option<f64> {
    let judgement = &policy.judgement;
    let needed = forecast.metrics.iter().map(|metric| metric.requests_to_accept);
    let accepted = needed.map(|requests| requests.unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
    let deadline = match judgement.deadline {
        Deadline::GoOn => seconds(plan.duration_ms),
        Deadline::Hold => f64::INFINITY,
    };
    let until_accepted = policy::ramp(judgement).until_accepted;
    let (mut now, mut requests) = (0.0, 0.0);
    for (step, pair) in (1_u16..).zip(plan.steps.windows(2)) {
        let rate = requests_per_second * part(pair[0]);
        let after = |wanted: f64| if wanted <= requests { 0.0 } else { (wanted - requests) / rate };
        let mut wait = distance(plan, policy, step, (now, after(accepted))).max(after(judgement.requests_min as f64));
        if pair[1] > until_accepted {
            wait = wait.max(after(accepted).min((deadline - now).max(0.0)));
        }
        if pair[1] == Weight::FULL {
            wait = wait.max(seconds(judgement.soak_ms) - now);
        }
        if !wait.is_finite() {
            return None;
        }
        now += wait;
        requests += rate * wait;
    }
    Some(now)
}

/// Returns how many seconds after the step before it `step` may be taken, if that one was taken after `now` and a good canary
/// is accepted so many seconds later: the plan's distance, or what `early` makes of it. A bake is not shortened.
fn distance(plan: &rollout::Plan, policy: &Policy, step: u16, (now, accepted): (f64, f64)) -> f64 {
    let planned = seconds(plan.distance_ms(step - 1, step));
    let Some(early_ms) = policy.rollout.early_after_ms.filter(|_| plan.bake_step() != Some(step - 1)) else {
        return planned;
    };
    let weight = plan.steps[usize::from(step)];
    let early = if weight == Weight::FULL || plan.bake_step() == Some(step) {
        accepted.max(seconds(early_ms) - now)
    } else if weight > policy::ramp(&policy.judgement).until_accepted {
        accepted
    } else {
        0.0
    };
    early.max(seconds(policy::step_ms_min(&policy.judgement))).min(planned)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// Returns a weight as a part of 1.
pub fn part(weight: Weight) -> f64 {
    f64::from(weight.basis_points()) / 10_000.0
}

/// Returns what a rollout through `stages` will be able to tell at `requests_per_second` of both versions together. What
/// the history in `plan` says of the baseline is taken for measured.
pub fn forecast(plan: &Plan, stages: &[Stage], requests_per_second: f64, known: &Known) -> Forecast {
    // The sum of nothing is -0, which nobody should have to read.
    let canary = 0.0 + stages.iter().map(|stage| requests_per_second * stage.share * stage.seconds).sum::<f64>();
    let seconds = 0.0 + stages.iter().map(|stage| stage.seconds).sum::<f64>();
    let baseline = requests_per_second * seconds - canary;
    let course =
        Course { stages, requests_per_second, canary, v: if baseline > 0.0 { canary / baseline } else { 0.0 } };
    Forecast {
        seconds,
        requests_canary: canary,
        requests_baseline: baseline,
        metrics: plan.metrics.iter().map(|metric| of_metric(plan, metric, &course, known)).collect(),
    }
}

/// A rollout's requests.
struct Course<'a> {
    stages: &'a [Stage],
    requests_per_second: f64,
    canary: f64,
    v: f64,
}

impl Course<'_> {
    /// Returns after how many seconds the canary has had so many requests.
    fn seconds_until(&self, mut requests: f64) -> Option<f64> {
        let mut seconds = 0.0;
        for stage in self.stages {
            let rate = self.requests_per_second * stage.share;
            if rate > 0.0 && requests <= rate * stage.seconds {
                return Some(seconds + requests / rate);
            }
            requests -= rate * stage.seconds;
            seconds += stage.seconds;
        }
        None
    }
}

fn of_metric(plan: &Plan, metric: &Metric, course: &Course<'_>, known: &Known) -> MetricForecast {
    let requests_to_tell = requests_to_tell(metric);
    let tail = Tail::of(metric, known, requests_to_tell);
    let told = |history: &BaselineHistory| history.requests >= requests_to_tell || history.hits >= HITS_TO_TELL;
    let history = metric.history.filter(told);
    let baseline_rate = match (&tail, history) {
        (Some(tail), _) => tail.beyond(0),
        (None, Some(history)) => (history.hits as f64 + 0.5) / (history.requests as f64 + 1.0),
        (None, None) => rate_assumed(metric),
    };
    let ratio = match (&tail, metric.kind) {
        (Some(tail), Kind::Latency { buckets, .. }) => tail.beyond(i32::from(buckets)) / baseline_rate,
        _ => 1.0,
    };
    let seen = course.v > 0.0 && course.canary >= 1.0;
    let smallest_rate =
        seen.then(|| smallest_detectable(metric.line, baseline_rate, course.v, plan.alpha, course.canary)).flatten();
    let buckets = match metric.kind {
        Kind::Latency { buckets, .. } => Some(i32::from(buckets)),
        Kind::Status => None,
    };
    let smallest_slowdown = tail.as_ref().zip(buckets).zip(smallest_rate).and_then(|((tail, buckets), rate)| {
        (0..=SLOWER_BUCKETS_MAX).find(|slower| tail.beyond(buckets - slower) >= rate).map(slowdown)
    });
    let v = if course.v > 0.0 { course.v } else { 1.0 };
    let requests_to_accept = requests_to_accept(plan, metric.line, baseline_rate, ratio, v);
    MetricForecast {
        name: metric.name.clone(),
        measured: match &tail {
            Some(tail) => tail.is_measured(),
            None => history.is_some(),
        },
        seen: known.is_measured.then(|| seen_of(metric, known)),
        requests_to_tell,
        baseline_rate,
        tolerated_rate: metric.line.at(baseline_rate),
        tolerated_slowdown: buckets.map(slowdown),
        smallest_rate,
        smallest_slowdown,
        requests_to_accept,
        seconds_to_accept: requests_to_accept.and_then(|requests| course.seconds_until(requests)),
    }
}

/// Returns how often requests are hits of a metric of which nothing is known.
fn rate_assumed(metric: &Metric) -> f64 {
    match metric.kind {
        Kind::Latency { quantile, .. } => 1.0 - quantile,
        Kind::Status => match metric::named(&metric.name).map(|row| row.kind) {
            Some(metric::Kind::Share { assumed_ppm, .. }) => f64::from(assumed_ppm) / 1e6,
            Some(metric::Kind::Quantile { .. }) | None => RATE_ASSUMED,
        },
    }
}

fn requests_to_tell(metric: &Metric) -> u64 {
    // What a quantile such as 0.99 leaves is not quite a hundredth.
    (libm::round(1.0 / rate_assumed(metric)) as u64).max(REQUESTS_TO_TELL_MIN)
}

fn seen_of(metric: &Metric, known: &Known) -> BaselineSeen {
    match metric.kind {
        Kind::Latency { .. } => {
            BaselineSeen { requests: known.latencies.iter().flat_map(|buckets| buckets.values()).sum(), hits: None }
        }
        Kind::Status => {
            let (requests, hits) = metric.history.map_or((0, 0), |history| (history.requests, history.hits));
            BaselineSeen { requests, hits: Some(hits) }
        }
    }
}

/// Returns how much slower so many buckets of 1 % are.
fn slowdown(buckets: i32) -> f64 {
    exp(f64::from(buckets) * ln(1.01)) - 1.0
}

/// How often the baseline takes longer than its quantile and some buckets more.
enum Tail {
    Measured { latencies: Latencies, edge: i32 },
    Assumed { odds: f64 },
}

impl Tail {
    /// Returns the tail beyond the quantile that `metric` is about, measured from so many requests on; none for what is no
    /// latency.
    fn of(metric: &Metric, known: &Known, requests_to_tell: u64) -> Option<Self> {
        let Kind::Latency { quantile, .. } = metric.kind else { return None };
        let assumed = Self::Assumed { odds: (1.0 - quantile) / quantile };
        let told = known.latencies.as_ref().filter(|_| seen_of(metric, known).requests >= requests_to_tell);
        let Some(buckets) = told else { return Some(assumed) };
        let mut latencies = Latencies::default();
        latencies.learn(0.0, 1.0, buckets);
        Some(latencies.edge(quantile).map_or(assumed, |edge| Self::Measured { latencies, edge }))
    }

    fn is_measured(&self) -> bool {
        matches!(self, Self::Measured { .. })
    }

    fn beyond(&self, buckets: i32) -> f64 {
        match self {
            Self::Measured { latencies, edge } => {
                let (above, all) = latencies.above(edge.saturating_add(buckets));
                (above + 0.5) / (all + 1.0)
            }
            Self::Assumed { odds } => {
                let odds = odds * exp(-TAIL_EXPONENT_ASSUMED * f64::from(buckets) * ln(1.01));
                odds / (1.0 + odds)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(requests_per_minute: f64, share: f64, seconds: f64) -> Forecast {
        let stages = [Stage { share, seconds }];
        forecast(&Plan::new(seconds), &stages, requests_per_minute / 60.0, &Known::default())
    }

    fn errors(forecast: &Forecast) -> &MetricForecast {
        forecast.metrics.iter().find(|metric| metric.name == "errors").unwrap()
    }

    /// Source: "Judging a canary", low traffic: at 0.1 % and a share of 10 %, 30 requests show 15 %, 1,000 show 1 %.
    #[test]
    fn a_rollout_sees_what_its_canarys_requests_can_show() {
        let hour = at(5.0, 0.1, 3_600.0);
        assert!((hour.requests_canary - 30.0).abs() < 1e-9 && (hour.requests_baseline - 270.0).abs() < 1e-9);
        assert!((errors(&hour).smallest_rate.unwrap() / 0.15 - 1.0).abs() < 0.06, "{hour:?}");
        let busy = at(1_000.0, 0.1, 600.0);
        assert!((errors(&busy).smallest_rate.unwrap() / 0.010 - 1.0).abs() < 0.06, "{busy:?}");
        let silent = at(0.0, 0.1, 3_600.0);
        assert!(
            silent.metrics.iter().all(|metric| metric.smallest_rate.is_none() && metric.seconds_to_accept.is_none())
        );
    }

    /// Source: "Judging a canary", goal 2: 34,600 requests at a share of 10 %.
    #[test]
    fn it_says_when_a_good_canary_is_accepted_and_that_it_is_not_within_the_plan() {
        let busy = at(60_000.0, 0.1, 86_400.0);
        let accept = errors(&busy);
        assert!((accept.requests_to_accept.unwrap() / 34_600.0 - 1.0).abs() < 0.003);
        assert!((accept.seconds_to_accept.unwrap() / 346.0 - 1.0).abs() < 0.003);
        assert_eq!(errors(&at(60_000.0, 0.1, 60.0)).seconds_to_accept, None);
    }

    #[test]
    fn a_plans_steps_are_its_stages_until_all_traffic() {
        let percent = Weight::from_percent;
        let plan = |steps: &[u16], duration_ms| rollout::Plan {
            steps: steps.iter().map(|step| percent(*step)).collect(),
            duration_ms,
            bake_ms: 0,
        };
        let stages = Stage::of(&plan(&[10, 50, 100], 60_000));
        assert_eq!(stages, [Stage { share: 0.1, seconds: 30.0 }, Stage { share: 0.5, seconds: 30.0 }]);
        let baking = rollout::Plan { bake_ms: 600_000, ..plan(&[10, 50, 95, 100], 60_000) };
        assert_eq!(Stage::of(&baking), stages);
        let only = rollout::Plan { bake_ms: 600_000, ..plan(&[95, 100], 60_000) };
        assert_eq!(Stage::of(&only), [Stage { share: 0.95, seconds: 660.0 }]);
        assert_eq!(Stage::of(&plan(&[100], 60_000)), []);
        assert_eq!(Stage::of(&plan(&[10, 100], 0)), []);
        let nothing = forecast(&Plan::new(1.0), &[], 100.0, &Known::default());
        assert_eq!((nothing.requests_canary, errors(&nothing).smallest_rate), (0.0, None));
    }

    /// Source: the issue on steps: a service with little traffic went from 20 to 100 % at its plan's end.
    #[test]
    fn a_rollout_with_little_traffic_is_expected_to_end_later_than_its_plan() {
        let plan = rollout::Plan {
            steps: [1, 2, 5, 10, 25, 50, 100].map(Weight::from_percent).to_vec(),
            duration_ms: 86_400_000,
            bake_ms: 0,
        };
        let policy = Policy::default();
        let end = |plan: &rollout::Plan, policy: &Policy, rps: f64| {
            let found = forecast(&Plan::new(86_400.0), &Stage::of(plan), rps, &Known::default());
            end_seconds(plan, policy, rps, &found)
        };
        assert_eq!(end(&plan, &policy, 1_000.0), Some(86_400.0), "much traffic keeps the plan");
        assert_eq!(end(&plan, &policy, 0.5), Some(86_400.0 + 2.0 * 14_400.0), "two distances after the deadline");
        assert_eq!(end(&plan, &policy, 0.0), None, "without a request nothing is taken");
        let mut holds = policy.clone();
        holds.judgement.deadline = Deadline::Hold;
        assert!(end(&plan, &holds, 0.5).unwrap() > 2.0 * 86_400.0, "it waits to be accepted");
        let baking = rollout::Plan { bake_ms: 3_600_000, ..plan.clone() };
        let steps = [1, 2, 5, 10, 25, 50, 95, 100].map(Weight::from_percent).to_vec();
        let baking = rollout::Plan { steps, ..baking };
        assert_eq!(end(&baking, &policy, 1_000.0), Some(90_000.0));
        let mut early = policy.clone();
        early.rollout.early_after_ms = Some(1_800_000);
        assert_eq!(end(&plan, &early, 1_000.0), Some(1_800.0), "accepted long before");
        assert_eq!(end(&baking, &early, 1_000.0), Some(1_800.0 + 3_600.0), "the bake is not shortened");
        early.judgement.soak_ms = 7_200_000;
        assert_eq!(end(&baking, &early, 1_000.0), Some(7_200.0), "nor the soak");
    }

    #[test]
    fn what_was_measured_of_the_baseline_counts_and_what_was_not_is_said_so() {
        let mut plan = Plan::new(3_600.0);
        plan.metrics[0].history = Some(BaselineHistory { requests: 9_999, hits: 499, beyond: 0 });
        let latencies = Some(Buckets::from([(100, 9_800), (300, 200)]));
        let stages = [Stage { share: 0.5, seconds: 3_600.0 }];
        let found = forecast(&plan, &stages, 100.0, &Known { latencies, is_measured: true });
        assert!(found.metrics.iter().all(|metric| metric.measured));
        assert!((errors(&found).baseline_rate - 0.049_95).abs() < 1e-9);
        assert!(!errors(&at(100.0, 0.5, 60.0)).measured);
    }

    /// Source: a trial in which a service with one request was said to fail in 25 % of them.
    #[test]
    fn a_few_requests_tell_no_rate_and_what_was_seen_is_told_instead() {
        let of = |requests: u64, hits: u64| {
            let mut plan = Plan::new(3_600.0);
            plan.metrics[0].history = Some(BaselineHistory { requests, hits, beyond: 0 });
            let known = Known { latencies: Some(Buckets::from([(100, requests)])), is_measured: true };
            forecast(&plan, &[Stage { share: 0.5, seconds: 3_600.0 }], 100.0, &known)
        };
        let few = of(1, 0);
        let [first, slow] = [errors(&few), few.metrics.iter().find(|metric| metric.name == "p99").unwrap()];
        assert_eq!((first.measured, first.baseline_rate, first.requests_to_tell), (false, RATE_ASSUMED, 1_000));
        assert_eq!(first.seen, Some(BaselineSeen { requests: 1, hits: Some(0) }));
        assert_eq!((slow.measured, slow.requests_to_tell), (false, 100));
        assert_eq!(slow.seen, Some(BaselineSeen { requests: 1, hits: None }));
        assert!((slow.baseline_rate - 0.01).abs() < 1e-9, "{slow:?}");
        assert!(errors(&of(1_000, 0)).measured && !errors(&of(999, 9)).measured);
        assert!(errors(&of(100, 10)).measured, "a tenth fails, and that is seen soon");
        assert_eq!(errors(&at(100.0, 0.5, 60.0)).seen, None, "nothing was measured");
    }

    #[test]
    fn more_requests_see_smaller_slowdowns_and_none_below_the_tolerance() {
        let slower = |requests_per_minute| {
            let found = at(requests_per_minute, 0.1, 3_600.0);
            found.metrics.iter().map(|metric| metric.smallest_slowdown).collect::<Vec<_>>()
        };
        let (few, many) = (slower(1_000.0), slower(100_000.0));
        assert_eq!(few[0], None, "errors have none");
        for metric in [1, 2] {
            assert!(few[metric].unwrap() > many[metric].unwrap(), "{few:?} {many:?}");
        }
        assert!(many[1].unwrap() > 0.104 && many[2].unwrap() > 0.208, "{many:?}");
    }
}
