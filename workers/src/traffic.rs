//! Traffic: how a deployment's weights reach users, and what was seen of their requests.
//!
//! `routes` and `measures` are plain values that every router adapter and the simulation's fake share.

pub mod measures;
pub mod proxy;
pub mod router;
pub mod routes;

pub use measures::{Counts, Histogram, Measures, NodeMeasures, StackMeasures};
pub use proxy::{ApplyError, ProxyControl, StartError, ensure_running};
pub use router::Router;
pub use routes::{Backends, Entry, Held, Node, Routes, Status, Timeouts};
