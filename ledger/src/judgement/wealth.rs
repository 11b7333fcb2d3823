//! Capital: what is staked at once, what is kept for later, and what became of it.

use serde::{Deserialize, Serialize};

use super::exact;
use super::maths::{ln, ln_add_exp, ln_sum_exp};

/// How much of the capital is kept at first. It is staked little by little, so that a bug that shows up late meets
/// fresh capital: what was staked early has been lost to the good hours by then.
const RESERVED: f64 = 0.5;

/// The reserve and how fast it is staked: never all of it, however long it goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    #[serde(with = "exact")]
    left: f64,
    #[serde(with = "exact")]
    seconds: f64,
    #[serde(with = "exact")]
    half_seconds: f64,
}

/// The logs of the wealth of several bets that are made side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wealth(#[serde(with = "exact::many")] Vec<f64>);

impl Reserve {
    /// Returns the reserve of a rollout that is planned to take `plan_seconds`.
    pub fn new(plan_seconds: f64) -> Self {
        Self { left: RESERVED, seconds: 0.0, half_seconds: plan_seconds / 2.0 }
    }

    /// Returns what is staked as `seconds` pass.
    pub fn drip(&mut self, seconds: f64) -> f64 {
        let t0 = self.half_seconds;
        let staked = RESERVED * (t0 / (self.seconds + t0) - t0 / (self.seconds + seconds + t0));
        let staked = staked.min(self.left);
        self.left -= staked;
        self.seconds += seconds;
        staked
    }

    /// Returns the log of what has not been staked.
    pub fn ln(&self) -> f64 {
        ln(self.left)
    }
}

impl Wealth {
    /// Returns the wealth of `bets` bets that share what is staked at once.
    pub fn staked(bets: usize) -> Self {
        Self(vec![ln((1.0 - RESERVED) / bets as f64); bets])
    }

    /// Returns the wealth of bets with these shares of the whole capital.
    pub fn shared(shares: &[f64]) -> Self {
        Self(shares.iter().map(|share| ln(*share)).collect())
    }

    /// Shares `amount` out over the bets.
    pub fn add(&mut self, amount: f64) {
        if amount > 0.0 {
            let ln_each = ln(amount / self.0.len() as f64);
            self.0.iter_mut().for_each(|wealth| *wealth = ln_add_exp(*wealth, ln_each));
        }
    }

    /// Multiplies the wealth of the bet in this place by the exponential of `ln_e`.
    pub fn multiply(&mut self, place: usize, ln_e: f64) {
        self.0[place] += ln_e;
    }

    /// Returns the log of all of it.
    pub fn ln(&self) -> f64 {
        ln_sum_exp(self.0.iter().copied())
    }

    /// Returns the log of all of it and of what is in reserve.
    pub fn ln_with(&self, reserve: &Reserve) -> f64 {
        ln_add_exp(reserve.ln(), self.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bets_the_capital_stays_what_it_is_however_long_it_takes() {
        let (mut reserve, mut wealth) = (Reserve::new(86_400.0), Wealth::staked(8));
        for seconds in [0.1, 1.0, 86_400.0, 1e7] {
            wealth.add(reserve.drip(seconds));
            assert!(wealth.ln_with(&reserve).abs() < 1e-12);
        }
        assert!(reserve.ln() > f64::NEG_INFINITY);
    }

    #[test]
    fn a_late_win_is_paid_on_what_was_staked_since() {
        let (mut reserve, mut wealth) = (Reserve::new(1_000.0), Wealth::staked(1));
        wealth.multiply(0, -500.0);
        wealth.add(reserve.drip(500.0));
        wealth.multiply(0, 10.0);
        assert!((wealth.ln() - (ln(0.25) + 10.0)).abs() < 1e-12);
    }
}
