//! Other tools' rules, written again from their documents, on the same streams. All look at whole minutes.

use crate::stream::{Counted, Stream};

/// A rule that decides at the end of each minute.
pub(crate) trait Peer {
    /// Whether the canary goes back after this minute.
    fn minute(&mut self, minute: &Minute) -> bool;
}

/// What was measured of one minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Minute {
    requests: (u64, u64),
    errors: (u64, u64),
    /// Requests slower than the baseline's usual p99.
    slow: (u64, u64),
    p99_ms: (f64, f64),
}

impl Minute {
    pub(crate) fn add(&mut self, counted: &Counted) {
        self.requests.0 += counted.requests.0;
        self.requests.1 += counted.requests.1;
        self.errors.0 += counted.errors.0;
        self.errors.1 += counted.errors.1;
        self.slow.0 += counted.above.0[2];
        self.slow.1 += counted.above.1[2];
    }

    /// Measures the p99s, and begins the next minute.
    pub(crate) fn end(&mut self, stream: &mut Stream) -> Minute {
        let moment = stream.now();
        let mut p99 = |requests, times| if requests > 0 { stream.p99_ms(requests, times) } else { f64::NAN };
        let p99_ms = (p99(self.requests.0, moment.slow), p99(self.requests.1, moment.slow * moment.slower.1));
        std::mem::take(self).with(p99_ms)
    }

    /// Returns a minute of these requests and errors, with no latencies known.
    pub(crate) fn of_errors(requests: (u64, u64), errors: (u64, u64)) -> Self {
        Self { requests, errors, slow: (0, 0), p99_ms: (f64::NAN, f64::NAN) }
    }

    fn with(self, p99_ms: (f64, f64)) -> Self {
        Self { p99_ms, ..self }
    }
}

/// Flagger's defaults: a check a minute, at least 99 % of requests answered and a p99 of at most 500 ms; the fifth
/// failed check takes it back.
#[derive(Default)]
pub(crate) struct Flagger {
    failed: u32,
}

impl Peer for Flagger {
    fn minute(&mut self, minute: &Minute) -> bool {
        let Minute { requests: (_, requests), errors: (_, errors), p99_ms: (_, p99_ms), .. } = *minute;
        let failing = requests > 0 && (errors as f64 > 0.01 * requests as f64 || p99_ms > 500.0);
        self.failed += u32::from(failing);
        self.failed >= 5
    }
}

/// Kayenta's judge: every ten minutes a Mann-Whitney test at 98 % of the last sixty minutes' error rates and p99s.
#[derive(Default)]
pub(crate) struct Kayenta {
    minutes: Vec<Minute>,
    seen: u32,
}

impl Peer for Kayenta {
    fn minute(&mut self, minute: &Minute) -> bool {
        self.minutes.push(*minute);
        if self.minutes.len() > 60 {
            self.minutes.remove(0);
        }
        self.seen += 1;
        if !self.seen.is_multiple_of(10) {
            return false;
        }
        let rates = |of: fn(&Minute) -> (f64, f64)| {
            let pairs: Vec<(f64, f64)> = self.minutes.iter().map(of).collect();
            let side =
                |pick: fn(&(f64, f64)) -> f64| pairs.iter().map(pick).filter(|x| !x.is_nan()).collect::<Vec<f64>>();
            higher_by_mann_whitney(&side(|pair| pair.0), &side(|pair| pair.1))
        };
        let share = |minute: &Minute| {
            (minute.errors.0 as f64 / minute.requests.0 as f64, minute.errors.1 as f64 / minute.requests.1 as f64)
        };
        // One-sided at 1 %: above the 98 % interval.
        rates(share) > 2.326 || rates(|minute| minute.p99_ms) > 2.326
    }
}

/// Returns how many standard deviations the second sample's ranks lie above what chance would give them.
fn higher_by_mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let (n_a, n_b) = (a.len() as f64, b.len() as f64);
    if a.len() < 8 || b.len() < 8 {
        return 0.0;
    }
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, false)).chain(b.iter().map(|x| (*x, true))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut ranks_b, mut ties, mut i) = (0.0, 0.0, 0);
    while i < all.len() {
        let j = i + all[i..].iter().take_while(|x| x.0 == all[i].0).count();
        let (rank, equal) = ((i + j + 1) as f64 / 2.0, (j - i) as f64);
        ranks_b += rank * all[i..j].iter().filter(|x| x.1).count() as f64;
        ties += equal.powi(3) - equal;
        i = j;
    }
    let n = n_a + n_b;
    let u = ranks_b - n_b * (n_b + 1.0) / 2.0;
    let variance = n_a * n_b / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance <= 0.0 { 0.0 } else { (u - n_a * n_b / 2.0) / variance.sqrt() }
}

/// A z-test of two proportions on all requests so far, asked again every minute at 1 %: of errors and of slow requests.
#[derive(Default)]
pub(crate) struct ZTest {
    all: Minute,
}

impl Peer for ZTest {
    fn minute(&mut self, minute: &Minute) -> bool {
        let add = |to: &mut (u64, u64), more: (u64, u64)| *to = (to.0 + more.0, to.1 + more.1);
        add(&mut self.all.requests, minute.requests);
        add(&mut self.all.errors, minute.errors);
        add(&mut self.all.slow, minute.slow);
        let Minute { requests, errors, slow, .. } = self.all;
        requests.1 >= 30 && (z(requests, errors) > 2.326 || z(requests, slow) > 2.326)
    }
}

fn z(requests: (u64, u64), hits: (u64, u64)) -> f64 {
    let (n_a, n_b) = (requests.0 as f64, requests.1 as f64);
    let pooled = (hits.0 + hits.1) as f64 / (n_a + n_b);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b)).sqrt();
    if deviation > 0.0 { (hits.1 as f64 / n_b - hits.0 as f64 / n_a) / deviation } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: SciPy's `mannwhitneyu` without continuity correction.
    #[test]
    fn ranks_are_compared_as_they_should() {
        let a: Vec<f64> = (0..10).map(f64::from).collect();
        let b: Vec<f64> = (5..15).map(f64::from).collect();
        let z = higher_by_mann_whitney(&a, &b);
        assert!((z - 2.839).abs() < 0.01, "{z}");
        assert!(higher_by_mann_whitney(&a, &a).abs() < 1e-12);
    }

    #[test]
    fn shares_are_compared_as_they_should() {
        assert!((z((1_000, 1_000), (10, 30)) - 3.194).abs() < 0.01);
    }
}
