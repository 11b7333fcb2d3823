//! Where an event stands, for the folds.

use schemas::{CommitId, StreamVersion, Timestamp};

/// When and where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The ledger's time; of a rollback that was carried out without the ledger, when it took effect.
    pub time: Timestamp,
    /// Its commit.
    pub commit: CommitId,
    /// Its stream's version with that commit.
    pub version: StreamVersion,
}
