//! What a worker leaves out: a deployment of which it noticed no change would have asked for nothing.

use ledger::State;
use schemas::Timestamp;
use workers::facts::Facts;
use workers::reactor::Reactor;

use super::Checks;

/// The number of what is checked here. It is none of the design's invariants: what breaks it costs time, until the worker
/// reacts to everything again.
pub const LEFT_OUT: u8 = 20;

impl Checks {
    /// 20: reacting to what changed comes to the same as reacting to everything.
    pub fn left_out(&mut self, name: &str, reactor: &Reactor, state: &State, facts: &Facts, now: Timestamp) {
        for (id, deployment) in &state.deployments {
            if let Some(missed) = reactor.missed_reaction(state, facts, id, deployment, now) {
                return self.fail(LEFT_OUT, format!("{name} left {id} out, which asks for {missed:?}"));
            }
        }
    }
}
