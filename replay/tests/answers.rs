//! The same answers from the projection's rows and from a full fold, at any moment, before and after a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger::log::memory::MemoryLog;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
use ledger::log::{AppendError, Log, ReadError, Record, Urgency};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use replay::projection::ResumeError;
use replay::{Error, HistoryQuery, Moment, Projection, Reader, fold_all};
use schemas::{CommitId, DeploymentId, Offset};
use support::busy::Busy;

fn log_of(records: &[bytes::Bytes]) -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new());
    push(&log, records);
    log
}

fn push(log: &MemoryLog, records: &[bytes::Bytes]) {
    for bytes in records {
        log.push(bytes.clone());
    }
}

/// A projection in `data` that has seen all of `log`.
async fn projection_of(data: &Path, log: &MemoryLog) -> Projection {
    let projection = Projection::open(data).unwrap();
    projection.resume(log).await.unwrap();
    projection.catch_up(log).await.unwrap();
    projection
}

/// A log whose records come in their own time, as a log in Kafka's do: a read waits by the clock of whoever reads.
struct Distant(Arc<MemoryLog>);

#[async_trait::async_trait]
impl Log for Distant {
    async fn append(&self, bytes: bytes::Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        self.0.append(bytes, urgency).await
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        tokio::time::sleep(Duration::from_millis(1)).await; // as far away as a broker
        self.0.read(from, max).await
    }

    fn end(&self) -> tokio::sync::watch::Receiver<Offset> {
        self.0.end()
    }
}

fn reader_of(log: &Arc<MemoryLog>, projection: Projection) -> (Reader, Arc<Projection>) {
    let projection = Arc::new(projection);
    (Reader::over(Arc::<MemoryLog>::clone(log), Some(Arc::clone(&projection))), projection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_made_up_production_has_every_kind_of_event_that_its_workers_know() {
    let mut busy = Busy::new(1, 4);
    let kinds: BTreeMap<String, usize> = support::busy::kinds(&busy.records(6_000));
    let missing: Vec<&str> =
        schemas::Event::kinds().map(|kind| kind.name).filter(|name| !kinds.contains_key(*name)).collect();
    let expected = [
        "ledger.sealed",
        "stack.failed",
        "stack.unhealthy",
        "stack.recovered",
        "stack.dismissed",
        "node.unhealthy",
        "node.failing",
        "traffic.drift_seen",
        "traffic.glass_broken",
        "rollout.driven_again",
        "lease.released",
    ];
    assert_eq!(missing, expected, "{kinds:?}");
    assert!(busy.view().voids() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_a_full_fold_give_the_same_answers_at_any_moment() {
    for seed in 0..2 {
        let mut busy = Busy::new(seed, 4).with_outages();
        let records = busy.records(1_000);
        let log = log_of(&records);
        let data = tempfile::tempdir().unwrap();
        let (rows, projection) = reader_of(&log, projection_of(data.path(), &log).await);
        let fold = rows.without_cache();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        assert!(support::busy::kinds(&records).contains_key("traffic.glass_broken"));
        let times: Vec<_> = records.iter().filter_map(|bytes| time_and_commit(bytes)).collect();
        for _ in 0..5 {
            let (time, commit) = times[rng.random_range(0..times.len())];
            let between = time.checked_add(jiff::SignedDuration::from_millis(rng.random_range(-5..5))).unwrap();
            let offset = Offset(rng.random_range(0..records.len() as u64));
            for moment in [Moment::Offset(offset), Moment::Time(time), Moment::Time(between), Moment::Event(commit)] {
                same_at(&rows, &fold, moment, seed).await;
            }
        }
        same_at(&rows, &fold, Moment::Now, seed).await;
        same_at(&rows, &fold, Moment::Offset(Offset(0)), seed).await;
        same_history(&rows, &fold, &times, &mut rng).await;
        same_named(&rows, &fold, &times, &mut rng).await;
        assert_eq!(projection.known_end(), Some(Offset(1_000)), "it was read from, not rebuilt");
    }
}

fn time_and_commit(bytes: &[u8]) -> Option<(schemas::Timestamp, CommitId)> {
    let parsed = ledger::rule::Parsed::of(bytes);
    parsed.envelope.map(|envelope| (envelope.time, envelope.id))
}

async fn same_at(rows: &Reader, fold: &Reader, moment: Moment, seed: u64) {
    let by_rows = rows.state_at(moment).await;
    let by_fold = fold.state_at(moment).await;
    let (by_rows, by_fold) = match (by_rows, by_fold) {
        (Ok(by_rows), Ok(by_fold)) => (by_rows, by_fold),
        (by_rows, by_fold) => {
            let (by_rows, by_fold) = (by_rows.err().map(|e| e.to_string()), by_fold.err().map(|e| e.to_string()));
            assert_eq!(by_rows, by_fold, "seed {seed}, {moment:?}");
            return;
        }
    };
    assert_eq!(by_rows, by_fold, "seed {seed}, {moment:?}");
    for service in ["service-000", "unknown"] {
        let id: DeploymentId = format!("production/{service}").parse().unwrap();
        let by_rows = rows.who_shipped(&id, moment).await.unwrap();
        assert_eq!(by_rows, fold.who_shipped(&id, moment).await.unwrap(), "seed {seed}, {moment:?}");
        assert!(by_rows.shipped.iter().all(|shipped| shipped.release.is_some() && shipped.version.is_some()));
        for shipped in by_rows.shipped.iter().filter(|shipped| shipped.weight_set > schemas::Weight::ZERO) {
            let origin = shipped.weight_since.as_ref().unwrap();
            let answers = |actor: &schemas::Actor| actor.kind != schemas::ActorKind::Worker;
            assert!(answers(&origin.actor) || origin.on_behalf_of.as_ref().is_some_and(|by| answers(&by.actor)));
        }
    }
    let (a, b) = (rows.production(moment).await.unwrap(), fold.production(moment).await.unwrap());
    assert_eq!(serde_json::to_string(&a).unwrap(), serde_json::to_string(&b).unwrap());
}

async fn same_history(rows: &Reader, fold: &Reader, times: &[(schemas::Timestamp, CommitId)], rng: &mut ChaCha8Rng) {
    let service = Some("service-001".parse().unwrap());
    let environment = Some("production".parse().unwrap());
    for (service, environment) in
        [(None, None), (service.clone(), None), (service, environment.clone()), (None, environment)]
    {
        for limit in [Some(1), Some(40), None] {
            for voids in [false, true] {
                let since = rng.random_bool(0.5).then(|| times[rng.random_range(0..times.len())].0);
                let query = HistoryQuery {
                    service: service.clone(),
                    environment: environment.clone(),
                    limit,
                    since,
                    before: rng.random_bool(0.5).then(|| Offset(rng.random_range(0..times.len() as u64 + 2))),
                    voids,
                    counts: voids,
                };
                let by_rows = rows.history(&query).await.unwrap();
                let by_fold = fold.history(&query).await.unwrap();
                assert_eq!(by_rows, by_fold, "{query:?}");
                assert!(by_rows.entries.is_sorted_by(|a, b| a.offset > b.offset));
                assert!(query.before.is_none_or(|before| by_rows.entries.iter().all(|entry| entry.offset < before)));
                if limit == Some(40) {
                    assert_eq!(page_by_page(rows, &query).await, whole(rows, &query).await, "{query:?}");
                }
                assert!(voids || by_rows.entries.iter().all(|entry| entry.void.is_none()));
                let raw_id = |event: &replay::answer::Happened| event.summary.contains("019b");
                let odd = by_rows.entries.iter().flat_map(|entry| &entry.events).find(|event| raw_id(event));
                assert!(odd.is_none_or(|event| event.kind == "ledger.created" || voids), "{odd:?}");
            }
        }
    }
}

/// What people name is found alike: a record by its offset, a commit by the beginning of its id, a service and its versions.
async fn same_named(rows: &Reader, fold: &Reader, times: &[(schemas::Timestamp, CommitId)], rng: &mut ChaCha8Rng) {
    let commit = times[rng.random_range(0..times.len())].1.to_string();
    let offset = rng.random_range(0..times.len()).to_string();
    let production = schemas::EnvironmentName::production();
    let service: schemas::ServiceName = "service-001".parse().unwrap();
    let seen = rows.state_at(Moment::Now).await.unwrap();
    let version = seen.state.services[&service].releases.keys().next_back().unwrap().to_string();
    let named = [
        (commit.as_str(), None),
        (&commit[..13], None),
        (&commit[..4], None),
        ("ffffffff", None),
        (offset.as_str(), None),
        ("9999999", None),
        ("service-001", None),
        ("service-01", None),
        (version.as_str(), Some(&service)),
        (version.as_str(), None),
        ("no.such", Some(&service)),
    ];
    for (what, service) in named {
        let by_rows = rows.explain_named(what, service, &production, Moment::Now).await;
        let by_fold = fold.explain_named(what, service, &production, Moment::Now).await;
        match (by_rows, by_fold) {
            (Ok(by_rows), Ok(by_fold)) => {
                // A fold does not know what the ids in a summary stood for then.
                let commits = |found: &replay::answer::Explanation| -> Vec<Option<CommitId>> {
                    found.entries.iter().map(|entry| entry.commit).collect()
                };
                assert_eq!(commits(&by_rows), commits(&by_fold), "{what}");
                assert_eq!(by_rows.rollout, by_fold.rollout, "{what}");
            }
            (Err(by_rows), Err(by_fold)) => assert_eq!(by_rows.to_string(), by_fold.to_string(), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let meant = rows.explain_named("service-01", None, &production, Moment::Now).await.unwrap_err().to_string();
    assert!(meant.contains("did you mean service-0"), "{meant}");
}

async fn whole(reader: &Reader, query: &HistoryQuery) -> Vec<replay::answer::HistoryEntry> {
    reader.history(&HistoryQuery { limit: None, ..query.clone() }).await.unwrap().entries
}

/// Reads history as many as the limit at a time, each part from where the one before ended.
async fn page_by_page(reader: &Reader, query: &HistoryQuery) -> Vec<replay::answer::HistoryEntry> {
    let (mut query, mut entries) = (query.clone(), Vec::new());
    loop {
        let page = reader.history(&query).await.unwrap();
        entries.extend(page.entries);
        if !page.more {
            return entries;
        }
        query.before = entries.last().map(|entry| entry.offset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_resumed_and_folded_on_is_what_is_folded_from_the_first_record() {
    let mut busy = Busy::new(7, 5);
    let log = log_of(&busy.records(700));
    let data = tempfile::tempdir().unwrap();
    drop(projection_of(data.path(), &log).await);
    for part in [1, 67, 256, 257, 400] {
        push(&log, &busy.records(part));
        let projection = Projection::open(data.path()).unwrap();
        assert_eq!(projection.found_damaged(), None);
        let mut view = projection.resume(&*log).await.unwrap();
        assert!(view.next().0 >= 700, "it is resumed at {}", view.next());
        ledger::execute::catch_up(&*log, &mut view).await.unwrap();
        assert_eq!(view, *busy.view());
        assert_eq!(view, fold_all(Arc::<MemoryLog>::clone(&log)).await.unwrap());
        projection.catch_up(&*log).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_follows_the_log_sees_what_is_appended() {
    let mut busy = Busy::new(8, 4);
    let log = log_of(&busy.records(500));
    let data = tempfile::tempdir().unwrap();
    let projection = Arc::new(Projection::open(data.path()).unwrap());
    let read: Arc<dyn Log> = Arc::new(Distant(Arc::clone(&log)));
    projection.follow(Arc::clone(&read)).unwrap();
    let rows = Reader::over(read, Some(Arc::clone(&projection)));
    for _ in 0..20 {
        push(&log, &busy.records(7));
        assert!(projection.wait_for(*log.end().borrow(), Duration::from_secs(20)).await);
        let seen = rows.state_at(Moment::Now).await.unwrap();
        assert_eq!(&seen.state, busy.view().state());
    }
    drop((rows, projection));
    let again = Projection::open(data.path()).unwrap();
    assert_eq!(again.known_end(), Some(Offset(640)), "what was folded was written when it was dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_that_is_none_is_named() {
    let mut busy = Busy::new(9, 3);
    let log = log_of(&busy.records(300));
    let reader = Reader::from_genesis(Arc::<MemoryLog>::clone(&log));
    let error = |moment| {
        let reader = &reader;
        async move { reader.state_at(moment).await.unwrap_err().to_string() }
    };
    let text = error(Moment::Offset(Offset(300))).await;
    assert_eq!(text, "offset 300 is not written yet; the ledger holds 300 records, the last is at offset 299");
    let far = "2999-01-01T00:00:00Z".parse().unwrap();
    assert!(matches!(reader.state_at(Moment::Time(far)).await, Err(Error::Future { .. })));
    let text = error(Moment::Event(CommitId(uuid::Uuid::nil()))).await;
    assert!(text.starts_with("commit 00000000-0000-0000-0000-000000000000 is not in this ledger"), "{text}");
    let before = reader.state_at(Moment::Time("2020-01-01T00:00:00Z".parse().unwrap())).await.unwrap();
    assert_eq!((before.at.offset, before.state), (None, ledger::State::default()));
    let empty = Reader::from_genesis(Arc::new(MemoryLog::new()));
    assert!(matches!(empty.state_at(Moment::Offset(Offset(0))).await, Err(Error::Empty)));
    assert_eq!(empty.state_at(Moment::Now).await.unwrap().at.offset, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_or_changed_is_named_and_never_guessed_at() {
    let mut busy = Busy::new(10, 3);
    let records = busy.records(400);
    let log = log_of(&records);
    let data = tempfile::tempdir().unwrap();
    drop(projection_of(data.path(), &log).await);

    let projection = Projection::open(data.path()).unwrap();
    let cut = log_of(&records[..399]);
    assert!(matches!(projection.resume(&*cut).await, Err(ResumeError::Lost { end: Offset(399), .. })));
    let mut changed = records.clone();
    changed[399] = "something else".into();
    let changed = log_of(&changed);
    assert!(matches!(projection.resume(&*changed).await, Err(ResumeError::Differs { offset: Offset(399), .. })));
    let (reader, _projection) = reader_of(&changed, projection);
    let verified = reader.verify().await.unwrap();
    assert!(!verified.ok, "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_gives_the_root_counts_what_does_not_count_and_names_the_first_bad_place() {
    let mut busy = Busy::new(11, 4);
    let records = busy.records(600);
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("data");
    {
        let log = Segments::open(DataFolder::hold(&folder).unwrap(), SegmentsOptions::default()).unwrap();
        for bytes in &records {
            log.append(bytes.clone(), Urgency::Ordinary).await.unwrap();
        }
        let projection = Projection::open(&folder).unwrap();
        projection.catch_up(&log).await.unwrap();
    }
    let verified = Reader::open(&folder).await.unwrap().verify().await.unwrap();
    assert!(verified.ok, "{verified:?}");
    assert_eq!((verified.records, verified.root), (600, busy.view().tree().root()));
    assert_eq!(verified.voids.values().sum::<u64>(), busy.view().voids());
    assert!(matches!(verified.projection, Some(replay::answer::Compared::Agrees { records: 600, .. })));

    let segment = folder.join("log").join(format!("{:020}.jsonl", 0));
    let mut bytes = std::fs::read(&segment).unwrap();
    let needle = b"\"offset\":234,\"synced\":";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + needle.len()] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let verified = Reader::open(&folder).await.unwrap().without_cache().verify().await.unwrap();
    assert_eq!(verified.bad.map(|bad| bad.offset), Some(Offset(234)));
    assert!(!verified.ok);
    assert_eq!(verified.records, 234, "what is before it was verified");
}
