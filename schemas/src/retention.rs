//! Retention: taking down what is no longer used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::StackId;

/// A stack will be taken down after its drain: the intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionStarted {
    /// The stack.
    pub stack: StackId,
    /// Why.
    pub reason: String,
    /// How long to wait first, in milliseconds.
    pub drain_ms: u64,
}

/// All nodes of a stack are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// The stack.
    pub stack: StackId,
}

events! {
    /// What happens to stacks that are no longer used.
    CollectionStarted = "retention.collection_started",
    Collected = "retention.collected",
}
