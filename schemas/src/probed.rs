//! Probed: what the newest probes say of a deployment's stacks, as data for a decision. Never stored.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::StackId;

/// What the newest probes say of stacks. One that is not in it cannot be asked: nobody could try, or nobody did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Probed(BTreeMap<StackId, ProbeResult>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ProbeResult {
    Passes,
    Fails(String),
}

impl Probed {
    /// Notes that a node of `stack` passes its check.
    pub fn passes(&mut self, stack: StackId) {
        self.0.insert(stack, ProbeResult::Passes);
    }

    /// Notes that no node of `stack` passes its check, and why.
    pub fn fails(&mut self, stack: StackId, why: String) {
        self.0.insert(stack, ProbeResult::Fails(why));
    }

    /// Says whether a node of `stack` is known to pass its check.
    pub fn has_passed(&self, stack: StackId) -> bool {
        self.0.get(&stack) == Some(&ProbeResult::Passes)
    }

    /// Returns why `stack` is known to have no node that passes its check; nothing if one does or it cannot be asked.
    pub fn failure(&self, stack: StackId) -> Option<&str> {
        match self.0.get(&stack)? {
            ProbeResult::Passes => None,
            ProbeResult::Fails(why) => Some(why),
        }
    }
}
