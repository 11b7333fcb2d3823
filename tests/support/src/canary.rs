//! Made-up canaries with known verdicts: requests drawn from SplitMix64, one number a request, and what a slow, plain
//! judge of one metric says of them (`canary.tsv`).

/// Ratio of neighbouring buckets, and by how many of them the canary may be slower.
const RATIO: f64 = 1.01;
const BUCKETS: i32 = 5;
/// The first draws are the baseline's history.
const HISTORY: usize = 6_000;

const TABLE: &str = include_str!("canary.tsv");

/// A canary, and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Its name in the table.
    pub name: String,
    seed: u64,
    /// Whether response times are judged, and not status codes.
    pub is_latency: bool,
    seconds: u64,
    requests: (u64, u64),
    rates: (f64, f64),
    slower: f64,
    onset: u64,
    /// What is to be said of it.
    pub verdict: String,
    /// After which second it is said, if it is.
    pub row: Option<u64>,
    /// The canary's requests and hits at the end.
    pub canary: (u64, u64),
    /// The natural logarithm of the evidence at the end.
    pub ln_total: f64,
}

/// What was counted of it.
#[derive(Clone, Debug)]
pub struct Counts {
    /// The baseline's requests and hits before.
    pub history: (u64, u64),
    /// What the canary's rate would be were it the baseline, as a multiple of the baseline's.
    pub accept_ratio: f64,
    /// Requests and hits of the baseline and of the canary, second by second.
    pub rows: Vec<((u64, u64), (u64, u64))>,
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn chance(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn latency_ms(chance: f64) -> f64 {
    50.0 * (chance / (1.0 - chance)).powf(1.0 / 2.47)
}

/// Returns every canary of the table.
pub fn all() -> Vec<Canary> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| Canary::of(&line.split('\t').collect::<Vec<_>>())).collect()
}

impl Canary {
    fn of(columns: &[&str]) -> Self {
        let whole = |i: usize| columns[i].parse::<u64>().unwrap();
        let number = |i: usize| columns[i].parse::<f64>().unwrap();
        Self {
            name: columns[0].to_owned(),
            seed: whole(1),
            is_latency: columns[2] == "lat",
            seconds: whole(3),
            requests: (whole(4), whole(5)),
            rates: (number(6), number(7)),
            slower: number(8),
            onset: whole(9),
            verdict: columns[10].to_owned(),
            row: Some(whole(11)).filter(|row| *row > 0),
            canary: (whole(12), whole(13)),
            ln_total: number(14),
        }
    }

    /// Draws its requests.
    pub fn counts(&self) -> Counts {
        let mut dice = SplitMix64(self.seed);
        if self.is_latency {
            return self.latencies(&mut dice);
        }
        let hits = |dice: &mut SplitMix64, n: u64, rate: f64| (0..n).filter(|_| dice.chance() < rate).count() as u64;
        let history = (HISTORY as u64, hits(&mut dice, HISTORY as u64, self.rates.0));
        let row = |t: u64| {
            let rate = if t >= self.onset { self.rates.1 } else { self.rates.0 };
            let baseline = hits(&mut dice, self.requests.0, self.rates.0);
            let canary = hits(&mut dice, self.requests.1, rate);
            ((self.requests.0, baseline), (self.requests.1, canary))
        };
        Counts { history, accept_ratio: 1.0, rows: (0..self.seconds).map(row).collect() }
    }

    fn latencies(&self, dice: &mut SplitMix64) -> Counts {
        let mut before: Vec<f64> = (0..HISTORY).map(|_| latency_ms(dice.chance())).collect();
        before.sort_by(f64::total_cmp);
        let p99 = before[(0.99 * HISTORY as f64).ceil() as usize - 1];
        let edge = RATIO.powi((p99.ln() / RATIO.ln()).ceil() as i32);
        let edges = (edge, edge * RATIO.powi(BUCKETS));
        let above = |edge: f64| before.iter().filter(|ms| **ms > edge).count() as u64;
        let history = (HISTORY as u64, above(edges.0));
        let accept_ratio = above(edges.1) as f64 / history.1.max(1) as f64;
        let mut slow =
            |n: u64, times: f64, edge: f64| (0..n).filter(|_| latency_ms(dice.chance()) * times > edge).count() as u64;
        let row = |t: u64| {
            let times = if t >= self.onset { self.slower } else { 1.0 };
            let baseline = slow(self.requests.0, 1.0, edges.0);
            let canary = slow(self.requests.1, times, edges.1);
            ((self.requests.0, baseline), (self.requests.1, canary))
        };
        Counts { history, accept_ratio, rows: (0..self.seconds).map(row).collect() }
    }

    /// The canary's requests for each of the baseline's.
    pub fn nu(&self) -> f64 {
        self.requests.1 as f64 / self.requests.0 as f64
    }
}
