//! The simulation: one seed drives workers, people, the log and a cloud that lies, through crashes between any two
//! effects. What must hold is checked after every step; then everything is healed and must come right.
//!
//! `SIM_SEEDS=n` sets how many seeds are run and `SIM_FROM=n` the first, `SIM_SEED=n` runs one and prints its trace if it
//! fails (always with `SIM_TRACE=1`).
//!
//! What it cannot prove: real disks, real clouds, the proxy's own code, and async code around the pure centre.

#![allow(clippy::print_stdout)] // a test says what it did

mod reference_model;
mod broken;
mod calls;
mod checks;
mod clocks;
mod cloud;
mod dice;
mod forward;
mod break_glass;
mod network;
mod past;
mod people;
mod probes;
mod process;
mod rules;
mod run;
mod tally;
mod trace;
mod trouble;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rules::REAL;
use run::{Outcome, run};
use tally::Tally;

/// How many processors CI has.
const THREADS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Every seed that ever failed.
fn regressions() -> impl Iterator<Item = u64> {
    let lines = include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

/// Every so many seeds one is run twice, and must do the same again.
const TWICE_EVERY: u64 = 8;

/// Runs a seed, some of them twice, and returns what it counted, or what is wrong.
fn check(seed: u64) -> Result<Tally, String> {
    let line = format!("SIM_SEED={seed} cargo test --workspace --test simulation");
    let Outcome { hash, tally, broken } = run(seed, REAL);
    if let Some(broken) = broken {
        return Err(format!("invariant {}: {}\nreplay it: {line}", broken.invariant, broken.what));
    }
    if seed.is_multiple_of(TWICE_EVERY) && run(seed, REAL).hash != hash {
        return Err(format!("two runs of seed {seed} differ\nreplay it: {line}"));
    }
    let enough = tally.commits >= 200 && tally.crashes >= 20 && tally.rollouts >= 3 && tally.rollbacks >= 1;
    if enough { Ok(tally) } else { Err(format!("seed {seed} has too little in it: {tally:?}\nreplay it: {line}")) }
}

#[test]
fn whatever_goes_wrong_the_invariants_hold_and_all_comes_right() {
    if let Some(seed) = number("SIM_SEED") {
        let (outcome, trace) = run::traced(seed, REAL);
        if outcome.broken.is_some() || std::env::var_os("SIM_TRACE").is_some() {
            println!("{trace}");
        }
        let tally = check(seed).unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{}", tally.summary());
        return;
    }
    let default = if std::env::var_os("CI").is_some() { 2_000 } else { 200 };
    let n = number("SIM_SEEDS").unwrap_or(default);
    let from = number("SIM_FROM").unwrap_or(0);
    let seeds: Vec<u64> = regressions().chain(from..from + n).collect();
    let (next, sum, wrong) = (AtomicU64::new(0), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match check(*seed) {
                        Ok(tally) => sum.lock().unwrap().add(&tally),
                        Err(why) => {
                            println!("seed {seed}: {why}");
                            wrong.lock().unwrap().push(why);
                        }
                    }
                }
            });
        }
    });
    let (sum, wrong) = (sum.into_inner().unwrap(), wrong.into_inner().unwrap());
    let (table, empty) = sum.table();
    println!("{} seeds, {} wrong\n{}\n\n{table}", seeds.len(), wrong.len(), sum.summary());
    assert!(wrong.is_empty(), "{} of {} seeds; the first is {}", wrong.len(), seeds.len(), wrong[0]);
    assert!(n < 200 || empty.is_empty(), "never killed at {empty:?}");
    assert!(n < 20 || sum.late_steps > 0, "no step was ever late");
    assert!(n < 60 || sum.bakes > 0, "no bake came to its end");
    assert!(n < 200 || sum.asked_about_past > 0, "nothing was asked about an outage");
}
