//! The port to checks: whether a node answers as it must. Three answers: it does, it does not, it cannot be told.

pub mod http;

use std::net::SocketAddr;

use schemas::run::HttpCheck;

/// What one probe found. Counting probes in a row is not done here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The node answered as it must.
    Passed {
        /// From the first packet to the answer's end, in milliseconds, rounded up.
        latency_ms: u64,
    },
    /// The node did not answer as it must.
    Failed {
        /// What was wrong.
        reason: String,
    },
    /// The fault is on our side, so nothing is known of the node.
    Unknown {
        /// What stood in the way.
        reason: String,
    },
}

/// Where checks are made.
#[async_trait::async_trait]
pub trait Checks: Send + Sync {
    /// Checks once, with no retry.
    async fn probe(&self, address: SocketAddr, check: &HttpCheck) -> Probe;
}
