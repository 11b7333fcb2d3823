//! The read side: the log folded into answers, now or at any moment of the past.
//!
//! [`Reader`] answers; [`answer`] holds the answers as plain values and the pure functions that make them. What it
//! reads is either the [`Projection`]'s rows, a cache that can be deleted at any time, or the log itself, folded by
//! [`fold_all`].
//!
//! Begin with [`answer`]: each answer is a value and a function of the state and history. [`open()`] opens a ledger together with its
//! projection. A [`Moment`] is what can be asked about.

pub mod answer;
pub mod projection;
pub mod shares;

mod fold;
mod moment;
mod open;
mod outage;
mod reader;

pub use fold::{FoldError, fold_all};
pub use moment::Moment;
pub use open::{Opened, ReplayOpenError, open, open_absent, open_log};
pub use projection::Projection;
pub use reader::{Error, HistoryQuery, ProductionAt, Reader};
