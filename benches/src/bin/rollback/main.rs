//! Rollback from command to applied weight, under load, beside what the disk or Kafka costs in the same run.
//!
//! `cargo run --release -p benches --bin rollback [-- [kafka] [ROLLBACKS [FOLDER]]]`, with `ionledger` built in the same
//! profile. It runs the real `ionledger up` on a folder of its own below FOLDER (the temporary folder), which must be on a
//! disk; with `kafka` its ledger lies in a real Kafka of three brokers on loopback.
//! Timed is what a caller waits for: from connecting until the answer says that the router confirmed the weights.
//! Ends with 1 if the bound is missed, a request is lost, or a rollback did not do what its answer says.

#![allow(clippy::print_stdout)] // its results

mod append;
mod up;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use append::Append;
use benches::users::{Seen, Users};
use benches::{Error, exit_code, verdict};
use hdrhistogram::Histogram;
use support::cluster::Cluster;
use up::{NEW, OLD, Up};

/// How many rollbacks are measured; the bound is on the 99th percentile of 500 or more.
const ROLLBACKS: u64 = 600;

/// How long that may take.
const TIME_MAX: Duration = Duration::from_secs(100);

/// What users send, in requests per second.
const REQUESTS_PER_SECOND: u32 = 1_000;

/// What a rollback may take beside two bare appends to a disk. Source: the bench's bound.
const BESIDE_SYNCS: Duration = Duration::from_millis(20);

/// What it may take beside one bare append to Kafka. Source: the bench's bound.
const BESIDE_KAFKA: Duration = Duration::from_millis(50);

/// The length of what is appended bare, in bytes: about a rollback's commit.
const COMMIT_BYTES: usize = 1_200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit_code(run().await)
}

async fn run() -> Result<bool, Error> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let in_kafka = words.first().is_some_and(|word| word == "kafka");
    words.drain(..usize::from(in_kafka));
    let (rollbacks, folder) = match &words[..] {
        [] => (ROLLBACKS, std::env::temp_dir()),
        [rollbacks] => (rollbacks.parse()?, std::env::temp_dir()),
        [rollbacks, folder] => (rollbacks.parse()?, folder.into()),
        _ => return Err("usage: rollback [kafka] [ROLLBACKS [FOLDER]]".into()),
    };
    on_disk(&folder)?;
    if cfg!(debug_assertions) {
        eprintln!("note: not a release build; its figures say little");
    }
    let folder = tempfile::tempdir_in(folder)?;
    let cluster = in_kafka.then(|| Cluster::start(3));
    let place = cluster.as_ref().map(|cluster| cluster.place("rollback"));
    let mut up = Up::start(folder.path(), place.as_deref()).await?;
    let mut bare = match &cluster {
        Some(cluster) => Append::to_kafka(cluster).await?,
        None => Append::to_disk(folder.path())?,
    };
    let users = Users::start(vec![up.address()], REQUESTS_PER_SECOND)?;
    let measured = measure(&mut up, &mut bare, rollbacks).await;
    let seen = users.stop();
    up.stop()?;
    report(&bare, &measured?, &seen?)
}

/// Refuses a folder in memory, where a sync costs nothing.
fn on_disk(folder: &Path) -> Result<(), Error> {
    const TMPFS: i64 = 0x0102_1994;
    #[allow(clippy::unnecessary_cast)] // its type differs from machine to machine
    if rustix::fs::statfs(folder)?.f_type as i64 == TMPFS {
        return Err(format!("{} is in memory; name a folder on a disk: `rollback 600 FOLDER`", folder.display()).into());
    }
    Ok(())
}

/// Times, in microseconds.
struct Measured {
    rollbacks: Histogram<u64>,
    appends: Histogram<u64>,
}

/// Moves all traffic to the new version and rolls back, again and again; each time a bare append is measured in between,
/// when the ledger is at rest.
async fn measure(up: &mut Up, bare: &mut Append, rollbacks: u64) -> Result<Measured, Error> {
    let mut measured = Measured { rollbacks: Histogram::new(3)?, appends: Histogram::new(3)? };
    let started = Instant::now();
    for done in 0..rollbacks {
        if started.elapsed() > TIME_MAX {
            return Err(format!("only {done} of {rollbacks} rollbacks in {} s", TIME_MAX.as_secs()).into());
        }
        up.traffic(NEW).await?;
        up.check(NEW).await?;

        let begun = Instant::now();
        bare.append(&[b'x'; COMMIT_BYTES]).await?;
        measured.appends.record(micros(begun.elapsed()))?;

        let begun = Instant::now();
        up.rollback().await?;
        measured.rollbacks.record(micros(begun.elapsed()))?;
        up.check(OLD).await?;
    }
    Ok(measured)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Prints the results and says whether they are within the bound.
fn report(bare: &Append, measured: &Measured, seen: &Seen) -> Result<bool, Error> {
    println!("| {} times each | p50, ms | p99, ms | longest, ms |", measured.rollbacks.len());
    println!("| --- | --- | --- | --- |");
    row("rollback, from command to applied", &measured.rollbacks);
    row(bare.name(), &measured.appends);
    row("a user's request meanwhile", &seen.latencies);
    let (sent, lost, rate) = (seen.sent, seen.lost, seen.sent as f64 / seen.time.as_secs_f64());
    println!("\nusers sent {sent} requests, {rate:.0} a second; {lost} were lost");
    if let Some(first) = &seen.first_loss {
        println!("the first that was lost: {first}");
    }
    let p99 = measured.rollbacks.value_at_quantile(0.99);
    let append = measured.appends.value_at_quantile(0.99);
    let (bound, words) = match bare {
        Append::Disk(_) => (micros(BESIDE_SYNCS) + 2 * append, "20 ms + 2 appends' p99"),
        Append::Kafka(_) => (micros(BESIDE_KAFKA) + append, "50 ms + an append's p99"),
    };
    let (p99_ms, bound_ms) = (p99 as f64 / 1e3, bound as f64 / 1e3);
    let within = p99 <= bound;
    println!("p99 {p99_ms:.2} ms, bound {words} = {bound_ms:.2} ms: {}", verdict(within));
    let loaded = rate >= 0.98 * f64::from(REQUESTS_PER_SECOND);
    if !loaded {
        println!("the load was not what it should be: run it again on a quieter machine");
    }
    if measured.rollbacks.len() < 500 {
        println!("note: the bound is on 500 rollbacks or more");
    }
    Ok(within && lost == 0 && loaded)
}

fn row(what: &str, times: &Histogram<u64>) {
    let ms = |micros: u64| micros as f64 / 1e3;
    let (p50, p99, max) = (times.value_at_quantile(0.5), times.value_at_quantile(0.99), times.max());
    println!("| {what} | {:.2} | {:.2} | {:.2} |", ms(p50), ms(p99), ms(max));
}
