//! Copying a log to another place, record by record, so that both have the same root.

use std::collections::VecDeque;
use std::sync::Arc;

use schemas::envelope::RULE;
use schemas::{Hash, Offset};
use tokio::task::JoinHandle;

use super::{AppendError, Log, ReadError, Record, Urgency};
use crate::rule::{self, Halt, Parsed};
use crate::tree::Frontier;

/// How many records are under way at once.
const WINDOW: usize = 256;

/// How many records are read at once.
const BATCH: usize = 1_024;

/// Why a log was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the logs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The target took a record not, or nobody knows.
    #[error("the copy stopped at offset {offset}: {why}; run it again, it goes on where it stopped")]
    Append {
        /// The record.
        offset: Offset,
        /// What the target said.
        why: AppendError,
    },
    /// The target is another log.
    #[error("the target has another record at offset {offset}; it holds another ledger, name an empty place")]
    Different {
        /// The first that differs.
        offset: Offset,
    },
    /// The source holds a record that this program cannot judge. Those before it were carried and read back.
    #[error("cannot copy the whole log: {halt}; the target holds the {end} records before it, with root {root}")]
    Halted {
        /// Why.
        halt: Halt,
        /// How many records the target holds.
        end: Offset,
        /// The root over them.
        root: Hash,
    },
    /// The target holds such a record already, from a program that did not stop before it.
    #[error("the target itself cannot be followed: {0}; name an empty place")]
    TargetHalted(Halt),
    /// The target has gone on.
    #[error(
        "the target holds {target} records, the source {source_end}; it was written to meanwhile, or is a copy of another ledger"
    )]
    Longer {
        /// The target's end.
        target: Offset,
        /// The source's end.
        source_end: Offset,
    },
    /// Somebody else writes to the target.
    #[error(
        "the record of offset {expected} was written at offset {found}: something else writes to the target; stop \
         that, and begin again at an empty place"
    )]
    Overtaken {
        /// Where it should lie.
        expected: Offset,
        /// Where it does.
        found: Offset,
    },
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// How many records the target holds.
    pub records: u64,
    /// How many of them this copy carried; the others were there.
    pub carried: u64,
    /// The root over them, computed from what the target gives back.
    pub root: Hash,
}

/// Copies the records of `source` before `until` to `target`, which is empty or holds the first of them already, and reads
/// them all back. `said` hears how far it is.
///
/// # Errors
///
/// [`CopyError`]; run again, it goes on where it stopped, but for a target that is another log. A source that holds a record
/// for another rule is copied up to that record, and [`CopyError::Halted`] says so.
pub async fn copy(
    source: &dyn Log,
    until: Offset,
    target: &Arc<dyn Log>,
    said: &mut (dyn FnMut(&str, Offset) + Send),
) -> Result<Copied, CopyError> {
    let before = target.latest().await?;
    if before > until {
        return Err(CopyError::Longer { target: before, source_end: until });
    }
    compare(source, &**target, before, &mut |at| said("compared", at)).await?;
    let (mut next, mut until, mut halt) = (before, until, None);
    let mut sent = VecDeque::with_capacity(WINDOW);
    while next < until {
        for record in read(source, next, until).await? {
            halt = halt_at(record.offset, &Parsed::of(&record.bytes));
            if halt.is_some() {
                // A copy that holds it would stop every reader as its source does.
                until = record.offset;
                break;
            }
            next = record.offset.next();
            if sent.len() == WINDOW {
                landed(sent.pop_front()).await?;
            }
            sent.push_back(send(target, record).await);
        }
        said("copied", next);
    }
    while let Some(first) = sent.pop_front() {
        landed(Some(first)).await?;
    }
    let root = compare(source, &**target, until, &mut |at| said("read back", at)).await?;
    match halt {
        None => Ok(Copied { records: until.0, carried: until.0 - before.0, root }),
        Some(halt) => Err(CopyError::Halted { halt, end: until, root }),
    }
}

/// Looks whether both logs have the same records before `until`, and returns the root over them.
///
/// # Errors
///
/// [`CopyError::Different`] with the first that differs, [`CopyError::TargetHalted`] at a record that this program cannot
/// judge.
pub async fn compare(
    source: &dyn Log,
    target: &dyn Log,
    until: Offset,
    said: &mut (dyn FnMut(Offset) + Send),
) -> Result<Hash, CopyError> {
    let (mut tree, mut next) = (Frontier::default(), Offset(0));
    let mut copies = VecDeque::new();
    while next < until {
        for record in read(source, next, until).await? {
            if copies.is_empty() {
                copies.extend(read(target, record.offset, until).await?);
            }
            let copy: Record = copies.pop_front().expect("a read gives one at least");
            if copy.offset != record.offset || copy.bytes != record.bytes {
                return Err(CopyError::Different { offset: record.offset });
            }
            let parsed = Parsed::of(&copy.bytes);
            if let Some(halt) = halt_at(copy.offset, &parsed) {
                return Err(CopyError::TargetHalted(halt));
            }
            tree.push(parsed.hash);
            next = record.offset.next();
        }
        said(next);
    }
    Ok(tree.root())
}

/// Why a reader would stop at a record, if it would.
fn halt_at(offset: Offset, record: &Parsed<'_>) -> Option<Halt> {
    (record.rule != RULE).then_some(Halt::UnknownRule { offset, rule: record.rule })
}

/// Reads some of the records before `until`, at least one, each as it is on every carrier.
async fn read(log: &dyn Log, from: Offset, until: Offset) -> Result<Vec<Record>, ReadError> {
    let left = usize::try_from(until.0 - from.0).unwrap_or(usize::MAX);
    log.end()
        .wait_for(|end| *end > from)
        .await
        .map_err(|_| ReadError::Unavailable("the log has stopped".to_owned()))?;
    let records = log.read(from, left.min(BATCH)).await?;
    if records.is_empty() {
        return Err(ReadError::Damaged { offset: from, what: "no record is here".to_owned() });
    }
    Ok(records.into_iter().map(|Record { offset, bytes }| Record { offset, bytes: rule::canonical(&bytes) }).collect())
}

/// A record that is under way to its place.
type Sent = (Offset, JoinHandle<Result<Offset, AppendError>>);

/// Sends a record. The next one may be sent after this returns, and comes to lie behind it.
async fn send(target: &Arc<dyn Log>, record: Record) -> Sent {
    let log = Arc::clone(target);
    let append = async move { log.append(record.bytes, Urgency::Ordinary).await };
    // Polled once here: that is when a log takes it into its order. Without tokio's budget, which would let later appends
    // pass earlier ones.
    let mut append = Box::pin(tokio::task::unconstrained(append));
    match futures::poll!(&mut append) {
        std::task::Poll::Ready(answer) => (record.offset, tokio::spawn(async move { answer })),
        std::task::Poll::Pending => (record.offset, tokio::spawn(append)),
    }
}

async fn landed(sent: Option<Sent>) -> Result<(), CopyError> {
    let Some((expected, answer)) = sent else { return Ok(()) };
    let answer = answer.await.unwrap_or_else(|error| Err(AppendError::Ambiguous(error.to_string())));
    match answer {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(CopyError::Overtaken { expected, found }),
        Err(why) => Err(CopyError::Append { offset: expected, why }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::log::contract::{genesis, step};
    use crate::log::memory::{Fault, MemoryLog};
    use crate::log::segments::{DataFolder, Segments, SegmentsOptions};
    use crate::rule::NO_HEAD;

    fn filled(count: u128) -> MemoryLog {
        let log = MemoryLog::new();
        log.push(genesis());
        for n in 1..count {
            log.push(if n % 9 == 4 { vec![n as u8].into() } else { step(n, "s", NO_HEAD) });
        }
        log
    }

    async fn copied(source: &MemoryLog, target: &Arc<MemoryLog>) -> Result<Copied, CopyError> {
        let end = source.latest().await?;
        let target: Arc<dyn Log> = Arc::<MemoryLog>::clone(target);
        copy(source, end, &target, &mut |_, _| ()).await
    }

    #[tokio::test]
    async fn a_copy_has_the_same_records_and_the_same_root_and_goes_on_where_it_stopped() {
        let (source, target) = (filled(3_000), Arc::new(MemoryLog::new()));
        let mut root = Frontier::default();
        source.records(Offset(0)).iter().for_each(|record| root.push(Parsed::of(&record.bytes).hash));
        target.fail_next(Fault::Refused);
        assert!(matches!(copied(&source, &target).await, Err(CopyError::Append { offset: Offset(0), .. })));
        let target = Arc::new(MemoryLog::new());
        for record in source.records(Offset(0)).into_iter().take(700) {
            target.push(record.bytes);
        }
        let done = copied(&source, &target).await.unwrap();
        assert_eq!(done, Copied { records: 3_000, carried: 2_300, root: root.root() });
        assert_eq!(target.records(Offset(0)), source.records(Offset(0)));
        assert_eq!(copied(&source, &target).await.unwrap().carried, 0);
    }

    #[tokio::test]
    async fn a_copy_stops_before_a_record_for_another_rule_and_holds_all_before_it() {
        let (source, target) = (filled(700), Arc::new(MemoryLog::new()));
        let mut root = Frontier::default();
        source.records(Offset(0)).iter().for_each(|record| root.push(Parsed::of(&record.bytes).hash));
        source.push(Bytes::from_static(br#"{"rule":2}"#));
        source.push(step(9_000, "s", NO_HEAD));
        for _ in 0..2 {
            let Err(CopyError::Halted { halt, end, root: found }) = copied(&source, &target).await else { panic!() };
            assert_eq!(halt, Halt::UnknownRule { offset: Offset(700), rule: 2 });
            assert_eq!((end, found), (Offset(700), root.root()));
            assert_eq!(target.records(Offset(0)), source.records(Offset(0))[..700]);
        }
        // What an earlier program carried along is no ledger that anybody can follow.
        target.push(Bytes::from_static(br#"{"rule":2}"#));
        assert!(matches!(copied(&source, &target).await, Err(CopyError::TargetHalted(_))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_files_too_no_record_overtakes_another() {
        let (source, folder) = (filled(20_000), tempfile::tempdir().unwrap());
        let folder = DataFolder::hold(folder.path()).unwrap();
        let target: Arc<dyn Log> = Arc::new(Segments::open(folder, SegmentsOptions::default()).unwrap());
        let done = copy(&source, Offset(20_000), &target, &mut |_, _| ()).await.unwrap();
        assert_eq!((done.records, done.carried), (20_000, 20_000));
    }

    #[tokio::test]
    async fn a_target_that_is_no_beginning_of_the_source_is_refused_and_left_as_it_is() {
        let source = filled(20);
        let other = Arc::new(filled(12));
        other.push(step(99, "s", NO_HEAD));
        assert!(matches!(copied(&source, &other).await, Err(CopyError::Different { offset: Offset(12) })));
        assert_eq!(other.records(Offset(0)).len(), 13);
        let longer = Arc::new(filled(21));
        assert!(matches!(copied(&source, &longer).await, Err(CopyError::Longer { .. })));
    }
}
