//! Stacks and their nodes: which there are, how far each is, and what its requests did.

use std::net::SocketAddr;

use ledger::deployment::{self, Deployment, rejected, retention, stack};
use schemas::{EffectId, StackId, StackName, Timestamp, Version, Weight};
use serde::{Deserialize, Serialize};

/// A stack: the nodes that run one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// The version it runs.
    pub version: Version,
    /// Its name, as commands take it: `1.2.3`, or `1.2.3~2`.
    #[serde(default)]
    pub name: Option<StackName>,
    /// The stack.
    pub stack: StackId,
    /// How far it is.
    pub phase: StackPhase,
    /// Why it failed, if it did.
    pub reason: Option<String>,
    /// When it failed, if it did.
    #[serde(default)]
    pub failed_at: Option<Timestamp>,
    /// Why a node of it was last lost or could not be launched, if one was.
    pub last_failure: Option<String>,
    /// How many nodes pass their check.
    pub nodes_ready: u16,
    /// How many nodes are wanted.
    pub nodes_wanted: u16,
    /// How many nodes must pass for it to be healthy.
    pub nodes_ready_min: u16,
    /// The weight that was asked for.
    pub weight_set: Weight,
    /// The weight that the router confirmed.
    pub weight_applied: Weight,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Since when it has had no weight set; none while it has some.
    pub unused_since: Option<Timestamp>,
    /// Since when it is being taken down, if it is.
    pub collecting_since: Option<Timestamp>,
    /// Why it is taken down as soon as that can be, if it is and that has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves_because: Option<String>,
    /// Whether a rollout starts by itself once it is ready.
    pub rolls_when_ready: bool,
    /// What is held against it, if anything is: then no rollback goes to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedStatus>,
    /// Its nodes by their place.
    pub nodes: Vec<NodeStatus>,
    /// What its requests did in the last minute, where that is asked of one service and was measured. Only of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredStatus>,
}

/// What was measured of a version's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredStatus {
    /// Over how many seconds.
    pub seconds: f64,
    /// Requests that ended.
    pub requests: u64,
    /// Their number in a second.
    pub requests_per_second: f64,
    /// Those that failed, if that is known.
    pub errors: Option<u64>,
    /// Half of them took at most so many milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 % of them took at most so many milliseconds.
    pub p99_ms: Option<f64>,
}

/// What is held against a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedStatus {
    /// What happened to it, in words, after its name.
    pub why: String,
    /// Whether `--again` must be said before it gets traffic.
    pub needs_again: bool,
    /// When.
    pub at: Timestamp,
}

/// How far a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackPhase {
    /// Its nodes are being launched and checked.
    Starting,
    /// Its nodes passed their checks, and enough of them still do.
    Ready,
    /// It was ready, but fewer nodes are than must be.
    Unhealthy,
    /// It did not become ready, or was given up. Its nodes go; it is shown until its version gets another stack or it is
    /// dismissed.
    Failed,
    /// It is being taken down.
    Collecting,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its place in the stack, from 0.
    pub slot: u16,
    /// The effect that launched it.
    pub effect: EffectId,
    /// How often its place was filled before.
    pub attempt: u32,
    /// How far it is.
    pub phase: NodePhase,
    /// Where it listens, once it runs.
    pub address: Option<SocketAddr>,
    /// What it is called outside, once it runs.
    pub instance: Option<String>,
    /// When its launch began.
    pub started_at: Timestamp,
    /// What its check says, while it fails.
    #[serde(default)]
    pub failing: Option<String>,
    /// Whether its process was seen to run, where nobody runs who follows the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<bool>,
    /// Where its log lies on its machine, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// The launch is under way.
    Launching,
    /// It runs and has not yet passed its check.
    Launched,
    /// It passes its check.
    Ready,
    /// It runs and fails its check.
    Unhealthy,
}

pub(super) fn version_status(deployment: &Deployment, id: StackId, stack: &deployment::Stack) -> VersionStatus {
    let (mut phase, mut reason, collecting_since) = match &stack.phase {
        stack::Phase::Starting => (StackPhase::Starting, None, None),
        // The ledger records it a few looks later, and its router knows it already.
        stack::Phase::Ready if stack.ready_nodes() < stack.capacity.min_ready => (StackPhase::Unhealthy, None, None),
        stack::Phase::Ready => (StackPhase::Ready, None, None),
        stack::Phase::Unhealthy => (StackPhase::Unhealthy, None, None),
        stack::Phase::Failed { reason } => (StackPhase::Failed, Some(reason.clone()), None),
        stack::Phase::Collecting { since, .. } => (StackPhase::Collecting, None, Some(*since)),
    };
    if let Some(failure) = &stack.failure {
        (phase, reason) = (StackPhase::Failed, Some(failure.reason.clone()));
    }
    VersionStatus {
        version: stack.version.clone(),
        name: Some(stack.name()),
        stack: id,
        phase,
        reason,
        failed_at: stack.failure.as_ref().map(|failure| failure.at),
        last_failure: stack.last_failure.clone(),
        nodes_ready: stack.ready_nodes(),
        nodes_wanted: stack.capacity.nodes,
        nodes_ready_min: stack.capacity.min_ready,
        weight_set: deployment.traffic.set_weight(id),
        weight_applied: deployment.traffic.applied_weight(id),
        requested_at: stack.requested_at,
        unused_since: stack.unused_since,
        collecting_since,
        leaves_because: retention::leaves(deployment, id).map(str::to_owned),
        rolls_when_ready: deployment.waiting.as_ref().is_some_and(|waiting| waiting.stack == id),
        rejected: rejected::of(deployment, id).map(|rejected| RejectedStatus {
            why: rejected.told(),
            needs_again: rejected.needs_again(),
            at: rejected.at,
        }),
        nodes: stack.nodes.iter().map(|(slot, node)| node_status(*slot, node)).collect(),
        measured: None,
    }
}

/// What is left to show of a failed stack whose nodes are gone.
pub(super) fn failed_status(deployment: &Deployment, id: StackId, failed: &deployment::Failed) -> VersionStatus {
    VersionStatus {
        version: failed.version.clone(),
        name: deployment.name_of(id),
        stack: id,
        phase: StackPhase::Failed,
        reason: Some(failed.failure.reason.clone()),
        failed_at: Some(failed.failure.at),
        last_failure: None,
        nodes_ready: 0,
        nodes_wanted: failed.nodes,
        nodes_ready_min: failed.min_ready,
        weight_set: Weight::ZERO,
        weight_applied: Weight::ZERO,
        requested_at: failed.requested_at,
        unused_since: None,
        collecting_since: None,
        leaves_because: None,
        rolls_when_ready: false,
        rejected: None,
        nodes: vec![],
        measured: None,
    }
}

fn node_status(slot: u16, node: &deployment::Node) -> NodeStatus {
    let (phase, instance) = match &node.phase {
        stack::NodePhase::Launching => (NodePhase::Launching, None),
        stack::NodePhase::Launched { instance, .. } => (NodePhase::Launched, Some(instance.clone())),
        stack::NodePhase::Ready { instance, .. } => (NodePhase::Ready, Some(instance.clone())),
        stack::NodePhase::Unhealthy { instance, .. } => (NodePhase::Unhealthy, Some(instance.clone())),
    };
    NodeStatus {
        slot,
        effect: node.effect,
        attempt: node.attempt,
        phase,
        address: node.address(),
        instance,
        started_at: node.started_at,
        failing: node.failing.as_ref().map(|failing| failing.reason.clone()),
        runs: None,
        log: None,
    }
}
