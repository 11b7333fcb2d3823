//! The write side: one append-only log port with its implementations, and the rules of what may follow.
//!
//! A command goes `decide` -> commit -> [`log::Log`]; whoever reads the log applies [`rule`] to each record and
//! folds those that count with `evolve`. [`view::View`] is that fold; [`execute::Ledger`] is the handle that decides,
//! appends and settles.
//!
//! Begin with [`rule`], which says what counts, and [`decide`], which says what may be asked for; both are pure. [`decision`] has the words that every
//! rule answers with. [`deployment`] holds what
//! may happen to a service in an environment: its rollouts, rollbacks, holds and stacks. [`judgement`] judges canaries. A new place for the
//! log implements [`Log`] and passes `log::contract`.

pub mod log;
pub mod rule;
pub mod tree;

pub mod at;
pub mod decision;
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

pub use decision::{Decision, Rejection};
pub use deployment::Deployment;

pub use execute::Ledger;
pub use log::Log;
pub use rule::Halt;
pub use state::State;
pub use view::View;
