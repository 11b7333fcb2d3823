//! A log that lies elsewhere: few questions to it for many answers, answers while it is silent, and none for nobody.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use ledger::log::memory::MemoryLog;
use ledger::log::{AppendError, Log, ReadError, Record, Urgency};
use replay::answer::WhoShipped;
use replay::{HistoryQuery, Moment, Projection, Reader};
use schemas::{DeploymentId, Offset};
use support::busy::Busy;
use tokio::sync::{Notify, watch};

/// A log that counts what it is asked, can fall silent, and can let who asks wait.
#[derive(Default)]
struct Distant {
    inner: MemoryLog,
    reads: AtomicUsize,
    silent: AtomicBool,
    slow: AtomicBool,
    asked: Notify,
}

#[async_trait]
impl Log for Distant {
    async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        self.inner.append(bytes, urgency).await
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.asked.notify_one();
        if self.silent.load(Ordering::SeqCst) {
            return Err(ReadError::Unavailable("no broker answers".to_owned()));
        }
        if self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return self.inner.read(from, 1).await;
        }
        self.inner.read(from, max).await
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.inner.end()
    }

    fn read_through_max(&self) -> u64 {
        1_000
    }
}

/// A log of `records` records, and a reader of it with its cache in `data`.
async fn of(data: &Path, records: usize) -> (Arc<Distant>, Reader) {
    let log = Arc::new(Distant::default());
    for bytes in Busy::new(7, 4).records(records) {
        log.inner.push(bytes);
    }
    let projection = Projection::open(data).unwrap();
    projection.resume(&*log).await.unwrap();
    projection.catch_up(&*log).await.unwrap();
    log.reads.store(0, Ordering::SeqCst);
    let reader = Reader::over(Arc::<Distant>::clone(&log), Some(Arc::new(projection)));
    (log, reader)
}

fn deployment() -> DeploymentId {
    "production/service-001".parse().unwrap()
}

/// Returns a deployment that serves now, and what it serves.
async fn serving(reader: &Reader) -> (DeploymentId, WhoShipped) {
    for n in 0..4 {
        let deployment: DeploymentId = format!("production/service-{n:03}").parse().unwrap();
        let shipped = reader.who_shipped(&deployment, Moment::Now).await.unwrap();
        if shipped.shipped.iter().any(|shipped| shipped.since.is_some()) {
            return (deployment, shipped);
        }
    }
    panic!("none of the deployments serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_lines_of_history_take_a_few_questions() {
    let data = tempfile::tempdir().unwrap();
    let (log, reader) = of(data.path(), 4_000).await;
    let all = HistoryQuery { limit: Some(2_000), ..HistoryQuery::default() };
    let one = HistoryQuery { service: Some(deployment().service), limit: Some(500), ..HistoryQuery::default() };
    for query in [all, one] {
        let history = reader.history(&query).await.unwrap();
        assert_eq!((history.entries.len(), history.more), (query.limit.unwrap(), true));
        let reads = log.reads.swap(0, Ordering::SeqCst);
        assert!(reads <= 6, "{reads} for {query:?}");
        let fold = reader.without_cache().history(&query).await.unwrap();
        assert_eq!(history, fold);
        log.reads.store(0, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_is_silent_who_and_why_are_known_and_what_is_missing_is_said() {
    let data = tempfile::tempdir().unwrap();
    let (log, reader) = of(data.path(), 1_500).await;
    let (deployment, shipped) = serving(&reader).await;
    let query = HistoryQuery { service: Some(deployment.service.clone()), ..HistoryQuery::default() };
    let before = reader.history(&query).await.unwrap();
    let commit = before.entries.iter().find(|entry| entry.on_behalf_of.is_some()).unwrap().commit.unwrap();
    let causes = reader.explain_commit(commit).await.unwrap();

    log.silent.store(true, Ordering::SeqCst);
    log.reads.store(0, Ordering::SeqCst);
    assert_eq!(reader.who_shipped(&deployment, Moment::Now).await.unwrap(), shipped);
    assert_eq!(reader.who_shipped(&deployment, Moment::Event(commit)).await.unwrap().at.offset.map(|_| ()), Some(()));
    let during = reader.history(&query).await.unwrap();
    assert_eq!(log.reads.load(Ordering::SeqCst), 1, "it is asked once, and not again for each line");
    assert_eq!(during.entries.len(), before.entries.len());
    for (before, during) in before.entries.iter().zip(&during.entries) {
        assert!(during.events.is_empty() && during.missing.as_deref().unwrap().contains("no broker answers"));
        let mut whole = during.clone();
        (whole.events, whole.missing) = (before.events.clone(), None);
        assert_eq!(whole, *before, "all but what happened is known");
    }
    let explained = reader.explain_commit(commit).await.unwrap();
    let commits = |of: &replay::answer::Explanation| of.entries.iter().map(|entry| entry.commit).collect::<Vec<_>>();
    assert_eq!(commits(&explained), commits(&causes));
    assert!(explained.entries.iter().all(|entry| entry.missing.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_leaves_ends_the_work() {
    let data = tempfile::tempdir().unwrap();
    let (log, reader) = of(data.path(), 3_000).await;
    log.slow.store(true, Ordering::SeqCst);
    let reader = Arc::new(reader);
    let all = HistoryQuery { limit: Some(2_000), ..HistoryQuery::default() };
    let cached = {
        let (reader, all) = (Arc::clone(&reader), all.clone());
        tokio::spawn(async move { reader.history(&all).await.map(drop) })
    };
    let folded = {
        let reader = reader.without_cache();
        tokio::spawn(async move { reader.history(&all).await.map(drop) })
    };
    for asking in [cached, folded] {
        log.asked.notified().await;
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
    }
    // What was under way when they left may still end. A fold that goes on would read for a minute, with 20 ms a read.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reads = log.reads.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        if log.reads.load(Ordering::SeqCst) == reads {
            break;
        }
        assert!(Instant::now() < deadline, "nobody asks any more, and it is still read: {reads} times");
    }
}
