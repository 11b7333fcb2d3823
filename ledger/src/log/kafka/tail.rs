//! The newest records in memory, and who waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use schemas::Offset;
use tokio::sync::{oneshot, watch};

use crate::log::{AppendError, ReadError, Record};

/// How many bytes of records are kept.
const BYTES_MAX: usize = 32 << 20;

/// Where an append waits for its answer.
pub(super) type AppendReply = oneshot::Sender<Result<Offset, AppendError>>;

/// The newest records, as the follower got them.
#[derive(Debug)]
pub(super) struct Tail {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The offset of the first record here.
    first: Offset,
    records: VecDeque<Record>,
    bytes: usize,
    /// Gone when the log has stopped.
    end: Option<watch::Sender<Offset>>,
    /// Which follower may push: one that was replaced and comes back may not.
    follower: u64,
    progress: Instant,
    /// Appends that are durable at an offset which was not read back yet.
    waiting: BTreeMap<Offset, AppendReply>,
    stopped: Option<ReadError>,
}

impl Inner {
    fn end(&self) -> Offset {
        Offset(self.first.0 + self.records.len() as u64)
    }
}

impl Tail {
    /// Makes an empty tail at `end`.
    pub(super) fn new(end: Offset) -> (Self, watch::Receiver<Offset>) {
        let (sender, receiver) = watch::channel(end);
        let inner = Inner {
            first: end,
            records: VecDeque::new(),
            bytes: 0,
            end: Some(sender),
            follower: 0,
            progress: Instant::now(),
            waiting: BTreeMap::new(),
            stopped: None,
        };
        (Self { inner: Mutex::new(inner) }, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next offset.
    pub(super) fn end(&self) -> Offset {
        self.lock().end()
    }

    /// Returns the offset of the first record here.
    pub(super) fn first(&self) -> Offset {
        self.lock().first
    }

    /// Returns the last record, if it is here.
    pub(super) fn last(&self) -> Option<Record> {
        self.lock().records.back().cloned()
    }

    /// Returns when the end last moved, or a follower was last replaced.
    pub(super) fn progress(&self) -> Instant {
        self.lock().progress
    }

    /// Lets a new follower push from now on, and returns its number and where it begins.
    pub(super) fn next_follower(&self) -> (u64, Offset) {
        let mut inner = self.lock();
        inner.follower += 1;
        inner.progress = Instant::now();
        (inner.follower, inner.end())
    }

    /// Whether `follower` may push.
    pub(super) fn is_current(&self, follower: u64) -> bool {
        let inner = self.lock();
        inner.follower == follower && inner.stopped.is_none()
    }

    /// Adds records, lets everyone know of them, and returns whether `follower` may go on.
    ///
    /// # Panics
    ///
    /// If they do not go on at the end: its caller looks.
    pub(super) fn push(&self, follower: u64, records: Vec<Record>) -> bool {
        let mut inner = self.lock();
        if inner.follower != follower || inner.stopped.is_some() {
            return false;
        }
        for record in records {
            assert_eq!(record.offset, inner.end(), "records follow each other");
            inner.bytes += record.bytes.len();
            inner.records.push_back(record);
        }
        while inner.bytes > BYTES_MAX && inner.records.len() > 1 {
            let oldest = inner.records.pop_front().expect("one is here");
            inner.bytes -= oldest.bytes.len();
            inner.first = inner.first.next();
        }
        inner.progress = Instant::now();
        let end = inner.end();
        let later = inner.waiting.split_off(&end);
        let landed = std::mem::replace(&mut inner.waiting, later);
        // Under the lock, so that the end is never published backwards; before the answers, so that it covers them.
        if let Some(sender) = &inner.end {
            sender.send_replace(end);
        }
        drop(inner);
        for (offset, answer) in landed {
            let _ = answer.send(Ok(offset));
        }
        true
    }

    /// Answers an append that is durable at `offset` once its record was read back.
    pub(super) fn landed(&self, offset: Offset, answer: AppendReply) {
        let mut inner = self.lock();
        if let Some(why) = &inner.stopped {
            let why = why.to_string();
            let _ = answer.send(Err(AppendError::Ambiguous(why)));
        } else if offset < inner.end() {
            let _ = answer.send(Ok(offset));
        } else {
            inner.waiting.insert(offset, answer);
        }
    }

    /// Reads as `Log::read` does what is here; nothing if it is not.
    pub(super) fn read(&self, from: Offset, max: usize) -> Option<Result<Vec<Record>, ReadError>> {
        let inner = self.lock();
        if from >= inner.end() {
            return Some(inner.stopped.clone().map_or(Ok(Vec::new()), Err));
        }
        let skipped = usize::try_from(from.0.checked_sub(inner.first.0)?).unwrap_or(usize::MAX);
        Some(Ok(inner.records.iter().skip(skipped).take(max).cloned().collect()))
    }

    /// Stops for good: whoever waits for the next record is told why, and the records that are here can still be read.
    pub(super) fn stop(&self, why: ReadError) {
        let mut inner = self.lock();
        if inner.stopped.is_some() {
            return;
        }
        tracing::error!(%why, "the log has stopped");
        inner.stopped = Some(why.clone());
        inner.end = None;
        for (_, answer) in std::mem::take(&mut inner.waiting) {
            let _ = answer.send(Err(AppendError::Ambiguous(why.to_string())));
        }
    }

    /// Lets go of everyone: the log is closed in this process.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.follower += 1;
        inner.end = None;
        // Dropped without an answer.
        inner.waiting.clear();
    }

    /// Returns why the log has stopped, if it has.
    pub(super) fn stopped(&self) -> Option<ReadError> {
        self.lock().stopped.clone()
    }
}
