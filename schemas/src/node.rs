//! Nodes: the running copies of a stack. Each is launched by one effect and known by its id.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::{EffectId, StackId};

/// A node is about to be launched: the intent, with every choice made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaunchStarted {
    /// The effect, and so the node.
    pub effect: EffectId,
    /// The stack.
    pub stack: StackId,
    /// Which of the stack's places the node fills, from 0.
    pub slot: u16,
    /// How often this place was filled before, from 0.
    pub attempt: u32,
    /// The port it is told to listen on.
    pub port: u16,
}

/// A node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Launched {
    /// The effect.
    pub effect: EffectId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called outside: a process with its start, a container, an EC2 instance.
    pub instance: String,
}

/// A node could not be launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaunchFailed {
    /// The effect.
    pub effect: EffectId,
    /// Why.
    pub reason: String,
}

/// A node passed its check as often as it must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// The effect.
    pub effect: EffectId,
}

/// A ready node fails its check; it gets no traffic while others of its stack are ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unhealthy {
    /// The effect.
    pub effect: EffectId,
    /// What the check said.
    pub reason: String,
}

/// A node that was launched and is not ready yet fails its check: said once it has failed for some seconds, and again when
/// the check says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failing {
    /// The effect.
    pub effect: EffectId,
    /// What the check said.
    pub reason: String,
}

/// A node is gone that nobody took down; its place is filled anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The effect.
    pub effect: EffectId,
    /// What was seen.
    pub reason: String,
}

/// A node was taken down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopped {
    /// The effect.
    pub effect: EffectId,
}

events! {
    /// What happens to a node.
    LaunchStarted = "node.launch_started",
    Launched = "node.launched",
    LaunchFailed = "node.launch_failed",
    Ready = "node.ready",
    Unhealthy = "node.unhealthy",
    Failing = "node.failing",
    Lost = "node.lost",
    Stopped = "node.stopped",
}
