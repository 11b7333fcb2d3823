//! The binary with a ledger that runs: the talk's sentences from declaration to history, and what scripts rely on.

mod running;

mod alone;
mod failing;
mod forecast;
mod holds;
mod metrics;
mod refusals;
mod renewals;
mod seen;
mod sentences;
mod terminal;
mod upgrade;
mod waiting;
