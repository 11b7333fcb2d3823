//! The full fold: every record read, checked, hashed and decoded in threads, and visited in order.
//!
//! Decoding is most of the work and needs nothing but a record's bytes, so it runs on every core; what is decoded is
//! visited by one thread at a time, in the log's order.

use std::ops::ControlFlow;
use std::sync::Arc;

use ledger::View;
use ledger::log::{Log, ReadError, Record};
use ledger::rule::Halt;
use ledger::view::Decoded;
use rayon::iter::{IndexedParallelIterator as _, ParallelIterator as _};
use rayon::slice::ParallelSlice as _;
use schemas::Offset;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How many records are read at once.
const BATCH: usize = 1_024;
/// How many of them a thread decodes before another may take some over.
const PART: usize = 64;

/// Why a log cannot be folded to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The fold halted: it cannot know what the next record means.
    #[error(transparent)]
    Halt(#[from] Halt),
}

/// Receives every record of a log, in order.
pub(crate) trait Visit: Send + 'static {
    /// Takes a record; breaks when it needs no more.
    fn visit(&mut self, offset: Offset, decoded: Decoded<'_>) -> Result<ControlFlow<()>, Halt>;
}

/// Folds all that `log` holds now. It stops before a record for a later rule; whoever opens the ledger then finds that it has
/// halted.
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
    match error {
        Some(FoldError::Halt(Halt::UnknownRule { .. })) if view.next() > Offset(0) => Ok(view),
        error => error.map_or(Ok(view), Err),
    }
}

/// Shows `visitor` every record of `log`, and returns it with what stopped it, if something did.
pub(crate) async fn visit_all<V: Visit>(log: Arc<dyn Log>, visitor: V) -> (V, Option<FoldError>) {
    let handle = Handle::current();
    let mut visitor = visitor;
    // Cancelled when the caller goes away: then nobody needs the rest.
    let wanted = CancellationToken::new();
    let gone = wanted.clone();
    let _waiting = wanted.drop_guard();
    let visiting = tokio::task::spawn_blocking(move || {
        let error = visit_all_batches(&*log, &handle, &gone, &mut visitor).err();
        (visitor, error)
    });
    visiting.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

self_cell::self_cell! {
    /// Records, and what they were decoded to.
    struct Batch {
        owner: Vec<Record>,
        #[not_covariant]
        dependent: DecodedParts,
    }
}

/// What was decoded at once, part by part, in the log's order.
type DecodedParts<'a> = Vec<Vec<(Offset, Decoded<'a>)>>;

/// While one batch is visited, the next is decoded and the one after it read. Idle threads decode.
fn visit_all_batches<V: Visit>(
    log: &dyn Log,
    handle: &Handle,
    gone: &CancellationToken,
    visitor: &mut V,
) -> Result<(), FoldError> {
    let given_up = || ReadError::Unavailable("who asked has gone".to_owned());
    let read =
        |from| handle.block_on(gone.run_until_cancelled(log.read(from, BATCH))).unwrap_or_else(|| Err(given_up()));
    let mut current = Batch::new(vec![], |_| vec![]);
    let mut next = read(Offset(0));
    loop {
        // What was read before a bad place is visited before the place is named.
        let (records, failed) = match next {
            Ok(records) => (records, None),
            Err(error) => (vec![], Some(error)),
        };
        let from = records.last().map(|last| last.offset.next());
        let visit = || visit(current, visitor);
        let decode = || Batch::new(records, |records| records.par_chunks(PART).with_max_len(1).map(decode).collect());
        let (visited, (after, decoded)) = rayon::join(visit, || rayon::join(|| from.map_or(Ok(vec![]), read), decode));
        if visited?.is_break() {
            return Ok(());
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        if from.is_none() {
            return Ok(());
        }
        (current, next) = (decoded, after);
    }
}

fn decode(records: &[Record]) -> Vec<(Offset, Decoded<'_>)> {
    records.iter().map(|record| (record.offset, Decoded::of(&record.bytes))).collect()
}

fn visit<V: Visit>(mut batch: Batch, visitor: &mut V) -> Result<ControlFlow<()>, Halt> {
    batch.with_dependent_mut(|_, parts| {
        for (offset, decoded) in parts.drain(..).flatten() {
            if visitor.visit(offset, decoded)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}
