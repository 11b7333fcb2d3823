//! The theorem that everything rests on, in exact numbers: under the line no bet wins on average.

use proptest::prelude::*;

use crate::judgement::evalue::{Against, Bet, Block, Line, Payoffs, times_odds};
use crate::judgement::maths::{exp, ln};

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        Just(Line { r: 1.2, d: 0.0003 }),
        Just(Line { r: 1.0, d: 0.0 }),
        Just(Line { r: 1.0, d: 0.3 }),
        (0.5..3.0, 0.0..0.2).prop_map(|(r, d)| Line { r, d }),
    ]
}

/// Rates from one in a billion to nearly all.
fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![(-9.0..-1.0_f64).prop_map(|e| 10_f64.powf(e)), 0.1..0.999]
}

fn ratio() -> impl Strategy<Value = f64> {
    (-4.0..3.0_f64).prop_map(|e| 10_f64.powf(e))
}

fn bet(line: Line, a: f64, odds: f64, v: f64, against: Against) -> Bet {
    let tolerated = line.at(a).min(0.97);
    let b = match against {
        Against::Tolerable => times_odds(tolerated, odds).min(0.999).max(tolerated + 1e-9),
        Against::Worse => (tolerated / odds).min(line.at(a) * 0.98).max(1e-12),
    };
    line.bet(a, b, v, against)
}

fn side() -> impl Strategy<Value = Against> {
    prop_oneof![Just(Against::Tolerable), Just(Against::Worse)]
}

/// The chance of each number of hits in `n` requests with these rates, by convolution: no two need be the same.
fn chances(rates: &[f64]) -> Vec<f64> {
    let mut chances = vec![1.0];
    for rate in rates {
        let mut next = vec![0.0; chances.len() + 1];
        for (hits, chance) in chances.iter().enumerate() {
            next[hits] += chance * (1.0 - rate);
            next[hits + 1] += chance * rate;
        }
        chances = next;
    }
    chances
}

fn mean_e(payoffs: &Payoffs, a: &[f64], b: &[f64]) -> f64 {
    let (chances_a, chances_b) = (chances(a), chances(b));
    let mut mean = 0.0;
    for (x_a, chance_a) in chances_a.iter().enumerate() {
        for (x_b, chance_b) in chances_b.iter().enumerate() {
            let block = Block { n_a: a.len() as f64, x_a: x_a as f64, n_b: b.len() as f64, x_b: x_b as f64 };
            mean += chance_a * chance_b * exp(payoffs.ln_e(&block));
        }
    }
    mean
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_outcome_of_every_bet_leaves_something(
        line in line(), a in rate(), odds in 1.01..1e6_f64, v in ratio(), against in side(),
    ) {
        let bet = bet(line, a, odds, v, against);
        prop_assert!(bet.a0 > 0.0 && bet.a0 < 1.0 && bet.b0 > 0.0 && bet.b0 < 1.0, "{bet:?}");
        prop_assert!(if against == Against::Tolerable { bet.c >= 0.0 } else { bet.c <= 0.0 }, "{bet:?}");
        let Payoffs { baseline_hit, baseline_miss, canary_hit, canary_miss } = bet.payoffs(line, v);
        for payoff in [baseline_hit, baseline_miss, canary_hit, canary_miss] {
            prop_assert!(payoff.is_finite(), "{bet:?} {payoff}");
        }
    }

    /// The alternative is the best the bet can meet: it wins on average there, and as much as relative entropy says.
    #[test]
    fn a_bet_on_the_truth_wins_as_relative_entropy_says(a in 0.0005..0.4_f64, odds in 1.5..20.0_f64, v in 0.1..1.0_f64) {
        let line = Line { r: 1.2, d: 0.0003 };
        let b = times_odds(line.at(a), odds);
        let bet = line.bet(a, b, v, Against::Tolerable);
        let p = bet.payoffs(line, v);
        let won = b * p.canary_hit + (1.0 - b) * p.canary_miss + (a * p.baseline_hit + (1.0 - a) * p.baseline_miss) / v;
        let entropy = crate::judgement::evalue::information(line, a, b, v, Against::Tolerable);
        let clipped = bet.c >= 0.998 / (line.r * v * (1.0 - bet.a0));
        prop_assert!(won <= entropy * (1.0 + 1e-6) + 1e-12, "{won} {entropy}");
        prop_assert!(clipped || (won - entropy).abs() <= 1e-6 * entropy + 1e-12, "{won} {entropy}");
        // No other bet against the line's other points does better.
        for other in [0.9, 0.99, 1.01, 1.1].map(|times| Bet { c: bet.c * times, ..bet }) {
            let p = other.payoffs(line, v);
            let less = b * p.canary_hit + (1.0 - b) * p.canary_miss + (a * p.baseline_hit + (1.0 - a) * p.baseline_miss) / v;
            prop_assert!(!less.is_finite() || less <= won + 1e-9 || clipped, "{less} {won}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every outcome of a small block, weighed by its chance: rates may differ from request to request, and what the
    /// bet believes may be far from what is.
    #[test]
    fn on_average_no_bet_wins_while_the_blocks_mean_rates_keep_to_the_line(
        line in line(),
        believed in rate(),
        odds in 1.01..1e5_f64,
        against in side(),
        a in prop::collection::vec(0.0..1.0_f64, 1..7),
        b in prop::collection::vec(0.0..1.0_f64, 1..7),
    ) {
        let v = b.len() as f64 / a.len() as f64;
        let payoffs = bet(line, believed, odds, v, against).payoffs(line, v);
        let limit = line.at(mean(&a)).min(1.0);
        // Scaled to the line's side that the bet is against; on the line itself too.
        let scaled: Vec<f64> = match against {
            Against::Tolerable => b.iter().map(|rate| rate * (limit / mean(&b)).min(1.0)).collect(),
            Against::Worse if limit < 1.0 => b.iter().map(|rate| 1.0 - (1.0 - rate) * ((1.0 - limit) / (1.0 - mean(&b))).min(1.0)).collect(),
            Against::Worse => return Ok(()), // nothing lies beyond
        };
        prop_assert!(mean_e(&payoffs, &a, &scaled) <= 1.0 + 1e-9, "{}", mean_e(&payoffs, &a, &scaled));
    }

    /// The same bet without one node is a bet of its own.
    #[test]
    fn a_bet_at_fewer_requests_of_the_canary_does_not_win_on_average_either(
        line in line(), believed in rate(), odds in 1.01..1e5_f64, a in 0.0..0.8_f64,
        n_a in 1_usize..6, n_b in 1_usize..5, without in 0_usize..4,
    ) {
        let v = n_b as f64 / n_a as f64;
        let bet = bet(line, believed, odds, v, Against::Tolerable);
        let n_rest = n_b.saturating_sub(without);
        let payoffs = bet.with_fewer(line, bet.payoffs(line, v), n_rest as f64 / n_a as f64);
        let b = line.at(a).min(1.0);
        prop_assert!(mean_e(&payoffs, &vec![a; n_a], &vec![b; n_rest]) <= 1.0 + 1e-9);
    }
}

#[test]
fn a_bet_that_is_too_large_to_be_fair_is_noticed_by_the_check_above() {
    let line = Line { r: 1.2, d: 0.0003 };
    let bet = line.bet(0.1, 0.5, 1.0, Against::Tolerable);
    let unfair = Payoffs { canary_miss: bet.payoffs(line, 1.0).canary_miss + ln(1.1), ..bet.payoffs(line, 1.0) };
    assert!(mean_e(&unfair, &[0.1; 4], &[line.at(0.1); 4]) > 1.0);
}
