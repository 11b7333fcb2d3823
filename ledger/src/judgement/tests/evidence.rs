//! What is told, and that it is told again: evidence in words, severities, and the same bits from the same ticks.

use proptest::prelude::*;
use schemas::Weight;
use schemas::judgement::{NodeTally, Tally, Tick, Verdict};

use super::kit::{judge, plan, second, tally};
use crate::judgement::evidence;
use crate::judgement::forecast::requests_still_needed;
use crate::judgement::judge::Judge;
use crate::judgement::observed::Observed;
use crate::judgement::plan::Plan;

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
