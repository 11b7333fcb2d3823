//! A moment: the place in the ledger that a question is about.

use schemas::{CommitId, Offset, Timestamp};

/// The moment a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The end of the log.
    Now,
    /// After the last record whose ledger time is not later than this.
    Time(Timestamp),
    /// After the record at this offset.
    Offset(Offset),
    /// After this commit.
    Event(CommitId),
}
