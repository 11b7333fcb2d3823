//! Seeded chance: how many of so many requests are hits, without drawing each of them.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A source of chance that gives the same for the same seed.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn unit(&mut self) -> f64 {
        self.0.random()
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Draws how many of `n` requests are hits at a chance of `p` each.
    pub(crate) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p <= 0.0 {
            0
        } else if p >= 1.0 {
            n
        } else if p > 0.5 {
            n - self.binomial(n, 1.0 - p)
        } else if n as f64 * p < 10.0 {
            self.by_inversion(n, p)
        } else {
            self.by_rejection(n as f64, p) as u64
        }
    }

    /// Walks up the distribution from 0.
    fn by_inversion(&mut self, n: u64, p: f64) -> u64 {
        let odds = p / (1.0 - p);
        let (mut k, mut left) = (0, self.unit());
        let mut chance = (n as f64 * (-p).ln_1p()).exp();
        while left > chance && k < n {
            left -= chance;
            k += 1;
            chance *= odds * (n - k + 1) as f64 / k as f64;
        }
        k
    }

    /// Source: Hoermann, "The generation of binomial random variates" (1993), algorithm BTRS; exact.
    fn by_rejection(&mut self, n: f64, p: f64) -> f64 {
        let spq = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * spq;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let (c, v_r) = (n * p + 0.5, 0.92 - 4.2 / b);
        let (r, alpha, m) = (p / (1.0 - p), (2.83 + 5.1 / b) * spq, ((n + 1.0) * p).floor());
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + c).floor();
            if us >= 0.07 && v <= v_r {
                return k;
            }
            if k < 0.0 || k > n {
                continue;
            }
            let bound = (m + 0.5) * ((m + 1.0) / (r * (n - m + 1.0))).ln()
                + (n + 1.0) * ((n - m + 1.0) / (n - k + 1.0)).ln()
                + (k + 0.5) * (r * (n - k + 1.0) / (k + 1.0)).ln()
                + stirling_rest(m)
                + stirling_rest(n - m)
                - stirling_rest(k)
                - stirling_rest(n - k);
            if (v * alpha / (a / (us * us) + b)).ln() <= bound {
                return k;
            }
        }
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Source: Marsaglia and Tsang (2000); `shape` at least 1.
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Draws the chance below which the `k`-th smallest of `n` numbers from 0 to 1 lies.
    pub(crate) fn order_statistic(&mut self, k: u64, n: u64) -> f64 {
        let (x, y) = (self.gamma(k as f64), self.gamma((n - k + 1) as f64));
        x / (x + y)
    }
}

/// What Stirling's formula leaves of the log of a factorial.
fn stirling_rest(k: f64) -> f64 {
    const SMALL: [f64; 10] = [
        0.081_061_466_795_327_8,
        0.041_340_695_955_409_5,
        0.027_677_925_684_998_3,
        0.020_790_672_103_765_1,
        0.016_644_691_189_821_2,
        0.013_876_128_823_070_7,
        0.011_896_709_945_891_8,
        0.010_411_265_261_972_1,
        0.009_255_462_182_712_7,
        0.008_330_563_433_362_9,
    ];
    if k <= 9.0 {
        return SMALL[k as usize];
    }
    let next = (k + 1.0) * (k + 1.0);
    (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1_260.0 / next) / next) / (k + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_have_the_mean_and_the_spread_they_should() {
        let mut dice = Dice::new(1);
        for (n, p) in
            [(10, 0.3), (1_000, 0.001), (100_000, 0.00005), (100, 0.2), (10_000, 0.5), (9_000, 0.9), (1_000_000, 0.01)]
        {
            let draws: Vec<f64> = (0..20_000).map(|_| dice.binomial(n, p) as f64).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            let (expected, spread) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - expected).abs() < 5.0 * (spread / 20_000.0).sqrt(), "{n} {p}: mean {mean}");
            assert!((variance / spread - 1.0).abs() < 0.08, "{n} {p}: variance {variance} instead of {spread}");
        }
    }

    #[test]
    fn the_99th_of_100_lies_where_it_should() {
        let mut dice = Dice::new(2);
        let mean = (0..20_000).map(|_| dice.order_statistic(99, 100)).sum::<f64>() / 20_000.0;
        assert!((mean - 99.0 / 101.0).abs() < 0.001, "{mean}");
    }
}
