//! The last records in memory: who appends reads its own commit back at once, and workers follow close behind.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use schemas::Offset;

use crate::log::Record;

/// The most that is held, in bytes.
const BYTES_MAX: usize = 4 << 20;

/// The last records of a log, without gaps.
#[derive(Debug, Default)]
pub(super) struct Tail(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    /// Adds the next record.
    pub(super) fn push(&self, record: Record) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes += record.bytes.len();
        inner.records.push_back(record);
        while inner.bytes > BYTES_MAX
            && let Some(old) = inner.records.pop_front()
        {
            inner.bytes -= old.bytes.len();
        }
    }

    /// Returns at most `max` records from `from` on and none from `end` on; nothing if `from` is not held.
    pub(super) fn read(&self, from: Offset, max: usize, end: Offset) -> Option<Vec<Record>> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = from.0.checked_sub(inner.records.front()?.offset.0)? as usize;
        let max = max.min(end.0.saturating_sub(from.0) as usize);
        (skip < inner.records.len()).then(|| inner.records.iter().skip(skip).take(max).cloned().collect())
    }
}
