//! What a rollout will be able to tell, before its first request and while it goes on.

pub mod rollout;

use schemas::judgement::Verdict;

use super::evalue::{Against, LINE_MAX, Line, information, ln_needed};
use super::judge::Judge;
use super::metric::Trial;
use super::plan::Plan;

/// What the bets cost in nats because the truth is not known: it lies between two bets, the capital is shared by metrics
/// and kept for later.
const PRICE_OF_IGNORANCE: f64 = 4.3;

/// Returns the smallest rate of the canary that `requests` of it are likely to convict, or `None` if they cannot convict
/// any. `a` is the baseline's rate, `v` the canary's requests for each of the baseline's.
pub fn smallest_detectable(line: Line, a: f64, v: f64, alpha: f64, requests: f64) -> Option<f64> {
    let enough =
        |b: f64| requests * information(line, a, b, v, Against::Tolerable) >= ln_needed(alpha) + PRICE_OF_IGNORANCE;
    let (mut low, mut high) = (line.at(a).min(LINE_MAX), 0.999);
    if !enough(high) {
        return None;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// Returns how many requests of a canary like its baseline a metric of `plan` needs until it is accepted, or `None` if
/// it never can be: its tolerance leaves no room between like and worse. `ratio` is the rate of such a canary as a
/// multiple of the baseline's, 1 but for latencies.
pub fn requests_to_accept(plan: &Plan, line: Line, a: f64, ratio: f64, v: f64) -> Option<f64> {
    let won = information(line, a, a * ratio, v, Against::Worse);
    (won > 0.0).then(|| ln_needed(plan.beta) / won)
}

/// Returns about how many more requests of the canary are needed until it is accepted if it is like its baseline, at
/// `nu` of them for each of the baseline's: 0 once it is, `None` if that cannot be told or never comes.
pub fn requests_still_needed(judge: &Judge, nu: f64) -> Option<u64> {
    if judge.verdict() == Verdict::NotWorse {
        return Some(0);
    }
    let needed = |trial: &Trial| {
        if trial.is_accepted() {
            return Some(0.0);
        }
        let a = trial.baseline().rate();
        let won = information(
            trial.metric.line,
            a,
            a * trial.metric.accept_ratio.unwrap_or(trial.ratio()),
            nu,
            Against::Worse,
        );
        (won > 0.0 && nu > 0.0).then(|| (ln_needed(judge.plan().beta) - trial.ln_not_worse()).max(0.0) / won)
    };
    let most = judge.trials().iter().map(needed).try_fold(0.0, |most: f64, needed| Some(most.max(needed?)))?;
    (most < 1e15).then(|| libm::ceil(most) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: Line = Line { r: 1.2, d: 0.0003 };

    /// Source: "Judging a canary", low traffic: a baseline of 0.1 %, a share of 10 %.
    #[test]
    fn the_forecast_says_what_few_requests_can_show() {
        let v = 0.1 / 0.9;
        let known = [(30.0, 0.15), (100.0, 0.053), (300.0, 0.023), (1e3, 0.010), (1e4, 0.0036), (1e5, 0.0021)];
        for (requests, rate) in known {
            let found = smallest_detectable(ERRORS, 0.001, v, 0.01, requests).unwrap();
            assert!((found / rate - 1.0).abs() < 0.06, "{requests}: {found} instead of {rate}");
        }
        assert_eq!(smallest_detectable(ERRORS, 0.001, v, 0.01, 1.0), None);
    }

    /// Source: "Judging a canary", goal 2: `ln(1 / beta) / I` at shares of 1, 10 and 50 %.
    #[test]
    fn the_forecast_says_how_many_requests_acceptance_takes() {
        for (share, requests) in [(0.01, 31_900.0), (0.1, 34_600.0), (0.5, 57_500.0)] {
            let plan = Plan::new(86_400.0);
            let found = requests_to_accept(&plan, ERRORS, 0.001, 1.0, share / (1.0 - share)).unwrap();
            assert!((found / requests - 1.0).abs() < 0.003, "{share}: {found} instead of {requests}");
        }
        assert_eq!(requests_to_accept(&Plan::new(1.0), Line { r: 1.0, d: 0.0 }, 0.001, 1.0, 0.1), None);
    }
}
