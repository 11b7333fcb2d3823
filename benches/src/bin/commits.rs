//! Durable commits a second: the log in segments beside a bare file with the same batching, alternating in one run.
//!
//! `cargo run --release -p benches --bin commits [-- ROUNDS SECONDS DIR]`. The bare file has the same queue, the same
//! writing thread, one write and one sync a batch; it parses nothing, sums nothing and proves nothing. DIR must lie on
//! the disk that is to be measured.

#![allow(clippy::print_stdout)] // its results

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use benches::Error;
use bytes::Bytes;
use hdrhistogram::Histogram;
use ledger::log::contract::Commit;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
use ledger::log::{Log as _, Urgency};
use ledger::rule::NO_HEAD;
use tokio::sync::{mpsc, oneshot};

const WRITERS: [usize; 3] = [1, 16, 256];

/// The least that the most writers must reach, as a part of the bare file's commits.
const RATIO_MIN: f64 = 0.6;

/// The most appends in one write, and those that may wait: as in `ledger::log::segments`.
const BATCH: usize = 512;
const QUEUE: usize = 1_024;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (rounds, seconds, dir) = match &words[..] {
        [] => (5, 2, std::env::temp_dir()),
        [rounds, seconds] => (rounds.parse()?, seconds.parse()?, std::env::temp_dir()),
        [rounds, seconds, dir] => (rounds.parse()?, seconds.parse()?, PathBuf::from(dir)),
        _ => return Err("usage: commits [ROUNDS SECONDS [DIR]]".into()),
    };
    let time = Duration::from_secs(seconds);
    let commits: Arc<[Bytes]> = (0..1_024).map(commit).collect();
    println!("{rounds} rounds of {seconds} s each, commits of {} bytes, in {}", commits[0].len(), dir.display());
    println!("| writers | what | commits/s (median) | p50 ms | p99 ms | ratio |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    for writers in WRITERS {
        let (mut segments, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let folder = tempfile::tempdir_in(&dir)?;
            let log = Segments::open(DataFolder::hold(&folder.path().join("data"))?, SegmentsOptions::default())?;
            segments.push(measure(Target::Segments(log), writers, time, &commits).await?);
            bare.push(
                measure(Target::Bare(BareFile::create(&folder.path().join("bare"))?), writers, time, &commits).await?,
            );
        }
        let (segments, bare) = (Outcome::of(segments), Outcome::of(bare));
        let ratio = segments.per_second / bare.per_second;
        segments.print(writers, "segments", &format!("{ratio:.2}"));
        bare.print(writers, "bare file", "");
        if writers == WRITERS[WRITERS.len() - 1] && ratio < RATIO_MIN {
            return Err(format!("at {writers} writers {ratio:.2} of the bare file, less than {RATIO_MIN}").into());
        }
    }
    Ok(())
}

/// Returns a commit as a worker's outcome is: about 750 bytes.
fn commit(n: u128) -> Bytes {
    let stream = "deployment/production/api";
    let about = r#"{"actor":{"kind":"worker","name":"traffic-shifter/7f3a","proof":"lease"},"cause":"0194d2a8-7c6e-7b6a-9d53-2f6c1f0e8a11","correlation":"0194d2a8-7c6e-7b6a-9d53-2f6c1f0e8a11"}"#;
    Commit::new(n)
        .extends(stream, NO_HEAD)
        .requires("worker/traffic-shifter", NO_HEAD)
        .event(stream, "traffic.applied")
        .about(about)
        .bytes()
}

/// What is measured.
enum Target {
    Segments(Segments),
    Bare(BareFile),
}

impl Target {
    async fn append(&self, bytes: Bytes) -> Result<(), Error> {
        match self {
            Target::Segments(log) => log.append(bytes, Urgency::Ordinary).await.map(|_| ()).map_err(Into::into),
            Target::Bare(file) => file.append(bytes).await,
        }
    }
}

/// A file with a thread that writes all waiting appends at once, syncs, and answers.
struct BareFile {
    queue: mpsc::Sender<(Bytes, oneshot::Sender<()>)>,
}

impl BareFile {
    fn create(path: &Path) -> Result<Self, Error> {
        let mut file = File::create(path)?;
        let (queue, mut waiting) = mpsc::channel::<(Bytes, oneshot::Sender<()>)>(QUEUE);
        thread::spawn(move || {
            let (mut batch, mut lines) = (Vec::with_capacity(BATCH), Vec::new());
            while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
                lines.clear();
                for (bytes, _) in &batch {
                    lines.extend_from_slice(bytes);
                    lines.push(b'\n');
                }
                // Its writers find out that it is gone.
                if file.write_all(&lines).and_then(|()| file.sync_data()).is_err() {
                    return;
                }
                for (_, answer) in batch.drain(..) {
                    let _ = answer.send(());
                }
            }
        });
        Ok(Self { queue })
    }

    async fn append(&self, bytes: Bytes) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.queue.send((bytes, answer)).await?;
        Ok(answered.await?)
    }
}

/// What one run, or several together, have shown.
struct Outcome {
    per_second: f64,
    /// In microseconds.
    latency: Histogram<u64>,
}

impl Outcome {
    /// Takes runs together: the median of their throughput, all of their latencies.
    fn of(mut runs: Vec<Self>) -> Self {
        runs.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
        let per_second = runs[runs.len() / 2].per_second;
        let mut latency = histogram();
        runs.iter().for_each(|run| latency.add(&run.latency).expect("the same bounds"));
        Self { per_second, latency }
    }

    fn print(&self, writers: usize, what: &str, ratio: &str) {
        let ms = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        println!("| {writers} | {what} | {:.0} | {:.2} | {:.2} | {ratio} |", self.per_second, ms(0.5), ms(0.99));
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("good bounds")
}

/// Lets `writers` append for `time`, each as soon as its last commit was acknowledged.
async fn measure(target: Target, writers: usize, time: Duration, commits: &Arc<[Bytes]>) -> Result<Outcome, Error> {
    let target = Arc::new(target);
    let start = Instant::now();
    let writing: Vec<_> = (0..writers)
        .map(|writer| {
            let (target, commits) = (Arc::clone(&target), Arc::clone(commits));
            tokio::spawn(async move {
                let mut latency = histogram();
                for n in writer.. {
                    let asked = Instant::now();
                    if asked.duration_since(start) >= time {
                        break;
                    }
                    target.append(commits[n % commits.len()].clone()).await?;
                    latency.record(asked.elapsed().as_micros() as u64)?;
                }
                Ok::<_, Error>(latency)
            })
        })
        .collect();
    let mut latency = histogram();
    for writer in writing {
        latency.add(writer.await??)?;
    }
    Ok(Outcome { per_second: latency.len() as f64 / start.elapsed().as_secs_f64(), latency })
}
