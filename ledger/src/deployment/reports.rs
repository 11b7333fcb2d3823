//! What the provisioner and the collector report of nodes and stacks: one function a report.

use schemas::outcome::{
    LaunchFailed, Launched, NodeFailing, NodeLost, NodeReady, NodeStopped, NodeUnhealthy, StackFailed, StackReady,
    StackRecovered, StackUnhealthy, StartLaunch,
};
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{EffectId, Event, StackId, Weights, node, stack};

use super::{Case, Node, NodePhase, Phase, Stack, failure};
use crate::decision::{Decision, Rejection};

/// A report is decided to be so, or to be known already, or no longer to fit: [`Rejection::Outdated`].
type Decided = Result<Decision, Rejection>;

fn outdated(what: String) -> Rejection {
    Rejection::Outdated(what)
}

fn already_so() -> Decided {
    Ok(Decision::default())
}

impl Case<'_> {
    fn reported(&self, event: impl Into<Event>) -> Decided {
        Ok(Decision::on(self.stream(), vec![event.into()]))
    }

    /// Returns a node and its stack, if the node is one of the deployment's.
    fn known_node(&self, effect: EffectId) -> Result<(&Stack, &Node), Rejection> {
        let (_, stack, node) =
            self.deployment.node(effect).ok_or_else(|| outdated(format!("node {effect} is not one of {}", self.id)))?;
        Ok((stack, node))
    }

    /// Returns a stack, if the deployment has it and `fits` says that the report follows from its nodes.
    fn fitting_stack(&self, id: StackId, fits: impl FnOnce(&Stack) -> bool) -> Result<&Stack, Rejection> {
        let stack = self.deployment.stacks.get(&id).filter(|stack| fits(stack));
        stack.ok_or_else(|| outdated(format!("stack {id} is not as it was seen")))
    }
}

/// Decides that a node is about to be launched.
pub(super) fn decide_start_launch(case: &Case<'_>, start: &StartLaunch) -> Decided {
    let &StartLaunch { stack, slot, attempt, effect, port } = start;
    let found = case.deployment.stacks.get(&stack).ok_or_else(|| outdated(format!("stack {stack} is gone")))?;
    let next = found.attempts.get(&slot).copied().unwrap_or(0);
    if !found.may_serve() || slot >= found.capacity.nodes || found.nodes.contains_key(&slot) || next != attempt {
        return Err(outdated(format!("place {slot} of stack {stack} needs no attempt {attempt}")));
    }
    case.reported(node::LaunchStarted { effect, stack, slot, attempt, port })
}

/// Decides that a node runs: none if that is known.
pub(super) fn decide_launched(case: &Case<'_>, launched: &Launched) -> Decided {
    let Launched { effect, address, instance } = launched.clone();
    match case.known_node(effect)?.1.phase {
        NodePhase::Launching => case.reported(node::Launched { effect, address, instance }),
        NodePhase::Launched { .. } | NodePhase::Ready { .. } | NodePhase::Unhealthy { .. } => already_so(),
    }
}

/// Decides that a node could not be launched.
pub(super) fn decide_launch_failed(case: &Case<'_>, failed: &LaunchFailed) -> Decided {
    let LaunchFailed { effect, reason } = failed.clone();
    match case.known_node(effect)?.1.phase {
        NodePhase::Launching => case.reported(node::LaunchFailed { effect, reason }),
        NodePhase::Launched { .. } | NodePhase::Ready { .. } | NodePhase::Unhealthy { .. } => {
            Err(outdated(format!("node {effect} was launched")))
        }
    }
}

/// Decides that a node passes its check: none if it did.
pub(super) fn decide_node_ready(case: &Case<'_>, ready: &NodeReady) -> Decided {
    let effect = ready.effect;
    match case.known_node(effect)?.1.phase {
        NodePhase::Launched { .. } | NodePhase::Unhealthy { .. } => case.reported(node::Ready { effect }),
        NodePhase::Ready { .. } => already_so(),
        NodePhase::Launching => Err(outdated(format!("node {effect} is not launched"))),
    }
}

/// Decides that a node which passed its check fails it: none if that is known.
pub(super) fn decide_node_unhealthy(case: &Case<'_>, unhealthy: &NodeUnhealthy) -> Decided {
    let NodeUnhealthy { effect, reason } = unhealthy.clone();
    match case.known_node(effect)?.1.phase {
        NodePhase::Ready { .. } => case.reported(node::Unhealthy { effect, reason }),
        NodePhase::Unhealthy { .. } => already_so(),
        NodePhase::Launching | NodePhase::Launched { .. } => Err(outdated(format!("node {effect} was never ready"))),
    }
}

/// Decides that a node which never passed its check fails it: none if the check said the same before.
pub(super) fn decide_node_failing(case: &Case<'_>, failing: &NodeFailing) -> Decided {
    let NodeFailing { effect, reason } = failing.clone();
    let node = case.known_node(effect)?.1;
    match (&node.phase, &node.failing) {
        (NodePhase::Launched { .. }, Some(known)) if known.reason == reason => already_so(),
        (NodePhase::Launched { .. }, _) => case.reported(node::Failing { effect, reason }),
        (NodePhase::Launching | NodePhase::Ready { .. } | NodePhase::Unhealthy { .. }, _) => {
            Err(outdated(format!("node {effect} is not being checked before it is ready")))
        }
    }
}

/// Decides that a node is gone.
pub(super) fn decide_node_lost(case: &Case<'_>, lost: &NodeLost) -> Decided {
    let NodeLost { effect, reason } = lost.clone();
    case.known_node(effect)?;
    case.reported(node::Lost { effect, reason })
}

/// Decides that a node was taken down.
pub(super) fn decide_node_stopped(case: &Case<'_>, stopped: &NodeStopped) -> Decided {
    let effect = stopped.effect;
    match case.known_node(effect)?.0.phase {
        Phase::Collecting { .. } => case.reported(node::Stopped { effect }),
        Phase::Starting | Phase::Ready | Phase::Unhealthy | Phase::Failed { .. } => {
            Err(outdated(format!("node {effect} is not to be taken down")))
        }
    }
}

/// Decides that every node of a stack is ready. A rollback that waited for it is carried out with it.
pub(super) fn decide_stack_ready(case: &Case<'_>, ready: &StackReady) -> Decided {
    let id = ready.stack;
    let all_ready = |stack: &Stack| stack.phase == Phase::Starting && stack.ready_nodes() == stack.capacity.nodes;
    case.fitting_stack(id, all_ready)?;
    let mut events: Vec<Event> = vec![stack::Ready { stack: id }.into()];
    if case.deployment.traffic.awaited == Some(id) {
        events.push(WeightsSet { weights: Weights::all_on(id), purpose: Purpose::Rollback }.into());
    }
    Ok(Decision::on(case.stream(), events))
}

/// Decides that a stack failed for good.
pub(super) fn decide_stack_failed(case: &Case<'_>, failed: &StackFailed) -> Decided {
    let StackFailed { stack: id, reason } = failed.clone();
    case.fitting_stack(id, |stack| failure::fits(case, id, stack))?;
    case.reported(stack::Failed { stack: id, reason })
}

/// Decides that too few nodes of a ready stack pass their check.
pub(super) fn decide_stack_unhealthy(case: &Case<'_>, unhealthy: &StackUnhealthy) -> Decided {
    let id = unhealthy.stack;
    let stack = case.fitting_stack(id, |stack| stack.phase == Phase::Ready && !stack.has_enough_ready())?;
    case.reported(stack::Unhealthy { stack: id, ready: stack.ready_nodes() })
}

/// Decides that enough nodes of an unhealthy stack pass their check again.
pub(super) fn decide_stack_recovered(case: &Case<'_>, recovered: &StackRecovered) -> Decided {
    let id = recovered.stack;
    case.fitting_stack(id, |stack| stack.phase == Phase::Unhealthy && stack.has_enough_ready())?;
    case.reported(stack::Recovered { stack: id })
}
