//! Stacks: the nodes that run one release in one environment. Never modified; replaced.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::{StackId, Version};
use crate::rollout::Plan;
use crate::run::{Artifact, Capacity, RunSpec};
use crate::upcast::unchanged;

/// A stack was asked for; everything needed to run it is frozen here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// The stack.
    pub stack: StackId,
    /// The release's version.
    pub version: Version,
    /// Which stack of that version it is in its deployment, from 1. Before version 4 they were not counted, and each is 1.
    pub number: u32,
    /// What runs.
    pub artifact: Artifact,
    /// How it is run.
    pub run: RunSpec,
    /// How many nodes it has.
    pub capacity: Capacity,
    // Only older programs wrote it; now `rollout.requested` says it.
    /// The rollout to start by itself once the stack is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then_roll: Option<Plan>,
}

/// All of a stack's nodes passed their check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// The stack.
    pub stack: StackId,
}

/// A stack did not become ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The stack.
    pub stack: StackId,
    /// Why.
    pub reason: String,
}

/// A ready stack was under its `min_ready` on three looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unhealthy {
    /// The stack.
    pub stack: StackId,
    /// Nodes that are ready.
    pub ready: u16,
}

/// An unhealthy stack has its `min_ready` nodes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recovered {
    /// The stack.
    pub stack: StackId,
}

/// A person has seen that a stack failed; it is shown no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dismissed {
    /// The stack.
    pub stack: StackId,
}

/// The step from version 3, where the stacks of a version were not told apart.
fn numbered(mut payload: serde_json::Value) -> serde_json::Value {
    if let Some(requested) = payload.as_object_mut() {
        requested.insert("number".to_owned(), 1.into());
    }
    payload
}

events! {
    /// What happens to a stack.
    // Version 2: `run` may name a user. Version 3: the plan may have a bake. Version 4: stacks of a version are counted.
    Requested = "stack.requested" [unchanged, unchanged, numbered],
    Ready = "stack.ready",
    Failed = "stack.failed",
    Unhealthy = "stack.unhealthy",
    Recovered = "stack.recovered",
    Dismissed = "stack.dismissed",
}
