//! The block e-value: a bet on the counts of two versions against the line between tolerable and worse.
//!
//! Take any `a0` in (0, 1), `b0 = r * a0 + d`, a bet `c`, and `v`, the canary's requests for each of the baseline's.
//! A canary's hit multiplies the stake by `1 + c(1 - b0)`, its miss by `1 - c * b0`; a baseline's hit by
//! `1 + c_a(1 - a0)` and its miss by `1 - c_a * a0` with `c_a = -r * v * c`. If `a0` and `c` are chosen before the
//! outcomes and every factor is above 0, the expected product is at most 1 as long as the block's average rates keep to
//! the line (`c >= 0`), or to its other side (`c <= 0`). `docs/judgement.md` has the proof.

use serde::{Deserialize, Serialize};

use super::exact;
use super::maths::{ln, ln_1p};

/// How much of what the smallest factor could lose a bet may risk.
const CLIP: f64 = 0.999;

/// The highest rate on a line that is bet on.
pub const LINE_MAX: f64 = 0.97;

/// The line between tolerable and worse: `p_canary <= r * p_baseline + d`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// How many times the baseline's rate is tolerated.
    pub r: f64,
    /// What is tolerated beyond it, in hits a request.
    pub d: f64,
}

/// Which of the line's two sides is bet against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// That the canary keeps to the line: wins when it is worse.
    Tolerable,
    /// That it is at or beyond the line: wins when it is not worse.
    Worse,
}

/// A bet that was chosen: the point of the line it is against, and its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bet {
    /// The baseline's rate at that point.
    pub a0: f64,
    /// The canary's.
    pub b0: f64,
    /// The size; above 0 against [`Against::Tolerable`], below it against [`Against::Worse`].
    pub c: f64,
}

/// What each outcome adds to the log of the stake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Payoffs {
    /// A hit of the baseline.
    pub baseline_hit: f64,
    /// A miss of the baseline.
    pub baseline_miss: f64,
    /// A hit of the canary.
    pub canary_hit: f64,
    /// A miss of the canary.
    pub canary_miss: f64,
}

/// Requests and hits of both versions in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The baseline's requests.
    #[serde(with = "exact")]
    pub n_a: f64,
    /// Its hits.
    #[serde(with = "exact")]
    pub x_a: f64,
    /// The canary's requests.
    #[serde(with = "exact")]
    pub n_b: f64,
    /// Its hits.
    #[serde(with = "exact")]
    pub x_b: f64,
}

impl Line {
    /// Returns the canary's rate on the line at the baseline's rate `a`.
    pub fn at(self, a: f64) -> f64 {
        self.r * a + self.d
    }

    /// Returns `a`, or where the line ends if it lies beyond: above [`LINE_MAX`] nobody can be told to be worse.
    fn within(self, a: f64) -> f64 {
        a.clamp(1e-12, ((LINE_MAX - self.d) / self.r).max(1e-12))
    }

    /// Returns the best bet for the alternative that the baseline's rate is `a` and the canary's `b`, at `v` requests
    /// of the canary for each of the baseline's.
    ///
    /// The point of the line is the one nearest in relative entropy to the alternative; the stake then grows as fast as
    /// any test's could. Should `a` be wrong, the bet wins less and is as valid as before.
    pub fn bet(self, a: f64, b: f64, v: f64, against: Against) -> Bet {
        let a = self.within(a);
        let beyond = (b - self.d) / self.r;
        let (low, high) = match against {
            Against::Tolerable => (a, beyond.min(1.0 - 1e-12).max(a)),
            Against::Worse => (beyond.clamp(1e-15, a), a),
        };
        let a0 = self.project(a, b, v, low, high);
        let b0 = self.at(a0);
        let cap = CLIP / (self.r * v * if against == Against::Tolerable { 1.0 - a0 } else { a0 });
        let c = ((b - b0) / (b0 * (1.0 - b0))).clamp(-cap, cap);
        // A point that rounding or a strange line put beyond the alternative is no reason to bet on the other side.
        let c = if against == Against::Tolerable { c.max(0.0) } else { c.min(0.0) };
        Bet { a0, b0, c }
    }

    /// Finds the root of `(m - a)/(m(1 - m)) + r v (l - b)/(l(1 - l))`, `l = r m + d`, between `low` and `high`: by
    /// Newton's steps on the cubic that it is after multiplication, by halves where a step leaves the bracket. It begins
    /// where the root lies if both denominators are as they are at `a`, which is near by for rare hits.
    fn project(self, a: f64, b: f64, v: f64, mut low: f64, mut high: f64) -> f64 {
        let (r, rv) = (self.r, self.r * v);
        let l = self.at(a);
        let weight = r * rv * (a * (1.0 - a)) / (l * (1.0 - l));
        let guess = (a + weight * (b - self.d) / r) / (1.0 + weight);
        let mut m = if guess > low && guess < high { guess } else { 0.5 * (low + high) };
        for _ in 0..80 {
            let l = self.at(m);
            let (m_odd, l_odd) = (m * (1.0 - m), l * (1.0 - l));
            let value = (m - a) * l_odd + rv * (l - b) * m_odd;
            if value < 0.0 {
                low = m;
            } else {
                high = m;
            }
            let slope = l_odd + (m - a) * r * (1.0 - 2.0 * l) + rv * (r * m_odd + (l - b) * (1.0 - 2.0 * m));
            let newton = m - value / slope;
            let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
            // The next step would be the square of this one.
            if (next - m).abs() <= 1e-9 * m && newton == next {
                return next;
            }
            m = next;
        }
        m
    }
}

impl Bet {
    /// Returns what each outcome pays at `v` requests of the canary for each of the baseline's, at most as many as the
    /// bet was chosen for.
    pub fn payoffs(self, line: Line, v: f64) -> Payoffs {
        let Bet { a0, b0, c } = self;
        let c_a = -line.r * v * c;
        Payoffs {
            baseline_hit: ln_1p(c_a * (1.0 - a0)),
            baseline_miss: ln_1p(-c_a * a0),
            canary_hit: ln_1p(c * (1.0 - b0)),
            canary_miss: ln_1p(-c * b0),
        }
    }
}

impl Bet {
    /// Returns what each outcome pays at a smaller `v`, from what it pays at the one the bet was chosen for.
    pub fn with_fewer(self, line: Line, payoffs: Payoffs, v: f64) -> Payoffs {
        let c_a = -line.r * v * self.c;
        Payoffs { baseline_hit: ln_1p(c_a * (1.0 - self.a0)), baseline_miss: ln_1p(-c_a * self.a0), ..payoffs }
    }
}

impl Payoffs {
    /// Returns the log of the block's e-value.
    pub fn ln_e(&self, block: &Block) -> f64 {
        block.x_a * self.baseline_hit
            + (block.n_a - block.x_a) * self.baseline_miss
            + block.x_b * self.canary_hit
            + (block.n_b - block.x_b) * self.canary_miss
    }
}

impl Block {
    /// Returns the canary's requests for each of the baseline's.
    pub fn v(&self) -> f64 {
        self.n_b / self.n_a
    }
}

/// Returns the chance whose odds are `times` those of `p`.
pub fn times_odds(p: f64, times: f64) -> f64 {
    let odds = p / (1.0 - p) * times;
    odds / (1.0 + odds)
}

/// Returns what a bet on the alternative `(a, b)` wins a request of the canary when it is true, in nats: as fast as any
/// test can grow. Source: relative entropy to the line's nearest point, `KL(b, b0) + KL(a, a0) / v`.
pub fn information(line: Line, a: f64, b: f64, v: f64, against: Against) -> f64 {
    use super::maths::relative_entropy;
    let Bet { a0, b0, .. } = line.bet(a, b, v, against);
    let apart = if against == Against::Tolerable { b > line.at(a) } else { b < line.at(a) };
    if apart { relative_entropy(b, b0) + relative_entropy(a, a0) / v } else { 0.0 }
}

/// Returns the log of the wealth that is needed to be right with a chance of `1 - error`.
pub fn ln_needed(error: f64) -> f64 {
    -ln(error)
}
