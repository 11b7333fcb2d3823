//! The full fold: every record read, checked, hashed and decoded in threads, and visited in order.
//!
//! Decoding is most of the work and needs nothing but a record's bytes, so it runs on every core; what is decoded is
//! visited by one thread at a time, in the log's order.

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ledger::View;
use ledger::log::{Log, ReadError, Record};
use ledger::rule::Halt;
use ledger::view::Decoded;
use schemas::Offset;
use tokio::runtime::Handle;

/// How many records are read and decoded at once.
const BATCH: usize = 4_096;
/// How many threads decode at most.
const THREADS_MAX: usize = 8;

/// Why a log cannot be folded to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Going on would be guessing.
    #[error(transparent)]
    Halt(#[from] Halt),
}

/// Somebody who sees every record of a log, in order.
pub(crate) trait Visit: Send + 'static {
    /// Sees a record; breaks when it has seen enough.
    fn visit(&mut self, offset: Offset, decoded: Decoded<'_>) -> Result<ControlFlow<()>, Halt>;
}

/// Folds all that `log` holds now.
///
/// # Errors
///
/// [`FoldError`] at the first record that cannot be folded.
pub async fn fold_all(log: Arc<dyn Log>) -> Result<View, FoldError> {
    struct Folding(View);
    impl Visit for Folding {
        fn visit(&mut self, offset: Offset, decoded: Decoded<'_>) -> Result<ControlFlow<()>, Halt> {
            self.0.advance(offset, &decoded).map(|_| ControlFlow::Continue(()))
        }
    }
    let (Folding(view), error) = visit_all(log, Folding(View::default())).await;
    error.map_or(Ok(view), Err)
}

/// Shows `visitor` every record of `log`, and returns it with what stopped it, if something did.
pub(crate) async fn visit_all<V: Visit>(log: Arc<dyn Log>, visitor: V) -> (V, Option<FoldError>) {
    let handle = Handle::current();
    let visiting = tokio::task::spawn_blocking(move || visit_in_threads(&*log, &handle, visitor)).await;
    visiting.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Where reading and visiting are.
struct Turns<V> {
    reading: Mutex<Reading>,
    visiting: Mutex<Visiting<V>>,
    next: Condvar,
}

struct Reading {
    /// The batch to read next, and its first record.
    batch: u64,
    from: Offset,
    ended: bool,
}

struct Visiting<V> {
    /// The batch to visit next.
    batch: u64,
    visitor: V,
    ended: bool,
    error: Option<FoldError>,
}

fn visit_in_threads<V: Visit>(log: &dyn Log, handle: &Handle, visitor: V) -> (V, Option<FoldError>) {
    let turns = Turns {
        reading: Mutex::new(Reading { batch: 0, from: Offset(0), ended: false }),
        visiting: Mutex::new(Visiting { batch: 0, visitor, ended: false, error: None }),
        next: Condvar::new(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        // One more than there are cores, for the time that one of them waits for its turn.
        for _ in 0..=cores.min(THREADS_MAX) {
            scope.spawn(|| while turns.take_one(log, handle) {});
        }
    });
    let Visiting { visitor, error, .. } = turns.visiting.into_inner().unwrap_or_else(PoisonError::into_inner);
    (visitor, error)
}

impl<V: Visit> Turns<V> {
    /// Reads, decodes and visits a batch; says whether there may be another.
    fn take_one(&self, log: &dyn Log, handle: &Handle) -> bool {
        let (batch, records) = {
            let mut reading = lock(&self.reading);
            if reading.ended {
                return false;
            }
            let records = handle.block_on(log.read(reading.from, BATCH));
            let batch = reading.batch;
            reading.batch += 1;
            match records.as_ref().map(|records| records.last()) {
                Ok(Some(last)) => reading.from = last.offset.next(),
                Ok(None) | Err(_) => reading.ended = true,
            }
            (batch, records)
        };
        let decoded: Result<Vec<_>, _> = match &records {
            Ok(records) => Ok(records.iter().map(decode).collect()),
            Err(error) => Err(error.clone()),
        };
        let mut visiting = lock(&self.visiting);
        while visiting.batch != batch && !visiting.ended {
            visiting = self.next.wait(visiting).unwrap_or_else(PoisonError::into_inner);
        }
        if !visiting.ended {
            visiting.visit(decoded);
            visiting.batch += 1;
        }
        if visiting.ended {
            lock(&self.reading).ended = true;
        }
        self.next.notify_all();
        !visiting.ended
    }
}

fn decode(record: &Record) -> (Offset, Decoded<'_>) {
    (record.offset, Decoded::of(&record.bytes))
}

impl<V: Visit> Visiting<V> {
    fn visit(&mut self, batch: Result<Vec<(Offset, Decoded<'_>)>, ReadError>) {
        let visited = batch.map_err(FoldError::from).and_then(|batch| {
            if batch.is_empty() {
                return Ok(ControlFlow::Break(()));
            }
            for (offset, decoded) in batch {
                if self.visitor.visit(offset, decoded)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        match visited {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => self.ended = true,
            Err(error) => (self.ended, self.error) = (true, Some(error)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
