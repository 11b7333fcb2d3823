//! Canaries that are worse: how long each judge takes, and what that costs.

use ledger::judgement::evalue::{Against, Line, information};

use crate::goals::Goals;
use crate::run::{Case, Fell, JUDGES, Outcome, Pace, median};
use crate::stream::{Happens, Moment, USUAL, good, latency_ms, upper_edge};

const SEEDS: u64 = 21;

/// When a late bug shows, in seconds.
const LATE: f64 = 6.0 * 3_600.0;

fn failing(share: f64, baseline: f64, canary: f64) -> Moment {
    Moment { errors: (baseline, canary), ..good(0.0, share) }
}

/// The canary's share in a bake, with 5 % left to the control.
const BAKE: f64 = 0.95;

const CASES: [(&str, Happens); 6] = [
    ("errors 0.1 -> 0.2 %", |_, share| failing(share, USUAL, 0.002)),
    ("errors 0.1 -> 1 %", |_, share| failing(share, USUAL, 0.01)),
    ("errors 0.1 -> 10 %", |_, share| failing(share, USUAL, 0.1)),
    ("errors 0 -> 100 %", |_, share| failing(share, 0.0, 1.0)),
    ("tail x1.5", |_, share| Moment { slower: (1.0, 1.5), ..good(0.0, share) }),
    ("0.1 -> 1 % after 6 h", |seconds, share| failing(share, USUAL, if seconds < LATE { USUAL } else { 0.01 })),
];

/// Prints what it takes to take a bad canary back.
pub(crate) fn table(goals: &mut Goals) {
    println!("\n### Bad versions: medians until the rollback, of {SEEDS} runs of at most 24 hours\n");
    head();
    for (name, happens) in CASES {
        for rps in [10_000.0, 100.0, 1.0] {
            for share in [0.01, 0.1, 0.5] {
                one(goals, name, happens, rps, share);
            }
        }
    }
}

fn head() {
    println!(
        "| canary | requests/s | share | time | its requests | bad | of the bound | {} |",
        JUDGES[1..].join(" | ")
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
}

/// Prints a row, takes note of its goals, and returns when our judge took the canary back.
fn one(goals: &mut Goals, name: &str, happens: Happens, rps: f64, share: f64) -> Option<Fell> {
    let late = name.ends_with("after 6 h");
    let slow_is_bad = name.starts_with("tail");
    let onset = if late { LATE } else { 0.0 };
    let case = Case { rps, share, happens, onset, pace: Pace::Eager, slow_is_bad };
    let outcomes = case.runs(SEEDS);
    let ours = middle(&outcomes, 0);
    let bound = bound_requests(happens(LATE, share), slow_is_bad);
    let of_bound = ours.map(|fell| fell.requests as f64 / bound);
    let peers: Vec<String> =
        (1..JUDGES.len()).map(|judge| middle(&outcomes, judge).map_or("-".to_owned(), |fell| told(&fell))).collect();
    let (time, requests, bad) = match ours {
        Some(fell) => (duration(fell.seconds), fell.requests.to_string(), fell.bad.to_string()),
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
    };
    let of_bound_told = of_bound.map_or("-".to_owned(), |ratio| format!("{ratio:.1}"));
    println!(
        "| {name} | {rps} | {} % | {time} | {requests} | {bad} | {of_bound_told} | {} |",
        share * 100.0,
        peers.join(" | ")
    );
    let label = format!("{name}, {rps}/s, {} %", share * 100.0);
    let tick_requests = rps * share / 10.0;
    match ours {
        Some(_) if !late && bound >= 20.0 && bound >= tick_requests => {
            goals.at_most(&format!("3  of the bound: {label}"), of_bound.unwrap_or(f64::INFINITY), 2.5);
        }
        Some(fell) if !late => {
            let bad_a_request = happens(LATE, share).errors.1;
            goals.at_most(
                &format!("3  bad requests: {label}"),
                fell.bad as f64,
                12.0 + (bad_a_request * tick_requests).ceil(),
            );
        }
        _ => {}
    }
    if share == 0.1 && rps == 10_000.0 {
        let most = [("errors 0.1 -> 0.2 %", 300.0), ("errors 0.1 -> 1 %", 15.0), ("errors 0.1 -> 10 %", 12.0 + 10.0)];
        if let Some((_, most)) = most.iter().find(|(case, _)| *case == name) {
            goals.at_most(
                &format!("4  bad requests: {label}"),
                ours.map_or(f64::INFINITY, |fell| fell.bad as f64),
                *most,
            );
        }
        if name.ends_with("100 %") {
            goals.at_most(&format!("4  seconds: {label}"), ours.map_or(f64::INFINITY, |fell| fell.seconds), 0.1);
        }
    }
    ours
}

/// Returns how many requests of the canary the best of all tests would need on average.
fn bound_requests(moment: Moment, slow_is_bad: bool) -> f64 {
    let v = moment.share / (1.0 - moment.share);
    let (line, a, b) = if slow_is_bad {
        let edge = upper_edge(latency_ms(0.99));
        let above = |ms: f64, times: f64| 1.0 / (1.0 + (ms / (50.0 * times)).powf(2.47));
        (Line { r: 1.0, d: 0.0 }, above(edge, 1.0), above(edge * 1.01_f64.powi(19), moment.slower.1))
    } else {
        (Line { r: 1.2, d: 0.0003 }, moment.errors.0.max(1e-9), moment.errors.1.min(1.0 - 1e-9))
    };
    100.0_f64.ln() / information(line, a, b, v, Against::Tolerable)
}

/// The middle of what it took; `None` if fewer than half were found.
fn middle(outcomes: &[Outcome], judge: usize) -> Option<Fell> {
    let of = |pick: fn(&Fell) -> f64| {
        median(outcomes.iter().map(|outcome| outcome.fell[judge].as_ref().map_or(f64::INFINITY, pick)))
    };
    let seconds = of(|fell| fell.seconds).filter(|seconds| seconds.is_finite())?;
    Some(Fell { seconds, requests: of(|fell| fell.requests as f64)? as u64, bad: of(|fell| fell.bad as f64)? as u64 })
}

fn told(fell: &Fell) -> String {
    if fell.seconds == 0.0 {
        return "before it began".to_owned();
    }
    format!("{}, {} bad", duration(fell.seconds), fell.bad)
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// Returns the median seconds that a bug which shows after six hours lives, at 1,000 requests a second and a share of 10 %.
pub(crate) fn late_seconds() -> f64 {
    let (_, happens) = CASES[5];
    let case = Case { rps: 1_000.0, share: 0.1, happens, onset: LATE, pace: Pace::Eager, slow_is_bad: false };
    middle(&case.runs(SEEDS), 0).map_or(f64::INFINITY, |fell| fell.seconds)
}

/// Prints what it takes to take a canary back whose errors rise after six hours of a bake, and takes note of the goal.
pub(crate) fn late_in_a_bake(goals: &mut Goals) {
    println!("\n### Late in a bake: medians of {SEEDS} runs\n");
    head();
    let happens: Happens = |seconds, share| failing(share, USUAL, if seconds < LATE { USUAL } else { 0.05 });
    let ours = one(goals, "0.1 -> 5 % in a bake, after 6 h", happens, 1_000.0, BAKE);
    let seconds = ours.map_or(f64::INFINITY, |fell| fell.seconds);
    goals.at_most(
        "5  seconds after 6 good hours of a bake: 5 % errors, 1000/s, 50 of them to the control",
        seconds,
        30.0,
    );
}
