//! The ladder of severities: how bad the canary can still be, which is how much traffic it may have.

use serde::{Deserialize, Serialize};

use super::evalue::{Against, Block, Line, ln_needed};
use super::exact;

/// The rungs below all requests: by how much more often than the baseline the canary fails.
pub const RUNGS: [f64; 4] = [0.3, 0.1, 0.03, 0.01];

/// The evidence against each rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    climbs: bool,
    #[serde(with = "exact::many")]
    ln_wealth: [f64; RUNGS.len()],
    excluded: [bool; RUNGS.len()],
}

impl Ladder {
    /// Returns the ladder at its foot; for a metric whose hits are no bad requests it stays there.
    pub fn new(climbs: bool) -> Self {
        Self { climbs, ln_wealth: [0.0; RUNGS.len()], excluded: [false; RUNGS.len()] }
    }

    /// Bets on a block that the canary is as the baseline, whose rate is `a`, against each rung that is left.
    pub fn settle(&mut self, a: f64, block: &Block, beta: f64) {
        if !self.climbs {
            return;
        }
        for (rung, severity) in RUNGS.iter().enumerate() {
            if self.excluded[rung] {
                continue;
            }
            let line = Line { r: 1.0, d: *severity };
            let payoffs = line.bet(a, a, block.v(), Against::Worse).payoffs(line, block.v());
            self.ln_wealth[rung] += payoffs.ln_e(block).min(600.0);
            self.excluded[rung] = self.ln_wealth[rung] >= ln_needed(beta);
        }
    }

    /// Returns the smallest severity that is excluded, if any is and the metric counts bad requests.
    pub fn excluded(&self) -> Option<f64> {
        RUNGS
            .iter()
            .zip(self.excluded)
            .filter(|(_, excluded)| *excluded)
            .map(|(severity, _)| *severity)
            .reduce(f64::min)
    }

    /// Whether this metric's hits are bad requests.
    pub fn climbs(&self) -> bool {
        self.climbs
    }
}
