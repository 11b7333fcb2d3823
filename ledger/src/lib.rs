//! The write side: one append-only log port with its implementations, and the rules of what may follow.
//!
//! A command goes `decide` -> commit -> [`log::Log`]; whoever reads the log applies [`rule`] to each record and
//! folds those that count with `evolve`. [`view::View`] is that fold; [`execute::Ledger`] is the handle that decides,
//! appends and settles.

pub mod log;
pub mod rule;
pub mod tree;

pub use log::Log;
