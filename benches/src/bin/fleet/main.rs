//! What a fleet of 10, 300 and 10,000 deployments costs, a tenth of them rolling, on adapters that do at once what they are
//! asked: a change, a rollback, memory, a start.
//!
//! `cargo run --release -p benches --bin fleet [-- DEPLOYMENTS..]`. Its ledger is in memory. Linux alone tells a process's
//! memory so (`/proc/self/status`).

#![allow(clippy::print_stdout)] // its results

mod made;
mod outside;
mod turns;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::Error;
use jiff::Timestamp;
use ledger::execute::{Refusal, SystemClock};
use ledger::log::memory::MemoryLog;
use ledger::{Ledger, View};
use outside::Outside;
use schemas::command::{self, Command, PlanAsked, Request, StackWeight};
use schemas::{CommandId, Role, Weight};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use workers::runtime::{apply_now, run};

/// The sizes that are measured where none is named.
const SIZES: [usize; 3] = [10, 300, 10_000];

/// How often traffic is rolled back.
const ROLLBACKS: usize = 200;

/// For how long the workers' processor time is counted while nobody asks for anything.
const QUIET: Duration = Duration::from_secs(5);

/// The most that a change in the largest fleet may take, of what it takes in the smallest.
const CHANGE_RATIO_MAX: f64 = 2.0;

/// The most memory, in MB.
const MEMORY_MB_MAX: u64 = 1_024;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let asked: Vec<usize> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    println!(
        "| deployments | start | first turns | a change | of before | quiet, of a core | rollback p50 | p99 | memory |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut changes = Vec::new();
    for size in sizes {
        changes.push(measure(size).await?);
    }
    let ratio =
        changes.last().zip(changes.first()).map_or(1.0, |(last, first)| last.as_secs_f64() / first.as_secs_f64());
    let memory = memory_mb("VmHWM")?;
    println!("\na change: the largest to the smallest {ratio:.2} (at most {CHANGE_RATIO_MAX}); {memory} MB at most");
    match ratio <= CHANGE_RATIO_MAX && memory <= MEMORY_MB_MAX {
        true => Ok(()),
        false => Err("a bound was missed".into()),
    }
}

/// Measures a fleet, and returns what a change of it takes.
async fn measure(size: usize) -> Result<Duration, Error> {
    let log = Arc::new(MemoryLog::new());
    for record in made::records(size, Timestamp::now()) {
        log.push(record);
    }
    let began = Instant::now();
    let ledger = Ledger::open(log, View::default(), Arc::new(SystemClock)).await?;
    let start = began.elapsed();
    let (state, now) = (ledger.view().state().clone(), ledger.clock().now());
    let outside = Outside::of(&state);
    let turns = turns::measure(&state, &outside, now);
    drop(state);
    // What follows takes long in a large fleet.
    print!("| {size} | {start:.0?} | {:.1?} | {:.1?} | {:.1?} |", turns.first, turns.now, turns.before);
    std::io::stdout().flush()?;

    let stop = CancellationToken::new();
    let roles = [Role::Provisioner, Role::TrafficShifter, Role::Collector];
    let workers = roles.map(|role| {
        let (ledger, adapters, stop) = (ledger.clone(), outside.adapters(), stop.clone());
        tokio::spawn(run(role, "bench".to_owned(), ledger, adapters, stop))
    });
    // The workers see everything once.
    tokio::time::sleep(QUIET).await;
    let rolling = (size / 10).max(1);
    for n in 0..rolling {
        let (from, to) = (made::VERSIONS[1].parse()?, made::VERSIONS[0].parse()?);
        let (deployment, plan) = (made::deployment(n), PlanAsked::default());
        ask(&ledger, Command::Roll(command::Roll { deployment, from, to, plan, supersede: false, again: true }))
            .await?;
    }
    tokio::time::sleep(QUIET).await;
    let (began, used) = (Instant::now(), process_time());
    tokio::time::sleep(QUIET).await;
    let quiet = (process_time() - used).as_secs_f64() / began.elapsed().as_secs_f64();
    let mut took = rollbacks(&ledger, &outside, rolling..size).await?;
    took.sort();
    let memory = memory_mb("VmRSS")?;
    stop.cancel();
    for worker in workers {
        worker.await??;
    }
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(" {:.1} % | {:.2?} | {:.2?} | {memory} MB |", quiet * 100.0, at(50), at(99));
    Ok(turns.now)
}

/// Rolls the deployments of a range back in turn, and returns how long each took from the request to the router.
async fn rollbacks(ledger: &Ledger, outside: &Outside, of: std::ops::Range<usize>) -> Result<Vec<Duration>, Error> {
    let mut took = Vec::new();
    for n in of.cycle().take(ROLLBACKS) {
        let deployment = made::deployment(n);
        let began = Instant::now();
        ask(ledger, Command::Rollback(command::Rollback { deployment: deployment.clone(), unready: true })).await?;
        apply_now(ledger, outside, &deployment).await?;
        took.push(began.elapsed());
        let shares = vec![StackWeight { version: made::VERSIONS[1].parse()?, weight: Weight::FULL }];
        ask(ledger, Command::Traffic(command::Traffic { deployment, shares, supersede: true, again: true })).await?;
    }
    Ok(took)
}

/// Asks until there is an answer: on a busy machine the workers of a large fleet may leave the verdict too little time.
async fn ask(ledger: &Ledger, command: Command) -> Result<(), Error> {
    let (id, reason) = (CommandId(Uuid::now_v7()), Some("to measure it".to_owned()));
    let request = Request { id, command, fence: None, reason, effective_at: None };
    loop {
        match ledger.execute(request.clone(), made::actor(), None).await {
            Ok(_) => return Ok(()),
            Err(Refusal::Indeterminate { why, .. }) => eprintln!("asked again: {why}"),
            Err(error) => return Err(error.into()),
        }
    }
}

fn memory_mb(name: &str) -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such line")?;
    let kb: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kb / 1_024)
}

fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).expect("not negative"), u32::try_from(time.tv_nsec).expect("short"))
}
