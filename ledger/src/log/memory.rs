//! The log in memory: durable at once, gone with the process. For tests and the simulation, which can make it fail.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use schemas::Offset;
use tokio::sync::watch;

use super::{AppendError, Log, ReadError, Record, Urgency};
use crate::rule;

/// What goes wrong with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused: [`AppendError::Refused`], nothing is kept.
    Refused,
    /// There is no room: [`AppendError::Full`], nothing is kept; a rollback is taken.
    Full,
    /// No answer comes, and nothing is kept.
    Lost,
    /// No answer comes, but it is kept.
    Kept,
    /// No answer comes, and it is kept later, at [`MemoryLog::land`].
    Late,
}

/// A log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    inner: Mutex<Inner>,
    end: watch::Sender<Offset>,
}

#[derive(Debug, Default)]
struct Inner {
    records: Vec<Record>,
    faults: VecDeque<Fault>,
    late: VecDeque<Bytes>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// Returns an empty log.
    pub fn new() -> Self {
        Self { inner: Mutex::default(), end: watch::Sender::new(Offset(0)) }
    }

    /// Keeps `bytes`, whatever faults are waiting.
    pub fn push(&self, bytes: Bytes) -> Offset {
        let mut inner = self.lock();
        let offset = Offset(inner.records.len() as u64);
        inner.records.push(Record { offset, bytes: rule::canonical(&bytes) });
        // Under the lock, so that the end is never published backwards.
        self.end.send_replace(offset.next());
        offset
    }

    /// Returns every record from `from` on.
    pub fn records(&self, from: Offset) -> Vec<Record> {
        self.lock().records.iter().skip(from.0 as usize).cloned().collect()
    }

    /// Makes the next append go wrong; further faults wait for the appends after it.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Keeps every append that was to be kept late, in their order, and returns their offsets.
    pub fn land(&self) -> Vec<Offset> {
        let late = std::mem::take(&mut self.lock().late);
        late.into_iter().map(|bytes| self.push(bytes)).collect()
    }

    /// Appends without waiting for anything, as [`Log::append`] does.
    ///
    /// # Errors
    ///
    /// [`AppendError`] as the waiting fault says.
    pub fn try_append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        let lost = || Err(AppendError::Ambiguous("a fault was asked for".to_owned()));
        let fault = self.lock().faults.pop_front();
        match fault {
            None => Ok(self.push(bytes)),
            Some(Fault::Full) if urgency == Urgency::Rollback => Ok(self.push(bytes)),
            Some(Fault::Full) => Err(AppendError::Full("a fault was asked for".to_owned())),
            Some(Fault::Refused) => Err(AppendError::Refused("a fault was asked for".to_owned())),
            Some(Fault::Lost) => lost(),
            Some(Fault::Kept) => {
                self.push(bytes);
                lost()
            }
            Some(Fault::Late) => {
                self.lock().late.push_back(bytes);
                lost()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        self.try_append(bytes, urgency)
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        Ok(self.lock().records.iter().skip(from.0 as usize).take(max).cloned().collect())
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::contract::{Carrier, step};
    use crate::rule::NO_HEAD;

    /// A memory that outlives who opens it.
    #[derive(Default)]
    struct Memory(Arc<MemoryLog>);

    #[async_trait]
    impl Carrier for Memory {
        async fn open(&self) -> Arc<dyn Log> {
            Arc::<MemoryLog>::clone(&self.0)
        }
    }

    crate::contract_tests!(Memory::default());

    fn bytes_of(log: &MemoryLog) -> Vec<Bytes> {
        log.records(Offset(0)).into_iter().map(|record| record.bytes).collect()
    }

    #[test]
    fn a_fault_hits_one_append_and_what_is_late_lands_in_order() {
        let log = MemoryLog::new();
        let commits: Vec<Bytes> = (0..7).map(|n| step(n, "service/api", NO_HEAD)).collect();
        for fault in [Fault::Refused, Fault::Lost, Fault::Kept, Fault::Late, Fault::Full, Fault::Full] {
            log.fail_next(fault);
        }
        let answers: Vec<_> = commits[..5].iter().map(|c| log.try_append(c.clone(), Urgency::Ordinary)).collect();
        assert!(matches!(answers[0], Err(AppendError::Refused(_))));
        assert!(answers[1..4].iter().all(|answer| matches!(answer, Err(AppendError::Ambiguous(_)))));
        assert!(matches!(answers[4], Err(AppendError::Full(_))));
        assert_eq!(log.try_append(commits[5].clone(), Urgency::Rollback), Ok(Offset(1)));
        assert_eq!(log.try_append(commits[6].clone(), Urgency::Ordinary), Ok(Offset(2)));
        assert_eq!(log.land(), [Offset(3)]);
        assert_eq!(bytes_of(&log), [2, 5, 6, 3].map(|n| commits[n].clone()));
        assert_eq!(*log.end().borrow(), Offset(4));
    }
}
