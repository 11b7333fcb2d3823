//! Eight writers in eight processes on one stream, while the broker that leads is killed and started again and writers
//! stand still: each version has one winner, everyone folds the same bytes, and what was acknowledged is there once.

#![allow(clippy::print_stdout)] // how the processes talk

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ledger::log::contract::{genesis, step};
use ledger::log::kafka::{Kafka, KafkaAddress, KafkaOptions};
use ledger::log::{AppendError, Log as _, Urgency};
use ledger::rule::{Parsed, Ruler, Void};
use rustix::process::{Pid, Signal, kill_process};
use schemas::{CommandId, Hash, Offset};
use support::cluster::Cluster;
use uuid::Uuid;

const WRITERS: usize = 8;
const WINS: usize = 500;
const STREAM: &str = "service/api";
const TOPIC: &str = "race";

/// How often the leader is killed.
const KILLS: u64 = 3;

/// Longer than it all takes on a machine that works.
const RACE_MAX: Duration = Duration::from_secs(300);

const WRITER: &str = "IONLEDGER_TEST_RACE_WRITER";

/// A log with what was folded from it.
struct Folded {
    log: Kafka,
    ruler: Ruler,
    voids: Vec<Option<Void>>,
}

impl Folded {
    async fn open(place: KafkaAddress) -> Self {
        let log = Kafka::open(place, KafkaOptions::default()).await.unwrap();
        Self { log, ruler: Ruler::default(), voids: Vec::new() }
    }

    async fn fold_to(&mut self, end: Offset) {
        self.log.end().wait_for(|known| *known >= end).await.unwrap();
        while self.ruler.next() < end {
            let max = usize::try_from(end.0 - self.ruler.next().0).unwrap();
            for record in self.log.read(self.ruler.next(), max).await.unwrap() {
                let ruling = self.ruler.rule_on(record.offset, &Parsed::of(&record.bytes)).unwrap();
                self.voids.push(ruling.void);
            }
        }
    }

    async fn catch_up(&mut self) {
        let end = *self.log.end().borrow();
        self.fold_to(end).await;
    }

    /// Returns all that was folded, in few words.
    fn sum(&self) -> String {
        let heads: BTreeMap<_, _> = self.ruler.heads().iter().collect();
        let voids = Hash::of(format!("{:?}", self.voids).as_bytes());
        format!("{} {} {heads:?} {voids}", self.ruler.tree().root(), self.ruler.time())
    }
}

/// A writer's whole life, in a process of its own: it says what was acknowledged, then what it folded up to an offset
/// that it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_of_the_race() {
    let Ok(told) = std::env::var(WRITER) else { return };
    let (number, place) = told.split_once(' ').unwrap();
    let writer: u128 = number.parse().unwrap();
    let mut folded = Folded::open(place.parse().unwrap()).await;
    let mut won = 0;
    for n in 0.. {
        folded.catch_up().await;
        let id = (writer + 1) << 64 | n;
        let bytes = step(id, STREAM, folded.ruler.head(STREAM));
        let offset = loop {
            match folded.log.append(bytes.clone(), Urgency::Ordinary).await {
                Ok(offset) => break offset,
                Err(AppendError::Stopped(why)) => panic!("{why}"),
                // Nobody knows: the same bytes again, of which one copy can count.
                Err(error) => println!("race: again {error}"),
            }
        };
        folded.fold_to(offset.next()).await;
        if let Some(done) = folded.ruler.command(CommandId(Uuid::from_u128(id))) {
            println!("race: won {} {}", done.offset, Hash::of(&bytes));
            won += 1;
        }
        if won == WINS {
            break;
        }
    }
    println!("race: done");
    let mut end = String::new();
    std::io::stdin().read_line(&mut end).unwrap();
    folded.fold_to(Offset(end.trim().parse().unwrap())).await;
    println!("race: sum {}", folded.sum());
}

struct Writer {
    child: Child,
    stdin: ChildStdin,
    said: mpsc::Receiver<String>,
}

impl Writer {
    fn start(number: usize, place: &str, heard: Arc<AtomicU64>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_writer_of_the_race", "--nocapture"])
            .env(WRITER, format!("{number} {place}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The harness begins its own line with the test's name.
                let Some((_, line)) = line.split_once("race: ") else { continue };
                heard.fetch_add(u64::from(line.starts_with("won")), Ordering::Relaxed);
                if say.send(line.to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, said }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn next(&self, deadline: Instant) -> String {
        let left = deadline.saturating_duration_since(Instant::now());
        self.said.recv_timeout(left).expect("the writer goes on")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn one_of_eight_processes_wins_each_version_while_leaders_die_and_writers_stand_still() {
    if std::env::var(WRITER).is_ok() {
        return;
    }
    let cluster = Cluster::start(3);
    let place = cluster.place(TOPIC);
    let mut folded = Folded::open(place.parse().unwrap()).await;
    folded.log.append(genesis(), Urgency::Ordinary).await.unwrap();
    let deadline = Instant::now() + RACE_MAX;
    let wins = Arc::new(AtomicU64::new(0));
    let mut writers: Vec<Writer> = (0..WRITERS).map(|n| Writer::start(n, &place, Arc::clone(&wins))).collect();

    let more_wins = |count: u64| {
        let until = (wins.load(Ordering::Relaxed) + count).min((WRITERS * WINS) as u64);
        while wins.load(Ordering::Relaxed) < until {
            assert!(Instant::now() < deadline, "{} of {until} wins", wins.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    for kill in 0..KILLS {
        more_wins(200);
        let paused = [kill as usize * 2, kill as usize * 2 + 1];
        paused.iter().for_each(|n| writers[*n].signal(Signal::STOP));
        let leader = cluster.leader(TOPIC, None);
        cluster.kill(leader);
        assert!(wins.load(Ordering::Relaxed) < (WRITERS * WINS) as u64 * 3 / 4, "it happens in the middle of the race");
        cluster.leader(TOPIC, Some(leader));
        more_wins(200);
        cluster.launch(leader);
        paused.iter().for_each(|n| writers[*n].signal(Signal::CONT));
        cluster.in_sync(TOPIC, 3);
    }

    let mut acknowledged = Vec::new();
    let mut again = 0;
    for writer in &writers {
        loop {
            let line = writer.next(deadline);
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["done"] => break,
                ["won", offset, hash] => acknowledged.push((offset.parse::<u64>().unwrap(), hash.to_owned())),
                ["again", ..] => again += 1,
                _ => panic!("{line}"),
            }
        }
    }
    let end = folded.log.latest().await.unwrap();
    folded.fold_to(end).await;
    println!("{} records for {} commits, {again} appends sent again", end, acknowledged.len());
    for writer in &mut writers {
        writeln!(writer.stdin, "{end}").unwrap();
        let sum = writer.next(deadline);
        assert_eq!(sum, format!("sum {}", folded.sum()), "every reader folds the same");
    }

    assert_eq!(acknowledged.len(), WRITERS * WINS);
    assert_eq!(folded.ruler.head(STREAM).version.0 as usize, WRITERS * WINS, "one winner a version");
    let offsets: BTreeSet<u64> = acknowledged.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets.len(), acknowledged.len(), "none was acknowledged twice");
    let counts = |offset: &u64| folded.voids[*offset as usize].is_none();
    assert!(offsets.iter().all(counts), "what was acknowledged counts");
    assert_eq!(folded.voids.iter().filter(|void| void.is_none()).count(), acknowledged.len() + 1, "and the genesis");
    for (offset, hash) in acknowledged.iter().step_by(97) {
        let record = folded.log.read(Offset(*offset), 1).await.unwrap().remove(0);
        assert_eq!(Hash::of(&record.bytes).to_string(), *hash, "at offset {offset} lies what was acknowledged there");
    }
    let odd = folded.voids.iter().flatten().find(|void| !matches!(void, Void::Stale | Void::Duplicate));
    assert_eq!(odd, None, "who lost acted on an old view, or was sent again");
}
