//! What happens outside: react to the state and the facts, act at the edge, record the outcome.
//!
//! A worker is a pure function, `react(state, facts, now)`, and [`runtime::run`] around it. Adapters carry effects out
//! and have no opinions.
//!
//! Begin with [`provisioner`], [`traffic_shifter`] and [`collector`], which say of each deployment what is to be done, then
//! [`reactor`], which asks them of what changed, and [`runtime`], the loop around it. [`break_glass`] is a rollback without the
//! ledger.
//!
//! A port is a file, and its adapters lie in the folder of its name. These systems are supported:
//!
//! | port | adapter | system |
//! | --- | --- | --- |
//! | [`nodes::Nodes`]: where nodes run | [`nodes::process`] | processes of this machine |
//! | [`traffic::Router`]: what shares requests out over nodes | [`traffic::proxy`] | our own router, the crate [`proxy`] |
//! | [`measures::Source`]: who counts requests | [`measures::prometheus`] | Prometheus, by its HTTP API |
//! | | [`measures::proxy`] | the counters of our own router, which need no `Source`: they are read with its routes |
//! | [`checks::Checks`]: whether a node answers as it must | [`checks::http`] | HTTP |
//!
//! Sources have names in policies; [`measures::registry`] has a row for each. An adapter with heavy dependencies, such as one for
//! Docker or AWS, will be a crate of its own.

pub mod effect;
pub mod facts;
pub mod touched;
mod tcp_ports;
pub mod watch;
pub mod poll;
pub mod routing;
pub mod provisioner;
pub mod traffic_shifter;
pub mod collector;
pub mod reactor;
pub mod runtime;
pub mod telemetry;

pub mod durable;
pub mod text_file;
mod proc_stat;
pub mod identity;
pub mod rights;
pub mod artifacts;
pub mod http_client;

pub mod nodes;
pub mod traffic;
pub mod measures;
pub mod checks;

pub mod probing;
pub mod break_glass;
