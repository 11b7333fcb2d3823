//! A moment: the place in the ledger that a question is about.

use schemas::{CommitId, Offset, Timestamp};

use crate::answer::At;

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

impl Moment {
    /// Returns the time that the question is about, where the log stands at `at`.
    pub(crate) fn time(self, at: At) -> Option<Timestamp> {
        match self {
            Moment::Time(asked) => Some(asked),
            Moment::Now | Moment::Offset(_) | Moment::Event(_) => at.time,
        }
    }
}
