//! The goals that no table shows: acceptance, known streams, a hung canary, one bad node, replay, and speed.

use std::hint::black_box;
use std::time::Instant;

use ledger::judgement::evalue::Line;
use ledger::judgement::forecast::requests_to_accept;
use ledger::judgement::judge::Judge;
use ledger::judgement::latency::{Buckets, InFlight, NodeLatencies, Side};
use ledger::judgement::observed::Observed;
use ledger::judgement::plan::{BaselineHistory, Metric, Plan};
use schemas::Weight;
use schemas::judgement::{NodeTally, Tally, Tick, Verdict};

use crate::dice::Dice;
use crate::goals::{Goals, allowed};
use crate::run::{in_parallel, median};
use crate::stream::{DAY, USUAL, latency_ms, upper_edge};

const ERRORS: Line = Line { r: 1.2, d: 0.0003 };

pub(crate) fn all(goals: &mut Goals) {
    acceptance(goals);
    known_streams(goals);
    hung(goals);
    one_bad_node(goals);
    nothing(goals);
    replay_and_speed(goals);
}

/// A judge of one metric, whose hits are at a rate of `a` in 6,000 requests before.
fn of_one(name: &str, hits: u64, accept_ratio: Option<f64>) -> Judge {
    let mut metric = Metric::named(name);
    metric.weight = 1.0;
    metric.accept_ratio = accept_ratio;
    metric.history = Some(BaselineHistory { requests: 6_000, hits, beyond: hits });
    Judge::new(Plan { metrics: vec![metric], ..Plan::new(DAY) }).expect("a valid plan")
}

fn tick(seconds: f64, baseline: (u64, u64), canary: (u64, u64)) -> Observed {
    let tally = |(requests, hits)| vec![Tally { requests, hits, beyond: hits }];
    Observed::of_versions(seconds, canary.0 as f64 / baseline.0 as f64, tally(baseline), tally(canary))
}

/// The requests of the canary until there is a verdict, on errors alone; `requests` are those of a tick.
fn until(seed: u64, requests: (u64, u64), rates: (f64, f64), seconds: u64, ticks: u64) -> (Verdict, u64) {
    let mut dice = Dice::new(seed);
    let mut judge = of_one("errors", dice.binomial(6_000, rates.0), None);
    for number in 1..=ticks {
        let (x_a, x_b) = (dice.binomial(requests.0, rates.0), dice.binomial(requests.1, rates.1));
        let verdict = judge.tick(&tick(seconds as f64, (requests.0, x_a), (requests.1, x_b)));
        if verdict != Verdict::Inconclusive {
            return (verdict, number * requests.1);
        }
    }
    (judge.verdict(), ticks * requests.1)
}

fn acceptance(goals: &mut Goals) {
    for (share, requests) in [(0.01, (990, 10)), (0.1, (900, 100)), (0.5, (500, 500))] {
        let runs = in_parallel(100, |seed| until(seed as u64 + 1, requests, (USUAL, USUAL), 1, 40_000));
        let needed = median(
            runs.iter().map(|(verdict, n)| if *verdict == Verdict::NotWorse { *n as f64 } else { f64::INFINITY }),
        );
        let bound = requests_to_accept(&Plan::new(DAY), ERRORS, USUAL, 1.0, share / (1.0 - share)).unwrap_or(f64::NAN);
        let what = format!("2  requests to accept an equal canary, {} % share, of the bound {bound:.0}", share * 100.0);
        goals.at_most(&what, needed.unwrap_or(f64::INFINITY) / bound, 2.0);
    }
    // The line itself is where both bounds are tightest.
    for (runs, often, seconds) in [(200, "every second", 1), (2_000, "every ten seconds", 10)] {
        let requests = (900 * seconds, 100 * seconds);
        let rates = (USUAL, ERRORS.at(USUAL));
        let day = in_parallel(runs, |seed| until(seed as u64 + 1, requests, rates, seconds, DAY as u64 / seconds).0);
        let count = |wanted| day.iter().filter(|verdict| **verdict == wanted).count() as f64;
        let what = format!("of {runs} at the line of errors alone, looked at {often}");
        goals.at_most(&format!("1  false rollbacks {what} (1 %)"), count(Verdict::Worse), allowed(runs, 0.01));
        goals.at_most(&format!("2  false promotions {what} (5 %)"), count(Verdict::NotWorse), allowed(runs, 0.05));
    }
}

/// The acceptance fixtures F2, F3 and F10 over 200 seeds: one metric, all capital on it, every second.
fn known_streams(goals: &mut Goals) {
    let edge = upper_edge(latency_ms(0.99));
    let above = |ms: f64, times: f64| 1.0 / (1.0 + (ms / (50.0 * times)).powf(2.47));
    let (a, b) = (above(edge, 1.0), above(edge * 1.01_f64.powi(5), 1.5));
    let cases = [
        ("F2", "errors", ERRORS, (900, 100), (USUAL, 0.002)),
        ("F3", "errors", ERRORS, (900, 100), (USUAL, 0.01)),
        ("F10", "p99", Line { r: 1.0, d: 0.0 }, (450, 50), (a, b)),
    ];
    for (name, metric, line, requests, (a, b)) in cases {
        let runs = in_parallel(200, |seed| {
            let mut dice = Dice::new(seed as u64 + 1);
            let mut judge = of_one(metric, dice.binomial(6_000, a), Some(0.9));
            let fell = (1..=20_000_u64).find(|_| {
                let (x_a, x_b) = (dice.binomial(requests.0, a), dice.binomial(requests.1, b));
                judge.tick(&tick(1.0, (requests.0, x_a), (requests.1, x_b))) == Verdict::Worse
            });
            fell.map_or(f64::INFINITY, |seconds| (seconds * requests.1) as f64)
        });
        use ledger::judgement::evalue::{Against, information};
        let bound = 100.0_f64.ln() / information(line, a, b, requests.1 as f64 / requests.0 as f64, Against::Tolerable);
        goals.at_most(
            &format!("3  of the bound {bound:.0}: {name}, 200 seeds"),
            median(runs).unwrap_or(f64::INFINITY) / bound,
            2.5,
        );
    }
}

/// A canary that answers nothing: 90 and 10 requests a second, looked at every tenth of one.
fn hung(goals: &mut Goals) {
    let bucket = |ms: f64| (ms.ln() / 1.01_f64.ln()).ceil() as i32;
    let edge = bucket(latency_ms(0.99));
    let plan = Plan::new(DAY);
    let mut with_history = plan.clone();
    for metric in &mut with_history.metrics {
        let hits = match metric.name.as_str() {
            "p50" => 30_000,
            "p99" => 600,
            _ => 60,
        };
        metric.history = Some(BaselineHistory { requests: 60_000, hits, beyond: hits * 6 / 10 });
    }
    let mut judge = Judge::new(with_history).expect("a valid plan");
    let mut in_flight = vec![InFlight::default(); plan.metrics.len()];
    let edges = [None, Some(bucket(latency_ms(0.5))), Some(edge)];
    let mut dice = Dice::new(1);
    let fell = (1..=100_i32).find(|tenth| {
        let ages: Buckets = (0..*tenth).map(|i| (bucket(f64::from(i) * 100.0 + 50.0), 1)).collect();
        let seen = NodeLatencies { ended: Buckets::new(), failed: 0, in_flight: ages };
        let canary = plan.metrics.iter().zip(&mut in_flight).zip(edges);
        let canary = canary
            .map(|((metric, own), edge)| own.count(metric, Side::Canary, edge, bucket(30_000.0), &seen))
            .collect();
        let tally = |hits| Tally { requests: 9, hits, beyond: 0 };
        let baseline = vec![tally(0), tally(dice.binomial(9, 0.5)), tally(dice.binomial(9, 0.01))];
        judge.tick(&Observed::of_versions(0.1, 1.0 / 9.0, baseline, canary)) == Verdict::Worse
    });
    let line_seconds = 1.01_f64.powi(edge + 19) / 1_000.0;
    let what = format!("5  seconds until a hung canary is taken back (its line is {line_seconds:.2} s)");
    goals.at_most(&what, fell.map_or(f64::INFINITY, |tenths| f64::from(tenths) / 10.0), line_seconds + 1.0);
    let onset = crate::regressions::late_seconds();
    goals.at_most("5  seconds after 6 good hours: 1 % errors, 1000/s, 10 %", onset, 30.0);
}

fn nodes(dice: &mut Dice, bad: f64, all: f64) -> Observed {
    let mut node = |node: u32, requests, rate| {
        let hits = dice.binomial(requests, rate);
        NodeTally { node, age_ms: u64::MAX, counts: vec![Tally { requests, hits, beyond: hits }] }
    };
    let baseline = (0..10).map(|i| node(i, 90, USUAL)).collect();
    let canary = (0..10).map(|i| node(i, 10, if i == 3 { bad } else { all })).collect();
    Observed { seconds: 1.0, nu: 1.0 / 9.0, baseline, canary }
}

fn one_bad_node(goals: &mut Goals) {
    let runs = in_parallel(100, |seed| {
        let (mut dice, mut judge) = (Dice::new(seed as u64 + 1), of_one("errors", 6, None));
        let mut named = f64::INFINITY;
        for second in 1..=3_600 {
            judge.tick(&nodes(&mut dice, 0.3, USUAL));
            if judge.bad_node().is_some() && named.is_infinite() {
                named = f64::from(second);
            }
        }
        (named, judge.bad_node() == Some(3), judge.verdict() == Verdict::Worse)
    });
    goals.at_most(
        "5  rollbacks of 100 for one bad node of ten in an hour",
        runs.iter().filter(|run| run.2).count() as f64,
        0.0,
    );
    goals.at_most("5  of those, not named or wrongly", runs.iter().filter(|run| !run.1).count() as f64, 0.0);
    goals.at_most("5  seconds until it is named", median(runs.iter().map(|run| run.0)).unwrap_or(f64::INFINITY), 10.0);
    let runs = in_parallel(100, |seed| {
        let (mut dice, mut judge) = (Dice::new(seed as u64 + 1), of_one("errors", 6, None));
        (1..=3_600)
            .find(|_| judge.tick(&nodes(&mut dice, 0.031, 0.031)) == Verdict::Worse)
            .map_or(f64::INFINITY, f64::from)
    });
    goals.at_most("5  seconds when all ten are at 3.1 %", median(runs).unwrap_or(f64::INFINITY), 10.0);
}

fn nothing(goals: &mut Goals) {
    let mut judge = of_one("errors", 6, None);
    let silent = (0..86_400).all(|_| judge.tick(&tick(1.0, (10, 0), (0, 0))) == Verdict::Inconclusive);
    goals.holds("1  a day without a request of the canary says nothing of it", silent);
}

/// A day's ticks of three metrics with ten nodes each, told again from their bytes.
fn replay_and_speed(goals: &mut Goals) {
    let mut dice = Dice::new(9);
    let mut node = |node: u32, requests: u64, bad: f64| {
        let mut tally = |rate: f64, beyond: f64| {
            let hits = dice.binomial(requests, rate);
            Tally { requests, hits, beyond: dice.binomial(hits, beyond) }
        };
        NodeTally { node, age_ms: 600_000, counts: vec![tally(USUAL + bad, 0.0), tally(0.5, 0.8), tally(0.01, 0.7)] }
    };
    let mut ticks = |bad: f64, count: usize| -> Vec<Tick> {
        let tick = |_| Tick {
            ms: 1_000,
            share: Weight::from_percent(10),
            edges: vec![None, Some(394), Some(581)],
            baseline: (0..10).map(|i| node(i, 90, 0.0)).collect(),
            canary: (10..20).map(|i| node(i, 10, bad)).collect(),
        };
        (0..count).map(tick).collect()
    };
    let mut recorded = ticks(0.0, 20_000);
    recorded.extend(ticks(0.01, 1_000));
    let mut plan = Plan { burst_cap: true, ..Plan::new(DAY) };
    for (metric, hits) in plan.metrics.iter_mut().zip([60, 30_000, 600]) {
        metric.history = Some(BaselineHistory { requests: 60_000, hits, beyond: hits / 2 });
    }
    let bytes = serde_json::to_vec(&(&plan, &recorded)).expect("JSON");
    let (plan_again, again): (Plan, Vec<Tick>) = serde_json::from_slice(&bytes).expect("JSON");
    let fold = |plan: &Plan, ticks: &[Tick]| {
        let mut judge = Judge::new(plan.clone()).expect("a valid plan");
        let fell = ticks.iter().position(|tick| judge.tick(&tick.into()) == Verdict::Worse);
        (fell, judge)
    };
    let (fell, judge) = fold(&plan, &recorded);
    let (fell_again, judge_again) = fold(&plan_again, &again);
    let same = fell == fell_again && format!("{judge:?}") == format!("{judge_again:?}");
    goals.holds("6  the recorded ticks judged again: the same bits", same);
    goals.holds("6  and they end in a rollback", fell.is_some());
    for (what, ticks) in [
        ("6  microseconds a tick: 3 metrics, 10 nodes a version, burst cap", of_nodes(&recorded[..20_000])),
        ("6  microseconds a tick: 3 metrics, versions as a whole", of_versions(&recorded[..20_000])),
    ] {
        let rounds = (0..5).map(|_| {
            let mut judge = Judge::new(plan.clone()).expect("a valid plan");
            let started = Instant::now();
            ticks.iter().for_each(|tick| {
                black_box(judge.tick(tick));
            });
            started.elapsed().as_secs_f64() * 1e6 / ticks.len() as f64
        });
        goals.at_most(what, median(rounds).unwrap_or(f64::INFINITY), 50.0);
    }
}

fn of_nodes(ticks: &[Tick]) -> Vec<Observed> {
    ticks.iter().map(Observed::from).collect()
}

fn of_versions(ticks: &[Tick]) -> Vec<Observed> {
    let whole = |nodes: &[NodeTally]| {
        let mut counts = vec![Tally::default(); 3];
        for node in nodes {
            for (sum, tally) in counts.iter_mut().zip(&node.counts) {
                sum.requests += tally.requests;
                sum.hits += tally.hits;
                sum.beyond += tally.beyond;
            }
        }
        counts
    };
    let one = |tick: &Tick| Observed::of_versions(1.0, 1.0 / 9.0, whole(&tick.baseline), whole(&tick.canary));
    ticks.iter().map(one).collect()
}
