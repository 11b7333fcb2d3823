//! How long a user is waited for, and how much is kept of what it sends.

use std::time::Duration;

/// How much of a body is kept on its way, in each direction, in bytes.
pub(super) const BUFFER_MAX: usize = 64 * 1_024;

/// How long a user is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the rest of a request's head; default 10 s (against users who send a byte now and then).
    pub head: Duration,
    /// For the next request on a connection; default 75 s.
    pub idle: Duration,
    /// For taking any of an answer that is there; default 60 s.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), stall: Duration::from_secs(60) }
    }
}

impl Patience {
    /// Returns how often to look: so that no silence lasts more than a fifth longer than it may.
    pub(super) fn look(&self) -> Duration {
        (self.head.min(self.idle).min(self.stall) / 5).max(Duration::from_millis(1))
    }
}
