//! Known verdicts: the same as a slow, plain judge of one metric gives, at the same second, with the same evidence.

use schemas::judgement::{Tally, Verdict};

use crate::judgement::judge::Judge;
use crate::judgement::observed::Observed;
use crate::judgement::plan::{BaselineHistory, Kind, Metric, Plan};
use support::canary::{self, Canary};

fn judge_of(canary: &Canary, counts: &canary::Counts) -> Judge {
    let mut metric = Metric::named(if canary.is_latency { "p99" } else { "errors" });
    if let Kind::Latency { buckets, .. } = &mut metric.kind {
        *buckets = 5;
    }
    let (requests, hits) = counts.history;
    metric.weight = 1.0;
    metric.history = Some(BaselineHistory { requests, hits, beyond: 0 });
    metric.accept_ratio = Some(counts.accept_ratio);
    Judge::new(Plan { metrics: vec![metric], ..Plan::new(86_400.0) }).unwrap()
}

fn tick(nu: f64, baseline: (u64, u64), canary: (u64, u64)) -> Observed {
    let tally = |(requests, hits)| vec![Tally { requests, hits, beyond: 0 }];
    Observed::of_versions(1.0, nu, tally(baseline), tally(canary))
}

#[test]
fn every_known_canary_gets_its_verdict_at_its_second_with_its_evidence() {
    for canary in canary::all() {
        let counts = canary.counts();
        let mut judge = judge_of(&canary, &counts);
        let ticks = counts.rows.iter().map(|(baseline, canary_row)| tick(canary.nu(), *baseline, *canary_row));
        let fell_at = ticks.zip(1_u64..).find_map(|(tick, row)| {
            let verdict = judge.tick(&tick);
            (verdict != Verdict::Inconclusive).then_some((verdict, row))
        });
        let verdict = match canary.verdict.as_str() {
            "ROLLBACK" => Some(Verdict::Worse),
            "ACCEPT" => Some(Verdict::NotWorse),
            _ => None,
        };
        assert_eq!(fell_at, verdict.zip(canary.row), "{}", canary.name);
        let seen = judge.trials()[0].seen.canary;
        assert_eq!((seen.requests, seen.hits), canary.canary, "{}", canary.name);
        let off = (judge.ln_wealth() - canary.ln_total).abs();
        assert!(off < 2e-6, "{}: {} instead of {}", canary.name, judge.ln_wealth(), canary.ln_total);
    }
}
