//! How much memory each process takes on a ledger of 200,000 records in Kafka: a worker, and the API while it makes its cache
//! from nothing, answers questions about the past, and rests.
//!
//! `cargo run --release -p benches --bin memory [-- RECORDS]`. It starts its own Kafka of one broker on loopback and the real
//! `ionledger`. Linux alone tells a process's memory so (`/proc/PID/status`: what is resident, and the most that ever was).

#![allow(clippy::print_stdout)] // its results

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::client::Client;
use api::question::ProductionQuestion;
use benches::Error;
use ledger::log::kafka::{Kafka, KafkaOptions};
use ledger::log::{Log, Urgency};
use replay::{HistoryQuery, Moment};
use schemas::Offset;
use support::busy::Busy;
use support::cluster::Cluster;

/// How many records the bounds are for.
const RECORDS: usize = 200_000;

/// The most that may be resident, in MB, at so many records.
const WORKER_MB_MAX: u64 = 250;
const API_MB_MAX: u64 = 700;
/// The most that the API may ever have had, in MB.
const API_PEAK_MB_MAX: u64 = 1_000;

/// How long a process may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(300);

/// How many appends are under way at once while the history is written.
const TOGETHER: usize = 2_048;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let records = std::env::args().nth(1).map_or(Ok(RECORDS), |word| word.parse())?;
    let cluster = Cluster::start(1);
    let place = cluster.place("memory");
    write_history(&place, records).await?;
    let folder = tempfile::tempdir()?;
    println!("| {records} records | resident, MB | most, MB |\n| --- | ---: | ---: |");

    let api = Serving::start(folder.path(), &place, &["api"])?;
    let client = Client::of_data(&folder.path().join("data"));
    let deadline = Instant::now() + READY_MAX;
    while let Err(error) = client.ready().await {
        if Instant::now() > deadline {
            return Err(format!("the API is not ready: {error}").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let made = api.memory()?;
    row("api, its cache made from nothing", made);
    client.ask(&ProductionQuestion { moment: Moment::Offset(Offset(records as u64 / 2)) }).await?;
    client.ask(&HistoryQuery { limit: Some(10_000), ..HistoryQuery::default() }).await?;
    let asked = api.memory()?;
    row("api, after all of production at half of history and 10,000 commits", asked);
    drop(api);

    let worker = Serving::start(folder.path(), &place, &["worker", "traffic-shifter"])?;
    worker.until_ready(deadline.max(Instant::now() + READY_MAX)).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let works = worker.memory()?;
    row("worker", works);

    let missed = [
        (works.resident > WORKER_MB_MAX, format!("the worker has {} MB, at most {WORKER_MB_MAX}", works.resident)),
        (asked.resident > API_MB_MAX, format!("the API has {} MB, at most {API_MB_MAX}", asked.resident)),
        (asked.most > API_PEAK_MB_MAX, format!("the API had {} MB, at most {API_PEAK_MB_MAX}", asked.most)),
    ];
    match missed.into_iter().find(|(missed, _)| *missed && records == RECORDS) {
        Some((_, why)) => Err(why.into()),
        None => Ok(()),
    }
}

/// Writes a made-up production of so many records.
async fn write_history(place: &str, records: usize) -> Result<(), Error> {
    let options = KafkaOptions { dev: true, ..KafkaOptions::default() };
    let log = Kafka::open(place.parse()?, options).await?;
    let mut busy = Busy::new(1, 300);
    let mut written = 0;
    while written < records {
        let batch: Vec<_> = (0..TOGETHER.min(records - written)).map(|_| busy.next_record()).collect();
        written += batch.len();
        let appends = batch.into_iter().map(|record| log.append(record, Urgency::Ordinary));
        // Without tokio's budget, which would let later appends pass earlier ones.
        let appended = tokio::task::unconstrained(futures::future::join_all(appends)).await;
        appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// What a process takes, in MB.
#[derive(Clone, Copy)]
struct Memory {
    resident: u64,
    most: u64,
}

fn row(what: &str, Memory { resident, most }: Memory) {
    println!("| {what} | {resident} | {most} |");
}

/// A part of `ionledger` as a process of its own.
struct Serving {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Serving {
    fn start(folder: &Path, place: &str, part: &[&str]) -> Result<Self, Error> {
        let exe = std::env::current_exe()?.with_file_name("ionledger");
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = folder.join(format!("{}.log", part[0]));
        let child = Command::new(exe)
            .args(part)
            .args(["--ledger", place, "--dev", "--listen", &address.to_string(), "--data"])
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Self { child, address, log })
    }

    /// Waits until its `/readyz` says yes.
    async fn until_ready(&self, deadline: Instant) -> Result<(), Error> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let mut text = String::new();
            if let Ok(mut stream) = tokio::net::TcpStream::connect(self.address).await {
                stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
                let _ = stream.read_to_string(&mut text).await;
            }
            if text.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(&self.log)?;
                return Err(format!("it is not ready: {text}; it said {said}").into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn memory(&self) -> Result<Memory, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mb = |name: &str| -> Result<u64, Error> {
            let line = status.lines().find(|line| line.starts_with(name)).ok_or("the kernel does not tell it")?;
            let kib: u64 = line.split_whitespace().nth(1).ok_or("the kernel tells no number")?.parse()?;
            Ok(kib * 1_024 / 1_000_000)
        };
        Ok(Memory { resident: mb("VmRSS:")?, most: mb("VmHWM:")? })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
