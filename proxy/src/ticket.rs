//! A request's ticket: its entry in its node's meter.

use std::sync::Arc;
use std::time::Instant;

use super::backend::Backend;
use super::meter::{InFlightKey, RequestOutcome};

/// A request's entry in its node's meter; if it is dropped before anything was reported, the request was abandoned.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) backend: Arc<Backend>,
    place: InFlightKey,
    outcome: RequestOutcome,
}

impl Ticket {
    pub(super) fn new(backend: Arc<Backend>, start: Instant) -> Self {
        let place = backend.meter.begin(start);
        Self { backend, place, outcome: RequestOutcome::Abandoned }
    }

    /// Ends the request.
    pub(super) fn end(mut self, outcome: RequestOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.backend.meter.end(self.place, self.outcome, Instant::now());
    }
}
