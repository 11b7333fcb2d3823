//! What every log promises, as functions that any implementation can be put through: see [`contract_tests!`](crate::contract_tests).
//!
//! They see a log from outside: through the port, folded by the rule. What only one implementation can show (a torn
//! tail, a full disk) is tested beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use schemas::envelope::COMMIT_BYTES_MAX;
use schemas::{CommandId, Hash, Offset};
use uuid::Uuid;

use super::{Log, Record, Subscription, Urgency};
use crate::rule::{Head, NO_HEAD, Parsed, Ruler, Void};

pub use commits::{Commit, genesis, step};

mod commits;

/// Where a log lies while the processes that open it come and go.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// Opens the log that lies here; empty at first. What was opened before has been dropped.
    async fn open(&self) -> Arc<dyn Log>;
}

/// Makes one test of every promise, for the carrier that an expression gives; each with the attributes that follow it.
///
/// ```ignore
/// ledger::contract_tests!(Memory::default());
/// ```
#[macro_export]
macro_rules! contract_tests {
    ($carrier:expr $(, $(#[$attribute:meta])+)?) => {
        $crate::contract_tests!(@each $carrier; [$($(#[$attribute])+)?]
            an_appended_record_is_read_at_its_offset_with_its_bytes
            a_commit_counts_if_every_head_it_names_is_the_head
            one_commit_moves_several_streams_or_none
            a_command_counts_once_and_the_first_counts
            a_void_record_stays_with_its_reason
            reading_begins_at_any_offset_and_ends_at_the_end
            what_was_seen_is_durable
            a_subscriber_gets_everything_once_across_a_restart
            of_eight_writers_one_wins_each_version_and_no_commit_is_lost
        );
    };
    (@each $carrier:expr; $attributes:tt $($promise:ident)*) => {
        $($crate::contract_tests!(@one $carrier; $attributes $promise);)*
    };
    (@one $carrier:expr; [$(#[$attribute:meta])*] $promise:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $promise() {
            $crate::log::contract::$promise(&$carrier).await;
        }
    };
}

/// A log with what was folded from it so far.
struct Folded {
    log: Arc<dyn Log>,
    ruler: Ruler,
    verdicts: Vec<Option<Void>>,
}

impl Folded {
    /// Opens the carrier's log, begins it if it is empty, and folds it.
    async fn open(carrier: &dyn Carrier) -> Self {
        let log = carrier.open().await;
        if *log.end().borrow() == Offset(0) {
            append(&*log, genesis()).await;
        }
        let mut folded = Self { log, ruler: Ruler::default(), verdicts: Vec::new() };
        folded.catch_up().await;
        folded
    }

    async fn catch_up(&mut self) {
        let end = *self.log.end().borrow();
        while self.ruler.next() < end {
            let records = self.log.read(self.ruler.next(), 100).await.expect("it reads");
            assert!(!records.is_empty(), "nothing at {} before the end {end}", self.ruler.next());
            for record in records {
                self.rule_on(&record);
            }
        }
    }

    fn rule_on(&mut self, record: &Record) {
        let ruling = self.ruler.rule_on(record.offset, &Parsed::of(&record.bytes)).expect("the rule goes on");
        self.verdicts.push(ruling.void);
    }

    /// Appends `bytes` and returns what the rule makes of them.
    async fn append(&mut self, bytes: Bytes) -> Option<Void> {
        let offset = append(&*self.log, bytes).await;
        self.catch_up().await;
        self.verdicts[offset.0 as usize]
    }
}

async fn append(log: &dyn Log, bytes: Bytes) -> Offset {
    log.append(bytes, Urgency::Ordinary).await.expect("it is taken")
}

async fn read_all(log: &dyn Log, from: Offset, max: usize) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let next = records.last().map_or(from, |record| record.offset.next());
        match log.read(next, max).await.expect("it reads") {
            more if more.is_empty() => return records,
            more => records.extend(more),
        }
    }
}

/// A log gives back what was appended, where it said.
pub async fn an_appended_record_is_read_at_its_offset_with_its_bytes(carrier: &dyn Carrier) {
    let log = carrier.open().await;
    assert_eq!(*log.end().borrow(), Offset(0));
    assert_eq!(log.read(Offset(0), 10).await, Ok(vec![]));
    let commits: Vec<Bytes> = (0..5).map(|n| step(n, "service/api", NO_HEAD)).collect();
    for (n, bytes) in commits.iter().enumerate() {
        assert_eq!(append(&*log, bytes.clone()).await, Offset(n as u64));
        assert_eq!(*log.end().borrow(), Offset(n as u64 + 1), "the end follows the acknowledgement");
    }
    let read: Vec<Bytes> = read_all(&*log, Offset(0), 10).await.into_iter().map(|record| record.bytes).collect();
    assert_eq!(read, commits);
}

/// Extending moves a head, requiring only looks at it, and both must name the head.
pub async fn a_commit_counts_if_every_head_it_names_is_the_head(carrier: &dyn Carrier) {
    let mut folded = Folded::open(carrier).await;
    assert_eq!(folded.append(step(1, "service/api", NO_HEAD)).await, None);
    let first = folded.ruler.head("service/api");
    let requiring = |n, head| {
        let commit = Commit::new(n).extends(&format!("deployment/test/{n}"), NO_HEAD).requires("service/api", head);
        commit.event(&format!("deployment/test/{n}"), "test.stepped").bytes()
    };
    assert_eq!(folded.append(requiring(2, first)).await, None);
    assert_eq!(folded.ruler.head("service/api"), first, "requiring moves nothing");
    assert_eq!(folded.append(step(3, "service/api", first)).await, None);
    assert_eq!(folded.append(requiring(4, first)).await, Some(Void::Stale));
    assert_eq!(folded.append(step(5, "service/api", first)).await, Some(Void::Stale));
    let forged = Head { hash: Hash::of(b"another history"), ..folded.ruler.head("service/api") };
    assert_eq!(folded.append(requiring(6, forged)).await, Some(Void::Fork));
}

/// A commit over two streams moves both heads, or neither.
pub async fn one_commit_moves_several_streams_or_none(carrier: &dyn Carrier) {
    let mut folded = Folded::open(carrier).await;
    let both = |n, one, other| {
        let commit = Commit::new(n).extends("deployment/test/api", one).extends("judgement/test/api", other);
        commit.event("deployment/test/api", "test.a").event("judgement/test/api", "test.b").bytes()
    };
    assert_eq!(folded.append(both(1, NO_HEAD, NO_HEAD)).await, None);
    let heads = folded.ruler.heads().clone();
    assert_eq!(heads["deployment/test/api"], heads["judgement/test/api"], "one commit is both heads");
    assert_eq!(folded.append(both(2, heads["deployment/test/api"], NO_HEAD)).await, Some(Void::Stale));
    assert_eq!(folded.ruler.heads(), &heads, "a void commit moves nothing");
}

/// The same bytes again, or the same command in another commit, are a harmless duplicate.
pub async fn a_command_counts_once_and_the_first_counts(carrier: &dyn Carrier) {
    let mut folded = Folded::open(carrier).await;
    let commit = step(1, "service/api", NO_HEAD);
    assert_eq!(folded.append(commit.clone()).await, None);
    assert_eq!(folded.append(commit).await, Some(Void::Duplicate));
    let again = Commit::new(2).command(1).extends("service/api", folded.ruler.head("service/api"));
    assert_eq!(folded.append(again.event("service/api", "test.stepped").bytes()).await, Some(Void::Duplicate));
    let done = folded.ruler.command(CommandId(Uuid::from_u128(1))).expect("it counted");
    assert_eq!((done.offset, done.hash), (Offset(1), Hash::of(&1_u128.to_be_bytes())));
    // A command whose commit did not count may be carried out by another.
    assert_eq!(folded.append(step(3, "service/api", NO_HEAD)).await, Some(Void::Stale));
    let retried = Commit::new(4).command(3).extends("service/api", folded.ruler.head("service/api"));
    assert_eq!(folded.append(retried.event("service/api", "test.stepped").bytes()).await, None);
}

/// What does not count is kept: the same record, the same reason, for every reader, also after a restart.
pub async fn a_void_record_stays_with_its_reason(carrier: &dyn Carrier) {
    let mut folded = Folded::open(carrier).await;
    let long = Commit::new(9).about(&format!("\"{}\"", "x".repeat(COMMIT_BYTES_MAX)));
    let malformed: [Bytes; 5] = [
        Bytes::from_static(b""),
        Bytes::from_static(b"no commit\nat all"),
        Bytes::from_static(b"\xff\xfe{}"),
        Commit::new(8).event("service/api", "test.stepped").bytes(),
        long.extends("service/api", NO_HEAD).event("service/api", "test.stepped").bytes(),
    ];
    for bytes in malformed {
        assert_eq!(folded.append(bytes).await, Some(Void::Malformed));
    }
    assert_eq!(folded.append(step(1, "service/api", NO_HEAD)).await, None, "the log goes on behind them");
    let (verdicts, root) = (folded.verdicts.clone(), folded.ruler.tree().root());
    drop(folded);
    let again = Folded::open(carrier).await;
    assert_eq!((again.verdicts, again.ruler.tree().root()), (verdicts, root));
}

/// Any offset is a beginning, any size a batch.
pub async fn reading_begins_at_any_offset_and_ends_at_the_end(carrier: &dyn Carrier) {
    let log = carrier.open().await;
    for n in 0..40 {
        append(&*log, step(n, "service/api", NO_HEAD)).await;
    }
    let all = read_all(&*log, Offset(0), 7).await;
    let offsets: Vec<u64> = all.iter().map(|record| record.offset.0).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<_>>());
    drop(log);
    let log = carrier.open().await;
    for from in 0..=41 {
        for max in [1, 3, 1_000] {
            let some = log.read(Offset(from), max).await.expect("it reads");
            let from = from.min(40) as usize;
            assert!(some.len() <= max && (from == 40) == some.is_empty(), "{from} {max}");
            assert_eq!(some, all[from..from + some.len()]);
        }
    }
}

/// Nothing that a reader saw, acknowledged or not, is gone when the log is opened again.
pub async fn what_was_seen_is_durable(carrier: &dyn Carrier) {
    let log = carrier.open().await;
    let seen = {
        let (appending, reading) = (Arc::clone(&log), Arc::clone(&log));
        let appending = tokio::spawn(async move {
            for n in 0..100 {
                append(&*appending, step(n, "service/api", NO_HEAD)).await;
            }
        });
        let seen = tokio::spawn(async move {
            let mut subscription = Subscription::new(&*reading, Offset(0));
            let mut seen = Vec::new();
            while seen.len() < 50 {
                seen.extend(subscription.next().await.expect("it reads"));
            }
            seen
        });
        let seen = seen.await.expect("it ends");
        appending.abort();
        let _ = appending.await;
        seen
    };
    drop(log);
    let log = carrier.open().await;
    let all = read_all(&*log, Offset(0), 100).await;
    assert_eq!(all[..seen.len()], seen);
}

/// A subscriber that goes on where it stopped misses nothing and gets nothing twice.
pub async fn a_subscriber_gets_everything_once_across_a_restart(carrier: &dyn Carrier) {
    let mut got: Vec<Record> = Vec::new();
    for round in 0..3_u128 {
        let log = carrier.open().await;
        let writer = Arc::clone(&log);
        let writing = tokio::spawn(async move {
            for n in 0..30 {
                append(&*writer, step(round * 30 + n, "service/api", NO_HEAD)).await;
            }
        });
        // The first round stops in the middle, so that the second begins with what was there before it.
        let until = if round == 0 { 15 } else { (round as usize + 1) * 30 };
        let mut subscription = Subscription::new(&*log, Offset(got.len() as u64));
        while got.len() < until {
            got.extend(subscription.next().await.expect("it reads"));
        }
        writing.await.expect("it ends");
    }
    let offsets: Vec<u64> = got.iter().map(|record| record.offset.0).collect();
    assert_eq!(offsets, (0..90).collect::<Vec<_>>());
    let distinct: BTreeSet<&Bytes> = got.iter().map(|record| &record.bytes).collect();
    assert_eq!(distinct.len(), 90);
}

const WRITERS: u128 = 8;
const WINS: usize = 12;

/// Everyone appends to the head it sees. Each version gets one commit, each writer in the end all its commits, and
/// everyone folds the same.
pub async fn of_eight_writers_one_wins_each_version_and_no_commit_is_lost(carrier: &dyn Carrier) {
    let log = Folded::open(carrier).await.log;
    let racing: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(race(Arc::clone(&log), writer))).collect();
    for writer in racing {
        writer.await.expect("a writer ends");
    }
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut folded = Folded { log: Arc::clone(&log), ruler: Ruler::default(), verdicts: Vec::new() };
        folded.catch_up().await;
        readers.push(folded);
    }
    let [one, other] = &readers[..] else { unreachable!() };
    let wins = WRITERS as usize * WINS;
    assert_eq!(one.ruler.head("service/api").version.0 as usize, wins, "one winner a version");
    assert_eq!(one.verdicts.iter().filter(|void| void.is_none()).count(), wins + 1, "and the genesis");
    assert!(one.verdicts.iter().flatten().all(|void| *void == Void::Stale), "who lost acted on an old view");
    assert_eq!(one.ruler, other.ruler, "everyone folds the same");
}

/// Appends until [`WINS`] commits counted, as its own fold says.
async fn race(log: Arc<dyn Log>, writer: u128) {
    let mut folded = Folded { log, ruler: Ruler::default(), verdicts: Vec::new() };
    folded.catch_up().await;
    let mut won = 0;
    for n in 0.. {
        let id = (writer + 1) << 64 | n;
        let head = folded.ruler.head("service/api");
        if folded.append(step(id, "service/api", head)).await.is_none() {
            won += 1;
            assert_eq!(folded.ruler.command(CommandId(Uuid::from_u128(id))).map(|done| done.hash), hash_of(id));
        }
        if won == WINS {
            return;
        }
    }
}

fn hash_of(n: u128) -> Option<Hash> {
    Some(Hash::of(&n.to_be_bytes()))
}
