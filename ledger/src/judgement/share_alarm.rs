//! The share alarm: whether the versions get the shares of traffic that were set.
//!
//! A router that sends the canary nothing, or everything, is broken, and that is not the version's doing. The alarm
//! bets on shares far from the set one: if requests fall as they should, the chance that it is ever raised is at most
//! one in ten thousand, however often it looks.

use serde::{Deserialize, Serialize};

use super::evalue::times_odds;
use super::maths::ln;
use super::wealth::{Reserve, Wealth};

/// The evidence that is needed.
const NEEDED: f64 = 1e4;

/// The odds of the canary's share that are bet on, as multiples of the set ones: what is nearer is not far off.
const ODDS: [f64; 6] = [1e-3, 0.1, 0.5, 2.0, 10.0, 1e3];

/// The evidence that requests do not fall as they should.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareAlarm {
    reserve: Reserve,
    wealth: Wealth,
    broken: bool,
}

impl ShareAlarm {
    /// Returns an alarm that has heard nothing, for a rollout that is planned to take `plan_seconds`.
    pub fn new(plan_seconds: f64) -> Self {
        Self { reserve: Reserve::new(plan_seconds), wealth: Wealth::staked(ODDS.len()), broken: false }
    }

    /// Listens to a tick's requests of both versions, `nu` of the canary wanted for each of the baseline's. Where the
    /// canary is to have none or all, nothing is bet.
    pub fn listen(&mut self, seconds: f64, nu: f64, baseline: f64, canary: f64) {
        self.wealth.add(self.reserve.drip(seconds));
        if nu > 0.0 && nu.is_finite() {
            let share = (nu / (1.0 + nu)).clamp(1e-6, 1.0 - 1e-6);
            for (place, odds) in ODDS.iter().enumerate() {
                let other = times_odds(share, *odds);
                self.wealth.multiply(place, canary * ln(other / share) + baseline * ln((1.0 - other) / (1.0 - share)));
            }
        }
        self.broken |= self.ln_wealth() >= ln(NEEDED);
    }

    /// Returns the log of the evidence that requests do not fall as they should.
    pub fn ln_wealth(&self) -> f64 {
        self.wealth.ln_with(&self.reserve)
    }

    /// Whether they do not.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}
