//! Blocks: records of the past read many at a time, those that lie near each other in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::log::{Log, ReadError, Record};
use schemas::Offset;

/// How many records are read at once.
const BATCH: u64 = 1_024;

/// How long a read may take before what it was for is answered without it. A log on a disk takes a thousandth of it.
const READ_MAX: Duration = Duration::from_secs(3);

/// Reads the records at `offsets`, which ascend. Of each record only what `seen` returns is kept.
///
/// # Errors
///
/// [`ReadError`] of the log; [`ReadError::Unavailable`] also if it does not answer within [`READ_MAX`].
pub(super) async fn read<T>(
    log: &dyn Log,
    offsets: &[Offset],
    mut seen: impl FnMut(&Record) -> T,
) -> Result<BTreeMap<Offset, T>, ReadError> {
    let mut found = BTreeMap::new();
    for run in runs(offsets, log.read_through_max()) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let mut next = first;
        while next <= last {
            let max = usize::try_from((last.0 - next.0 + 1).min(BATCH)).unwrap_or(usize::MAX);
            let records = within(next, log.read(next, max)).await?;
            let Some(after) = records.last().map(|record| record.offset.next()) else {
                return Err(ReadError::Damaged { offset: next, what: "no record is here".to_owned() });
            };
            let wanted = records.iter().filter(|record| run.binary_search(&record.offset).is_ok());
            found.extend(wanted.map(|record| (record.offset, seen(record))));
            next = after;
            // Others may have something to do, and who asked may have gone.
            tokio::task::yield_now().await;
        }
    }
    Ok(found)
}

/// Reads what stands at `offset`, or says that it cannot be had now.
pub(super) async fn within<T>(
    offset: Offset,
    reading: impl Future<Output = Result<T, ReadError>>,
) -> Result<T, ReadError> {
    tokio::time::timeout(READ_MAX, reading).await.unwrap_or_else(|_| {
        let why = format!("the log did not give the record at offset {offset} within {} s", READ_MAX.as_secs());
        Err(ReadError::Unavailable(why))
    })
}

/// Returns `offsets` in parts between which more than `gap` records would be read in vain.
fn runs(offsets: &[Offset], gap: u64) -> impl Iterator<Item = &[Offset]> {
    offsets.chunk_by(move |one, next| next.0 - one.0 <= gap.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_lie_near_each_other_are_read_in_one_go() {
        let offsets = [1, 2, 5, 14, 15, 100].map(Offset);
        let parts = |gap| runs(&offsets, gap).map(<[Offset]>::len).collect::<Vec<_>>();
        assert_eq!(parts(0), [2, 1, 2, 1]);
        assert_eq!(parts(3), [3, 2, 1]);
        assert_eq!(parts(9), [5, 1]);
        assert_eq!(parts(1_000), [6]);
        assert_eq!(runs(&[], 3).count(), 0);
    }
}
