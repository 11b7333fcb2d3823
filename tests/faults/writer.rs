//! A program that writes a log, for `tests/faults/main.rs` to do harm to: it appends numbered commits and says which of
//! them were acknowledged.
//!
//! `fault-writer DATA FIRST COUNT AT_ONCE SEGMENT_BYTES` says `open` before it opens the log and `append` before it
//! appends, and waits for a line (or the end) of its standard input each time.

#![allow(clippy::print_stdout, reason = "it speaks to the test that runs it")]

use std::path::Path;

use futures::future::join_all;
use ledger::log::contract::step;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
use ledger::log::{AppendError, Log as _, Urgency};
use ledger::rule::NO_HEAD;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, data, numbers @ ..] = &args[..] else {
        panic!("usage: fault-writer DATA FIRST COUNT AT_ONCE SEGMENT_BYTES")
    };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().expect("a number")).collect();
    let [first, count, at_once, segment_bytes] = numbers[..] else { panic!("four numbers") };

    say_and_wait("open");
    let options = SegmentsOptions { segment_bytes, ..SegmentsOptions::default() };
    let log = DataFolder::hold(Path::new(data)).and_then(|folder| Segments::open(folder, options));
    let log = match log {
        Ok(log) => log,
        Err(error) => {
            println!("failed {error}");
            std::process::exit(3);
        }
    };
    say_and_wait("append");
    let numbers: Vec<u64> = (first..first + count).collect();
    for batch in numbers.chunks(at_once as usize) {
        join_all(batch.iter().map(|n| append(&log, *n))).await;
    }
    println!("done");
}

async fn append(log: &Segments, n: u64) {
    match log.append(step(n.into(), "service/api", NO_HEAD), Urgency::Ordinary).await {
        Ok(offset) => println!("acked {n} {offset}"),
        Err(AppendError::Ambiguous(why)) => println!("ambiguous {n} {why}"),
        Err(AppendError::Full(why)) => println!("full {n} {why}"),
        Err(AppendError::Stopped(why)) => println!("stopped {n} {why}"),
        Err(AppendError::Refused(why)) => println!("refused {n} {why}"),
    }
}

fn say_and_wait(what: &str) {
    println!("{what}");
    let _ = std::io::stdin().read_line(&mut String::new());
}
