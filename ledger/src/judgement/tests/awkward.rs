//! The awkward cases: no traffic, little of it, outages, bursts, one bad node, cold caches, hung requests, wrong routes.

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemas::Weight;
use schemas::judgement::{NodeTally, Tally, Tick, Verdict};

use crate::judgement::evidence;
use crate::judgement::forecast::requests_still_needed;
use crate::judgement::judge::Judge;
use crate::judgement::latency::{Buckets, InFlight, Latencies, Seen, Side};
use crate::judgement::observed::Observed;
use crate::judgement::plan::{History, Metric, Plan};

/// A plan of these metrics with a long history of a good baseline.
fn plan(names: &[&str]) -> Plan {
    let mut metrics: Vec<Metric> = names.iter().map(|name| Metric::named(name)).collect();
    for metric in &mut metrics {
        let (hits, beyond) = match metric.name.as_str() {
            "p99" => (6_000, 4_000),
            "p50" => (300_000, 250_000),
            _ => (600, 600),
        };
        metric.weight = 1.0 / names.len() as f64;
        metric.history = Some(History { requests: 600_000, hits, beyond });
    }
    Plan { metrics, ..Plan::new(86_400.0) }
}

fn tally(requests: u64, hits: u64) -> Tally {
    Tally { requests, hits, beyond: 0 }
}

fn node(node: u32, counts: &[Tally]) -> NodeTally {
    NodeTally { node, age_ms: 3_600_000, counts: counts.to_vec() }
}

/// A second of one metric, the canary at a tenth.
fn second(baseline: &[(u64, u64)], canary: &[(u64, u64)]) -> Observed {
    let nodes = |pairs: &[(u64, u64)]| (0_u32..).zip(pairs).map(|(i, (n, x))| node(i, &[tally(*n, *x)])).collect();
    Observed { seconds: 1.0, nu: 1.0 / 9.0, baseline: nodes(baseline), canary: nodes(canary) }
}

fn judge(names: &[&str]) -> Judge {
    Judge::new(plan(names)).unwrap()
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn hits(&mut self, requests: u64, rate: f64) -> u64 {
        (0..requests).filter(|_| self.0.random_bool(rate)).count() as u64
    }
}

#[test]
fn no_requests_are_no_evidence_and_never_a_verdict() {
    let mut judge = judge(&["errors", "p99"]);
    for _ in 0..10_000 {
        let none = Observed::of_versions(1.0, 1.0 / 9.0, vec![tally(9, 0); 2], vec![tally(0, 0); 2]);
        assert_eq!(judge.tick(&none), Verdict::Inconclusive);
    }
    assert!(judge.ln_wealth().abs() < 1e-9);
    assert!(judge.trials()[0].ln_not_worse().abs() < 1e-12);
    assert!(judge.routing().is_broken(), "a tenth was to reach it and none did");
}

#[test]
fn requests_that_fall_far_from_the_weights_are_the_routers_fault() {
    let mut swapped = judge(&["errors"]);
    let fell_at = (1..=60).find(|_| {
        swapped.tick(&second(&[(10, 0)], &[(90, 0)]));
        swapped.routing().is_broken()
    });
    assert_eq!(fell_at, Some(1));
    assert_ne!(swapped.verdict(), Verdict::Worse);
    for seed in 0..50 {
        let (mut dice, mut judge) = (Dice::new(seed), judge(&["errors"]));
        for _ in 0..2_000 {
            let canary = dice.hits(20, 0.1);
            judge.tick(&second(&[(20 - canary, 0)], &[(canary, 0)]));
        }
        assert!(!judge.routing().is_broken(), "seed {seed}");
    }
}

#[test]
fn routing_that_breaks_late_is_noticed() {
    let mut judge = judge(&["errors"]);
    (0..20_000).for_each(|_| {
        judge.tick(&second(&[(90, 0)], &[(10, 0)]));
    });
    assert!(!judge.routing().is_broken());
    let noticed = (1..=60).find(|_| {
        judge.tick(&second(&[(100, 0)], &[(0, 0)]));
        judge.routing().is_broken()
    });
    assert!(noticed.is_some_and(|seconds| seconds <= 10), "{noticed:?}");
}

#[test]
fn a_shared_outage_rolls_nothing_back_and_proves_nothing() {
    for cap in [false, true] {
        for seed in 0..20 {
            let mut dice = Dice::new(seed);
            let mut judge = Judge::new(Plan { burst_cap: cap, ..plan(&["errors"]) }).unwrap();
            for t in 0..600 {
                let rate = if (60..180).contains(&t) { 0.4 } else { 0.001 };
                let tick = second(&[(900, dice.hits(900, rate))], &[(100, dice.hits(100, rate))]);
                assert_ne!(judge.tick(&tick), Verdict::Worse, "cap {cap} seed {seed} second {t}");
                assert!((62..180).contains(&t) <= judge.in_incident(), "cap {cap} seed {seed} second {t}");
                assert!(judge.in_incident() <= (60..300).contains(&t), "cap {cap} seed {seed} second {t}");
            }
            let rate = judge.trials()[0].baseline().rate();
            assert!(rate < 0.004, "the outage was learnt: {rate}");
        }
    }
}

#[test]
fn an_incident_freezes_what_speaks_for_the_canary() {
    let mut judge = judge(&["errors"]);
    (0..5).for_each(|_| {
        judge.tick(&second(&[(900, 300)], &[(100, 0)]));
    });
    let before = judge.trials()[0].ln_not_worse();
    assert!(judge.in_incident());
    (0..50).for_each(|_| {
        judge.tick(&second(&[(900, 300)], &[(100, 0)]));
    });
    assert_eq!(judge.trials()[0].ln_not_worse(), before);
}

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

#[test]
fn a_cold_cache_is_no_slow_version_but_its_errors_count() {
    let run = |warm_up_seconds: f64, errors: f64| {
        let mut dice = Dice::new(5);
        let mut judge = Judge::new(Plan { warm_up_seconds, ..plan(&["errors", "p99"]) }).unwrap();
        for t in 0..3_000_u64 {
            let slow = if t < 60 { 0.15 } else { 0.007 };
            let baseline = [
                tally(450, dice.hits(450, 0.001)),
                Tally { beyond: dice.hits(4, 0.7), ..tally(450, dice.hits(450, 0.01).max(4)) },
            ];
            let canary = [tally(50, dice.hits(50, errors)), tally(50, dice.hits(50, slow))];
            let canary = NodeTally { age_ms: t * 1_000, ..node(0, &canary) };
            let tick =
                Observed { seconds: 1.0, nu: 1.0 / 9.0, baseline: vec![node(0, &baseline)], canary: vec![canary] };
            let verdict = judge.tick(&tick);
            if verdict != Verdict::Inconclusive {
                return (verdict, t);
            }
        }
        (Verdict::Inconclusive, 3_000)
    };
    let (verdict, at) = run(0.0, 0.001);
    assert!(verdict == Verdict::Worse && at < 10, "{verdict:?} {at}");
    assert_eq!(run(60.0, 0.001).0, Verdict::NotWorse);
    let (verdict, at) = run(60.0, 0.2);
    assert!(verdict == Verdict::Worse && at < 10, "{verdict:?} {at}");
}

#[test]
fn a_canary_that_hangs_is_convicted_once_its_requests_are_older_than_the_edge() {
    let mut judge = judge(&["errors", "p99"]);
    let usual = Buckets::from([(300, 890), (500, 10)]);
    let mut latencies = Latencies::default();
    latencies.learn(1.0, 600.0, &usual);
    let mut in_flight = [InFlight::default(), InFlight::default()];
    let fell_at = (1_i32..=30).find(|tenth| {
        let edge = latencies.edge(0.99);
        // Ten requests each tenth of a second and none of them ends; the oldest came at the first.
        let ages = (0..*tenth).map(|i| (bucket(f64::from(i) * 100.0 + 50.0), 10)).collect();
        let seen = Seen { ended: Buckets::new(), failed: 0, in_flight: ages };
        let metrics: Vec<Metric> = judge.plan().metrics.clone();
        let mut count = |m: usize| in_flight[m].count(&metrics[m], Side::Canary, edge, bucket(30_000.0), &seen);
        let canary = vec![count(0), count(1)];
        let baseline = vec![tally(90, 0), Tally { beyond: 0, ..tally(90, 0) }];
        judge.tick(&Observed::of_versions(0.1, 1.0 / 9.0, baseline, canary)) == Verdict::Worse
    });
    // The p99 is bucket 300, 19.8 ms; the canary's edge bucket 319, 23.9 ms.
    assert!(fell_at.is_some_and(|tenths| tenths <= 3), "{fell_at:?}");
}

fn bucket(ms: f64) -> i32 {
    (ms.ln() / 1.01_f64.ln()).ceil() as i32
}

#[test]
fn a_baseline_without_a_past_is_listened_to_first() {
    let mut plan = plan(&["errors"]);
    plan.metrics[0].history = None;
    let mut judge = Judge::new(plan).unwrap();
    judge.tick(&second(&[(40, 0)], &[(4, 4)]));
    assert!(judge.ln_wealth().abs() < 1e-9, "nothing was bet");
    judge.tick(&second(&[(40, 0)], &[(4, 0)]));
    assert!((judge.trials()[0].baseline().rate() - 0.5 / 81.0).abs() < 1e-3);
    judge.tick(&second(&[(40, 0)], &[(4, 4)]));
    assert!(judge.ln_wealth() > 1.0);
}

#[test]
fn an_accepted_canary_that_turns_bad_is_convicted() {
    let mut judge = judge(&["errors"]);
    let mut dice = Dice::new(3);
    while judge.tick(&second(&[(900, dice.hits(900, 0.001))], &[(100, dice.hits(100, 0.001))])) == Verdict::Inconclusive
    {
    }
    assert_eq!(judge.verdict(), Verdict::NotWorse);
    assert_eq!(requests_still_needed(&judge, 1.0 / 9.0), Some(0));
    let fell_at = (1..=120).find(|_| judge.tick(&second(&[(900, 1)], &[(100, 5)])) == Verdict::Worse);
    assert!(fell_at.is_some(), "{}", judge.ln_wealth());
}

#[test]
fn the_evidence_is_told_in_words_and_numbers() {
    let mut judge = judge(&["errors"]);
    for _ in 0..5 {
        judge.tick(&second(&[(900, 1)], &[(100, 0)]));
    }
    assert_eq!(
        evidence::sentence(&judge, "canary 1.2.0"),
        "canary 1.2.0: 0 of 500 requests failed, baseline 5 of 4,500; tolerance 0.15 %; \
         evidence 0.6 to 1, 100 needed; that it is not worse 1.3 to 1, 20 needed"
    );
    let needed = requests_still_needed(&judge, 1.0 / 9.0).unwrap();
    assert!((30_000..35_000).contains(&needed), "{needed}");
    assert_eq!(judge.severity_excluded(), 0.01);
    judge.tick(&second(&[(900, 1)], &[(100, 9)]));
    assert_eq!(judge.verdict(), Verdict::Worse);
    let sentence = evidence::sentence(&judge, "canary 1.2.0");
    let begin = "canary 1.2.0: 9 of 600 requests failed, baseline 6 of 5,400; tolerance 0.15 %; evidence ";
    assert!(sentence.starts_with(begin) && sentence.ends_with(" to 1, 100 needed"), "{sentence}");
}

#[test]
fn the_worst_that_is_left_falls_with_good_requests_and_not_with_bad_ones() {
    let mut good = judge(&["errors", "p99"]);
    assert_eq!(good.severity_excluded(), 1.0);
    let severities: Vec<f64> = (0..8)
        .map(|_| {
            good.tick(&Observed::of_versions(1.0, 1.0 / 9.0, vec![tally(450, 0); 2], vec![tally(50, 0); 2]));
            good.severity_excluded()
        })
        .collect();
    assert_eq!(severities[0], 0.1);
    assert_eq!(*severities.last().unwrap(), 0.01);
    let mut bad = judge(&["errors"]);
    (0..20).for_each(|_| {
        bad.tick(&second(&[(450, 0)], &[(50, 10)]));
    });
    assert!(bad.severity_excluded() >= 0.3, "{}", bad.severity_excluded());
}

/// Any tick, also senseless ones.
fn any_tick() -> impl Strategy<Value = Tick> {
    let tally =
        (0_u64..2_000, 0_u64..60, 0_u64..60).prop_map(|(requests, hits, beyond)| Tally { requests, hits, beyond });
    let node = (0_u32..6, any::<u32>(), prop::collection::vec(tally, 0..4)).prop_map(|(node, age, counts)| NodeTally {
        node,
        age_ms: u64::from(age),
        counts,
    });
    let nodes = || prop::collection::vec(node.clone(), 0..5);
    (0_u32..70_000, 0_u16..=10_000, nodes(), nodes()).prop_map(|(ms, share, baseline, canary)| Tick {
        ms,
        share: Weight::from_basis_points(share).unwrap(),
        edges: vec![None, Some(400), Some(700)],
        baseline,
        canary,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_same_recorded_ticks_judged_again_give_the_same_bits(
        ticks in prop::collection::vec(any_tick(), 0..40), burst_cap in any::<bool>(),
    ) {
        let plan = Plan { burst_cap, warm_up_seconds: 60.0, ..plan(&["errors", "p50", "p99"]) };
        let stored = serde_json::to_vec(&(&plan, &ticks)).unwrap();
        let (plan_again, again): (Plan, Vec<Tick>) = serde_json::from_slice(&stored).unwrap();
        prop_assert_eq!(&plan_again, &plan);
        let (mut one, mut other) = (Judge::new(plan).unwrap(), Judge::new(plan_again).unwrap());
        for (tick, tick_again) in ticks.iter().zip(&again) {
            let verdict = one.tick(&tick.into());
            prop_assert_eq!(verdict, other.tick(&tick_again.into()));
            prop_assert_eq!(one.ln_wealth().to_bits(), other.ln_wealth().to_bits());
            prop_assert!(!one.ln_wealth().is_nan());
            prop_assert!(one.ln_wealth() < f64::INFINITY);
        }
        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn a_version_without_a_single_hit_is_never_convicted(
        ticks in prop::collection::vec((0_u64..5_000, 0_u64..50, 0_u64..5_000, 1_u16..9_999), 1..100),
    ) {
        let mut judge = judge(&["errors"]);
        for (n_a, x_a, n_b, share) in ticks {
            let nu = f64::from(share) / f64::from(10_000 - share);
            let tick = Observed::of_versions(1.0, nu, vec![tally(n_a, x_a)], vec![tally(n_b, 0)]);
            prop_assert_ne!(judge.tick(&tick), Verdict::Worse);
        }
    }
}

#[test]
fn huge_counts_neither_overflow_nor_stop_the_fold() {
    let mut judge = judge(&["errors"]);
    for _ in 0..3 {
        judge.tick(&second(&[(u64::MAX, 0)], &[(u64::MAX / 9, u64::MAX / 9)]));
    }
    assert_eq!(judge.verdict(), Verdict::Worse);
    assert!(judge.ln_wealth().is_finite());
    assert!(evidence::sentence(&judge, "canary 2").contains("over 1,000,000,000 to 1"));
}
