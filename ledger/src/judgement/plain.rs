//! The plain judge: the canary's error rate over a step against the baseline's, plus a tolerance.

use schemas::judgement::Verdict;
use schemas::policy::JudgementPolicy;

use super::Window;

/// The rule's name and version, written into every verdict.
pub const RULE: &str = "plain/1";

/// How many errors beyond the tolerance convict before the minimum of requests is reached. A single failed request
/// says nothing; these say that something is broken.
const ERRORS_MIN: u64 = 5;

/// Judges a canary.
///
/// Worse: at least `ERRORS_MIN` errors, and more than the baseline's rate and the tolerance allow for its requests.
/// Not worse: its requests have reached the policy's minimum, and its errors are within what is allowed. Otherwise
/// inconclusive; without requests always.
pub fn judge(policy: &JudgementPolicy, window: Window) -> (Verdict, String) {
    let Window { baseline, canary } = window;
    let baseline_ppm = baseline.errors_ppm().unwrap_or(0);
    let allowed_ppm = baseline_ppm.saturating_add(u64::from(policy.errors_tolerance_ppm));
    // Compared as products: errors / requests > allowed / 1,000,000.
    let above = u128::from(canary.errors) * 1_000_000 > u128::from(canary.requests) * u128::from(allowed_ppm);
    let counts = format!(
        "{} of {} requests failed, baseline {} of {}; tolerance {}",
        canary.errors,
        canary.requests,
        baseline.errors,
        baseline.requests,
        percent(u64::from(policy.errors_tolerance_ppm)),
    );
    if above && canary.errors >= ERRORS_MIN {
        (Verdict::Worse, format!("worse: {counts}"))
    } else if canary.requests < policy.requests_min {
        let missing = policy.requests_min - canary.requests;
        (Verdict::Inconclusive, format!("inconclusive: {counts}; {missing} more requests needed"))
    } else if above {
        (Verdict::Inconclusive, format!("inconclusive: {counts}; above it, but by too few errors to tell"))
    } else {
        (Verdict::NotWorse, format!("not worse: {counts}"))
    }
}

fn percent(ppm: u64) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::judgement::Counts;

    fn policy() -> JudgementPolicy {
        JudgementPolicy { errors_tolerance_ppm: 10_000, ..JudgementPolicy::default() }
    }

    fn verdict(baseline: (u64, u64), canary: (u64, u64)) -> Verdict {
        let counts = |(requests, errors)| Counts { requests, errors };
        judge(&policy(), Window { baseline: counts(baseline), canary: counts(canary) }).0
    }

    #[test]
    fn no_requests_are_never_a_pass() {
        assert_eq!(verdict((10_000, 0), (0, 0)), Verdict::Inconclusive);
        assert_eq!(verdict((10_000, 0), (49, 0)), Verdict::Inconclusive);
    }

    #[test]
    fn a_canary_as_good_as_its_baseline_passes_at_the_minimum_of_requests() {
        assert_eq!(verdict((10_000, 10), (50, 0)), Verdict::NotWorse);
        assert_eq!(verdict((0, 0), (50, 0)), Verdict::NotWorse);
    }

    #[test]
    fn errors_above_the_tolerance_convict_even_before_the_minimum() {
        assert_eq!(verdict((1_000, 0), (5, 5)), Verdict::Worse);
        assert_eq!(verdict((1_000, 0), (4, 4)), Verdict::Inconclusive);
        assert_eq!(verdict((1_000, 0), (1_000, 11)), Verdict::Worse);
        assert_eq!(verdict((1_000, 0), (1_000, 10)), Verdict::NotWorse);
    }

    #[test]
    fn a_shared_outage_convicts_nobody() {
        assert_eq!(verdict((1_000, 500), (100, 50)), Verdict::NotWorse);
    }

    #[test]
    fn the_reason_gives_the_numbers() {
        let window =
            Window { baseline: Counts { requests: 4_500, errors: 5 }, canary: Counts { requests: 500, errors: 60 } };
        let (_, reason) = judge(&policy(), window);
        assert_eq!(reason, "worse: 60 of 500 requests failed, baseline 5 of 4500; tolerance 1 %");
    }
}
