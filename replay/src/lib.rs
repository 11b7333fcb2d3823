//! The read side: the log folded into answers, now or at any moment of the past.
//!
//! [`answer`] holds the answers as plain values and the pure functions that make them.

pub mod answer;
pub mod shares;

mod moment;

pub use moment::Moment;
