//! Verify: the whole log from its first record, with every checksum, hash, verdict of the rule and the root; and the
//! cache beside it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use ledger::View;
use ledger::log::{Log, ReadError};
use ledger::rule::{Halt, Void};
use ledger::view::Decoded;
use schemas::{Hash, Offset};

use super::Error;
use crate::answer::{At, BadPlace, Compared, SCHEMA_VERSION, Verified};
use crate::fold::{FoldError, Visit, visit_all};
use crate::projection::Projection;

/// What is counted on the way.
struct Count {
    view: View,
    voids: BTreeMap<Void, u64>,
    events: u64,
    /// How many records the cache holds.
    cached: Option<Offset>,
    /// The last leaf and the root after as many records.
    there: Option<(Hash, Hash)>,
}

impl Visit for Count {
    fn visit(&mut self, offset: Offset, decoded: Decoded<'_>) -> Result<ControlFlow<()>, Halt> {
        let ruling = self.view.advance(offset, &decoded)?;
        match ruling.void {
            Some(void) => *self.voids.entry(void).or_default() += 1,
            None => self.events += decoded.events().len() as u64,
        }
        if self.cached == Some(offset.next()) {
            self.there = Some((decoded.hash(), self.view.tree().root()));
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Folds all of `log` and compares the cache.
pub(super) async fn verify(
    log: &Arc<dyn Log>,
    projection: Option<&Projection>,
    in_use: bool,
) -> Result<Verified, Error> {
    let cache = projection.and_then(Projection::reached).filter(|(next, ..)| next.0 > 0);
    let cached = cache.map(|(next, ..)| next);
    let count = Count { view: View::default(), voids: BTreeMap::new(), events: 0, cached, there: None };
    let (count, error) = visit_all(Arc::clone(log), count).await;
    let view = &count.view;
    let bad = match error {
        None => None,
        Some(FoldError::Read(error @ ReadError::Unavailable(_))) => return Err(error.into()),
        Some(FoldError::Read(ReadError::Damaged { offset, what })) => Some(BadPlace { offset, what }),
        Some(FoldError::Halt(halt)) => Some(BadPlace { offset: view.next(), what: halt.to_string() }),
    };
    let projection = match (projection.and_then(Projection::found_damaged), cache) {
        _ if in_use => Some(Compared::InUse),
        (Some(what), _) => Some(Compared::Damaged { what: what.to_owned() }),
        (None, cache) => cache.map(|(next, last, root)| compare(&count, next, last, root)),
    };
    let voids: u64 = count.voids.values().sum();
    Ok(Verified {
        schema_version: SCHEMA_VERSION,
        ok: bad.is_none() && !matches!(projection, Some(Compared::Differs { .. })),
        ledger: view.state().ledger,
        records: view.next().0,
        counted: view.next().0 - voids,
        voids: count.voids.iter().map(|(void, count)| (void.to_string(), *count)).collect(),
        events: count.events,
        streams: view.ruler().heads().len() as u64,
        read_only: view.read_only().clone(),
        root: view.tree().root(),
        time: At::of(view).time,
        bad,
        projection,
    })
}

fn compare(count: &Count, next: Offset, last: Option<Hash>, root: Hash) -> Compared {
    let differs = |what: String| Compared::Differs { records: next.0, what };
    match count.there {
        None => differs(format!("it folded {next} records, the log holds {}", count.view.next())),
        Some((leaf, _)) if Some(leaf) != last => differs(format!("record {} is another one", next.0 - 1)),
        Some((_, found)) if found != root => differs("an earlier record is another one".to_owned()),
        Some(_) => Compared::Agrees { records: next.0, root },
    }
}
