//! A rollback without the ledger (break-glass) is recorded late and counts from when it took effect: in every answer, on
//! every log, by the rows and by the fold.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use ledger::log::memory::MemoryLog;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
use ledger::log::{Log, Urgency};
use replay::answer::{self, DeploymentStatus, WhoShipped};
use replay::{HistoryQuery, Moment, Projection, Reader};
use schemas::break_glass::Intent;
use schemas::command::{self, Command, StackWeight};
use schemas::{Offset, Weight};
use support::busy::Busy;

/// A history in which a rollback was recorded late, while everybody else worked on.
struct Outage {
    records: Vec<Bytes>,
    intent: Intent,
    /// Where the rollback was recorded.
    offset: Offset,
    /// The ledger's time there.
    until: Timestamp,
}

impl Outage {
    /// Makes histories until one holds a rollback that took effect well before it was recorded, and was not overtaken.
    fn of(seed: u64) -> Self {
        (seed * 1_000..).find_map(Self::try_of).expect("there are many seeds")
    }

    fn try_of(seed: u64) -> Option<Self> {
        let mut busy = Busy::new(seed, 3);
        let mut records = busy.records(200);
        let intent = busy.break_glass()?;
        records.extend(busy.records(6));
        let late = busy.record_late(&intent)?;
        let overtaken = String::from_utf8_lossy(&late).contains("\"overtaken\"");
        busy.fold(&late);
        let (offset, until) = (Offset(records.len() as u64), busy.view().time());
        let long = until.duration_since(intent.at) > SignedDuration::from_secs(2);
        records.push(late);
        records.extend(busy.records(20));
        (long && !overtaken).then_some(Self { records, intent, offset, until })
    }

    /// Every moment of interest within the outage: its first, its last, and that of each record in it.
    fn moments(&self) -> Vec<Moment> {
        let nanosecond = SignedDuration::from_nanos(1);
        let mut moments = vec![Moment::Time(self.intent.at), Moment::Time(self.until.checked_sub(nanosecond).unwrap())];
        let mut view = ledger::View::default();
        for (offset, bytes) in (0..self.offset.0).map(Offset).zip(&self.records) {
            let folded = view.fold(offset, bytes).unwrap();
            let Some(commit) = folded.commit.filter(|_| folded.void.is_none() && folded.time >= self.intent.at) else {
                continue;
            };
            moments.extend([Moment::Offset(offset), Moment::Event(commit.id)]);
            moments.extend((folded.time < self.until).then_some(Moment::Time(folded.time)));
        }
        moments
    }
}

async fn log_of(records: &[Bytes], segments: Option<&Path>) -> Arc<dyn Log> {
    let Some(folder) = segments else {
        let log = MemoryLog::new();
        for bytes in records {
            log.push(bytes.clone());
        }
        return Arc::new(log);
    };
    let log = Segments::open(DataFolder::hold(folder).unwrap(), SegmentsOptions::default()).unwrap();
    for bytes in records {
        log.append(bytes.clone(), Urgency::Ordinary).await.unwrap();
    }
    Arc::new(log)
}

/// Readers of the same log: by the cache's rows, by those of a cache that was opened again, and by the full fold.
async fn readers(log: Arc<dyn Log>, data: &Path) -> [Reader; 3] {
    let first = data.join("first");
    let written = Projection::open(&first).unwrap();
    written.catch_up(&*log).await.unwrap();
    drop(written);
    let projections = [first, data.join("second")].map(|folder| Arc::new(Projection::open(&folder).unwrap()));
    assert_eq!(projections[0].found_damaged(), None);
    projections[1].catch_up(&*log).await.unwrap();
    let [again, rows] = projections.map(|projection| Reader::over(Arc::clone(&log), Some(projection)));
    let fold = rows.without_cache();
    [again, rows, fold]
}

async fn shipped(reader: &Reader, outage: &Outage, moment: Moment) -> WhoShipped {
    reader.who_shipped(&outage.intent.deployment, moment).await.unwrap()
}

async fn status(reader: &Reader, outage: &Outage, moment: Moment) -> DeploymentStatus {
    let id = &outage.intent.deployment;
    let status = reader.status(moment, Some(&id.service), Some(&id.environment)).await.unwrap();
    status.services[0].deployments[0].clone()
}

/// Asserts that everything says that the rollback is in effect, and when it was recorded.
async fn is_rolled_back(reader: &Reader, outage: &Outage, moment: Moment) {
    let intent = &outage.intent;
    let who = shipped(reader, outage, moment).await;
    let served: Vec<_> = who.shipped.iter().map(|one| (one.stack, one.weight_set)).collect();
    assert_eq!(served, [(intent.to, Weight::FULL)], "{moment:?}");
    let origin = who.shipped[0].weight_since.as_ref().unwrap();
    assert_eq!((origin.effective_at, origin.counts_from(), &origin.actor), (Some(intent.at), intent.at, &intent.actor));
    assert!(origin.recorded_at.unwrap() > intent.at, "{origin:?}");

    let status = status(reader, outage, moment).await;
    assert_eq!((status.fence, status.drift), (intent.fence.next(), None), "{moment:?}");
    assert_eq!((status.weights_set_at, status.weights_recorded_at), (Some(intent.at), origin.recorded_at));
    assert!(status.rollout.is_none_or(|rollout| !rollout.live), "{moment:?}");
    assert!(status.rollback_target.is_none_or(|target| target.stack != Some(intent.to)));
    let production = reader.production(moment).await.unwrap();
    let of = production.services.iter().find(|of| of.status.service == intent.deployment.service).unwrap();
    assert!(of.status.deployments.iter().any(|of| of.weights_recorded_at == origin.recorded_at), "{moment:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_counts_from_when_it_took_effect_by_rows_and_fold_on_memory_and_segments() {
    for seed in 0..2 {
        let outage = Outage::of(seed);
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("ledger");
        for segments in [None, Some(&*folder)] {
            let caches = data.path().join(if segments.is_some() { "of-segments" } else { "of-memory" });
            let readers = readers(log_of(&outage.records, segments).await, &caches).await;
            let nanosecond = SignedDuration::from_nanos(1);
            let before = Moment::Time(outage.intent.at.checked_sub(nanosecond).unwrap());
            for reader in &readers {
                let origin = shipped(reader, &outage, before).await;
                assert!(
                    origin.shipped.iter().any(|one| one.stack != outage.intent.to && one.weight_set > Weight::ZERO)
                );
            }
            for moment in outage.moments() {
                for reader in &readers {
                    is_rolled_back(reader, &outage, moment).await;
                }
                same(&readers, &outage, moment).await;
            }
            for moment in [before, Moment::Time(outage.until), Moment::Offset(outage.offset), Moment::Now] {
                same(&readers, &outage, moment).await;
            }
        }
    }
}

async fn same([again, rows, fold]: &[Reader; 3], outage: &Outage, moment: Moment) {
    let seen = fold.state_at(moment).await.unwrap();
    let (who, why) =
        (shipped(fold, outage, moment).await, fold.explain(&outage.intent.deployment, moment).await.unwrap());
    for reader in [again, rows] {
        assert_eq!(reader.state_at(moment).await.unwrap(), seen, "{moment:?}");
        assert_eq!(shipped(reader, outage, moment).await, who, "{moment:?}");
        assert_eq!(reader.explain(&outage.intent.deployment, moment).await.unwrap(), why, "{moment:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_is_as_the_log_had_it() {
    let outage = Outage::of(7);
    let reader = Reader::from_genesis(log_of(&outage.records, None).await);
    let without = Reader::from_genesis(log_of(&outage.records[..outage.offset.0 as usize], None).await);
    for moment in outage.moments() {
        let (seen, mut had) = (reader.state_at(moment).await.unwrap(), without.state_at(moment).await.unwrap());
        assert_ne!(seen, had, "{moment:?}");
        let id = &outage.intent.deployment;
        let (now, then) = (&seen.state.deployments[id], &had.state.deployments[id]);
        assert_eq!(now.version, then.version);
        let nodes = |of: &ledger::Deployment| of.stacks.values().map(|stack| stack.nodes.clone()).collect::<Vec<_>>();
        assert_eq!(nodes(now), nodes(then), "{moment:?}");
        had.state.deployments.insert(id.clone(), Arc::clone(now));
        had.shares.0.insert(id.clone(), seen.shares.0[id].clone());
        assert_eq!(seen, had, "{moment:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_explanations_name_both_times() {
    let outage = (7..).map(Outage::of).find(|outage| outage.intent.rollout.is_some()).unwrap();
    let data = tempfile::tempdir().unwrap();
    for reader in readers(log_of(&outage.records, None).await, data.path()).await {
        let query = HistoryQuery { service: Some(outage.intent.deployment.service.clone()), ..HistoryQuery::default() };
        let history = reader.history(&query).await.unwrap();
        let entry = history.entries.iter().find(|entry| entry.offset == outage.offset).unwrap();
        assert_eq!((entry.effective_at, entry.counts_from()), (Some(outage.intent.at), outage.intent.at));
        assert!(entry.recorded_at.unwrap() > outage.intent.at, "{entry:?}");
        assert!(history.entries.iter().filter(|entry| entry.recorded_at.is_some()).count() == 1);
        for (moment, told) in [(outage.intent.at, true), (outage.intent.at - SignedDuration::from_nanos(1), false)] {
            let why = reader.explain(&outage.intent.deployment, Moment::Time(moment)).await.unwrap();
            assert_eq!(why.entries.iter().any(|entry| entry.offset == outage.offset), told, "{why:?}");
            assert!(!told || !why.rollout.unwrap().live);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_overtaken_changes_no_answer() {
    let mut busy = Busy::new(3, 3);
    let mut records = busy.records(200);
    let intent = loop {
        records.extend(busy.records(3));
        if let Some(intent) = busy.break_glass() {
            break intent;
        }
    };
    records.extend(busy.records(3));
    // Somebody decided since: the ledger rolled it back as well.
    let newer = Intent { fence: intent.fence.next(), ..intent.clone() };
    let late = busy.record_late(&newer).unwrap();
    assert!(String::from_utf8_lossy(&late).contains("\"overtaken\""));
    busy.fold(&late);
    let before = Reader::from_genesis(log_of(&records, None).await);
    records.push(late);
    let data = tempfile::tempdir().unwrap();
    for reader in readers(log_of(&records, None).await, data.path()).await {
        for moment in [intent.at, busy.view().time() - SignedDuration::from_nanos(1)].map(Moment::Time) {
            let (seen, had) = (reader.state_at(moment).await.unwrap(), before.state_at(moment).await.unwrap());
            assert_eq!(seen, had);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effective_at_that_a_client_sends_is_shown_and_changes_no_answer() {
    let mut busy = Busy::new(4, 2);
    let mut records = busy.records(200);
    let long_ago = busy.view().time() - SignedDuration::from_secs(60);
    let ready = |busy: &Busy| {
        let mut found = busy.view().state().deployments.iter();
        found.find_map(|(id, of)| {
            let set = of.traffic.set.as_ref()?;
            let other = of.stacks.iter().find(|(stack, found)| {
                found.phase == ledger::deployment::Phase::Ready && set.weights.of(**stack) == Weight::ZERO
            })?;
            Some((id.clone(), other.1.name()))
        })
    };
    let (deployment, said) = loop {
        if let Some((deployment, version)) = ready(&busy) {
            let shares = vec![StackWeight { version, weight: Weight::FULL }];
            let all = Command::Traffic(command::Traffic {
                deployment: deployment.clone(),
                shares,
                supersede: true,
                again: true,
            });
            if let Some(said) = busy.said_to_be_in_effect(all, long_ago) {
                break (deployment, said);
            }
        }
        records.extend(busy.records(1));
    };
    let before = Reader::from_genesis(log_of(&records, None).await);
    busy.fold(&said);
    let offset = Offset(records.len() as u64);
    records.push(said);
    let data = tempfile::tempdir().unwrap();
    for reader in readers(log_of(&records, None).await, data.path()).await {
        for moment in [Moment::Time(long_ago), Moment::Offset(Offset(offset.0 - 1))] {
            assert_eq!(reader.state_at(moment).await.unwrap(), before.state_at(moment).await.unwrap());
        }
        let who = reader.who_shipped(&deployment, Moment::Now).await.unwrap();
        let origin = who.shipped[0].weight_since.as_ref().unwrap();
        assert_eq!((origin.effective_at, origin.recorded_at), (Some(long_ago), None));
        assert_eq!(origin.counts_from(), origin.time);
        let status = answer::status(&reader.state_at(Moment::Now).await.unwrap().state, who.at);
        let mut deployments = status.services.iter().flat_map(|of| &of.deployments);
        let status = deployments.find(|of| of.deployment == deployment).unwrap();
        assert_eq!((status.weights_set_at, status.weights_recorded_at), (Some(origin.time), None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_whose_times_overlap_the_later_one_is_the_last_word_from_its_own_moment_on() {
    // The first is recorded before the second, and later than the second took effect.
    let (records, first, second) = (0..).find_map(two).unwrap();
    let data = tempfile::tempdir().unwrap();
    for reader in readers(log_of(&records, None).await, data.path()).await {
        let nanosecond = SignedDuration::from_nanos(1);
        for (time, to) in [(first.at, first.to), (second.at - nanosecond, first.to), (second.at, second.to)] {
            let who = reader.who_shipped(&first.deployment, Moment::Time(time)).await.unwrap();
            let served: Vec<_> = who.shipped.iter().map(|one| (one.stack, one.weight_set)).collect();
            assert_eq!(served, [(to, Weight::FULL)], "{time}");
        }
    }
}

fn two(seed: u64) -> Option<(Vec<Bytes>, Intent, Intent)> {
    let mut busy = Busy::new(seed, 3);
    let mut records = busy.records(200);
    let first = busy.break_glass()?;
    records.extend(busy.records(6));
    let state = busy.view().state().clone();
    let found = state.deployment(&first.deployment)?;
    let is_other = |stack: &ledger::deployment::Stack| stack.phase == ledger::deployment::Phase::Ready;
    let (other, _) = found.stacks.iter().find(|(id, stack)| **id != first.to && is_other(stack))?;
    let known = found.stacks[other].requested_at < first.at;
    let mut record = |intent: &Intent, busy: &mut Busy| {
        let late = busy.record_late(intent).filter(|late| !String::from_utf8_lossy(late).contains("\"overtaken\""))?;
        busy.fold(&late);
        records.push(late);
        Some(())
    };
    record(&first, &mut busy)?;
    let at = first.at + SignedDuration::from_millis(900);
    let command = schemas::envelope::CommandRef { id: schemas::CommandId(uuid::Uuid::from_u128(7)), ..first.command };
    let after = Some(first.command.id);
    let second = Intent { to: *other, at, command, fence: first.fence.next(), rollout: None, after, ..first.clone() };
    record(&second, &mut busy)?;
    let long = busy.view().time().duration_since(first.at) > SignedDuration::from_secs(2);
    (long && known).then_some((records, first, second))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_before_there_was_anything_to_roll_back_to_changes_nothing_then() {
    let (records, deployment) = (0..).find_map(of_a_wrong_clock).unwrap();
    let reader = Reader::from_genesis(log_of(&records, None).await);
    let without = Reader::from_genesis(log_of(&records[..records.len() - 1], None).await);
    let begin = Moment::Time("1990-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(reader.state_at(begin).await.unwrap(), without.state_at(begin).await.unwrap());
    for offset in (0..BEFORE).map(Offset) {
        let moment = Moment::Offset(offset);
        assert_eq!(reader.state_at(moment).await.unwrap(), without.state_at(moment).await.unwrap(), "{offset}");
    }
    assert!(reader.who_shipped(&deployment, begin).await.unwrap().shipped.is_empty());
}

/// Up to this offset the stack that is gone back to is not asked for yet.
const BEFORE: u64 = 20;

fn of_a_wrong_clock(seed: u64) -> Option<(Vec<Bytes>, schemas::DeploymentId)> {
    let mut busy = Busy::new(seed, 3);
    let mut records = busy.records(200);
    let intent = busy.break_glass()?;
    let (target, asked_for) = (intent.to.to_string(), records.iter().take(BEFORE as usize));
    if asked_for.into_iter().any(|record| String::from_utf8_lossy(record).contains(&target)) {
        return None;
    }
    let at = "1980-01-01T00:00:00Z".parse().unwrap();
    let early = Intent { at, rollout: None, ..intent };
    let late = busy.record_late(&early).filter(|late| !String::from_utf8_lossy(late).contains("\"overtaken\""));
    records.push(late?);
    Some((records, early.deployment))
}
