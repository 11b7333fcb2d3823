//! Canaries that are good, or as bad as is tolerated: whoever takes one of them back was wrong.

use ledger::judgement::judge::Judge;
use ledger::judgement::plan::{BaselineHistory, Metric, Plan};
use schemas::judgement::Verdict;

use crate::goals::{Goals, allowed};
use crate::peers::{Flagger, Kayenta, Minute, Peer, ZTest};
use crate::run::{Case, JUDGES, Pace, in_parallel};
use crate::stream::{DAY, Happens, Hiccups, Moment, USUAL, good};

/// Both versions as they are on the line: 1.2 times the errors and 0.03 % more, 10 buckets in the middle, 19 in the tail.
fn at_the_line(_: f64, share: f64) -> Moment {
    let slower = (1.01_f64.powi(10), 1.01_f64.powi(19));
    Moment { errors: (USUAL, 1.2 * USUAL + 0.0003), slower, ..good(0.0, share) }
}

fn within_it(_: f64, share: f64) -> Moment {
    Moment { errors: (USUAL, 1.2 * USUAL), slower: (1.05, 1.1), ..good(0.0, share) }
}

/// Errors and latencies of both go up and down over the day while the canary's share rises.
fn drift_with_a_ramp(seconds: f64, share: f64) -> Moment {
    let tide = 0.5 - 0.5 * (std::f64::consts::TAU * seconds / DAY).cos();
    let errors = USUAL * (1.0 + 3.0 * tide);
    let share = share * (((seconds / DAY * 10.0).floor() + 1.0) / 10.0).min(1.0);
    Moment { share, errors: (errors, errors), slow: 1.0 + 0.3 * tide, slower: (1.0, 1.0) }
}

/// For ten minutes, twice, both fail and are slow.
fn shared_outage(seconds: f64, share: f64) -> Moment {
    let out = [6.0, 18.0].iter().any(|hour| (hour * 3_600.0..hour * 3_600.0 + 600.0).contains(&seconds));
    if out { Moment { errors: (0.3, 0.3), slow: 3.0, ..good(0.0, share) } } else { good(seconds, share) }
}

const CASES: [(&str, Happens); 5] = [
    ("equal", good),
    ("exactly at the line", at_the_line),
    ("inside the tolerance", within_it),
    ("drift with a ramp", drift_with_a_ramp),
    ("shared outage", shared_outage),
];

/// Prints how often each judge took a good canary back within a day.
pub(crate) fn table(goals: &mut Goals) {
    println!("\n### Good versions rolled back within 24 hours\n");
    println!("| canary | runs | {} |", JUDGES.join(" | "));
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, happens) in CASES {
        let (mut runs, mut fell) = (0, [0; 4]);
        for rps in [10_000.0, 100.0, 1.0] {
            for share in [0.01, 0.1, 0.5] {
                let main = rps == 10_000.0 && share == 0.1;
                let case = Case { rps, share, happens, onset: 0.0, pace: Pace::Steady, slow_is_bad: false };
                let outcomes = case.runs(if main { 200 } else { 10 });
                runs += outcomes.len();
                for outcome in &outcomes {
                    fell.iter_mut().zip(outcome.fell).for_each(|(count, fell)| *count += usize::from(fell.is_some()));
                }
                if main && name == "exactly at the line" {
                    let wrong = outcomes.iter().filter(|outcome| outcome.fell[0].is_some()).count();
                    let promoted = outcomes.iter().filter(|outcome| outcome.accepted_after.is_some()).count();
                    goals.at_most(
                        "1  false rollbacks of 200 at every metric's line (1 %)",
                        wrong as f64,
                        allowed(200, 0.01),
                    );
                    goals.at_most(
                        "2  false promotions of 200 at every metric's line (5 %)",
                        promoted as f64,
                        allowed(200, 0.05),
                    );
                }
            }
        }
        row(name, runs, fell);
        goals.at_most(&format!("1  false rollbacks of {runs}: {name} (1 %)"), fell[0] as f64, allowed(runs, 0.01));
    }
    hiccups(goals);
}

fn row(name: &str, runs: usize, fell: [usize; 4]) {
    let share =
        |count: usize| if count == 0 { "0".to_owned() } else { format!("{:.1} %", 100.0 * count as f64 / runs as f64) };
    println!("| {name} | {runs} | {} |", fell.map(share).join(" | "));
}

/// A judge of errors alone, under the burst cap.
fn capped() -> Judge {
    let mut metric = Metric::named("errors");
    metric.weight = 1.0;
    metric.history = Some(BaselineHistory { requests: 1_000_000, hits: 1_300, beyond: 1_300 });
    Judge::new(Plan { burst_cap: true, metrics: vec![metric], ..Plan::new(DAY) }).expect("a valid plan")
}

fn hiccups(goals: &mut Goals) {
    let days = in_parallel(20, |seed| {
        let mut hiccups = Hiccups::new(seed as u64 + 1, if seed % 2 == 0 { 10_000 } else { 1_000 });
        let mut judge = capped();
        let mut peers: [Box<dyn Peer>; 3] =
            [Box::<Flagger>::default(), Box::<Kayenta>::default(), Box::<ZTest>::default()];
        let (mut fell, mut requests, mut errors) = ([false; 4], (0, 0), (0, 0));
        for second in 1..=DAY as u64 {
            let tick = hiccups.second(USUAL);
            let sum = |nodes: &[schemas::judgement::NodeTally]| {
                nodes.iter().fold((0, 0), |(n, x), node| (n + node.counts[0].requests, x + node.counts[0].hits))
            };
            let (a, b) = (sum(&tick.baseline), sum(&tick.canary));
            (requests, errors) = ((requests.0 + a.0, requests.1 + b.0), (errors.0 + a.1, errors.1 + b.1));
            fell[0] |= !fell[0] && judge.tick(&tick) == Verdict::Worse;
            if second.is_multiple_of(60) {
                let minute = Minute::of_errors(std::mem::take(&mut requests), std::mem::take(&mut errors));
                peers.iter_mut().zip(&mut fell[1..]).for_each(|(peer, fell)| *fell = *fell || peer.minute(&minute));
            }
        }
        fell
    });
    let mut fell = [0; 4];
    days.iter().for_each(|day| fell.iter_mut().zip(day).for_each(|(count, fell)| *count += usize::from(*fell)));
    row("hiccups of single nodes (errors alone)", days.len(), fell);
    goals.at_most("1  false rollbacks of 20: hiccups of single nodes", fell[0] as f64, 1.0);
    for (failing, most) in [(0.002, 300.0), (0.01, 5.0)] {
        let seconds = in_parallel(20, |seed| {
            let (mut hiccups, mut judge) = (Hiccups::new(seed as u64 + 100, 10_000), capped());
            (1..=3_600)
                .find(|_| judge.tick(&hiccups.second(failing)) == Verdict::Worse)
                .map_or(f64::INFINITY, f64::from)
        });
        let median = crate::run::median(seconds).unwrap_or(f64::INFINITY);
        goals.at_most(&format!("1  seconds to find {} % of errors among hiccups", failing * 100.0), median, most);
    }
}
