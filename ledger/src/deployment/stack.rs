//! Stacks and their nodes: from being asked for to being ready, and their health.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemas::run::{Artifact, Capacity, RunSpec};
use schemas::{DeploymentId, EffectId, StackId, StackName, Timestamp, Version, node, stack, text};
use serde::{Deserialize, Serialize};

use super::failure::{self, Failure};
use super::{Deployment, Waiting, waiting};
use crate::at::At;
use crate::decision::Rejection;

/// The nodes that run one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The release's version.
    pub version: Version,
    /// Which stack of that version it is, from 1.
    #[serde(default = "schemas::name::first", skip_serializing_if = "schemas::name::is_first")]
    pub number: u32,
    /// What runs.
    pub artifact: Artifact,
    /// How it is run.
    pub run: RunSpec,
    /// How many nodes it has.
    pub capacity: Capacity,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// How far it is.
    pub phase: Phase,
    /// Its nodes by their place. A place without one waits to be filled.
    pub nodes: BTreeMap<u16, Node>,
    /// How often each place was filled. Never starts again: effects are named by it.
    pub attempts: BTreeMap<u16, u32>,
    /// How often in a row each place lost its node, or got none; [`Stack::failed_starts`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) failed_starts: BTreeMap<u16, u32>,
    /// When each place last lost its node, or the launch of one failed.
    pub vacated_at: BTreeMap<u16, Timestamp>,
    /// Why a place last lost its node, or the launch of one failed.
    pub last_failure: Option<String>,
    /// Why a place first did so since the stack was asked for or was last healthy: the cause of what came after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
    /// That it failed for good, until somebody has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Since when it has had no weight set; nothing while it has some.
    pub unused_since: Option<Timestamp>,
    /// When it first had some weight set; nothing before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_since: Option<Timestamp>,
    /// Whether the rollout that it was made for was dropped, and it has had no traffic since; then it goes at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// Whether its deployment was retired while it stood, and has served nothing since; then it goes at once.
    #[serde(default)]
    pub retired: bool,
}

/// How far a stack is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its nodes are being launched and checked.
    Starting,
    /// Its nodes passed their checks, and enough of them still do.
    Ready,
    /// It was ready, but fewer nodes are than must be.
    Unhealthy,
    /// It did not become ready.
    Failed {
        /// Why.
        reason: String,
    },
    /// It is being taken down.
    Collecting {
        /// Since when.
        since: Timestamp,
        /// How long to wait before the first node goes, in milliseconds.
        drain_ms: u64,
    },
}

/// One running copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The effect that launches it, by which it is known outside.
    pub effect: EffectId,
    /// How often its place was filled before.
    pub attempt: u32,
    /// The port it is told to listen on.
    pub port: u16,
    /// When the launch began.
    pub started_at: Timestamp,
    /// Since when it passes its check, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Timestamp>,
    /// What its check said last, while it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// How far it is.
    pub phase: NodePhase,
}

/// What a check said of a node that fails it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// It.
    pub reason: String,
    /// When that was recorded.
    pub at: Timestamp,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// The launch is under way.
    Launching,
    /// It runs and has not yet passed its check.
    Launched {
        /// Where it listens.
        address: SocketAddr,
        /// What it is called outside.
        instance: String,
    },
    /// It passes its check.
    Ready {
        /// Where it listens.
        address: SocketAddr,
        /// What it is called outside.
        instance: String,
    },
    /// It runs and fails its check.
    Unhealthy {
        /// Where it listens.
        address: SocketAddr,
        /// What it is called outside.
        instance: String,
    },
}

impl Node {
    /// Returns where it listens, once it runs.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.phase {
            NodePhase::Launching => None,
            NodePhase::Launched { address, .. }
            | NodePhase::Ready { address, .. }
            | NodePhase::Unhealthy { address, .. } => Some(*address),
        }
    }

    /// Says whether it passes its check.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, NodePhase::Ready { .. })
    }

    /// Returns where to call it, if it has run for long enough that its check said something of it: one that has just been started
    /// may end at once.
    pub fn callable(&self) -> Option<SocketAddr> {
        let unknown = matches!(self.phase, NodePhase::Launched { .. }) && self.failing.is_none();
        self.address().filter(|_| !unknown)
    }
}

impl Stack {
    /// Returns how many nodes pass their check.
    pub fn ready_nodes(&self) -> u16 {
        u16::try_from(self.nodes.values().filter(|node| node.is_ready()).count()).unwrap_or(u16::MAX)
    }

    /// Says whether as many of them do as must.
    pub(super) fn has_enough_ready(&self) -> bool {
        self.ready_nodes() >= self.capacity.min_ready
    }

    /// Says whether it is known to be unfit for traffic now.
    pub fn is_unfit(&self) -> bool {
        self.phase != Phase::Ready
    }

    /// Says whether it serves or may yet come to.
    pub(super) fn may_serve(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Ready | Phase::Unhealthy)
    }

    /// Says why it cannot be given traffic, if it cannot.
    pub fn not_ready(&self) -> Option<NotReady> {
        let nodes_ready = || text::nodes_ready(self.ready_nodes(), self.capacity.nodes);
        let (why, next) = match &self.phase {
            Phase::Ready => return None,
            Phase::Starting => (nodes_ready(), "wait for the rest with `ionledger status -w`"),
            Phase::Unhealthy => {
                let why = format!("it is unhealthy, {} and {} must be", nodes_ready(), self.capacity.min_ready);
                (why, "look at its nodes with `ionledger status`")
            }
            Phase::Failed { reason } => {
                (format!("its stack failed ({reason})"), "fix the release and ship a new version")
            }
            Phase::Collecting { .. } => {
                ("its stack is being taken down".to_owned(), "make another with `ionledger new`")
            }
        };
        Some(NotReady { why, next })
    }
}

/// Why a stack cannot be given traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// What it is instead.
    pub why: String,
    /// The next step.
    pub next: &'static str,
}

impl NotReady {
    /// Says no to what would give traffic to the stack of this name.
    pub(super) fn refused(self, deployment: &DeploymentId, version: StackName) -> Rejection {
        Rejection::NotReady { deployment: deployment.clone(), version, why: self.why.into(), next: self.next.into() }
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.why, self.next)
    }
}

/// Changes the deployment as an event of a stack says.
pub(super) fn evolve(deployment: &mut Deployment, event: &stack::Event, at: &At) {
    let mut phase = |stack: StackId, phase: Phase| {
        if let Some(stack) = deployment.stacks.get_mut(&stack) {
            stack.phase = phase;
        }
    };
    match event {
        stack::Event::Requested(requested) => {
            failure::forget_version(deployment, &requested.version);
            deployment.stacks.insert(requested.stack, Stack::requested(requested, at));
            if requested.number > 1 {
                let last = deployment.numbers.entry(requested.version.clone()).or_default();
                *last = requested.number.max(*last);
            }
            if let Some(plan) = requested.then_roll.clone() {
                let (stack, commit, at) = (requested.stack, at.commit, at.time);
                waiting::wait(
                    deployment,
                    Waiting {
                        stack,
                        plan,
                        at,
                        by_hand: false,
                        fixes: None,
                        until_rollback: true,
                        commit: Some(commit),
                    },
                );
            }
        }
        stack::Event::Ready(ready) => {
            phase(ready.stack, Phase::Ready);
            if let Some(stack) = deployment.stacks.get_mut(&ready.stack) {
                stack.unused_since = Some(at.time);
                stack.first_failure = None;
            }
        }
        stack::Event::Failed(failed) => failure::fail(deployment, failed, at),
        stack::Event::Unhealthy(unhealthy) => phase(unhealthy.stack, Phase::Unhealthy),
        stack::Event::Recovered(recovered) => {
            phase(recovered.stack, Phase::Ready);
            if let Some(stack) = deployment.stacks.get_mut(&recovered.stack) {
                stack.first_failure = None;
            }
        }
        stack::Event::Dismissed(dismissed) => failure::forget(deployment, dismissed.stack),
    }
}

impl Stack {
    fn requested(requested: &stack::Requested, at: &At) -> Self {
        Self {
            version: requested.version.clone(),
            number: requested.number,
            artifact: requested.artifact.clone(),
            run: requested.run.clone(),
            capacity: requested.capacity,
            requested_at: at.time,
            phase: Phase::Starting,
            nodes: BTreeMap::new(),
            attempts: BTreeMap::new(),
            failed_starts: BTreeMap::new(),
            vacated_at: BTreeMap::new(),
            last_failure: None,
            first_failure: None,
            failure: None,
            unused_since: Some(at.time),
            used_since: None,
            dropped: false,
            retired: false,
        }
    }
}

/// Changes the deployment as an event of a node says.
pub(super) fn evolve_node(deployment: &mut Deployment, event: &node::Event, at: &At) {
    match event {
        node::Event::LaunchStarted(started) => {
            let Some(stack) = deployment.stacks.get_mut(&started.stack) else { return };
            let node = Node {
                effect: started.effect,
                attempt: started.attempt,
                port: started.port,
                started_at: at.time,
                ready_since: None,
                failing: None,
                phase: NodePhase::Launching,
            };
            stack.attempts.insert(started.slot, started.attempt.saturating_add(1));
            stack.nodes.insert(started.slot, node);
        }
        node::Event::Launched(launched) => {
            let (address, instance) = (launched.address, launched.instance.clone());
            change(deployment, launched.effect, |node| node.phase = NodePhase::Launched { address, instance });
        }
        node::Event::Ready(ready) => change(deployment, ready.effect, |node| {
            if let NodePhase::Launched { address, instance } | NodePhase::Unhealthy { address, instance } = &node.phase
            {
                node.phase = NodePhase::Ready { address: *address, instance: instance.clone() };
                (node.ready_since, node.failing) = (Some(at.time), None);
            }
        }),
        node::Event::Unhealthy(unhealthy) => {
            settle(deployment, unhealthy.effect, at);
            change(deployment, unhealthy.effect, |node| {
                if let NodePhase::Ready { address, instance } = &node.phase {
                    node.phase = NodePhase::Unhealthy { address: *address, instance: instance.clone() };
                    node.ready_since = None;
                    node.failing = Some(Failing { reason: unhealthy.reason.clone(), at: at.time });
                }
            });
        }
        node::Event::Failing(failing) => change(deployment, failing.effect, |node| {
            node.failing = Some(Failing { reason: failing.reason.clone(), at: at.time });
        }),
        node::Event::LaunchFailed(failed) => vacate(deployment, failed.effect, Some(&failed.reason), at),
        node::Event::Lost(lost) => vacate(deployment, lost.effect, Some(&lost.reason), at),
        node::Event::Stopped(stopped) => vacate(deployment, stopped.effect, None, at),
    }
}

fn change(deployment: &mut Deployment, effect: EffectId, change: impl FnOnce(&mut Node)) {
    let mut nodes = deployment.stacks.values_mut().flat_map(|stack| stack.nodes.values_mut());
    if let Some(node) = nodes.find(|node| node.effect == effect) {
        change(node);
    }
}

/// Returns the stack and the place of a node.
fn place(deployment: &mut Deployment, effect: EffectId) -> Option<(&mut Stack, u16)> {
    deployment.stacks.values_mut().find_map(|stack| {
        let slot = stack.nodes.iter().find(|(_, node)| node.effect == effect).map(|(slot, _)| *slot)?;
        Some((stack, slot))
    })
}

fn settle(deployment: &mut Deployment, effect: EffectId, at: &At) {
    if let Some((stack, slot)) = place(deployment, effect) {
        stack.settle(slot, at.time);
    }
}

fn vacate(deployment: &mut Deployment, effect: EffectId, failure: Option<&String>, at: &At) {
    let Some((stack, slot)) = place(deployment, effect) else { return };
    stack.settle(slot, at.time);
    let had_started = stack.nodes.remove(&slot).is_some_and(|node| node.is_ready());
    stack.vacated_at.insert(slot, at.time);
    if let Some(reason) = failure {
        stack.count_failure(slot, reason, had_started);
    }
}
