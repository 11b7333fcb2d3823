//! Nodes that hiccup, nodes that are bad, and versions whose every node is.

use rand::RngExt as _;
use schemas::judgement::{Tally, Verdict};

use super::kit::{Dice, judge, node, plan, second, tally};
use crate::judgement::judge::Judge;
use crate::judgement::observed::Observed;
use crate::judgement::plan::Plan;

#[test]
fn one_nodes_hiccups_do_not_convict_a_version_and_a_version_that_fails_is_convicted_all_the_same() {
    let hiccups = |cap: bool, seed: u64, failing: f64| {
        let mut dice = Dice::new(seed);
        let mut judge = Judge::new(Plan { burst_cap: cap, ..plan(&["errors"]) }).unwrap();
        let mut ill = vec![0_u32; 100];
        (1..=1_800).find(|_| {
            let mut counts: Vec<(u64, u64)> = Vec::new();
            for (i, left) in ill.iter_mut().enumerate() {
                if *left == 0 && dice.0.random_bool(1.0 / 900.0) {
                    *left = 2;
                }
                let rate = if *left > 0 {
                    0.5
                } else if i >= 90 {
                    failing
                } else {
                    0.001
                };
                *left = left.saturating_sub(1);
                counts.push((10, dice.hits(10, rate)));
            }
            judge.tick(&second(&counts[..90], &counts[90..])) == Verdict::Worse
        })
    };
    assert!((0..5).all(|seed| hiccups(true, seed, 0.001).is_none()));
    assert!((0..5).any(|seed| hiccups(false, seed, 0.001).is_some()), "the case is no case");
    let found: Vec<_> = (0..5).map(|seed| hiccups(true, seed, 0.05)).collect();
    assert!(found.iter().all(|seconds| seconds.is_some_and(|seconds| seconds <= 10)), "{found:?}");
}

#[test]
fn a_single_node_that_fails_altogether_is_convicted_within_four_seconds_under_the_cap() {
    let mut judge = Judge::new(Plan { burst_cap: true, ..plan(&["errors"]) }).unwrap();
    let fell_at = (1..=60).find(|_| {
        let tick = Observed { seconds: 0.1, ..second(&[(45, 0)], &[(5, 5)]) };
        judge.tick(&tick) == Verdict::Worse
    });
    assert!(fell_at.is_some_and(|tenths| tenths <= 40), "{fell_at:?}");
}

#[test]
fn one_bad_node_of_ten_is_named_and_the_version_is_kept_and_a_second_one_convicts_it() {
    for seed in 0..20 {
        let (mut dice, mut judge) = (Dice::new(seed), judge(&["errors"]));
        let mut run = |judge: &mut Judge, seconds: u32, bad: &[usize]| {
            (1..=seconds).find(|_| {
                let baseline = [(900, dice.hits(900, 0.001))];
                let rate = |i: usize| if bad.contains(&i) { 0.3 } else { 0.001 };
                let canary: Vec<_> = (0..10).map(|i| (10, dice.hits(10, rate(i)))).collect();
                judge.tick(&second(&baseline, &canary)) == Verdict::Worse || judge.bad_node().is_some()
            })
        };
        let named = run(&mut judge, 60, &[7]);
        assert!(named.is_some_and(|seconds| seconds <= 30), "seed {seed}: {named:?}");
        assert_eq!((judge.bad_node(), judge.verdict()), (Some(7), Verdict::Inconclusive), "seed {seed}");
        for _ in 0..600 {
            run(&mut judge, 1, &[7]);
        }
        assert_eq!(judge.verdict(), Verdict::Inconclusive, "seed {seed}");
        let mut seconds = 0;
        while judge.verdict() != Verdict::Worse {
            run(&mut judge, 1, &[2, 7]);
            seconds += 1;
            assert!(seconds < 60, "seed {seed}");
        }
    }
}

#[test]
fn with_every_node_a_little_bad_the_version_is_convicted() {
    for seed in 0..20 {
        let (mut dice, mut judge) = (Dice::new(seed), judge(&["errors"]));
        let fell_at = (1..=60).find(|_| {
            let canary: Vec<_> = (0..10).map(|_| (10, dice.hits(10, 0.031))).collect();
            judge.tick(&second(&[(900, dice.hits(900, 0.001))], &canary)) == Verdict::Worse
        });
        assert!(fell_at.is_some_and(|seconds| seconds <= 15), "seed {seed}: {fell_at:?}");
    }
}

/// Four nodes of each version, 500 requests a second of which the canary gets a tenth, looked at every tenth of a second
/// under the burst cap. Returns after how many tenths the canary is worse.
fn four_nodes(seed: u64, seconds: u32, canary: impl Fn(u32) -> (f64, f64)) -> (Judge, Option<u32>) {
    let mut dice = Dice::new(seed);
    let mut judge = Judge::new(Plan { burst_cap: true, ..plan(&["errors", "p99"]) }).unwrap();
    let fell_at = (1..=seconds * 10).find(|tenth| {
        let mut of = |place: u32, requests: u64, (errors, slow): (f64, f64)| {
            let slow = Tally { beyond: 0, ..tally(requests, dice.hits(requests, slow)) };
            node(place, &[tally(requests, dice.hits(requests, errors)), slow])
        };
        let baseline = (0..4).map(|i| of(i, 11, (0.001, 0.01))).collect();
        // Twelve and a half requests a second each: one or two a tenth.
        let canary = (0..4).map(|i| of(4 + i, 1 + u64::from((tenth + i).is_multiple_of(4)), canary(i))).collect();
        judge.tick(&Observed { seconds: 0.1, nu: 1.0 / 9.0, baseline, canary }) == Verdict::Worse
    });
    (judge, fell_at)
}

#[test]
fn with_four_nodes_and_the_cap_a_bad_version_is_convicted_in_seconds_and_a_good_one_is_not() {
    let slowest = |canary: (f64, f64)| (0..20).map(|seed| four_nodes(seed, 60, |_| canary).1.unwrap_or(u32::MAX)).max();
    assert!(slowest((1.0, 0.01)) <= Some(20), "all fail: {:?}", slowest((1.0, 0.01)));
    assert!(slowest((0.001, 1.0)) <= Some(20), "all hang: {:?}", slowest((0.001, 1.0)));
    let mut fell: Vec<u32> = (0..20).map(|seed| four_nodes(seed, 60, |_| (0.05, 0.01)).1.unwrap_or(u32::MAX)).collect();
    fell.sort();
    assert!(fell[10] <= 50, "5 % fail: {fell:?}");
    assert!((0..5).all(|seed| four_nodes(seed, 300, |_| (0.001, 0.007)).1.is_none()));
}

#[test]
fn one_bad_node_of_four_is_named_and_the_version_is_kept() {
    for seed in 0..10 {
        let (judge, fell_at) = four_nodes(seed, 120, |i| (if i == 2 { 0.5 } else { 0.001 }, 0.007));
        assert_eq!((judge.bad_node(), fell_at), (Some(6), None), "seed {seed}");
    }
}
