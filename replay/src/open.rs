//! Opening a ledger on a data folder together with its projection.

use std::path::Path;
use std::sync::Arc;

use ledger::execute::{self, Clock};
use ledger::log::absent::Absent;
use ledger::log::segments::{self, DataFolder, Segments, SegmentsOptions};
use ledger::log::{Log, ReadError};
use ledger::{Ledger, View};
use schemas::Offset;

use crate::fold::{FoldError, fold_all};
use crate::projection::{self, Projection, ResumeError};
use crate::reader::Reader;

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReplayOpenError {
    /// Its log cannot be opened.
    #[error(transparent)]
    Log(#[from] segments::SegmentsOpenError),
    /// The log does not go on from where it was folded to.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The log cannot be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The ledger was moved away from here.
    #[error("this ledger was moved to {target}; it accepts nothing more here, use it there")]
    Moved {
        /// The place to which it was moved.
        target: String,
    },
    /// It is no ledger that this program can follow.
    #[error(transparent)]
    Ledger(#[from] execute::LedgerOpenError),
}

impl ReplayOpenError {
    /// Says whether the log's bytes are damaged.
    pub fn is_damage(&self) -> bool {
        let read = match self {
            Self::Log(segments::SegmentsOpenError::Log(read)) => Some(read),
            Self::Resume(ResumeError::Read(read)) => Some(read),
            Self::Fold(FoldError::Read(read)) => Some(read),
            Self::Ledger(execute::LedgerOpenError::Read(read)) => Some(read),
            _ => None,
        };
        matches!(read, Some(ReadError::Damaged { .. }))
    }
}

/// A ledger that runs in this process, with its log and its projection.
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// Its log.
    pub log: Arc<dyn Log>,
    /// Its projection, following the log; none if it could not be opened: answers are then folded from the log.
    pub projection: Option<Arc<Projection>>,
}

impl Opened {
    /// Returns a reader over them.
    pub fn reader(&self) -> Reader {
        Reader::live(self.ledger.clone(), Arc::clone(&self.log), self.projection.clone())
    }
}

/// Opens the ledger in a data folder, or makes it. With a projection it need not be folded from its first record;
/// without one it is folded on every core, and the projection is made again beside it.
///
/// # Errors
///
/// [`ReplayOpenError`]; the log's damage and a log that was cut or changed are named, and nothing is guessed.
pub async fn open(
    folder: DataFolder,
    options: SegmentsOptions,
    clock: Arc<dyn Clock>,
) -> Result<Opened, ReplayOpenError> {
    let projection = open_projection(folder.path());
    let known_end = projection.as_ref().and_then(Projection::known_end).max(options.known_end);
    let log: Arc<dyn Log> = Arc::new(Segments::open(folder, SegmentsOptions { known_end, ..options })?);
    go_on(log, projection, clock).await
}

/// Opens the ledger in `log`, or makes it; with the projection in the data folder `cache`, if one is named. If another
/// process holds the projection, this one works without it.
///
/// # Errors
///
/// As [`open`].
pub async fn open_log(
    log: Arc<dyn Log>,
    cache: Option<&Path>,
    clock: Arc<dyn Clock>,
) -> Result<Opened, ReplayOpenError> {
    go_on(log, cache.and_then(open_projection), clock).await
}

/// Opens a ledger whose log cannot be reached, as the projection in the data folder `cache` knows it; `why` it cannot. Nothing if
/// nothing is known of it there.
///
/// # Errors
///
/// As [`open`].
pub async fn open_absent(cache: &Path, why: String, clock: Arc<dyn Clock>) -> Result<Option<Opened>, ReplayOpenError> {
    let Some(projection) = open_projection(cache) else { return Ok(None) };
    let view = projection.known();
    if view.next() == Offset(0) {
        return Ok(None);
    }
    let log: Arc<dyn Log> = Arc::new(Absent::known_to(view.next(), why));
    let ledger = Ledger::open(Arc::clone(&log), view, clock).await?;
    Ok(Some(Opened { ledger, log, projection: Some(Arc::new(projection)) }))
}

async fn go_on(
    log: Arc<dyn Log>,
    projection: Option<Projection>,
    clock: Arc<dyn Clock>,
) -> Result<Opened, ReplayOpenError> {
    let mut view = match &projection {
        Some(projection) => projection.resume(&*log).await?,
        None => View::default(),
    };
    if view.next() == Offset(0) {
        view = fold_all(Arc::clone(&log)).await?;
    }
    let ledger = Ledger::open(Arc::clone(&log), view, clock).await?;
    let sealed = ledger.view().state().sealed.clone();
    if let Some(target) = sealed {
        return Err(ReplayOpenError::Moved { target });
    }
    let projection = projection.filter(|projection| match projection.follow(Arc::clone(&log)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "cannot start a thread for the projection; answers are folded from the log");
            false
        }
    });
    Ok(Opened { ledger, log, projection: projection.map(Arc::new) })
}

/// A cache that cannot be opened keeps nobody from using the ledger.
fn open_projection(data: &Path) -> Option<Projection> {
    Projection::open(data)
        .inspect_err(|error: &projection::ProjectionOpenError| {
            tracing::warn!(%error, "the projection cannot be opened; answers are folded from the log");
        })
        .ok()
}
