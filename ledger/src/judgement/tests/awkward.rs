//! The awkward cases: no traffic, wrong routes, outages, cold caches, hung requests, no past.

use schemas::judgement::{NodeTally, Tally, Verdict};

use super::kit::{Dice, judge, node, plan, second, tally};
use crate::judgement::forecast::requests_still_needed;
use crate::judgement::judge::Judge;
use crate::judgement::latency::{Buckets, InFlight, Latencies, NodeLatencies, Side};
use crate::judgement::observed::Observed;
use crate::judgement::plan::{Metric, Plan};

#[test]
fn no_requests_are_no_evidence_and_never_a_verdict() {
    let mut judge = judge(&["errors", "p99"]);
    for _ in 0..10_000 {
        let none = Observed::of_versions(1.0, 1.0 / 9.0, vec![tally(9, 0); 2], vec![tally(0, 0); 2]);
        assert_eq!(judge.tick(&none), Verdict::Inconclusive);
    }
    assert!(judge.ln_wealth().abs() < 1e-9);
    assert!(judge.trials()[0].ln_not_worse().abs() < 1e-12);
    assert!(judge.share_alarm().is_broken(), "a tenth was to reach it and none did");
}

#[test]
fn requests_that_fall_far_from_the_weights_are_the_routers_fault() {
    let mut swapped = judge(&["errors"]);
    let fell_at = (1..=60).find(|_| {
        swapped.tick(&second(&[(10, 0)], &[(90, 0)]));
        swapped.share_alarm().is_broken()
    });
    assert_eq!(fell_at, Some(1));
    assert_ne!(swapped.verdict(), Verdict::Worse);
    for seed in 0..50 {
        let (mut dice, mut judge) = (Dice::new(seed), judge(&["errors"]));
        for _ in 0..2_000 {
            let canary = dice.hits(20, 0.1);
            judge.tick(&second(&[(20 - canary, 0)], &[(canary, 0)]));
        }
        assert!(!judge.share_alarm().is_broken(), "seed {seed}");
    }
}

#[test]
fn routing_that_breaks_late_is_noticed() {
    let mut judge = judge(&["errors"]);
    (0..20_000).for_each(|_| {
        judge.tick(&second(&[(90, 0)], &[(10, 0)]));
    });
    assert!(!judge.share_alarm().is_broken());
    let noticed = (1..=60).find(|_| {
        judge.tick(&second(&[(100, 0)], &[(0, 0)]));
        judge.share_alarm().is_broken()
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
        let seen = NodeLatencies { ended: Buckets::new(), failed: 0, in_flight: ages };
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
