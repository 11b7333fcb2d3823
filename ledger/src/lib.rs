//! The write side: one append-only log port with its implementations, and the rules of what may follow.
//!
//! A command goes `decide` -> commit -> [`log::Log`]; whoever reads the log applies [`rule`] to each record and
//! folds those that count with `evolve`. [`view::View`] is that fold; [`execute::Ledger`] is the handle that decides,
//! appends and settles.

pub mod log;
pub mod rule;
pub mod tree;

pub mod deployment;
pub mod judgement;
pub mod lease;
pub mod heartbeats;
pub mod service;

pub mod decide;
pub mod execute;
pub mod state;
pub mod view;

pub mod telemetry;

#[cfg(test)]
mod kit;

pub use decide::{Decision, Rejection};
pub use deployment::Deployment;

pub use execute::Ledger;
pub use log::Log;
pub use rule::Halt;
pub use state::State;
pub use view::View;
