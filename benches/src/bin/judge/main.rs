//! The judge beside other tools' rules, on the same seeded streams of requests: good versions that are taken back, and
//! what a bad one costs until it is. `cargo run --release -p benches --bin judge [-- PART]`.
//!
//! A tick's counts are drawn as counts (binomial), not request by request, so that a day at 10,000 requests a second
//! takes a fraction of a second. The p99s that the peers look at are drawn from their own distribution. Ends with 1 if
//! a goal is missed.

#![allow(clippy::print_stdout)] // its results

mod cases;
mod dice;
mod goals;
mod nulls;
mod peers;
mod regressions;
mod run;
mod stream;

use std::process::ExitCode;
use std::time::Instant;

/// What prints its results and takes note of its goals.
type Part = fn(&mut goals::Goals);

const PARTS: [(&str, Part); 4] = [
    ("good versions", nulls::table),
    ("bad versions", regressions::table),
    ("late in a bake", regressions::late_in_a_bake),
    ("the other goals", cases::all),
];

fn main() -> ExitCode {
    let started = Instant::now();
    let mut goals = goals::Goals::default();
    let wanted = std::env::args().nth(1);
    for (part, run) in
        PARTS.into_iter().filter(|(part, _)| wanted.as_deref().is_none_or(|wanted| part.starts_with(wanted)))
    {
        let begun = Instant::now();
        run(&mut goals);
        eprintln!("{part}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    let met = goals.print();
    println!("\ntook {:.0} s", started.elapsed().as_secs_f64());
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
