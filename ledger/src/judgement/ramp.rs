//! The ramp: how much traffic a canary may have while it is not known to be good.
//!
//! A bad canary costs its share times how bad it is until it is taken back. So it starts with what the budget allows to
//! the worst there is, and gets more as the worst is excluded; convicting it takes about as many bad requests at any
//! share up to a fifth, so that going slower there saves none.

use schemas::Weight;

/// How a canary's traffic may rise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// How many bad requests the time may cost that it takes to move the weights back.
    pub budget_requests: f64,
    /// How long moving the weights takes, in seconds.
    pub actuation_seconds: f64,
    /// The most that a canary may have before it is accepted.
    pub until_accepted: Weight,
}

/// By how much the weight may rise at once: what one step shows bounds what the next one costs.
const STEP_MAX: f64 = 4.0;

impl Default for Ramp {
    fn default() -> Self {
        Self { budget_requests: 200.0, actuation_seconds: 1.0, until_accepted: Weight::from_percent(20) }
    }
}

impl Ramp {
    /// Returns the most that the canary may have after `now`, at least what it has; to be asked once the last rise is
    /// applied. `requests_per_second` are those of both versions, `severity` is the smallest excluded one
    /// ([`super::judge::Judge::severity_excluded`]). All traffic is not this rule's to give.
    pub fn weight_max(&self, now: Weight, requests_per_second: f64, severity: f64, accepted: bool) -> Weight {
        let points =
            |share: f64| Weight::from_basis_points((share * 10_000.0).clamp(1.0, 10_000.0) as u16).unwrap_or(now);
        if accepted {
            return Weight::FULL;
        }
        let at_risk = (requests_per_second * self.actuation_seconds * severity).max(1e-9);
        let allowed = points((self.budget_requests / at_risk).min(1.0)).min(self.until_accepted);
        let step =
            if now == Weight::ZERO { allowed } else { points(f64::from(now.basis_points()) / 10_000.0 * STEP_MAX) };
        allowed.min(step).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(weight: Weight) -> u16 {
        weight.basis_points()
    }

    #[test]
    fn the_weight_rises_as_the_worst_is_excluded() {
        let ramp = Ramp::default();
        let first = ramp.weight_max(Weight::ZERO, 10_000.0, 1.0, false);
        assert_eq!(points(first), 200);
        assert_eq!(points(ramp.weight_max(first, 10_000.0, 0.3, false)), 666);
        assert_eq!(points(ramp.weight_max(first, 10_000.0, 0.03, false)), 800, "four times at once at most");
        assert_eq!(points(ramp.weight_max(Weight::from_percent(8), 10_000.0, 0.03, false)), 2_000);
        assert_eq!(ramp.weight_max(Weight::from_percent(20), 10_000.0, 0.01, true), Weight::FULL);
    }

    #[test]
    fn little_traffic_goes_to_the_limit_at_once_and_nothing_is_taken_back() {
        let ramp = Ramp::default();
        assert_eq!(points(ramp.weight_max(Weight::ZERO, 10.0, 1.0, false)), 2_000);
        assert_eq!(points(ramp.weight_max(Weight::ZERO, 0.0, 1.0, false)), 2_000);
        assert_eq!(points(ramp.weight_max(Weight::from_percent(50), 1e9, 1.0, false)), 5_000);
        assert_eq!(points(ramp.weight_max(Weight::ZERO, 1e9, 1.0, false)), 1);
    }
}
