//! What happens outside: react to the state and the facts, act at the edge, record the outcome.
//!
//! A worker is a pure function, `react(state, facts, now)`, and [`runtime::run`] around it. Adapters carry effects out
//! and have no opinions.
//!
//! Begin with [`provisioner`], [`traffic_shifter`] and [`collector`], the three `react`s, then [`runtime`], the loop around them. The ports
//! are [`nodes`] (where nodes run), [`traffic`] (what shares requests out), [`measures`] (who counts requests) and [`checks`] (whether a node
//! is healthy); each has its adapters below it, and [`proxy`] is our own router. [`glass`] is a rollback without the ledger.

pub mod effect;
pub mod facts;
pub mod watch;
pub mod looks;
pub mod provisioner;
pub mod traffic_shifter;
pub mod collector;
pub mod runtime;
pub mod telemetry;

pub mod durable;
pub mod identity;
pub mod rights;
pub mod nodes;
pub mod artifacts;
pub mod http_client;
pub mod checks;
pub mod probing;
pub mod traffic;
pub mod measures;
pub mod glass;
pub mod proxy;
