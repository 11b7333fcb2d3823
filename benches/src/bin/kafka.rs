//! The ledger in Kafka beside bare clients of the same broker, in one run: commits a second and how long one takes, and how
//! fast a reader catches up.
//!
//! `cargo run --release -p benches --bin kafka [-- BROKERS ROUNDS SECONDS EVENTS]`. It starts its own Kafka on loopback, of
//! one broker or three. The bare producer has the ledger's settings (idempotent, every replica's acknowledgement) and
//! sends the same values, without and with a commit's key and headers; it waits for the acknowledgement, where the ledger
//! also waits until it has read its record back. The bare consumer counts bytes; the decoder alone folds the same records
//! from memory. Both folds are measured with a thread for every processor, and with one fewer, which leaves a processor to
//! the client: each in a process of its own, `kafka catch-up PLACE ROUNDS EVENTS`.

#![allow(clippy::print_stdout)] // its results

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::Error;
use benches::bare_producer::Bare;
use bytes::Bytes;
use hdrhistogram::Histogram;
use ledger::log::contract::Commit;
use ledger::log::kafka::{Kafka, KafkaOptions};
use ledger::log::memory::MemoryLog;
use ledger::log::{Log, Urgency};
use ledger::rule::NO_HEAD;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset as At, TopicPartitionList};
use schemas::Offset;
use support::busy::Busy;
use support::cluster::Cluster;

/// The one that `ionledger` has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WRITERS: [usize; 3] = [1, 16, 256];

/// The least that the most writers must reach, as a part of the bare producer's records.
const WRITE_RATIO_MIN: f64 = 0.5;

/// The least that catching up must reach, as a part of what the slower of consumer and decoder does alone, while a
/// processor is left to the client.
const READ_RATIO_MIN: f64 = 0.8;

/// For how long each is run before anything is measured: the broker's compilers must have seen both.
const WARM: Duration = Duration::from_secs(8);

/// Where the history lies.
const HISTORY: &str = "history";

/// How many appends are under way at once while the history is written.
const TOGETHER: usize = 2_048;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, place, rounds, events] = &words[..]
        && word == "catch-up"
    {
        return catch_up(place, rounds.parse()?, events.parse()?).await;
    }
    let numbers: Vec<usize> = words.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [brokers, rounds, seconds, events] = match numbers[..] {
        [] => [1, 5, 3, 300_000],
        [brokers] => [brokers, 5, 3, 300_000],
        [brokers, rounds, seconds, events] => [brokers, rounds, seconds, events],
        _ => return Err("usage: kafka [BROKERS [ROUNDS SECONDS EVENTS]]".into()),
    };
    let cluster = Cluster::start(brokers);
    println!("{brokers} broker(s), {rounds} rounds of {seconds} s each");
    let written = write(&cluster, rounds, Duration::from_secs(seconds as u64)).await?;
    let place = cluster.place(HISTORY);
    write_history(&place, events).await?;
    let processors = std::thread::available_parallelism()?.get();
    let mut read = f64::MAX;
    for threads in [processors, processors.saturating_sub(1).max(1)] {
        let mut own = Command::new(std::env::current_exe()?);
        own.env("RAYON_NUM_THREADS", threads.to_string());
        own.args(["catch-up", &place, &rounds.to_string(), &events.to_string()]);
        let output = own.stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let [ledger, consumer, decoder] = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?[..]
        else {
            return Err(format!("catching up with {threads} threads ended: {}", output.status).into());
        };
        read = ledger / consumer.min(decoder);
        println!("| catching up, {threads} of {processors} processors decode | records/s (median) | ratio |");
        println!("| --- | ---: | ---: |");
        println!("| ledger, read and folded | {ledger:.0} | {read:.2} |");
        println!("| bare consumer | {consumer:.0} | |");
        println!("| decoder alone, from memory | {decoder:.0} | |");
    }
    match (written < WRITE_RATIO_MIN, read < READ_RATIO_MIN) {
        (false, false) => Ok(()),
        (true, _) => Err(format!("{written:.2} of the bare producer, less than {WRITE_RATIO_MIN}").into()),
        _ => Err(format!("{read:.2} of the slower alone, less than {READ_RATIO_MIN}").into()),
    }
}

async fn open(place: &str) -> Result<Kafka, Error> {
    Ok(Kafka::open(place.parse()?, KafkaOptions { dev: true, ..KafkaOptions::default() }).await?)
}

/// Returns a commit as a worker's outcome is, on a stream of its writer's own.
fn commit(n: usize) -> Bytes {
    let stream = format!("deployment/production/service-{:03}", n % 256);
    let about = r#"{"actor":{"kind":"worker","name":"traffic-shifter/7f3a","proof":"lease"},"cause":"0194d2a8-7c6e-7b6a-9d53-2f6c1f0e8a11","correlation":"0194d2a8-7c6e-7b6a-9d53-2f6c1f0e8a11"}"#;
    Commit::new(n as u128)
        .extends(&stream, NO_HEAD)
        .requires("worker/traffic-shifter", NO_HEAD)
        .event(&stream, "traffic.applied")
        .about(about)
        .bytes()
}

/// What is written to.
enum Target {
    Ledger(Box<Kafka>),
    Bare(Bare),
}

impl Target {
    async fn append(&self, bytes: Bytes) -> Result<(), Error> {
        match self {
            Target::Ledger(log) => Ok(log.append(bytes, Urgency::Ordinary).await.map(|_| ())?),
            Target::Bare(producer) => producer.append(&bytes).await,
        }
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

/// What is measured beside each other.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ledger,
    Bare,
    BareWithHeaders,
}

impl Kind {
    /// Opens a topic of its own, which is made as a ledger's is.
    async fn open(self, cluster: &Cluster, what: &str) -> Result<Target, Error> {
        let topic = format!("{self:?}-{what}");
        let log = open(&cluster.place(&topic)).await?;
        Ok(match self {
            Kind::Ledger => Target::Ledger(Box::new(log)),
            Kind::Bare => Target::Bare(Bare::open(cluster.servers(), &topic)?),
            Kind::BareWithHeaders => Target::Bare(Bare::open(cluster.servers(), &topic)?.with_headers()),
        })
    }
}

/// Measures all with every number of writers, in turn, and returns the ledger's ratio at the most of them.
async fn write(cluster: &Cluster, rounds: usize, time: Duration) -> Result<f64, Error> {
    let commits: Arc<[Bytes]> = (0..1_024).map(commit).collect();
    let kinds = [Kind::Ledger, Kind::Bare, Kind::BareWithHeaders];
    let most = WRITERS[WRITERS.len() - 1];
    for kind in kinds {
        measure(kind.open(cluster, "warm").await?, most, WARM, &commits).await?;
    }
    println!("commits of {} bytes", commits[0].len());
    println!("| writers | what | commits/s (median) | p50 ms | p99 ms | ratio |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    let mut last = 0.0;
    for writers in WRITERS {
        let mut runs = [vec![], vec![], vec![]];
        for round in 0..rounds {
            for (kind, runs) in std::iter::zip(kinds, &mut runs) {
                let target = kind.open(cluster, &format!("{writers}-{round}")).await?;
                runs.push(measure(target, writers, time, &commits).await?);
            }
        }
        let [ledger, bare, with_headers] = runs.map(Outcome::of);
        last = ledger.per_second / bare.per_second;
        let ratio = |of: &Outcome| format!("{:.2}", ledger.per_second / of.per_second);
        ledger.print(writers, "ledger", "");
        bare.print(writers, "bare producer", &ratio(&bare));
        with_headers.print(writers, "bare producer with the same headers", &ratio(&with_headers));
    }
    Ok(last)
}

/// Lets `writers` append for `time`, each as soon as its last commit was answered.
async fn measure(target: Target, writers: usize, time: Duration, commits: &Arc<[Bytes]>) -> Result<Outcome, Error> {
    // Connected before the time begins.
    target.append(commits[0].clone()).await?;
    let target = Arc::new(target);
    let start = Instant::now();
    let writing: Vec<_> = (0..writers)
        .map(|writer| {
            let (target, commits) = (Arc::clone(&target), Arc::clone(commits));
            tokio::spawn(async move {
                let mut latency = histogram();
                for n in (writer..).step_by(256) {
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

/// Writes a history of so many events.
async fn write_history(place: &str, events: usize) -> Result<(), Error> {
    let records = Busy::new(1, 300).records(events);
    let log = open(place).await?;
    for batch in records.chunks(TOGETHER) {
        let appends = batch.iter().map(|record| log.append(record.clone(), Urgency::Ordinary));
        let appended = tokio::task::unconstrained(futures::future::join_all(appends)).await;
        appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let bytes: usize = records.iter().map(Bytes::len).sum();
    println!("catching up with {} records, {} MB", records.len(), bytes / 1_000_000);
    Ok(())
}

/// Measures catching up with the history, the bare consumer and the decoder alone, in turn, and prints how many records a
/// second each took.
async fn catch_up(place: &str, rounds: usize, events: usize) -> Result<(), Error> {
    let mut busy = Busy::new(1, 300);
    let records = busy.records(events);
    let root = busy.view().tree().root();
    let memory = Arc::new(MemoryLog::new());
    for record in &records {
        memory.push(record.clone());
    }
    let (mut ledger, mut consumer, mut decoder) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let log = Arc::new(open(place).await?);
        let servers = log.place().servers().to_owned();
        // Closing it is not timed.
        ledger.push(fold(Arc::<Kafka>::clone(&log) as _, root).await?);
        let count = records.len();
        consumer.push(tokio::task::spawn_blocking(move || consume(&servers, HISTORY, count)).await??);
        decoder.push(fold(Arc::<MemoryLog>::clone(&memory), root).await?);
    }
    for took in [&mut ledger, &mut consumer, &mut decoder] {
        took.sort();
        println!("{}", records.len() as f64 / took[took.len() / 2].as_secs_f64());
    }
    Ok(())
}

/// Folds a whole log, and looks whether it came to the right root.
async fn fold(log: Arc<dyn Log>, root: schemas::Hash) -> Result<Duration, Error> {
    let started = Instant::now();
    let view = replay::fold_all(log).await?;
    let took = started.elapsed();
    assert_eq!(view.tree().root(), root, "it was folded whole");
    Ok(took)
}

/// Consumes a topic from its beginning and counts bytes.
fn consume(servers: &str, topic: &str, count: usize) -> Result<Duration, Error> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "bare")
        .set("check.crcs", "true")
        .create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, At::Offset(0))?;
    let started = Instant::now();
    consumer.assign(&from)?;
    let (mut seen, mut bytes) = (0, 0);
    while seen < count {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            bytes += message?.payload_len();
            seen += 1;
        }
    }
    assert!(bytes > count && Offset(seen as u64) == Offset(count as u64));
    Ok(started.elapsed())
}
