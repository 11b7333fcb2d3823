//! Routing: the routes that serve a deployment's weights, made of the ledger's state. Whoever tells a router makes them here.

use std::collections::BTreeMap;

use ledger::State;
use ledger::deployment::{Deployment, Stack};
use schemas::{DeploymentId, Weights};

use crate::traffic::{Node, Routes, StackNodes, Timeouts};

/// Returns the routes that serve what is set, if anything is and a node of every version with weight can be called.
pub fn routes(state: &State, id: &DeploymentId, deployment: &Deployment) -> Option<Routes> {
    routes_by(&deployment.traffic.set.as_ref()?.weights, state, id, deployment)
}

/// Returns the routes that serve what is set for every deployment, where nobody has turned the router to something else.
pub fn all_set(state: &State) -> Vec<Routes> {
    let undrifted = state.deployments.iter().filter(|(_, deployment)| deployment.traffic.drift.is_none());
    undrifted.filter_map(|(id, deployment)| routes(state, id, deployment)).collect()
}

/// Returns the routes that serve `weights` with the nodes of now, if a node of every version with weight can be called.
pub fn routes_by(weights: &Weights, state: &State, id: &DeploymentId, deployment: &Deployment) -> Option<Routes> {
    let definition = state.service(&id.service)?.definition.as_ref()?;
    let mut backends = BTreeMap::new();
    for (stack_id, _) in weights.iter() {
        let stack = deployment.stacks.get(&stack_id)?;
        let nodes = nodes(stack);
        if nodes.is_empty() {
            return None;
        }
        backends.insert(stack_id, StackNodes { version: stack.name(), nodes });
    }
    Some(Routes {
        deployment: id.clone(),
        generation: deployment.generation(),
        listen: definition.listen.get(&id.environment).copied(),
        weights: weights.clone(),
        backends,
        timeouts: Timeouts::default(),
        nodes_only: false,
    })
}

/// Returns the nodes to call: the ready ones, or all that can be called while none is ready.
fn nodes(stack: &Stack) -> Vec<Node> {
    let call = |node: &ledger::deployment::Node| node.callable().map(|address| Node { effect: node.effect, address });
    let ready: Vec<Node> = stack.nodes.values().filter(|node| node.is_ready()).filter_map(call).collect();
    if ready.is_empty() { stack.nodes.values().filter_map(call).collect() } else { ready }
}
