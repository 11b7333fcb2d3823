//! What is to be judged and how strictly: fixed before the first request, and checked.

use serde::{Deserialize, Serialize};

use super::evalue::Line;

/// The odds over the line that are bet on, when the canary fails more often. Source: `docs/judgement.md`, "The bets".
pub const ODDS_STATUS: [f64; 8] = [1.25, 1.6, 2.2, 4.0, 10.0, 40.0, 250.0, 1e5];

/// The odds over the line that are bet on for a quantile in the tail.
pub const ODDS_TAIL: [f64; 6] = [1.15, 1.4, 2.0, 4.0, 15.0, 90.0];

/// The odds over the line that are bet on for a quantile in the middle.
pub const ODDS_MIDDLE: [f64; 5] = [1.08, 1.2, 1.5, 2.5, 10.0];

/// Everything a judge is told before it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How long the rollout is planned to take, in seconds. Half of the capital is spread over it and beyond.
    pub plan_seconds: f64,
    /// The chance that a version within every tolerance is rolled back, over the whole rollout.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// The chance that a version at or beyond a tolerance is accepted.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// After how many seconds the baseline's past counts half.
    #[serde(default = "default_half_life_seconds")]
    pub half_life_seconds: f64,
    /// Whether a node may contribute only so many hits a second, because requests fail together.
    #[serde(default)]
    pub burst_cap: bool,
    /// For how many seconds a new node of the canary is not judged by its latencies.
    #[serde(default)]
    pub warm_up_seconds: f64,
    /// What is compared.
    pub metrics: Vec<Metric>,
}

/// One thing that is compared between the versions: how often a request is a hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name: `errors`, `p99`, `4xx`.
    pub name: String,
    /// What a hit is.
    pub kind: Kind,
    /// Its share of the capital.
    pub weight: f64,
    /// How much worse is tolerated.
    #[serde(flatten)]
    pub line: Line,
    /// The odds over the line that are bet on, each with an equal share of the capital.
    pub odds: Vec<f64>,
    /// The canary's rate as a multiple of the baseline's, if acceptance shall bet on that alone; otherwise it bets on
    /// three: equal, halfway to the line, and half.
    #[serde(default)]
    pub accept_ratio: Option<f64>,
    /// What the baseline did before, most recent first forgotten last.
    #[serde(default)]
    pub history: Option<BaselineHistory>,
}

/// What a hit of a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A request that ended badly.
    Status,
    /// A request that took longer than the edge of the tick: the baseline's quantile, for the canary some buckets on.
    Latency {
        /// The baseline's quantile, 0 to 1.
        quantile: f64,
        /// By how many buckets of 1 % the canary may be slower.
        buckets: u16,
    },
}

/// What was counted of the baseline before the judge began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineHistory {
    /// Requests.
    pub requests: u64,
    /// Those that were hits.
    pub hits: u64,
    /// Those that were hits even by the canary's edge; for latencies.
    #[serde(default)]
    pub beyond: u64,
}

/// Why a plan is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{thing}: {rule}")]
pub struct InvalidPlan {
    thing: String,
    rule: &'static str,
}

/// Source: `docs/judgement.md`: one whole rollout in a hundred.
fn default_alpha() -> f64 {
    0.01
}

fn default_beta() -> f64 {
    0.05
}

fn default_half_life_seconds() -> f64 {
    600.0
}

impl Metric {
    /// Returns the metric of this name as a service without a policy has it: `errors` and any other name counts bad
    /// ends, `p50`, `p99` or `p99.9` a quantile of latency.
    pub fn named(name: &str) -> Self {
        let quantile = name.strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok()).map(|q| q / 100.0);
        let quantile = quantile.filter(|q| (0.01..1.0).contains(q));
        let metric = match quantile {
            None => Self {
                name: String::new(),
                kind: Kind::Status,
                weight: 0.2,
                line: Line { r: 1.2, d: 0.0003 },
                odds: ODDS_STATUS.to_vec(),
                accept_ratio: None,
                history: None,
            },
            Some(quantile) => Self::of_quantile(quantile),
        };
        let weight = match (name, quantile) {
            ("errors", _) => 0.5,
            (_, Some(quantile)) if quantile >= 0.9 => 0.3,
            _ => 0.2,
        };
        Self { name: name.to_owned(), weight, ..metric }
    }

    /// Returns a metric without a name that is this quantile of latency, 0 to 1.
    pub fn of_quantile(quantile: f64) -> Self {
        let (buckets, odds) = if quantile < 0.9 { (10, &ODDS_MIDDLE[..]) } else { (19, &ODDS_TAIL[..]) };
        Self {
            name: String::new(),
            kind: Kind::Latency { quantile, buckets },
            weight: 0.2,
            line: Line { r: 1.0, d: 0.0 },
            odds: odds.to_vec(),
            accept_ratio: None,
            history: None,
        }
    }

    /// Whether a hit is a slow request.
    pub fn is_latency(&self) -> bool {
        matches!(self.kind, Kind::Latency { .. })
    }

    fn check(&self) -> Result<(), &'static str> {
        let finite = |x: f64| x.is_finite() && x.abs() < 1e9;
        if self.name.is_empty() || self.name.len() > 64 {
            return Err("name it with 1 to 64 characters");
        }
        if !(self.weight > 0.0 && self.weight <= 1.0 + 1e-9) {
            return Err("weight must be above 0 and at most 1");
        }
        if !(finite(self.line.r) && self.line.r >= 0.1 && self.line.r <= 100.0) {
            return Err("r must be from 0.1 to 100");
        }
        if !(finite(self.line.d) && (0.0..0.9).contains(&self.line.d)) {
            return Err("d must be at least 0 and below 0.9");
        }
        if self.odds.is_empty() || self.odds.len() > 64 || !self.odds.iter().all(|odds| *odds > 1.0 && *odds <= 1e9) {
            return Err("odds must be 1 to 64 numbers above 1 and at most 1e9");
        }
        if self.accept_ratio.is_some_and(|ratio| !(finite(ratio) && ratio >= 0.0)) {
            return Err("accept_ratio must be a number of at least 0");
        }
        if self.history.is_some_and(|history| history.hits > history.requests || history.beyond > history.hits) {
            return Err("history must not have more hits than requests");
        }
        if let Kind::Latency { quantile, buckets } = self.kind
            && !(quantile > 0.0 && quantile < 1.0 && buckets <= 500)
        {
            return Err("its quantile must lie between 0 and 1, its tolerance be at most 500 buckets");
        }
        Ok(())
    }
}

impl Plan {
    /// Returns the plan of a service without a policy: errors, p50 and p99 over `plan_seconds`.
    pub fn new(plan_seconds: f64) -> Self {
        Self {
            plan_seconds,
            alpha: default_alpha(),
            beta: default_beta(),
            half_life_seconds: default_half_life_seconds(),
            burst_cap: false,
            warm_up_seconds: 0.0,
            metrics: ["errors", "p50", "p99"].map(Metric::named).to_vec(),
        }
    }

    /// Returns after how many seconds the past of a baseline with so many requests a second shall count half: at least
    /// ten minutes, and at least 20,000 requests.
    pub fn half_life_seconds_at(requests_per_second: f64) -> f64 {
        if requests_per_second > 0.0 { (20_000.0 / requests_per_second).clamp(600.0, 7.0 * 86_400.0) } else { 600.0 }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// [`InvalidPlan`] naming the thing and its rule.
    pub fn validate(&self) -> Result<(), InvalidPlan> {
        let fail = |thing: &str, rule| Err(InvalidPlan { thing: thing.to_owned(), rule });
        let seconds = |x: f64| x.is_finite() && x > 0.0 && x <= 1e9;
        if !seconds(self.plan_seconds) {
            return fail("plan_seconds", "it must be above 0 and at most 1e9");
        }
        for (name, chance) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(1e-12..=0.5).contains(&chance) {
                return fail(name, "it must be above 0 and at most 0.5");
            }
        }
        if !seconds(self.half_life_seconds) {
            return fail("half_life_seconds", "it must be above 0 and at most 1e9");
        }
        if !(0.0..=1e9).contains(&self.warm_up_seconds) {
            return fail("warm_up_seconds", "it must be from 0 to 1e9");
        }
        if self.metrics.is_empty() || self.metrics.len() > 64 {
            return fail("metrics", "there must be 1 to 64");
        }
        for (i, metric) in self.metrics.iter().enumerate() {
            metric.check().or_else(|rule| fail(&format!("metric {}", metric.name), rule))?;
            if self.metrics[..i].iter().any(|other| other.name == metric.name) {
                return fail(&format!("metric {}", metric.name), "it is given twice");
            }
        }
        if self.metrics.iter().map(|metric| metric.weight).sum::<f64>() > 1.0 + 1e-9 {
            return fail("metrics", "their weights must sum to at most 1: they share one bound on false rollbacks");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan_is_valid_and_shares_out_all_capital() {
        let plan = Plan::new(86_400.0);
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(plan.metrics.iter().map(|metric| metric.weight).sum::<f64>(), 1.0);
        assert_eq!(plan.metrics[2].kind, Kind::Latency { quantile: 0.99, buckets: 19 });
        assert_eq!(Metric::named("4xx").kind, Kind::Status);
        assert_eq!(Metric::named("p").kind, Kind::Status);
    }

    #[test]
    fn a_plan_that_cannot_hold_names_what_is_wrong() {
        let refused = |change: &dyn Fn(&mut Plan)| {
            let mut plan = Plan::new(86_400.0);
            change(&mut plan);
            plan.validate().unwrap_err().to_string()
        };
        assert_eq!(refused(&|plan| plan.alpha = 0.0), "alpha: it must be above 0 and at most 0.5");
        assert_eq!(refused(&|plan| plan.plan_seconds = f64::NAN), "plan_seconds: it must be above 0 and at most 1e9");
        assert_eq!(
            refused(&|plan| plan.metrics[0].weight = 0.6),
            "metrics: their weights must sum to at most 1: they share one bound on false rollbacks"
        );
        assert_eq!(refused(&|plan| plan.metrics[1].name = "errors".to_owned()), "metric errors: it is given twice");
        assert_eq!(
            refused(&|plan| plan.metrics[0].odds = vec![0.5]),
            "metric errors: odds must be 1 to 64 numbers above 1 and at most 1e9"
        );
    }
}
