//! Replay of a million events from disk: read, checksum, hash, rule, tree and fold; and what the projection saves.
//!
//! `cargo run --release -p benches --bin replay [-- EVENTS SERVICES ROUNDS [FOLDER]]`. The history is made up by the ledger's
//! own rules from a seed (releases, stacks, nodes, weights, rollouts, rollbacks, collections, and records that do not
//! count) and lies in segment files. It is read from the page cache: this measures the processor, not the disk. In a FOLDER
//! the history stays, and one that is there is read, so that two builds can be measured on the same.

#![allow(clippy::print_stdout)] // its results

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::{Error, processor_time};
use futures::future::join_all;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions, SegmentsReader};
use ledger::log::{Log, Urgency};
use ledger::view::Decoded;
use replay::{Moment, Projection, Reader};
use schemas::Offset;
use support::busy::Busy;

/// The one that `ionledger` has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The most that an event may take: 3 s for a million.
const EVENT_AT_MOST: Duration = Duration::from_micros(3);

/// How many commits are under way at once while the history is written.
const TOGETHER: usize = 512;

const USAGE: &str = "usage: replay [EVENTS SERVICES ROUNDS [FOLDER]]";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let numbers = std::env::args().skip(1).take(3).map(|word| word.parse::<usize>()).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.map_err(|_| USAGE)?;
    let [events, services, rounds] = match numbers[..] {
        [] => [1_000_000, 300, 5],
        [events] => [events, 300, 5],
        [events, services, rounds] => [events, services, rounds],
        _ => return Err(USAGE.into()),
    };
    let made = tempfile::tempdir()?;
    let data = std::env::args().nth(4).map_or_else(|| made.path().to_owned(), PathBuf::from);
    let whole = data.join("root");
    let root = match std::fs::read_to_string(&whole) {
        Ok(root) => root,
        Err(_) if data.join("log").exists() => {
            return Err(format!("{} holds no whole history of this bench; name another folder", data.display()).into());
        }
        Err(_) => {
            let root = write_history(&data, events, services).await?;
            std::fs::write(&whole, &root)?;
            root
        }
    };
    let took = full_folds(&data, rounds, &root).await?;
    through_the_projection(&data, rounds).await?;
    let at_most = EVENT_AT_MOST * u32::try_from(events)?;
    if took > at_most {
        return Err(format!("the median is {took:.2?}, more than {at_most:.2?}").into());
    }
    Ok(())
}

/// Writes a history and returns its root.
async fn write_history(data: &Path, events: usize, services: usize) -> Result<String, Error> {
    let started = Instant::now();
    let log = Segments::open(DataFolder::hold(data)?, SegmentsOptions::default())?;
    let mut busy = Busy::new(1, services);
    let (mut written, mut bytes) = (0, 0);
    while written < events {
        let mut batch = Vec::with_capacity(TOGETHER);
        while batch.len() < TOGETHER && written < events {
            let voids = busy.view().voids();
            let record = busy.next_record();
            bytes += record.len();
            written += if busy.view().voids() == voids { Decoded::of(&record).events().len() } else { 0 };
            batch.push(record);
        }
        // Without tokio's budget, which would let later appends pass earlier ones.
        let appends = join_all(batch.into_iter().map(|record| log.append(record, Urgency::Ordinary)));
        let appended = tokio::task::unconstrained(appends).await;
        appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let (records, voids) = (busy.view().next(), busy.view().voids());
    println!(
        "{written} events of {services} services in {records} records ({voids} do not count), {} MB, made and written in {:.0?}",
        bytes / 1_000_000,
        started.elapsed()
    );
    Ok(busy.view().tree().root().to_string())
}

/// Verifies the whole log, again and again, and returns the median of the times.
async fn full_folds(data: &Path, rounds: usize, root: &str) -> Result<Duration, Error> {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let (started, busy_before) = (Instant::now(), processor_time(std::process::id())?);
        let verified = Reader::open(data).await?.without_cache().verify().await?;
        took.push(started.elapsed());
        let busy = processor_time(std::process::id())? - busy_before;
        assert!(verified.ok && verified.root.to_string() == root, "the log verifies to the root it was written with");
        println!(
            "verify {} events: {:.2?} ({:.2?} of processor time)",
            verified.events,
            took.last().unwrap_or(&Duration::ZERO),
            busy
        );
    }
    took.sort();
    println!("verify, median of {rounds}: {:.2?}", took[rounds / 2]);
    Ok(took[rounds / 2])
}

/// Builds the projection, starts from it, and reads the past through it.
async fn through_the_projection(data: &Path, rounds: usize) -> Result<(), Error> {
    let log: Arc<dyn Log> = Arc::new(SegmentsReader::open(data, None)?);
    let end = log.end().borrow().0;
    let _ = std::fs::remove_dir_all(data.join("replay"));
    let (started, busy_before) = (Instant::now(), processor_time(std::process::id())?);
    let projection = Projection::open(data)?;
    projection.catch_up(&*log).await?;
    drop(projection);
    println!(
        "projection made from nothing: {:.1?} ({:.1?} of processor time), {} MB",
        started.elapsed(),
        processor_time(std::process::id())? - busy_before,
        size_of(&data.join("replay"))? / 1_000_000
    );
    let (started, busy_before) = (Instant::now(), processor_time(std::process::id())?);
    let projection = Projection::open(data)?;
    let view = projection.resume(&*log).await?;
    println!(
        "start from the projection at offset {}: {:.2?} ({:.2?} of processor time)",
        view.next(),
        started.elapsed(),
        processor_time(std::process::id())? - busy_before
    );
    let reader = Reader::over(log, Some(Arc::new(projection)));
    for percent in [1, 50, 99] {
        let moment = Moment::Offset(Offset(end * percent / 100));
        let deployment = "production/service-001".parse()?;
        let mut state = Vec::new();
        let mut shipped = Vec::new();
        for _ in 0..rounds.max(3) {
            let started = Instant::now();
            reader.state_at(moment).await?;
            state.push(started.elapsed());
            let started = Instant::now();
            reader.who_shipped(&deployment, moment).await?;
            shipped.push(started.elapsed());
        }
        state.sort();
        shipped.sort();
        println!(
            "all of production at {percent} % of history: {:.1?}; who shipped one service: {:.2?}",
            state[state.len() / 2],
            shipped[shipped.len() / 2]
        );
    }
    Ok(())
}

fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}
